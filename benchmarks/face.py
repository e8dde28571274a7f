"""How fast one game steps through the PettingZoo face."""

from __future__ import annotations

import sys

from benchmarks.measure import seconds, verdict
from envs.face import parallel_env

TRIALS = 20


def main() -> bool:
    environment = parallel_env("prisoners_dilemma")

    def play() -> None:
        for seed in range(TRIALS):
            environment.reset(seed=seed)
            while environment.agents:
                environment.step({"player_0": 0, "player_1": 1})

    return verdict("one game through PettingZoo", TRIALS * 100 / seconds(play, 7), 5000, "env steps/s")


if __name__ == "__main__":
    sys.exit(not main())
