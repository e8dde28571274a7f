"""Grim trigger (Friedman 1971): cooperates until the other defects once, then defects for ever. Its memory is one bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from agents.occupant import Decision
from envs.game import Observation


class GrimState(NamedTuple):
    provoked: Bool[Tensor, "N"]


@dataclass(frozen=True)
class GrimTrigger:
    """Cooperates until the other defects once, then defects for ever (Friedman 1971)."""

    reads: ClassVar[dict[str, int]] = {"outcome": 5}

    def start(self, seeds: Int64[Tensor, "N"]) -> GrimState:
        return GrimState(torch.zeros(len(seeds), dtype=torch.bool, device=seeds.device))

    def act(self, observation: Observation, state: GrimState, reward: Tensor | None = None) -> tuple[Decision, GrimState]:
        # Symbols 2 (CD) and 4 (DD): the other defected.
        outcome = observation["outcome"]
        provoked = state.provoked | (outcome == 2) | (outcome == 4)
        action = provoked.long()
        return Decision(action, policy=torch.stack([1.0 - action, action.float()], -1)), GrimState(provoked)
