"""Memory-two strategies for two-action dilemmas: a probability to cooperate for each of 21 situations.

The situations, in order: start; CC, CD, DC, DD, where one round was seen; then, where two or more were, the last but one and the last:
CC CC, CC CD, CC DC, CC DD, CD CC, ..., DD DD, the last running fastest. Own action first, as in `envs.iterated_dilemma`; a game that
starts again is a start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from agents.co_players.luck import luck_of
from agents.co_players.tables import Drawn, decide, on_device
from agents.occupant import Decision
from envs.game import Observation

ROUNDS = ("CC", "CD", "DC", "DD")
SITUATIONS = ("start", *ROUNDS, *(f"{before} {last}" for before in ROUNDS for last in ROUNDS))


class MemoryTwoState(NamedTuple):
    """cooperates: [N, 21] probabilities, fixed for the trial. last: the symbol seen before, 0 for none. luck, clock: as in a TableState."""

    cooperates: Float[Tensor, "N 21"]
    last: Int64[Tensor, "N"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


class _PlaysTwoRounds:
    reads: ClassVar[dict[str, int]] = {"outcome": 5}

    def act(self, observation: Observation, state: MemoryTwoState, reward: Tensor | None = None) -> tuple[Decision, MemoryTwoState]:
        outcome = observation["outcome"]
        # Symbols count from 1: the last but one starts a block of four at 5, 9, 13 or 17.
        situation = outcome + (4 * state.last).masked_fill(outcome == 0, 0)
        cooperates = state.cooperates.gather(1, situation[:, None])[:, 0]
        return decide(cooperates, state.luck, state.clock), state._replace(last=outcome, clock=state.clock + 1)

    def cooperates_in(self, state: MemoryTwoState) -> Float[Tensor, "N 21"]:
        """Its probabilities to cooperate in the 21 situations."""
        return state.cooperates


@dataclass(frozen=True)
class MemoryTwo(_PlaysTwoRounds):
    """The same 21 probabilities in every trial, tit-for-two-tats' unless given (Hilbe et al. 2017).

    cooperates: in the order that this module opens with.
    """

    cooperates: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0) + (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0) * 2

    def __post_init__(self) -> None:
        if len(self.cooperates) != len(SITUATIONS) or not all(0 <= p <= 1 for p in self.cooperates):
            raise ValueError(f"cooperates is {self.cooperates}; want 21 probabilities, for {', '.join(SITUATIONS)}")

    def start(self, seeds: Int64[Tensor, "N"]) -> MemoryTwoState:
        zero = torch.zeros_like(seeds)
        return MemoryTwoState(on_device(self.cooperates, seeds.device).expand(len(seeds), -1), zero, luck_of(seeds), zero)


@dataclass(frozen=True)
class RandomMemoryTwo(Drawn, _PlaysTwoRounds):
    """21 probabilities drawn anew for every trial, each from U(0, 1): a table with a memory of two rounds."""

    count: ClassVar[int] = len(SITUATIONS)

    def start(self, seeds: Int64[Tensor, "N"]) -> MemoryTwoState:
        zero = torch.zeros_like(seeds)
        return MemoryTwoState(self.draw(seeds), zero, luck_of(seeds), zero)
