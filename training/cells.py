"""Work in many parts that know nothing of one another: each in a process of its own, several at a time, one JSON file per part.

A part that raises, dies or hangs is lost alone. Whoever stops in the middle keeps the files, and can go on with the parts that have none.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from training.files import write_atomically

# A part without arguments, which a new process can be sent; what it returns must be plain JSON.
Work = Callable[[], Any]


class _Running(NamedTuple):
    name: str
    process: BaseProcess
    deadline: float


def run_cells(parts: Mapping[str, Work], directory: Path, workers: int, seconds: float, tell: Callable[[str, str | None], None]) -> None:
    """Runs all parts, `workers` at a time. What a part returns is in `directory`/NAME.json when `tell(NAME, None)` is called.

    Of a part that fails, `tell` gets the reason in a line, and NAME.txt has the traceback if there is one. seconds: after which a part is
    killed. If this is interrupted, the parts that run are killed with it.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(parts.items())
    running: dict[int, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name, work = waiting.pop(0)
                started = context.Process(target=_carry_out, args=(work, directory / name), daemon=True)
                started.start()
                running[started.sentinel] = _Running(name, started, time.monotonic() + seconds)
            next_deadline = min(each.deadline for each in running.values())
            wait(list(running), timeout=max(0.0, next_deadline - time.monotonic()))
            for sentinel, (name, process, deadline) in list(running.items()):
                is_late = process.is_alive() and time.monotonic() >= deadline
                if process.is_alive() and not is_late:
                    continue
                process.kill()
                process.join()
                del running[sentinel]
                tell(name, _problem(directory / name, process.exitcode, f"killed after {seconds:g} s" if is_late else None))
    finally:
        for each in running.values():
            each.process.kill()
            each.process.join()


def _carry_out(work: Work, file: Path) -> None:
    # Control-C reaches every process of the terminal; what becomes of this one is for whoever started it to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _beside(file, ".txt").unlink(missing_ok=True)
    try:
        data = json.dumps(work())
    except Exception as error:
        _beside(file, ".txt").write_text(traceback.format_exc())
        raise SystemExit(1) from error
    write_atomically(_beside(file, ".json"), data.encode())


def _problem(file: Path, code: int | None, killed: str | None) -> str | None:
    if _beside(file, ".json").is_file():
        return None
    said = _beside(file, ".txt")
    if killed is None and said.is_file():
        return said.read_text().strip().splitlines()[-1]
    return killed or (f"died of signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}")


def _beside(file: Path, ending: str) -> Path:
    """A part's name may have dots of its own."""
    return file.with_name(file.name + ending)
