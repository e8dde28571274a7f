"""A partner with moods: guess what it will do next. Its mood follows a Markov chain and is never seen, only what it does.

Actions: one of 3 acts, the guess.
Observations: `seen`, one of 4 symbols: 0 before the first act, then 1 + what the partner just did.
Reward: 1 if the partner does what was guessed, else 0.
End: after `rounds` acts.
Chance: the first mood is drawn evenly from `moods`. In mood i of M the partner does act 0 with probability 0.99 (1 - a), act 1 with 0.01
    and act 2 with 0.99 a, where a = i / (M - 1). After an act it keeps its mood with probability `stay`; otherwise it goes, by `moves`:
    "chain", to a neighbouring mood, either with the same probability (at an end there is one); "cycle", to the next, after the last to
    the first; "full", to any other, evenly.
Measure: `correct`, 1 for a right guess, 0 for a wrong one. Nobody does better on average than the forward algorithm, which
    `agents.co_players.diagnostics` plays.
Source: the hidden Markov models of 2510.25674: these probabilities of acts; chains, cycles and full graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from envs.chance import Purpose, categorical, integers, uniform
from envs.game import Answer, Mark, Observation, Role, Scene, Turn

ACTS = 3
MOVES = ("chain", "cycle", "full")
GREEN, RED, GREY, INK = (64, 145, 108), (200, 80, 72), (205, 208, 212), (40, 44, 52)


class MoodState(NamedTuple):
    """mood: now. act: what the partner will do in this step. seen: 1 + what it did last, 0 if nothing. guess: what was guessed of it."""

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    mood: Int64[Tensor, "B"]
    act: Int64[Tensor, "B"]
    seen: Int64[Tensor, "B"]
    guess: Int64[Tensor, "B"]


class MoodTables(NamedTuple):
    """to: [M, M] probabilities of the next mood. does: [M, 3] of acts."""

    to: Float[Tensor, "M M"]
    does: Float[Tensor, "M 3"]


@dataclass(frozen=True)
class HiddenMarkov:
    """moods: M. moves: "chain", "cycle" or "full". stay: chance to keep a mood. rounds: acts."""

    moods: int = 5
    moves: str = "chain"
    stay: float = 0.95
    rounds: int = 50

    def __post_init__(self) -> None:
        if not 2 <= self.moods <= 100:
            raise ValueError(f"moods is {self.moods}; want from 2 to 100")
        if self.moves not in MOVES:
            raise ValueError(f"moves is {self.moves!r}; want one of {', '.join(MOVES)}")
        if not 0.0 <= self.stay <= 1.0:
            raise ValueError(f"stay is {self.stay}; want a probability from 0 to 1")
        if not 1 <= self.rounds <= 1_000_000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000,000")

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        return (Role("guesser", 1, gym.spaces.Dict({"seen": gym.spaces.Discrete(1 + ACTS)}), gym.spaces.Discrete(ACTS)),)

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Int64[Tensor, "B"]) -> MoodState:
        step = torch.zeros_like(seeds)
        mood = integers(seeds, self.moods, Purpose.GAME, 0, 0)
        return MoodState(seeds, step, mood, self._act(seeds, step, mood), step, step)

    def observe(self, state: MoodState) -> dict[str, Observation]:
        return {"guesser": {"seen": state.seen[:, None]}}

    def answers(self, state: MoodState) -> dict[str, Answer]:
        action = state.act[:, None]
        return {"guesser": Answer(action, torch.ones_like(action, dtype=torch.bool))}

    def step(self, state: MoodState, actions: Mapping[str, Tensor]) -> tuple[MoodState, Turn]:
        guess, step = actions["guesser"][:, 0], state.step + 1
        correct = (guess == state.act).float()
        to = self.tables(guess.device).to[state.mood]
        mood = categorical(to, uniform(state.seed, Purpose.GAME, step, 0))
        after = MoodState(state.seed, step, mood, self._act(state.seed, step, mood), state.act + 1, guess)
        return after, Turn({"guesser": correct[:, None]}, step >= self.rounds, {"correct": correct})

    def describe(self, state: MoodState, index: int) -> Scene:
        step, mood, seen, guess = (int(part[index]) for part in (state.step, state.mood, state.seen, state.guess))
        moods = [Mark("disc", (place + 1) / (self.moods + 1), 0.3, 0.1, INK if place == mood else GREY) for place in range(self.moods)]
        title = Mark("text", 0.5, 0.1, 0.07, INK, f"act {step} of {self.rounds}" if step else "before act 1")
        # The discs show the mood of the act to come: nothing that the guesser sees.
        label = Mark("text", 0.5, 0.43, 0.05, INK, f"hidden: next act is in mood {mood}")
        if step == 0:
            return Scene(f"before act 1 of {self.rounds}: the partner is in mood {mood} of 0 to {self.moods - 1}", (title, *moods, label))
        correct = guess == seen - 1
        verdict = "right, +1" if correct else "wrong"
        words = f"act {step}: guesses {guess}, the partner does {seen - 1}, {verdict}; the next act is in mood {mood}"
        colour = GREEN if correct else RED
        said = Mark("text", 0.5, 0.66, 0.08, INK, f"partner does {seen - 1}")
        return Scene(words, (title, *moods, label, said, Mark("text", 0.5, 0.82, 0.08, colour, f"guess {guess}: {verdict}")))

    def tables(self, device: torch.device) -> MoodTables:
        """The probabilities, on a device."""
        return mood_tables(self.moods, self.moves, self.stay, device)

    def _act(self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"], mood: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        return categorical(self.tables(seed.device).does[mood], uniform(seed, Purpose.GAME, step, 1))


@cache
def mood_tables(moods: int, moves: str, stay: float, device: torch.device) -> MoodTables:
    """The probabilities of a partner with these settings (see `HiddenMarkov`)."""
    to = torch.eye(moods) * stay
    for mood in range(moods):
        others = {
            "chain": [other for other in (mood - 1, mood + 1) if 0 <= other < moods],
            "cycle": [(mood + 1) % moods],
            "full": [other for other in range(moods) if other != mood],
        }[moves]
        to[mood, others] = (1 - stay) / len(others)
    last = torch.arange(moods) / (moods - 1)
    does = torch.stack([0.99 * (1 - last), torch.full_like(last, 0.01), 0.99 * last], 1)
    return MoodTables(to.to(device), does.to(device))


def hidden_markov() -> HiddenMarkov:
    """Guess the acts of a partner with five hidden moods in a chain."""
    return HiddenMarkov()
