"""What can be earned from a co-player whose probabilities are known, exactly: dynamic programming over its situations.

For two-seat, two-action `IteratedDilemma`s. A table says how probably the co-player means to cooperate (take action 0) in each of its
situations, and both players see what was executed, so whoever knows the table always knows the situation: the best response is the optimal
policy of a small Markov decision process (Puterman 1994, section 4.5), solved backwards for all tables at once.

A table is 5 probabilities (memory one: start, CC, CD, DC, DD, the table's own action first) or 21 (memory two: start; CC, CD, DC, DD after
one round; after more, 16 for 4 * older + newer of the last two rounds' outcomes in the same order). Rewards are per round: the expected sum
over the expected number of rounds, which no player can change. One episode is meant; a trial of several repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from envs.iterated_dilemma import IteratedDilemma

Numbers = float | NDArray[Any]
MEMORY_ONE, MEMORY_TWO = 5, 21


def best_response_value(game: IteratedDilemma, tables: Float[NDArray[Any], "N S"], seat: int = 0) -> Float[NDArray[Any], "N"]:
    """[N]: the expected reward per round, in `seat`, of the best policy that knows the table of the player in the other seat.

    tables: S is 5 or 21. Raises ValueError for other games, tables that are no probabilities, and seats other than 0 and 1.
    """
    *_, (_, value) = _backwards(game, tables, seat, None)
    return value[:, 0] / _expected_rounds(game)


def best_response_policy(game: IteratedDilemma, tables: Float[NDArray[Any], "N S"], seat: int = 0) -> Bool[NDArray[Any], "T N S"]:
    """[T, N, S]: whether the best response to each table means to cooperate in round t, by the situation it sees itself, own action first.

    Where both actions are worth the same, it defects. Errors as `best_response_value`.
    """
    rounds = [cooperates for cooperates, _ in _backwards(game, tables, seat, None)]
    return np.stack(rounds[::-1])[:, :, _mirrored(tables.shape[1])]


def value_against(
    game: IteratedDilemma, own: Float[NDArray[Any], "N K"], tables: Float[NDArray[Any], "N S"], seat: int = 0
) -> Float[NDArray[Any], "N"]:
    """[N]: the expected reward per round of one's own table, in `seat`, against another; each is written as its player sees the game.

    K and S are 5 or 21. Errors as `best_response_value`.
    """
    _check_tables("own", own)
    situations = max(own.shape[1], tables.shape[1])
    *_, (_, value) = _backwards(game, _widened(tables, situations), seat, _widened(own, situations)[:, _mirrored(situations)])
    return value[:, 0] / _expected_rounds(game)


def normalised_score(reward: Numbers, low: Numbers, high: Numbers, smallest: float = 1e-6) -> NDArray[Any]:
    """(reward - low) / (high - low): 0 at the lower reference, 1 at the upper; NaN where they are less than `smallest` apart.

    Against a table that leaves little to choose the quotient of a single trial is mostly noise; take means over trials first.
    """
    apart = np.asarray(high, float) - low
    return np.asarray((reward - low) / np.where(np.abs(apart) < smallest, np.nan, apart))


def _backwards(
    game: IteratedDilemma, tables: NDArray[Any], seat: int, own: NDArray[Any] | None
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Per round, the last one first: how probably one means to cooperate [N, S], and the expected sum of rewards from there on [N, S].

    Situations are the co-player's. own: one's probabilities by the co-player's situation; None for the best policy.
    """
    _check_game(game, seat)
    _check_tables("tables", tables)
    follows = _follows(tables.shape[1])
    # What the co-player calls CC, CD, DC and DD has its own action first.
    pairs = [game.payoffs[mine][its] if seat == 0 else game.payoffs[its][mine] for its in (0, 1) for mine in (0, 1)]
    reward = np.array([pair[seat] for pair in pairs])
    executes = tables * (1 - game.noise) + (1 - tables) * game.noise
    value = np.zeros(tables.shape)
    for _ in range(game.rounds):
        outcome = reward + game.continuation * value[:, follows]
        after_c = executes * outcome[..., 0] + (1 - executes) * outcome[..., 2]
        after_d = executes * outcome[..., 1] + (1 - executes) * outcome[..., 3]
        if_c, if_d = ((1 - game.noise) * meant + game.noise * slipped for meant, slipped in ((after_c, after_d), (after_d, after_c)))
        cooperates = if_c > if_d if own is None else own
        value = np.where(cooperates, if_c, if_d) if own is None else own * if_c + (1 - own) * if_d
        yield cooperates, value


def _follows(situations: int) -> Int[NDArray[Any], "S 4"]:
    """[S, 4]: the situation after each outcome."""
    newest = (np.arange(situations) - 1) % 4
    follows = 1 + np.tile(np.arange(4), (situations, 1))
    if situations == MEMORY_TWO:
        follows[1:] += 4 + 4 * newest[1:, None]
    return follows


def _mirrored(situations: int) -> Int[NDArray[Any], "S"]:
    """[S]: what the other player calls each situation: CD and DC change places."""
    swapped = np.array([0, 2, 1, 3])
    both = 5 + (4 * swapped[:, None] + swapped).ravel()
    return np.concatenate([[0], 1 + swapped, both])[:situations]


def _widened(tables: NDArray[Any], situations: int) -> NDArray[Any]:
    """The same players with a table for at least that many situations."""
    if tables.shape[1] == situations:
        return tables
    return np.concatenate([tables, np.tile(tables[:, 1:], 4)], 1)


def _expected_rounds(game: IteratedDilemma) -> float:
    return float((game.continuation ** np.arange(game.rounds)).sum())


def _check_game(game: IteratedDilemma, seat: int) -> None:
    if len(game.actions) != 2:
        raise ValueError(f"actions is {game.actions}; tables of probabilities to cooperate want a game with two actions")
    if seat not in (0, 1):
        raise ValueError(f"seat is {seat}; want 0 or 1")


def _check_tables(name: str, tables: NDArray[Any]) -> None:
    if tables.shape[1] not in (MEMORY_ONE, MEMORY_TWO):
        raise ValueError(f"{name} has {tables.shape[1]} probabilities; want {MEMORY_ONE} (memory one) or {MEMORY_TWO} (memory two)")
    wrong = tables[~((tables >= 0) & (tables <= 1))]
    if wrong.size:
        raise ValueError(f"{name} holds {wrong[0]}; want probabilities from 0 to 1")
