"""The camera on a CPU: rays against the solids of one image after another, compiled by Numba.

A solid is tried only in the rectangle that holds it on the screen, a row at a time in loops that the compiler vectorises; as no camera
rolls, rays rise alike all along a row. Surfaces are coloured afterwards, in runs of pixels that see the same slot. The formulas are
those of `envs.rooms3d.camera`, which says them once for every pixel and slot; a test holds both to the same pictures.
"""

from __future__ import annotations

import math
import threading
from typing import Any, no_type_check

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.rooms3d import primitives
from envs.rooms3d.primitives import Kind, Texture

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
NEAR, FAR, TINY, HUGE = F(primitives.NEAR), F(primitives.FAR), F(primitives.TINY), F(1e30)
AMBIENT, DIFFUSE, FADE, DARK = F(primitives.AMBIENT), F(primitives.DIFFUSE), F(primitives.FADE), F(primitives.DARK)
LIGHT_X, LIGHT_Y, LIGHT_Z = (F(part) for part in primitives.LIGHT)
SKY = tuple(int(255 * part + 0.5) for part in primitives.SKY)
FULL, EDGE = F(255), F(primitives.EDGE)
MORTAR_HEIGHT, MORTAR_WIDTH, DOT = F(primitives.MORTAR_HEIGHT), F(primitives.MORTAR_WIDTH), F(primitives.DOT)
BOX, CRATE, BALL, CYLINDER, CONE, PYRAMID, PLANE = (int(kind) for kind in Kind)
PLAIN, CHECKS, STRIPES, BRICKS = (int(texture) for texture in list(Texture)[:4])

# Infinities are compared, so only those liberties of fast arithmetic that leave them alone.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})
_inlined = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"}, inline="always")


@_inlined
@no_type_check
def _off_zero(value):
    return value if abs(value) > TINY else TINY


@_compiled
@no_type_check
def _meet_slabs(kind, slot, depth, ids, u, first, last, o, d, r):
    """A box, or a crate, in one row of pixels."""
    over_y = ONE / _off_zero(d[1])
    bottom, top = (-ONE - o[1]) * over_y, (ONE - o[1]) * over_y
    y_in, y_out = min(bottom, top), max(bottom, top)
    downwards = d[1] < ZERO
    for j in range(first, last):
        over_x, over_z = ONE / _off_zero(d[0] + u[j] * r[0]), ONE / _off_zero(d[2] + u[j] * r[1])
        left, right = (-ONE - o[0]) * over_x, (ONE - o[0]) * over_x
        front, back = (-ONE - o[2]) * over_z, (ONE - o[2]) * over_z
        sides_in = max(min(left, right), min(front, back))
        sides_out = min(max(left, right), max(front, back))
        t = max(sides_in, y_in)
        out = min(sides_out, y_out)
        met = t <= out
        if kind == CRATE:
            enters = (t > NEAR) & ((not downwards) | (y_in < sides_in))
            leaves = downwards | (y_out > sides_out)
            t = t if enters else out
            met = met & (enters | leaves)
        met = met & (t > NEAR) & (t < depth[j])
        depth[j] = t if met else depth[j]
        ids[j] = slot if met else ids[j]


@_compiled
@no_type_check
def _meet_round(kind, slot, depth, ids, u, first, last, o, d, r):
    """A ball, cylinder or cone in one row of pixels."""
    over_y = ONE / _off_zero(d[1])
    bottom, top = (-ONE - o[1]) * over_y, (ONE - o[1]) * over_y
    y_in, y_out = min(bottom, top), max(bottom, top)
    # What the radius is where the ray begins, and how it changes along it; a ball's height counts like its other axes.
    wide, narrows = ONE, ZERO
    height_d, height_o = ZERO, ZERO
    if kind == CONE:
        wide, narrows = (ONE - o[1]) * HALF, -d[1] * HALF
    elif kind == BALL:
        height_d, height_o = d[1], o[1]
        y_in, y_out = -HUGE, HUGE
    c = o[0] * o[0] + o[2] * o[2] + height_o * height_o - wide * wide
    upwards = d[1] > ZERO
    for j in range(first, last):
        dx, dz = d[0] + u[j] * r[0], d[2] + u[j] * r[1]
        a = _off_zero(dx * dx + dz * dz + height_d * height_d - narrows * narrows)
        b = o[0] * dx + o[2] * dz + height_o * height_d - wide * narrows
        root = b * b - a * c
        met = root >= ZERO
        root = math.sqrt(max(root, ZERO))
        over_a = ONE / a
        # Where a ray is steeper than the cone, it is inside on one side of a root, and in the cone's mirror image beyond the other.
        steep = a < ZERO
        t = (-b - root) * over_a
        out = (root - b) * over_a
        t = max(-HUGE if steep & upwards else t, y_in)
        out = min(HUGE if steep & (not upwards) else out, y_out)
        met = met & (t <= out) & (t > NEAR) & (t < depth[j])
        depth[j] = t if met else depth[j]
        ids[j] = slot if met else ids[j]


@_compiled
@no_type_check
def _meet_pyramid(slot, depth, ids, u, first, last, o, d, r):
    over_y = ONE / _off_zero(d[1])
    bottom, top = (-ONE - o[1]) * over_y, (ONE - o[1]) * over_y
    y_in, y_out = min(bottom, top), max(bottom, top)
    wide, narrows = (ONE - o[1]) * HALF, d[1] * HALF
    for j in range(first, last):
        dx, dz = d[0] + u[j] * r[0], d[2] + u[j] * r[1]
        t, out = y_in, y_out
        for side in range(4):
            along = dx if side < 2 else dz
            start = o[0] if side < 2 else o[2]
            sign = ONE if side % 2 == 0 else -ONE
            slope = _off_zero(sign * along + narrows)
            meets = (wide - sign * start) / slope
            t = max(t, meets if slope < ZERO else -HUGE)
            out = min(out, meets if slope > ZERO else HUGE)
        met = (t <= out) & (t > NEAR) & (t < depth[j])
        depth[j] = t if met else depth[j]
        ids[j] = slot if met else ids[j]


@_inlined
@no_type_check
def _part(value):
    """What is left of a number above the whole number below it."""
    return value - np.floor(value)


@_inlined
@no_type_check
def _pattern(texture, u, v):
    """The factor of the colour at a place on a surface, measured in cells."""
    if texture == CHECKS:
        is_dark = (_part(HALF * np.floor(u)) == ZERO) != (_part(HALF * np.floor(v)) == ZERO)
    elif texture == STRIPES:
        is_dark = _part(HALF * v) >= HALF
    elif texture == BRICKS:
        is_dark = (_part(v) < MORTAR_HEIGHT) | (_part(HALF * (u + np.floor(v))) < MORTAR_WIDTH)
    else:
        x, y = _part(u) - HALF, _part(v) - HALF
        is_dark = x * x + y * y < DOT
    return DARK if is_dark else ONE


@_compiled
@no_type_check
def _colour(pixels, depth, u, first, last, kind, texture, grain, colour, size, light, o, d, r):
    """A run of pixels in one row that see the same slot. light: the direction of light in the slot's own axes."""
    red, green, blue = colour[0] * FULL, colour[1] * FULL, colour[2] * FULL
    over_grain = ONE / grain
    x_cells, y_cells, z_cells = size[0] * over_grain, size[1] * over_grain, size[2] * over_grain
    if kind == PLANE:
        x_cells, z_cells = over_grain, over_grain
    is_box, is_plane = kind in (BOX, CRATE), kind == PLANE
    vertical = -light[1] if d[1] > ZERO else light[1]
    for j in range(first, last):
        t = depth[j]
        dx, dz = d[0] + u[j] * r[0], d[2] + u[j] * r[1]
        x, y, z = o[0] + t * dx, o[1] + t * d[1], o[2] + t * dz
        place_u, place_v = x * x_cells, y * y_cells
        if is_box:
            wide, high, deep = abs(x), abs(y), abs(z)
            if high >= wide and high >= deep:
                facing = vertical
                place_v = z * z_cells
            elif wide >= deep:
                facing = -light[0] if dx > ZERO else light[0]
                place_u = z * z_cells
            else:
                facing = -light[2] if dz > ZERO else light[2]
        elif is_plane:
            facing = vertical
            place_v = z * z_cells
        else:
            radius = math.sqrt(x * x + z * z)
            nx, ny, nz = x, ZERO, z
            if kind == BALL:
                ny = y
            elif kind == CONE:
                ny = radius * HALF
            elif kind == PYRAMID:
                is_x = abs(x) > abs(z)
                nx, nz = (x if is_x else ZERO), (ZERO if is_x else z)
                ny = max(abs(x), abs(z)) * HALF
            # Seen from below, or on a cylinder's upper end.
            is_below = y < -ONE + EDGE and d[1] > ZERO
            is_above = kind == CYLINDER and y > ONE - EDGE and d[1] < ZERO
            if kind != BALL and (is_below or is_above):
                facing = vertical
                place_v = z * z_cells
            else:
                # A normal in axes that are scaled is scaled the other way.
                nx, ny, nz = nx / size[0], ny / size[1], nz / size[2]
                length = math.sqrt(nx * nx + ny * ny + nz * nz) + TINY
                facing = (nx * light[0] + ny * light[1] + nz * light[2]) / length
        shade = (AMBIENT + DIFFUSE * facing) / (ONE + FADE * t)
        if texture != PLAIN:
            shade *= _pattern(texture, place_u, place_v)
        pixels[j, 0] = int(min(red * shade + HALF, FULL))
        pixels[j, 1] = int(min(green * shade + HALF, FULL))
        pixels[j, 2] = int(min(blue * shade + HALF, FULL))


@_compiled
@no_type_check
def _rectangle(box, axes, spread, count):
    """first row, last row, first column, last column (last ones excluded) of the pixels that may see a box.

    box: its centre, axes [3, 3]: its half axes, all in the camera's own axes (right, up, ahead).
    """
    low_x, high_x, low_y, high_y = HUGE, -HUGE, HUGE, -HUGE
    for corner in range(8):
        x, y, z = box[0], box[1], box[2]
        for axis in range(3):
            sign = ONE if corner >> axis & 1 else -ONE
            x, y, z = x + sign * axes[axis, 0], y + sign * axes[axis, 1], z + sign * axes[axis, 2]
        if z >= NEAR:
            low_x, high_x = min(low_x, x / z), max(high_x, x / z)
            low_y, high_y = min(low_y, y / z), max(high_y, y / z)
            continue
        # A corner behind the camera counts by where its edges come to the front.
        for axis in range(3):
            sign = -TWO if corner >> axis & 1 else TWO
            far = z + sign * axes[axis, 2]
            if far > NEAR:
                part = (NEAR - z) / (far - z) * sign
                cut_x, cut_y = (x + part * axes[axis, 0]) / NEAR, (y + part * axes[axis, 1]) / NEAR
                low_x, high_x = min(low_x, cut_x), max(high_x, cut_x)
                low_y, high_y = min(low_y, cut_y), max(high_y, cut_y)
    if low_x > high_x:
        return 0, 0, 0, 0
    half = F(count) * HALF
    # Clipped before it becomes a whole number, which has no infinity.
    left = min(max(low_x / spread, -TWO), TWO) * half + half
    right = min(max(high_x / spread, -TWO), TWO) * half + half
    above = half - min(max(high_y / spread, -TWO), TWO) * half
    below = half - min(max(low_y / spread, -TWO), TWO) * half
    return max(0, int(above) - 1), min(count, int(below) + 2), max(0, int(left) - 1), min(count, int(right) + 2)


@_compiled
@no_type_check
def _draw(first, last, views, spread, kind, position, size, yaw, colour, texture, grain, shown, eye, turn, tilt, pixels, depth, ids):
    """Images number first to last-1 of B * V."""
    slots, count = kind.shape[1], pixels.shape[1]
    u, v = np.empty(count, F), np.empty(count, F)
    for j in range(count):
        u[j] = (TWO * (F(j) + HALF) / F(count) - ONE) * spread
        v[count - 1 - j] = u[j]
    # Of every slot: where the eye is, the middle of the picture, the way right and up, and light, in the slot's own axes.
    origin, ahead, upward, light = np.empty((slots, 3), F), np.empty((slots, 3), F), np.empty((slots, 3), F), np.empty((slots, 3), F)
    right = np.empty((slots, 2), F)
    box, axes, d = np.empty(3, F), np.empty((3, 3), F), np.empty(3, F)
    for image in range(first, last):
        game = image // views
        sin_turn, cos_turn = F(math.sin(turn[image])), F(math.cos(turn[image]))
        sin_tilt, cos_tilt = F(math.sin(tilt[image])), F(math.cos(tilt[image]))
        for i in range(count):
            for j in range(count):
                depth[image, i, j] = FAR
                ids[image, i, j] = 0
        for k in range(slots):
            if not shown[image, k]:
                continue
            sin_yaw, cos_yaw = F(math.sin(yaw[game, k])), F(math.cos(yaw[game, k]))
            away_x, away_y = eye[image, 0] - position[game, k, 0], eye[image, 1] - position[game, k, 1]
            away_z = eye[image, 2] - position[game, k, 2]
            wide, high, deep = size[game, k, 0], size[game, k, 1], size[game, k, 2]
            # Of the angle between the camera and the slot.
            sin, cos = sin_turn * cos_yaw - cos_turn * sin_yaw, cos_turn * cos_yaw + sin_turn * sin_yaw
            is_plane = kind[game, k] == PLANE
            if is_plane:
                wide, high, deep = ONE, ONE, ONE
            origin[k, 0] = (away_x * cos_yaw - away_z * sin_yaw) / wide
            origin[k, 1] = away_y / high
            origin[k, 2] = (away_x * sin_yaw + away_z * cos_yaw) / deep
            ahead[k, 0], ahead[k, 1], ahead[k, 2] = sin * cos_tilt / wide, sin_tilt / high, cos * cos_tilt / deep
            upward[k, 0], upward[k, 1], upward[k, 2] = -sin * sin_tilt / wide, cos_tilt / high, -cos * sin_tilt / deep
            right[k, 0], right[k, 1] = cos / wide, -sin / deep
            light[k, 0] = LIGHT_X * cos_yaw - LIGHT_Z * sin_yaw
            light[k, 1] = LIGHT_Y
            light[k, 2] = LIGHT_X * sin_yaw + LIGHT_Z * cos_yaw
            if is_plane:
                for i in range(count):
                    t = -origin[k, 1] / _off_zero(ahead[k, 1] + v[i] * upward[k, 1])
                    if t > NEAR:
                        for j in range(count):
                            met = t < depth[image, i, j]
                            depth[image, i, j] = t if met else depth[image, i, j]
                            ids[image, i, j] = k + 1 if met else ids[image, i, j]
                continue
            across, along = away_x * cos_turn - away_z * sin_turn, away_x * sin_turn + away_z * cos_turn
            box[0], box[1], box[2] = -across, along * sin_tilt - away_y * cos_tilt, -along * cos_tilt - away_y * sin_tilt
            axes[0, 0], axes[0, 1], axes[0, 2] = wide * cos, -wide * sin * sin_tilt, wide * sin * cos_tilt
            axes[1, 0], axes[1, 1], axes[1, 2] = ZERO, high * cos_tilt, high * sin_tilt
            axes[2, 0], axes[2, 1], axes[2, 2] = -deep * sin, -deep * cos * sin_tilt, deep * cos * cos_tilt
            top, bottom, left, end = _rectangle(box, axes, spread, count)
            for i in range(top, bottom):
                for n in range(3):
                    d[n] = ahead[k, n] + v[i] * upward[k, n]
                row_depth, row_ids = depth[image, i], ids[image, i]
                which = kind[game, k]
                if which in (BOX, CRATE):
                    _meet_slabs(which, k + 1, row_depth, row_ids, u, left, end, origin[k], d, right[k])
                elif which == PYRAMID:
                    _meet_pyramid(k + 1, row_depth, row_ids, u, left, end, origin[k], d, right[k])
                else:
                    _meet_round(which, k + 1, row_depth, row_ids, u, left, end, origin[k], d, right[k])
        for i in range(count):
            j = 0
            while j < count:
                seen, start = ids[image, i, j], j
                while j < count and ids[image, i, j] == seen:
                    j += 1
                k = seen - 1
                if k < 0:
                    for sky in range(start, j):
                        pixels[image, i, sky, 0], pixels[image, i, sky, 1], pixels[image, i, sky, 2] = SKY
                    continue
                for n in range(3):
                    d[n] = ahead[k, n] + v[i] * upward[k, n]
                _colour(
                    pixels[image, i],
                    depth[image, i],
                    u,
                    start,
                    j,
                    kind[game, k],
                    texture[game, k],
                    grain[game, k],
                    colour[game, k],
                    size[game, k],
                    light[k],
                    origin[k],
                    d,
                    right[k],
                )


def draw(threads: int, views: int, spread: float, *arrays: NDArray[Any]) -> None:
    """Draws B * V images into the last three of `arrays` (see `_draw`), shared out evenly among threads.

    Threads of our own and none of Numba's, whose pools do not go together with forks, nor with other threads that call them.
    """
    images = len(arrays[-1])
    share = -(-images // threads)
    parts = [(first, min(first + share, images)) for first in range(0, images, share)]
    others = [threading.Thread(target=_draw, args=(*part, views, F(spread), *arrays)) for part in parts[1:]]
    for other in others:
        other.start()
    _draw(*parts[0], views, F(spread), *arrays)
    for other in others:
        other.join()
