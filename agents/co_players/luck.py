"""The chance of scripts: a stream per seat, folded once for the trial, from which each step draws by its number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from envs.chance import Purpose, fold


class Luck(NamedTuple):
    """The state of a script that remembers nothing else. luck, clock: the stream of what is drawn, and steps taken."""

    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]

    def next(self) -> Luck:
        """After a step."""
        return self._replace(clock=self.clock + 1)


def luck_of(seeds: Int64[Tensor, "N"]) -> Int64[Tensor, "N"]:
    """The streams that actions are drawn from."""
    return fold(seeds, Purpose.ACTION)


def new_luck(seeds: Int64[Tensor, "N"]) -> Luck:
    """Before the first step."""
    return Luck(luck_of(seeds), torch.zeros_like(seeds))
