"""Ceilings for diagnostic games: guessers that know how the game draws its luck, and make the best of what they saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from agents.occupant import Decision
from envs.diagnostics.hidden_markov import ACTS, HiddenMarkov, MoodTables
from envs.game import Observation


class Belief(NamedTuple):
    """moods: probabilities of the partner's mood in the step to come, given all that it did."""

    moods: Float[Tensor, "N M"]


@dataclass(frozen=True)
class MoodReader:
    """Guesses what a partner with hidden moods will most probably do next.

    By the forward algorithm. moods, moves, stay: the game's.
    """

    moods: int = 5
    moves: str = "chain"
    stay: float = 0.95
    reads: ClassVar[dict[str, Any]] = {"seen": 1 + ACTS}
    # Every episode has a partner of its own.
    forgets_episodes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        HiddenMarkov(self.moods, self.moves, self.stay)

    @cached_property
    def _game(self) -> HiddenMarkov:
        return HiddenMarkov(self.moods, self.moves, self.stay)

    def start(self, seeds: Int64[Tensor, "N"]) -> Belief:
        return Belief(torch.full((len(seeds), self.moods), 1 / self.moods, device=seeds.device))

    def act(self, observation: Observation, state: Belief, reward: Float[Tensor, "N"]) -> tuple[Decision, Belief]:
        seen = observation["seen"]
        tables = self._game.tables(seen.device)
        moods = torch.where((seen > 0)[:, None], moods_after(state.moods, (seen - 1).clamp(min=0), tables), state.moods)
        return Decision((moods @ tables.does).argmax(1)), Belief(moods)


def moods_after(moods: Float[Tensor, "N M"], act: Int64[Tensor, "N"], tables: MoodTables) -> Float[Tensor, "N M"]:
    """One step of the forward algorithm: from the mood before an act is seen to the mood after it, as probabilities.

    Where the act was impossible, evidence against the settings, all moods count as possible again.
    """
    joint = moods * tables.does.T[act]
    total = joint.sum(1, keepdim=True)
    return torch.where(total > 0, joint / total.clamp(min=torch.finfo(joint.dtype).tiny), 1 / moods.shape[1]) @ tables.to


class Fit(NamedTuple):
    """weights: the estimate of w. spread: the inverse of X'X + ridge. x: the question that is open, 0 before the first."""

    weights: Float[Tensor, "N d"]
    spread: Float[Tensor, "N d d"]
    x: Float[Tensor, "N d"]


@dataclass(frozen=True)
class Ridge:
    """Guesses by ridge regression on all answers so far, updated one by one (recursive least squares).

    dimensions, noise, bound: the game's. With `strength`, of the ridge, at -1 it is noise * dimensions, the Bayes predictor.
    """

    dimensions: int = 5
    noise: float = 0.1
    bound: float = 4.0
    strength: float = -1.0
    # Every episode has weights of its own.
    forgets_episodes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError(f"dimensions is {self.dimensions}; want at least 1")
        for name in ("noise", "bound"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; want a number above 0")
        if self.strength != -1.0 and not 0.0 < self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; want a number above 0, or -1 for the Bayes predictor's")

    @property
    def reads(self) -> dict[str, Any]:
        return {"x": (self.dimensions,), "y_before": ()}

    def start(self, seeds: Int64[Tensor, "N"]) -> Fit:
        strength = self.noise * self.dimensions if self.strength == -1.0 else self.strength
        zero = torch.zeros(len(seeds), self.dimensions, device=seeds.device)
        spread = torch.eye(self.dimensions, device=seeds.device).div(strength).expand(len(seeds), -1, -1)
        return Fit(zero, spread, zero)

    def act(self, observation: Observation, state: Fit, reward: Float[Tensor, "N"]) -> tuple[Decision, Fit]:
        # Before the first answer x is 0, and nothing changes.
        pull = (state.spread @ state.x[:, :, None])[:, :, 0]
        gain = pull / (1 + (state.x * pull).sum(1, keepdim=True))
        error = observation["y_before"] - (state.x * state.weights).sum(1)
        weights = state.weights + gain * error[:, None]
        spread = state.spread - gain[:, :, None] * pull[:, None, :]
        x = observation["x"]
        guess = (x * weights).sum(1).clamp(-self.bound, self.bound)
        return Decision(guess), Fit(weights, spread, x)
