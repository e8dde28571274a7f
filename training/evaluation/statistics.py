"""Means with bootstrap intervals, over trials and over seeds.

Data are [S, n]: S seeds, each on the same n trials, NaN where a trial says nothing. All intervals resample seeds and, jointly for all of
them, trials. Which figures are worth an interval follows Agarwal et al. 2021 (arXiv 2108.13264, rliable).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
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

    @property
    def covers(self) -> str:
        """Whose luck the interval allows for, in words."""
        if self.seeds > 1:
            return "luck of trials and of seeds" if self.trials > 1 else "luck of the seeds only: nothing is known about other trials"
        if self.trials > 1:
            return "luck of the trials only: nothing is known about other seeds"
        return "nothing: it is one trial of one seed"

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(by_seed: Array, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of seeds' means. by_seed: [S, n], S seeds on the same n trials; NaN where a trial says nothing.

    Seeds and trials are resampled, the same trials for every seed, because all seeds meet the same luck (Owen 2007, the pigeonhole
    bootstrap). With one seed the interval covers the luck of the trials alone and says nothing about other seeds.

    Few seeds make it too short. So often did it hold the truth about all seeds, with 100 trials, in 1,000 simulations each:

        standard deviation of seeds, trials, noise     S=1   S=2   S=3   S=5   S=10   S=20
        0.3, 1, 1                                      57 %  82 %  88 %  92 %  95 %   95 %
        1, 0.1, 0.1 (seeds alone differ)                3 %  50 %  75 %  84 %  89 %   92 %
    """
    means = resampled_means(by_seed[:, :, None], resamples, seed)[:, 0]
    return percentiles(mean_of(mean_of(by_seed, 1), 0), means, *by_seed.shape)


def interquartile_mean(by_seed: Array, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of the middle half of all values of all seeds and trials, as `scipy.stats.trim_mean(values, 0.25)`.

    by_seed: [S, n]. Less moved by outliers than the mean, and less by luck than the median (Agarwal et al. 2021, section 4.3). It forgets
    what is rare: where two seeds of ten fail in every trial, all that they did is cut away.
    """
    _refuse_nothing(by_seed)
    seeds, trials = by_seed.shape
    order = np.argsort(by_seed, axis=None)[: np.count_nonzero(~np.isnan(by_seed))]
    values, of_seed, of_trial = by_seed.ravel()[order], order // trials, order % trials
    resamples = _affordable(resamples, trials)
    seed_counts, trial_counts = _counts(seed, "seeds", seeds, resamples), _counts(seed, "trials", trials, resamples)

    # A few resamples at a time: all of them at once would fill the memory.
    several = max(1, 2_000_000 // max(1, len(order)))
    means = [
        _middle_means(values, seed_counts[first : first + several, of_seed] * trial_counts[first : first + several, of_trial])
        for first in range(0, resamples, several)
    ]
    return percentiles(_middle_means(values, np.ones((1, len(order)))).item(), np.concatenate(means), seeds, trials)


def paired_difference(a: Array, b: Array, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of a - b on the same trials, over all pairs of a seed of a and a seed of b. a: [S1, n], b: [S2, n].

    What a trial's luck does to both cancels: trials are resampled jointly, the seeds of a and of b each for themselves. A trial counts for
    a pair of seeds where neither is NaN. The interval's `seeds` is the smaller of S1 and S2. Raises ValueError for different trials.
    """
    return _over_pairs(a, b, _pairs(a, b, np.subtract), resamples, seed)


def ratio(above: Array, below: Array, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of `above` as a share of the mean of `below`. above: [S, n]. below: [n], of the same trials, the same for every seed.

    Both means are resampled together: a quotient whose denominator were held fixed would have far too short an interval. NaN where
    `below` is nothing on average.
    """
    _refuse_nothing(above)
    resampled = resampled_means(above[:, :, None], resamples, seed)[:, 0]
    denominators = _weighted_means(_counts(seed, "trials", len(below), len(resampled)), below[:, None])[:, 0]
    smallest = 1e-6
    with np.errstate(invalid="ignore"):
        quotients = resampled / np.where(np.abs(denominators) > smallest, denominators, np.nan)
    whole = float(below.mean())
    mean = float(mean_of(mean_of(above, 1), 0)) / whole if abs(whole) > smallest else np.nan
    return percentiles(mean, quotients if abs(whole) > smallest else np.full(1, np.nan), *above.shape)


def probability_of_improvement(a: Array, b: Array, resamples: int = 2000, seed: int = 0) -> Interval:
    """How probably a run of a does better than a run of b in a trial that both meet with the same luck; ties count half.

    a: [S1, n], b: [S2, n]. The share of all S1 * S2 pairs of seeds in which a's value is the higher (the Mann-Whitney statistic), averaged
    over trials. Agarwal et al. 2021, section 4.3, average it over tasks instead, which are fixed, and resample the runs of each task for
    themselves; here the trials are resampled as well, and a seed is one agent, resampled with all its trials. To compare runs by their
    means over trials, pass those as [S1, 1] and [S2, 1]. Otherwise as `paired_difference`.
    """
    return _over_pairs(a, b, _pairs(a, b, lambda one, other: np.heaviside(one - other, 0.5)), resamples, seed)


def figure(by_seed: Array) -> dict[str, Any]:
    """What results hold of a figure: the mean's interval, and the interquartile mean's as `iqm`, `iqm_low`, `iqm_high`."""
    nothing = Interval(np.nan, np.nan, np.nan, *by_seed.shape)
    middle = nothing if np.isnan(by_seed).all() else interquartile_mean(by_seed, 500)
    return {**bootstrap(by_seed)._asdict(), "iqm": middle.mean, "iqm_low": middle.low, "iqm_high": middle.high}


def percentiles(mean: Any, resampled: Array, seeds: int, trials: int) -> Interval:
    """The interval that holds the middle 95 % of resampled: [resamples], NaN left out."""
    there = resampled[~np.isnan(resampled)]
    low, high = np.percentile(there, [2.5, 97.5]) if len(there) else (np.nan, np.nan)
    return Interval(float(mean), float(low), float(high), seeds, trials)


def resampled_means(by_seed: Array, resamples: int, seed: int = 0) -> Array:
    """[resamples, T] means of resampled data; by_seed: [S, n, T], NaN where there is none."""
    _refuse_nothing(by_seed)
    seeds, trials, _ = by_seed.shape
    resamples = _affordable(resamples, trials)
    counts = _counts(seed, "trials", trials, resamples)
    per_seed = np.stack([_weighted_means(counts, values) for values in by_seed])
    chosen = np.random.default_rng([seed, *b"chosen"]).integers(seeds, size=(resamples, seeds))
    return mean_of(per_seed[chosen, np.arange(resamples)[:, None]], 1)


def mean_of(values: Array, axis: int) -> Array:
    """The mean of what is not NaN; NaN, without a warning, where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0.0).sum(axis) / there.sum(axis))


def _middle_means(values: Array, counts: Array) -> Array:
    """[resamples] interquartile means of values, [m] and ascending, drawn as often as counts, [resamples, m], say; NaN where none is."""
    upto = counts.cumsum(1)
    total = counts.sum(1, keepdims=True)
    cut = np.floor(0.25 * total)
    kept = np.diff(upto.clip(cut, total - cut), prepend=cut)
    with np.errstate(invalid="ignore"):
        return np.asarray(kept @ values / kept.sum(1))


def _over_pairs(a: Array, b: Array, pairs: Array, resamples: int, seed: int) -> Interval:
    """The mean of pairs, [S1, S2, n], over trials and then over pairs of seeds."""
    _refuse_nothing(pairs)
    trials = pairs.shape[2]
    resamples = _affordable(resamples, trials)
    counts = _counts(seed, "trials", trials, resamples)
    # [resamples, S1, S2]: a pair's mean on the resampled trials, and how often the pair is there.
    means = _weighted_means(counts, pairs.reshape(-1, trials).T).reshape(resamples, len(a), len(b))
    weights = _counts(seed, "seeds", len(a), resamples)[:, :, None] * _counts(seed, "other seeds", len(b), resamples)[:, None]
    weights = np.where(np.isnan(means), 0.0, weights)
    with np.errstate(invalid="ignore"):
        resampled = np.where(weights > 0, weights * means, 0.0).sum((1, 2)) / weights.sum((1, 2))
    return percentiles(mean_of(mean_of(pairs, 2).ravel(), 0), resampled, min(len(a), len(b)), trials)


def _pairs(a: Array, b: Array, compare: Callable[[Array, Array], Array]) -> Array:
    """[S1, S2, n]: every seed of a beside every seed of b."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} trials and b has {b.shape[1]}; want the same trials in both")
    return compare(a[:, None], b[None])


def _refuse_nothing(values: Array) -> None:
    if not values.size:
        raise ValueError("an interval wants at least one seed and one trial")


def _affordable(resamples: int, trials: int) -> int:
    """Fewer resamples of very many trials, whose intervals are narrow anyway: counts should fit in 128 MB."""
    return min(resamples, max(200, 16_000_000 // trials))


@lru_cache(maxsize=8)
def _counts(seed: int, what: str, count: int, resamples: int) -> Array:
    """[resamples, count]: how often each of `count` things is drawn in as many draws. A mean is then a row of a matrix product.

    The same for the same arguments: an evaluation asks hundreds of times, and drawing takes longer than playing.
    """
    generator = np.random.default_rng([seed, *what.encode()])
    counts = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    counts.flags.writeable = False
    return counts


def _weighted_means(counts: Array, values: Array) -> Array:
    """[resamples, T]: the means of values, [n, T], drawn as often as counts, [resamples, n], say; NaN where nothing is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts @ np.where(there, values, 0.0) / (counts @ there))
