"""Evaluation: contenders in a suite's scenarios, on luck that no run trains on. What is found is described in docs/evaluation.md."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.occupant import Occupant
from envs.chance import Purpose, seeds_of
from envs.game import role_of_seat, seat_count
from envs.referential import Referential
from training import recording
from training.evaluation import inference, language, population_games, responses
from training.evaluation.contenders import Contender, Entrants, Member, enter
from training.evaluation.play import Played, figures_of, play
from training.evaluation.reciprocity import extortion_slope
from training.evaluation.report import write_report
from training.evaluation.statistics import (
    Interval,
    figure,
    mean_of,
    paired_difference,
    probability_of_improvement,
    ratio,
    resampled_means,
)
from training.evaluation.suites import FOCAL, OTHER_SEED, PARTNER, SUITES, Scenario, Suite
from training.files import new_directory
from training.occupants import check_fits
from training.population import co_player, is_an_agents_path
from training.run import Run
from training.seating import one_table
from training.settings import BadInput, lookup, to_json

Array = NDArray[Any]

FORMAT = 2
# How many steps into a trial its memory is read; the last ones only in long trials.
READ_AFTER = (1, 2, 3, 5, 8, 12, 20, 30, 50, 75, 99, 150, 200, 300, 500, 1000)
# Trials per scenario that the reading is fitted to: enough for a linear map of a few hundred numbers.
READ_TRIALS = 64
# Fewer say nothing: trials that are over are not read.
LEAST_READ = 10
MOST_TRIALS = 100_000
# Letters of a recording's name: a script's settings can be longer than a file's name may be.
LONGEST_STEM = 160


class Extras(NamedTuple):
    """What is done beside playing the suite. cross_play: everyone with everyone. exploit: iterations for which a fresh learner trains
    against each contender. best_responses: iterations for which one trains against each scenario's co-player whose best response is not
    known exactly. 0: not at all.
    """

    cross_play: bool = False
    exploit: int = 0
    best_responses: int = 0


class Evaluation(NamedTuple):
    """results: what results.json holds for the suite. report: the path of the HTML page."""

    results: dict[str, Any]
    report: Path


class Outcome(NamedTuple):
    """One contender in one scenario. figures: {name: [S, n, T] or [S, n]}, S members on the same n trials; of `training.evaluation.play`.
    played: by member. co_player: who sat opposite, where that is one, the same for every member and no learner of its run.
    """

    agent: str
    scenario: Scenario
    figures: dict[str, Array]
    played: list[Played]
    co_player: Occupant | None


class _Table(NamedTuple):
    """A scenario's seats for one member of a contender."""

    names: tuple[str, ...]
    seats: tuple[int, ...]
    occupants: dict[str, Occupant]
    run: Run | None


def evaluate(
    who: Sequence[str | Path | Run] | Entrants,
    suite: str | Suite | None = None,
    trials: int | None = None,
    record: int = 4,
    extras: Extras | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Plays the suite with everyone named (see `enter`); writes results, figures, recordings and a report.

    Into every run's directory and, where it is given, into `out`; where neither is there, or another game is played than the runs' own,
    into a new directory under runs/. Nothing is written before everything that can be wrong with the input has been found. `say` is told
    of progress. Raises BadInput.
    """
    entrants = who if isinstance(who, Entrants) else enter(who)
    extras = extras or Extras()
    suite = find_suite(suite or entrants.experiment.suite, entrants)
    trials = suite.trials if trials is None else trials
    if not 1 <= trials <= MOST_TRIALS:
        raise BadInput(f"trials is {trials}; want from 1 to {MOST_TRIALS:,} per scenario")
    if (extras.cross_play or extras.exploit or extras.best_responses) and not _is_a_meeting_of_equals(entrants):
        raise BadInput("cross-play and trained responses are for games of two equal seats")
    if extras.cross_play and sum(len(contender.members) for contender in entrants.contenders) < 2:
        raise BadInput("cross-play wants at least two agents")
    tables = seat_everyone(entrants, suite)
    # A run's learners come together, whether or not a suite has a seat for each.
    others = [each for each in entrants.contenders if each.members[0].run is None]
    idle = [each for each in others if not any(contender is each for contender, _ in tables)]
    if idle and not (extras.cross_play or extras.exploit):
        name, instead = idle[0].name, _instead(entrants, idle[0].kin)
        raise BadInput(f"suite {suite.name!r} has no seat for {name}; its seats want {_wanted(suite)}; {instead}")
    for directory in [run.directory for run in entrants.runs] + ([out] if out is not None else []):
        Run(directory, entrants.experiment).read_json("results.json")
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"results cannot be written to {out}: {error.strerror}") from error
    outcomes = [_play_scenario(entrants, suite, scenario, contender, seated, trials) for (contender, scenario), seated in tables.items()]
    results: dict[str, Any] = {
        "format": FORMAT,
        "suite": suite.name,
        "version": suite.version,
        "seed": suite.seed,
        "game": to_json(entrants.experiment.game),
        "episodes": entrants.experiment.episodes,
        "runs": [run.directory.name for run in entrants.runs],
        "seeds": max(len(contender.members) for contender in entrants.contenders),
        "trials_per_scenario": trials,
        "contenders": [
            {"name": each.name, "runs": [run.directory.name for run in runs], "iterations": [run.iteration for run in runs]}
            for each in entrants.contenders
            for runs in [[member.run for member in each.members if member.run]]
        ],
        "scenarios": [summarise(outcome) for outcome in outcomes],
        "comparisons": _compare(entrants, outcomes),
        "inference": _infer(outcomes),
    }
    if isinstance(entrants.experiment.game, Referential):
        results["language"] = _languages(entrants.experiment.game, tables, trials, suite.seed)
    if extras.best_responses:
        responses.fill_gaps(entrants, outcomes, results, extras.best_responses, suite.seed, say)
    if extras.exploit:
        results["exploitability"] = responses.exploitability(entrants, trials, extras.exploit, suite.seed, say)
    if extras.cross_play:
        results["cross_play"] = cross_play(entrants, trials, suite.seed)
    results = without_nan(results)
    for (_, scenario), seated in tables.items():
        for table in seated if record and entrants.plays_its_runs_game else ():
            _record(entrants, suite, scenario, table, min(record, trials))
    return Evaluation(results, _write(entrants, suite, results, out))


def find_suite(name: str | Suite, entrants: Entrants) -> Suite:
    """Raises BadInput where there is no such suite, or it is not for the game."""
    game = entrants.experiment.game
    try:
        suite: Suite = name if isinstance(name, Suite) else lookup(SUITES, name, "suite")(entrants.experiment)
    except BadInput:
        raise
    except ValueError as error:
        # Of the scheme, which need not fit a game that is played by scripts or is not its own.
        instead = "--suite alone" if seat_count(game) == 1 else "another suite, or a run of this game"
        raise BadInput(f"suite {name!r} has no table for this game: {error}; try {instead}") from error
    suite.check_fits(game)
    return suite


def seat_everyone(entrants: Entrants, suite: Suite) -> dict[tuple[Contender, Scenario], list[_Table]]:
    """Who sits where, for every contender and scenario that has a seat for it. Raises BadInput where somebody does not fit the game."""
    game = entrants.experiment.game
    scripts: dict[str, Occupant] = {}
    tables = {}
    for contender, scenario in itertools.product(entrants.contenders, suite.scenarios):
        seated = [_seat(entrants, scenario, contender, number, scripts) for number in range(len(contender.members))]
        present = [table for table in seated if table is not None]
        for table in present:
            for seat, name in enumerate(table.names):
                who = contender.name if seat in table.seats else name
                check_fits(who, table.occupants[name], role_of_seat(game, seat)[0], game)
        if present:
            tables[contender, scenario] = present
    if not tables:
        raise BadInput(f"suite {suite.name!r} has a seat for nobody here; its seats want {_wanted(suite)}")
    return tables


def _seat(entrants: Entrants, scenario: Scenario, contender: Contender, number: int, scripts: dict[str, Occupant]) -> _Table | None:
    """None where the scenario wants a partner or another seed and there is none, or has no seat for this contender."""
    member = contender.members[number]
    own = member.learner or FOCAL
    occupants: dict[str, Occupant] = {own: member.occupant}
    names = []
    fellows = _fellows(entrants, member)
    for seat in scenario.seats:
        if seat == FOCAL:
            names.append(own)
        elif seat == PARTNER:
            if len(fellows) < 2:
                return None
            learners = list(fellows)
            names.append(learners[(learners.index(own) + 1) % len(learners)])
        elif seat == OTHER_SEED:
            other = contender.members[(number + 1) % len(contender.members)]
            if other is member or other.run is None:
                return None
            names.append(f"{other.run.directory.name}/{other.learner}")
            occupants[names[-1]] = other.occupant
        elif seat in fellows:
            names.append(seat)
        elif seat in entrants.experiment.scheme.learners(entrants.experiment.game):
            # A learner of the run that the suite is about, to which this contender does not belong.
            return None
        else:
            if seat not in scripts:
                scripts[seat] = co_player(seat)
            names.append(seat)
            occupants[seat] = scripts[seat]
    if own not in names:
        return None
    seats = tuple(seat for seat, name in enumerate(names) if name == own)
    return _Table(tuple(names), seats, {**fellows, **occupants}, member.run)


def _fellows(entrants: Entrants, member: Member) -> dict[str, Occupant]:
    """All learners of a member's run."""
    if member.run is None:
        return {}
    return {each.learner: each.occupant for contender in entrants.contenders for each in contender.members if each.run is member.run}


def _instead(entrants: Entrants, name: str) -> str:
    """How somebody for whom a suite has no seat can take part all the same."""
    if _is_a_meeting_of_equals(entrants):
        return f"try --cross-play, or the others with --against {name}"
    return "try another suite, or leave it out"


def _wanted(suite: Suite) -> str:
    return ", ".join(dict.fromkeys(name for scenario in suite.scenarios for name in scenario.seats))


def _play_scenario(
    entrants: Entrants, suite: Suite, scenario: Scenario, contender: Contender, seated: list[_Table], trials: int
) -> Outcome:
    experiment = entrants.experiment
    seeds = seeds_of(suite.seed, Purpose.EVALUATION, trials)
    try:
        played = [
            play(experiment.game, experiment.episodes, table.names, table.seats, table.occupants, seeds, READ_AFTER) for table in seated
        ]
    except BadInput as problem:
        raise BadInput(f"{contender.name} in scenario {scenario.name}: {problem}") from problem
    figures = [figures_of(experiment.game, each) for each in played]
    opposite = [name for seat, name in enumerate(seated[0].names) if seat not in seated[0].seats]
    is_script = len(opposite) == 1 and opposite[0] in scenario.seats and opposite[0] not in _fellows(entrants, contender.members[0])
    return Outcome(
        contender.name,
        scenario,
        {name: np.stack([each[name] for each in figures]) for name in figures[0]},
        played,
        seated[0].occupants[opposite[0]] if is_script else None,
    )


def _record(entrants: Entrants, suite: Suite, scenario: Scenario, table: _Table, trials: int) -> None:
    """A few of the same trials with everything kept. Not where agents of other runs sit: a recording reaches only its own run's."""
    run = table.run
    folder = run.directory / "population" if run else Path()
    if run is None or any("/" in name for name in table.names):
        return
    seeds = seeds_of(suite.seed, Purpose.EVALUATION, trials)
    rollout, log = recording.play(
        entrants.experiment.game, one_table(table.names, trials), table.occupants, seeds, entrants.experiment.episodes
    )
    learners = [name for name in dict.fromkeys(table.names) if is_an_agents_path(f"{folder}/{name}")]
    parts = [suite.name, scenario.name.replace(" ", ""), *([table.names[table.seats[0]]] if FOCAL in scenario.seats else [])]
    stem = "-".join(parts)
    if len(stem) > LONGEST_STEM:
        stem = f"{stem[:LONGEST_STEM]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
    path = run.directory / "episodes" / f"{stem}.safetensors"
    recording.save(path, rollout, seeds, log, scenario.name, {name: recording.weights_digest(folder / name) for name in learners})


def summarise(outcome: Outcome) -> dict[str, Any]:
    """One row of the results: intervals of every figure, and its curve over the steps of a trial."""
    row: dict[str, Any] = {"agent": outcome.agent, "scenario": outcome.scenario.name, "seats": list(outcome.scenario.seats)}
    row |= {"figures": {}, "curves": {}}
    for name, values in outcome.figures.items():
        if name.startswith("_"):
            continue
        of_trials = values.astype(float) if values.ndim == 2 else mean_of(values.astype(float), 2)
        row["figures"][name] = figure(of_trials)
        if values.ndim == 3:
            # Late steps that only few trials reach may be missing from a resample; where they are, there is no band.
            resampled = resampled_means(values.astype(float), 500)
            low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
            mean = mean_of(mean_of(values.astype(float), 1), 0)
            row["curves"][name] = {part: np.round(curve, 5).tolist() for part, curve in (("mean", mean), ("low", low), ("high", high))}
    if "_span" in outcome.figures:
        row["figures"]["score"] = ratio(outcome.figures["_above_least"], outcome.figures["_span"][0])._asdict()
    tables = outcome.played[0].tables
    if tables is not None and len(tables) > 1 and float(tables.std(0).max()) > 0:
        own, other = outcome.figures["reward"].astype(float), outcome.figures["other_reward"].astype(float)
        row["figures"]["extortion"] = extortion_slope(own, other)._asdict()
    return row


def _compare(entrants: Entrants, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Every two contenders that are not of one experiment, in every scenario that both played, on the same luck."""
    kin = {contender.name: contender.kin for contender in entrants.contenders}
    rows = []
    for a, b in itertools.combinations(outcomes, 2):
        if a.scenario == b.scenario and kin[a.agent] != kin[b.agent]:
            first, second = (mean_of(each.figures["reward"].astype(float), 2) for each in (a, b))
            rows.append(
                {
                    "scenario": a.scenario.name,
                    "figure": "reward",
                    "a": a.agent,
                    "b": b.agent,
                    "difference": paired_difference(first, second)._asdict(),
                    "probability_of_improvement": probability_of_improvement(first, second)._asdict(),
                }
            )
    return rows


def _infer(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Per contender with a memory: how well a linear map of it tells the scenarios' co-players apart, step by step; the same from sums
    of what was played so far; and of a random table's probabilities.
    """
    rows = []
    for agent in dict.fromkeys(outcome.agent for outcome in outcomes):
        own = [each for each in outcomes if each.agent == agent and len(each.played[0].seats) == 1 and each.co_player is not None]
        times = sorted(own[0].played[0].mind) if own else []
        count = len(own[0].played[0].log.ended[0]) if own else 0
        if len(own) < 2 or not times:
            continue
        kept = min(READ_TRIALS, count)
        # A damaged run may be missing from some scenarios.
        members = min(len(outcome.played) for outcome in own)
        # Twins stay together: what is read at some time are trials that go on then, whoever is met.
        going = [[np.all([_goes_on(each, member, after)[:kept] for each in own], 0) for after in times] for member in range(members)]
        trials = [min(int(rows[number].sum()) for rows in going) for number in range(len(times))]
        times = [after for after, there in zip(times, trials, strict=True) if there >= LEAST_READ]
        if not times:
            continue
        accuracy: list[list[float]] = []
        control: list[list[float]] = []
        for member, rows_at in enumerate(going):
            minds = [outcome.played[member].mind for outcome in own]
            seen = [_history(outcome.figures, member, times) for outcome in own]
            reached = rows_at[: len(times)]
            accuracy.append(
                [_read_kind([mind[after][:kept][there] for mind in minds]) for after, there in zip(times, reached, strict=True)]
            )
            control.append([_read_kind([sums[:kept, number][there] for sums in seen]) for number, there in enumerate(reached)])
        rows.append(
            {
                "agent": agent,
                "kinds": [outcome.scenario.name for outcome in own],
                "rounds": times,
                "accuracy": np.mean(accuracy, 0).tolist(),
                "control": np.mean(control, 0).tolist(),
                "chance": 1 / len(own),
                "trials": trials[0],
                "trials_left": trials[: len(times)],
                "seeds": members,
                "tables": {outcome.scenario.name: read for outcome in own if (read := _read_tables(outcome, times)) is not None},
            }
        )
    return rows


def _read_tables(outcome: Outcome, times: list[int]) -> list[float] | None:
    """R^2 of a linear reading of the co-player's probabilities from memory, mean over them and over members, by time."""
    tables = outcome.played[0].tables
    if tables is None or float(tables.std(0).min()) == 0:
        return None
    means: list[float] = []
    for after in times:
        there = [(each.mind[after], _goes_on(outcome, member, after)) for member, each in enumerate(outcome.played)]
        means.append(float(np.mean([inference.read_table(mind[rows][:, None], tables[rows]).mean() for mind, rows in there])))
    return means


def _read_kind(of_kinds: list[Array]) -> float:
    """of_kinds: [n, D] of each kind's trials, the same trials of each."""
    kinds = np.repeat(np.arange(len(of_kinds)), len(of_kinds[0]))
    return float(inference.read_kind(np.concatenate(of_kinds)[:, None], kinds)[0])


def _goes_on(outcome: Outcome, member: int, after: int) -> Array:
    """[n]: which trials are not over after so many steps."""
    return np.asarray(np.isfinite(outcome.played[member].mind[after]).all(1))


def _history(figures: dict[str, Array], member: int, times: list[int]) -> Array:
    """[n, R, F]: sums of every figure, and of the products of own and other's with this step's and the last one's, over the steps whose
    outcome was seen: all that were taken but the last.
    """
    series = [values[member] for values in figures.values() if values.ndim == 3]
    own = [np.nan_to_num(values) for values in series]
    lagged = [np.concatenate([np.zeros_like(a[:, :1]), a[:, :-1]], 1) * b for a in own for b in own]
    products = [a * b for a, b in itertools.combinations(own, 2)]
    sums = np.stack([values.cumsum(1) for values in (*own, *products, *lagged)], 2)
    return np.concatenate([np.zeros_like(sums[:, :1]), sums], 1)[:, [time - 1 for time in times]]


def _languages(game: Referential, tables: dict[tuple[Contender, Scenario], list[_Table]], trials: int, seed: int) -> list[dict[str, Any]]:
    """What every contender says where it is the one that speaks: means over its members, who are too few for an interval, of what
    `language.measure` finds.
    """
    rows = []
    for (contender, scenario), seated in tables.items():
        if 0 in seated[0].seats:
            pairs = [[table.occupants[name] for name in table.names] for table in seated]
            each = [language.measure(game, speaker, listener, trials, seed) for speaker, listener in pairs]
            means = {name: float(np.mean([found[name] for found in each])) for name in each[0]}
            figures = {name: Interval(mean, math.nan, math.nan, len(each), trials)._asdict() for name, mean in means.items()}
            rows.append({"agent": contender.name, "scenario": scenario.name, "figures": figures})
    return rows


def cross_play(entrants: Entrants, trials: int, seed: int) -> dict[str, Any]:
    """Every member of every contender with every one, itself included, and what such meetings say about a population of them."""
    experiment = entrants.experiment
    people: dict[str, Occupant] = {}
    for contender in entrants.contenders:
        for member in contender.members:
            many = len(contender.members) > 1 and member.run is not None
            people[f"{contender.name} seed {member.run.experiment.seed}" if many and member.run else contender.name] = member.occupant
    role = experiment.game.roles[0]
    for name, occupant in people.items():
        check_fits(name, occupant, role, experiment.game)
    seeds = seeds_of(seed, Purpose.EVALUATION, trials)
    names = list(people)
    # Both sides of the same games: every pair sits both ways round, one way after the other along the trials.
    earned = np.full((len(names), len(names), 2 * trials), np.nan)
    measured: dict[str, Array] = {}
    for i, j in itertools.product(range(len(names)), repeat=2):
        # A copy of itself sits under another name, so that each seat counts alone.
        here, there = names[i], names[j] if i != j else f"{names[j]} (its copy)"
        played = play(experiment.game, experiment.episodes, (here, there), (0,), {here: people[names[i]], there: people[names[j]]}, seeds)
        figures = figures_of(experiment.game, played)
        earned[i, j, :trials] = mean_of(figures["reward"].astype(float), 1)
        earned[j, i, trials:] = mean_of(figures["other_reward"].astype(float), 1)
        for name in played.log.measures:
            both = measured.setdefault(name, np.zeros((len(names), len(names))))
            both[i, j] += np.nanmean(figures[name]) / 2
            both[j, i] += np.nanmean(figures[f"other_{name}"]) / 2
    # i met j first in seat 0, then in seat 1; so that i's and j's trials are the same games, j's come in the other order.
    for i, j in itertools.combinations(range(len(names)), 2):
        earned[j, i] = np.roll(earned[j, i], trials)
    analysis = population_games.analyse(names, earned.mean(2), earned)
    return {**{name: values.tolist() for name, values in measured.items()}, **analysis}


def _is_a_meeting_of_equals(entrants: Entrants) -> bool:
    game = entrants.experiment.game
    return len(game.roles) == 1 and seat_count(game) == 2


def _write(entrants: Entrants, suite: Suite, results: dict[str, Any], out: Path | None) -> Path:
    """Returns the report's path, the first where several runs get one each. A run's directory holds results of its own game alone."""
    runs = [Run(out, entrants.experiment)] if out is not None else []
    runs += entrants.runs if entrants.plays_its_runs_game else ()
    runs = runs or [Run(new_directory(Path("runs"), f"evaluation-{suite.name}"), entrants.experiment)]
    for run in runs:
        run.directory.mkdir(parents=True, exist_ok=True)
        stored = run.read_json("results.json")
        run.write_json("results.json", {**stored, "evaluations": {**stored.get("evaluations", {}), suite.name: results}})
        write_report(results, run.directory / f"report-{suite.name}.html")
        if run in entrants.runs:
            _show_on_board(run.directory, suite, results)
    return runs[0].directory / f"report-{suite.name}.html"


def without_nan(values: Any) -> Any:
    """JSON has no NaN: nothing there is null."""
    if isinstance(values, dict):
        return {key: without_nan(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [without_nan(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _show_on_board(directory: Path, suite: Suite, results: dict[str, Any]) -> None:
    from training.board import Board

    board = Board(directory)
    for name in [name for name in results["scenarios"][0]["curves"] if not name.startswith("other_")]:
        curves: dict[str, dict[str, Array]] = {}
        for row in results["scenarios"]:
            parts = [row["curves"][name][part] for part in ("mean", "low", "high")]
            curves.setdefault(row["scenario"], {})[row["agent"]] = np.array(parts, dtype=float).T
        board.curves(f"evaluation/{suite.name}/{name}", curves, name)
    board.close()
