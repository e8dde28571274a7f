"""`memory.kernels.compiled`: what is kept for other processes goes with all kernels' files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import memory
from memory.kernels import exponential_numba, miras_steps_numba, pararnn_numba
from memory.kernels.compiled import REORDERED

CALLER = """
from memory.kernels.compiled import compiled
from memory.kernels.called_numba import called

@compiled()
def caller(x):
    return called(x) + 1

print(caller(1.0), sum(caller.stats.cache_hits.values()))
"""
CALLED = """
from memory.kernels.compiled import compiled

@compiled()
def called(x):
    return {factor} * x
"""


class Elsewhere:
    """A copy of the compiler's module, with two kernels, one of which calls the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kernels = root / "memory" / "kernels"
        self.kernels.mkdir(parents=True)
        shutil.copy(Path(memory.__file__).parent / "kernels" / "compiled.py", self.kernels)
        (self.kernels / "caller_numba.py").write_text(CALLER)

    def says(self, factor: int, code: str = "import memory.kernels.caller_numba", **variables: str) -> str:
        """What a process of its own prints: the caller's result, and how often it was not compiled anew."""
        (self.kernels / "called_numba.py").write_text(CALLED.format(factor=factor))
        environment = {**os.environ, "PYTHONPATH": str(self.root), **variables}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, cwd=self.root, capture_output=True, text=True, check=True).stdout.strip()


def test_a_caller_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    assert [elsewhere.says(factor) for factor in (2, 2, 3)] == ["3.0 0", "3.0 1", "4.0 0"]


def test_and_where_the_person_says_it_is_kept(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    there = str(tmp_path / "kept")
    assert [elsewhere.says(factor, NUMBA_CACHE_DIR=there) for factor in (2, 2, 3)] == ["3.0 0", "3.0 1", "4.0 0"]
    assert list(Path(there).rglob("*.nbi"))


def test_and_when_what_is_asked_of_the_compiler_has(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    assert elsewhere.says(2) == "3.0 0"
    file = elsewhere.kernels / "compiled.py"
    file.write_text(file.read_text().replace('"contract", "nsz"}', '"contract"}'))
    assert elsewhere.says(2) == "3.0 0"


def test_and_when_it_changes_while_a_process_runs(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    changed = CALLED.format(factor=3)
    between = f"import memory.kernels.called_numba as called; open(called.__file__, 'w').write({changed!r}); "
    assert elsewhere.says(2, between + "import memory.kernels.caller_numba") == "3.0 0"
    assert elsewhere.says(3) == "4.0 0"


@pytest.mark.parametrize("kernel", [pararnn_numba._forwards, miras_steps_numba.backwards, exponential_numba.exp])
def test_what_is_no_number_stays_so(kernel: object) -> None:
    flags = kernel.targetoptions["fastmath"]  # type: ignore[attr-defined]
    assert flags <= REORDERED == {"contract", "reassoc", "nsz"}
