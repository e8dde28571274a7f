"""Presets reach the figures that their docstrings promise. Minutes each: `make slow`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.evaluation.evaluate import evaluate
from training.run import Run

ROOT = Path(__file__).parent.parent


def figures_after(preset: str, root: Path) -> dict[tuple[str, str], dict[str, float]]:
    """{(agent, scenario): {figure: mean}}, and `late`, the mean cooperation in the last 40 rounds, after a run of a preset with seed 0."""
    subprocess.run([sys.executable, "launch.py", "train", preset, "seed=0", "--runs", str(root)], cwd=ROOT, check=True, capture_output=True)
    results = evaluate([Run.open(next(root.iterdir()))], "ipd_classics", trials=256, record=0).results
    return {
        (row["agent"], row["scenario"]): {
            **{name: figure["mean"] for name, figure in row["figures"].items()},
            "late": sum(row["curves"]["cooperation"]["mean"][-40:]) / 40,
        }
        for row in results["scenarios"]
    }


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
