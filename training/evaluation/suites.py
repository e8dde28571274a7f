"""Held-out scenarios for evaluation: versioned tables of who sits where. `SUITES` names them, as `module:function`.

A suite's numbers can be compared only within its version: change a scenario, raise the version.
"""

from __future__ import annotations

from dataclasses import dataclass

from envs.game import Game, seat_count
from envs.iterated_dilemma import IteratedDilemma
from training.experiment import Experiment
from training.settings import BadInput

SUITES: dict[str, str] = {
    "ipd_classics": "training.evaluation.suites:ipd_classics",
    "together": "training.evaluation.suites:together",
}

# Whoever is evaluated.
FOCAL = "<agent>"


@dataclass(frozen=True)
class Scenario:
    """name: for tables. seats: one name per seat of the game: FOCAL, a co-player's, or a learner's of the same run."""

    name: str
    seats: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """trials: per scenario and agent. seed: of the trials' luck, the same for every scenario, so that comparisons are paired."""

    name: str
    version: int
    scenarios: tuple[Scenario, ...]
    trials: int = 256
    seed: int = 20_260_101

    def check_fits(self, game: Game) -> None:
        """Raises BadInput where a scenario's seats do not fit the game."""
        for scenario in self.scenarios:
            if len(scenario.seats) != seat_count(game):
                raise BadInput(
                    f"suite {self.name!r}, scenario {scenario.name!r} has {len(scenario.seats)} seats; this game has {seat_count(game)}"
                )


def ipd_classics(experiment: Experiment) -> Suite:
    """Strategies of the literature that no preset trains against, and random tables with luck that no run trains on.

    Extortion is defined by payoffs, and so only part of it where they are the default ones.
    """
    game = experiment.game
    if not isinstance(game, IteratedDilemma) or game.actions != ("cooperate", "defect") or not game.is_symmetric:
        raise BadInput("suite 'ipd_classics' is for iterated dilemmas with the actions cooperate and defect; try --suite together")
    names = (
        "always_cooperate",
        "always_defect",
        "tit_for_tat",
        "generous_tit_for_tat",
        "win_stay_lose_shift",
        "grim_trigger",
        "extortion",
        "random",
    )
    is_default = game.payoffs == IteratedDilemma().payoffs
    scenarios = [Scenario(name, (FOCAL, name)) for name in names if name != "extortion" or is_default]
    return Suite("ipd_classics", 1, (*scenarios, Scenario("unseen_tables", (FOCAL, "random_table"))))


def together(experiment: Experiment) -> Suite:
    """The run's own learners with one another, each in the seats that it trained in, with luck that no run trains on."""
    seating = experiment.scheme.seat(experiment.game, experiment.trials, 0)
    learners = experiment.scheme.learners(experiment.game)
    rows = dict.fromkeys(tuple(seating.occupants[index] for index in row) for row in seating.seats.tolist())
    tables = [row for row in rows if set(row) <= set(learners)]
    if not tables:
        raise BadInput("suite 'together' wants learners that meet one another; in this run's scheme none do")
    return Suite("together", 1, tuple(Scenario(" + ".join(row), row) for row in tables))
