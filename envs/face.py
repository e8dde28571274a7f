"""A game's face to the rest of the world: PettingZoo's ParallelEnv and AEC, Gymnasium for single-seat games, and pictures.

`parallel_env("prisoners_dilemma")` and `aec_env(...)` give PettingZoo environments; `gymnasium.make("envs.face:Coterie/<name>-v0")` any
game of `GAMES` that has a single seat. One episode of these is one trial of one episode. `reset(seed=s)` plays the trial with seed s, the
same that a rollout plays; without a seed, the next trial of that row. An observation with a single field is handed over bare: a
dilemma's is Discrete(5), not a Dict around it. An agent's info holds those of the game's measures that say something of it at that step.
"""

from __future__ import annotations

import copy
import importlib
import math
import secrets
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import parallel_to_aec
from PIL import Image, ImageDraw, ImageFont

from envs import GAMES
from envs.chance import luck_of_episode, luck_of_trial
from envs.game import Game, Role, Scene, Turn, seat_count, seats_of
from envs.settings import checked, nearest

RENDER_MODES = ["human", "ansi", "rgb_array"]


class _SingleGame:
    """A batch of one, from outside: numbers and numpy arrays instead of tensors."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.seats = list(seats_of(game))
        self.row_seed: torch.Tensor | None = None
        self.trial = 0
        self.state: Any = None

    def reset(self, seed: int | None) -> None:
        if seed is None and self.row_seed is not None:
            self.trial += 1
        else:
            self.row_seed = torch.tensor([secrets.randbits(63) if seed is None else _checked(seed)])
            self.trial = 0
        self.state = self.game.start(luck_of_episode(luck_of_trial(self.row_seed, self.trial), 0))

    def observations(self) -> dict[str, Any]:
        """{seat's name: {field: a number or an array of the field's dtype}}, or the only field's value."""
        arrays = {
            role: {name: value[0].numpy() for name, value in fields.items()} for role, fields in self.game.observe(self.state).items()
        }
        seen = {}
        for name, role, seat in self.seats:
            fields = {field: _plain(array[seat], role.observation_space[field]) for field, array in arrays[role.name].items()}
            seen[name] = fields if len(fields) > 1 else next(iter(fields.values()))
        return seen

    def step(self, actions: dict[str, Any]) -> Turn:
        """actions: {seat's name: an action}. Raises ValueError for one that is missing or not in the seat's action space."""
        if self.state is None:
            raise ValueError("step before reset; call reset first")
        chosen: dict[str, list[Any]] = {}
        for name, role, _ in self.seats:
            if name not in actions:
                raise ValueError(f"no action for {name}; want one for each of {', '.join(seat for seat, _, _ in self.seats)}")
            if not role.action_space.contains(actions[name]):
                raise ValueError(f"the action of {name} is {actions[name]!r}; want one of {role.action_space}")
            chosen.setdefault(role.name, []).append(actions[name])
        batched = {role.name: _batch_of_one(chosen[role.name], role.action_space) for role in self.game.roles}
        self.state, turn = self.game.step(self.state, batched)
        return turn

    def infos(self, turn: Turn) -> dict[str, dict[str, float]]:
        """{seat's name: {measure: value}}, without those that are NaN."""
        values = {name: value[0].expand(len(self.seats)).tolist() for name, value in turn.measures.items()}
        return {
            seat: {name: each[place] for name, each in values.items() if not math.isnan(each[place])}
            for place, (seat, _, _) in enumerate(self.seats)
        }

    def render(self, mode: str | None) -> Any:
        if self.state is None:
            raise ValueError("render before reset; call reset first")
        scene = self.game.describe(self.state, 0)
        if mode == "rgb_array":
            return draw(scene)
        if mode == "human":
            print(scene.text)
            return None
        return scene.text if mode == "ansi" else None


def _checked(seed: Any) -> int:
    if not isinstance(seed, (int, np.integer)) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed is {seed!r}; want a whole number of 64 bits")
    return int(seed)


def _batch_of_one(actions: list[Any], space: gym.Space[Any]) -> torch.Tensor:
    """[1, seats, ...] of the type that games are given elsewhere: int64 for choices, whatever type of integer holds them here."""
    is_choice = isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete))
    return torch.from_numpy(np.array([actions], dtype=np.int64 if is_choice else space.dtype))


def _plain(value: Any, space: gym.Space[Any]) -> Any:
    """A number for a discrete field, else an array of its own (the game's state must not be reachable through it)."""
    if isinstance(space, gym.spaces.Discrete):
        return np.int64(value)
    return np.array(value, dtype=space.dtype)


def _bare(space: gym.spaces.Dict) -> gym.Space[Any]:
    """A copy of the only field's space, or of all."""
    return copy.deepcopy(space if len(space) > 1 else next(iter(space.values())))


class GameParallelEnv(ParallelEnv):
    """Any game as a PettingZoo ParallelEnv. Agents are `role_0`, `role_1`, ...; all end together."""

    def __init__(self, game: Game, name: str = "game", render_mode: str | None = None) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise ValueError(f"render_mode is {render_mode!r}; want one of {', '.join(RENDER_MODES)}")
        self.metadata = {"name": name, "render_modes": RENDER_MODES, "is_parallelizable": True, "render_fps": 4}
        self.render_mode = render_mode
        self._single = _SingleGame(game)
        self.possible_agents = [seat for seat, _, _ in self._single.seats]
        self.agents: list[str] = []
        # Each agent has spaces of its own, so that seeding one does not seed another.
        self.observation_spaces = {seat: _bare(role.observation_space) for seat, role, _ in self._single.seats}
        self.action_spaces = {seat: copy.deepcopy(role.action_space) for seat, role, _ in self._single.seats}

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._single.reset(seed)
        self.agents = list(self.possible_agents)
        return self._single.observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        turn = self._single.step(actions)
        over = bool(turn.over[0])
        lists = {role: rewards[0].tolist() for role, rewards in turn.rewards.items()}
        rewards = {name: lists[role.name][seat] for name, role, seat in self._single.seats}
        agents = self.agents
        if over:
            self.agents = []
        return (
            self._single.observations(),
            rewards,
            dict.fromkeys(agents, over),
            dict.fromkeys(agents, False),
            self._single.infos(turn),
        )

    def render(self) -> Any:
        return self._single.render(self.render_mode)

    def close(self) -> None:
        pass


class SingleSeatEnv(gym.Env):
    """A game of one seat as a Gymnasium environment."""

    metadata = {"render_modes": RENDER_MODES, "render_fps": 4}  # noqa: RUF012

    def __init__(self, game: Game, render_mode: str | None = None) -> None:
        if seat_count(game) != 1:
            raise ValueError(f"{type(game).__name__} has {seat_count(game)} seats; Gymnasium wants 1 (PettingZoo takes any number)")
        self.render_mode = render_mode
        self._single = _SingleGame(game)
        self._seat = self._single.seats[0][0]
        role: Role = game.roles[0]
        self.observation_space = _bare(role.observation_space)
        self.action_space = copy.deepcopy(role.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._single.reset(seed)
        return self._single.observations()[self._seat], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        turn = self._single.step({self._seat: action})
        reward = next(iter(turn.rewards.values()))[0, 0].item()
        return self._single.observations()[self._seat], reward, bool(turn.over[0]), False, self._single.infos(turn)[self._seat]

    def render(self) -> Any:
        return self._single.render(self.render_mode)


def make_game(name: str, **settings: Any) -> Game:
    """A game of `GAMES`. Raises TypeError for a setting that it does not have, ValueError for a name or value that cannot be."""
    if name not in GAMES:
        raise ValueError(f"no game is called {name!r}; {nearest(name, GAMES)}")
    module, _, factory = GAMES[name].partition(":")
    return _with(getattr(importlib.import_module(module), factory)(), settings)


def _with(game: Game, settings: dict[str, Any]) -> Game:
    """The game with other settings, of which those that it has are of the types that it wants."""
    hints = get_type_hints(type(game))
    known = [field.name for field in fields(game)]  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            raise TypeError(f"{type(game).__name__} has no setting {name!r}; {nearest(name, known)}")
    values = {name: checked(value, hints[name], name) for name, value in settings.items()}
    changed: Game = replace(game, **values)  # type: ignore[type-var]
    return changed


def parallel_env(game: Game | str, render_mode: str | None = None, **settings: Any) -> GameParallelEnv:
    """A game, or one of `GAMES` by name, as a PettingZoo ParallelEnv: `parallel_env("donor_game", rounds=8)`. Raises as `make_game`."""
    if isinstance(game, str):
        return GameParallelEnv(make_game(game, **settings), f"{game}_v0", render_mode)
    return GameParallelEnv(_with(game, settings), f"{type(game).__name__.lower()}_v0", render_mode)


def aec_env(game: Game | str, render_mode: str | None = None, **settings: Any) -> AECEnv:
    """The same as a PettingZoo AECEnv, in which agents act one after another."""
    return parallel_to_aec(parallel_env(game, render_mode, **settings))


@dataclass(frozen=True)
class _SingleSeat:
    """Makes a game's environment: `gymnasium.make(id, **settings)`."""

    game: Game

    def __call__(self, render_mode: str | None = None, **settings: Any) -> SingleSeatEnv:
        """Raises TypeError for a setting that the game does not have, ValueError for a value that it may not have."""
        return SingleSeatEnv(_with(self.game, settings), render_mode)


def register_single_seat_games(games: dict[str, str] = GAMES) -> list[str]:
    """Registers every game that has one seat with Gymnasium; says under which ids: ballet_symbols is Coterie/BalletSymbols-v0.

    `gymnasium.make` takes the game's settings: `gymnasium.make("Coterie/BalletSymbols-v0", dancers=4)`.
    """
    ids = []
    for name, path in games.items():
        module, _, factory = path.partition(":")
        game = getattr(importlib.import_module(module), factory)()
        if seat_count(game) == 1:
            environment = f"Coterie/{''.join(word.title() for word in name.split('_'))}-v0"
            gym.register(id=environment, entry_point=_SingleSeat(game))
            ids.append(environment)
    return ids


def draw(scene: Scene, size: int = 200) -> NDArray[Any]:
    """A scene as a picture, [size, size, 3] uint8."""
    # Drawn at twice the size and halved: smooth edges.
    scale = 2 * size
    image = Image.new("RGB", (scale, scale), (250, 250, 248))
    canvas = ImageDraw.Draw(image)
    for mark in scene.marks:
        x, y, half = mark.x * scale, mark.y * scale, mark.size * scale / 2
        tall = mark.height * scale / 2 or half
        if mark.shape == "disc":
            canvas.ellipse((x - half, y - half, x + half, y + half), fill=mark.colour)
        elif mark.shape == "box":
            canvas.rectangle((x - half, y - tall, x + half, y + tall), fill=mark.colour)
        else:
            font = ImageFont.load_default(size=mark.size * scale)
            canvas.text((x, y), mark.text, fill=mark.colour, font=font, anchor="mm")
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


register_single_seat_games()
