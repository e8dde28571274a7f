"""How a learner learns from its trajectories: PPO, A2C or right answers; settings and arithmetic, without Ray.

The same functions serve RLlib's learners (`training.rllib.learner`) and the plain loop (`training.plain`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from agents.agent import Agent, Outlook
from agents.auxiliary import AuxiliaryHeads, Lived
from agents.heads import PolicyHead
from envs.chance import Purpose, permutation, seeds_of
from envs.game import Answer, Game, HasChannels, Observation
from training import losses, messages
from training.rollout import Relaxation, Trajectories, knowing


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
    answer: Answer | None = None
    relaxation: Relaxation | None = None
    others: Float[Tensor, "N T A"] | None = None


@dataclass(frozen=True)
class _Algorithm:
    """What all share.

    final_learning_rate, final_entropy_coefficient: what those come to in the end, linearly; None: they stay as they are.

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

    # Whether the right actions must be kept while playing.
    wants_answers: ClassVar[bool] = False
    # Whether a teacher plays in the learner's place.
    shows: ClassVar[bool] = False
    # Whether a word's effect on those who hear it must be computed (`training.messages`).
    wants_relaxations: ClassVar[bool] = False

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

    def check_fits(self, game: Game) -> None:
        """Raises ValueError where this cannot be learned from the game."""
        if self.wants_answers:
            knowing(game)

    def prepare(self, lived: Trajectories) -> Batch:
        """Advantages and value targets. Values are predicted in units of scaled rewards."""
        advantage = losses.generalised_advantages(
            lived.reward * self.reward_scale, lived.value, lived.ended, lived.last_value, self.discount, self.trace
        )
        target = advantage + lived.value
        advantage = losses.normalise(advantage, lived.kind, self.advantages)
        return Batch(
            lived.observation, lived.action, lived.action_before, lived.reward_before, lived.reset, lived.memory,
            lived.log_prob, advantage, target, lived.answer, lived.relaxation, lived.others,
        )  # fmt: skip

    def learning_rate_at(self, progress: float) -> float:
        """progress: 0 at the first iteration, 1 at the last."""
        return _between(self.learning_rate, self.final_learning_rate, progress)

    def entropy_coefficient_at(self, progress: float) -> float:
        return _between(self.entropy_coefficient, self.final_entropy_coefficient, progress)

    def optimiser(self, agent: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(agent.parameters(), lr=self.learning_rate, eps=self.adam_epsilon)

    def loss(
        self, head: PolicyHead, outlook: Outlook, batch: Batch, progress: float, auxiliary: AuxiliaryHeads | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss of what an agent made of a batch, and figures worth logging (detached; names as in `training.metrics`)."""
        log_prob = head.log_prob(outlook.policy, batch.action)
        policy_loss = self.policy_loss(head, outlook, log_prob, batch)
        value_loss = losses.value_loss(outlook.value, batch.target)
        entropy = head.entropy(outlook.policy).mean()
        loss = policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient_at(progress) * entropy
        figures = {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach()}
        if not self.shows:
            figures["kl"] = losses.approximate_kl(log_prob.detach(), batch.log_prob)
        if auxiliary is not None:
            assert outlook.x is not None
            assert outlook.y is not None
            found = auxiliary(head, Lived(outlook.x, outlook.y, outlook.policy, batch.observation, batch.reset, batch.others))
            loss = loss + auxiliary.total(found)
            figures |= {name: value.detach() for name, value in found.items()}
        return loss, figures

    def policy_loss(self, head: PolicyHead, outlook: Outlook, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        """log_prob: of the actions that were taken."""
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

    def policy_loss(self, head: PolicyHead, outlook: Outlook, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        return losses.ppo_policy_loss(log_prob, batch.log_prob, batch.advantage, self.clip)


@dataclass(frozen=True)
class A2C(_Algorithm):
    """Advantage actor-critic (Mnih et al. 2016): one update on all rows by default."""

    def policy_loss(self, head: PolicyHead, outlook: Outlook, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        return losses.a2c_policy_loss(log_prob, batch.advantage)


@dataclass(frozen=True)
class Supervised(_Algorithm):
    """Learns what the game says would have been right (`envs.game.KnowsAnswers`), by the policy head's `loss`; rewards play no part.

    With `agent.acts="best"` the learner plays what it thinks right. Neither values nor entropy count unless their coefficients say so.
    shows: whether a teacher plays while training (teacher forcing): the right action where one is wanted, elsewhere any that is allowed.
    The learner sees what comes of it and does not play, which makes training quick; what is measured in training is then the teacher's
    success, and only `evaluate` tells the learner's.
    """

    value_coefficient: float = 0.0
    entropy_coefficient: float = 0.0
    shows: bool = False

    wants_answers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shows and self.value_coefficient:
            raise ValueError(f"value_coefficient is {self.value_coefficient} and shows True; want 0, for who does not play expects nothing")

    def check_fits(self, game: Game) -> None:
        super().check_fits(game)
        if self.shows and isinstance(game, HasChannels) and game.channels:
            raise ValueError(f"shows is True; want False, for what is right to say in {type(game).__name__} no teacher knows")

    def policy_loss(self, head: PolicyHead, outlook: Outlook, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        assert batch.answer is not None
        return losses.answer_loss(head.loss(outlook.policy, batch.answer.action), batch.answer.asked)


@dataclass(frozen=True)
class StraightThrough(Supervised):
    """Listeners learn the right answers, speakers learn through what their listeners hear, by straight-through Gumbel-softmax
    (`training.messages`). temperature: of the softmax. clip: a word counts while its probability is within this share of what it was when
    it was said; what its listeners made of it is of that time.
    """

    temperature: float = 1.0
    clip: float = 0.2

    wants_relaxations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shows:
            raise ValueError("shows is True; want False, for words that nobody chose teach a speaker nothing")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; want a number above 0")
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip is {self.clip}; want a number above 0")

    def check_fits(self, game: Game) -> None:
        messages.channels_of(game)

    def policy_loss(self, head: PolicyHead, outlook: Outlook, log_prob: Float[Tensor, "N T"], batch: Batch) -> Float[Tensor, ""]:
        loss = super().policy_loss(head, outlook, log_prob, batch)
        if batch.relaxation is None:
            return loss
        moved = (log_prob.detach() - batch.log_prob).exp() - 1
        return loss + messages.straight_through_loss(outlook.policy, batch.relaxation, self.temperature, moved.abs() < self.clip)


def outlook_on(agent: Agent, batch: Batch) -> Outlook:
    """What an agent makes of a batch."""
    outlook: Outlook = agent(batch.observation, batch.action_before, batch.reward_before, batch.memory, batch.reset)
    return outlook


def minibatches(rows: int, algorithm: PPO | A2C | Supervised, seed: int, iteration: int) -> Iterator[Int64[Tensor, "M"]]:
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
