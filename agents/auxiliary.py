"""What an agent may learn to predict beside its policy and its value, so that its memory keeps what rewards alone teach too slowly.

    reconstruction    the observation, from what the memory puts out (Lampinen et al. 2021): cross-entropy of symbols, binary cross-entropy
                      of bytes (as shares of 255) and bits, squared error of other numbers
    next_latent       h_{t+1} from h_t and what is perceived at t + 1: h_t + MLP(LN[h_t; x_{t+1}]), judged by the policy that it gives,
                      KL(pi(.|h_{t+1}) || pi(.|prediction)) through a head that does not learn from it (NextLat, arXiv 2511.05963)
    next_latent_distance    the same prediction's smooth L1 distance from h_{t+1}
    forecast          x_{t+1} - x_t, how what enters the memory will change, from what it puts out: squared distance (observation
                      prediction, as in Weis et al. 2026, but of the embedding, so that a picture costs no more than a symbol)
    co_player         the action that the others take at the same time, from what the memory puts out: cross-entropy
    lag               the symbols and numbers that were observed `lags` steps ago, one readout each (after arXiv 2309.12927)

Targets get no gradients. A mean over the steps to which a loss applies: no prediction reaches into another trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from agents.heads import CategoricalHead, PolicyHead
from envs.game import ACTION_MASK, Observation


@dataclass(frozen=True)
class Auxiliary:
    """Weights of the losses; 0 leaves one out. lags: of the last one, in steps."""

    reconstruction: float = 0.0
    next_latent: float = 0.0
    next_latent_distance: float = 0.0
    forecast: float = 0.0
    co_player: float = 0.0
    lag: float = 0.0
    lags: tuple[int, ...] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        for name in _LOSSES:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; want 0 or more")
        if not self.lags or min(self.lags) < 1:
            raise ValueError(f"lags is {self.lags}; want whole numbers of steps, 1 or more")

    @property
    def wanted(self) -> list[str]:
        """The names of losses whose weight is not 0."""
        return [name for name in _LOSSES if getattr(self, name)]


_LOSSES = tuple(field.name for field in fields(Auxiliary) if field.name != "lags")


class Lived(NamedTuple):
    """What the losses read. x: what entered the memory, y: what it put out. reset: the step begins a trial. policy: the agent's own.

    others: [B, T, A], how the others' actions of the same step are distributed, where that is known.
    """

    x: Float[Tensor, "B T E"]
    y: Float[Tensor, "B T D"]
    policy: Float[Tensor, "B T Q"]
    observation: Observation
    reset: Bool[Tensor, "B T"]
    others: Float[Tensor, "B T A"] | None


class AuxiliaryHeads(nn.Module):
    """Raises ValueError where a loss does not apply to the spaces."""

    def __init__(
        self, weights: Auxiliary, observation_space: gym.spaces.Dict, action_space: gym.Space[Any], embedding: int, width: int
    ) -> None:
        super().__init__()
        self.weights = weights
        # A list and not a ModuleDict, in which a field could not be called "items".
        self.fields = [field for field in observation_space if field != ACTION_MASK]
        spaces = [observation_space[field] for field in self.fields]
        self.readouts = nn.ModuleList(Readout(space, width) for space in spaces if weights.reconstruction)
        self.lagged = nn.ModuleList(Readout(space, width) for _ in weights.lags for space in spaces if weights.lag)
        self.next = None
        if weights.next_latent or weights.next_latent_distance:
            if weights.next_latent and not isinstance(action_space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
                raise ValueError(f"auxiliary.next_latent compares choices, and actions are {action_space}; want next_latent_distance")
            joint = width + embedding
            layers = (nn.LayerNorm(joint), nn.Linear(joint, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            self.next = nn.Sequential(*layers)
        self.forecast = nn.Linear(width, embedding) if weights.forecast else None
        self.co_player = None
        if weights.co_player:
            if not isinstance(action_space, gym.spaces.Discrete):
                raise ValueError(f"auxiliary.co_player predicts a choice, and actions are {action_space}; want a game of Discrete actions")
            self.co_player = nn.Linear(width, int(action_space.n))

    def forward(self, head: PolicyHead, lived: Lived) -> dict[str, Float[Tensor, ""]]:
        """{name: unweighted loss}, those whose weight is not 0."""
        found: dict[str, Tensor] = {}
        if self.readouts:
            everywhere = torch.ones_like(lived.reset)
            found["reconstruction"] = self._read(self.readouts, lived.y, lived.observation, everywhere)
        if self.next is not None:
            found |= self._predict_next(self.next, head, lived)
        if self.forecast is not None:
            error = (self.forecast(lived.y[:, :-1]) - lived.x.detach().diff(dim=1)).square().sum(-1)
            found["forecast"] = _mean_where(~lived.reset[:, 1:], error)
        if self.co_player is not None and lived.others is not None:
            found["co_player"] = -(self.co_player(lived.y).log_softmax(-1) * lived.others).sum(-1).mean()
        if self.lagged:
            found["lag"] = self._read_lags(lived)
        return found

    def total(self, found: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum of losses; 0 where trials are too short for any."""
        return sum((getattr(self.weights, name) * value for name, value in found.items()), start=torch.zeros(()))

    def _read(self, readouts: Any, y: Tensor, observation: Observation, applies: Bool[Tensor, "B T"]) -> Tensor:
        errors = [readout(y, observation[field]) for field, readout in zip(self.fields, readouts, strict=True)]
        return _mean_where(applies, sum(errors[1:], start=errors[0]))

    def _read_lags(self, lived: Lived) -> Tensor:
        steps = lived.reset.shape[1]
        # Steps since the trial began; what began before these steps is not known to have begun at all.
        step = torch.arange(steps, device=lived.reset.device).expand_as(lived.reset)
        began = torch.where(lived.reset, step, -1).cummax(1).values.clamp(min=0)
        losses = []
        for number, lag in enumerate(self.weights.lags):
            part = self.lagged[number * len(self.fields) : (number + 1) * len(self.fields)]
            if lag < steps:
                before = {field: lived.observation[field][:, :-lag] for field in self.fields}
                losses.append(self._read(part, lived.y[:, lag:], before, step[:, lag:] - lag >= began[:, lag:]))
        return torch.stack(losses).mean() if losses else lived.y.new_zeros(())

    def _predict_next(self, network: nn.Module, head: PolicyHead, lived: Lived) -> dict[str, Tensor]:
        if lived.reset.shape[1] < 2:
            return {}
        goes_on = ~lived.reset[:, 1:]
        now, target = lived.y[:, :-1], lived.y[:, 1:].detach()
        predicted = now + network(torch.cat([now, lived.x[:, 1:].detach()], -1))
        found: dict[str, Tensor] = {}
        if self.weights.next_latent:
            assert isinstance(head, CategoricalHead)
            still = {name: parameter.detach() for name, parameter in head.named_parameters()}
            later = {field: value[:, 1:] for field, value in lived.observation.items()}
            guessed = torch.func.functional_call(head, still, (predicted, later))
            actual = lived.policy[:, 1:].detach()
            found["next_latent"] = _mean_where(goes_on, (actual.exp() * (actual - guessed)).sum(-1))
        if self.weights.next_latent_distance:
            error = functional.smooth_l1_loss(predicted, target, reduction="none").mean(-1)
            found["next_latent_distance"] = _mean_where(goes_on, error)
        return found


class Readout(nn.Module):
    """Reads a field of the observation off a vector; `forward` is how wrong it is, a mean over the field's numbers."""

    def __init__(self, space: gym.Space[Any], width: int) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.starts: list[int] = []
        self.axes = len(space.shape or ())
        self.scale = 1.0
        match space:
            case gym.spaces.Discrete():
                self.sizes, self.starts = [int(space.n)], [int(space.start)]
            case gym.spaces.MultiDiscrete():
                self.sizes, self.starts = [int(n) for n in space.nvec.flat], [int(n) for n in np.ravel(space.start)]
            case gym.spaces.Box() if space.dtype == np.uint8:
                self.scale = 1 / 255
        self.is_share = isinstance(space, gym.spaces.MultiBinary) or self.scale != 1.0
        self.linear = nn.Linear(width, sum(self.sizes) or math.prod(space.shape or ()))

    def forward(self, y: Float[Tensor, "B T D"], values: Tensor) -> Float[Tensor, "B T"]:
        guess = self.linear(y)
        flat = values.flatten(-self.axes) if self.axes else values[..., None]
        if not self.sizes:
            target = flat.to(guess.dtype) * self.scale
            if self.is_share:
                return functional.binary_cross_entropy_with_logits(guess, target, reduction="none").mean(-1)
            return (guess - target).square().mean(-1)
        symbols = flat.long() - torch.tensor(self.starts, device=flat.device)
        if len(set(self.sizes)) == 1:
            each = guess.unflatten(-1, (len(self.sizes), -1)).log_softmax(-1).gather(-1, symbols[..., None])[..., 0]
            return -each.mean(-1)
        parts = [part.log_softmax(-1) for part in guess.split(self.sizes, -1)]
        each = [part.gather(-1, symbols[..., n : n + 1]) for n, part in enumerate(parts)]
        return -torch.cat(each, -1).mean(-1)


def _mean_where(applies: Bool[Tensor, "B T"], error: Float[Tensor, "B T"]) -> Float[Tensor, ""]:
    """0 where it never applies."""
    return error.masked_fill(~applies, 0.0).sum() / applies.sum().clamp(min=1)
