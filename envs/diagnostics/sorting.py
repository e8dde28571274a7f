"""Sorting by pointing: of the items that are left, point at the one with the smallest number, until none is left.

Actions: one of `items` places.
Observations: `items`, for each place its number (in [0, 1)) and 1 if the item is still there, both 0 once it was taken; where `recalls`,
    the field is called `places` and only the first observation shows numbers. `action_mask`, 1 for items that are left.
Reward: 1 for the smallest of those left, else 0. What was pointed at is taken either way.
End: after `items` steps.
Chance: the numbers are different multiples of 1 / 256, in every order with the same probability.
Measures: `correct`, 1 for a right choice, NaN for the last, which is none; `sorted`, at the end, 1 if every choice was right.
Source: selection sort by a pointer (Vinyals et al. 2015, arXiv 1506.03134; numbers below 256 as in Yan et al. 2020, arXiv 2006.08084).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.chance import Purpose, permutation
from envs.game import ACTION_MASK, Answer, Mark, Observation, Role, Scene, Turn

NUMBERS = 256
GREEN, RED, BLUE, GREY, INK = (64, 145, 108), (200, 80, 72), (66, 108, 186), (205, 208, 212), (40, 44, 52)


class SortingState(NamedTuple):
    """numbers: 0 to 255. left: which are. faultless: every choice was right so far.
    pointed: the last choice, -1 if there was none. correct: whether it was right.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    numbers: Int64[Tensor, "B N"]
    left: Bool[Tensor, "B N"]
    faultless: Bool[Tensor, "B"]
    pointed: Int64[Tensor, "B"]
    correct: Bool[Tensor, "B"]


@dataclass(frozen=True)
class Sorting:
    """items: how many. recalls: whether numbers are shown only before the first choice."""

    items: int = 5
    recalls: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.items <= NUMBERS:
            raise ValueError(f"items is {self.items}; want from 2 to {NUMBERS}")

    @property
    def field(self) -> str:
        """What the observation is called. Agents point at `items`, and where the numbers are gone that is no help: all look alike."""
        return "places" if self.recalls else "items"

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {self.field: gym.spaces.Box(0, 1, (self.items, 2), np.float32), ACTION_MASK: gym.spaces.MultiBinary(self.items)}
        )
        return (Role("sorter", 1, sees, gym.spaces.Discrete(self.items)),)

    @property
    def max_steps(self) -> int:
        return self.items

    def start(self, seeds: Int64[Tensor, "B"]) -> SortingState:
        numbers = permutation(seeds, NUMBERS, Purpose.GAME)[:, : self.items]
        yes = torch.ones_like(seeds, dtype=torch.bool)
        return SortingState(
            seeds, torch.zeros_like(seeds), numbers, torch.ones_like(numbers, dtype=torch.bool), yes, torch.full_like(seeds, -1), ~yes
        )

    def observe(self, state: SortingState) -> dict[str, Observation]:
        shown = state.left & (state.step == 0)[:, None] if self.recalls else state.left
        items = torch.stack([(state.numbers / NUMBERS).where(shown, 0.0), state.left.float()], -1)
        # After the last choice nothing is left; a mask must allow something.
        allowed = state.left | (state.step >= self.items)[:, None]
        return {"sorter": {self.field: items[:, None], ACTION_MASK: allowed.to(torch.int8)[:, None]}}

    def answers(self, state: SortingState) -> dict[str, Answer]:
        action = self._smallest(state)[:, None]
        return {"sorter": Answer(action, torch.ones_like(action, dtype=torch.bool))}

    def step(self, state: SortingState, actions: Mapping[str, Tensor]) -> tuple[SortingState, Turn]:
        pointed, step = actions["sorter"][:, 0], state.step + 1
        correct = pointed == self._smallest(state)
        left = state.left & (torch.arange(self.items, device=pointed.device) != pointed[:, None])
        faultless, over = state.faultless & correct, step >= self.items
        after = SortingState(state.seed, step, state.numbers, left, faultless, pointed, correct)
        measures = {"correct": correct.float().masked_fill(over, math.nan), "sorted": faultless.float().masked_fill(~over, math.nan)}
        return after, Turn({"sorter": correct.float()[:, None]}, over, measures)

    def describe(self, state: SortingState, index: int) -> Scene:
        step, numbers, left = int(state.step[index]), state.numbers[index].tolist(), state.left[index].tolist()
        row = " ".join(str(number) if is_left else "-" for number, is_left in zip(numbers, left, strict=True))
        title = f"step {step} of {self.items}" if step else "before step 1"
        if step == 0:
            words = f"before step 1 of {self.items}: [{row}], the smallest first"
            return Scene(words, (Mark("text", 0.5, 0.1, 0.07, INK, title), *self._bars(numbers, left, -1, BLUE)))
        pointed, correct = int(state.pointed[index]), bool(state.correct[index])
        smallest = min(number for place, number in enumerate(numbers) if left[place] or place == pointed)
        verdict = "right, +1" if correct else f"wrong, {smallest} is smaller"
        words = f"step {step}: takes {numbers[pointed]}, {verdict}; left [{row}]"
        colour = GREEN if correct else RED
        marks = [Mark("text", 0.5, 0.1, 0.07, INK, title), *self._bars(numbers, left, pointed, colour)]
        return Scene(words, (*marks, Mark("text", 0.5, 0.94, 0.06, colour, f"takes {numbers[pointed]}: {verdict}")))

    def _bars(self, numbers: list[int], left: list[bool], pointed: int, colour: tuple[int, int, int]) -> list[Mark]:
        """Items as bars, those taken grey, the last choice in a colour of its own."""
        marks, pitch = [], 0.9 / self.items
        for place, number in enumerate(numbers):
            x, height = 0.05 + pitch * (place + 0.5), 0.02 + 0.58 * number / NUMBERS
            fill = colour if place == pointed else BLUE if left[place] else GREY
            marks.append(Mark("box", x, 0.8 - height / 2, 0.7 * pitch, fill, height=height))
            marks.append(Mark("text", x, 0.85, min(0.06, 0.4 * pitch), fill, str(number)))
        return marks

    def _smallest(self, state: SortingState) -> Int64[Tensor, "B"]:
        """The place of the smallest number left."""
        return state.numbers.masked_fill(~state.left, NUMBERS).argmin(1)


def sorting() -> Sorting:
    """Sorting five numbers by pointing at the smallest left (pointer networks)."""
    return Sorting()


def sorting_from_memory() -> Sorting:
    """The same, but the numbers are shown only once."""
    return Sorting(recalls=True)
