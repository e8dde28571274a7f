"""docs/memories.md says of every memory how much it carries; here its numbers are counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memory import MEMORIES
from memory.budget import parameters_of
from training.settings import load

PAGE = (Path(__file__).parents[2] / "docs" / "memories.md").read_text()
ROWS = {name: cells for name, *cells in re.findall(r"^\| `(\w+)` \| .* \| ([\d,]+) \| ([\d,]+) \| .* \|$", PAGE, re.MULTILINE)}


def test_every_memory_has_its_row() -> None:
    assert list(ROWS) == list(MEMORIES)


@pytest.mark.parametrize("name", MEMORIES)
def test_its_sizes_are_those_of_the_defaults(name: str) -> None:
    config = load(MEMORIES[name])()
    assert name in ROWS, f"docs/memories.md has no row for {name}"
    assert ROWS[name] == [f"{config.build(32).state_size:,}", f"{parameters_of(config, 32):,}"]
