"""What is logged: every name, its formula and its unit, once. Of play it is each row's first trial that counts.

| name | what it is | unit |
|---|---|---|
| `reward/<learner>/vs_<kind>` | mean reward per step in games of a kind | reward |
| `<measure>/<learner>/vs_<kind>` | mean of a game's measure over steps where it applies (`cooperation`: share of rounds) | the game's |
| `return/<role>` | sum of rewards over a trial, mean over the seats of a role, whoever sits there | reward |
| `curriculum/<setting>` | the value that the curriculum has raised this setting of the game to, as it was played | the setting's |
| `learning/<learner>/entropy` | mean entropy of the policy | nats |
| `learning/<learner>/policy_loss`, `value_loss` | the terms of the loss, unweighted; in scaled rewards; of answers under supervision | |
| `learning/<learner>/reconstruction`, `next_latent`, `next_latent_distance`, `forecast`, `co_player`, `lag` | auxiliary, unweighted | |
| `learning/<learner>/kl` | KL(old policy, new policy), estimated on the batch, mean over its updates; not with `shows` | nats |
| `learning/<learner>/gradient_norm` | before clipping | |
| `learning/<learner>/learning_rate` | | |
| `speed/sampling`, `speed/learning`, `speed/overall` | steps of learners per second of sampling, of learning, of both | agent steps/s |
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from training.rollout import Rollout, Step

# {name: (sum, count)}; counts add up across runners.
Tally = dict[str, tuple[float, float]]


def tally(rollout: Rollout, log: Step) -> Tally:
    """Sums over a rollout's games for everything above that play decides: of each row's first trial alone. What fits behind it before the
    time is out are short ones, and whatever has to do with a trial's length would be out by that.
    """
    sums: Tally = {}
    seating = rollout.seating
    kind_of_game = seating.kind.to(rollout.device)
    first = log.trial == 0
    # One that the rollout did not see to its end has no return.
    finished = (first & log.ended).any(0)
    for role in rollout.game.roles:
        earned = log.rewards[role.name].sum(-1).masked_fill(~(first & finished), 0.0)
        sums[f"return/{role.name}"] = (float(earned.sum()) / role.seats, float(finished.sum()))
    for group, watched in zip(rollout.groups, rollout.watched, strict=True):
        if not watched:
            continue
        figures = {"reward": log.rewards[group.role.name].flatten(1, 2)[:, group.rows]}
        for name, measure in log.measures.items():
            figures[name] = measure[:, group.games] if measure.ndim == 2 else measure[:, group.games, group.seats]
        figures = {name: figure.masked_fill(~first[:, group.games], torch.nan) for name, figure in figures.items()}
        kinds = kind_of_game[group.games]
        for number, kind in enumerate(seating.kinds):
            rows = kinds == number
            if bool(rows.any()):
                for name, figure in figures.items():
                    _add(sums, f"{name}/{group.occupant}/vs_{kind}", figure[:, rows])
    return sums


def merge(tallies: list[Tally]) -> Tally:
    """One tally for the games of several runners."""
    merged: Tally = {}
    for each in tallies:
        for name, (total, count) in each.items():
            before = merged.get(name, (0.0, 0.0))
            merged[name] = (before[0] + total, before[1] + count)
    return merged


def means(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {name: total / count for name, (total, count) in sums.items() if count}


def _add(sums: Tally, name: str, figure: Tensor) -> None:
    applies = ~figure.isnan()
    total, count = sums.get(name, (0.0, 0.0))
    sums[name] = (total + float(figure.nansum()), count + float(applies.sum()))
