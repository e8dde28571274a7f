"""Evaluation: agents of one or several runs against a suite's co-players, on luck that no run trains on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table as Grid
from rich.text import Text

from agents.occupant import Occupant
from envs.chance import Purpose, seeds_of
from envs.game import role_of_seat
from training import recording
from training.evaluation.statistics import Interval, bootstrap, mean_of, resampled_means
from training.evaluation.suites import FOCAL, SUITES, Scenario, Suite
from training.experiment import Experiment
from training.population import co_player
from training.rollout import Rollout, Step
from training.run import Run
from training.seating import one_table
from training.settings import BadInput, lookup

Array = NDArray[Any]


class Outcome(NamedTuple):
    """One agent in one scenario. figures: {name: [n, T]} per trial and step, for the agent ("reward", the game's measures) and for the
    others together ("other_..."). Steps after a trial's end are NaN.
    """

    agent: str
    scenario: str
    figures: dict[str, Array]


def evaluate(runs: list[Run], suite_name: str | None = None, trials: int | None = None, record: int = 4) -> dict[str, Any]:
    """Plays the suite with every learner of every run; writes results, figures and recordings into each run's directory.

    Runs are taken as seeds of one experiment. Returns what results.json holds for this suite.
    """
    first = runs[0].experiment
    for number, run in enumerate(runs):
        if _apart_from_seed(run.experiment) != _apart_from_seed(first):
            raise BadInput(f"{run.directory} has other settings than {runs[0].directory}; only seeds of one experiment go together")
        if run.experiment.seed in [other.experiment.seed for other in runs[:number]]:
            raise BadInput(f"{run.directory} has seed {run.experiment.seed}, as another run has; only different seeds tell about seeds")
    suite = find_suite(suite_name or first.suite, runs[0])
    trials = trials or suite.trials
    if trials > 1_000_000:
        raise BadInput(f"{trials} trials per scenario; want at most 1,000,000")
    # Whatever is damaged should be found before anything is written.
    for run in runs:
        run.population()
        run.read_json("results.json")
    by_agent: dict[tuple[str, str], list[Outcome]] = {}
    for run in runs:
        for outcome in play_suite(run, suite, trials, record):
            by_agent.setdefault((outcome.agent, outcome.scenario), []).append(outcome)
    results = {
        "suite": suite.name,
        "version": suite.version,
        "runs": [run.directory.name for run in runs],
        "trials_per_scenario": trials,
        "scenarios": [summarise(outcomes) for outcomes in by_agent.values()],
    }
    for run in runs:
        stored = run.read_json("results.json")
        run.write_json("results.json", {**stored, "evaluations": {**stored.get("evaluations", {}), suite.name: results}})
        _show_on_board(run, suite, by_agent)
    return results


def _apart_from_seed(experiment: Experiment) -> Experiment:
    """What makes two runs the same experiment: all that decides what is learned, save luck."""
    return replace(experiment, seed=0, runners=0, learners=0, device="cpu", checkpoint_every=1, suite="")


def find_suite(name: str, run: Run) -> Suite:
    suite: Suite = lookup(SUITES, name, "suite")(run.experiment)
    suite.check_fits(run.experiment.game)
    return suite


def play_suite(run: Run, suite: Suite, trials: int, record: int) -> list[Outcome]:
    """Every learner of a run in every scenario that has a seat for it."""
    agents: dict[str, Occupant] = dict(run.population())
    digests = {name: recording.weights_digest(run.directory / "population" / name) for name in agents}
    seeds = seeds_of(suite.seed, Purpose.EVALUATION, trials)
    outcomes = []
    for scenario in suite.scenarios:
        focal = list(agents) if FOCAL in scenario.seats else [""]
        for agent in focal:
            names = tuple(agent if name == FOCAL else name for name in scenario.seats)
            occupants = {name: agents[name] if name in agents else co_player(name) for name in names}
            rollout = Rollout(run.experiment.game, one_table(names, trials), occupants, episodes=run.experiment.episodes)
            after, log = rollout.play(rollout.start(seeds), rollout.trial_steps)
            rollout.finish(after)
            for name in dict.fromkeys([agent] if agent else names):
                seats = [seat for seat, sitter in enumerate(names) if sitter == name]
                outcomes.append(Outcome(name, scenario.name, figures_of(run, log, seats)))
            if record:
                path = run.directory / "episodes" / _file_name(suite, scenario, agent)
                few = one_table(names, min(record, trials))
                kept, kept_log = recording.play(run.experiment.game, few, occupants, seeds[:record], run.experiment.episodes)
                recording.save(
                    path, kept, seeds[:record], kept_log, scenario.name, {name: digests[name] for name in names if name in agents}
                )
    return outcomes


def figures_of(run: Run, log: Step, seats: list[int]) -> dict[str, Array]:
    """{name: [n, T]} of the first trial of each row: means over the agent's seats, and over the others' as `other_...`."""
    game = run.experiment.game
    whole = log.trial == 0
    every = range(sum(role.seats for role in game.roles))
    others = [seat for seat in every if seat not in seats]
    by_seat = {"reward": torch.stack([_reward(game, log, seat) for seat in every], -1)}
    for name, measure in log.measures.items():
        by_seat[name] = measure if measure.ndim == 3 else measure[..., None].expand(*measure.shape, len(every))
    figures = {}
    for name, values in by_seat.items():
        masked = values.masked_fill(~whole[..., None], float("nan"))
        figures[name] = masked[..., seats].nanmean(-1).T.numpy()
        if others:
            figures[f"other_{name}"] = masked[..., others].nanmean(-1).T.numpy()
    return figures


def summarise(outcomes: list[Outcome]) -> dict[str, Any]:
    """One row of the results: intervals of every figure, and its curve over the steps of a trial."""
    row: dict[str, Any] = {"agent": outcomes[0].agent, "scenario": outcomes[0].scenario, "figures": {}, "curves": {}}
    for name in outcomes[0].figures:
        # [S, n, T]: seeds, trials, steps.
        values = np.stack([outcome.figures[name] for outcome in outcomes]).astype(float)
        row["figures"][name] = _without_nan(bootstrap(mean_of(values, 2))._asdict())
        row["curves"][name] = _without_nan(mean_of(mean_of(values, 1), 0).tolist())
    return row


def as_grids(results: Mapping[str, Any]) -> list[Grid]:
    """The results as tables for the screen, one per agent, under 80 columns wide."""
    runs, trials = len(results["runs"]), results["trials_per_scenario"]
    covers = "over trials and seeds" if runs > 1 else "over trials of one seed (other seeds may differ)"
    names = [name for name in results["scenarios"][0]["figures"] if not name.startswith("other_")]
    grids = []
    for agent in dict.fromkeys(row["agent"] for row in results["scenarios"]):
        grid = Grid(
            box=SIMPLE_HEAD,
            title=Text(f"{agent}: {results['suite']} v{results['version']}, {trials} trials x {runs} seed{'s' if runs > 1 else ''}"),
            caption=f"mean [95 % bootstrap interval] {covers}",
        )
        grid.add_column("against", overflow="fold")
        for name in names:
            grid.add_column(Text(name.replace("_", " ")), justify="right", no_wrap=True)
        for row in results["scenarios"]:
            if row["agent"] == agent:
                cells = ["-" if row["figures"][name]["mean"] is None else str(Interval(**row["figures"][name])) for name in names]
                grid.add_row(*[Text(cell) for cell in (row["scenario"], *cells)])
        grids.append(grid)
    return grids


def _without_nan(values: Any) -> Any:
    """JSON has no NaN: nothing there is null."""
    if isinstance(values, dict):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def _reward(game: Any, log: Step, seat: int) -> torch.Tensor:
    role, within = role_of_seat(game, seat)
    return log.rewards[role.name][:, :, within]


def _file_name(suite: Suite, scenario: Scenario, agent: str) -> str:
    parts = [suite.name, scenario.name.replace(" ", ""), *([agent] if agent else [])]
    return "-".join(parts) + ".safetensors"


def _show_on_board(run: Run, suite: Suite, by_agent: Mapping[tuple[str, str], list[Outcome]]) -> None:
    from training.board import Board

    board = Board(run.directory)
    figures = [name for name in next(iter(by_agent.values()))[0].figures if not name.startswith("other_")]
    for figure in figures:
        curves: dict[str, dict[str, Array]] = {}
        for (agent, scenario), outcomes in by_agent.items():
            values = np.stack([outcome.figures[figure] for outcome in outcomes]).astype(float)
            # Late steps that only few trials reach may be missing from a resample; where they are, the band is not drawn.
            low, high = np.percentile(resampled_means(values, 500), [2.5, 97.5], axis=0)
            curves.setdefault(scenario, {})[agent] = np.stack([mean_of(mean_of(values, 1), 0), low, high], 1)
        board.curves(f"evaluation/{suite.name}/{figure}", curves, figure)
    board.close()
