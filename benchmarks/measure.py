"""Timing that a noisy machine cannot fool much: medians, and a verdict against a target."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """The median time of one call."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        begin = clock()
        work()
        times.append(clock() - begin)
    return statistics.median(times)


def verdict(what: str, value: float, target: float, unit: str, at_least: bool = True) -> bool:
    """Prints a figure beside its target; says whether it was met."""
    met = value >= target if at_least else value <= target
    bound = f"{'at least' if at_least else 'at most'} {target:,.3g}"
    print(f"{what}: {value:,.3g} {unit} (target: {bound}) {'ok' if met else 'MISSED'}", flush=True)
    return met


def interpreter_named_by(variable: str) -> str | None:
    """Another Python, with what ours has not; None where the environment variable names none that is there."""
    return shutil.which(os.environ.get(variable, ""))
