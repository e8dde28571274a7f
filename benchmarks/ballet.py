"""Ballet at batch 256, as pixels and as symbols: frames per second of step and observation together, next to the original's.

Given random moves, through the dances and 20 steps of choosing; with 2 dancers and with 8. The original (pycolab, one environment in a
Python loop) made about 9,000 frames/s of pixels on one core of another machine.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.measure import seconds, verdict
from envs.ballet import Ballet
from training.allocator import keep_freed_memory

BATCH, ORIGINAL = 256, 9_000


def frames_per_second(game: Ballet) -> float:
    steps = game.watching + 20
    moves = torch.randint(8, (steps, BATCH, 1), generator=torch.Generator().manual_seed(1))
    beginning = game.start(torch.arange(BATCH))

    def play() -> None:
        state = beginning
        for step in range(steps):
            state, _ = game.step(state, {"spectator": moves[step]})
            game.observe(state)

    return BATCH * steps / seconds(play, 15)


def main() -> bool:
    keep_freed_memory()
    # Waiting for a second thread takes longer than what it does.
    torch.set_num_threads(1)
    met = []
    for dancers in (2, 8):
        for what, pixels, target in (("pixels", True, 20), ("symbols", False, 100)):
            rate = frames_per_second(Ballet(dancers, pixels=pixels))
            print(f"{dancers} dancers, {what}: {rate:,.0f} frames/s", flush=True)
            met.append(verdict("that is", rate / ORIGINAL, target, "times the original's 9,000"))
    return all(met)


if __name__ == "__main__":
    sys.exit(not main())
