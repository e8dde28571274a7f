"""Presets reach the figures that their docstrings promise. Minutes each: `make slow`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.evaluation.evaluate import find_suite, play_suite
from training.run import Run

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_quick_mixed_pool_tells_co_players_apart(tmp_path: Path) -> None:
    arguments = [sys.executable, "launch.py", "train", "ipd_mixed_pool_quick", "seed=0", "--runs", str(tmp_path)]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    run = Run.open(next(tmp_path.iterdir()))
    outcomes = play_suite(run, find_suite("ipd_classics", run), trials=256, record=0)
    means = {(outcome.agent, outcome.scenario): outcome.figures["cooperation"].mean() for outcome in outcomes}
    rewards = {(outcome.agent, outcome.scenario): outcome.figures["reward"].mean() for outcome in outcomes}
    for agent in ("learner_0", "learner_1"):
        assert means[agent, "tit_for_tat"] > 0.15
        assert means[agent, "always_defect"] < 0.02
        assert means[agent, "always_cooperate"] < 0.02
        assert rewards[agent, "unseen_tables"] > 0.93
