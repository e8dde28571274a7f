"""From what a seat perceives to one vector of width E: a projection per field, added up (Weis et al. 2026, A.3).

A discrete symbol is a row of a table (the projection of its one-hot code), several symbols add up, a vector is projected. A grid of symbols
and a picture go through a small network first, so that what is learned in one place holds in another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from envs.game import ACTION_MASK

# The smallest side of what counts as a picture, in pixels; smaller ones are flattened like any other numbers.
PICTURE = 32
# Convolutions as (channels out, kernel, stride), each followed by a ReLU. Those of 9 by 9 cells of 11 by 11 pixels are the ballet's
# (Lampinen et al. 2021); the others have the kernels of Mnih et al. 2015 and half as many channels.
CONVOLUTIONS = {(99, 99): ((16, 9, 9), (32, 3, 1), (32, 3, 1))}
OTHER_CONVOLUTIONS = ((16, 8, 4), (32, 4, 2), (32, 3, 1))
# What is known of a cell of a grid. If all combinations of its symbols are no more than so many, features are worked out for each of them
# and looked up; else for each cell.
CELL_FEATURES, COMBINATIONS = 8, 4096


def encoder_of(space: gym.Space[Any], width: int) -> nn.Module:
    """A module from [..., *space.shape] to [..., width]; from {field: [..., ...]} where space is a Dict.

    Raises ValueError for a space that no encoder reads.
    """
    match space:
        case gym.spaces.Discrete():
            return SymbolEncoder([int(space.n)], [int(space.start)], width, single=True)
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return SymbolEncoder([int(n) for n in space.nvec], [int(n) for n in np.ravel(space.start)], width, single=False)
        case gym.spaces.MultiDiscrete() if _is_grid(space):
            return GridEncoder(space, width)
        case gym.spaces.MultiBinary():
            return VectorEncoder(len(space.shape), math.prod(space.shape), width, scale=1.0)
        case gym.spaces.Box() if _is_picture(space):
            return PictureEncoder(space.shape, width)
        case gym.spaces.Box():
            scale = 1 / 255 if space.dtype == np.uint8 else 1.0
            return VectorEncoder(len(space.shape), math.prod(space.shape), width, scale)
        case gym.spaces.Dict():
            return DictEncoder(space, width)
    text = " ".join(str(space).split())
    want = "Discrete, MultiDiscrete (one axis, or rows, columns and fields), MultiBinary, Box, or a Dict of these"
    raise ValueError(f"no encoder reads {text}; want {want}")


def _is_grid(space: gym.Space[Any]) -> bool:
    """[rows, columns, fields] of symbols."""
    return isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 3


def _is_picture(space: gym.Space[Any]) -> bool:
    """[height, width, 1 or 3] of bytes, at least 32 by 32."""
    is_bytes = isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
    return is_bytes and min(space.shape[:2]) >= PICTURE and space.shape[2] in (1, 3)


def has_scenery(space: gym.spaces.Dict) -> bool:
    """Whether a field is a grid or a picture, much of which may be the same always."""
    return any(_is_grid(field) or _is_picture(field) for field in space.values())


@torch.no_grad()
def centre(encoder: nn.Module, observation: dict[str, Tensor]) -> None:
    """Encodes grids and pictures relative to their mean over these observations, [N, ...]; nothing else changes.

    Forty cells of wall add up to a vector many times as long as what a dancer moves, which a memory then learned three times as slowly.
    """
    if isinstance(encoder, DictEncoder):
        for name, part in zip(encoder.names, encoder.encoders, strict=True):
            if isinstance(part, GridEncoder | PictureEncoder):
                part.project.bias -= part(observation[name]).mean(0)


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


class GridEncoder(nn.Module):
    """Each cell of a grid is the sum of a table row per field and a ReLU, the same everywhere; then all cells are projected.

    The first symbol of a field stands for nothing there: it adds nothing and costs nothing to learn from, and most cells hold it.
    """

    starts: Tensor

    def __init__(self, space: gym.spaces.MultiDiscrete, width: int) -> None:
        super().__init__()
        rows, columns, fields = space.nvec.shape
        self.register_buffer("starts", torch.as_tensor(space.start).int(), persistent=False)
        self.sizes = [int(space.nvec[..., field].max()) for field in range(fields)]
        tables = [nn.Embedding(size, CELL_FEATURES, padding_idx=0) for size in self.sizes]
        self.tables = nn.ModuleList(tables)
        self.project = nn.Linear(rows * columns * CELL_FEATURES, width)
        # One thing on an empty grid is about a unit vector, as a symbol is, and so are its features: were they larger and their projection
        # smaller, what a step of Adam's does to either would be many times what it does to a symbol.
        for table in tables:
            nn.init.normal_(table.weight, std=(2 / (CELL_FEATURES * fields)) ** 0.5)
            nn.init.zeros_(table.weight[0])
        nn.init.normal_(self.project.weight, std=width**-0.5)
        nn.init.zeros_(self.project.bias)

    def forward(self, grid: Tensor) -> Float[Tensor, "... E"]:
        return in_runs(self._encode, grid, 3)

    def _encode(self, grid: Tensor) -> Float[Tensor, "... E"]:
        symbols = (grid.int() - self.starts).unbind(-1)
        if math.prod(self.sizes) <= min(COMBINATIONS, symbols[0].numel()):
            cells = self._look_up(symbols)
        else:
            cells = torch.stack([table(field) for table, field in zip(self.tables, symbols, strict=True)]).sum(0).relu()
        return self.project(cells.flatten(-3))

    def _look_up(self, symbols: tuple[Tensor, ...]) -> Float[Tensor, "... rows columns F"]:
        """The same, by a table of what each combination comes to."""
        number, *others = symbols
        features, *rest = (table(torch.arange(size, device=number.device)) for table, size in zip(self.tables, self.sizes, strict=True))
        for field, size, row in zip(others, self.sizes[1:], rest, strict=True):
            number = number * size + field
            features = (features[:, None] + row).flatten(0, 1)
        # Nothing at all is the first combination.
        return nn.functional.embedding(number, features.relu(), padding_idx=0)


class PictureEncoder(nn.Module):
    """Three convolutions and a projection. Their sizes follow from the picture's, see `CONVOLUTIONS`."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        height, breadth, channels = self.shape = shape
        layers: list[nn.Conv2d | nn.Linear] = []
        for features, kernel, stride in CONVOLUTIONS.get((height, breadth), OTHER_CONVOLUTIONS):
            # Of a small picture the last layers have less to read than their kernels would.
            tall, broad = min(kernel, height), min(kernel, breadth)
            layers.append(nn.Conv2d(channels, features, (tall, broad), stride))
            height, breadth, channels = (height - tall) // stride + 1, (breadth - broad) // stride + 1, features
        self.convolutions = nn.ModuleList(layers)
        self.project = nn.Linear(channels * height * breadth, width)
        # With the scale of torch's own layers a picture that is mostly black would all but vanish on the way.
        for layer in (*layers, self.project):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, picture: Tensor) -> Float[Tensor, "... E"]:
        return in_runs(self._encode, picture, 3)

    def _encode(self, picture: Tensor) -> Float[Tensor, "N E"]:
        pixels = picture.to(self.project.weight.dtype).mul_(1 / 255)
        seen = pixels.permute(0, 3, 1, 2)
        for convolution in self.convolutions:
            seen = convolution(seen).relu()
        return self.project(seen.flatten(1))


def in_runs(encode: Callable[[Tensor], Tensor], seen: Tensor, axes: int) -> Float[Tensor, "... E"]:
    """`encode`, of [N, ...], for what has more axes in front of its own `axes`: what is as it was a step ago is not encoded again.

    On a GPU everything is: to find out would stall it.
    """
    leading, kept = seen.shape[:-axes], seen.shape[-axes:]
    flat = seen.reshape(-1, *kept)
    if seen.device.type != "cpu" or len(flat) < 2:
        return encode(flat).view(*leading, -1)
    is_new = torch.ones(len(flat), dtype=torch.bool)
    is_new[1:] = (flat[1:] != flat[:-1]).flatten(1).any(1)
    return encode(flat[is_new]).index_select(0, is_new.cumsum(0) - 1).view(*leading, -1)


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
