"""Strategies for two-action dilemmas that count: rounds, the other's defections, what is left of a punishment.

Where a game starts again within a trial, no round was seen and nothing is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from agents.co_players.luck import Luck, luck_of, new_luck
from agents.co_players.tables import decide, surely
from agents.occupant import Decision
from envs.game import Observation


class _ReadsOutcomes:
    reads: ClassVar[dict[str, int]] = {"outcome": 5}


def _other_defected(outcome: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
    return (outcome == 2) | (outcome == 4)


class PunishmentState(NamedTuple):
    """offences: how many were punished. left: rounds until it looks again."""

    offences: Int64[Tensor, "N"]
    left: Int64[Tensor, "N"]


@dataclass(frozen=True)
class Gradual(_ReadsOutcomes):
    """Punishes the n-th offence with n defections, then cooperates twice (Beaufils et al. 1996).

    What the other does during a punishment or the first round of the peace after it is no offence.
    """

    def start(self, seeds: Int64[Tensor, "N"]) -> PunishmentState:
        return PunishmentState(torch.zeros_like(seeds), torch.zeros_like(seeds))

    def act(self, observation: Observation, state: PunishmentState, reward: Tensor | None = None) -> tuple[Decision, PunishmentState]:
        offended = (state.left == 0) & _other_defected(observation["outcome"])
        offences = state.offences + offended
        left = torch.where(offended, offences + 2, state.left)
        return surely((left <= 2).float()), PunishmentState(offences, (left - 1).clamp(min=0))


@dataclass(frozen=True)
class Shubik(_ReadsOutcomes):
    """Punishes the n-th offence, a defection against its cooperation, with n defections (Shubik 1970)."""

    def start(self, seeds: Int64[Tensor, "N"]) -> PunishmentState:
        return PunishmentState(torch.zeros_like(seeds), torch.zeros_like(seeds))

    def act(self, observation: Observation, state: PunishmentState, reward: Tensor | None = None) -> tuple[Decision, PunishmentState]:
        offended = (state.left == 0) & (observation["outcome"] == 2)
        offences = state.offences + offended
        left = torch.where(offended, offences, state.left)
        return surely((left == 0).float()), PunishmentState(offences, (left - 1).clamp(min=0))


class CountState(NamedTuple):
    """defections: the other's so far. rounds: seen so far."""

    defections: Int64[Tensor, "N"]
    rounds: Int64[Tensor, "N"]


@dataclass(frozen=True)
class Majority(_ReadsOutcomes):
    """Defects if the other's defections are more than a share of all rounds.

    share: from 0 to 1. is_soft: whether it cooperates where they are exactly that share, so also at the beginning.
    """

    share: float = 0.5
    is_soft: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; want a share from 0 to 1")

    def start(self, seeds: Int64[Tensor, "N"]) -> CountState:
        return CountState(torch.zeros_like(seeds), torch.zeros_like(seeds))

    def act(self, observation: Observation, state: CountState, reward: Tensor | None = None) -> tuple[Decision, CountState]:
        outcome = observation["outcome"]
        defections = state.defections + _other_defected(outcome)
        rounds = state.rounds + (outcome > 0)
        bound = self.share * rounds.double()
        return surely((defections <= bound if self.is_soft else defections < bound).float()), CountState(defections, rounds)


def soft_majority() -> Majority:
    """Defects if the other defected in more than half of all rounds (Axelrod 1984)."""
    return Majority(0.5, is_soft=True)


def hard_majority() -> Majority:
    """Opens with defection; defects if the other did in at least half of all rounds (Mittal and Deb 2009)."""
    return Majority(0.5, is_soft=False)


def forgiver(share: float = 0.1) -> Majority:
    """Defects if the other defected in more than a tenth of all rounds (Campbell, in the Axelrod library).

    share: that part of them.
    """
    return Majority(share, is_soft=True)


class TullockState(NamedTuple):
    """defected: [N, 10], whether the other did, in the last ten rounds, oldest first. luck, clock: as in a TableState."""

    defected: Bool[Tensor, "N 10"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@dataclass(frozen=True)
class Tullock(_ReadsOutcomes):
    """Cooperates for eleven rounds, then a tenth less than the other in its last ten (Axelrod 1980)."""

    def start(self, seeds: Int64[Tensor, "N"]) -> TullockState:
        defected = torch.zeros(len(seeds), 10, dtype=torch.bool, device=seeds.device)
        return TullockState(defected, luck_of(seeds), torch.zeros_like(seeds))

    def act(self, observation: Observation, state: TullockState, reward: Tensor | None = None) -> tuple[Decision, TullockState]:
        outcome = observation["outcome"]
        shifted = torch.cat([state.defected[:, 1:], _other_defected(outcome)[:, None]], 1)
        defected = torch.where(outcome[:, None] > 0, shifted, state.defected)
        cooperates = ((9 - defected.sum(1)).clamp(min=0) / 10).masked_fill(state.clock < 11, 1.0)
        return decide(cooperates, state.luck, state.clock), TullockState(defected, state.luck, state.clock + 1)


@dataclass(frozen=True)
class Feld(_ReadsOutcomes):
    """Tit-for-tat that returns cooperation less and less, half the time from round 200 (Axelrod 1980).

    end: the probability at last. rounds: until then it falls along a line.
    """

    end: float = 0.5
    rounds: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.end <= 1:
            raise ValueError(f"end is {self.end}; want a probability from 0 to 1")
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; want at least 1")

    def start(self, seeds: Int64[Tensor, "N"]) -> Luck:
        return new_luck(seeds)

    def act(self, observation: Observation, state: Luck, reward: Tensor | None = None) -> tuple[Decision, Luck]:
        outcome = observation["outcome"]
        returned = 1 - (1 - self.end) * (state.clock / self.rounds).clamp(max=1.0)
        cooperates = returned.masked_fill(outcome == 0, 1.0) * ~_other_defected(outcome)
        return decide(cooperates, state.luck, state.clock), state.next()
