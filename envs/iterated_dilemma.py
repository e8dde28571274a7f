"""Two players repeat one matrix game. The prisoner's dilemma of Weis et al. 2026 (arXiv 2602.16301, A.2) is the default.

Actions: each player picks one of A actions (for dilemmas 0 is cooperate, 1 is defect), both at once.
Observations: `outcome`, one of 1 + A * A symbols: 0 before the first round, then 1 + A * (own last action) + (the other's last action);
    where the payoffs differ between the seats, also `seat`, 0 for the row player and 1 for the column player.
Reward: payoffs[row's action][column's action] = (row's reward, column's reward), every round.
End: after `rounds` rounds; with `continuation` below 1, each round is the last with probability 1 - continuation.
Noise: with probability `noise` an action is replaced by another one, drawn evenly from the rest; both players see what was executed.
Measure: `cooperation`, 1 for each seat that executed action 0 (named after action 0 where that is not "cooperate").
Source: the payoffs of chicken and the stag hunt are those of Leibo et al. 2017 (arXiv 1702.03037); the classical dilemma is Axelrod's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from envs.chance import Purpose, integers, uniform
from envs.game import Mark, Observation, Role, Scene, Turn

Payoffs = tuple[tuple[tuple[float, float], ...], ...]
GREEN, RED, GREY, INK = (64, 145, 108), (200, 80, 72), (205, 208, 212), (40, 44, 52)


class DilemmaState(NamedTuple):
    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    # What each seat sees of the last round: 0, or 1 + A * own + other.
    outcome: Int64[Tensor, "B 2"]


@dataclass(frozen=True)
class IteratedDilemma:
    """payoffs: [A][A] pairs (row's, column's). actions: their names, the first for cooperation. rounds: at most. continuation: chance of
    another round. noise: chance of a slip.
    """

    payoffs: Payoffs = (((1.0, 1.0), (-1.0, 2.0)), ((2.0, -1.0), (0.0, 0.0)))
    actions: tuple[str, ...] = ("cooperate", "defect")
    rounds: int = 100
    continuation: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.actions)
        is_square = len(self.payoffs) == count and all(len(row) == count for row in self.payoffs)
        if count < 2 or not is_square or any(len(pair) != 2 for row in self.payoffs for pair in row):
            raise ValueError(f"payoffs is {self.payoffs}; want {count} rows of {count} pairs, for the actions {', '.join(self.actions)}")
        if not all(math.isfinite(payoff) for row in self.payoffs for pair in row for payoff in pair):
            raise ValueError(f"payoffs is {self.payoffs}; want finite numbers")
        if len(set(self.actions)) < count or not all(self.actions):
            raise ValueError(f"actions is {self.actions}; want different names")
        if not 1 <= self.rounds <= 1_000_000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000,000")
        if not 0.0 < self.continuation <= 1.0:
            raise ValueError(f"continuation is {self.continuation}; want a probability above 0, up to 1")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise is {self.noise}; want a probability from 0 to 1")

    @cached_property
    def is_symmetric(self) -> bool:
        return all(self.payoffs[a][b] == self.payoffs[b][a][::-1] for a in range(len(self.actions)) for b in range(len(self.actions)))

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        fields: dict[str, gym.Space] = {"outcome": gym.spaces.Discrete(1 + len(self.actions) ** 2)}
        if not self.is_symmetric:
            fields["seat"] = gym.spaces.Discrete(2)
        return (Role("player", 2, gym.spaces.Dict(fields), gym.spaces.Discrete(len(self.actions))),)

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Int64[Tensor, "B"]) -> DilemmaState:
        zero = torch.zeros_like(seeds)
        return DilemmaState(seeds, zero, zero[:, None].expand(-1, 2))

    def observe(self, state: DilemmaState) -> dict[str, Observation]:
        observation = {"outcome": state.outcome}
        if not self.is_symmetric:
            observation["seat"] = torch.arange(2, device=state.seed.device).expand_as(state.outcome)
        return {"player": observation}

    def step(self, state: DilemmaState, actions: Mapping[str, Int64[Tensor, "B 2"]]) -> tuple[DilemmaState, Turn]:
        played = self._slip(state, actions["player"])
        count = len(self.actions)
        outcome = torch.add(played.flip(1), played, alpha=count).add_(1)
        step = state.step + 1
        over = step >= self.rounds
        if self.continuation < 1.0:
            over = over | (uniform(state.seed, Purpose.CONTINUE, state.step) >= self.continuation)
        turn = Turn({"player": self._rewards(outcome)}, over, {self.measure: (played == 0).float()})
        return DilemmaState(state.seed, step, outcome), turn

    def describe(self, state: DilemmaState, index: int) -> Scene:
        step, outcome = int(state.step[index]), state.outcome[index].tolist()
        title = Mark("text", 0.5, 0.12, 0.09, INK, f"round {step} of {self.rounds}")
        if outcome[0] == 0:
            discs = tuple(Mark("disc", x, 0.5, 0.3, GREY) for x in (0.28, 0.72))
            return Scene(f"before round 1 of at most {self.rounds}", (title, *discs))
        own = [(symbol - 1) // len(self.actions) for symbol in outcome]
        rewards = self._rewards(state.outcome[index : index + 1])[0].tolist()
        marks = [title]
        words = []
        for seat, x in ((0, 0.28), (1, 0.72)):
            colour = GREEN if own[seat] == 0 else RED
            marks.append(Mark("disc", x, 0.48, 0.3, colour))
            marks.append(Mark("text", x, 0.74, 0.07, INK, self.actions[own[seat]]))
            marks.append(Mark("text", x, 0.86, 0.09, INK, f"{rewards[seat]:+g}"))
            words.append(f"player_{seat} {self.actions[own[seat]]} {rewards[seat]:+g}")
        return Scene(f"round {step}: " + ", ".join(words), tuple(marks))

    @property
    def measure(self) -> str:
        return "cooperation" if self.actions[0] == "cooperate" else self.actions[0]

    def _slip(self, state: DilemmaState, chosen: Int64[Tensor, "B 2"]) -> Int64[Tensor, "B 2"]:
        if self.noise == 0.0:
            return chosen
        seats = torch.arange(2, device=chosen.device)
        key = (state.seed[:, None], Purpose.NOISE, state.step[:, None], seats)
        slips = uniform(*key, 0) < self.noise
        # One to A - 1 steps further round the circle of actions: an even draw from the others.
        moved = (chosen + 1 + integers(key[0], len(self.actions) - 1, *key[1:], 1)) % len(self.actions)
        return torch.where(slips, moved, chosen)

    @cached_property
    def _reward_of_symbol(self) -> dict[torch.device, Float[Tensor, "S 2"]]:
        return {}

    def _rewards(self, outcome: Int64[Tensor, "B 2"]) -> Float[Tensor, "B 2"]:
        table = self._reward_of_symbol.get(outcome.device)
        if table is None:
            count = len(self.actions)
            rows = [(0.0, 0.0)] + [(self.payoffs[a][b][0], self.payoffs[b][a][1]) for a in range(count) for b in range(count)]
            table = self._reward_of_symbol[outcome.device] = torch.tensor(rows, device=outcome.device)
        if self.is_symmetric:
            return table[:, 0][outcome]
        return torch.stack([table[:, 0][outcome[:, 0]], table[:, 1][outcome[:, 1]]], 1)


def prisoners_dilemma() -> IteratedDilemma:
    """Repeated prisoner's dilemma with payoffs 1, -1, 2, 0 for 100 rounds (Weis et al. 2026)."""
    return IteratedDilemma()


def classical_prisoners_dilemma() -> IteratedDilemma:
    """Repeated prisoner's dilemma with payoffs 3, 0, 5, 1 (Axelrod 1980)."""
    return IteratedDilemma((((3.0, 3.0), (0.0, 5.0)), ((5.0, 0.0), (1.0, 1.0))))


def chicken() -> IteratedDilemma:
    """Repeated chicken with payoffs 3, 1, 4, 0 (Leibo et al. 2017)."""
    return IteratedDilemma((((3.0, 3.0), (1.0, 4.0)), ((4.0, 1.0), (0.0, 0.0))))


def stag_hunt() -> IteratedDilemma:
    """Repeated stag hunt with payoffs 4, 0, 3, 1 (Leibo et al. 2017)."""
    return IteratedDilemma((((4.0, 4.0), (0.0, 3.0)), ((3.0, 0.0), (1.0, 1.0))))


def matching_pennies() -> IteratedDilemma:
    """Repeated matching pennies: the row player wins 1 on a match, the column player otherwise."""
    return IteratedDilemma((((1.0, -1.0), (-1.0, 1.0)), ((-1.0, 1.0), (1.0, -1.0))), ("heads", "tails"))


def battle_of_the_sexes() -> IteratedDilemma:
    """Repeated battle of the sexes: both want to meet, each at another place; payoffs 2 and 1, apart 0."""
    return IteratedDilemma((((2.0, 1.0), (0.0, 0.0)), ((0.0, 0.0), (1.0, 2.0))), ("opera", "football"))
