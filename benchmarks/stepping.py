"""How fast a game steps alone, with given actions: the prisoner's dilemma at batch 65,536."""

from __future__ import annotations

import sys

import torch

from benchmarks.measure import seconds, verdict
from envs.iterated_dilemma import prisoners_dilemma
from training.allocator import keep_freed_memory

BATCH, STEPS = 65_536, 100


def main() -> bool:
    keep_freed_memory()
    game = prisoners_dilemma()
    actions = torch.arange(BATCH * 2).reshape(BATCH, 2) % 3 % 2

    def play() -> None:
        state = game.start(torch.arange(BATCH))
        for _ in range(STEPS):
            state, _ = game.step(state, {"player": actions})

    return verdict("game stepping", 2 * BATCH * STEPS / seconds(play, 9), 100e6, "agent steps/s")


if __name__ == "__main__":
    sys.exit(not main())
