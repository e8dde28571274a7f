"""Means with bootstrap intervals, over trials and over seeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Interval(NamedTuple):
    """mean: over all. low, high: of the 95 % percentile interval. seeds, trials: how many of each stand behind it."""

    mean: float
    low: float
    high: float
    seeds: int
    trials: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(by_seed: list[Array], resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of seeds' means. by_seed: for each seed [n] trials.

    Resamples seeds, and trials within each (Davison and Hinkley 1997, section 3.8). With one seed the interval covers the luck of the
    trials alone and says nothing about other seeds.
    """
    means = resampled_means([values[:, None] for values in by_seed], resamples, seed)[:, 0]
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float(np.mean([values.mean() for values in by_seed]))
    return Interval(mean, float(low), float(high), len(by_seed), sum(len(values) for values in by_seed))


def resampled_means(by_seed: list[Array], resamples: int, seed: int = 0) -> Array:
    """[resamples, T] means of resampled data; by_seed: for each seed [n, T]."""
    if not by_seed or any(len(values) == 0 for values in by_seed):
        raise ValueError("an interval wants at least one seed and one trial in each")
    generator = np.random.default_rng(seed)
    # A resample of n trials is a vector of counts, so that its mean is one row of a matrix product.
    per_seed = []
    for values in by_seed:
        counts = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
        per_seed.append(counts @ values / len(values))
    chosen = generator.integers(len(by_seed), size=(resamples, len(by_seed)))
    stacked = np.stack(per_seed)
    means: Array = stacked[chosen, np.arange(resamples)[:, None]].mean(1)
    return means
