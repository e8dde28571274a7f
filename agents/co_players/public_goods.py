"""Scripts for public goods: what they give, and whom they punish or vote out.

`players`, `levels`, `punishment` and `exclusion` must be the game's; what a script gives is rounded to the nearest level. Only `punisher`
punishes or votes.
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
from envs.game import Game, Observation
from envs.public_goods import PublicGoods


@dataclass(frozen=True)
class _Contributor:
    """What all share; subclasses say what share they give. players, levels, punishment, exclusion: the game's."""

    players: int = 4
    levels: int = 21
    punishment: bool = False
    exclusion: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.players <= 100:
            raise ValueError(f"players is {self.players}; want from 2 to 100")
        if self.levels != 0 and not 2 <= self.levels <= 1000:
            raise ValueError(f"levels is {self.levels}; want from 2 to 1000, or 0 for any share")
        if self.levels == 0 and (self.punishment or self.exclusion):
            raise ValueError("levels is 0; with punishment or exclusion want from 2 to 1000")

    @property
    def reads(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"stage": 3 if self.punishment or self.exclusion else 2, "contributions": (self.players,)}
        return fields | ({"lost": ()} if self.punishment else {}) | ({"members": (self.players,)} if self.exclusion else {})

    @property
    def acts(self) -> gym.Space[Any]:
        if self.levels == 0:
            return gym.spaces.Box(0, 1, (), np.float32)
        if not (self.punishment or self.exclusion):
            return gym.spaces.Discrete(self.levels)
        others = self.players - 1
        return gym.spaces.MultiDiscrete([self.levels, *[self.points + 1] * others * self.punishment, *[2] * others * self.exclusion])

    def settings_in(self, game: Game) -> dict[str, Any]:
        if not isinstance(game, PublicGoods):
            return {}
        return {"players": game.players, "levels": game.levels, "punishment": game.punishes, "exclusion": game.exclusion}

    def start(self, seeds: Int64[Tensor, "N"]) -> Luck:
        return new_luck(seeds)

    def act(self, observation: Observation, state: Luck, reward: Float[Tensor, "N"]) -> tuple[Decision, Luck]:
        share = self.gives(observation, state)
        action = share if self.levels == 0 else (share * (self.levels - 1)).round().long()
        if self.punishment or self.exclusion:
            against = self.objects_to(observation)
            parts = [action[:, None]] + [against * self.points] * self.punishment + [against] * self.exclusion
            action = torch.cat(parts, 1)
        return Decision(action), state.next()

    @property
    def points(self) -> int:
        return 0

    def gives(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        """The share of its endowment."""
        raise NotImplementedError

    def objects_to(self, observation: Observation) -> Int64[Tensor, "N others"]:
        """1 for each of the others that it punishes and votes against."""
        return torch.zeros_like(observation["contributions"][:, 1:], dtype=torch.int64)

    def others_gave(self, observation: Observation) -> Float[Tensor, "N"]:
        """The others' mean share in the last giving; those who are out do not count."""
        given = observation["contributions"][:, 1:]
        if not self.exclusion:
            return given.mean(1)
        return given.sum(1) / observation["members"][:, 1:].sum(1).clamp(min=1)


@dataclass(frozen=True)
class Contributor(_Contributor):
    """Gives the same share every time. share: from 0 to 1."""

    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; want from 0 to 1")

    def gives(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return torch.full_like(observation["contributions"][:, 0], self.share)


@dataclass(frozen=True)
class Conditional(_Contributor):
    """Gives `first`, then `matches` times what the others gave on average.

    After Fischbacher, Gaechter and Fehr 2001 (Economics Letters 71), where half of all people were like that.
    """

    first: float = 1.0
    matches: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first", "matches"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; want from 0 to 1")

    def gives(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return (self.others_gave(observation) * self.matches).masked_fill(observation["stage"] == 0, self.first)


@dataclass(frozen=True)
class Random(_Contributor):
    """Gives a share drawn evenly from 0 to 1 every time."""

    def gives(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return uniform(state.luck, state.clock)


@dataclass(frozen=True)
class Punisher(_Contributor):
    """Gives everything; punishes and votes against whoever gave less than `demands`.

    points_each: what it gives each of them where members punish.
    """

    punishment: bool = True
    demands: float = 0.5
    points_each: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.demands <= 1:
            raise ValueError(f"demands is {self.demands}; want a share from 0 to 1")
        if not 0 <= self.points_each <= 1000:
            raise ValueError(f"points_each is {self.points_each}; want from 0 to 1000")

    def settings_in(self, game: Game) -> dict[str, Any]:
        wanted = super().settings_in(game)
        if isinstance(game, PublicGoods) and game.punishes:
            wanted["points_each"] = min(self.points_each, len(game.point_costs) - 1)
        return wanted

    @property
    def points(self) -> int:
        return self.points_each

    def gives(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return torch.ones_like(observation["contributions"][:, 0])

    def objects_to(self, observation: Observation) -> Int64[Tensor, "N others"]:
        return (observation["contributions"][:, 1:] < self.demands).long()


def free_rider(players: int = 4, levels: int = 21, punishment: bool = False, exclusion: bool = False) -> Contributor:
    """Gives nothing, ever. players, levels, punishment, exclusion: the game's."""
    return Contributor(players, levels, punishment, exclusion, share=0.0)
