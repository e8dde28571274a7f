"""Scripts for the commons: how much they ask for. `players`, `levels`, `capacity` and `limit` must be the game's.

What a script asks for is rounded down to a level: a careful one takes no more than it means to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from agents.co_players.luck import Luck, new_luck
from agents.occupant import Decision
from envs.chance import uniform
from envs.commons import Commons
from envs.game import Game, Observation


@dataclass(frozen=True)
class _Harvester:
    """What all share; subclasses say what they ask for. players, levels, capacity, limit: the game's."""

    players: int = 4
    levels: int = 11
    capacity: float = 100.0
    limit: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.players <= 100:
            raise ValueError(f"players is {self.players}; want from 1 to 100")
        if self.levels != 0 and not 2 <= self.levels <= 1000:
            raise ValueError(f"levels is {self.levels}; want from 2 to 1000, or 0 for any share")
        for name in ("capacity", "limit"):
            if not 1e-15 <= getattr(self, name) <= 1e15:
                raise ValueError(f"{name} is {getattr(self, name)}; want from 1e-15 to 1e15")

    @property
    def reads(self) -> dict[str, Any]:
        return {"stock": (), "harvests": (self.players,), "begun": 2}

    @property
    def acts(self) -> gym.Space[Any]:
        return gym.spaces.Discrete(self.levels) if self.levels else gym.spaces.Box(0, 1, (), np.float32)

    def settings_in(self, game: Game) -> dict[str, Any]:
        if not isinstance(game, Commons):
            return {}
        return {name: getattr(game, name) for name in ("players", "levels", "capacity", "limit")}

    def start(self, seeds: Int64[Tensor, "N"]) -> Luck:
        return new_luck(seeds)

    def act(self, observation: Observation, state: Luck, reward: Float[Tensor, "N"]) -> tuple[Decision, Luck]:
        share = self.asks(observation, state).clamp(0.0, 1.0)
        # A little more than exact, so that what a level is stays that level after rounding.
        action = share if self.levels == 0 else (share * (self.levels - 1) + 1e-4).floor().long()
        return Decision(action), state.next()

    def asks(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        """As a share of the limit; more than 1 is 1, less than 0 is 0."""
        raise NotImplementedError

    def sustains(self, observation: Observation, keeps: float) -> Float[Tensor, "N"]:
        """Its part, as a share of the limit, of what is there above `keeps`, a share of the capacity."""
        return (observation["stock"] - keeps) * (self.capacity / self.players / self.limit)


@dataclass(frozen=True)
class Greedy(_Harvester):
    """Asks for as much as it can."""

    def asks(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return torch.ones_like(observation["stock"])


@dataclass(frozen=True)
class Sustainable(_Harvester):
    """Asks for its part of what is above half of the capacity, where a stock grows fastest.

    keeps: that share of the capacity.
    """

    keeps: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keeps <= 1:
            raise ValueError(f"keeps is {self.keeps}; want a share from 0 to 1")

    def asks(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return self.sustains(observation, self.keeps)


@dataclass(frozen=True)
class Conditional(Sustainable):
    """Sustainable, but asks for the others' mean last harvest where that was more than its own."""

    def asks(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        own, others = observation["harvests"][:, 0], observation["harvests"][:, 1:]
        theirs = others.mean(1) if self.players > 1 else own
        sustains = self.sustains(observation, self.keeps)
        # What the others got without it being more than its own is no reason to ask for more.
        return torch.where(theirs > own + 1e-4, torch.maximum(theirs, sustains), sustains)


@dataclass(frozen=True)
class Random(_Harvester):
    """Asks for an amount drawn evenly from nothing to the limit."""

    def asks(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        # Every level has the same chance.
        draw = uniform(state.luck, state.clock)
        return draw if self.levels == 0 else (draw * self.levels).floor() / (self.levels - 1)
