"""Evaluation from end to end: who takes part, what is measured, what is written, and what is said to somebody who got it wrong."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from agents.agent import AgentConfig
from agents.co_players import CO_PLAYERS
from envs.game import role_of_seat
from envs.iterated_dilemma import IteratedDilemma, classical_prisoners_dilemma
from launch import main
from memory import MEMORIES
from tests.test_memories import small
from tests.test_runs import small_experiment, snapshot_of
from training.evaluation import language, population_games
from training.evaluation.contenders import enter
from training.evaluation.evaluate import Extras, cross_play, evaluate
from training.evaluation.play import figures_of, play
from training.evaluation.screen import as_grids
from training.evaluation.suites import FOCAL, OTHER_SEED, SUITES, Scenario, Suite
from training.experiment import Experiment, spaces_of
from training.occupants import check_fits
from training.plain import PlainTrainer
from training.population import co_player
from training.presets import PRESETS
from training.run import Run
from training.schemes.mixture import Mixture, Pairing, best_response
from training.settings import BadInput, load, override


def made_run(root: Path, experiment: Experiment) -> Run:
    made = Run.create(experiment, root)
    trainer = PlainTrainer(experiment, {name: co_player(name) for name in experiment.scheme.co_players(experiment.game)})
    made.save_checkpoint(snapshot_of(trainer), 0.0)
    return made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two seeds of one experiment; copies are made before anything is written to them."""
    root = tmp_path_factory.mktemp("runs")
    return [made_run(root, small_experiment(seed)) for seed in (0, 1)]


@pytest.fixture
def own(runs: list[Run], tmp_path: Path) -> list[Run]:
    return [Run.open(shutil.copytree(run.directory, tmp_path / run.directory.name)) for run in runs]


def row_of(results: dict, agent: str, scenario: str) -> dict:
    return next(row for row in results["scenarios"] if (row["agent"], row["scenario"]) == (agent, scenario))


# Suites.


def context_of(suite: str) -> Experiment:
    """The first preset that is evaluated by a suite; otherwise the dilemma that Experiment defaults to."""
    presets = (load(path)() for path in PRESETS.values())
    return next((preset for preset in presets if preset.suite == suite), Experiment())


def test_no_preset_trains_against_a_suites_co_players_but_for_random_ones() -> None:
    presets = [load(path)() for path in PRESETS.values()]
    trained = {name for preset in presets for name in preset.scheme.co_players(preset.game)}
    held_out = {seat for name, path in SUITES.items() for scenario in load(path)(context_of(name)).scenarios for seat in scenario.seats}
    village = {"image_scoring_villager:gives=0.75,threshold=0.5", "free_riding_villager"}
    assert trained & held_out <= {"random_table"} | village
    assert len({name.partition(":")[0] for name in held_out} & set(CO_PLAYERS)) >= 20


@pytest.mark.parametrize("name", [name for name in SUITES if name != "together"])
def test_a_suites_seats_hold_whom_it_says(name: str) -> None:
    context = context_of(name)
    suite = load(SUITES[name])(context)
    suite.check_fits(context.game)
    assert suite.name == name
    assert suite.version >= 1
    for scenario in suite.scenarios:
        for number, seat in enumerate(scenario.seats):
            if not seat.startswith("<") and seat not in context.scheme.learners(context.game):
                check_fits(seat, co_player(seat), role_of_seat(context.game, number)[0])


def test_coin_players_also_meet_other_seeds_of_their_preset() -> None:
    suite = load(SUITES["coin_game"])(context_of("coin_game"))
    assert (suite.version, suite.scenarios[-1]) == (2, Scenario("other_seeds", (FOCAL, OTHER_SEED)))


def test_a_scenario_of_more_seats_than_the_game_says_what_would_work() -> None:
    suite = Suite("mine", 1, (Scenario("three", (FOCAL, "random", "random")),))
    with pytest.raises(BadInput, match="scenario 'three' seats 3, IteratedDilemma has 2 seats; want a game of 3 seats or another suite"):
        suite.check_fits(IteratedDilemma())


def test_a_scenario_with_an_empty_seat_is_refused() -> None:
    suite = Suite("mine", 1, (Scenario("nobody", (FOCAL, "")),))
    with pytest.raises(BadInput, match="suite 'mine', scenario 'nobody': seat 1 is empty"):
        suite.check_fits(IteratedDilemma())


def test_two_scenarios_of_one_name_are_refused() -> None:
    suite = Suite("mine", 1, (Scenario("a", (FOCAL, "random")), Scenario("a", (FOCAL, "tit_for_tat"))))
    with pytest.raises(BadInput, match="two scenarios called 'a'"):
        suite.check_fits(IteratedDilemma())


# Who takes part.


def test_runs_agents_directories_scripts_and_settings_all_take_part(own: list[Run]) -> None:
    population = own[0].directory / "population"
    entered = enter([own[0], population, population / "learner_1", "tit_for_tat", "extortion:slope=3"])
    folder = own[0].directory.name
    names = [contender.name for contender in entered.contenders]
    assert names[:2] == ["learner_0", "learner_1"]
    assert names[2:5] == [f"{folder}/learner_0", f"{folder}/learner_1", f"{folder}/learner_1 (2)"]
    assert names[5:] == ["tit_for_tat", "extortion:slope=3"]


def test_an_agent_alone_plays_its_runs_game(own: list[Run]) -> None:
    assert enter([own[0].directory / "population" / "learner_0"]).experiment.game.rounds == 8


def test_runs_that_differ_only_in_seed_are_seeds_and_others_are_contenders(own: list[Run], tmp_path: Path) -> None:
    other = made_run(tmp_path, override(small_experiment(5), "agent.memory.width=4"))
    entered = enter([*own, other])
    assert [(each.name, len(each.members)) for each in entered.contenders] == [
        (f"{own[0].directory.name}/learner_0", 2),
        (f"{own[0].directory.name}/learner_1", 2),
        (f"{other.directory.name}/learner_0", 1),
        (f"{other.directory.name}/learner_1", 1),
    ]
    results = evaluate(entered, "self_and_others", trials=4, record=0).results
    # learner_1 of one run is not compared with its own learner_0, but with both of the other's.
    here, there = ([f"{name}/learner_0", f"{name}/learner_1"] for name in (own[0].directory.name, other.directory.name))
    assert {(row["a"], row["b"]) for row in results["comparisons"]} == {(a, b) for a in here for b in there}


def test_a_policy_from_elsewhere_takes_part_with_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_policy.py").write_text(
        "from typing import NamedTuple\n"
        "import torch\n"
        "from agents.occupant import Decision\n"
        "class Alternates:\n"
        "    def start(self, seeds):\n"
        "        return torch.zeros_like(seeds)\n"
        "    def act(self, observation, state, reward):\n"
        "        return Decision(state % 2), state + 1\n"
    )
    monkeypatch.chdir(tmp_path)
    results = evaluate(enter(["somebodys_policy:Alternates"], "prisoners_dilemma"), "ipd_classics", trials=4, out=tmp_path / "out").results
    figures = row_of(results, "somebodys_policy:Alternates", "always_cooperate")["figures"]
    assert figures["cooperation"]["mean"] == 0.5
    assert figures["reward"]["mean"] == 1.5


# What is measured.


def test_against_tit_for_tat_the_figures_are_those_worked_by_hand(tmp_path: Path) -> None:
    """Always-defect earns 2 once in 100 rounds, 0.02 a round; the best response 99 times 1 and then 2, 1.01."""
    results = evaluate(enter(["always_defect", "always_cooperate"]), "ipd_classics", trials=4, out=tmp_path).results
    defects = row_of(results, "always_defect", "tit_for_tat")["figures"]
    assert defects["reward"]["mean"] == pytest.approx(0.02)
    assert defects["best_response_gap"]["mean"] == pytest.approx(0.99)
    assert defects["score"]["mean"] == pytest.approx(0.0, abs=1e-6)
    cooperates = row_of(results, "always_cooperate", "tit_for_tat")["figures"]
    assert cooperates["best_response_gap"]["mean"] == pytest.approx(0.01)
    assert cooperates["score"]["mean"] == pytest.approx((1.0 - 0.02) / (1.01 - 0.02))
    assert "best_response_gap" not in row_of(results, "always_defect", "gradual")["figures"]
    comparison = next(row for row in results["comparisons"] if row["scenario"] == "tit_for_tat")
    assert comparison["difference"]["mean"] == pytest.approx(-0.98)
    assert comparison["probability_of_improvement"]["mean"] == 0.0


def test_tit_for_tat_answers_in_kind_and_always_defect_does_not(tmp_path: Path) -> None:
    results = evaluate(enter(["tit_for_tat", "always_defect"]), "ipd_tables", trials=128, out=tmp_path).results
    assert row_of(results, "tit_for_tat", "even")["figures"]["reciprocity"]["mean"] == pytest.approx(1.0)
    assert row_of(results, "always_defect", "even")["figures"]["reciprocity"]["mean"] == pytest.approx(0.0)
    assert row_of(results, "tit_for_tat", "even")["figures"]["extortion"]["mean"] == pytest.approx(1.0, abs=0.1)


def test_a_copy_of_itself_counts_for_both_seats(own: list[Run]) -> None:
    results = evaluate(own, "self_and_others", trials=6, record=2).results
    itself = row_of(results, "learner_0", "itself")
    assert "other_reward" not in itself["figures"]
    # With itself, reward = 2 x (the other's cooperation) - own, both being the mean: so it equals cooperation.
    assert itself["figures"]["reward"]["mean"] == pytest.approx(itself["figures"]["cooperation"]["mean"])
    partner, others = (row_of(results, "learner_0", name)["figures"] for name in ("partner", "other_seeds"))
    assert partner["reward"]["seeds"] == others["reward"]["seeds"] == 2
    # Agents of other runs are not reached from a recording.
    assert {path.stem for path in (own[0].directory / "episodes").iterdir()} == {
        f"self_and_others-{scenario}-{learner}" for scenario in ("itself", "partner") for learner in ("learner_0", "learner_1")
    }


def test_whom_a_suite_has_no_seat_for_is_refused_unless_everyone_meets(own: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    said = wrong(capsys, str(own[0].directory), "tit_for_tat", "--suite", "together")
    assert "suite 'together' has no seat for tit_for_tat" in said
    assert said.endswith("try --cross-play, or the others with --against tit_for_tat\n")
    results = evaluate(enter([own[0], "tit_for_tat"]), "together", trials=4, record=0, extras=Extras(cross_play=True)).results
    assert "tit_for_tat" in results["cross_play"]["agents"]
    agent = str(own[1].directory / "population" / "learner_0")
    assert f"or the others with --against {agent}\n" in wrong(capsys, str(own[0].directory), agent, "--suite", "together")


def test_a_runs_learners_come_together_whoever_of_them_has_a_seat(tmp_path: Path) -> None:
    """Two of three meet each other; the third meets a script."""
    names = ("learner_0", "learner_1", "learner_2")
    scheme = Mixture(names, (Pairing(names[:2], "learner"), Pairing((names[2], "tit_for_tat"), "script")))
    run = made_run(tmp_path, replace(small_experiment(), scheme=scheme))
    assert {row["agent"] for row in evaluate([run], "together", trials=4, record=0).results["scenarios"]} == set(names[:2])


def test_a_script_with_long_settings_can_be_met_and_is_recorded(own: list[Run]) -> None:
    name = "cycler:pattern=" + "CCD" * 100
    assert main(["evaluate", str(own[0].directory), "--against", name, "--trials", "4"]) == 0
    files = sorted((own[0].directory / "episodes").glob("against-*"))
    assert len(files) == 2
    assert main(["replay", str(own[0].directory), "--recording", files[0].stem]) == 0


def test_whoever_is_named_can_be_met(own: list[Run], tmp_path: Path) -> None:
    frozen = str(own[1].directory / "population" / "learner_0")
    words = ["evaluate", str(own[0].directory), "--against", "always_defect", "--against", frozen, "--trials", "4", "--record", "0"]
    assert main(words) == 0
    results = json.loads((own[0].directory / "results.json").read_text())["evaluations"]["against"]
    assert {row["scenario"] for row in results["scenarios"]} == {"always_defect", f"{own[1].directory.name}/learner_0"}
    assert row_of(results, "learner_0", "always_defect")["figures"]["other_cooperation"]["mean"] == 0.0
    assert (own[0].directory / "report-against.html").is_file()


def test_against_whom_is_refused_where_it_makes_no_sense(own: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = str(own[0].directory)
    assert "want one of the two" in wrong(capsys, run, "--against", "tit_for_tat", "--suite", "together")
    assert "did you mean 'tit_for_tat'" in wrong(capsys, run, "--against", "tit_for_tatt")
    said = wrong(capsys, "random", "--game", "ballet", "--against", "random")
    assert said.endswith("--against is for games of several equal seats; Ballet has others; try --suite alone\n")
    said = wrong(capsys, run, "--against", str(own[1].directory))
    assert "it is a run, whose agents are population/learner_0, population/learner_1" in said


def test_results_say_after_how_many_iterations(own: list[Run]) -> None:
    own[0].save_checkpoint(own[0].load_checkpoint()._replace(iteration=7))
    results = evaluate(own, "together", trials=4, record=0).results
    assert results["contenders"][0] == {"name": "learner_0", "runs": [run.directory.name for run in own], "iterations": [7, 0]}
    (own[0].directory / "checkpoints" / "00000009-kept.safetensors").touch()
    assert own[0].iteration == 7
    assert f"{own[0].directory.name} (iteration 7), {own[1].directory.name}<" in (own[0].directory / "report-together.html").read_text()


def test_a_run_alone_has_no_other_seeds_to_meet(own: list[Run]) -> None:
    results = evaluate(own[:1], "self_and_others", trials=4, record=0).results
    assert {row["scenario"] for row in results["scenarios"]} == {"itself", "partner"}


def test_memory_is_read_and_a_script_has_none(own: list[Run]) -> None:
    results = evaluate(enter([own[0], "tit_for_tat"]), "ipd_tables", trials=12, record=0).results
    assert [row["agent"] for row in results["inference"]] == ["learner_0", "learner_1"]
    row = results["inference"][0]
    assert row["rounds"] == [1, 2, 3, 5]
    assert row["chance"] == 0.2
    assert len(row["accuracy"]) == len(row["control"]) == 4
    assert all(0 <= value <= 1 for value in (*row["accuracy"], *row["control"]))
    assert set(row["tables"]) == {"even", "extreme", "pure", "reactive", "memory_two"}


def test_memory_that_remembers_tells_co_players_apart() -> None:
    """An agent that keeps the last outcome in its state tells always-cooperate from always-defect after one step, not before."""
    from training.evaluation.inference import read_kind

    agent = made_agent()
    game = IteratedDilemma(rounds=6)
    minds = []
    for name in ("always_cooperate", "always_defect"):
        played = play(game, 1, ("me", name), (0,), {"me": agent, name: co_player(name)}, torch.arange(20), (1, 2, 4))
        minds.append(np.stack([played.mind[time] for time in (1, 2, 4)], 1))
    accuracy = read_kind(np.concatenate(minds), np.repeat([0, 1], 20))
    assert accuracy[0] <= 0.7
    assert accuracy[1] == accuracy[2] == 1.0


@pytest.mark.parametrize("name", MEMORIES)
def test_every_memory_is_read_as_one_row_of_numbers_per_trial(name: str) -> None:
    agent = AgentConfig(memory=small(name), embedding=4).build(*spaces_of(small_experiment())["learner_0"], seed=0)
    people = {"me": agent, "random": co_player("random")}
    played = play(IteratedDilemma(rounds=4), 1, ("me", "random"), (0,), people, torch.arange(5), (1, 3))
    assert {time: mind.shape for time, mind in played.mind.items()} == (
        {} if name == "none" else dict.fromkeys((1, 3), (5, agent.memory.state_size))
    )


def test_what_is_read_is_the_trial_that_is_played_and_not_the_next_one() -> None:
    game, tables = IteratedDilemma(rounds=30, continuation=0.8), ("me", "random_table")
    played = play(game, 1, tables, (0,), {"me": made_agent(), "random_table": co_player("random_table")}, torch.arange(64), (1, 5, 20))
    lengths = (~np.isnan(figures_of(game, played)["reward"])).sum(1)
    for time, mind in played.mind.items():
        assert np.isfinite(mind).all(1).tolist() == np.isfinite(mind).any(1).tolist() == (lengths > time).tolist(), time


def test_reading_stops_where_too_few_trials_go_on(tmp_path: Path) -> None:
    run = made_run(tmp_path, override(small_experiment(), "game.continuation=0.8"))
    row = evaluate([run], "ipd_tables", trials=64, record=0).results["inference"][0]
    assert row["trials_left"] == sorted(row["trials_left"], reverse=True)
    assert row["trials_left"][-1] >= 10
    assert len(row["rounds"]) == len(row["accuracy"]) == len(row["control"]) == len(row["trials_left"])
    assert all(len(read) == len(row["rounds"]) for read in row["tables"].values())


def test_the_control_knows_what_the_memory_can_know(own: list[Run]) -> None:
    """Before the first step nothing is known of anybody, after the second the first one's outcome."""
    row = evaluate(enter([own[0]]), "ipd_classics", trials=12, record=0).results["inference"][0]
    assert row["rounds"][:2] == [1, 2]
    assert row["control"][0] == pytest.approx(row["chance"])
    assert row["control"][1] > row["control"][0]


def test_an_episodes_first_move_answers_nothing() -> None:
    game = IteratedDilemma(rounds=3)
    people = {"tit_for_tat": co_player("tit_for_tat"), "random": co_player("random")}
    played = play(game, 20, ("tit_for_tat", "random"), (0,), people, torch.arange(32))
    assert np.nanmin(figures_of(game, played)["reciprocity"]) == pytest.approx(1.0)


def made_agent():
    return small_experiment().build_learners()["learner_0"]


def test_steps_after_a_trials_end_count_for_nothing() -> None:
    game = IteratedDilemma(rounds=30, continuation=0.8)
    played = play(game, 1, ("a", "b"), (0,), {"a": co_player("always_defect"), "b": co_player("always_cooperate")}, torch.arange(64))
    figures = figures_of(game, played)
    assert np.nanmin(figures["reward"]) == np.nanmax(figures["reward"]) == 2.0
    assert 0 < np.isnan(figures["reward"]).mean() < 1
    assert "best_response_gap" not in figures


def test_playing_in_pieces_to_look_into_memory_changes_nothing() -> None:
    agent = made_agent()
    people = {"me": agent, "random": co_player("random")}
    whole = play(IteratedDilemma(rounds=9), 1, ("me", "random"), (0,), people, torch.arange(5))
    pieces = play(IteratedDilemma(rounds=9), 1, ("me", "random"), (0,), people, torch.arange(5), (1, 4, 5, 50))
    assert torch.equal(whole.log.measures["cooperation"], pieces.log.measures["cooperation"])
    assert sorted(pieces.mind) == [1, 4, 5]


@pytest.mark.long
def test_cross_play_holds_every_pair_and_names_seeds(own: list[Run]) -> None:
    results = evaluate(enter([*own, "always_defect"]), "ipd_tables", trials=8, record=0, extras=Extras(cross_play=True)).results
    found = results["cross_play"]
    assert found["agents"] == ["learner_0 seed 0", "learner_0 seed 1", "learner_1 seed 0", "learner_1 seed 1", "always_defect"]
    assert np.array(found["payoff"]).shape == (5, 5)
    assert found["payoff"][4][4] == 0.0
    # In this game i's reward + j's reward = cooperation of i + cooperation of j, whoever they are.
    total = found["payoff"][0][4] + found["payoff"][4][0]
    assert total == pytest.approx(found["cooperation"][0][4] + found["cooperation"][4][0])


def test_in_cross_play_both_sides_of_a_game_stand_at_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one wins in matching pennies the other loses, game by game."""
    seen = []
    monkeypatch.setattr(population_games, "analyse", lambda names, payoff, earned: seen.append(earned) or {})
    cross_play(enter(["random", "random_reactive", "tit_for_tat"], game="matching_pennies"), 5, 1)
    (earned,) = seen
    assert earned.shape == (3, 3, 10)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert earned[i, j].std() > 0
        np.testing.assert_allclose(earned[i, j], -earned[j, i])


@pytest.mark.long
def test_a_trained_response_finds_what_can_be_taken(tmp_path: Path) -> None:
    extras = Extras(exploit=12, best_responses=1)
    results = evaluate(enter(["always_cooperate"]), "ipd_shapers", trials=16, out=tmp_path, extras=extras).results
    row = results["exploitability"][0]
    # Who always cooperates can be robbed of 2 a round, where its copy would give 1.
    assert row["exploiter_reward"]["mean"] > 1.6
    assert row["copy_reward"]["mean"] == pytest.approx(1.0)
    assert row["exploitability"]["mean"] == pytest.approx(row["exploiter_reward"]["mean"] - 1.0)
    gaps = {row["scenario"]: set(row["figures"]) & {"best_response_gap", "trained_response_gap"} for row in results["scenarios"]}
    assert all(len(each) == 1 for each in gaps.values())


# What is written and shown.


def test_a_report_and_results_are_written_beside_runs_or_where_asked(own: list[Run], tmp_path: Path) -> None:
    done = evaluate(own, "ipd_tables", trials=8, record=0)
    assert done.report == own[0].directory / "report-ipd_tables.html"
    for run in own:
        assert (run.directory / "report-ipd_tables.html").read_text().startswith("<!DOCTYPE html>")
        assert json.loads((run.directory / "results.json").read_text())["evaluations"]["ipd_tables"] == done.results
    evaluate(enter(["tit_for_tat"]), "ipd_tables", trials=8, out=tmp_path / "here")
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"results.json", "report-ipd_tables.html"}


@pytest.mark.long
def test_results_are_what_the_page_about_them_says(own: list[Run]) -> None:
    """docs/evaluation.md names every key of the results."""
    results = evaluate(own, "ipd_tables", trials=8, record=0, extras=Extras(cross_play=True, exploit=1)).results
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            named = {"figures", "curves", "tables", "game"}
            return set(value) | {key for name, inner in value.items() if name not in named for key in keys(inner)}
        return {key for inner in value for key in keys(inner)} if isinstance(value, list) else set()

    missing = {key for key in keys(results) if f"`{key}`" not in page}
    assert not missing
    figures = {name for row in results["scenarios"] for name in row["figures"]} | set(results["scenarios"][0]["figures"]["reward"])
    assert not {name for name in figures if f"`{name.removeprefix('other_')}`" not in page}


def test_what_is_said_is_measured_where_there_is_language(tmp_path: Path) -> None:
    small = ("trials=8", "iterations=1", "agent.memory.width=4", "agent.embedding=4")
    run = made_run(tmp_path, override(load(PRESETS["referential_quick"])(), *small))
    results = evaluate([run], trials=64, record=0).results
    rows = [(row["agent"], row["scenario"]) for row in results["language"]]
    assert rows == [("learner_0", "learner_0 + learner_1"), ("learner_0", "learner_0 + people")]
    speaker, listener = run.population().values()
    wanted = language.measure(run.experiment.game, speaker, listener, 64, load(SUITES[run.experiment.suite])(run.experiment).seed)
    assert {"accuracy", "message_length", "words_in_use", "perplexity", "topographic_similarity", "bleu"} == set(wanted)
    found = {name: figure["mean"] for name, figure in results["language"][0]["figures"].items()}
    assert found == pytest.approx(wanted)
    screen = io.StringIO()
    for grid in as_grids(results, 100):
        Console(file=screen, width=100).print(grid)
    assert "what is said" in screen.getvalue()
    assert "topogr." in screen.getvalue()


@pytest.mark.long
def test_tables_fit_the_screen(own: list[Run]) -> None:
    entered = enter([own[0], "extortion:slope=3"])
    results = evaluate(entered, "ipd_classics", trials=2, record=0, extras=Extras(cross_play=True, exploit=1)).results
    # Titles and notes wrap on a real screen; rows of a table are what must not.
    notes = (
        "mean [",
        "reward of",
        "first's reward",
        "row's mean",
        "what a population",
        "share of",
        "a fresh",
        "score:",
        "gap",
        "recip.:",
        "extort.:",
    )
    for width in (100, 80):
        screen = io.StringIO()
        console = Console(file=screen, width=400)
        for grid in as_grids(results, width):
            console.print(grid)
        assert "score" in screen.getvalue()
        lines = screen.getvalue().splitlines()
        assert not [line for line in lines if len(line.rstrip()) > width and not line.startswith(notes)]


def test_one_seed_is_said_to_cover_no_other_seeds(own: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(own[0].directory), "--trials", "4", "--record", "0"]) == 0
    assert "nothing is known about other seeds" in " ".join(capsys.readouterr().out.split())


# What is said to somebody who got it wrong.


def wrong(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tit_for_tatt"], ["no co-player is called 'tit_for_tatt'", "did you mean 'tit_for_tat'?"]),
        (["extortion:slop=3"], ["extortion has no setting 'slop'", "did you mean 'slope'?"]),
        (["extortion:slope=x"], ["extortion.slope is 'x'; want a number"]),
        (["tit_for_tat:slope=1"], ["tit_for_tat has no setting 'slope'; it has none"]),
        (["extortion:slope"], ["'slope' is no setting", "name=value"]),
        (["tit_for_tat", "--suite", "ipd_classic"], ["no suite is called 'ipd_classic'", "did you mean 'ipd_classics'?"]),
        (["tit_for_tat", "--trials", "0"], ["--trials is 0"]),
        (["tit_for_tat", "--exploit", "-1"], ["--exploit is -1"]),
        (["tit_for_tat", "--game", "prisoner_dilemma"], ["no game is called 'prisoner_dilemma'", "prisoners_dilemma"]),
        (["tit_for_tat", "--game", "matching_pennies"], ["suite 'ipd_classics' is for"]),
        (["tit_for_tat", "--cross-play"], ["cross-play wants at least two"]),
        (["runs/no/such"], ["there is no runs/no/such"]),
        (["no_module:Policy"], ["no_module:Policy", "ModuleNotFoundError"]),
        (["math:pi"], ["math:pi is a float without start or act"]),
        (["axelrod:Tit For Tatt"], ["Tit For Tat"]),
        (["tit_for_tat", "--suite", "together"], ["suite 'together' has a seat for nobody here"]),
        (["mood_reader", "--game", "hidden_markov", "--suite", "together"], ["suite 'together' has no table for", "try --suite alone"]),
        (["greedy_harvester", "--game", "commons", "--suite", "together"], ["suite 'together' has no table for", "try another suite"]),
    ],
)
def test_wrong_names_and_values_get_one_line(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = wrong(capsys, *arguments)
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


def test_an_agent_whose_spaces_do_not_fit_is_told_which_differ(own: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    agent = str(own[0].directory / "population" / "learner_0")
    said = wrong(capsys, agent, "--game", "battle_of_the_sexes", "--suite", "self_and_others")
    assert "perceives outcome" in said
    assert "is shown outcome, seat" in said


@pytest.mark.long
def test_a_damaged_member_is_named_and_left_out_only_if_asked(own: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    population = own[0].directory / "population"
    weights = population / "learner_1" / "agent.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    said = wrong(capsys, str(population), "--trials", "4")
    assert str(weights) in said
    assert "--skip-damaged" in said
    out = own[0].directory.parent / "out"
    assert main(["evaluate", str(population), "--trials", "4", "--skip-damaged", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "left out" in told.err
    assert "learner_0" in told.out
    assert main(["evaluate", str(own[0].directory), "--trials", "4", "--skip-damaged"]) == 0


def test_runs_of_different_games_do_not_go_together(own: list[Run], tmp_path: Path) -> None:
    other = made_run(tmp_path, override(small_experiment(), "game.rounds=9"))
    with pytest.raises(BadInput, match=r"these play different games: rounds is \d+ and 9; evaluate them apart"):
        evaluate([own[0], other])
    third = made_run(tmp_path / "third", override(small_experiment(), "game=stag_hunt", "episodes=2"))
    with pytest.raises(BadInput, match=r"these play different games: payoffs is .* and .*, rounds is .*, episodes is 1 and 2; evaluate"):
        evaluate([own[0], third])


def test_a_file_may_not_run_a_co_players_code(own: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own[0].directory / "experiment.json").write_text(
        (own[0].directory / "experiment.json").read_text().replace('"random_table"', '"antigravity:fly"')
    )
    assert "--trust" in wrong(capsys, str(own[0].directory))


def test_the_classical_payoffs_have_no_shapers_suite() -> None:
    with pytest.raises(BadInput, match="default payoffs"):
        load(SUITES["ipd_shapers"])(Experiment(game=classical_prisoners_dilemma(), scheme=best_response()))


MISTAKES = {
    "WrongShape": ("Decision(torch.zeros(3, 3, dtype=torch.int64)), state", "gave actions of shape [3, 3]; want a torch tensor of shape"),
    "Scalar": ("Decision(1), state", "gave actions of int"),
    "Floaty": ("Decision(torch.zeros(len(reward))), state", "torch.float32 actions"),
    "TooLarge": ("Decision(torch.full_like(state, 7)), state", "actions from 7 to 7; want what is allowed in Discrete(2)"),
    "Negative": ("Decision(torch.full_like(state, -1)), state", "actions from -1 to -1"),
    "NoDecision": ("torch.zeros_like(state), state", "act returned tuple; want"),
    "Alone": ("Decision(torch.zeros_like(state))", "act returned Decision; want"),
    "Raises": ("1 / 0", "act failed: ZeroDivisionError"),
    "Leaves": ("exit(3)", "act failed: SystemExit: 3"),
}


@pytest.mark.long
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_a_policy_from_elsewhere_gets_wrong_is_said_in_one_line_and_nothing_is_written(
    mistake: str, own: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    returned, words = MISTAKES[mistake]
    (tmp_path / f"wrong_{mistake}.py").write_text(
        "import torch\nfrom agents.occupant import Decision\n"
        f"class {mistake}:\n"
        "    def start(self, seeds):\n        return torch.zeros_like(seeds)\n"
        f"    def act(self, observation, state, reward):\n        return {returned}\n"
    )
    monkeypatch.chdir(tmp_path)
    said = wrong(capsys, str(own[0].directory), f"wrong_{mistake}:{mistake}", "--trials", "4")
    assert f"wrong_{mistake}:{mistake}.act" in said
    assert words in said
    assert not (own[0].directory / "episodes").exists()
    assert not (own[0].directory / "results.json").exists()


def test_out_keeps_what_it_holds(own: list[Run], tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(enter(["tit_for_tat"]), "ipd_tables", trials=4, out=out)
    evaluate(enter(["tit_for_tat"]), "self_and_others", trials=4, out=out)
    assert set(json.loads((out / "results.json").read_text())["evaluations"]) == {"ipd_tables", "self_and_others"}
    own[0].write_json("results.json", {"training": {"iterations": 3}})
    evaluate(enter(["tit_for_tat"]), "ipd_tables", trials=4, out=own[0].directory)
    assert json.loads((own[0].directory / "results.json").read_text())["training"] == {"iterations": 3}


def test_another_game_than_its_own_is_not_written_into_a_run(own: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = evaluate(enter(own[:1], "chicken:rounds=6,noise=0.25", 2), "ipd_tables", trials=4)
    assert done.results["game"]["noise"] == 0.25
    assert done.results["episodes"] == 2
    assert len(done.results["scenarios"][0]["curves"]["reward"]["mean"]) == 12
    assert done.report.parent.parent == Path("runs")
    assert not (own[0].directory / "results.json").exists()
    assert not (own[0].directory / "episodes").exists()


def test_a_directory_does_not_hide_a_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gradual").mkdir()
    monkeypatch.chdir(tmp_path)
    assert enter(["gradual"]).contenders[0].name == "gradual"
