"""Ballet at batch 256, as pixels and as symbols: frames per second of step and observation together, next to the original's.

Given random moves, through the dances and 20 steps of choosing; with 2 dancers and with 8. The original (pycolab, one environment in a
Python loop) draws pixels in a process of its own, taking turns with ours, by an interpreter that has it: COTERIE_BALLET=/path/to/python.
`TO_MAKE_ONE` is how. On a quiet core of another machine it made about 9,000.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import torch

from benchmarks.measure import interpreter_named_by, seconds, verdict
from envs.ballet import Ballet
from training.allocator import keep_freed_memory

BATCH, TURNS = 256, 5

TO_MAKE_ONE = """\
  python3 -m venv /tmp/ballet
  /tmp/ballet/bin/pip install absl-py dm_env pycolab 'numpy<1.24'
  git clone --depth 1 https://github.com/google-deepmind/deepmind-research /tmp/deepmind-research
  PYTHONPATH=/tmp/deepmind-research COTERIE_BALLET=/tmp/ballet/bin/python python -m benchmarks ballet"""

# Prints frames per second over two thousand steps.
THEIRS = """
import random, sys, time
from hierarchical_transformer_memory.pycolab_ballet.ballet_environment import simple_builder

environment = simple_builder(sys.argv[1] + "_delay16")
environment.reset()
begin = time.perf_counter()
for _ in range(2000):
    environment.step(random.randrange(8))
print(2000 / (time.perf_counter() - begin))
"""


def frames_per_second(game: Ballet) -> float:
    steps = game.watching + 20
    moves = torch.randint(8, (steps, BATCH, 1), generator=torch.Generator().manual_seed(1))
    beginning = game.start(torch.arange(BATCH))

    def play() -> None:
        state = beginning
        for step in range(steps):
            state, _ = game.step(state, {"spectator": moves[step]})
            game.observe(state)

    return BATCH * steps / seconds(play, 5)


def original_frames_per_second(interpreter: str, dancers: int) -> float:
    run = subprocess.run([interpreter, "-W", "ignore", "-c", THEIRS, str(dancers)], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main() -> bool:
    keep_freed_memory()
    # Waiting for a second thread takes longer than what it does.
    torch.set_num_threads(1)
    interpreter = interpreter_named_by("COTERIE_BALLET")
    if interpreter is None:
        print(f"The original's: not measured; COTERIE_BALLET names no interpreter. To make one that has it, and measure:\n{TO_MAKE_ONE}")
    met = []
    for dancers in (2, 8):
        games = {"pixels": Ballet(dancers), "symbols": Ballet(dancers, pixels=False)}
        ours: dict[str, list[float]] = {what: [] for what in games}
        theirs = []
        for _ in range(TURNS):
            for what, game in games.items():
                ours[what].append(frames_per_second(game))
            if interpreter is not None:
                theirs.append(original_frames_per_second(interpreter, dancers))
        if theirs:
            print(f"{dancers} dancers, the original, pixels: {statistics.median(theirs):,.0f} frames/s", flush=True)
        for what, target in (("pixels", 20), ("symbols", 100)):
            rate = statistics.median(ours[what])
            print(f"{dancers} dancers, {what}: {rate:,.0f} frames/s", flush=True)
            if theirs:
                met.append(verdict("that is", rate / statistics.median(theirs), target, "times the original's pixels"))
    return all(met)


if __name__ == "__main__":
    sys.exit(not main())
