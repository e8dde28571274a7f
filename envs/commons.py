"""Commons: players harvest one stock that regrows by itself, as long as enough of it is left.

Actions: how much to ask for, one of `levels` from nothing to `limit` (or any share of it from 0 to 1 where `levels` is 0), all at once.
Observations: `stock`, its share of the capacity; `harvests`, what everyone got last, as shares of `limit`: own first, then those of the
    next seats on; `begun`, 0 before the first harvest and 1 afterwards.
Reward: what one gets. Where all ask for more than there is, each gets the same share of what it asked for and nothing is left.
Growth: after the harvest a stock x grows by growth * x * (1 - x / capacity), up to the capacity. Below `threshold` * capacity it does not
    grow, ever again: it has collapsed.
End: after `rounds` rounds, even if nothing is left: a commons that is used up pays nothing for the rest of the time.
Measures: `harvest`, what each got as a share of `limit`; `stock`, what is there after the growth, as a share of the capacity; `collapsed`,
    1 where it is below the threshold.
Source: logistic growth and its harvest are Schaefer's (1957, Journal of the Fisheries Research Board of Canada 14); the tragedy is Hardin's
    (1968, Science 162).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from envs.game import Mark, Observation, Role, Scene, Turn

WATER, RED, GREY, INK = (66, 132, 168), (200, 80, 72), (225, 227, 228), (40, 44, 52)


class CommonsState(NamedTuple):
    """stock: in units. harvests: what everyone got last, in units."""

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    stock: Float[Tensor, "B"]
    harvests: Float[Tensor, "B P"]


@dataclass(frozen=True)
class Commons:
    """players: P. capacity: the stock at the start, and the most there can be. growth: per round, of a small stock. threshold: the share of
    the capacity below which it does not grow. limit: the most that one can ask for. levels: amounts that can be asked for; 0: any.
    """

    players: int = 4
    capacity: float = 100.0
    growth: float = 0.4
    threshold: float = 0.1
    limit: float = 10.0
    levels: int = 11
    rounds: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.players <= 100:
            raise ValueError(f"players is {self.players}; want from 1 to 100")
        for name in ("capacity", "limit"):
            # So that float32 holds the one as a share of the other.
            if not 1e-15 <= getattr(self, name) <= 1e15:
                raise ValueError(f"{name} is {getattr(self, name)}; want a finite number, from 1e-15 to 1e15")
        if not 0.0 <= self.growth <= 1.0:
            raise ValueError(f"growth is {self.growth}; want from 0 to 1")
        if not 0.0 <= self.threshold < 1.0:
            raise ValueError(f"threshold is {self.threshold}; want a share from 0, below 1")
        if self.levels != 0 and not 2 <= self.levels <= 1000:
            raise ValueError(f"levels is {self.levels}; want from 2 to 1000, or 0 for any share")
        if not 1 <= self.rounds <= 1_000_000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000,000")

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                "stock": gym.spaces.Box(0, 1, (), np.float32),
                "harvests": gym.spaces.Box(0, 1, (self.players,), np.float32),
                "begun": gym.spaces.Discrete(2),
            }
        )
        asks: gym.Space = gym.spaces.Discrete(self.levels) if self.levels else gym.spaces.Box(0, 1, (), np.float32)
        return (Role("harvester", self.players, sees, asks),)

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Int64[Tensor, "B"]) -> CommonsState:
        stock = torch.full((len(seeds),), self.capacity, device=seeds.device)
        harvests = torch.zeros(len(seeds), self.players, device=seeds.device)
        return CommonsState(seeds, torch.zeros_like(seeds), stock, harvests)

    def observe(self, state: CommonsState) -> dict[str, Observation]:
        shares = (state.harvests / self.limit).clamp(max=1.0)
        own_first = torch.stack([shares.roll(-seat, 1) for seat in range(self.players)], 1)
        stock = (state.stock / self.capacity).clamp(max=1.0)
        seen = {"stock": stock, "begun": (state.step > 0).long()}
        return {"harvester": {name: value[:, None].expand(-1, self.players) for name, value in seen.items()} | {"harvests": own_first}}

    def step(self, state: CommonsState, actions: Mapping[str, Tensor]) -> tuple[CommonsState, Turn]:
        """actions: {"harvester": [B, P]}."""
        action = actions["harvester"]
        share = action.float() if self.levels == 0 else action / (self.levels - 1)
        asked = share * self.limit
        total = asked.sum(1)
        # At most 1: what is asked for, or the same share of it for everyone.
        harvests = asked * (state.stock / total.clamp(min=torch.finfo(total.dtype).tiny)).clamp(max=1.0)[:, None]
        left = (state.stock - total).clamp(min=0.0)
        grown = (left + self.growth * left * (1 - left / self.capacity)).clamp(max=self.capacity)
        stock = torch.where(left >= self.threshold * self.capacity, grown, left)
        step = state.step + 1
        measures = {
            "harvest": harvests / self.limit,
            "stock": stock / self.capacity,
            "collapsed": (stock < self.threshold * self.capacity).float(),
        }
        turn = Turn({"harvester": harvests}, step >= self.rounds, measures)
        return CommonsState(state.seed, step, stock, harvests), turn

    def describe(self, state: CommonsState, index: int) -> Scene:
        step, stock, harvests = int(state.step[index]), float(state.stock[index]), state.harvests[index].tolist()
        least = self.threshold * self.capacity
        if step == 0:
            words = f"before round 1 of {self.rounds}: a stock of {stock:.4g} for {self.players}, which does not grow below {least:.4g}"
        else:
            fate = "; nothing is left" if stock == 0 else "; it has collapsed" if stock < least else ""
            took = ", ".join(f"harvester_{seat} gets {amount:.3g}" for seat, amount in enumerate(harvests))
            words = f"round {step}: {took}; then the stock is {stock:.4g} of {self.capacity:.4g}{fate}"
        return Scene(words, tuple(self._marks(step, stock, harvests)))

    def _marks(self, step: int, stock: float, harvests: list[float]) -> list[Mark]:
        full, low = stock / self.capacity, stock < self.threshold * self.capacity
        marks = [
            Mark("text", 0.5, 0.07, 0.07, INK, f"round {step} of {self.rounds}" if step else "before round 1"),
            Mark("text", 0.5, 0.15, 0.055, INK, f"stock {stock:.3g}"),
            Mark("box", 0.5, 0.43, 0.9, GREY, height=0.46),
        ]
        if full > 0:
            marks.append(Mark("box", 0.5, 0.66 - 0.23 * full, 0.9, RED if low else WATER, height=0.46 * full))
        marks.append(Mark("box", 0.5, 0.66 - 0.46 * self.threshold, 0.9, INK, height=0.006))
        pitch = 0.92 / self.players
        for seat, amount in enumerate(harvests):
            x = 0.04 + pitch * (seat + 0.5)
            height = 0.18 * amount / self.limit
            if height > 0:
                marks.append(Mark("box", x, 0.88 - height / 2, 0.5 * pitch, WATER, height=height))
            text = f"{seat}: {amount:.3g}" if step else f"{seat}"
            marks.append(Mark("text", x, 0.94, min(0.055, 1.6 * pitch / len(text)), INK, text))
        return marks


def commons() -> Commons:
    """Four harvest a stock of 100 that grows by up to 10 a round (logistic growth, Schaefer 1957), for 50 rounds."""
    return Commons()
