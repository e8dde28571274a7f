"""Policy heads: one distribution per kind of action space, sampled from uniform draws so that chance stays a pure function.

A head turns memory outputs into `policy`, a tensor that says everything about the distribution; the other methods read it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from agents.pointer import ITEMS, Pointer
from envs.chance import categorical, uniform
from envs.game import ACTION_MASK, Observation


class PolicyHead(nn.Module, ABC):
    @abstractmethod
    def forward(self, y: Float[Tensor, "... D"], observation: Observation | None = None) -> Float[Tensor, "... Q"]:
        """The distribution. observation: {field: [..., ...]}, read for its action_mask [..., A], 1 for what is allowed, and by what points
        for its items; None where everything is allowed.
        """

    @abstractmethod
    def even(self, observation: Observation, rows: int) -> Float[Tensor, "N Q"]:
        """The policy that prefers nothing among what is allowed, for N rows of observation {field: [N, ...]}."""

    @abstractmethod
    def sample(self, policy: Float[Tensor, "... Q"], seed: Int64[Tensor, "..."]) -> Tensor: ...

    @abstractmethod
    def log_prob(self, policy: Float[Tensor, "... Q"], action: Tensor) -> Float[Tensor, "..."]: ...

    @abstractmethod
    def best(self, policy: Float[Tensor, "... Q"]) -> Tensor:
        """The policy's one guess at the right action."""

    @abstractmethod
    def loss(self, policy: Float[Tensor, "... Q"], answer: Tensor) -> Float[Tensor, "..."]:
        """How wrong the policy is where the right action is known; `best` is then what it has learned."""

    @abstractmethod
    def entropy(self, policy: Float[Tensor, "... Q"]) -> Float[Tensor, "..."]:
        """In nats."""

    @abstractmethod
    def parameters_of(self, policy: Float[Tensor, "... Q"]) -> Float[Tensor, "... Q"]:
        """For people and recordings: probabilities of choices, or shape parameters."""


def head_of(space: gym.Space[Any], width: int, features: int | None = None) -> PolicyHead:
    """The policy head for an action space. features: of each item that a Discrete action points at (`agents.pointer.item_features`).

    Raises ValueError for a space that no head serves.
    """
    match space:
        case gym.spaces.Discrete() if features is not None:
            return PointerHead(space, width, features)
        case gym.spaces.Discrete():
            return CategoricalHead([int(space.n)], [int(space.start)], _linear(width, int(space.n)), single=True)
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1:
            sizes = [int(n) for n in space.nvec]
            return CategoricalHead(sizes, [int(n) for n in np.ravel(space.start)], _linear(width, sum(sizes)), single=False)
        case gym.spaces.Box() if np.issubdtype(space.dtype, np.floating) and _has_a_range(space):
            return BoundedHead(space, width)
    text = " ".join(str(space).split())
    raise ValueError(
        f"no policy head acts in {text}; want Discrete, MultiDiscrete (one axis), or a Box of real numbers, low < high, finite"
    )


def _has_a_range(space: gym.spaces.Box) -> bool:
    with np.errstate(over="ignore"):
        span = space.high - space.low
    return bool(np.isfinite(span).all() and (span > 0).all())


def _linear(width: int, outputs: int) -> nn.Linear:
    """A last layer that starts near zero, so that the first policy is nearly even (Andrychowicz et al. 2021)."""
    layer = nn.Linear(width, outputs)
    nn.init.orthogonal_(layer.weight, gain=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class CategoricalHead(PolicyHead):
    """One or several independent choices. policy: log-probabilities, the choices' logits side by side."""

    def __init__(self, sizes: list[int], starts: list[int], logits: nn.Module, single: bool) -> None:
        super().__init__()
        self.sizes = sizes
        self.starts = starts
        self.single = single
        self.logits = logits

    def forward(self, y: Tensor, observation: Observation | None = None) -> Tensor:
        return self._distribution(self.logits(y), observation)

    def even(self, observation: Observation, rows: int) -> Tensor:
        return self._distribution(torch.zeros(rows, sum(self.sizes), device=next(iter(observation.values())).device), observation)

    def _distribution(self, logits: Float[Tensor, "... Q"], observation: Observation | None) -> Float[Tensor, "... Q"]:
        mask = None if observation is None else observation.get(ACTION_MASK)
        if mask is not None:
            # The most negative number, not minus infinity: 0 * log 0 would be NaN in the entropy.
            logits = logits.masked_fill(mask == 0, torch.finfo(logits.dtype).min / 4)
        return torch.cat([part.log_softmax(-1) for part in logits.split(self.sizes, -1)], -1) if not self.single else logits.log_softmax(-1)

    def sample(self, policy: Tensor, seed: Tensor) -> Tensor:
        if self.single:
            return categorical(policy.exp(), uniform(seed)) + self.starts[0]
        parts = policy.exp().split(self.sizes, -1)
        return torch.stack([categorical(part, uniform(seed, i)) + self.starts[i] for i, part in enumerate(parts)], -1)

    def log_prob(self, policy: Tensor, action: Tensor) -> Tensor:
        if self.single:
            return policy.gather(-1, (action - self.starts[0])[..., None])[..., 0]
        parts = policy.split(self.sizes, -1)
        each = [part.gather(-1, (action[..., i] - self.starts[i])[..., None])[..., 0] for i, part in enumerate(parts)]
        return torch.stack(each).sum(0)

    def best(self, policy: Tensor) -> Tensor:
        if self.single:
            return policy.argmax(-1) + self.starts[0]
        return torch.stack([part.argmax(-1) + start for part, start in zip(policy.split(self.sizes, -1), self.starts, strict=True)], -1)

    def loss(self, policy: Tensor, answer: Tensor) -> Tensor:
        """Cross-entropy in nats, added up over the choices."""
        return -self.log_prob(policy, answer)

    def entropy(self, policy: Tensor) -> Tensor:
        return -(policy.exp() * policy).sum(-1)

    def parameters_of(self, policy: Tensor) -> Tensor:
        return policy.exp()


class PointerHead(CategoricalHead):
    """One choice among the items that are seen, in whatever order and however many. features: F, of each."""

    def __init__(self, space: gym.spaces.Discrete, width: int, features: int) -> None:
        super().__init__([int(space.n)], [int(space.start)], Pointer(features, inputs=width, width=width), single=True)

    def forward(self, y: Tensor, observation: Observation | None = None) -> Tensor:
        assert observation is not None
        return self._distribution(self.logits(observation[ITEMS], y), observation)


class BoundedHead(PolicyHead):
    """Independent numbers between bounds, each with Kumaraswamy's distribution (1980) on the interval.

    F(x) = 1 - (1 - x^a)^b for x in (0, 1). It bends like a beta distribution, and sampling, density and entropy all have closed forms:
    one uniform draw gives one number. What falls within EDGE of a bound is the bound itself, so that nothing and everything can be
    chosen; log_prob there is the logarithm of that mass. policy: [..., 2n], all a then all b, both at least 0.05. entropy is the
    distribution's before this rounding.
    """

    EDGE = 1e-4
    low: Tensor
    high: Tensor

    def __init__(self, space: gym.spaces.Box, width: int) -> None:
        super().__init__()
        self.shape = space.shape
        self.count = math.prod(space.shape)
        self.shapes = _linear(width, 2 * self.count)
        # softplus(0.5413) = 1: the first policy is nearly uniform.
        nn.init.constant_(self.shapes.bias, math.log(math.e - 1))
        self.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32).reshape(-1), persistent=False)
        self.register_buffer("high", torch.as_tensor(space.high, dtype=torch.float32).reshape(-1), persistent=False)

    def forward(self, y: Tensor, observation: Observation | None = None) -> Tensor:
        return nn.functional.softplus(self.shapes(y)) + 0.05

    def even(self, observation: Observation, rows: int) -> Tensor:
        return torch.ones(rows, 2 * self.count, device=self.low.device)

    def sample(self, policy: Tensor, seed: Tensor) -> Tensor:
        a, b = policy.chunk(2, -1)
        draw = uniform(seed[..., None], torch.arange(self.count, device=seed.device))
        x = (1 - (1 - draw).pow(1 / b)).pow(1 / a)
        x = x.masked_fill(x < self.EDGE, 0.0).masked_fill(x > 1 - self.EDGE, 1.0)
        return self._between_bounds(x)

    def log_prob(self, policy: Tensor, action: Tensor) -> Tensor:
        a, b = policy.chunk(2, -1)
        span = self.high - self.low
        x = (action.reshape(*policy.shape[:-1], self.count) - self.low) / span
        is_low, is_high = x < self.EDGE / 2, x > 1 - self.EDGE / 2
        log_x = x.clamp(self.EDGE, 1 - self.EDGE).log()
        # log(1 - x^a), by expm1: exact near x = 1.
        log_rest = (-torch.expm1(a * log_x)).clamp_min(1e-12).log()
        inside = a.log() + b.log() + (a - 1) * log_x + (b - 1) * log_rest - span.log()
        # At the edges log_x is that of EDGE and of 1 - EDGE: F(EDGE) = 1 - (1 - x^a)^b, and 1 - F(1 - EDGE) = (1 - x^a)^b.
        at_low = (-torch.expm1(b * log_rest)).clamp_min(1e-12).log()
        return torch.where(is_low, at_low, torch.where(is_high, b * log_rest, inside)).sum(-1)

    def best(self, policy: Tensor) -> Tensor:
        """The mean, b B(1 + 1/a, b) on the unit interval."""
        a, b = policy.chunk(2, -1)
        mean = (b.log() + torch.lgamma(1 + 1 / a) + torch.lgamma(b) - torch.lgamma(1 + 1 / a + b)).exp().clamp(max=1.0)
        return self._between_bounds(mean)

    def loss(self, policy: Tensor, answer: Tensor) -> Tensor:
        """The squared distance of the mean from the answer."""
        return (self.best(policy) - answer).square().reshape(*policy.shape[:-1], self.count).sum(-1)

    def _between_bounds(self, x: Float[Tensor, "... n"]) -> Tensor:
        """From the unit interval to actions [..., *shape]."""
        return (self.low + x * (self.high - self.low)).reshape(*x.shape[:-1], *self.shape)

    def entropy(self, policy: Tensor) -> Tensor:
        a, b = policy.chunk(2, -1)
        harmonic = torch.digamma(b + 1) + 0.5772156649015329
        return (1 - 1 / b + (1 - 1 / a) * harmonic - (a * b).log() + (self.high - self.low).log()).sum(-1)

    def parameters_of(self, policy: Tensor) -> Tensor:
        return policy
