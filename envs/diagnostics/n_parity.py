"""N-parity: are there an odd number of ones among the last N bits?

Actions: 0 even, 1 odd.
Observations: `bit`, 0 or 1, one per step. Each episode has a bias of its own, drawn from U(0, 1): how probable a one is.
Reward: 1 for the right answer, at the last step alone; with `dense`, at every step from number N on.
End: after M steps, drawn evenly from N + 2 to 4 N + 1; nothing tells the player when.
Measure: `correct`, 1 or 0; NaN where nothing is asked.
Source: Khajehabdollahi et al. 2024 (arXiv 2309.12927), whose networks are raised from N = 2 to larger N one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.chance import Purpose, integers, uniform
from envs.diagnostics.sequence import BLUE, GREY, SAND, Script, SequenceTask, tape
from envs.game import Mark, Observation


@dataclass(frozen=True)
class NParity(SequenceTask):
    """n: how many bits count. dense: whether every step from number n on asks, or the last alone."""

    n: int = 4
    dense: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 10_000:
            raise ValueError(f"n is {self.n}; want from 1 to 10,000")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        return {"bit": gym.spaces.Discrete(2)}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.Discrete(2)

    @property
    def max_steps(self) -> int:
        return 4 * self.n + 1

    @property
    def task(self) -> str:
        return (
            f"say {'at every step' if self.dense else 'in the end'} whether the ones among the last {self.n} bits are odd or even in number"
        )

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        time = torch.arange(self.max_steps, device=seeds.device)
        bias = uniform(seeds, Purpose.GAME, 0)
        bits = (uniform(seeds[:, None], Purpose.GAME, 1, time) < bias[:, None]).long()
        ones = bits.cumsum(1)
        before = torch.nn.functional.pad(ones[:, : -self.n], (self.n, 0))
        length = self.n + 2 + integers(seeds, 3 * self.n, Purpose.GAME, 2)
        asked = time >= self.n - 1 if self.dense else time == length[:, None] - 1
        return Script({"bit": bits}, (ones - before) % 2, asked.expand_as(bits), length)

    def sees(self, shown: Observation) -> str:
        return str(int(shown["bit"]))

    def names(self, action: Tensor) -> str:
        return ("even", "odd")[int(action)]

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        bits = script.shown["bit"][:step].tolist()
        counts = [step - number <= self.n for number in range(step)]
        colours = [(BLUE if bit else SAND) if near else GREY for bit, near in zip(bits, counts, strict=True)]
        return tape([str(bit) for bit in bits], colours)


def n_parity() -> NParity:
    """Say in the end whether the last four bits of a sequence hold an odd number of ones (Khajehabdollahi et al. 2024)."""
    return NParity()
