"""N-parity: are there an odd number of ones among the last N bits?

Actions: 0 even, 1 odd.
Observations: `bit`, 0 or 1, one per step. Each episode has a bias of its own, drawn from U(0, 1): how probable a one is.
    With the curriculum "many" also `n`: N where something is asked, 0 elsewhere.
Reward: 1 for the right answer, at the last step alone; with `dense`, at every step from number N on.
End: after M steps, drawn evenly from `n` + 2 to 4 `n` + 1; nothing tells the player when.
Measures: `correct`, 1 or 0; NaN where nothing is asked. `hardest_correct`, with the curriculum "many": the same where N is `n`.
Curriculum: with "single" N is `n`; with "many" each episode draws its N from 2 to `n`. `training.curriculum` can raise `n` in either.
Source: Khajehabdollahi et al. 2024 (arXiv 2309.12927), whose networks are raised from N = 2 to larger N one by one. In their "cumulative"
    curriculum a readout for each N is trained at once, up to 100 of them; here an episode asks for one, and tells which only then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.chance import Purpose, integers, uniform
from envs.diagnostics.sequence import BLUE, GREY, SAND, Script, SequenceTask, tape
from envs.game import Mark, Observation

# The largest N that can be told. The space of what is shown does not depend on `n`, so that a curriculum may raise it.
MOST = 100


@dataclass(frozen=True)
class NParity(SequenceTask):
    """n: how many bits count, at most. dense: whether every step from number N on asks, or the last alone. curriculum: "single" or
    "many".
    """

    n: int = 4
    dense: bool = False
    curriculum: str = "single"

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 10_000:
            raise ValueError(f"n is {self.n}; want from 1 to 10,000")
        if self.curriculum not in ("single", "many"):
            raise ValueError(f"curriculum is {self.curriculum!r}; want 'single' or 'many'")
        if self.curriculum == "many" and not 2 <= self.n <= MOST:
            raise ValueError(f"n is {self.n}; want from 2 to {MOST} with the curriculum 'many'")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        told = {"n": gym.spaces.Discrete(MOST + 1)} if self.curriculum == "many" else {}
        return {"bit": gym.spaces.Discrete(2), **told}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.Discrete(2)

    @property
    def max_steps(self) -> int:
        return 4 * self.n + 1

    @property
    def task(self) -> str:
        when = "at every step" if self.dense else "in the end"
        last, more = (f"last {self.n}", "") if self.curriculum == "single" else ("last N", f", with N from 2 to {self.n}")
        return f"say {when} whether the ones among the {last} bits are odd or even in number{more}"

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        time = torch.arange(self.max_steps, device=seeds.device)
        bias = uniform(seeds, Purpose.GAME, 0)
        bits = (uniform(seeds[:, None], Purpose.GAME, 1, time) < bias[:, None]).long()
        n = self._count(seeds)[:, None]
        ones = bits.cumsum(1)
        before = ones.gather(1, (time - n).clamp(min=0)).masked_fill(time < n, 0)
        length = self.n + 2 + integers(seeds, 3 * self.n, Purpose.GAME, 2)
        asked = time >= n - 1 if self.dense else time == length[:, None] - 1
        told = {"n": n * asked} if self.curriculum == "many" else {}
        return Script({"bit": bits, **told}, (ones - before) % 2, asked, length)

    def hardest(self, seeds: Int64[Tensor, "B"]) -> Bool[Tensor, "B"] | None:
        return self._count(seeds) == self.n if self.curriculum == "many" else None

    def _count(self, seeds: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        """N of each episode."""
        return 2 + integers(seeds, self.n - 1, Purpose.GAME, 3) if self.curriculum == "many" else torch.full_like(seeds, self.n)

    def sees(self, shown: Observation) -> str:
        n = int(shown["n"]) if "n" in shown else 0
        return f"{int(shown['bit'])}{f' and N is {n}' if n else ''}"

    def names(self, action: Tensor) -> str:
        return ("even", "odd")[int(action)]

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        bits = script.shown["bit"][:step].tolist()
        n = int(script.shown["n"].max()) if "n" in script.shown else self.n
        counts = [step - number <= n for number in range(step)]
        colours = [(BLUE if bit else SAND) if near else GREY for bit, near in zip(bits, counts, strict=True)]
        return tape([str(bit) for bit in bits], colours)


def n_parity() -> NParity:
    """Say in the end whether the last four bits of a sequence hold an odd number of ones (Khajehabdollahi et al. 2024)."""
    return NParity()
