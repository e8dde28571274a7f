"""Replaying a recording: play it again, check that it comes out the same, print it round by round, show it in TensorBoard."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text
from torch import Tensor

from agents.agent import Agent
from envs.chance import luck_of_episode
from envs.face import draw
from envs.game import Scene, seats_of
from envs.settings import nearest
from training import recording, tree
from training.board import Board
from training.looks import folded, in_words
from training.rollout import Rollout, Step
from training.run import Run, wants_trust
from training.settings import BadInput

STRIP_COLUMNS, FRAME = 10, 96
# Up to how many choices all are told, and how many of more than that.
SHOWN, LIKELIEST = 8, 4
# Of what stands below its step: what memories looked at, and on a narrow screen who expected what.
INDENT = 5


def replay(run: Run, name: str | None, trial: int, console: Console, trust: bool = False, look: bool = False) -> bool:
    """Says whether the replayed trials were the recorded ones. name: of a file in the run's episodes/, without its ending. look: whether
    to show what each agent's memory looks at; asking changes nothing, which the comparison checks.
    """
    path = find(run, name)
    recorded = recording.load(path)
    trials = len(recorded.tensors["seeds"])
    if not 0 <= trial < trials:
        raise BadInput(f"trial {trial}; {path.name} holds trials 0 to {trials - 1}")
    seen: list[list[dict[str, Tensor]]] = []
    watch = (lambda rollout, table: seen.append(rollout.look(table))) if look else None
    rollout, log = recording.replay(recorded, run.directory, trust, watch)
    comparison = recording.compare(recorded, log)
    told = moments(rollout, recorded.tensors["seeds"], log, trial, seen)
    header, rows = ["step", "what happened", "who expected what"], table_of(told)
    for moment, row in zip(told, rows, strict=True):
        whole = "  ".join(row).rstrip()
        # Where nobody looks (`| grep`) a step stays on one line.
        if not console.is_terminal or len(whole) <= console.width:
            console.print(Text(whole), soft_wrap=True)
        else:
            lines = [part for text in (row[1], *row[2].split("; ")) for part in textwrap.wrap(text, console.width - INDENT)]
            console.print(Text("\n".join([f"{row[0]}  {lines[0]}", *(" " * INDENT + line for line in lines[1:])])), soft_wrap=True)
        for line in moment.looks:
            for part in folded(line, console.width - INDENT):
                console.print(Text(" " * INDENT + part), soft_wrap=True)
    for line in _with_nothing_to_show(rollout, seen, trial):
        console.print(Text(line), soft_wrap=True)
    board = Board(run.directory)
    if look:
        header = [*header, "what memories looked at"]
        rows = [[*row, "; ".join(moment.looks)] for moment, row in zip(told, rows, strict=True)]
    board.table(f"replay/{path.stem}/{trial}", header, rows)
    board.picture(f"replay/{path.stem}/{trial}", strip(told))
    board.close()
    said = {True: "identical, bit for bit", False: f"the same up to rounding ({comparison.worst:.1e})"}[comparison.identical]
    verdict = f"NOT the same: {comparison.differs} differs" if comparison.differs else said
    console.print(Text(f"{path.name}, trial {trial}: re-simulated {trials} trials, {verdict}"), soft_wrap=True)
    return not comparison.differs


def find(run: Run, name: str | None) -> Path:
    """A recording of the run: the one that is named, or the first."""
    paths = {path.stem: path for path in sorted((run.directory / "episodes").glob("*.safetensors"))}
    if not paths:
        trust = " --trust" if wants_trust(run.experiment) else ""
        raise BadInput(f"{run.directory} has no recordings; make some with: python launch.py evaluate {run.directory}{trust}")
    if name is None:
        return next(iter(paths.values()))
    stem = name.removesuffix(".safetensors")
    if stem not in paths:
        raise BadInput(f"{run.directory} has no recording {name!r}; {nearest(stem, paths)}")
    return paths[stem]


class Moment(NamedTuple):
    """A trial between two steps. steps: how many were taken. thoughts: each watched seat's policy and value before the last of them. looks:
    what its memory looked at then, a line for each seat and layer.
    """

    steps: int
    scene: Scene
    thoughts: str = ""
    looks: tuple[str, ...] = ()


def moments(
    rollout: Rollout, seeds: Int64[Tensor, "B"], log: Step, trial: int, seen: Sequence[list[dict[str, Tensor]]] = ()
) -> list[Moment]:
    """What there is to see of a trial: every episode's start, which the log does not hold, and what each step made of it.

    seen: what `Rollout.look` said before every step, if it was asked.
    """
    told: list[Moment] = []
    episode = 0
    for step in range(log.ended.shape[0]):
        if int(log.trial[step, trial]) > 0:
            break
        if bool(log.began[step, trial]):
            start = rollout.game.start(luck_of_episode(seeds[trial : trial + 1], episode))
            told.append(Moment(step, rollout.game.describe(start, 0)))
            episode += 1
        scene = rollout.game.describe(tree.rows_of(log.game, step), trial)
        looks = tuple(_looks(rollout, seen[step], trial)) if seen else ()
        told.append(Moment(step + 1, scene, _thoughts(rollout, log, step, trial), looks))
    return told


def _looks(rollout: Rollout, seen: list[dict[str, Tensor]], trial: int) -> Iterator[str]:
    names = [name for name, _, _ in seats_of(rollout.game)]
    for group, found in zip(rollout.groups, seen, strict=True):
        for row in (group.games == trial).nonzero()[:, 0].tolist():
            for line in in_words({name: values[row] for name, values in found.items()}):
                yield f"{names[int(group.seats[row])]} {line}"


def _with_nothing_to_show(rollout: Rollout, seen: list[list[dict[str, Tensor]]], trial: int) -> Iterator[str]:
    for number, (group, occupant) in enumerate(zip(rollout.groups, rollout.occupants, strict=True)):
        if isinstance(occupant, Agent) and bool((group.games == trial).any()) and seen and not any(looks[number] for looks in seen):
            yield f"{group.occupant}: its memory ({type(occupant.config.memory).__name__}) has nothing to show"


def _thoughts(rollout: Rollout, log: Step, step: int, trial: int) -> str:
    names = [name for name, _, _ in seats_of(rollout.game)]
    thoughts = []
    for group, decision in zip(rollout.groups, log.decisions, strict=True):
        for row in (group.games == trial).nonzero()[:, 0].tolist():
            words = []
            if decision.policy is not None:
                words.append(policy_in_words(decision.policy[step, row].flatten(), group.role.action_space))
            if decision.value is not None:
                words.append(f"value {decision.value[step, row].item():.2f}")
            if words:
                thoughts.append(f"{names[int(group.seats[row])]} ({group.occupant}): {', '.join(words)}")
    return "; ".join(thoughts)


def policy_in_words(policy: Float[Tensor, "Q"], space: gym.Space[Any]) -> str:
    """Probabilities of a few choices in their order, "p 0.62 0.38"; of many the likeliest by number, "p 87: 0.61 4: 0.22 ...".

    Of bounded numbers the two parameters of each distribution, "a 1.20 b 0.95". Between several choices or numbers stands a |.
    """
    if isinstance(space, gym.spaces.Box):
        parts = [f"a {a:.2f} b {b:.2f}" for a, b in policy.reshape(2, -1).T.tolist()]
        return " | ".join(_first(parts))
    is_single = isinstance(space, gym.spaces.Discrete)
    sizes, starts = ([int(space.n)], [int(space.start)]) if is_single else (space.nvec.tolist(), space.start.tolist())
    parts = [_choice_in_words(part, start) for part, start in zip(policy.split(sizes), starts, strict=True)]
    return "p " + " | ".join(_first(parts))


def _choice_in_words(probabilities: Float[Tensor, "A"], start: int) -> str:
    if len(probabilities) <= SHOWN:
        return " ".join(f"{each:.2f}" for each in probabilities.tolist())
    likeliest = probabilities.sort(descending=True, stable=True)
    pairs = [*zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)]
    # What a mask forbids has probability 0.
    possible = [f"{start + number}: {each:.2f}" for number, each in pairs if each > 0]
    return " ".join(possible if len(possible) <= LIKELIEST else [*possible[:LIKELIEST], "..."])


def _first(parts: list[str]) -> list[str]:
    return parts if len(parts) <= SHOWN else [*parts[:SHOWN], "..."]


def table_of(told: list[Moment]) -> list[list[str]]:
    """One row per moment: how many steps were taken, the scene, and who expected what."""
    return [[f"{moment.steps:3d}", moment.scene.text, moment.thoughts] for moment in told]


def strip(told: list[Moment]) -> NDArray[Any]:
    """The trial as one picture, frames left to right, then down."""
    frames = [draw(moment.scene, FRAME) for moment in told]
    blank = np.full_like(frames[0], 255)
    frames += [blank] * (-len(frames) % STRIP_COLUMNS)
    rows = [np.concatenate(frames[first : first + STRIP_COLUMNS], 1) for first in range(0, len(frames), STRIP_COLUMNS)]
    return np.concatenate(rows, 0)
