"""What `launch.py list` prints, and what the command does before anything is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch import main

ROOT = Path(__file__).parent.parent


def listed(capsys: pytest.CaptureFixture[str], *kinds: str) -> list[str]:
    assert main(["list", *kinds]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 100])
def test_a_list_fits_the_terminal(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = listed(capsys)
    assert max(map(len, lines)) <= columns
    assert "  donor_game_in_quarters        The donor game with gifts of nothing, a quarter," in " ".join(lines)


def test_every_entry_of_a_list_is_a_whole_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    entries = [line for line in listed(capsys) if line.startswith("  ")]
    assert len(entries) > 150
    assert [entry for entry in entries if not re.fullmatch(r"  \w+ +\S.*[^ .]\)?\.", entry)] == []
    # Sentences that run over a line, that hold a full stop, and that are followed by others.
    text = "\n".join(entries)
    assert "and agents of other seeds of its preset.\n" in text
    assert "by straight-through Gumbel-softmax (`training.messages`).\n" in text
    assert "Repeated chicken with payoffs 3, 1, 4, 0 (Leibo et al. 2017).\n" in text
    assert "(Press and Dyson 2012, eq. 14).\n" in text
    assert "  coin_wanderer            Walks at random, onto coins or not.\n" in text


def test_every_memory_has_a_sentence_of_its_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    told = [line.split(maxsplit=1)[1] for line in listed(capsys, "memories") if line.startswith("  ")]
    assert len(told) == len(set(told)) > 20


@pytest.mark.parametrize(("own", "expected"), [({}, "3000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_threads_that_wait_sleep_soon_unless_somebody_says_otherwise(own: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | own
    code = "import os, launch; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
