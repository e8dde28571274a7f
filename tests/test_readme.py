"""What README.md says to type in Python, word for word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agents.agent import AgentConfig
from envs.iterated_dilemma import IteratedDilemma
from memory.gru import GRUConfig
from training.population import save_agent

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_its_examples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (role,) = IteratedDilemma().roles
    agent = AgentConfig(GRUConfig(8)).build(role.observation_space, role.action_space, 3)
    save_agent(agent, tmp_path / "runs" / "NAME" / "population" / "learner_0")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
        if "rewards" in names and "looked" not in names:
            # All twenty rounds were played, the last of which it is told of.
            names["looked"] = True
            assert names["state"].clock.tolist() == [20]
            assert names["environment"].agents == []
    assert names["looked"]


def test_every_preset_setting_and_page_that_it_names_is_there() -> None:
    from training.presets import PRESETS, STUDIES

    for preset in re.findall(r"launch\.py train (\w+)", README):
        assert preset in PRESETS | STUDIES
    for page in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (Path(__file__).parent.parent / page).exists()
