"""docs/adding.md word for word, in a copy of the project: a memory and a game that pass what the project's own do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding.md").read_text()
QUIETLY = ("pytest", "-n0", "-q", "-p", "no:cacheprovider")
MEMORY, GAME = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for part in ("agents", "benchmarks", "docs", "envs", "memory", "tests", "training"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("launch.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def listed(file: Path, entry: str) -> None:
    """The line goes to the end of the first dictionary in the file, and stands in the page."""
    assert f"`{entry}`" in PAGE
    before, end, after = file.read_text().partition("\n}\n")
    file.write_text(f"{before}\n    {entry},{end}{after}")


def run(project: Path, *words: str, **environment: str) -> str:
    own = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-m", *words], cwd=project, env=own, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


@pytest.mark.long
def test_the_memory_passes_what_every_memory_passes(project: Path) -> None:
    (project / "memory" / "moving_average.py").write_text(MEMORY)
    listed(project / "memory" / "__init__.py", '"moving_average": "memory.moving_average:MovingAverageConfig"')
    page = project / "docs" / "memories.md"
    rows = list(re.finditer(r"^\| `\w+` \|.*\|\n", page.read_text(), re.MULTILINE))
    row = "| `moving_average` | an exponential moving average per channel | 128 | 4,352 | - |\n"
    page.write_text(page.read_text()[: rows[-1].end()] + row + page.read_text()[rows[-1].end() :])
    law = run(project, *QUIETLY, "tests/test_memories.py", "tests/memories", "-k", "moving_average")
    assert law.count(".") > 20
    run(project, "mypy", "memory/moving_average.py")


@pytest.mark.long
def test_the_game_passes_what_every_game_passes(project: Path) -> None:
    (project / "envs" / "cue.py").write_text(GAME)
    listed(project / "envs" / "__init__.py", '"cue": "envs.cue:cue"')
    run(project, *QUIETLY, "tests/test_golden.py", "-k", "cue and not cued", COTERIE_WRITE_GOLDEN="1")
    assert "the cue is " in (project / "tests" / "golden" / "cue.txt").read_text()
    run(project, *QUIETLY, "tests/test_golden.py", "tests/test_games.py", "-k", "cue and not cued")
    run(project, "mypy", "envs/cue.py")
