"""How a learner learns from its trajectories: PPO and A2C, settings and arithmetic, without Ray.

The same functions serve RLlib's learners (`training.rllib.learner`) and the plain loop (`training.plain`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from agents.agent import Agent, Outlook
from agents.heads import PolicyHead
from envs.chance import Purpose, permutation, seeds_of
from envs.game import Observation
from training import losses
from training.rollout import Trajectories


class Batch(NamedTuple):
    """What a loss reads, one row per trajectory (names as in `training.rollout.Trajectories`). advantage, target: [N, T], ready to use."""

    observation: Observation
    action: Tensor
    action_before: Tensor
    reward_before: Float[Tensor, "N T"]
    reset: Bool[Tensor, "N T"]
    memory: Any
    log_prob: Float[Tensor, "N T"]
    advantage: Float[Tensor, "N T"]
    target: Float[Tensor, "N T"]


@dataclass(frozen=True)
class _Algorithm:
    """What both share. Coefficients and the learning rate go linearly from their first to their `final_` value, where one is given.

    learning_rate, adam_epsilon, max_gradient_norm: Adam. discount: per step. trace: lambda of the advantages. value_coefficient,
    entropy_coefficient: weights in the loss. reward_scale: multiplies rewards inside the loss only. advantages: "none", "centre" (per
    kind of co-player) or "standardise". epochs: passes over a batch. minibatches: per pass, each an update.
    """

    learning_rate: float = 0.001
    final_learning_rate: float | None = None
    adam_epsilon: float = 1e-5
    max_gradient_norm: float = 1.0
    discount: float = 0.99
    trace: float = 0.95
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    final_entropy_coefficient: float | None = None
    reward_scale: float = 1.0
    advantages: str = "standardise"
    epochs: int = 1
    minibatches: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; want at least 1")
        for name in ("learning_rate", "final_learning_rate", "adam_epsilon", "max_gradient_norm", "reward_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; want a number above 0")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; want a number from 0 to 1")
        for name in ("value_coefficient", "entropy_coefficient", "final_entropy_coefficient"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; want 0 or more")
        if self.advantages not in ("none", "centre", "standardise"):
            raise ValueError(f"advantages is {self.advantages!r}; want 'none', 'centre' or 'standardise'")

    def prepare(self, lived: Trajectories) -> Batch:
        """Advantages and value targets. Values are predicted in units of scaled rewards."""
        advantage = losses.generalised_advantages(
            lived.reward * self.reward_scale, lived.value, lived.ended, lived.last_value, self.discount, self.trace
        )
        target = advantage + lived.value
        advantage = losses.normalise(advantage, lived.kind, self.advantages)
        return Batch(
            lived.observation, lived.action, lived.action_before, lived.reward_before, lived.reset, lived.memory,
            lived.log_prob, advantage, target,
        )  # fmt: skip

    def learning_rate_at(self, progress: float) -> float:
        """progress: 0 at the first iteration, 1 at the last."""
        return _between(self.learning_rate, self.final_learning_rate, progress)

    def entropy_coefficient_at(self, progress: float) -> float:
        return _between(self.entropy_coefficient, self.final_entropy_coefficient, progress)

    def optimiser(self, agent: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(agent.parameters(), lr=self.learning_rate, eps=self.adam_epsilon)

    def loss(
        self, head: PolicyHead, outlook: Outlook, batch: Batch, progress: float
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss of what an agent made of a batch, and figures worth logging (detached; names as in `training.metrics`)."""
        log_prob = head.log_prob(outlook.policy, batch.action)
        policy_loss = self.policy_loss(log_prob, batch)
        value_loss = losses.value_loss(outlook.value, batch.target)
        entropy = head.entropy(outlook.policy).mean()
        loss = policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient_at(progress) * entropy
        kl = losses.approximate_kl(log_prob.detach(), batch.log_prob)
        return loss, {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach(), "kl": kl}

    def policy_loss(self, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        raise NotImplementedError


@dataclass(frozen=True)
class PPO(_Algorithm):
    """Proximal policy optimisation (Schulman et al. 2017). clip: how far the ratio of probabilities may move."""

    epochs: int = 2
    minibatches: int = 4
    clip: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip is {self.clip}; want a number above 0")

    def policy_loss(self, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        return losses.ppo_policy_loss(log_prob, batch.log_prob, batch.advantage, self.clip)


@dataclass(frozen=True)
class A2C(_Algorithm):
    """Advantage actor-critic (Mnih et al. 2016): one update on all rows by default."""

    def policy_loss(self, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        return losses.a2c_policy_loss(log_prob, batch.advantage)


def outlook_on(agent: Agent, batch: Batch) -> Outlook:
    """What an agent makes of a batch."""
    outlook: Outlook = agent(batch.observation, batch.action_before, batch.reward_before, batch.memory, batch.reset)
    return outlook


def minibatches(rows: int, algorithm: PPO | A2C, seed: int, iteration: int) -> Iterator[Int64[Tensor, "M"]]:
    """Row numbers of every update of an iteration: a fresh order each epoch, a function of (seed, iteration, epoch) alone."""
    count = min(algorithm.minibatches, rows)
    for epoch in range(algorithm.epochs):
        order = permutation(seeds_of(seed, Purpose.MINIBATCH, 1, iteration, epoch), rows)[0]
        yield from order.tensor_split(count)


def clip_gradients(gradients: list[Tensor], max_norm: float) -> Float[Tensor, ""]:
    """Scales gradients in place so that their joint norm is at most max_norm; the norm before that."""
    norm = torch.nn.utils.get_total_norm(gradients)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale)
    return norm


def _between(first: float, final: float | None, progress: float) -> float:
    return first if final is None else first + (final - first) * min(1.0, max(0.0, progress))
