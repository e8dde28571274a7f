"""A co-player that learns within the trial: a memory-one table that follows its own policy gradient, round by round.

REINFORCE with a running baseline (Williams 1992) and eligibility traces (OLPOMDP: Baxter and Bartlett 2001), for theta the table's five
log-odds, r the reward, b the baseline, z the trace:

    theta <- theta + learning_rate (r - b) z
    b <- b + baseline_rate (r - b)
    z <- discount z + grad log pi(a | situation)

It takes everyone else for a part of the world, so that whoever looks further can shape it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from agents.co_players.luck import luck_of
from agents.co_players.tables import decide
from agents.occupant import Decision
from envs.chance import Purpose, fold, uniform
from envs.game import Observation


class LearnerState(NamedTuple):
    """logits, trace: [N, 5], the log-odds to cooperate in each situation and their eligibility. baseline: of the reward."""

    logits: Float[Tensor, "N 5"]
    trace: Float[Tensor, "N 5"]
    baseline: Float[Tensor, "N"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@dataclass(frozen=True)
class NaiveLearner:
    """Follows its own policy gradient within the trial (Williams 1992; Baxter and Bartlett 2001).

    learning_rate: from 0 (it plays its first table). discount: of the trace, how far back a reward reaches, from 0 to below 1.
    cooperation: how likely it cooperates at first in each situation, between 0 and 1; below 0, five numbers from U(0, 1) are drawn for the
    trial. baseline_rate: how fast the baseline follows the reward, from 0 (no baseline) to 1.
    """

    learning_rate: float = 0.5
    discount: float = 0.8
    cooperation: float = 0.5
    baseline_rate: float = 0.05

    reads: ClassVar[dict[str, int]] = {"outcome": 5}

    def __post_init__(self) -> None:
        if not 0 <= self.learning_rate <= 1e6:
            raise ValueError(f"learning_rate is {self.learning_rate}; want from 0 to 1,000,000")
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount is {self.discount}; want from 0 to below 1")
        if not self.cooperation < 1 or self.cooperation == 0:
            raise ValueError(f"cooperation is {self.cooperation}; want a probability between 0 and 1, or below 0 to draw it")
        if not 0 <= self.baseline_rate <= 1:
            raise ValueError(f"baseline_rate is {self.baseline_rate}; want from 0 to 1")

    def start(self, seeds: Int64[Tensor, "N"]) -> LearnerState:
        draws = uniform(fold(seeds, Purpose.PARAMETERS)[:, None], torch.arange(5, device=seeds.device))
        # A gradient cannot leave 0 or 1.
        cooperates = (draws if self.cooperation < 0 else torch.full_like(draws, self.cooperation)).clamp(1e-6, 1 - 1e-6)
        zero = torch.zeros_like(draws)
        return LearnerState(cooperates.logit(), zero, zero[:, 0], luck_of(seeds), torch.zeros_like(seeds))

    def act(self, observation: Observation, state: LearnerState, reward: Float[Tensor, "N"]) -> tuple[Decision, LearnerState]:
        surprise = reward - state.baseline
        logits = state.logits + self.learning_rate * surprise[:, None] * state.trace
        situation = observation["outcome"][:, None]
        cooperates = logits.gather(1, situation)[:, 0].sigmoid()
        decision = decide(cooperates, state.luck, state.clock)
        gradient = (decision.action == 0).float() - cooperates
        trace = (self.discount * state.trace).scatter_add(1, situation, gradient[:, None])
        baseline = state.baseline + self.baseline_rate * surprise
        return decision, LearnerState(logits, trace, baseline, state.luck, state.clock + 1)
