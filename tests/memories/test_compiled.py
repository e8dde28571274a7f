"""`memory.kernels.compiled`: what is kept for other processes goes with all kernels' files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import memory

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


def test_a_caller_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path) -> None:
    kernels = tmp_path / "memory" / "kernels"
    kernels.mkdir(parents=True)
    shutil.copy(Path(memory.__file__).parent / "kernels" / "compiled.py", kernels)
    (kernels / "caller_numba.py").write_text(CALLER)
    said = []
    for factor in (2, 2, 3):
        (kernels / "called_numba.py").write_text(CALLED.format(factor=factor))
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", "import memory.kernels.caller_numba"]
        said.append(subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip())
    assert said == ["3.0 0", "3.0 1", "4.0 0"]
