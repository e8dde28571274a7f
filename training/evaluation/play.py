"""One contender in one scenario: the trials played, and what they measure, trial by trial."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.agent import Agent
from agents.occupant import Occupant
from envs.game import Game, role_of_seat, seat_count
from envs.iterated_dilemma import IteratedDilemma
from training import tree
from training.evaluation import best_response
from training.evaluation.reciprocity import reciprocity
from training.rollout import Rollout, Step
from training.seating import one_table

Array = NDArray[Any]


# What figures mean, for people who read them in a table.
MEANINGS = {
    "score": "0 is always-defect's reward, 1 the exact best response's",
    "best_response_gap": "exact best response's reward - its own",
    "trained_response_gap": "reward of a learner trained for this co-player - its own",
    "reciprocity": "how much more probably it cooperates after the other did",
    "extortion": "slope of its reward on the other's, over co-players",
}


class Played(NamedTuple):
    """names: who sat in each seat. seats: those that count as the contender's. log: of the whole trials. tables: [n, 5 or 21], the
    probabilities to cooperate of whoever sat opposite, if it has any. mind: {steps taken: [n, D]}, the memory's state at those times,
    flattened, where it has any; NaN in trials that were over by then.
    """

    names: tuple[str, ...]
    seats: tuple[int, ...]
    log: Step
    mind: dict[int, Array]
    tables: Array | None


def play(
    game: Game,
    episodes: int,
    names: tuple[str, ...],
    seats: tuple[int, ...],
    occupants: dict[str, Occupant],
    seeds: Tensor,
    times: tuple[int, ...] = (),
) -> Played:
    """Whole trials, one per seed. names: per seat. seats: the contender's. times: numbers of steps after which to look into its memory."""
    rollout = Rollout(game, one_table(names, len(seeds)), occupants, episodes=episodes)
    table = rollout.start(seeds)
    group = next(number for number, group in enumerate(rollout.groups) if int(group.seats[0]) == seats[0])
    tables = _tables_opposite(rollout, table, seats)
    mind: dict[int, Array] = {}
    logs, done = [], 0
    for time in (*[time for time in times if 0 < time < rollout.trial_steps], rollout.trial_steps):
        table, log = rollout.play(table, time - done)
        logs.append(log)
        done = time
        if isinstance(rollout.occupants[group], Agent) and time < rollout.trial_steps:
            leaves = tree.named_leaves(table.states[group].memory).values()
            # A row for each trial; a clock is one number of it. Who carries nothing has nothing to read.
            rows = [leaf[: len(seeds)].reshape(len(seeds), -1).float() for leaf in leaves]
            over = table.trial[:, None] > 0
            mind |= {time: torch.cat(rows, 1).masked_fill(over, torch.nan).numpy()} if rows else {}
    rollout.finish(table)
    return Played(names, seats, tree.map_leaves(lambda *parts: torch.cat(parts), *logs), mind, tables)


def _tables_opposite(rollout: Rollout, table: Any, seats: tuple[int, ...]) -> Array | None:
    if len(rollout.groups) != 2 or seat_count(rollout.game) != 2 or len(seats) != 1:
        return None
    other = next(number for number, group in enumerate(rollout.groups) if int(group.seats[0]) != seats[0])
    ask = getattr(rollout.occupants[other], "cooperates_in", None)
    return None if ask is None else ask(table.states[other]).numpy().astype(float)


def figures_of(game: Game, played: Played) -> dict[str, Array]:
    """{name: [n, T] or [n]}: reward and the game's measures, means over the contender's seats and, as `other_...`, over the others'.
    Steps after a trial's end are NaN. In two-action dilemmas also, per trial:

    reciprocity: how much more probably it cooperates after the other did (`training.evaluation.reciprocity`).
    best_response_gap: what the best response to the co-player's table earns in expectation, less what was earned, per step; only where
    the co-player is a table.
    _above_least, _span: the reward, and the best response's, less always-defect's, both expected against this co-player. The quotient of
    their means over trials is the score: 0 is defecting always, 1 is knowing the co-player.
    """
    log = played.log
    whole = log.trial == 0
    every = range(seat_count(game))
    others = [seat for seat in every if seat not in played.seats]
    by_seat = {"reward": torch.stack([_reward(game, log, seat) for seat in every], -1)}
    for name, measure in log.measures.items():
        by_seat[name] = measure if measure.ndim == 3 else measure[..., None].expand(*measure.shape, len(every))
    figures = {}
    for name, values in by_seat.items():
        masked = values.masked_fill(~whole[..., None], float("nan"))
        figures[name] = masked[..., list(played.seats)].nanmean(-1).T.numpy()
        if others:
            figures[f"other_{name}"] = masked[..., others].nanmean(-1).T.numpy()
    if isinstance(game, IteratedDilemma) and len(game.actions) == 2 and len(played.seats) == 1:
        own, other = (figures[name].astype(float) for name in (game.measure, f"other_{game.measure}"))
        figures["reciprocity"] = reciprocity(own, other, log.began.T.numpy())
        if played.tables is not None and game.continuation == 1.0:
            best = best_response.best_response_value(game, played.tables, played.seats[0])
            defects = np.zeros((len(best), 5))
            least = best_response.value_against(game, defects, played.tables, played.seats[0])
            earned = figures["reward"].mean(1)
            figures["best_response_gap"] = best - earned
            figures["_above_least"], figures["_span"] = earned - least, best - least
    return figures


def _reward(game: Game, log: Step, seat: int) -> Tensor:
    role, within = role_of_seat(game, seat)
    return log.rewards[role.name][:, :, within]
