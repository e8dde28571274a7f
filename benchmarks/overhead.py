"""What RLlib costs: the same rollouts and updates through RLlib and in a plain loop, turn by turn in one process."""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.measure import verdict
from training.allocator import keep_freed_memory
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.rllib import algorithm as rllib
from training.schemes.self_play import independent

REPEATS = 7


def experiment() -> Experiment:
    """PPO, GRU of 128, two epochs, two learners, 1,024 games of 100 rounds."""
    return Experiment(scheme=independent(), trials=1024)


def main() -> bool:
    keep_freed_memory()
    plain = PlainTrainer(experiment(), {})
    through_rllib = rllib.build(experiment())
    plain.train()
    through_rllib.train()
    ratios = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        plain.train()
        between = time.perf_counter()
        through_rllib.train()
        end = time.perf_counter()
        ratios.append((end - between) / (between - begin))
        print(f"plain {between - begin:.2f} s, through RLlib {end - between:.2f} s", flush=True)
    rllib.stop_ray()
    return verdict("RLlib around the loop adds", 100 * (statistics.median(ratios) - 1), 5, "% of its time", at_least=False)


if __name__ == "__main__":
    sys.exit(not main())
