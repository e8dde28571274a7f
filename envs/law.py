"""What a game must keep to (`envs.game`), asked of one that is somebody else's: shapes, types, and an end."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from envs.game import ACTION_MASK, Game, Observation, Role, Turn, release, seat_count

ROWS = 2
# Longer games are not played to their end.
STEPS = 300


def check_game(game: Game) -> None:
    """Raises ValueError that says what is not as it should be, or whatever the game raises, in an episode of any actions that it allows."""
    seats = seat_count(game)
    last = None
    for shown, turn in play_anything(game, min(STEPS, game.max_steps)):
        for role in game.roles:
            _check_shown(role, shown.get(role.name, {}))
            _check(f"rewards of {role.name}", turn.rewards.get(role.name), [(ROWS, role.seats)], "floating point")
        _check("over", turn.over, [(ROWS,)], "bool")
        for name, measured in turn.measures.items():
            _check(f"measure {name}", measured, [(ROWS,), (ROWS, seats)], "floating point")
        last = turn
    if last is None:
        raise ValueError(f"max_steps is {game.max_steps}; want at least 1")
    if game.max_steps <= STEPS and not bool(last.over.any()):
        raise ValueError(f"no episode is over after {game.max_steps} steps; want all to end by max_steps")


def play_anything(game: Game, steps: int) -> Iterator[tuple[dict[str, Observation], Turn]]:
    """What was shown before, and came of, each step of an episode of actions that the game allows, up to `steps` or its end."""
    state = game.start(torch.arange(1, ROWS + 1))
    for step in range(steps):
        shown = game.observe(state)
        game.describe(state, 0)
        actions = {role.name: _any_actions(role, shown.get(role.name, {}).get(ACTION_MASK), step) for role in game.roles}
        state, turn = game.step(state, actions)
        yield shown, turn
        if bool(turn.over.any()):
            break
    release(game, state)


def _any_actions(role: Role, mask: Tensor | None, step: int) -> Tensor:
    """[ROWS, seats, ...], of the role's action space; the same for everyone who asks. mask: [ROWS, seats, A], which are allowed."""
    space = copy.deepcopy(role.action_space)
    space.seed(step)
    allowed = [[None] * role.seats] * ROWS if mask is None else mask.to(torch.int8).numpy()
    return torch.as_tensor(np.array([[space.sample(of_seat) for of_seat in of_row] for of_row in allowed]))


def _check_shown(role: Role, shown: Observation) -> None:
    spaces = role.observation_space.spaces
    if shown.keys() != spaces.keys():
        raise ValueError(f"{role.name} is shown {', '.join(shown) or 'nothing'}; its observation_space has {', '.join(spaces)}")
    for field, space in spaces.items():
        kind = "floating point" if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating) else "whole numbers"
        _check(f"{field} of {role.name}", shown[field], [(ROWS, role.seats, *(space.shape or ()))], kind)


def _check(what: str, found: Any, shapes: list[tuple[int, ...]], kind: str) -> None:
    wanted = " or ".join(str(list(shape)) for shape in shapes)
    if not isinstance(found, Tensor):
        raise ValueError(f"{what}: {type(found).__name__}; want a tensor of shape {wanted}")
    if tuple(found.shape) not in shapes:
        raise ValueError(f"{what} has shape {list(found.shape)}; want {wanted}, for {ROWS} games")
    fits = {"bool": found.dtype == torch.bool, "floating point": found.is_floating_point()}.get(kind, not found.is_floating_point())
    if not fits:
        raise ValueError(f"{what} is {found.dtype}; want {kind}")
