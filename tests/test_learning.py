"""Presets reach the figures that their docstrings promise. Minutes each: `make slow`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.evaluation.contenders import enter
from training.evaluation.evaluate import evaluate
from training.run import Run

ROOT = Path(__file__).parent.parent


def trained(root: Path, *words: str, seed: int = 0) -> Run:
    """A run of `launch.py train` with these words."""
    command = [sys.executable, "launch.py", "train", *words, f"seed={seed}", "--runs", str(root / str(seed))]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return Run.open(next((root / str(seed)).iterdir()))


def figures_after(preset: str, root: Path, *settings: str) -> dict[tuple[str, str], dict[str, float]]:
    """{(agent, scenario): {figure: mean}}, and `late`, the mean cooperation in the last 40 rounds, after a run of a preset with seed 0."""
    results = evaluate([trained(root, preset, *settings)], trials=256, record=0).results
    found = {}
    for row in results["scenarios"]:
        figures = found[row["agent"], row["scenario"]] = {name: figure["mean"] for name, figure in row["figures"].items()}
        if "cooperation" in row["curves"]:
            figures["late"] = sum(row["curves"]["cooperation"]["mean"][-40:]) / 40
    return found


@pytest.mark.slow
def test_the_quick_mixed_pool_tells_co_players_apart(tmp_path: Path) -> None:
    figures = figures_after("ipd_mixed_pool_quick", tmp_path)
    for agent in ("learner_0", "learner_1"):
        assert figures[agent, "tit_for_tat"]["cooperation"] > 0.15
        assert figures[agent, "always_defect"]["cooperation"] < 0.02
        assert figures[agent, "always_cooperate"]["cooperation"] < 0.02
        assert figures[agent, "unseen_tables"]["reward"] > 0.93


@pytest.mark.slow
def test_the_quick_learner_in_context_plays_a_best_response(tmp_path: Path) -> None:
    figures = figures_after("ipd_in_context_quick", tmp_path)
    assert figures["learner_0", "tit_for_tat"]["late"] > 0.8
    assert figures["learner_0", "always_defect"]["late"] < 0.15
    assert figures["learner_0", "always_cooperate"]["late"] < 0.1
    # Always-defect earns 1.0 from tables in expectation, and on these very trials what its score of 0 stands for.
    assert figures["learner_0", "unseen_tables"]["score"] > 0.2


@pytest.mark.slow
def test_the_quick_coin_learners_take_their_own_coins(tmp_path: Path) -> None:
    """Two seeds, so that each seed's learners meet frozen ones of the other."""
    runs = [trained(tmp_path, "coin_game_quick", seed=seed) for seed in (0, 1)]
    rows = evaluate(runs, trials=256, record=0).results["scenarios"]
    assert len(rows) == 14
    assert {row["scenario"] for row in rows} > {"other_seeds"}
    assert all(row["figures"]["own_share"]["mean"] > 0.9 for row in rows)


@pytest.mark.slow
def test_the_quick_contributor_gives_what_punishers_ask_for(tmp_path: Path) -> None:
    figures = figures_after("public_goods_quick", tmp_path)
    assert figures["learner_0", "punisher"]["reward"] > 17


@pytest.mark.slow
def test_the_quick_harvester_keeps_the_stock_alive_among_conditional_ones(tmp_path: Path) -> None:
    figures = figures_after("commons_quick", tmp_path)
    assert figures["learner_0", "conditional_harvester"]["reward"] > 3


@pytest.mark.slow
def test_the_quick_speaker_and_listener_understand_each_other_and_people(tmp_path: Path) -> None:
    figures = figures_after("referential_quick", tmp_path)
    assert figures["learner_1", "learner_0 + learner_1"]["accuracy"] > 0.9
    assert figures["learner_1", "people + learner_1"]["accuracy"] > 0.8
    assert figures["learner_0", "learner_0 + people"]["accuracy"] > 0.8


@pytest.mark.slow
def test_the_quick_villager_gives_where_there_is_a_trace_and_not_where_there_is_none(tmp_path: Path) -> None:
    given = {
        depth: figures_after("donor_game_quick", tmp_path / str(depth), f"game.trace_depth={depth}")["learner_0", "village"]["gift"]
        for depth in (3, 0)
    }
    assert given[3] > 0.25
    assert given[0] < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "scenario", "figure", "least"),
    [
        ("match_to_sample_quick", "learner_0", "hardest_correct", 0.95),
        ("hidden_markov_quick", "alone", "correct", 0.72),
        ("sorting_quick", "alone", "correct", 0.95),
        ("hidden_object_quick", "alone", "accuracy", 0.9),
        ("rapid_words_quick", "alone", "accuracy", 0.8),
        ("ballet_symbols_quick", "alone", "success", 0.9),
    ],
)
def test_a_quick_learner_recalls(preset: str, scenario: str, figure: str, least: float, tmp_path: Path) -> None:
    assert figures_after(preset, tmp_path)["learner_0", scenario][figure] > least


@pytest.mark.slow
def test_the_quick_watcher_goes_where_the_witness_went(tmp_path: Path) -> None:
    figures = figures_after("one_saw_quick", tmp_path)
    assert figures["learner_1", "learner_0 + learner_1"]["accuracy"] > 0.9


@pytest.mark.slow
def test_the_quick_regression_comes_near_ridge_regression(tmp_path: Path) -> None:
    entered = enter([trained(tmp_path, "linear_regression_quick"), "ridge"])
    results = evaluate(entered, "alone", trials=4096, record=0).results
    lost = {row["agent"]: row["figures"]["last_squared_error"]["mean"] for row in results["scenarios"]}
    assert lost["learner_0"] < 1.2 * lost["ridge"]


@pytest.mark.slow
def test_words_are_learned_by_straight_through_gumbel_softmax_too(tmp_path: Path) -> None:
    figures = figures_after("referential_gumbel_quick", tmp_path)
    assert figures["learner_1", "learner_0 + learner_1"]["accuracy"] > 0.8
