"""Means with bootstrap intervals, over trials and over seeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Interval(NamedTuple):
    """mean: over all. low, high: of the 95 % percentile interval. seeds: how many. trials: of each seed."""

    mean: float
    low: float
    high: float
    seeds: int
    trials: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(by_seed: Array, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of seeds' means. by_seed: [S, n], S seeds on the same n trials; NaN where a trial says nothing.

    Seeds and trials are resampled, the same trials for every seed, because all seeds meet the same luck (Owen 2007, the pigeonhole
    bootstrap). With one seed the interval covers the luck of the trials alone and says nothing about other seeds.
    """
    means = resampled_means(by_seed[:, :, None], resamples, seed)[:, 0]
    low, high = np.percentile(means[~np.isnan(means)], [2.5, 97.5]) if not np.isnan(means).all() else (np.nan, np.nan)
    return Interval(float(mean_of(mean_of(by_seed, 1), 0)), float(low), float(high), *by_seed.shape)


def resampled_means(by_seed: Array, resamples: int, seed: int = 0) -> Array:
    """[resamples, T] means of resampled data; by_seed: [S, n, T], NaN where there is none."""
    seeds, trials, _ = by_seed.shape
    if not seeds or not trials:
        raise ValueError("an interval wants at least one seed and one trial")
    generator = np.random.default_rng(seed)
    # A resample of n trials is a vector of counts, so that its mean is one row of a matrix product.
    counts = generator.multinomial(trials, np.full(trials, 1 / trials), size=resamples).astype(float)
    there = ~np.isnan(by_seed)
    with np.errstate(invalid="ignore"):
        per_seed = np.stack([counts @ np.where(there[s], by_seed[s], 0.0) / (counts @ there[s]) for s in range(seeds)])
    chosen = generator.integers(seeds, size=(resamples, seeds))
    return mean_of(per_seed[chosen, np.arange(resamples)[:, None]], 1)


def mean_of(values: Array, axis: int) -> Array:
    """The mean of what is not NaN; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0.0).sum(axis) / there.sum(axis))
