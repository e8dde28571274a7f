"""Everyone whom an experiment needs, checked before anything starts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.agent import Agent
from envs.game import Game, Role, role_of_seat, seat_count
from envs.law import check_game, play_anything
from envs.third_party import ThirdPartyGame
from memory.law import check_law
from memory.memory import MemoryConfig
from training import identity
from training.curriculum import Curriculum
from training.evaluation.suites import FOCAL, OTHER_SEED, PARTNER, SUITES, Suite
from training.experiment import Experiment
from training.foreign import Foreign
from training.population import co_player
from training.rollout import check_has_others
from training.settings import BadInput, check_survives, in_one_line, lookup, names_modules


def check(experiment: Experiment, evaluates: bool = False) -> None:
    """Raises BadInput where seats, spaces, names, suite or sizes do not fit together. evaluates: whether the suite will be played."""
    if experiment.device == "cuda":
        if not torch.cuda.is_available():
            raise BadInput("device is 'cuda', but PyTorch finds no GPU here; want 'cpu'")
        if isinstance(experiment.game, ThirdPartyGame):
            raise BadInput("device is 'cuda', but a third-party game plays on a CPU; want 'cpu'")
    check_survives(experiment)
    check_own(experiment.agent.memory, experiment.agent.embedding)
    if names_modules(experiment.game):
        _check_game(experiment.game)
    suite = lookup(SUITES, experiment.suite, "suite")
    if evaluates:
        _check_suite(suite(experiment), experiment)
    if experiment.agent.acts == "best" and not experiment.algorithm.wants_answers:
        raise BadInput("agent.acts is 'best': whoever learns from rewards must try things out; want 'sample', or algorithm=supervised")
    try:
        experiment.algorithm.check_fits(experiment.game)
        if experiment.curriculum.raises:
            _check_measures(experiment.curriculum, experiment.at(experiment.curriculum.start).game)
        if experiment.agent.auxiliary.co_player:
            check_has_others(experiment.game)
        roles = experiment.roles()
        _check_sizes(experiment, roles)
        experiment.build_learners()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise BadInput(str(error).splitlines()[0]) from error
    for name in experiment.scheme.co_players(experiment.game):
        occupant = co_player(name)
        if name in roles:
            check_fits(name, occupant, roles[name], experiment.game)
            if experiment.curriculum.raises:
                check_fits(name, occupant, roles[name], experiment.at(experiment.curriculum.start).game)


def check_own(memory: MemoryConfig, inputs: int) -> None:
    """Raises BadInput where a memory that is not ours breaks the law of memories, or breaks down."""
    if not names_modules(memory):
        return
    try:
        check_law(memory, inputs)
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) and "\n" not in str(error) else in_one_line(error)
        raise BadInput(f"memory {type(memory).__module__}:{type(memory).__qualname__}: {said}") from error


def _check_game(game: Game) -> None:
    """Raises BadInput where a game that is not ours breaks what games keep to, or breaks down."""
    try:
        check_game(game)
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) and "\n" not in str(error) else in_one_line(error)
        raise BadInput(f"game {type(game).__module__}:{type(game).__qualname__}: {said}") from error


def _check_measures(curriculum: Curriculum, game: Game) -> None:
    """Raises ValueError where a curriculum goes by what is not measured in a game."""
    for _, turn in play_anything(game, 1):
        there = sorted([*turn.measures, "reward"])
        for measure in curriculum.measures:
            if measure not in there:
                raise ValueError(f"curriculum.measures has {measure!r}; what is measured in this game is {', '.join(there)}")


def check_fits(name: str, occupant: Any, role: Role, game: Game | None = None) -> None:
    """Raises BadInput where an occupant cannot sit in a role: which of its spaces differ, or what it reads that is not shown.

    game: the role's. With it, settings that must be the game's are compared too, and the error says which would do.
    """
    if isinstance(occupant, Agent):
        perceived = {field: space for field, space in occupant.observation_space.items() if field != identity.FIELD}
        shown = {field: space for field, space in role.observation_space.items() if field != identity.FIELD}
        if perceived.keys() != shown.keys():
            raise BadInput(f"agent {name} perceives {', '.join(perceived)}; {role.name} is shown {', '.join(shown)}")
        pairs = [("action", occupant.action_space, role.action_space), *((field, perceived[field], shown[field]) for field in shown)]
        for what, own, the_games in pairs:
            if own != the_games:
                raise BadInput(f"agent {name} has {what} {_in_one_line(own)}; {role.name} has {_in_one_line(the_games)} in this game")
        return
    if isinstance(occupant, Foreign):
        occupant = occupant.policy
    amiss, wants = _amiss(occupant, role), _other_settings(occupant, game)
    if wants and (amiss or hasattr(occupant, "settings_in")):
        amiss = amiss or ", ".join(f"its {setting} is {getattr(occupant, setting)}" for setting in wants)
        try:
            would_fit = not _amiss(replace(occupant, **wants), role)
        except ValueError as error:
            raise BadInput(f"{name!r} cannot play this game: {error}") from error
        if would_fit:
            said = (f"{setting}={list(value) if isinstance(value, tuple) else value}" for setting, value in wants.items())
            amiss += f"; want {','.join(said)}"
    if amiss:
        raise BadInput(f"{name!r} cannot play this game: {amiss}")


def _amiss(occupant: Any, role: Role) -> str:
    """What a script reads that a role is not shown, or does that the role may not, in words; "" where there is nothing."""
    for field, wanted in getattr(occupant, "reads", {}).items():
        space = role.observation_space.spaces.get(field)
        found = int(space.n) if isinstance(space, gym.spaces.Discrete) else getattr(space, "shape", None)
        if found != wanted:
            what = f"{wanted} symbols" if isinstance(wanted, int) else f"numbers of shape {wanted}"
            return f"it reads {field} as {what}; the game shows {_in_one_line(role.observation_space)}"
    acts = getattr(occupant, "acts", role.action_space)
    acts = gym.spaces.Discrete(acts) if isinstance(acts, int) else acts
    takes = _takes(role.action_space, acts)
    return "" if takes else f"it acts in {_in_one_line(acts)}; {role.name} acts in {_in_one_line(role.action_space)}"


def _in_one_line(space: gym.Space[Any]) -> str:
    """NumPy breaks long arrays over several; of many choices their number is told, and how many each has at most."""
    if isinstance(space, gym.spaces.Dict):
        return f"Dict({', '.join(f'{name!r}: {_in_one_line(part)}' for name, part in space.items())})"
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.size > 16:
        return f"MultiDiscrete of shape {space.shape}, up to {int(space.nvec.max())} each"
    return " ".join(str(space).split())


def _takes(space: gym.Space[Any], acts: gym.Space[Any]) -> bool:
    """Whether every one of these actions, counted alike, is in the space."""
    match space, acts:
        case gym.spaces.Discrete(), gym.spaces.Discrete():
            return bool(acts.start == space.start and acts.n <= space.n)
        case gym.spaces.MultiDiscrete(), gym.spaces.MultiDiscrete():
            return acts.shape == space.shape and bool(((acts.start == space.start) & (acts.nvec <= space.nvec)).all())
    return acts == space


def _other_settings(occupant: Any, game: Game | None) -> dict[str, Any]:
    """Settings that a script has otherwise than a game wants, as it says itself; else those that the game has too, under the same name."""
    if game is None or not is_dataclass(occupant):
        return {}
    if hasattr(occupant, "settings_in"):
        wanted = occupant.settings_in(game)
    else:
        wanted = {field.name: getattr(game, field.name) for field in fields(occupant) if hasattr(game, field.name)}
    return {setting: value for setting, value in wanted.items() if getattr(occupant, setting) != value}


def _check_suite(suite: Suite, experiment: Experiment) -> None:
    """That a suite's seats are the game's, and that whoever is named for one can sit there."""
    game = experiment.game
    suite.check_fits(game)
    own = {FOCAL, PARTNER, OTHER_SEED, *experiment.scheme.learners(game)}
    roles = [role_of_seat(game, seat)[0] for seat in range(seat_count(game))]
    seated = {(name, role.name): role for scenario in suite.scenarios for name, role in zip(scenario.seats, roles, strict=True)}
    for (name, _), role in seated.items():
        if name not in own:
            check_fits(name, co_player(name), role, game)


def _check_sizes(experiment: Experiment, roles: Mapping[str, Role]) -> None:
    """Every learner process must make every update, and an update needs a row; what learners see must fit this machine."""
    seating = experiment.scheme.seat(experiment.game, experiment.trials, 0)
    processes = max(1, experiment.learners)
    seen = 0
    for index, name in enumerate(seating.occupants):
        rows = int((seating.seats == index).sum())
        if name in experiment.scheme.learners(experiment.game):
            seen += rows * experiment.steps * _bytes(roles[name].observation_space)
        share = rows - (processes - 1) * -(-rows // processes)
        if name in experiment.scheme.learners(experiment.game) and share < experiment.algorithm.minibatches:
            raise BadInput(
                f"trials is {experiment.trials}: {name} plays {rows} of them, too few for {experiment.algorithm.minibatches} minibatches"
                + (f" in each of {processes} learner processes" if processes > 1 else "")
                + "; want more trials or fewer algorithm.minibatches"
            )
    if seen > _memory_of_this_machine():
        raise BadInput(
            f"trials is {experiment.trials} of {experiment.steps:,} steps: what learners see of them takes {seen / 1e9:,.0f} GB and this"
            f" machine has {_memory_of_this_machine() / 1e9:,.0f}; want fewer trials, shorter ones or smaller pictures"
        )


def _bytes(space: gym.Space[Any]) -> int:
    """Of one observation, as rollouts keep it."""
    if isinstance(space, gym.spaces.Dict):
        return sum(_bytes(part) for part in space.values())
    kept = space.dtype if isinstance(space, gym.spaces.Box) else np.dtype(np.int64)
    return math.prod(space.shape or ()) * kept.itemsize


def _memory_of_this_machine() -> float:
    """Bytes; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
