"""N-delayed match to sample: is this symbol the one that was shown N steps ago?

Actions: 0 different, 1 same.
Observations: `symbol`, one of `symbols`; `cue`, 0 for a distractor, 1 for a sample, which is to be kept, 2 for a test, which is to be
    compared with it. Without `marked` samples look like distractors: then every symbol of the last N steps must be kept.
    In every query up to `gap` distractors come first, then the sample, N - 1 distractors and the test.
Reward: 1 for the right answer at a test. Half of the tests are the same as their sample; the others are drawn evenly from the rest.
End: with the last of `queries` tests.
Measures: `correct`, 1 or 0; NaN where nothing is asked. `hardest_correct`, with the curriculum "many": the same where N is `n`.
Curriculum: with "single" N is `n`; with "many" each episode draws its N from 1 to `n`. `training.curriculum` can raise `n` in either.
Source: Khajehabdollahi et al. 2024 (arXiv 2309.12927), where samples are not marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.chance import Purpose, integers
from envs.diagnostics.sequence import BLUE, GREY, SAND, Script, SequenceTask, tape
from envs.game import Mark, Observation

DISTRACTOR, SAMPLE, TEST = 0, 1, 2


@dataclass(frozen=True)
class MatchToSample(SequenceTask):
    """n: steps from a sample to its test, at most. symbols: how many different ones. queries: of an episode. gap: most distractors before a
    sample. curriculum: "single" or "many". marked: whether samples are cued.
    """

    n: int = 20
    symbols: int = 2
    queries: int = 2
    gap: int = 0
    curriculum: str = "single"
    marked: bool = True

    def __post_init__(self) -> None:
        for name, least, most in (("n", 1, 10_000), ("symbols", 2, 10_000), ("queries", 1, 1_000), ("gap", 0, 10_000)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; want from {least:,} to {most:,}")
        if self.curriculum not in ("single", "many"):
            raise ValueError(f"curriculum is {self.curriculum!r}; want 'single' or 'many'")
        if self.curriculum == "many" and not self.marked:
            raise ValueError("marked is False, and with the curriculum 'many' nothing would tell N; want marked=true, or curriculum=single")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        return {"symbol": gym.spaces.Discrete(self.symbols), "cue": gym.spaces.Discrete(3)}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.Discrete(2)

    @property
    def max_steps(self) -> int:
        return self.queries * (self.gap + self.n + 1)

    @property
    def task(self) -> str:
        return "say at every test whether it is the same as the sample before it" + ("" if self.marked else f", {self.n} steps ago")

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        time, query = (torch.arange(count, device=seeds.device) for count in (self.max_steps, self.queries))
        per_query = (seeds[:, None], Purpose.GAME)
        n = self._delay(seeds)
        gap = integers(per_query[0], self.gap + 1, Purpose.GAME, 1, query)
        test = (gap + n[:, None] + 1).cumsum(1) - 1
        sample = test - n[:, None]
        symbol = integers(seeds[:, None], self.symbols, Purpose.GAME, 2, time)
        same = integers(seeds[:, None], 2, Purpose.GAME, 3, query)
        another = 1 + integers(seeds[:, None], self.symbols - 1, Purpose.GAME, 4, query)
        tested = (symbol.gather(1, sample) + another * (1 - same)) % self.symbols
        cue = torch.zeros_like(symbol).scatter(1, test, TEST)
        asked = cue == TEST
        if self.marked:
            cue = cue.scatter(1, sample, SAMPLE)
        right = torch.zeros_like(symbol).scatter(1, test, same)
        return Script({"symbol": symbol.scatter(1, test, tested), "cue": cue}, right, asked, test[:, -1] + 1)

    def hardest(self, seeds: Int64[Tensor, "B"]) -> Bool[Tensor, "B"] | None:
        return self._delay(seeds) == self.n if self.curriculum == "many" else None

    def _delay(self, seeds: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        """N of each episode."""
        return integers(seeds, self.n, Purpose.GAME, 0) + 1 if self.curriculum == "many" else torch.full_like(seeds, self.n)

    def sees(self, shown: Observation) -> str:
        return f"{('', 'sample ', 'test ')[int(shown['cue'])]}{int(shown['symbol'])}"

    def names(self, action: Tensor) -> str:
        return ("different", "same")[int(action)]

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        letters = [str(symbol) for symbol in script.shown["symbol"][:step].tolist()]
        return tape(letters, [(GREY, SAND, BLUE)[cue] for cue in script.shown["cue"][:step].tolist()])


def match_to_sample() -> MatchToSample:
    """Say whether a symbol is the one that was marked 20 steps ago, twice (Khajehabdollahi et al. 2024)."""
    return MatchToSample()
