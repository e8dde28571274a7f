"""The camera on a GPU, in Triton: one program per tile of one image's pixels tries slot after slot, and colours the nearest.

Which kind a slot is, and whether it is shown at all, is the same for a whole program, so that nothing is worked out for other kinds; what
lies between a ray and a colour stays in registers, and all that is written is the picture. The formulas are those of
`envs.rooms3d.camera`, which says them once for every pixel and slot; a test holds both to the same pictures.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from envs.rooms3d import primitives
from envs.rooms3d.primitives import Kind, Texture

_NEAR, _FAR, _TINY, _EDGE = (tl.constexpr(value) for value in (primitives.NEAR, primitives.FAR, primitives.TINY, primitives.EDGE))
_HUGE = tl.constexpr(1e30)
_AMBIENT, _DIFFUSE, _FADE, _DARK = (
    tl.constexpr(value) for value in (primitives.AMBIENT, primitives.DIFFUSE, primitives.FADE, primitives.DARK)
)
_LIGHT_X, _LIGHT_Y, _LIGHT_Z = (tl.constexpr(part) for part in primitives.LIGHT)
_SKY_RED, _SKY_GREEN, _SKY_BLUE = (tl.constexpr(part) for part in primitives.SKY)
_MORTAR_HEIGHT, _MORTAR_WIDTH, _DOT = (tl.constexpr(value) for value in (primitives.MORTAR_HEIGHT, primitives.MORTAR_WIDTH, primitives.DOT))
_BOX, _CRATE, _BALL, _CYLINDER, _CONE, _PYRAMID, _PLANE = (tl.constexpr(int(kind)) for kind in Kind)
_CHECKS, _STRIPES, _BRICKS, _DOTS = (
    tl.constexpr(int(texture)) for texture in (Texture.CHECKS, Texture.STRIPES, Texture.BRICKS, Texture.DOTS)
)
# Pixels of a program: two of each thread of four warps.
_TILE = 256


@no_type_check
@triton.jit
def _off_zero(value):
    return tl.where(tl.abs(value) > _TINY, value, _TINY)


@no_type_check
@triton.jit
def _part(value):
    """What is left of a number above the whole number below it."""
    return value - tl.floor(value)


@no_type_check
@triton.jit
def _slab(o, d):
    """Where a ray comes between -1 and 1 of one axis, and where it leaves."""
    over = 1 / _off_zero(d)
    low, high = (-1 - o) * over, (1 - o) * over
    return tl.minimum(low, high), tl.maximum(low, high)


@no_type_check
@triton.jit
def _half_sizes(size_in, slot, kind):
    """A plane has none: its axes are the world's."""
    is_plane = kind == _PLANE
    wide, high, deep = (tl.load(size_in + slot * 3), tl.load(size_in + slot * 3 + 1), tl.load(size_in + slot * 3 + 2))
    return tl.where(is_plane, 1.0, wide), tl.where(is_plane, 1.0, high), tl.where(is_plane, 1.0, deep)


@no_type_check
@triton.jit
def _meet_box(kind, o_x, o_y, o_z, d_x, d_y, d_z):
    """How far along its ray each pixel meets a box or a crate; _HUGE, here as below, where it does not."""
    x_in, x_out = _slab(o_x, d_x)
    y_in, y_out = _slab(o_y, d_y)
    z_in, z_out = _slab(o_z, d_z)
    sides_in, sides_out = tl.maximum(x_in, z_in), tl.minimum(x_out, z_out)
    box_in, box_out = tl.maximum(sides_in, y_in), tl.minimum(sides_out, y_out)
    # A crate has no upper side: who comes in, or goes out, through it meets the inside, or nothing.
    upwards = d_y >= 0
    enters = (kind == _BOX) | ((box_in > _NEAR) & (upwards | (y_in < sides_in)))
    leaves = (d_y < 0) | (y_out > sides_out)
    return tl.where((box_in <= box_out) & (enters | leaves), tl.where(enters, box_in, box_out), _HUGE)


@no_type_check
@triton.jit
def _meet_round(kind, o_x, o_y, o_z, d_x, d_y, d_z):
    """A ball, cylinder or cone."""
    is_ball, is_cone = kind == _BALL, kind == _CONE
    # What the radius is where the ray begins, and how it changes along it; a ball's height counts like its other axes.
    wide, narrows = tl.where(is_cone, (1 - o_y) / 2, 1.0), tl.where(is_cone, -d_y / 2, 0.0)
    height_o, height_d = tl.where(is_ball, o_y, 0.0), tl.where(is_ball, d_y, 0.0)
    a = _off_zero(d_x * d_x + d_z * d_z + height_d * height_d - narrows * narrows)
    b = o_x * d_x + o_z * d_z + height_o * height_d - wide * narrows
    c = o_x * o_x + o_z * o_z + height_o * height_o - wide * wide
    square = b * b - a * c
    root = tl.sqrt(tl.maximum(square, 0.0))
    # Where a ray is steeper than the cone, it is inside on one side of a root, and in the cone's mirror image beyond the other.
    steep = a < 0
    y_in, y_out = _slab(o_y, d_y)
    enters = tl.where(steep & (d_y > 0), -_HUGE, (-b - root) / a)
    leaves = tl.where(steep & (d_y <= 0), _HUGE, (root - b) / a)
    enters = tl.where(is_ball, enters, tl.maximum(enters, y_in))
    leaves = tl.where(is_ball, leaves, tl.minimum(leaves, y_out))
    return tl.where((square >= 0) & (enters <= leaves), enters, _HUGE)


@no_type_check
@triton.jit
def _meet_pyramid(o_x, o_y, o_z, d_x, d_y, d_z):
    wide, narrows = (1 - o_y) / 2, d_y / 2
    right, left, back, front = _off_zero(d_x + narrows), _off_zero(narrows - d_x), _off_zero(d_z + narrows), _off_zero(narrows - d_z)
    to_right, to_left, to_back, to_front = (wide - o_x) / right, (wide + o_x) / left, (wide - o_z) / back, (wide + o_z) / front
    enters, leaves = _slab(o_y, d_y)
    enters = tl.maximum(enters, tl.maximum(tl.where(right < 0, to_right, -_HUGE), tl.where(left < 0, to_left, -_HUGE)))
    enters = tl.maximum(enters, tl.maximum(tl.where(back < 0, to_back, -_HUGE), tl.where(front < 0, to_front, -_HUGE)))
    leaves = tl.minimum(leaves, tl.minimum(tl.where(right > 0, to_right, _HUGE), tl.where(left > 0, to_left, _HUGE)))
    leaves = tl.minimum(leaves, tl.minimum(tl.where(back > 0, to_back, _HUGE), tl.where(front > 0, to_front, _HUGE)))
    return tl.where(enters <= leaves, enters, _HUGE)


@no_type_check
@triton.jit
def _pattern(texture, u, v):
    """The factor of the colour at places on surfaces, measured in cells."""
    checks = _part((tl.floor(u) + tl.floor(v)) / 2) > 0.25
    stripes = _part(v / 2) >= 0.5
    bricks = (_part(v) < _MORTAR_HEIGHT) | (_part((u + tl.floor(v)) / 2) < _MORTAR_WIDTH)
    x, y = _part(u) - 0.5, _part(v) - 0.5
    dots = x * x + y * y < _DOT
    is_dark = ((texture == _CHECKS) & checks) | ((texture == _STRIPES) & stripes) | ((texture == _BRICKS) & bricks)
    is_dark = is_dark | ((texture == _DOTS) & dots)
    return tl.where(is_dark, _DARK, 1.0)


@no_type_check
@triton.jit
def _shade(kind, texture, grain, wide, high, deep, light_x, light_z, depth, x, y, z, d_x, d_y, d_z):
    """The factor of each pixel's colour: of the place x, y, z of its slot, seen along d, both in that slot's own axes."""
    far_x, far_y, far_z = tl.abs(x), tl.abs(y), tl.abs(z)
    is_box, is_cylinder, is_pyramid = (kind == _BOX) | (kind == _CRATE), kind == _CYLINDER, kind == _PYRAMID
    on_end = ((y < -1 + _EDGE) & (d_y > 0)) | (is_cylinder & (y > 1 - _EDGE) & (d_y < 0))
    is_level = (is_box & (far_y >= far_x) & (far_y >= far_z)) | (~is_box & on_end & (kind != _BALL)) | (kind == _PLANE)
    faces_x = is_box & ~is_level & (far_x >= far_z)
    faces_z = is_box & ~is_level & ~faces_x

    # Normals of what is neither: of a pyramid across its nearest side, of round things away from the middle.
    n_x, n_z = tl.where(is_pyramid & (far_x <= far_z), 0.0, x), tl.where(is_pyramid & (far_x > far_z), 0.0, z)
    slant = tl.where(is_pyramid, tl.maximum(far_x, far_z), tl.sqrt(x * x + z * z)) / 2
    n_y = tl.where(kind == _BALL, y, tl.where(is_cylinder, 0.0, slant))
    # A normal in axes that are scaled is scaled the other way.
    n_x, n_y, n_z = n_x / wide, n_y / high, n_z / deep
    facing = (n_x * light_x + n_y * _LIGHT_Y + n_z * light_z) / (tl.sqrt(n_x * n_x + n_y * n_y + n_z * n_z) + _TINY)
    facing = tl.where(is_level, tl.where(d_y > 0, -_LIGHT_Y, _LIGHT_Y), facing)
    facing = tl.where(faces_x, tl.where(d_x > 0, -light_x, light_x), facing)
    facing = tl.where(faces_z, tl.where(d_z > 0, -light_z, light_z), facing)

    along_x, along_y, along_z = x * wide / grain, y * high / grain, z * deep / grain
    pattern = _pattern(texture, tl.where(faces_x, along_z, along_x), tl.where(is_level, along_z, along_y))
    return (_AMBIENT + _DIFFUSE * facing) / (1 + _FADE * depth) * pattern


@no_type_check
@triton.jit
def _byte(value):
    return tl.minimum(tl.maximum(value + 0.5, 0.0), 255.0).to(tl.uint8)


@no_type_check
@triton.jit
def _draw(
    kind_in,
    position_in,
    size_in,
    sin_in,
    cos_in,
    colour_in,
    texture_in,
    grain_in,
    shown_in,
    eye_in,
    sin_turn_in,
    cos_turn_in,
    sin_tilt_in,
    cos_tilt_in,
    pixels_out,
    depth_out,
    slot_out,
    views,
    slots,
    spread,
    SIDE: tl.constexpr,
    TILE: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    first_slot = image // views * slots
    pixel = tl.program_id(1) * TILE + tl.arange(0, TILE)
    u = ((pixel % SIDE + 0.5) * (2 / SIDE) - 1) * spread
    v = (1 - (pixel // SIDE + 0.5) * (2 / SIDE)) * spread
    sin_turn, cos_turn = tl.load(sin_turn_in + image), tl.load(cos_turn_in + image)
    sin_tilt, cos_tilt = tl.load(sin_tilt_in + image), tl.load(cos_tilt_in + image)
    ahead = cos_tilt - v * sin_tilt
    # Of each ray in the world's axes, whatever the slot.
    ray_x, ray_y, ray_z = cos_turn * u + sin_turn * ahead, sin_tilt + v * cos_tilt, cos_turn * ahead - sin_turn * u
    eye_x, eye_y, eye_z = tl.load(eye_in + image * 3), tl.load(eye_in + image * 3 + 1), tl.load(eye_in + image * 3 + 2)

    depth = tl.full([TILE], _FAR, tl.float32)
    nearest = tl.full([TILE], -1, tl.int32)
    for k in range(slots):
        if tl.load(shown_in + image * slots + k) != 0:
            slot = first_slot + k
            kind = tl.load(kind_in + slot)
            wide, high, deep = _half_sizes(size_in, slot, kind)
            sin, cos = tl.load(sin_in + slot), tl.load(cos_in + slot)
            away_x, away_z = eye_x - tl.load(position_in + slot * 3), eye_z - tl.load(position_in + slot * 3 + 2)
            o_x, o_z = (away_x * cos - away_z * sin) / wide, (away_x * sin + away_z * cos) / deep
            o_y = (eye_y - tl.load(position_in + slot * 3 + 1)) / high
            over_wide, over_high, over_deep = 1 / wide, 1 / high, 1 / deep
            d_x, d_z = (ray_x * cos - ray_z * sin) * over_wide, (ray_x * sin + ray_z * cos) * over_deep
            d_y = ray_y * over_high
            if kind == _PLANE:
                met = -o_y / _off_zero(d_y)
            elif kind == _PYRAMID:
                met = _meet_pyramid(o_x, o_y, o_z, d_x, d_y, d_z)
            elif (kind == _BOX) | (kind == _CRATE):
                met = _meet_box(kind, o_x, o_y, o_z, d_x, d_y, d_z)
            else:
                met = _meet_round(kind, o_x, o_y, o_z, d_x, d_y, d_z)
            is_nearer = (met > _NEAR) & (met < depth)
            depth = tl.where(is_nearer, met, depth)
            nearest = tl.where(is_nearer, k, nearest)

    inside, is_sky = pixel < SIDE * SIDE, nearest < 0
    at = image * SIDE * SIDE + pixel
    tl.store(depth_out + at, depth, inside)
    tl.store(slot_out + at, nearest + 1, inside)
    # Where there is nothing, the first slot is coloured in vain.
    slot = first_slot + tl.maximum(nearest, 0)
    kind, grain = tl.load(kind_in + slot), tl.load(grain_in + slot)
    wide, high, deep = _half_sizes(size_in, slot, kind)
    sin, cos = tl.load(sin_in + slot), tl.load(cos_in + slot)
    away_x, away_z = eye_x - tl.load(position_in + slot * 3), eye_z - tl.load(position_in + slot * 3 + 2)
    d_x, d_y, d_z = (ray_x * cos - ray_z * sin) / wide, ray_y / high, (ray_x * sin + ray_z * cos) / deep
    x, z = (away_x * cos - away_z * sin) / wide + depth * d_x, (away_x * sin + away_z * cos) / deep + depth * d_z
    y = (eye_y - tl.load(position_in + slot * 3 + 1)) / high + depth * d_y
    light_x, light_z = _LIGHT_X * cos - _LIGHT_Z * sin, _LIGHT_X * sin + _LIGHT_Z * cos
    texture = tl.load(texture_in + slot)
    shade = 255 * _shade(kind, texture, grain, wide, high, deep, light_x, light_z, depth, x, y, z, d_x, d_y, d_z)
    red, green, blue = tl.load(colour_in + slot * 3), tl.load(colour_in + slot * 3 + 1), tl.load(colour_in + slot * 3 + 2)
    tl.store(pixels_out + at * 3, _byte(tl.where(is_sky, 255 * _SKY_RED, red * shade)), inside)
    tl.store(pixels_out + at * 3 + 1, _byte(tl.where(is_sky, 255 * _SKY_GREEN, green * shade)), inside)
    tl.store(pixels_out + at * 3 + 2, _byte(tl.where(is_sky, 255 * _SKY_BLUE, blue * shade)), inside)


@torch.library.custom_op(
    "coterie::rooms3d_draw",
    mutates_args=(),
    schema="(Tensor[] slots, Tensor[] eyes, Tensor shown, int side, float spread) -> (Tensor, Tensor, Tensor)",
)
def draw(slots: list[Tensor], eyes: list[Tensor], shown: Tensor, side: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """pixels [B, V, S, S, 3], depth and segmentation [B, V, S, S] of `Slots` and `Eyes`, field by field, and what is shown [B, V, K]."""
    kind, position, size, yaw, colour, texture, grain, _ = slots
    place, turn, tilt = eyes
    picture = _empty(turn, side)
    scene = kind, position, size, yaw.sin(), yaw.cos(), colour, texture, grain, shown
    given = *scene, place, turn.sin(), turn.cos(), tilt.sin(), tilt.cos()
    grid = turn.numel(), triton.cdiv(side * side, _TILE)
    counts = turn.shape[1], kind.shape[1]
    _draw[grid](*(value.contiguous() for value in given), *picture, *counts, spread, SIDE=side, TILE=_TILE)
    return picture


@draw.register_fake
def _(slots: list[Tensor], eyes: list[Tensor], shown: Tensor, side: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(eyes[1], side)


def _empty(turn: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*turn.shape, side, side)
    return (
        turn.new_empty((*shape, 3), dtype=torch.uint8),
        turn.new_empty(shape, dtype=torch.float32),
        turn.new_empty(shape, dtype=torch.int32),
    )
