"""Multi-query associative recall (MQAR): pairs of a key and a value are shown, then keys; which value belongs to this key?

Actions: a value, 0 to `values` - 1.
Observations: `token`: 0 for nothing, then `keys` keys, then `values` values. First the pairs, a key and then its value; then
    `slots` steps, in which every key comes once more and the rest shows nothing. Keys of an episode differ; values are drawn evenly.
Reward: 1 for the right value, at the steps at which a key comes again.
End: after 2 * `pairs` + `slots` steps.
Measure: `correct`, 1 or 0; NaN where nothing is asked.
Source: Arora et al. 2023 (arXiv 2312.04927). Slot number g = 1, 2, .. is drawn with a probability proportional to g^(power - 1), without
    replacement: with power near 0 most keys come again soon, as words do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.chance import Purpose, integers, permutation, uniform
from envs.diagnostics.sequence import BLUE, GREY, SAND, Script, SequenceTask, tape
from envs.game import Mark, Observation


@dataclass(frozen=True)
class AssociativeRecall(SequenceTask):
    """pairs: of an episode. keys, values: how many there are to draw from. slots: steps after the pairs. power: of the gaps' law."""

    pairs: int = 8
    keys: int = 32
    values: int = 32
    slots: int = 32
    power: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("pairs", 1), ("keys", self.pairs), ("values", 2), ("slots", self.pairs)):
            if not least <= getattr(self, name) <= 100_000:
                why = " (one for each pair)" if name in ("keys", "slots") else ""
                raise ValueError(f"{name} is {getattr(self, name)}; want from {least} to 100,000{why}")
        if not 0 < self.power < math.inf:
            raise ValueError(f"power is {self.power}; want a number above 0")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        return {"token": gym.spaces.Discrete(1 + self.keys + self.values)}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.Discrete(self.values)

    @property
    def max_steps(self) -> int:
        return 2 * self.pairs + self.slots

    @property
    def task(self) -> str:
        return f"keep {self.pairs} pairs of a key and a value; when a key comes again, say its value"

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        pair, slot = (torch.arange(count, device=seeds.device) for count in (self.pairs, self.slots))
        key = permutation(seeds, self.keys, Purpose.GAME, 0)[:, : self.pairs]
        value = integers(seeds[:, None], self.values, Purpose.GAME, 1, pair)
        shown = torch.stack([1 + key, 1 + self.keys + value], 2).flatten(1)
        # Whoever arrives first in a race of exponential clocks with these rates is drawn first.
        rate = (slot + 1).double() ** (self.power - 1)
        clock = -torch.log1p(-uniform(seeds[:, None], Purpose.GAME, 2, slot).double()) / rate
        place = clock.argsort(dim=1, stable=True)[:, : self.pairs]
        blank = torch.zeros(len(seeds), self.slots, dtype=torch.int64, device=seeds.device)
        token = torch.cat([shown, blank.scatter(1, place, 1 + key)], 1)
        right = torch.cat([torch.zeros_like(shown), blank.scatter(1, place, value)], 1)
        asked = torch.cat([torch.zeros_like(shown), blank.scatter(1, place, 1)], 1) == 1
        return Script({"token": token}, right, asked, torch.full_like(seeds, self.max_steps))

    def sees(self, shown: Observation) -> str:
        return self._word(int(shown["token"])) or "nothing"

    def names(self, action: Tensor) -> str:
        return f"v{int(action)}"

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        tokens = script.shown["token"][:step].tolist()
        return tape(
            [self._word(token) for token in tokens], [GREY if token == 0 else SAND if token <= self.keys else BLUE for token in tokens]
        )

    def _word(self, token: int) -> str:
        if token == 0:
            return ""
        return f"k{token - 1}" if token <= self.keys else f"v{token - 1 - self.keys}"


def associative_recall() -> AssociativeRecall:
    """Eight pairs of a key and a value are shown, then the keys again: say their values (MQAR, Arora et al. 2023)."""
    return AssociativeRecall()
