"""What goes with what: a list of pairs is shown once, then questions about it, many of which were never shown but follow.

Two games. In paired associates symbols stand in `chains` (A with B, B with C); a question shows a cue and two symbols, one of the cue's
chain, one from the same place of another chain. In transitive inference symbols stand in one order of which only neighbours are
compared; a question asks which of any two is the greater. Symbols mean something else in every episode.

Actions: 0 the left symbol, 1 the right one; without effect while nothing is asked.
Observations: `phase`, 0 a pair to learn, 1 nothing to see, 2 a question; `left` and `right`, and in paired associates `cue`: 0 for nothing,
    else 1 + one of `symbols`. In transitive inference the greater symbol of a pair to learn is on the left.
Reward: 1 for a right answer, else 0.
End: after all pairs (`passes` times), then `delay` steps in which nothing is shown, then `questions` questions.
Chance: symbols are dealt from `symbols` without repetition; each pass shows all pairs in an order of its own. Questions, and where the
    right answer stands, are drawn evenly and independently.
Measures: `correct`, NaN where nothing was asked; `correct_seen`, the same for questions about a pair that was shown; `correct_inferred`,
    for those that must be worked out: from two or more pairs, and in transitive inference between symbols that are not at an end.
Source: paired associate inference and transitive inference as memory tasks for agents (Banino et al. 2020, MEMO, arXiv 2001.10913; Lampinen
    et al. 2021, arXiv 2105.14039). Their sizes are not known to us; these are ours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.chance import Purpose, integers, permutation
from envs.game import Answer, Mark, Observation, Role, Scene, Turn

LEARN, WAIT, ASK = range(3)
GREEN, RED, GREY, INK = (64, 145, 108), (200, 80, 72), (205, 208, 212), (40, 44, 52)


class AssociatesState(NamedTuple):
    """items: [B, N], the symbols, in the order of chains or from the greatest. order: the pairs in the order in which they are shown.

    chosen: the last action, -1 if there was none.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    items: Int64[Tensor, "B N"]
    order: Int64[Tensor, "B pairs"]
    chosen: Int64[Tensor, "B"]


class _Card(NamedTuple):
    """What one step shows. cue, left, right: numbers of items, -1 for nothing. is_right: the right symbol is the answer.

    is_seen, is_inferred: what kind of question it is.
    """

    phase: Int64[Tensor, "B"]
    cue: Int64[Tensor, "B"]
    left: Int64[Tensor, "B"]
    right: Int64[Tensor, "B"]
    is_right: Bool[Tensor, "B"]
    is_seen: Bool[Tensor, "B"]
    is_inferred: Bool[Tensor, "B"]


class _Question(NamedTuple):
    """cue, answer, lure: numbers of items; cue -1 for none."""

    cue: Int64[Tensor, "B"]
    answer: Int64[Tensor, "B"]
    lure: Int64[Tensor, "B"]
    is_seen: Bool[Tensor, "B"]
    is_inferred: Bool[Tensor, "B"]


@dataclass(frozen=True)
class _Associates(ABC):
    """What both share.

    passes: how often every pair is shown. delay: steps without anything. questions: how many. symbols: to deal from.
    """

    passes: int = 1
    delay: int = 0
    questions: int = 6
    symbols: int = 32

    def __post_init__(self) -> None:
        for name, lowest in (("passes", 1), ("delay", 0), ("questions", 1)):
            if not lowest <= getattr(self, name) <= 1_000_000:
                raise ValueError(f"{name} is {getattr(self, name)}; want from {lowest} to 1,000,000")
        if not self.items <= self.symbols <= 100_000:
            raise ValueError(f"symbols is {self.symbols}; want at least one for each of {self.items} items, at most 100,000")

    @property
    @abstractmethod
    def items(self) -> int:
        """N, how many symbols an episode uses."""

    @property
    @abstractmethod
    def pairs(self) -> int:
        """How many pairs there are to learn."""

    @property
    @abstractmethod
    def has_cue(self) -> bool: ...

    @abstractmethod
    def pair(self, number: Int64[Tensor, "B"]) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
        """The two items of a pair to learn."""

    @abstractmethod
    def swaps(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> Bool[Tensor, "B"]:
        """Whether the two items of a pair to learn change sides."""

    @abstractmethod
    def question(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> _Question: ...

    @abstractmethod
    def told(self, cue: int | None, left: int, right: int) -> str:
        """A card in words. cue: None where a pair is to be learnt."""

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        symbol = gym.spaces.Discrete(1 + self.symbols)
        fields: dict[str, gym.Space] = {"phase": gym.spaces.Discrete(3), "left": symbol, "right": symbol}
        if self.has_cue:
            fields["cue"] = symbol
        return (Role("learner", 1, gym.spaces.Dict(fields), gym.spaces.Discrete(2)),)

    @property
    def learning_steps(self) -> int:
        return self.pairs * self.passes

    @property
    def max_steps(self) -> int:
        return self.learning_steps + self.delay + self.questions

    def start(self, seeds: Int64[Tensor, "B"]) -> AssociatesState:
        items = permutation(seeds, self.symbols, Purpose.GAME, 0)[:, : self.items]
        passes = torch.arange(self.passes, device=seeds.device)
        order = permutation(seeds[:, None], self.pairs, Purpose.GAME, 1, passes).flatten(1)
        return AssociatesState(seeds, torch.zeros_like(seeds), items, order, torch.full_like(seeds, -1))

    def observe(self, state: AssociatesState) -> dict[str, Observation]:
        card = self._card(state)
        # A column in front stands for nothing, item -1.
        symbols = torch.nn.functional.pad(state.items + 1, (1, 0))
        seen = {"phase": card.phase[:, None]}
        for name, item in (("left", card.left), ("right", card.right), ("cue", card.cue))[: 3 if self.has_cue else 2]:
            seen[name] = symbols.gather(1, item[:, None] + 1)
        return {"learner": seen}

    def answers(self, state: AssociatesState) -> dict[str, Answer]:
        card = self._card(state)
        return {"learner": Answer(card.is_right.long()[:, None], (card.phase == ASK)[:, None])}

    def step(self, state: AssociatesState, actions: Mapping[str, Tensor]) -> tuple[AssociatesState, Turn]:
        card, chosen, step = self._card(state), actions["learner"][:, 0], state.step + 1
        asks = card.phase == ASK
        correct = ((chosen == 1) == card.is_right).float()
        kinds = {"correct": asks, "correct_seen": asks & card.is_seen, "correct_inferred": asks & card.is_inferred}
        measures = {name: correct.masked_fill(~counts, math.nan) for name, counts in kinds.items()}
        after = AssociatesState(state.seed, step, state.items, state.order, chosen)
        return after, Turn({"learner": (correct * asks)[:, None]}, step >= self.max_steps, measures)

    def describe(self, state: AssociatesState, index: int) -> Scene:
        step = int(state.step[index])
        if step == 0:
            words = f"before step 1 of {self.max_steps}: {self.learning_steps} pairs to learn, then {self.questions} questions"
            return Scene(words, (Mark("text", 0.5, 0.45, 0.05, INK, f"{self.learning_steps} pairs, {self.questions} questions"),))
        before = AssociatesState(*(part[index : index + 1] for part in state))
        card = self._card(before._replace(step=before.step - 1))
        phase, cue, left, right = (int(part) for part in card[:4])
        title = Mark("text", 0.5, 0.1, 0.07, INK, f"step {step} of {self.max_steps}")
        if phase == WAIT:
            return Scene(f"step {step}: nothing to see", (title, Mark("text", 0.5, 0.5, 0.08, GREY, "nothing to see")))
        symbols = before.items[0].tolist()
        if phase == LEARN:
            words = f"learn {step} of {self.learning_steps}: {self.told(None, symbols[left], symbols[right])}"
            return Scene(words, (title, *self._cards(symbols, left, right, -1, INK), Mark("text", 0.5, 0.88, 0.05, INK, words)))
        chosen, is_right = int(before.chosen), bool(card.is_right)
        correct = (chosen == 1) == is_right
        kind = "shown" if card.is_seen else "inferred" if card.is_inferred else "with an end"
        question = self.told(symbols[cue] if cue >= 0 else -1, symbols[left], symbols[right])
        number = step - self.learning_steps - self.delay
        verdict = f"{'right, +1' if correct else 'wrong'} ({kind})"
        words = f"question {number} of {self.questions}: {question} says {symbols[right if chosen else left]}, {verdict}"
        colour = GREEN if correct else RED
        marks = [title, Mark("text", 0.5, 0.24, 0.06, INK, question), *self._cards(symbols, left, right, chosen, colour)]
        return Scene(words, (*marks, Mark("text", 0.5, 0.88, 0.07, colour, verdict)))

    def _cards(self, symbols: list[int], left: int, right: int, chosen: int, colour: tuple[int, int, int]) -> list[Mark]:
        """Two symbols side by side, the chosen one on a coloured card."""
        marks = []
        for side, (x, item) in enumerate(((0.28, left), (0.72, right))):
            marks.append(Mark("box", x, 0.53, 0.3, colour if side == chosen else GREY))
            marks.append(Mark("text", x, 0.53, 0.13, (255, 255, 255) if side == chosen else INK, str(symbols[item])))
        return marks

    def _card(self, state: AssociatesState) -> _Card:
        learns, asks = state.step < self.learning_steps, state.step >= self.learning_steps + self.delay
        number = state.order.gather(1, state.step.clamp(max=self.learning_steps - 1)[:, None])[:, 0]
        first, second = self.pair(number)
        question = self.question(state.seed, state.step)
        is_right = integers(state.seed, 2, Purpose.GAME, 2, state.step) == 1
        first, second = torch.where(learns, first, question.answer), torch.where(learns, second, question.lure)
        swaps = torch.where(learns, self.swaps(state.seed, state.step), is_right)
        left, right = torch.where(swaps, second, first), torch.where(swaps, first, second)
        is_shown = learns | asks
        return _Card(
            torch.where(learns, LEARN, torch.where(asks, ASK, WAIT)),
            torch.where(asks, question.cue, -1),
            torch.where(is_shown, left, -1),
            torch.where(is_shown, right, -1),
            is_right,
            question.is_seen,
            question.is_inferred,
        )


@dataclass(frozen=True)
class PairedAssociates(_Associates):
    """chains: how many. length: symbols in each; only neighbours in a chain are shown together. The rest as in transitive inference."""

    chains: int = 4
    length: int = 3

    def __post_init__(self) -> None:
        if not 2 <= self.chains <= 10_000:
            raise ValueError(f"chains is {self.chains}; want from 2 to 10,000, so that another can offer a wrong answer")
        if not 2 <= self.length <= 1000:
            raise ValueError(f"length is {self.length}; want from 2 to 1,000")
        super().__post_init__()

    @property
    def items(self) -> int:
        return self.chains * self.length

    @property
    def pairs(self) -> int:
        return self.chains * (self.length - 1)

    @property
    def has_cue(self) -> bool:
        return True

    def pair(self, number: Int64[Tensor, "B"]) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
        first = number // (self.length - 1) * self.length + number % (self.length - 1)
        return first, first + 1

    def swaps(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> Bool[Tensor, "B"]:
        return integers(seed, 2, Purpose.GAME, 3, step) == 1

    def question(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> _Question:
        """The cue and the answer are two different places of one chain, the lure is at the answer's place in another."""
        cue, answer = _two_of(self.length, seed, step)
        chain, other = _two_of(self.chains, seed, step, 1)
        distance = (cue - answer).abs()
        return _Question(chain * self.length + cue, chain * self.length + answer, other * self.length + answer, distance == 1, distance > 1)

    def told(self, cue: int | None, left: int, right: int) -> str:
        return f"{left} goes with {right}" if cue is None else f"with {cue} goes {left} or {right}?"


@dataclass(frozen=True)
class TransitiveInference(_Associates):
    """length: symbols in the order; only neighbours are compared. passes, delay, questions, symbols: as in paired associates."""

    length: int = 7

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 10_000:
            raise ValueError(f"length is {self.length}; want from 2 to 10,000")
        super().__post_init__()

    @property
    def items(self) -> int:
        return self.length

    @property
    def pairs(self) -> int:
        return self.length - 1

    @property
    def has_cue(self) -> bool:
        return False

    def pair(self, number: Int64[Tensor, "B"]) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
        return number, number + 1

    def swaps(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> Bool[Tensor, "B"]:
        return torch.zeros_like(seed, dtype=torch.bool)

    def question(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"]) -> _Question:
        """Which of two is greater."""
        one, other = _two_of(self.length, seed, step)
        greater, lesser = torch.minimum(one, other), torch.maximum(one, other)
        is_seen = lesser - greater == 1
        is_inferred = ~is_seen & (greater > 0) & (lesser < self.length - 1)
        return _Question(torch.full_like(greater, -1), greater, lesser, is_seen, is_inferred)

    def told(self, cue: int | None, left: int, right: int) -> str:
        return f"{left} is greater than {right}" if cue is None else f"which is greater, {left} or {right}?"


def _two_of(
    count: int, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"], stream: int = 0
) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
    """Two different numbers below `count`, every ordered pair with the same probability."""
    first = integers(seed, count, Purpose.GAME, 4, step, stream, 0)
    second = integers(seed, count - 1, Purpose.GAME, 4, step, stream, 1)
    return first, second + (second >= first)


def paired_associates() -> PairedAssociates:
    """Paired associates: four chains of three symbols, then questions about pairs shown and pairs that follow (after MEMO and HCAM)."""
    return PairedAssociates()


def transitive_inference() -> TransitiveInference:
    """Transitive inference: seven symbols, neighbours compared once, then questions about any two (after MEMO and HCAM)."""
    return TransitiveInference()
