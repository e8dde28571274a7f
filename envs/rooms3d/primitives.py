"""What a scene is made of: a fixed number of slots per game, each a solid of one kind or a horizontal plane.

x points right, y up and z ahead, in metres; a yaw of 0 looks along z and grows to the right, as seen from above. A solid fills the cube
from -1 to 1 of its own axes, which are scaled by its half sizes, turned by its yaw and moved to its position. None can be rolled or tipped.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class Kind(IntEnum):
    """BOX, BALL, CYLINDER (upright), CONE and PYRAMID (point up) fill their cube. CRATE is a box without its upper side, seen from outside
    and inside. PLANE is horizontal, endless, at the height of its position, and seen from both sides.
    """

    BOX = 0
    CRATE = 1
    BALL = 2
    CYLINDER = 3
    CONE = 4
    PYRAMID = 5
    PLANE = 6


class Texture(IntEnum):
    """How a surface alternates between its colour and a darker one, in cells of `grain` metres."""

    PLAIN = 0
    CHECKS = 1
    STRIPES = 2
    BRICKS = 3
    DOTS = 4


class Slots(NamedTuple):
    """K slots of every game. position: the centre. size: half sizes. yaw: radians. colour: red, green, blue from 0 to 1."""

    kind: Int64[Tensor, "B K"]
    position: Float[Tensor, "B K 3"]
    size: Float[Tensor, "B K 3"]
    yaw: Float[Tensor, "B K"]
    colour: Float[Tensor, "B K 3"]
    texture: Int64[Tensor, "B K"]
    grain: Float[Tensor, "B K"]
    visible: Bool[Tensor, "B K"]


def join(*parts: Slots) -> Slots:
    """The slots of all parts, side by side."""
    return Slots(*(torch.cat(fields, 1) for fields in zip(*parts, strict=True)))


@cache
def constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """(Nested) tuples of numbers as a tensor that is copied to the device once, so that a step waits for nothing."""
    return torch.tensor(values, device=device)


# Where light comes from (a unit vector), what a surface has without it, and what is added or taken by facing it or not.
LIGHT = (0.36, 0.80, -0.48)
AMBIENT, DIFFUSE = 0.68, 0.32
# What is farther away is darker: 1 / (1 + FADE * depth).
FADE = 0.02
# The darker colour of a texture; of a cell, the mortar's height, of a brick of two cells, its width; the square of a dot's radius.
DARK = 0.6
MORTAR_HEIGHT, MORTAR_WIDTH, DOT = 0.14, 0.06, 0.09
# Nothing nearer is seen; where nothing is seen at all, depth is FAR and the picture has SKY's colour.
NEAR, FAR = 0.02, 1000.0
SKY = (0.62, 0.75, 0.88)
# How near the end of a cylinder, or a cone's base, a ray meets it, to count as meeting that: rounding.
EDGE = 1e-3
# Directions are kept this far from zero, so that a ray along a surface divides by something.
TINY = 1e-7
