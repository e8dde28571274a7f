"""Linear regression in context: guess each answer from its question and all questions and answers before it.

Actions: one number, the guess, from -`bound` to `bound`.
Observations: `x`, the question, `dimensions` numbers; `y_before`, the answer to the question before, 0 at the first.
Reward: minus the squared difference between the guess and the answer y = w . x + noise.
End: after `pairs` + 1 questions, so that the last guess can use `pairs` answers.
Chance: every number of every question is drawn from N(0, 1); w from N(0, I / dimensions), once for the episode; the noise from
    N(0, `noise`), where `noise` is a variance.
Measures: `squared_error`; `last_squared_error`, the same at the last question alone, which is what the literature states.
Source: the setting of the theory of learning in context (2503.12734): 5 dimensions, 40 pairs. `zero_loss` to `ridge_loss` are what known
    predictors lose on average.
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
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from envs.chance import Purpose, uniform
from envs.game import Answer, Mark, Observation, Role, Scene, Turn

GREEN, BLUE, GREY, INK = (64, 145, 108), (66, 108, 186), (205, 208, 212), (40, 44, 52)


class RegressionState(NamedTuple):
    """weights: w. x, y: the question that is open and its answer. y_before, guess: the answer before and what was guessed."""

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    weights: Float[Tensor, "B d"]
    x: Float[Tensor, "B d"]
    y: Float[Tensor, "B"]
    y_before: Float[Tensor, "B"]
    guess: Float[Tensor, "B"]


@dataclass(frozen=True)
class LinearRegression:
    """dimensions: of a question. pairs: answers that the last guess can use. noise: its variance. bound: of guesses."""

    dimensions: int = 5
    pairs: int = 40
    noise: float = 0.1
    bound: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= 1000:
            raise ValueError(f"dimensions is {self.dimensions}; want from 1 to 1,000")
        if not 1 <= self.pairs <= 1_000_000:
            raise ValueError(f"pairs is {self.pairs}; want from 1 to 1,000,000")
        if not 0.0 <= self.noise <= 1e6:
            raise ValueError(f"noise is {self.noise}; want a variance from 0 to 1,000,000")
        if not 0.0 < self.bound <= 1e6:
            raise ValueError(f"bound is {self.bound}; want a number above 0, at most 1,000,000")

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                "x": gym.spaces.Box(-np.inf, np.inf, (self.dimensions,), np.float32),
                "y_before": gym.spaces.Box(-np.inf, np.inf, (), np.float32),
            }
        )
        return (Role("guesser", 1, sees, gym.spaces.Box(-self.bound, self.bound, (), np.float32)),)

    @property
    def max_steps(self) -> int:
        return self.pairs + 1

    def start(self, seeds: Int64[Tensor, "B"]) -> RegressionState:
        step, none = torch.zeros_like(seeds), torch.zeros(len(seeds), device=seeds.device)
        weights = (_normal(seeds, self.dimensions, 0, 0) / math.sqrt(self.dimensions)).float()
        return RegressionState(seeds, step, weights, *self._question(seeds, step, weights), none, none)

    def observe(self, state: RegressionState) -> dict[str, Observation]:
        return {"guesser": {"x": state.x[:, None], "y_before": state.y_before[:, None]}}

    def answers(self, state: RegressionState) -> dict[str, Answer]:
        action = state.y[:, None].clamp(-self.bound, self.bound)
        return {"guesser": Answer(action, torch.ones_like(action, dtype=torch.bool))}

    def step(self, state: RegressionState, actions: Mapping[str, Float[Tensor, "B 1"]]) -> tuple[RegressionState, Turn]:
        guess, step = actions["guesser"][:, 0], state.step + 1
        error = (guess - state.y) ** 2
        over = step > self.pairs
        after = RegressionState(state.seed, step, state.weights, *self._question(state.seed, step, state.weights), state.y, guess)
        measures = {"squared_error": error, "last_squared_error": error.masked_fill(~over, math.nan)}
        return after, Turn({"guesser": -error[:, None]}, over, measures)

    def describe(self, state: RegressionState, index: int) -> Scene:
        step = int(state.step[index])
        if step == 0:
            text = f"before question 1 of {self.max_steps}: which y belongs to x = {_told(state.x[index])}?"
            return Scene(text, (Mark("text", 0.5, 0.12, 0.07, INK, text.partition(":")[0]), *self._bars(None)))
        y, guess = float(state.y_before[index]), float(state.guess[index])
        text = f"question {step}: guesses {guess:+.2f}, it was {y:+.2f}, reward {-((guess - y) ** 2):+.2f}"
        if step < self.max_steps:
            text += f"; next x = {_told(state.x[index])}"
        title = Mark("text", 0.5, 0.12, 0.07, INK, f"question {step} of {self.max_steps}")
        reward = Mark("text", 0.5, 0.92, 0.07, INK, f"reward {-((guess - y) ** 2):+.2f}")
        return Scene(text, (title, *self._bars((guess, y)), reward))

    def _bars(self, numbers: tuple[float, float] | None) -> list[Mark]:
        """The guess and the answer as bars up or down from zero."""
        marks = [Mark("box", 0.5, 0.5, 0.8, GREY, height=0.01)]
        for x, name, colour, number in zip((0.26, 0.74), ("guess", "answer"), (BLUE, GREEN), numbers or (0.0, 0.0), strict=True):
            height = 0.28 * max(-1.0, min(1.0, number / self.bound))
            if height:
                marks.append(Mark("box", x, 0.5 - height / 2, 0.18, colour, height=abs(height)))
            marks.append(Mark("text", x, 0.83, 0.06, colour, f"{name} {number:+.2f}" if numbers else name))
        return marks

    def _question(
        self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"], weights: Float[Tensor, "B d"]
    ) -> tuple[Float[Tensor, "B d"], Float[Tensor, "B"]]:
        """(x, y) of a step."""
        drawn = _normal(seed, self.dimensions + 1, 1, step)
        x, noise = drawn[:, :-1].float(), drawn[:, -1]
        # In doubles, so that a batch's sums and a single game's, rounded to floats, are the same.
        return x, ((x.double() * weights.double()).sum(1) + noise * math.sqrt(self.noise)).float()


def _normal(seed: Int64[Tensor, "B"], count: int, stream: int, step: int | Int64[Tensor, "B"]) -> Float64[Tensor, "B count"]:
    """Draws from N(0, 1), by Box and Muller 1958."""
    if isinstance(step, Tensor):
        step = step[:, None]
    draws = torch.arange(count, device=seed.device)
    radius, angle = (uniform(seed[:, None], Purpose.GAME, stream, step, draws, part).double() for part in range(2))
    # 1 - u is never 0.
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()


def _told(x: Float[Tensor, "d"]) -> str:
    """A question in words, its first five numbers."""
    return "(" + ", ".join(f"{number:+.1f}" for number in x[:5].tolist()) + (", ..." if len(x) > 5 else "") + ")"


def zero_loss(game: LinearRegression) -> float:
    """Mean squared error of whoever always guesses 0."""
    return 1.0 + game.noise


def gradient_step_loss(game: LinearRegression) -> float:
    """Mean squared error at the last question after the best single step of gradient descent from w = 0, as linear attention can make.

    With step size s the error of w has the mean square 1 - 2s + c s^2, c = 1 + (d + 1 + d noise) / pairs, for E[(X'X)^2] is known.
    """
    curvature = 1.0 + (game.dimensions + 1 + game.dimensions * game.noise) / game.pairs
    return 1.0 - 1.0 / curvature + game.noise


def least_squares_loss(game: LinearRegression) -> float:
    """Mean squared error of least squares at the last question; infinite with fewer than dimensions + 2 pairs (inverse Wishart)."""
    spare = game.pairs - game.dimensions - 1
    return game.noise * (1.0 + game.dimensions / spare) if spare > 0 else math.inf


def ridge_loss(game: LinearRegression, x: Float[Tensor, "N L d"], strength: float | None = None) -> Float64[Tensor, "N"]:
    """Expected squared error of ridge regression after the L questions x and their answers, at a next question from N(0, I).

    strength: of the ridge; None for noise * dimensions, with which this is the Bayes predictor and no other loses less.
    """
    if strength is None:
        strength = game.noise * game.dimensions
    x = x.double()
    gram = x.mT @ x
    shrink = torch.linalg.inv(gram + strength * torch.eye(game.dimensions, dtype=x.dtype, device=x.device))
    bias = strength**2 / game.dimensions * (shrink @ shrink).diagonal(dim1=-2, dim2=-1).sum(-1)
    variance = game.noise * (shrink @ gram @ shrink).diagonal(dim1=-2, dim2=-1).sum(-1)
    return game.noise + bias + variance


def attention_mu(game: LinearRegression, omega: Float64[Tensor, "H"]) -> Float64[Tensor, "H"]:
    """Output weights of heads of softmax attention with query-key weights omega: those that lose least where there are many pairs.

    (omega omega' + (1 + noise) / pairs exp(dimensions omega omega')) mu = omega, from 2503.12734.
    """
    product = torch.outer(omega, omega)
    return torch.linalg.solve(product + (1.0 + game.noise) / game.pairs * (game.dimensions * product).exp(), omega)


def attention_loss(
    game: LinearRegression,
    x: Float[Tensor, "N L d"],
    question: Float[Tensor, "N d"],
    omega: Float64[Tensor, "H"],
    mu: Float64[Tensor, "H"],
) -> Float64[Tensor, "N"]:
    """Expected squared error, over weights and noise, of the guess sum_h mu_h sum_i y_i softmax_i(omega_h x_i . question) (2503.12734)."""
    x, question = x.double(), question.double()
    score = (x @ question[:, :, None])[..., 0]
    attention = torch.einsum("h,nhl->nl", mu, (omega[:, None] * score[:, None]).softmax(-1))
    # The guess is w . (what is attended to) + noise: it misses w . (question - that), and has noise of its own.
    missed = question - (attention[:, None] @ x)[:, 0]
    return game.noise + missed.square().sum(1) / game.dimensions + game.noise * attention.square().sum(1)


def linear_regression() -> LinearRegression:
    """In-context linear regression: 5 dimensions, 41 questions, noise of variance 0.1."""
    return LinearRegression()
