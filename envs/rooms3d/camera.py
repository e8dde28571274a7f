"""A camera for rooms: what one to many eyes see of the slots of every game, as colours, depth and segmentation.

On a CPU, `envs.rooms3d.camera_numba` draws, on a GPU `envs.rooms3d.camera_triton`; elsewhere, and as the plain statement of what is drawn,
`draw_plainly`: every ray against every slot in batched tensor operations. All give the same picture up to rounding at edges (tested);
docs/games/rooms3d.md has the measurements that chose them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from envs.rooms3d.primitives import (
    AMBIENT,
    DARK,
    DIFFUSE,
    DOT,
    EDGE,
    FADE,
    FAR,
    LIGHT,
    MORTAR_HEIGHT,
    MORTAR_WIDTH,
    NEAR,
    SKY,
    TINY,
    Kind,
    Slots,
    Texture,
    constant,
)

# Ray-slot pairs that the plain renderer holds at once: some 50 numbers each.
BLOCK = 1 << 22
# torch.compile takes a tensor == a member of IntEnum for False.
BOX, CRATE, BALL, CYLINDER, CONE, PYRAMID, PLANE = (int(kind) for kind in Kind)


class Eyes(NamedTuple):
    """V eyes of every game. yaw: radians, growing to the right. pitch: radians, growing upwards."""

    position: Float[Tensor, "B V 3"]
    yaw: Float[Tensor, "B V"]
    pitch: Float[Tensor, "B V"]


class Picture(NamedTuple):
    """depth: metres along the direction in which the camera looks (not along the ray). segmentation: 1 + the slot seen, 0 for nothing."""

    pixels: UInt8[Tensor, "B V S S 3"]
    depth: Float[Tensor, "B V S S"]
    segmentation: Shaped[Tensor, "B V S S"]


@dataclass(frozen=True)
class Camera:
    """size: pixels across and down. field_of_view: degrees, across as well as down."""

    size: int = 64
    field_of_view: float = 75.0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 2048:
            raise ValueError(f"size is {self.size}; want from 1 to 2048 pixels")
        if not 1.0 <= self.field_of_view <= 170.0:
            raise ValueError(f"field_of_view is {self.field_of_view}; want from 1 to 170 degrees")

    @property
    def spread(self) -> float:
        """How far the picture's edge is from its middle, one metre ahead."""
        return math.tan(math.radians(self.field_of_view) / 2)

    def see(self, slots: Slots, eyes: Eyes, shown: Bool[Tensor, "B V K"] | None = None) -> Picture:
        """What every eye sees of its game's slots, K of them and at least one; of those that are `shown` to it, where eyes differ."""
        visible = slots.visible[:, None].expand(*eyes.yaw.shape, -1)
        if shown is not None:
            visible = visible & shown
        if not eyes.yaw.numel():
            square = torch.zeros(*eyes.yaw.shape, self.size, self.size, device=eyes.yaw.device)
            return Picture(square.to(torch.uint8)[..., None].expand(*square.shape, 3), square, square.int())
        if slots.position.device.type == "cpu":
            return self.draw_by_numba(slots, eyes, visible)
        if slots.position.is_cuda and _has_triton():
            return self.draw_by_triton(slots, eyes, visible)
        return self.draw_plainly(slots, eyes, visible)

    def draw_by_triton(self, slots: Slots, eyes: Eyes, shown: Bool[Tensor, "B V K"]) -> Picture:
        """The same picture by a kernel for GPUs."""
        from envs.rooms3d import camera_triton

        return Picture(*camera_triton.draw(list(slots), list(eyes), shown, self.size, self.spread))

    def draw_by_numba(self, slots: Slots, eyes: Eyes, shown: Bool[Tensor, "B V K"]) -> Picture:
        """The same picture by loops that are compiled for a CPU, a share of the images on each of PyTorch's threads."""
        from envs.rooms3d import camera_numba

        batch, views = eyes.yaw.shape
        images = batch * views
        pixels = torch.empty(images, self.size, self.size, 3, dtype=torch.uint8)
        depth = torch.empty(images, self.size, self.size)
        segmentation = torch.empty(images, self.size, self.size, dtype=torch.int32)
        seen = (*slots[:-1], shown.flatten(0, 1), *(value.flatten(0, 1) for value in eyes))
        camera_numba.draw(
            torch.get_num_threads(), views, self.spread, *(value.contiguous().numpy() for value in (*seen, pixels, depth, segmentation))
        )
        return Picture(*(value.unflatten(0, (batch, views)) for value in (pixels, depth, segmentation)))

    def draw_plainly(self, slots: Slots, eyes: Eyes, shown: Bool[Tensor, "B V K"]) -> Picture:
        """The same picture in tensor operations, on any device, a block of pixels at a time."""
        batch, views = eyes.yaw.shape
        count = slots.kind.shape[1]
        middles = ((torch.arange(self.size, device=eyes.yaw.device) + 0.5) * (2 / self.size) - 1) * self.spread
        down, across = torch.meshgrid(-middles, middles, indexing="ij")
        u, v = across.flatten(), down.flatten()
        share = max(1, BLOCK // (batch * views * count))
        blocks = [_look(slots, eyes, shown, u[first : first + share], v[first : first + share]) for first in range(0, len(u), share)]
        square = (self.size, self.size)
        return Picture(*(torch.cat(parts, 2).unflatten(2, square) for parts in zip(*blocks, strict=True)))


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


class _Axes(NamedTuple):
    """Three numbers in the axes of a slot, or of what an eye sees through a pixel."""

    x: Tensor
    y: Tensor
    z: Tensor


def _turned(x: Tensor, z: Tensor, sin: Tensor, cos: Tensor) -> tuple[Tensor, Tensor]:
    """From the world's axes into those of something turned to the right."""
    return x * cos - z * sin, x * sin + z * cos


def _off_zero(value: Tensor) -> Tensor:
    return torch.where(value.abs() > TINY, value, TINY)


def _look(slots: Slots, eyes: Eyes, shown: Bool[Tensor, "B V K"], u: Float[Tensor, "N"], v: Float[Tensor, "N"]) -> Picture:
    """A block of pixels at u right and v up of the middle, one metre ahead: a picture whose S x S pixels are N in a row."""
    # Everything is [B, V, N, K], or broadcasts to it.
    is_plane = slots.kind == PLANE
    size = torch.where(is_plane[..., None], 1.0, slots.size)[:, None, None]
    sin_yaw, cos_yaw = slots.yaw.sin()[:, None, None], slots.yaw.cos()[:, None, None]
    sin_turn, cos_turn, sin_tilt, cos_tilt = (
        part[..., None] for part in (eyes.yaw.sin(), eyes.yaw.cos(), eyes.pitch.sin(), eyes.pitch.cos())
    )
    along = cos_tilt - v * sin_tilt
    world = _Axes(cos_turn * u + sin_turn * along, sin_tilt + v * cos_tilt, cos_turn * along - sin_turn * u)
    away = eyes.position[:, :, None, None] - slots.position[:, None, None]
    ray_x, ray_z = _turned(world.x[..., None], world.z[..., None], sin_yaw, cos_yaw)
    away_x, away_z = _turned(away[..., 0], away[..., 2], sin_yaw, cos_yaw)
    d = _Axes(ray_x / size[..., 0], world.y[..., None] / size[..., 1], ray_z / size[..., 2])
    o = _Axes(away_x / size[..., 0], away[..., 1] / size[..., 1], away_z / size[..., 2])
    distance = _distances(slots.kind[:, None, None], o, d)
    distance = torch.where(shown[:, :, None] & (distance > NEAR) & (distance < FAR), distance, FAR)
    depth, slot = distance.min(-1)
    pixels = _colours(slots, o, d, depth, slot)
    is_nothing = depth >= FAR
    sky = constant(SKY, depth.device).mul(255).add(0.5).to(torch.uint8)
    return Picture(torch.where(is_nothing[..., None], sky, pixels), depth, torch.where(is_nothing, 0, slot + 1).to(torch.int32))


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where a ray comes between -1 and 1 of one axis, and where it leaves."""
    over = 1 / _off_zero(d)
    low, high = (-1 - o) * over, (1 - o) * over
    return torch.minimum(low, high), torch.maximum(low, high)


def _distances(kind: Int64[Tensor, "..."], o: _Axes, d: _Axes) -> Float[Tensor, "B V N K"]:
    """How far along its ray each slot is first met; infinity where it is not."""
    infinity = torch.inf
    y_in, y_out = _slab(o.y, d.y)
    (x_in, x_out), (z_in, z_out) = _slab(o.x, d.x), _slab(o.z, d.z)
    sides_in, sides_out = torch.maximum(x_in, z_in), torch.minimum(x_out, z_out)
    box_in, box_out = torch.maximum(sides_in, y_in), torch.minimum(sides_out, y_out)
    upwards = d.y >= 0
    # A crate has no upper side: who comes in, or goes out, through it meets the inside, or nothing.
    is_crate = kind == CRATE
    enters = ~is_crate | ((box_in > NEAR) & (upwards | (y_in < sides_in)))
    leaves = ~upwards | (y_out > sides_out)
    box = torch.where((box_in <= box_out) & (enters | leaves), torch.where(enters, box_in, box_out), infinity)

    is_ball, is_cone = kind == BALL, kind == CONE
    wide, narrows = torch.where(is_cone, (1 - o.y) / 2, 1.0), torch.where(is_cone, -d.y / 2, 0.0)
    height_o, height_d = torch.where(is_ball, o.y, 0.0), torch.where(is_ball, d.y, 0.0)
    a = _off_zero(d.x**2 + d.z**2 + height_d**2 - narrows**2)
    b = o.x * d.x + o.z * d.z + height_o * height_d - wide * narrows
    c = o.x**2 + o.z**2 + height_o**2 - wide**2
    square = b * b - a * c
    root = square.clamp(min=0).sqrt()
    # Where a ray is steeper than the cone, it is inside on one side of a root, and in the cone's mirror image beyond the other.
    steep = a < 0
    round_in = torch.where(steep & (d.y > 0), -infinity, (-b - root) / a)
    round_out = torch.where(steep & (d.y <= 0), infinity, (root - b) / a)
    round_in = torch.where(is_ball, round_in, torch.maximum(round_in, y_in))
    round_out = torch.where(is_ball, round_out, torch.minimum(round_out, y_out))
    ball = torch.where((square >= 0) & (round_in <= round_out), round_in, infinity)

    pyramid_in, pyramid_out = y_in, y_out
    for start, along in ((o.x, d.x), (-o.x, -d.x), (o.z, d.z), (-o.z, -d.z)):
        slope = _off_zero(along + d.y / 2)
        meets = ((1 - o.y) / 2 - start) / slope
        pyramid_in = torch.maximum(pyramid_in, torch.where(slope < 0, meets, -infinity))
        pyramid_out = torch.minimum(pyramid_out, torch.where(slope > 0, meets, infinity))
    pyramid = torch.where(pyramid_in <= pyramid_out, pyramid_in, infinity)

    plane = -o.y / _off_zero(d.y)
    is_round = is_ball | is_cone | (kind == CYLINDER)
    solid = torch.where(is_round, ball, torch.where(kind == PYRAMID, pyramid, box))
    return torch.where(kind == PLANE, plane, solid)


def _colours(slots: Slots, o: _Axes, d: _Axes, depth: Float[Tensor, "B V N"], slot: Int64[Tensor, "B V N"]) -> UInt8[Tensor, "B V N 3"]:
    """What the surface of the slot that each pixel sees looks like."""
    o, d = (_Axes(*(axis.expand(*slot.shape, -1).gather(-1, slot[..., None])[..., 0] for axis in axes)) for axes in (o, d))
    game = torch.arange(len(slot), device=slot.device)[:, None, None]
    kind, texture, grain, size = (field[game, slot] for field in (slots.kind, slots.texture, slots.grain, slots.size))
    size = torch.where((kind == PLANE)[..., None], 1.0, size)
    yaw = slots.yaw[game, slot]
    light_x, light_z = _turned(torch.full_like(yaw, LIGHT[0]), torch.full_like(yaw, LIGHT[2]), yaw.sin(), yaw.cos())
    x, y, z = (start + depth * along for start, along in zip(o, d, strict=True))
    wide, high, deep = x.abs(), y.abs(), z.abs()

    is_box, is_cylinder = (kind == BOX) | (kind == CRATE), kind == CYLINDER
    on_end = ((y < -1 + EDGE) & (d.y > 0)) | (is_cylinder & (y > 1 - EDGE) & (d.y < 0))
    is_level = torch.where(is_box, (high >= wide) & (high >= deep), on_end & (kind != BALL)) | (kind == PLANE)
    faces_x = is_box & ~is_level & (wide >= deep)
    faces_z = is_box & ~is_level & ~faces_x

    # Normals of what is neither: of a pyramid across its nearest side, of round things away from the middle.
    is_pyramid = kind == PYRAMID
    n_x, n_z = torch.where(is_pyramid & (wide <= deep), 0.0, x), torch.where(is_pyramid & (wide > deep), 0.0, z)
    slant = torch.where(is_pyramid, torch.maximum(wide, deep), (x * x + z * z).sqrt()) / 2
    n_y = torch.where(kind == BALL, y, torch.where(is_cylinder, 0.0, slant))
    # A normal in axes that are scaled is scaled the other way.
    n_x, n_y, n_z = n_x / size[..., 0], n_y / size[..., 1], n_z / size[..., 2]
    length = (n_x**2 + n_y**2 + n_z**2).sqrt() + TINY
    facing = (n_x * light_x + n_y * LIGHT[1] + n_z * light_z) / length
    facing = torch.where(is_level, torch.where(d.y > 0, -LIGHT[1], LIGHT[1]), facing)
    facing = torch.where(faces_x, torch.where(d.x > 0, -light_x, light_x), facing)
    facing = torch.where(faces_z, torch.where(d.z > 0, -light_z, light_z), facing)

    along_x, along_y, along_z = x * size[..., 0] / grain, y * size[..., 1] / grain, z * size[..., 2] / grain
    pattern = _pattern(texture, torch.where(faces_x, along_z, along_x), torch.where(is_level, along_z, along_y))
    shade = (AMBIENT + DIFFUSE * facing) / (1 + FADE * depth) * pattern
    return (slots.colour[game, slot] * (255 * shade[..., None]) + 0.5).clamp(0, 255).to(torch.uint8)


def _pattern(texture: Int64[Tensor, "B V N"], u: Float[Tensor, "B V N"], v: Float[Tensor, "B V N"]) -> Float[Tensor, "B V N"]:
    """The factor of the colour at a place on a surface, measured in cells."""
    checks = (u.floor() + v.floor()) % 2 == 1
    stripes = v.floor() % 2 == 1
    bricks = (v % 1 < MORTAR_HEIGHT) | ((u + v.floor()) / 2 % 1 < MORTAR_WIDTH)
    dots = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < DOT
    is_dark = torch.zeros_like(checks)
    for kind, pattern in ((Texture.CHECKS, checks), (Texture.STRIPES, stripes), (Texture.BRICKS, bricks), (Texture.DOTS, dots)):
        is_dark = torch.where(texture == int(kind), pattern, is_dark)
    return torch.where(is_dark, DARK, 1.0)
