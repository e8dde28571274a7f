"""Modular addition: two symbols are shown, the answer is the symbol of their sum. What a symbol stands for is never told.

Actions: one of `modulus` symbols.
Observations: `first` and `second`, one of `modulus` symbols each.
Reward: 1 for (first + second) mod modulus, else 0.
End: after `rounds` questions.
Chance: every question is drawn evenly from those that are asked. Of all modulus ** 2 questions a share `held_out`, the same in every game,
    is kept apart: with `asks` "seen" only the others are asked, with "held_out" only these, with "all" every one.
Measure: `correct`, 1 for a right answer, 0 for a wrong one.
Source: a standard task of work on how networks compute (2602.16849, with modulus 97 and 75 % of the questions in training).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.chance import Purpose, integers, permutation
from envs.game import Answer, Mark, Observation, Role, Scene, Turn

GREEN, RED, GREY, INK = (64, 145, 108), (200, 80, 72), (205, 208, 212), (40, 44, 52)
ASKS = ("seen", "held_out", "all")
# Which questions are kept apart must not differ from game to game, so it follows from a seed of its own.
SPLIT_SEED = 97


class AdditionState(NamedTuple):
    """question: first * modulus + second, now open. before, said: the last one and the answer to it, -1 if there was none."""

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    question: Int64[Tensor, "B"]
    before: Int64[Tensor, "B"]
    said: Int64[Tensor, "B"]


@dataclass(frozen=True)
class ModularAddition:
    """modulus: how many symbols. rounds: questions. held_out: share of all questions kept apart. asks: "seen", "held_out" or "all"."""

    modulus: int = 7
    rounds: int = 10
    held_out: float = 0.0
    asks: str = "seen"

    def __post_init__(self) -> None:
        if not 2 <= self.modulus <= 1000:
            raise ValueError(f"modulus is {self.modulus}; want from 2 to 1,000")
        if not 1 <= self.rounds <= 1_000_000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000,000")
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out is {self.held_out}; want a share from 0 to below 1")
        if self.asks not in ASKS:
            raise ValueError(f"asks is {self.asks!r}; want one of {', '.join(ASKS)}")
        if self.asks == "held_out" and self._apart == 0:
            raise ValueError(f"asks is 'held_out', but held_out is {self.held_out}; want a share that keeps a question apart")

    @property
    def _apart(self) -> int:
        """How many questions are kept apart."""
        return int(self.held_out * self.modulus**2)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        symbols = gym.spaces.Discrete(self.modulus)
        return (Role("adder", 1, gym.spaces.Dict({"first": symbols, "second": symbols}), symbols),)

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Int64[Tensor, "B"]) -> AdditionState:
        step, none = torch.zeros_like(seeds), torch.full_like(seeds, -1)
        return AdditionState(seeds, step, self._question(seeds, step), none, none)

    def observe(self, state: AdditionState) -> dict[str, Observation]:
        question = state.question[:, None]
        return {"adder": {"first": question // self.modulus, "second": question % self.modulus}}

    def answers(self, state: AdditionState) -> dict[str, Answer]:
        action = self._sum(state.question)[:, None]
        return {"adder": Answer(action, torch.ones_like(action, dtype=torch.bool))}

    def step(self, state: AdditionState, actions: Mapping[str, Tensor]) -> tuple[AdditionState, Turn]:
        said, step = actions["adder"][:, 0], state.step + 1
        correct = (said == self._sum(state.question)).float()
        after = AdditionState(state.seed, step, self._question(state.seed, step), state.question, said)
        return after, Turn({"adder": correct[:, None]}, step >= self.rounds, {"correct": correct})

    def describe(self, state: AdditionState, index: int) -> Scene:
        step, now = int(state.step[index]), self._told(int(state.question[index]))
        if step == 0:
            words = f"before question 1 of {self.rounds}: what is {now}?"
            return Scene(words, (Mark("text", 0.5, 0.4, 0.09, INK, now), Mark("text", 0.5, 0.65, 0.14, GREY, "?")))
        before, said = int(state.before[index]), int(state.said[index])
        right = int(self._sum(state.before[index : index + 1]))
        verdict = "right, +1" if said == right else f"wrong, it is {right}"
        words = f"question {step}: {self._told(before)}? says {said}, {verdict}"
        if step < self.rounds:
            words += f"; next: {now}?"
        colour = GREEN if said == right else RED
        return Scene(
            words,
            (
                Mark("text", 0.5, 0.12, 0.08, INK, f"question {step} of {self.rounds}"),
                Mark("text", 0.5, 0.4, 0.09, INK, self._told(before)),
                Mark("text", 0.5, 0.65, 0.18, colour, str(said)),
                Mark("text", 0.5, 0.88, 0.07, colour, verdict),
            ),
        )

    def _told(self, question: int) -> str:
        return f"{question // self.modulus} + {question % self.modulus} mod {self.modulus}"

    def _sum(self, question: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        return (question // self.modulus + question % self.modulus) % self.modulus

    def _question(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        """first * modulus + second, evenly from those that are asked."""
        total, apart = self.modulus**2, self._apart
        first, count = {"seen": (apart, total - apart), "held_out": (0, apart), "all": (0, total)}[self.asks]
        return self._order(seed.device)[first + integers(seed, count, Purpose.GAME, step)]

    @cached_property
    def _orders(self) -> dict[torch.device, Int64[Tensor, "questions"]]:
        return {}

    def _order(self, device: torch.device) -> Int64[Tensor, "questions"]:
        """All questions, those kept apart first."""
        order = self._orders.get(device)
        if order is None:
            split = permutation(torch.tensor(SPLIT_SEED), self.modulus**2, Purpose.GAME)
            order = self._orders[device] = split.to(device)
        return order


def modular_addition() -> ModularAddition:
    """Addition modulo 7, both addends shown as symbols, ten questions."""
    return ModularAddition()
