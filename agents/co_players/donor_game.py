"""Scripted villagers for `envs.donor_game`: what share each gives, from what it has heard of the recipient.

They sit in every variant. Where there is no trace (the first round, `trace_depth` 0) nothing is known, and each says what it does then.
A discrete game takes the nearest share that it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from agents.co_players.luck import Luck, new_luck
from agents.occupant import Decision
from envs.chance import uniform
from envs.game import ACTION_MASK, Observation


class _Villager:
    reads: ClassVar[dict[str, int]] = {"is_donor": 2}

    def start(self, seeds: Int64[Tensor, "N"]) -> Luck:
        return new_luck(seeds)

    def act(self, observation: Observation, state: Luck, reward: Tensor | None = None) -> tuple[Decision, Luck]:
        share = self.share(observation, state) * observation["is_donor"]
        return Decision(_action(share, observation)), state.next()

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        """What a donor gives, in [0, 1]; below 0 what it spends on punishment."""
        raise NotImplementedError


@dataclass(frozen=True)
class ConstantVillager(_Villager):
    """Gives the same share of what it has to everyone. gives: from 0 to 1."""

    gives: float = 0.5

    def __post_init__(self) -> None:
        _check_share("gives", self.gives)

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return _evenly(observation, self.gives)


@dataclass(frozen=True)
class RandomVillager(_Villager):
    """Gives a share drawn evenly from 0 to `up_to`, anew each time."""

    up_to: float = 1.0

    def __post_init__(self) -> None:
        _check_share("up_to", self.up_to)

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        return self.up_to * uniform(state.luck, state.clock)


@dataclass(frozen=True)
class MatchingVillager(_Villager):
    """Gives the share that the recipient gave in its last donor turn.

    first: to those of whom nothing is known.
    """

    first: float = 0.5

    def __post_init__(self) -> None:
        _check_share("first", self.first)

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        known, shares = _trace(observation)
        return torch.where(known[:, 0], shares[:, 0].clamp_min(0.0), self.first)


@dataclass(frozen=True)
class ImageScoringVillager(_Villager):
    """Gives to those who gave in their last donor turn, to others nothing (Nowak and Sigmund 1998).

    gives: to the former. threshold: what counts as having given. first: to those of whom nothing is known.
    """

    gives: float = 0.5
    threshold: float = 0.25
    first: float = 0.5

    def __post_init__(self) -> None:
        for name in ("gives", "threshold", "first"):
            _check_share(name, getattr(self, name))

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        known, shares = _trace(observation)
        answer = self.gives * (shares[:, 0] >= self.threshold).float()
        return torch.where(known[:, 0], answer, self.first)


@dataclass(frozen=True)
class StandingVillager(_Villager):
    """Gives to those in good standing, to others nothing (Leimar and Hammerstein 2001).

    In good standing is who gave, or refused someone in bad standing; at the far end of the trace only the gift counts. gives: to those in
    good standing. threshold: what counts as having given. first: to those of whom nothing is known.
    """

    gives: float = 0.5
    threshold: float = 0.25
    first: float = 0.5

    def __post_init__(self) -> None:
        for name in ("gives", "threshold", "first"):
            _check_share(name, getattr(self, name))

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        known, shares = _trace(observation)
        # Of whoever stands beyond the trace nothing is known that would excuse a refusal.
        is_bad_beyond = torch.zeros_like(known[:, 0])
        for link in reversed(range(known.shape[1])):
            is_bad_beyond = known[:, link] & (shares[:, link] < self.threshold) & ~is_bad_beyond
        answer = self.gives * (~is_bad_beyond).float()
        return torch.where(known[:, 0], answer, self.first)


@dataclass(frozen=True)
class PunishingVillager(_Villager):
    """Punishes those who gave little when they last could, gives to others (Vallinder and Hughes 2024).

    threshold: less than that is little. spends: on punishment. gives: to others, and to those of whom nothing is known. For games with
    punishment.
    """

    threshold: float = 0.25
    spends: float = 0.2
    gives: float = 0.5

    reads: ClassVar[dict[str, int]] = {"is_donor": 2, "punished": 2}

    def __post_init__(self) -> None:
        for name in ("threshold", "spends", "gives"):
            _check_share(name, getattr(self, name))

    def share(self, observation: Observation, state: Luck) -> Float[Tensor, "N"]:
        known, shares = _trace(observation)
        return torch.where(known[:, 0] & (shares[:, 0] < self.threshold), -self.spends, self.gives)


def free_riding_villager() -> ConstantVillager:
    """Never gives anything."""
    return ConstantVillager(0.0)


def _trace(observation: Observation) -> tuple[Bool[Tensor, "N L"], Float[Tensor, "N L"]]:
    """(which links exist, shares given); one link that does not exist where the game shows no trace."""
    trace = observation.get("trace")
    if trace is None:
        nothing = _evenly(observation, 0.0)[:, None]
        return nothing > 0, nothing
    return trace[:, :, 0] > 0, trace[:, :, 1]


def _evenly(observation: Observation, share: float) -> Float[Tensor, "N"]:
    return torch.full_like(observation["is_donor"], share, dtype=torch.float32)


def _action(share: Float[Tensor, "N"], observation: Observation) -> Shaped[Tensor, "N"]:
    """As the game takes it: the share itself, or the number of the choice that comes nearest."""
    mask = observation.get(ACTION_MASK)
    if mask is None:
        return share
    levels = (mask.shape[1] - 1) // (2 if "punished" in observation else 1)
    steps = (share.abs() * levels).round().long()
    return torch.where((share < 0) & (steps > 0), levels + steps, steps)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; want a share from 0 to 1")
