"""What could draw the rooms on a CPU: pictures per second of one core, of the four rooms that `benchmarks.rooms3d` draws.

Numba is what draws; the plain renderer states the same in tensor operations, eagerly or by torch.compile. Warp (`pip install warp-lang`)
gets less to do: a thread per pixel finds the nearest solid and how far it is, and no colour; and it is told beforehand in which rectangle
of the screen each solid is. Triton has no CPU. Times are of the process, which a busy machine does not make longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measure import seconds, verdict
from benchmarks.rooms3d import furnished
from envs.rooms3d import camera as plain
from envs.rooms3d import camera_numba
from envs.rooms3d.camera import Camera, Eyes
from envs.rooms3d.primitives import FAR, NEAR, TINY, Kind, Slots
from envs.rooms3d.world import World, four_rooms
from training.allocator import keep_freed_memory

# IMAGES of Numba and Warp, and FEW that the plain renderer draws.
IMAGES, FEW, SIZE, TURNS = 64, 4, 64, 5


def rate(draw: Callable[[], object], images: int) -> float:
    """Pictures per second of processor time."""
    return images / seconds(draw, TURNS, clock=time.process_time)


def first(count: int, slots: Slots, eyes: Eyes) -> tuple[Slots, Eyes]:
    return Slots(*(field[:count] for field in slots)), Eyes(*(field[:count] for field in eyes))


def rectangles(camera: Camera, slots: Slots, eyes: Eyes) -> np.ndarray:
    """On a CPU, [B, K, 4]: first row, last row, first and last column that may see a solid; the whole screen for a plane."""
    found = np.tile(np.array([0, camera.size, 0, camera.size], np.int32), (*slots.kind.shape, 1))
    # The half axes of a solid in the world's axes, then those and its centre in the camera's own: right, up, ahead.
    sin, cos, zero = slots.yaw.sin(), slots.yaw.cos(), torch.zeros_like(slots.yaw)
    turned = torch.stack(
        [torch.stack([cos, zero, -sin], -1), torch.stack([zero, zero + 1, zero], -1), torch.stack([sin, zero, cos], -1)], 2
    )
    axes = turned * slots.size[..., None]
    yaw, pitch = eyes.yaw[:, 0], eyes.pitch[:, 0]
    right = torch.stack([yaw.cos(), 0 * yaw, -yaw.sin()], -1)
    up = torch.stack([-yaw.sin() * pitch.sin(), pitch.cos(), -yaw.cos() * pitch.sin()], -1)
    ahead = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1)
    view = torch.stack([right, up, ahead], 1)
    centre = torch.einsum("bic,bkc->bki", view, slots.position - eyes.position).numpy()
    half = torch.einsum("bic,bkac->bkai", view, axes).numpy()
    for image, slot in zip(*np.nonzero(slots.kind.numpy() != Kind.PLANE), strict=True):
        found[image, slot] = camera_numba._rectangle(centre[image, slot], half[image, slot], np.float32(camera.spread), camera.size)
    return found


def warp_draw(camera: Camera, slots: Slots, eyes: Eyes) -> tuple[Callable[[], object], Callable[[], torch.Tensor]] | None:
    """What draws where the slots are, and what then reads the segmentation [B, S * S]; None without Warp."""
    try:
        import warp as wp  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        return None
    wp.config.quiet = True
    wp.init()
    near, far, tiny = wp.constant(NEAR), wp.constant(FAR), wp.constant(TINY)
    ball, cone, pyramid, plane = (wp.constant(int(kind)) for kind in (Kind.BALL, Kind.CONE, Kind.PYRAMID, Kind.PLANE))

    @wp.func
    def off_zero(value: float) -> float:
        return wp.where(wp.abs(value) > tiny, value, tiny)

    @wp.func
    def met(kind: int, o: wp.vec3, d: wp.vec3) -> float:
        y_over = 1.0 / off_zero(d[1])
        y_in, y_out = wp.min((-1.0 - o[1]) * y_over, (1.0 - o[1]) * y_over), wp.max((-1.0 - o[1]) * y_over, (1.0 - o[1]) * y_over)
        enters, leaves = y_in, y_out
        if kind == plane:
            return -o[1] * y_over
        if kind == pyramid:
            for axis in range(4):
                sign = wp.where(axis % 2 == 0, 1.0, -1.0)
                start, along = sign * wp.where(axis < 2, o[0], o[2]), sign * wp.where(axis < 2, d[0], d[2])
                slope = off_zero(along + d[1] * 0.5)
                meets = ((1.0 - o[1]) * 0.5 - start) / slope
                if slope < 0.0:
                    enters = wp.max(enters, meets)
                else:
                    leaves = wp.min(leaves, meets)
        elif kind >= ball and kind <= cone:
            wide, narrows, height_o, height_d = wp.float32(1.0), wp.float32(0.0), wp.float32(0.0), wp.float32(0.0)
            if kind == cone:
                wide, narrows = (1.0 - o[1]) * 0.5, -d[1] * 0.5
            if kind == ball:
                height_o, height_d = o[1], d[1]
                enters, leaves = -1.0e30, 1.0e30
            a = off_zero(d[0] * d[0] + d[2] * d[2] + height_d * height_d - narrows * narrows)
            b = o[0] * d[0] + o[2] * d[2] + height_o * height_d - wide * narrows
            square = b * b - a * (o[0] * o[0] + o[2] * o[2] + height_o * height_o - wide * wide)
            if square < 0.0:
                return far
            root = wp.sqrt(square)
            round_in, round_out = (-b - root) / a, (root - b) / a
            if a < 0.0 and d[1] > 0.0:
                round_in = -1.0e30
            if a < 0.0 and d[1] <= 0.0:
                round_out = 1.0e30
            enters, leaves = wp.max(enters, round_in), wp.min(leaves, round_out)
        else:
            x_over, z_over = 1.0 / off_zero(d[0]), 1.0 / off_zero(d[2])
            left, right, front, back = (-1.0 - o[0]) * x_over, (1.0 - o[0]) * x_over, (-1.0 - o[2]) * z_over, (1.0 - o[2]) * z_over
            enters = wp.max(enters, wp.max(wp.min(left, right), wp.min(front, back)))
            leaves = wp.min(leaves, wp.min(wp.max(left, right), wp.max(front, back)))
        return wp.where(enters <= leaves, enters, far)

    @wp.kernel
    def draw(
        size: int,
        spread: float,
        kind: wp.array2d(dtype=wp.int64),  # type: ignore[valid-type]
        position: wp.array2d(dtype=wp.vec3),  # type: ignore[valid-type]
        half: wp.array2d(dtype=wp.vec3),  # type: ignore[valid-type]
        angle: wp.array2d(dtype=float),  # type: ignore[valid-type]
        box: wp.array3d(dtype=int),  # type: ignore[valid-type]
        eye: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
        yaw: wp.array(dtype=float),  # type: ignore[valid-type]
        pitch: wp.array(dtype=float),  # type: ignore[valid-type]
        depth: wp.array2d(dtype=float),  # type: ignore[valid-type]
        ids: wp.array2d(dtype=int),  # type: ignore[valid-type]
    ):
        image, pixel = wp.tid()
        row, column = pixel // size, pixel % size
        u = ((float(column) + 0.5) * 2.0 / float(size) - 1.0) * spread
        v = -((float(row) + 0.5) * 2.0 / float(size) - 1.0) * spread
        sin_turn, cos_turn, sin_tilt, cos_tilt = wp.sin(yaw[image]), wp.cos(yaw[image]), wp.sin(pitch[image]), wp.cos(pitch[image])
        along = cos_tilt - v * sin_tilt
        x, y, z = cos_turn * u + sin_turn * along, sin_tilt + v * cos_tilt, cos_turn * along - sin_turn * u
        nearest, found = wp.float32(far), wp.int32(0)
        for k in range(kind.shape[1]):
            top, bottom, left, end = box[image, k, 0], box[image, k, 1], box[image, k, 2], box[image, k, 3]
            if row >= top and row < bottom and column >= left and column < end:
                sin, cos = wp.sin(angle[image, k]), wp.cos(angle[image, k])
                away, h = eye[image] - position[image, k], wp.vec3(half[image, k])
                if int(kind[image, k]) == plane:
                    h = wp.vec3(1.0, 1.0, 1.0)
                o = wp.vec3((away[0] * cos - away[2] * sin) / h[0], away[1] / h[1], (away[0] * sin + away[2] * cos) / h[2])
                d = wp.vec3((x * cos - z * sin) / h[0], y / h[1], (x * sin + z * cos) / h[2])
                t = met(int(kind[image, k]), o, d)
                if t > near and t < nearest:
                    nearest, found = t, k + 1
        depth[image, pixel] = nearest
        ids[image, pixel] = found

    device, shape = slots.position.device, (len(slots.kind), camera.size**2)
    depth, ids = torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.int32, device=device)
    near_by = (type(batch)(*(field.cpu() for field in batch)) for batch in (slots, eyes))
    given = [slots.kind, slots.position, slots.size, slots.yaw, torch.as_tensor(rectangles(camera, *near_by), device=device)]
    given += [eyes.position[:, 0], eyes.yaw[:, 0], eyes.pitch[:, 0], depth, ids]
    kinds = [wp.int64, wp.vec3, wp.vec3, wp.float32, wp.int32, wp.vec3, wp.float32, wp.float32, wp.float32, wp.int32]
    arrays = [wp.from_torch(value.contiguous(), dtype=kind) for value, kind in zip(given, kinds, strict=True)]
    return lambda: wp.launch(draw, shape, [camera.size, camera.spread, *arrays], device=str(device)), lambda: ids


def main() -> bool:
    keep_freed_memory()
    torch.set_num_threads(1)
    world, camera = World(four_rooms()), Camera(SIZE)
    state = furnished(world)
    slots, eyes = first(IMAGES, world.slots(state), world.eyes(state))
    shown = slots.visible[:, None]
    few_slots, few_eyes = first(FEW, slots, eyes)
    numba = rate(lambda: camera.draw_by_numba(slots, eyes, shown), IMAGES)
    print(f"Numba: {numba:,.0f} pictures/s", flush=True)
    eager = rate(lambda: camera.draw_plainly(few_slots, few_eyes, shown[:FEW]), FEW)
    print(f"PyTorch, eager: {eager:,.0f} pictures/s", flush=True)
    look = plain._look
    plain._look = torch.compile(look, dynamic=False)
    compiled = rate(lambda: camera.draw_plainly(few_slots, few_eyes, shown[:FEW]), FEW)
    plain._look = look
    print(f"PyTorch, torch.compile: {compiled:,.0f} pictures/s", flush=True)
    found = [eager, compiled]
    warp = warp_draw(camera, slots, eyes)
    if warp is None:
        print("Warp: not measured; pip install warp-lang", flush=True)
    else:
        draw, segmentation = warp
        found.append(rate(draw, IMAGES))
        same = (segmentation() == camera.see(slots, eyes).segmentation.flatten(1)).float().mean()
        print(f"Warp, no colours: {found[-1]:,.0f} pictures/s, {same:.2%} of pixels see the same as Numba's", flush=True)
    return verdict("Numba is", numba / max(found), 1, "times as fast as the next")


if __name__ == "__main__":
    sys.exit(not main())
