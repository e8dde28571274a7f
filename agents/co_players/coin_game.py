"""Scripts for the Coin Game: who goes for whose coins.

A wanted coin is walked to by the shortest way, rows first. A coin that is not wanted is never stepped on: the script wanders, one of the
moves that lead elsewhere at random. Places are seen as `envs.coin_game` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from agents.co_players.luck import luck_of
from agents.co_players.tables import on_device
from agents.occupant import Decision
from envs.chance import categorical, uniform
from envs.coin_game import MOVES
from envs.game import Observation

STEPS = list(MOVES.values())[:4]


class CollectorState(NamedTuple):
    """left: steps that a grudge still lasts. luck, clock: the stream of its moves, and steps taken."""

    left: Int64[Tensor, "N"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@dataclass(frozen=True)
class _Walker:
    """What all share; this one wants its own coins alone."""

    size: int = 3
    acts: ClassVar[int] = len(STEPS)

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 16:
            raise ValueError(f"size is {self.size}; want from 2 to 16")

    @property
    def reads(self) -> dict[str, int]:
        return {"other": self.size**2, "coin": 2 * self.size**2}

    def start(self, seeds: Int64[Tensor, "N"]) -> CollectorState:
        zero = torch.zeros_like(seeds)
        return CollectorState(zero, luck_of(seeds), zero)

    def act(self, observation: Observation, state: CollectorState, reward: Float[Tensor, "N"]) -> tuple[Decision, CollectorState]:
        coin, cells = observation["coin"], self.size**2
        left = self.grudge_after(state.left, reward)
        wants = (coin < cells) | self.covets(left)
        probs = on_device(self._policies, coin.device).reshape(2 * cells, 4)[torch.add(coin % cells, wants, alpha=cells)]
        action = categorical(probs, uniform(state.luck, state.clock))
        return Decision(action, policy=probs), CollectorState(left, state.luck, state.clock + 1)

    def grudge_after(self, left: Int64[Tensor, "N"], reward: Float[Tensor, "N"]) -> Int64[Tensor, "N"]:
        """Steps that its grudge lasts from now on, this one included."""
        return left

    def covets(self, left: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Whether it goes for the other's coins."""
        return torch.zeros_like(left, dtype=torch.bool)

    @cached_property
    def _policies(self) -> tuple[float, ...]:
        """[2, size ** 2, 4] probabilities: wandering off from a coin at each place, and going there."""
        n = self.size
        wandering, going = [], []
        for place in range(n**2):
            row, column = place // n, place % n
            elsewhere = [(down % n, right % n) != (row, column) for down, right in STEPS]
            wandering += [is_free / sum(elsewhere) for is_free in elsewhere]
            # Up, down, left, right; where both ways are as long, down and right.
            vertical, horizontal = (0 if 2 * row > n else 1), (2 if 2 * column > n else 3)
            going += [float(move == (vertical if row else horizontal)) for move in range(4)]
        return tuple(wandering + going)


@dataclass(frozen=True)
class Prosocial(_Walker):
    """Takes its own coins and leaves the other's alone. size: of the board."""


@dataclass(frozen=True)
class Greedy(_Walker):
    """Takes every coin, whosever it is. size: of the board."""

    def covets(self, left: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        return torch.ones_like(left, dtype=torch.bool)


@dataclass(frozen=True)
class Conditional(_Walker):
    """Takes its own coins, and the other's for `grudge` steps after the other took one of its own.

    It feels the theft: nothing else makes a reward negative. size: of the board.
    """

    grudge: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grudge < 1:
            raise ValueError(f"grudge is {self.grudge}; want at least 1 step")

    def grudge_after(self, left: Int64[Tensor, "N"], reward: Float[Tensor, "N"]) -> Int64[Tensor, "N"]:
        return torch.where(reward < 0, self.grudge, (left - 1).clamp(min=0))

    def covets(self, left: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        return left > 0


@dataclass(frozen=True)
class Wanderer(_Walker):
    """Walks at random, onto coins or not. size: of the board."""

    @cached_property
    def _policies(self) -> tuple[float, ...]:
        return (0.25,) * (8 * self.size**2)
