"""What a person waits for and what it takes: `--help`, `list`, the first line of training, and the memory of all processes together."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import seconds, verdict

ITERATIONS = 40


def main() -> bool:
    met = [
        verdict(f"launch.py {argument}", seconds(lambda argument=argument: _run(argument), 5), 2, "s", at_least=False)
        for argument in ("--help", "list")
    ]
    with tempfile.TemporaryDirectory() as runs:
        begin = time.perf_counter()
        arguments = [sys.executable, "launch.py", "train", "ipd_mixed_pool_quick", f"iterations={ITERATIONS}", "--evaluate", "--runs", runs]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first_line = None
        peak = 0.0
        while first_line is None:
            line = process.stdout.readline()
            if not line and process.poll() is not None:
                raise RuntimeError("training ended before its first line")
            if re.match(rf"1/{ITERATIONS} ", line):
                first_line = time.perf_counter() - begin
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(0.2)
    met.append(verdict("first training line after", first_line, 20, "s", at_least=False))
    met.append(verdict("peak memory of all processes of train and evaluate", peak, 3, "GB", at_least=False))
    return all(met)


def memory_of_tree(root: int) -> float:
    """Proportional set size (shared pages counted once) of a process and all its descendants, in GB."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(found.group(1)) if found else 0
    return total * 1024 / 1e9


def _run(argument: str) -> None:
    subprocess.run([sys.executable, "launch.py", argument], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(not main())
