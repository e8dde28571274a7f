"""From what a seat perceives to one vector of width E: a linear projection per field, added up (Weis et al. 2026, A.3).

A discrete symbol is a row of a table (the projection of its one-hot code), a vector or a picture is flattened and projected, several
symbols add up.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from envs.game import ACTION_MASK


def encoder_of(space: gym.Space[Any], width: int) -> nn.Module:
    """A module from [..., *space.shape] to [..., width]; from {field: [..., ...]} where space is a Dict.

    Raises ValueError for a space that no encoder reads.
    """
    match space:
        case gym.spaces.Discrete():
            return SymbolEncoder([int(space.n)], [int(space.start)], width, single=True)
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return SymbolEncoder([int(n) for n in space.nvec], [int(n) for n in np.ravel(space.start)], width, single=False)
        case gym.spaces.MultiBinary():
            return VectorEncoder(len(space.shape), math.prod(space.shape), width, scale=1.0)
        case gym.spaces.Box():
            scale = 1 / 255 if space.dtype == np.uint8 else 1.0
            return VectorEncoder(len(space.shape), math.prod(space.shape), width, scale)
        case gym.spaces.Dict():
            return DictEncoder(space, width)
    text = " ".join(str(space).split())
    raise ValueError(f"no encoder reads {text}; want Discrete, MultiDiscrete (one axis), MultiBinary, Box, or a Dict of these")


class SymbolEncoder(nn.Module):
    """One table row per symbol; several symbols side by side add up."""

    offsets: Tensor

    def __init__(self, sizes: list[int], starts: list[int], width: int, single: bool) -> None:
        super().__init__()
        self.single = single
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]) - np.array(starts)
        self.register_buffer("offsets", torch.as_tensor(offsets, dtype=torch.int64), persistent=False)
        self.table = nn.Embedding(sum(sizes), width)
        # The scale of torch's Linear on a one-hot code would vanish with the number of symbols; unit vectors do not.
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, symbols: Tensor) -> Float[Tensor, "... E"]:
        if self.single:
            return self.table(symbols.long() + self.offsets[0])
        return self.table(symbols.long() + self.offsets).sum(-2)


class VectorEncoder(nn.Module):
    """Flatten the last `axes` axes, scale, project. The projection of a single number starts at unit scale."""

    def __init__(self, axes: int, size: int, width: int, scale: float) -> None:
        super().__init__()
        self.axes = axes
        self.scale = scale
        self.project = nn.Linear(size, width)

    def forward(self, values: Tensor) -> Float[Tensor, "... E"]:
        flat = values[..., None] if self.axes == 0 else values.flatten(-self.axes)
        return self.project(flat.to(self.project.weight.dtype) * self.scale)


class DictEncoder(nn.Module):
    """The sum over the fields, without the action mask (heads read that)."""

    def __init__(self, space: gym.spaces.Dict, width: int) -> None:
        super().__init__()
        # A list and not a ModuleDict, in which a field could not be called "items".
        self.names = [name for name in space if name != ACTION_MASK]
        if not self.names:
            raise ValueError(f"{space} has nothing to perceive; want at least one field beside {ACTION_MASK}")
        self.encoders = nn.ModuleList(encoder_of(space[name], width) for name in self.names)

    def forward(self, observation: dict[str, Tensor]) -> Float[Tensor, "... E"]:
        encoded = [encode(observation[name]) for name, encode in zip(self.names, self.encoders, strict=True)]
        return sum(encoded[1:], start=encoded[0])
