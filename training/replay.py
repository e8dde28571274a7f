"""Replaying a recording: play it again, check that it comes out the same, print it round by round, show it in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from envs.face import draw
from envs.game import seats_of
from training import recording, tree
from training.board import Board
from training.rollout import Rollout, Step
from training.run import Run
from training.settings import BadInput, nearest

STRIP_COLUMNS, FRAME = 10, 96


def replay(run: Run, name: str | None, trial: int, console: Console, trust: bool = False) -> bool:
    """Says whether the replayed trials were the recorded ones. name: of a file in the run's episodes/, without its ending."""
    path = find(run, name)
    recorded = recording.load(path)
    trials = len(recorded.tensors["seeds"])
    if not 0 <= trial < trials:
        raise BadInput(f"trial {trial}; {path.name} holds trials 0 to {trials - 1}")
    rollout, log = recording.replay(recorded, run.directory, trust)
    comparison = recording.compare(recorded, log)
    rows = table_of(rollout, log, trial)
    for row in rows:
        console.print(Text("  ".join(row)), soft_wrap=True)
    board = Board(run.directory)
    board.table(f"replay/{path.stem}/{trial}", ["step", "what happened", "who expected what"], rows)
    board.picture(f"replay/{path.stem}/{trial}", strip(rollout, log, trial))
    board.close()
    said = {True: "identical, bit for bit", False: f"the same up to rounding ({comparison.worst:.1e})"}[comparison.identical]
    verdict = f"NOT the same: {comparison.differs} differs" if comparison.differs else said
    console.print(Text(f"{path.name}, trial {trial}: re-simulated {trials} trials, {verdict}"), soft_wrap=True)
    return not comparison.differs


def find(run: Run, name: str | None) -> Path:
    """A recording of the run: the one that is named, or the first."""
    paths = {path.stem: path for path in sorted((run.directory / "episodes").glob("*.safetensors"))}
    if not paths:
        raise BadInput(f"{run.directory} has no recordings; make some with: python launch.py evaluate {run.directory}")
    if name is None:
        return next(iter(paths.values()))
    stem = name.removesuffix(".safetensors")
    if stem not in paths:
        raise BadInput(f"{run.directory} has no recording {name!r}; {nearest(stem, paths)}")
    return paths[stem]


def table_of(rollout: Rollout, log: Step, trial: int) -> list[list[str]]:
    """One row per step of the trial: its number, the scene after it, and each watched seat's policy and value before it."""
    names = [name for name, _, _ in seats_of(rollout.game)]
    rows = []
    for step in range(log.ended.shape[0]):
        if int(log.trial[step, trial]) > 0:
            break
        scene = rollout.game.describe(tree.rows_of(log.game, step), trial)
        thoughts = []
        for number, group in enumerate(rollout.groups):
            decision = log.decisions[number]
            for row in (group.games == trial).nonzero()[:, 0].tolist():
                words = []
                if decision.policy is not None:
                    shown = decision.policy[step, row].flatten().tolist()[:8]
                    words.append("p " + " ".join(f"{value:.2f}" for value in shown))
                if decision.value is not None:
                    words.append(f"value {decision.value[step, row].item():.2f}")
                if words:
                    thoughts.append(f"{names[int(group.seats[row])]} ({group.occupant}): {', '.join(words)}")
        rows.append([f"{step + 1:3d}", scene.text, "; ".join(thoughts)])
    return rows


def strip(rollout: Rollout, log: Step, trial: int) -> NDArray[Any]:
    """The trial as one picture, frames left to right, then down."""
    steps = [step for step in range(log.ended.shape[0]) if int(log.trial[step, trial]) == 0]
    frames = [draw(rollout.game.describe(tree.rows_of(log.game, step), trial), FRAME) for step in steps]
    blank = np.full_like(frames[0], 255)
    frames += [blank] * (-len(frames) % STRIP_COLUMNS)
    rows = [np.concatenate(frames[first : first + STRIP_COLUMNS], 1) for first in range(0, len(frames), STRIP_COLUMNS)]
    return np.concatenate(rows, 0)
