"""Everyone whom an experiment needs, checked before anything starts."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch

from agents.agent import Agent
from envs.game import Role
from envs.third_party import ThirdPartyGame
from training import identity
from training.evaluation.suites import SUITES
from training.experiment import Experiment
from training.foreign import Foreign
from training.population import co_player
from training.rollout import check_has_others
from training.settings import BadInput, lookup


def check(experiment: Experiment, evaluates: bool = False) -> None:
    """Raises BadInput where seats, spaces, names, suite or sizes do not fit together. evaluates: whether the suite will be played."""
    if experiment.device == "cuda":
        if not torch.cuda.is_available():
            raise BadInput("device is 'cuda', but PyTorch finds no GPU here; want 'cpu'")
        if isinstance(experiment.game, ThirdPartyGame):
            raise BadInput("device is 'cuda', but a third-party game plays on a CPU; want 'cpu'")
    suite = lookup(SUITES, experiment.suite, "suite")
    if evaluates:
        suite(experiment).check_fits(experiment.game)
    if experiment.agent.acts == "best" and not experiment.algorithm.wants_answers:
        raise BadInput("agent.acts is 'best': whoever learns from rewards must try things out; want 'sample', or algorithm=supervised")
    try:
        experiment.algorithm.check_fits(experiment.game)
        if experiment.agent.auxiliary.co_player:
            check_has_others(experiment.game)
        roles = experiment.roles()
        experiment.build_learners()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise BadInput(str(error).splitlines()[0]) from error
    _check_sizes(experiment)
    for name in experiment.scheme.co_players(experiment.game):
        occupant = co_player(name)
        if name in roles:
            check_fits(name, occupant, roles[name])


def check_fits(name: str, occupant: Any, role: Role) -> None:
    """Raises BadInput where an occupant cannot sit in a role: which of its spaces differ, or what it reads that is not shown."""
    if isinstance(occupant, Agent):
        perceived = {field: space for field, space in occupant.observation_space.items() if field != identity.FIELD}
        shown = {field: space for field, space in role.observation_space.items() if field != identity.FIELD}
        if perceived.keys() != shown.keys():
            raise BadInput(f"agent {name} perceives {', '.join(perceived)}; {role.name} is shown {', '.join(shown)}")
        pairs = [("action", occupant.action_space, role.action_space), *((field, perceived[field], shown[field]) for field in shown)]
        for what, own, the_games in pairs:
            if own != the_games:
                raise BadInput(f"agent {name} has {what} {own}; {role.name} has {the_games} in this game")
        return
    if isinstance(occupant, Foreign):
        occupant.role = role
    for field, wanted in getattr(occupant, "reads", {}).items():
        space = role.observation_space.spaces.get(field)
        found = int(space.n) if isinstance(space, gym.spaces.Discrete) else getattr(space, "shape", None)
        if found != wanted:
            what = f"{wanted} symbols" if isinstance(wanted, int) else f"numbers of shape {wanted}"
            raise BadInput(f"{name!r} cannot play this game: it reads {field} as {what}; the game shows {role.observation_space}")


def _check_sizes(experiment: Experiment) -> None:
    """Every learner process must make every update, and an update needs a row."""
    seating = experiment.scheme.seat(experiment.game, experiment.trials, 0)
    processes = max(1, experiment.learners)
    for index, name in enumerate(seating.occupants):
        rows = int((seating.seats == index).sum())
        share = rows - (processes - 1) * -(-rows // processes)
        if name in experiment.scheme.learners(experiment.game) and share < experiment.algorithm.minibatches:
            raise BadInput(
                f"trials is {experiment.trials}: {name} plays {rows} of them, too few for {experiment.algorithm.minibatches} minibatches"
                + (f" in each of {processes} learner processes" if processes > 1 else "")
                + "; want more trials or fewer algorithm.minibatches"
            )
