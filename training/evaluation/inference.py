"""How early and how well the co-player can be read from a memory's state: linear probes (Alain and Bengio 2017, arXiv 1610.01644).

What a linear map finds in a state, the agent's heads could find as well. States are [n, R, D]: n trials at R chosen rounds; any features
will do, such as counts of what was seen so far, which tell how much of it the play itself gives away. Trials must be strangers: two that
meet the same co-player by the same table would let a probe that was fitted on one recognise the other. Twins, the same luck against
several kinds, are kept together: a probe fitted on one of them would take the other for the same kind, and score below chance.

Every probe is a ridge regression on features standardised by the rows it is fitted to, and judged on rows it has not seen, in each of
`folds` parts of the trials in turn. Nothing is drawn: the same rows give the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Array = NDArray[Any]


def read_kind(
    states: Float[NDArray[Any], "n R D"], kinds: Int[NDArray[Any], "n"], folds: int = 5, ridge: float = 0.01
) -> Float[NDArray[Any], "R"]:
    """[R]: how often the co-player's kind is told from the state at each round, the mean over kinds (balanced accuracy).

    kinds: a number for each trial's kind of co-player, K different ones; chance is 1 / K, however often each occurs. Every kind's trials
    come in the same order of luck: the first of each kind are twins, and so are the second ones. ridge: the penalty, as
    a share of the number of rows fitted to. The probe regresses one indicator per kind, all kinds weighing the same, and takes the highest;
    a kind whose states lie between two others' on a line can be hidden from it. Raises ValueError for fewer than two kinds, for kinds with
    fewer trials than folds, for folds, a ridge or states out of range.
    """
    _check(states, folds, ridge)
    names, kind, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"kinds holds only {names.tolist()}; want at least two kinds to tell apart")
    if counts.min() < folds:
        raise ValueError(f"kinds holds {names[counts.argmin()]} in {counts.min()} trials; want at least as many as folds, {folds}")
    # Each kind's trials go to the folds in turn, each kind's first to the first fold, so that twins go together.
    fold = np.empty(len(kind), int)
    fold[np.argsort(kind, kind="stable")] = np.concatenate([np.arange(count) % folds for count in counts])
    predicted, _ = _cross_predict(states, np.eye(len(names))[kind], fold, ridge, 1 / counts[kind])
    right = predicted.argmax(-1) == kind
    return np.stack([right[:, kind == number].mean(1) for number in range(len(names))]).mean(0)


def read_table(
    states: Float[NDArray[Any], "n R D"], tables: Float[NDArray[Any], "n K"], folds: int = 5, ridge: float = 0.01
) -> Float[NDArray[Any], "R K"]:
    """[R, K]: the share of each probability's variance over co-players that can be read from the state at each round.

    tables: the co-players' K probabilities, five for memory one. The share is 1 - (squared error) / (squared error of the mean of the rows
    fitted to): 1 for a perfect reading, 0 for none, below 0 (by about D / n) for a probe that fits noise; NaN for a probability that is the
    same in all co-players. Raises ValueError for fewer trials than folds, and for folds, a ridge or states out of range.
    """
    _check(states, folds, ridge)
    if len(states) < folds:
        raise ValueError(f"states holds {len(states)} trials; want at least as many as folds, {folds}")
    fold = np.arange(len(states)) % folds
    predicted, guessed = _cross_predict(states, tables.astype(float), fold, ridge, np.ones(len(states)))
    missed, spread = ((tables - predicted) ** 2).sum(1), ((tables - guessed) ** 2).sum(0)
    return 1 - missed / np.where(spread > 1e-12, spread, np.nan)


def _cross_predict(states: Array, targets: Array, fold: Array, ridge: float, weights: Array) -> tuple[Array, Array]:
    """What is predicted for every row by the other folds' rows, [R, n, K], and those rows' means, [n, K]. targets: [n, K]. weights: [n]."""
    predicted = np.empty((states.shape[1], *targets.shape))
    guessed = np.empty(targets.shape)
    for part in range(int(fold.max()) + 1):
        held = fold == part
        share = weights[~held] / weights[~held].sum()
        guessed[held] = share @ targets[~held]
        # The square root of each row's weight turns the weighted regression into a plain one.
        root = np.sqrt(share)[:, None]
        wanted = root * (targets[~held] - guessed[held][0])
        for number in range(len(predicted)):
            features = states[:, number].astype(float)
            features -= share @ features[~held]
            spread = np.sqrt(share @ features[~held] ** 2)
            features /= np.where(spread > 1e-9, spread, np.inf)
            predicted[number, held] = guessed[held] + features[held] @ _ridge(root * features[~held], wanted, ridge)
    return predicted, guessed


def _ridge(x: Float[NDArray[Any], "m D"], y: Float[NDArray[Any], "m K"], penalty: float) -> Float[NDArray[Any], "D K"]:
    """The weights that minimise |x w - y|^2 + penalty |w|^2, by whichever of the two linear systems is the smaller."""
    rows, width = x.shape
    if width <= rows:
        return np.linalg.solve(x.T @ x + penalty * np.eye(width), x.T @ y)
    return x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(rows), y)


def _check(states: Array, folds: int, ridge: float) -> None:
    if folds < 2:
        raise ValueError(f"folds is {folds}; want at least 2")
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}; want a number above 0")
    if not np.isfinite(states).all():
        raise ValueError("states holds values that are not finite; want rounds that every trial has reached")
