"""Walkers for the town of streets: one that follows the way it is shown, the ceiling, and one that walks at random, the floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from agents.co_players.luck import Luck, new_luck
from agents.occupant import Decision
from envs.chance import integers
from envs.game import Observation


@dataclass(frozen=True)
class Guided:
    """Does what the field `way` says, so it wants `game.guided`. collects: the game's."""

    collects: bool = False

    @property
    def reads(self) -> dict[str, Any]:
        return {"way": 4 if self.collects else 3}

    def start(self, seeds: Int64[Tensor, "N"]) -> Luck:
        return new_luck(seeds)

    def act(self, observation: Observation, state: Luck, reward: Float[Tensor, "N"]) -> tuple[Decision, Luck]:
        return Decision(observation["way"]), state.next()


@dataclass(frozen=True)
class Wanderer:
    """Any action with the same probability. collects, views: the game's."""

    collects: bool = False
    views: int = 60

    @property
    def reads(self) -> dict[str, Any]:
        return {"view": self.views, "goal": self.views}

    def start(self, seeds: Int64[Tensor, "N"]) -> Luck:
        return new_luck(seeds)

    def act(self, observation: Observation, state: Luck, reward: Float[Tensor, "N"]) -> tuple[Decision, Luck]:
        return Decision(integers(state.luck, 4 if self.collects else 3, state.clock)), state.next()
