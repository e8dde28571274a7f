"""Whether a player answers in kind, and whether it takes more than it gives: two regressions on what was played and earned."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from training.evaluation.statistics import Interval, mean_of, percentiles, resampled_means


def reciprocity(
    own: Float[NDArray[Any], "n T"], other: Float[NDArray[Any], "n T"], began: Bool[NDArray[Any], "n T"] | None = None
) -> Float[NDArray[Any], "n"]:
    """[n]: how much more probably one cooperates after the other did, one's own last move being the same.

    The coefficient of the other's last move in a linear regression of one's move on both last moves and a constant, for each trial alone.
    Pooled, trials against friends and against foes would differ for other reasons than answers to the last move, and that would count as
    reciprocity; per trial the values also go into a bootstrap.

    own, other: cooperation, 1 or 0; NaN after a trial's end. began: where an episode begins, whose first moves answer nothing. NaN for
    trials that cannot tell: the other never varied, or moved exactly as one did oneself.

    Tit-for-tat 1, its opposite -1, always-defect 0, generous tit-for-tat 2/3. Win-stay-lose-shift answers by its own last move, and
    comes out between 1 and -1 by how often that was cooperation. Where the other in turn answers one's own moves, least squares on one
    short trial is biased towards retaliation by a term in 1/T (Nickell 1981): a reciprocity of 0.40 against tit-for-tat is on average
    measured as 0.37 in trials of 100 rounds and as 0.20 in trials of 20. Against co-players that do not answer it is unbiased. One trial
    of 100 rounds has a standard error of about 0.1.
    """
    there = ~np.isnan(own[:, 1:] + own[:, :-1] + other[:, :-1])
    if began is not None:
        there &= ~began[:, 1:]
    rounds = np.maximum(there.sum(1, keepdims=True), 1)
    answer, mine, its = (_centred(moves, there, rounds) for moves in (own[:, 1:], own[:, :-1], other[:, :-1]))
    # What the other's last move says beyond one's own (Frisch and Waugh 1933); an own move that never varies says nothing.
    spread = (mine * mine).sum(1, keepdims=True)
    its = its - mine * (its * mine).sum(1, keepdims=True) / np.where(spread > 0, spread, 1.0)
    news = (its * its).sum(1)
    return (its * answer).sum(1) / np.where(news > 1e-9, news, np.nan)


def extortion_slope(
    own: Float[NDArray[Any], "S n T"], other: Float[NDArray[Any], "S n T"], resamples: int = 2000, seed: int = 0
) -> Interval:
    """How many times what the other earns more in one trial than in another one earns more oneself, with a bootstrap interval.

    own, other: rewards of S seeds in the same n trials of T >= 2 rounds, NaN after a trial's end. Extortion's surplus over mutual
    defection is chi times the other's, whoever the other is (Press and Dyson 2012, eq. 14), so its slope over varied co-players is chi;
    tit-for-tat's is 1; always-defect's in the prisoner's dilemma of Weis et al. is -2. Where the line passes, the slope does not say.

    A trial's means of both payoffs carry the luck of its moves, which bends either plain regression: for chi = 2 against U(0, 1) tables,
    own on other gives 1.55 in 100 rounds, and the inverse of other on own 2.20. So the line is fitted to the trials' later halves, where
    play has settled, with the other's mean payoff in the earlier half as the instrument: it tells co-players apart, and its luck is other
    luck. That gives 2.01 in 100 rounds and 2.06 in 50. Each seed's means are taken out, so that differences between seeds are no slope. NaN
    where the other always earns the same; not to be trusted where its halves have little to do with each other (the interval is then huge).
    """
    if own.shape != other.shape or own.shape[2] < 2:
        raise ValueError(f"own is {list(own.shape)} and other {list(other.shape)}; want the same S, n and T, and at least two rounds")
    half = own.shape[2] // 2
    means = np.stack([mean_of(other[..., :half], 2), mean_of(own[..., half:], 2), mean_of(other[..., half:], 2)], 2)
    means = np.where(np.isnan(means).any(2, keepdims=True), np.nan, means)
    earlier, *later = np.moveaxis(means - mean_of(means, 1)[:, None], 2, 0)
    products = np.stack(later, 2) * earlier[..., None]
    return percentiles(_slope(mean_of(mean_of(products, 1), 0)), _slope(resampled_means(products, resamples, seed)), *own.shape[:2])


def _slope(covariances: Float[NDArray[Any], "... 2"]) -> NDArray[Any]:
    """The quotient of the covariances of one's own and of the other's later payoff with the instrument."""
    of_own, of_other = covariances[..., 0], covariances[..., 1]
    return np.asarray(of_own / np.where(np.abs(of_other) > 1e-12, of_other, np.nan))


def _centred(moves: NDArray[Any], there: NDArray[Any], rounds: NDArray[Any]) -> NDArray[Any]:
    """Less each trial's mean; 0 where there is nothing."""
    kept = np.where(there, moves, 0.0)
    return np.where(there, kept - kept.sum(1, keepdims=True) / rounds, 0.0)
