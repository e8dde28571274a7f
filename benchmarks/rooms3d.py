"""Four rooms with ten objects in first person, 64 x 64 pixels: our steps and pictures, and Miniworld's FourRooms on the same cores.

Both walk at random. Ours is a batch of 256 worlds, Miniworld a single environment, in a process of its own that takes turns with ours, by
an interpreter that has it: COTERIE_MINIWORLD=/path/to/python. `TO_MAKE_ONE` is how, on Debian; it draws through EGL, as Mesa has it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import torch

from benchmarks.measure import interpreter_named_by, seconds, verdict
from envs.chance import integers, uniform
from envs.rooms3d.camera import Camera
from envs.rooms3d.primitives import Kind, Slots
from envs.rooms3d.world import World, WorldState, four_rooms
from training.allocator import keep_freed_memory

# FEW: pictures that the plain renderer draws, which takes seconds for all. WALKS: stay, walk and turn, the first of all actions.
BATCH, STEPS, TURNS, OBJECTS, FEW, WALKS = 256, 20, 5, 10, 16, 7

TO_MAKE_ONE = """\
  apt-get install -y libegl1 libgl1 libgl1-mesa-dri libglu1-mesa
  python3 -m venv /tmp/miniworld
  /tmp/miniworld/bin/pip install miniworld
  COTERIE_MINIWORLD=/tmp/miniworld/bin/python python -m benchmarks rooms3d"""

# Prints frames per second over a thousand steps.
THEIRS = """
import time
import gymnasium, miniworld

environment = gymnasium.make("MiniWorld-FourRooms-v0", obs_width=64, obs_height=64)
environment.reset(seed=0)
begin = time.perf_counter()
for _ in range(1000):
    _, _, ends, stops, _ = environment.step(environment.action_space.sample())
    if ends or stops:
        environment.reset()
print(1000 / (time.perf_counter() - begin))
"""


def furnished(world: World) -> WorldState:
    """Ten things of every kind, a third of them textured, and the agent at places by chance."""
    seeds = torch.arange(BATCH)
    places = world.scatter(seeds, OBJECTS + 1, 0.8)
    each = torch.arange(OBJECTS).expand(BATCH, -1)
    size = (0.1 + 0.2 * uniform(seeds[:, None], 0, each))[..., None].expand(-1, -1, 3)
    position = torch.stack([places[:, 1:, 0], size[..., 1], places[:, 1:, 1]], -1)
    colour = uniform(seeds[:, None, None], 1, torch.arange(OBJECTS * 3).reshape(OBJECTS, 3))
    texture = torch.where(each % 3 == 0, 1 + each % 4, 0)
    like = torch.ones(BATCH, OBJECTS)
    things = Slots(each % int(Kind.PLANE), position, size, 6 * uniform(seeds[:, None], 2, each), colour, texture, 0.1 * like, like > 0)
    return world.start(places[:, :1], integers(seeds, 24, 3)[:, None], things)


def main() -> bool:
    keep_freed_memory()
    world, camera, seeds = World(four_rooms()), Camera(64), torch.arange(BATCH)
    state = furnished(world)

    def walk() -> None:
        nonlocal state
        for step in range(STEPS):
            state = world.move(state, integers(seeds[:, None], WALKS, 4, step))
            world.look(state, camera)

    def draw_plainly() -> None:
        slots, eyes = (type(batch)(*(field[:FEW] for field in batch)) for batch in (world.slots(state), world.eyes(state)))
        camera.draw_plainly(slots, eyes, slots.visible[:, None])

    walk()
    interpreter = interpreter_named_by("COTERIE_MINIWORLD")
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(BATCH * STEPS / seconds(walk, 1, 0))
        if interpreter:
            environment = {**os.environ, "PYGLET_HEADLESS": "1"}
            run = subprocess.run([interpreter, "-c", THEIRS], capture_output=True, text=True, check=True, env=environment)
            theirs.append(float(run.stdout.split()[-1]))
    rate = statistics.median(ours)
    print(f"ours: {rate:,.0f} frames/s on {torch.get_num_threads()} threads; the plain renderer: ", end="")
    print(f"{FEW / seconds(draw_plainly, 1):,.0f} frames/s", flush=True)
    if not theirs:
        print(
            f"Miniworld's: not measured; COTERIE_MINIWORLD names no interpreter. To make one that has it, and measure:\n{TO_MAKE_ONE}",
            flush=True,
        )
        return verdict("ours draws", rate, 8800, "frames/s")
    print(f"Miniworld's FourRooms: {statistics.median(theirs):,.0f} frames/s", flush=True)
    return verdict("ours is", rate / statistics.median(theirs), 8, "times as fast")


if __name__ == "__main__":
    sys.exit(not main())
