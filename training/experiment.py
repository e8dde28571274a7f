"""An experiment: every setting of a training run on one page. A preset (`training.presets`) returns one; overrides edit it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import gymnasium as gym

from agents.agent import Agent, AgentConfig
from agents.encoders import has_scenery
from envs.chance import Purpose, seeds_of
from envs.game import Game, Observation, Role, release, role_of_seat
from envs.iterated_dilemma import IteratedDilemma
from memory.memory import for_trials
from training.algorithms import A2C, PPO, StraightThrough, Supervised
from training.curriculum import Curriculum
from training.identity import role_with_identities
from training.schemes.mixture import mixed_pool
from training.schemes.scheme import Scheme

# Games in which is seen what is always there.
FIRST_SEEN = 64


@dataclass(frozen=True)
class Experiment:
    """Reasons stand in the presets; here is what each setting means.

    preset: the name it was made by. game: the rules. agent: encoders, memory, heads; the same for every learner, each with weights of its
    own. scheme: who meets whom. algorithm: how they learn. episodes: of a trial, memory kept between them. trials: games played per
    iteration. iterations: of sampling and learning. seed: all of the run's chance. runners: processes that sample (0: this one).
    learners: processes that learn (0: this one). device: "cpu" or "cuda". checkpoint_every: iterations. suite: what `evaluate` plays by
    default. curriculum: whether a setting of the game begins lower and rises as play goes well.
    """

    preset: str = "custom"
    game: Game = field(default_factory=IteratedDilemma)
    agent: AgentConfig = field(default_factory=AgentConfig)
    scheme: Scheme = field(default_factory=mixed_pool)
    algorithm: PPO | A2C | Supervised | StraightThrough = field(default_factory=PPO)
    episodes: int = 1
    trials: int = 1024
    iterations: int = 100
    seed: int = 0
    runners: int = 0
    learners: int = 0
    device: str = "cpu"
    checkpoint_every: int = 20
    suite: str = "ipd_classics"
    curriculum: Curriculum = field(default_factory=Curriculum)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.preset):
            raise ValueError(f"preset is {self.preset!r}; want letters, digits, _ and - (a directory is named so)")
        for name in ("episodes", "trials", "iterations", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; want at least 1")
        for name in ("runners", "learners"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; want 0 or more")
        if self.trials * self.steps > 10**10:
            raise ValueError(f"trials is {self.trials} of {self.steps} steps each; want at most 10,000,000,000 steps per iteration")
        if self.trials < self.runners:
            raise ValueError(f"trials is {self.trials}, fewer than the {self.runners} runners; want at least one each")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; want a whole number of 64 bits")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device is {self.device!r}; want 'cpu' or 'cuda'")
        memory = for_trials(self.agent.memory, self.steps)
        if memory != self.agent.memory:
            object.__setattr__(self, "agent", replace(self.agent, memory=memory))
        self.curriculum.check_fits(self.game)
        if self.curriculum.raises and self.algorithm.shows:
            raise ValueError(
                f"curriculum.raises is {self.curriculum.raises!r} and algorithm.shows True; want one of them, for what is shown is right"
                " however little the learner knows"
            )

    @property
    def steps(self) -> int:
        """T, the steps of an iteration's trajectories: as long as a trial can last."""
        return self.episodes * self.game.max_steps

    def at(self, stage: int | None) -> Experiment:
        """The experiment with the game that is played at a stage of its curriculum."""
        return self if stage is None else replace(self, game=self.curriculum.game_at(self.game, stage))

    def progress_at(self, iteration: int) -> float:
        """0 at the first iteration, 1 at the last (for schedules)."""
        return iteration / max(1, self.iterations - 1)

    def roles(self) -> dict[str, Role]:
        """{occupant: the role it sits in} for everyone in the scheme. Raises ValueError where one sits in seats of different spaces."""
        seating, learners = self.scheme.seat(self.game, self.trials, 0), self.scheme.learners(self.game)
        roles: dict[str, Role] = {}
        for index, name in enumerate(seating.occupants):
            for seat in range(seating.seats.shape[1]):
                if bool((seating.seats[:, seat] == index).any()):
                    role, _ = role_of_seat(self.game, seat)
                    if self.agent.sees_co_player and name in learners:
                        role = role_with_identities(self.game, role)
                    first = roles.setdefault(name, role)
                    if (first.observation_space, first.action_space) != (role.observation_space, role.action_space):
                        raise ValueError(f"{name} sits as {first.name} and as {role.name}, whose spaces differ; want one occupant for each")
        absent = [name for name in learners if name not in roles]
        if absent:
            raise ValueError(f"trials is {self.trials}: too few for {', '.join(absent)} to play; want more")
        return roles

    def build_learners(self) -> dict[str, Agent]:
        """{name: a new agent}; first weights are a function of the game, the seed and the learner's number."""
        return {name: self.agent.build(*how) for name, how in self.births().items()}

    def births(self) -> dict[str, Birth]:
        """{learner: what its first weights follow from}."""
        roles = self.roles()
        names = self.scheme.learners(self.game)
        seeds = seeds_of(self.seed, Purpose.PARAMETERS, len(names)).tolist()
        return {
            name: Birth(roles[name].observation_space, roles[name].action_space, seed, self._first_seen(roles[name]))
            for name, seed in zip(names, seeds, strict=True)
        }

    def _first_seen(self, role: Role) -> Observation | None:
        """{field: [N, ...]} of some games before their first step, where there may be scenery in it."""
        if not has_scenery(role.observation_space):
            return None
        state = self.game.start(seeds_of(0, Purpose.PARAMETERS, FIRST_SEEN, 1))
        seen = {name: value.flatten(0, 1) for name, value in self.game.observe(state)[role.name].items()}
        release(self.game, state)
        return seen


class Birth(NamedTuple):
    """What the first weights of an agent follow from, as `AgentConfig.build` takes it."""

    observation_space: gym.spaces.Dict
    action_space: gym.Space[Any]
    seed: int
    first: Observation | None


def spaces_of(experiment: Experiment) -> dict[str, tuple[gym.spaces.Dict, gym.Space[Any]]]:
    """{learner: (observation space, action space)}."""
    roles = experiment.roles()
    return {name: (roles[name].observation_space, roles[name].action_space) for name in experiment.scheme.learners(experiment.game)}
