"""Memories side by side: equal parameters, equal frames, the same tasks, seeds and luck; each tested on delays ten times longer, too.

A cell is one memory learning one task from one seed, in at most `seconds` of one core's own time, which a busy machine does not use up
sooner. `TASKS` holds what cells learn and how. A run's directory has study.json (the settings), cells/ (a file per cell that is done: a
second call goes on with the others), table.md and figure.png, both as of the last cell, and what TensorBoard shows.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents.agent import AgentConfig
from agents.auxiliary import Auxiliary
from agents.occupant import Occupant
from envs.ballet import Ballet
from envs.chance import Purpose, seeds_of
from envs.diagnostics.associative_recall import AssociativeRecall
from envs.diagnostics.match_to_sample import MatchToSample
from envs.game import Game
from envs.settings import nearest
from memory import MEMORIES
from memory.budget import parameters_of, shape_of, with_parameters
from memory.memory import MemoryConfig
from memory.stack import Layers
from training.algorithms import Supervised
from training.allocator import keep_freed_memory
from training.board import Board
from training.cells import run_cells
from training.evaluation.statistics import Interval, bootstrap
from training.experiment import Experiment
from training.files import new_directory, write_atomically
from training.occupants import check_own
from training.plain import PlainTrainer
from training.rollout import Rollout
from training.schemes.self_play import SelfPlay
from training.seating import one_table
from training.settings import BadInput, build, is_elsewhere, is_trusted, load, made_elsewhere, to_json

NAME, SETTINGS = "memory_benchmark", "study.json"
FORMAT = 3
RESULTS = Path(__file__).parent.parent / "docs" / "results.md"
BEGIN, END = f"<!-- {NAME}: written by its command -->", f"<!-- {NAME}: end -->"
# Width of what enters a memory.
EMBEDDING = 64
# Of a cell's time; the rest is for tests.
TRAINING_SHARE = 0.88
# Steps between two looks at the clock.
PIECE = 16
# Steps from the word to the end: a teacher takes three to any dancer, and others may make a wrong turn good.
STEPS_OF_A_TEACHER, STEPS_TO_CHOOSE = 4, 8
# Steps: fewer than most delays, so that to remember so far back is not all that is to be learned.
LATELY = (1, 2, 3, 4, 5, 6, 7, 8)


class Task(NamedTuple):
    """learned: the game to learn. tested, longer: the games to test on, of delays as learned and ten times as long. measure: theirs, the
    share that is right. chance: its value without memory. trials: of an iteration.
    """

    learned: Game
    tested: Game
    longer: Game
    measure: str
    chance: float
    algorithm: Supervised
    trials: int
    iterations: int
    auxiliary: Auxiliary = Auxiliary()


def _ballet(delay: int, steps: int = STEPS_TO_CHOOSE) -> Ballet:
    watching = Ballet(delay=delay, limit=100_000).watching
    return Ballet(delay=delay, limit=watching + steps, pixels=False)


def _recall(slots: int) -> AssociativeRecall:
    return AssociativeRecall(pairs=4, keys=4, values=4, slots=slots, power=1.0)


# For cells of three minutes on one core; what learns from it and what does not is in docs/log.md.
TASKS: dict[str, Task] = {
    "match_to_sample": Task(
        # With nothing but the longest delay to learn from, memories stay at chance. One question in a trial: of several samples HCAM, whose
        # summaries know no order, would not know which was the last.
        learned=MatchToSample(n=16, queries=1, curriculum="many"),
        tested=MatchToSample(n=16, queries=1),
        longer=MatchToSample(n=160, queries=1),
        measure="correct",
        chance=0.5,
        algorithm=Supervised(shows=True, learning_rate=0.004, final_learning_rate=0.0004, minibatches=4),
        trials=256,
        iterations=100,
        # What was seen lately: whether two symbols are the same is a parity, at whose chance several memories stay without that.
        auxiliary=Auxiliary(lag=0.3, lags=LATELY),
    ),
    "associative_recall": Task(
        # Keys come again evenly, so that delays grow with the slots: 10.5 steps on average, and 105 in the longer one.
        learned=_recall(12),
        tested=_recall(12),
        longer=_recall(201),
        measure="correct",
        chance=1 / 4,
        # Many small steps: in minibatches of 32 trials six memories were still on the plateau of guessing among the values shown; and for
        # long, or LightNet, Aaren, linear attention and the state space leave it when there is little left of the learning rate.
        algorithm=Supervised(shows=True, learning_rate=0.004, final_learning_rate=0.001, minibatches=16),
        trials=256,
        iterations=300,
        # What was seen lately: most stay for long at guessing among the values shown, whatever key they came with (docs/log.md).
        auxiliary=Auxiliary(lag=0.3, lags=LATELY),
    ),
    "ballet": Task(
        # Who learns from the long delay alone is at chance after three minutes (docs/log.md), so that it is what is tested.
        learned=_ballet(5, STEPS_OF_A_TEACHER),
        tested=_ballet(5),
        longer=_ballet(48),
        measure="success",
        chance=0.5,
        # Many small steps: with 8 trials in each HCAM was right in 0.94 after 90 iterations, where with 16 it was at chance after 185.
        algorithm=Supervised(shows=True, learning_rate=0.002, final_learning_rate=0.0005, minibatches=32),
        trials=256,
        iterations=160,
        # What is seen next: without that everyone stays at chance (docs/log.md).
        auxiliary=Auxiliary(forecast=1.0),
    ),
}


# Of memories whose own settings are for longer trials than these, or take longer than a cell has, by task. HCAM's chunks are its tasks' own
# in the paper, too: were its window as long as the delay of what comes in one step, it would learn nothing of recall; a dance is sixteen.
_STEPS_APART = {"chunk_length": 8, "recalled": 2, "chunks": 64, "window": 4}
SETTINGS_OF: dict[tuple[str, str], dict[str, Any]] = {
    ("hcam", "match_to_sample"): _STEPS_APART,
    ("hcam", "associative_recall"): _STEPS_APART,
    ("hcam", "ballet"): {"chunk_length": 16, "recalled": 2, "chunks": 12, "window": 16},
    # A value comes one step after its key: a convolution binds them in the first layer, within 30 iterations; without, some seeds never do.
    **{(memory, "associative_recall"): {"taps": 4} for memory in ("aaren", "linear_attention", "gated_linear", "lightnet")},
    # Short chunks may have a larger rate: with 16 and 0.1 it writes so little a step that ballet stays at chance.
    ("titans_linear", "ballet"): {"chunk_length": 4, "rate": 0.4},
    **{(memory, task): {"expansion": 1} for memory in ("moneta", "memora") for task in TASKS},
}


class Cell(NamedTuple):
    memory: str
    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.memory}-{self.task}-{self.seed}"


@dataclass(frozen=True)
class MemoryBenchmark:
    """All memories at equal size on three tasks, with a table and a figure: hours for all of them, minutes for a few.

    memories, tasks: names with commas between, or "all"; a memory may be somebody's own, `module:object` (docs/adding.md). seeds: how many,
    from 0. parameters: of each memory, as near as its widths allow. layers: of those that consist of blocks, where `SETTINGS_OF` has
    nothing else. iterations: of each cell (0: as many as `TASKS` says). trials: to test a cell on. seconds: of a core's own time, for a
    cell. workers: cells at a time (0: as many as there are cores). writes_results: whether table and figure go into docs/results.md in the
    end.
    """

    memories: str = "all"
    tasks: str = "all"
    seeds: int = 3
    parameters: int = 50_000
    layers: int = 2
    iterations: int = 0
    trials: int = 200
    seconds: float = 180.0
    workers: int = 0
    writes_results: bool = False

    def __post_init__(self) -> None:
        _chosen(self.memories, MEMORIES, "memory", is_open=True)
        _chosen(self.tasks, TASKS, "task")
        for name, least in (("seeds", 1), ("parameters", 1), ("layers", 1), ("iterations", 0), ("trials", 1), ("workers", 0)):
            if not least <= getattr(self, name) <= 10**9:
                raise ValueError(f"{name} is {getattr(self, name)}; want from {least} to 1,000,000,000")
        if not 1 <= self.seconds <= 10**6:
            raise ValueError(f"seconds is {self.seconds}; want from 1 to 1,000,000")
        if self.writes_results and not RESULTS.is_file():
            raise ValueError(f"writes_results is True, but there is no {RESULTS}; want False")

    def memory_of(self, name: str, task: str) -> MemoryConfig:
        """The memory called so, in its width for the benchmark. Raises BadInput where no width will do."""
        module, _, found = name.partition(":")
        plain: Any = made_elsewhere(module, found, "memory", MemoryConfig) if found else load(MEMORIES[name])()
        if not hasattr(plain, "width"):
            raise BadInput(f"memory {name} has no setting called width, by which memories are made equal")
        # At equal size few wide layers learn sooner than many narrow ones, and compute quicker.
        few = {"layers": self.layers} if isinstance(shape_of(plain, EMBEDDING), Layers) else {}
        try:
            return with_parameters(replace(plain, **few | SETTINGS_OF.get((name, task), {})), EMBEDDING, self.parameters)
        except ValueError as error:
            raise BadInput(f"parameters is {self.parameters}: {name}: {error}") from error

    def check(self) -> None:
        """Raises BadInput where some memory cannot have as many parameters, or one of somebody's breaks the law."""
        for name in self.memory_names:
            for task in self.task_names:
                check_own(self.memory_of(name, task), EMBEDDING)

    @property
    def memory_names(self) -> list[str]:
        return _chosen(self.memories, MEMORIES, "memory", is_open=True)

    @property
    def names_modules(self) -> bool:
        """Whether a memory is somebody's own, whose code a file may name only if it is trusted."""
        return any(name not in MEMORIES for name in self.memory_names)

    @property
    def task_names(self) -> list[str]:
        return _chosen(self.tasks, TASKS, "task")

    @property
    def cells(self) -> list[Cell]:
        """Seed after seed, so that whoever stops early has seen everything once."""
        return [Cell(memory, task, seed) for seed in range(self.seeds) for task in self.task_names for memory in self.memory_names]

    def experiment(self, cell: Cell) -> Experiment:
        task = TASKS[cell.task]
        return Experiment(
            preset=NAME,
            game=task.learned,
            # Nothing that is done tells anything here, and who is taught would see the teacher's answers.
            agent=AgentConfig(
                memory=self.memory_of(cell.memory, cell.task),
                embedding=EMBEDDING,
                sees_action=False,
                sees_reward=False,
                acts="best",
                auxiliary=task.auxiliary,
            ),
            scheme=SelfPlay(),
            algorithm=task.algorithm,
            trials=task.trials,
            iterations=self.iterations or task.iterations,
            seed=cell.seed,
            suite="alone",
        )


def create(benchmark: MemoryBenchmark, root: Path) -> Path:
    """A new directory under root, with the settings in it."""
    directory = new_directory(root, NAME)
    (directory / "cells").mkdir()
    about = {"format": FORMAT, "study": NAME, "settings": to_json(benchmark)}
    write_atomically(directory / SETTINGS, (json.dumps(about, indent=1) + "\n").encode())
    return directory


def reopen(directory: Path) -> MemoryBenchmark:
    """The settings of a benchmark that was begun. Raises BadInput where they cannot be read, or name a module that nobody trusts."""
    file = directory / SETTINGS
    try:
        about = json.loads(file.read_text())
        found, settings = about["format"], about["settings"]
        settings.pop("type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{file} is damaged: {error}") from error
    if found != FORMAT:
        raise BadInput(f"{file} has format {found}; this version reads format {FORMAT}")
    benchmark: MemoryBenchmark = build(MemoryBenchmark, settings, NAME)
    for name in benchmark.memory_names:
        if name not in MEMORIES and not is_trusted(name.partition(":")[0]):
            raise BadInput(f"{file} wants to run the code of memory {name!r}; say --trust if you know it")
    return benchmark


def carry_out(benchmark: MemoryBenchmark, directory: Path, tell: Callable[[str], None] = print) -> dict[Cell, str]:
    """Runs the cells that are not done yet, `workers` at a time; tables and figures follow every one. {cell that failed: why}."""
    folder = directory / "cells"
    done = {cell: result for cell in benchmark.cells if (result := _read(folder / f"{cell}.json"))}
    failed: dict[Cell, str] = {}
    missing = {str(cell): cell for cell in benchmark.cells if cell not in done}
    board = Board(directory)

    def show() -> None:
        rows = rows_of(benchmark, done, failed)
        write_atomically(directory / "table.md", table(benchmark, rows).encode())
        board.table(NAME, HEADER, [list(row.texts) for row in rows], len(done))
        write_atomically(directory / "figure.png", _figure(benchmark, rows, board, len(done)))

    def finished(name: str, problem: str | None) -> None:
        cell = missing[name]
        if problem is None:
            done[cell] = _read(folder / f"{cell}.json") or {}
        else:
            failed[cell] = problem
        show()
        tell(f"{len(done)}/{len(benchmark.cells)} {cell}: {problem or _told(done[cell])}")

    parts = {name: functools.partial(run_cell, benchmark, cell) for name, cell in missing.items()}
    try:
        # A cell looks at its core's clock itself, and only one that hangs is killed, after so long that no busy machine is taken for that.
        run_cells(parts, folder, benchmark.workers or os.cpu_count() or 1, 4 * benchmark.seconds + 60, finished)
        show()
    finally:
        board.close()
    if benchmark.writes_results:
        write_results(table(benchmark, rows_of(benchmark, done, failed)), (directory / "figure.png").read_bytes())
    return failed


def run_cell(benchmark: MemoryBenchmark, cell: Cell) -> dict[str, Any]:
    """What becomes of one cell, as plain JSON: sizes, frames learned from and their share of those wanted, and what was right in the tests.

    `frames_per_second` counts the core's own seconds. `tested` and `longer` are [trials], each the share that was right; `longer` is None
    where time ran out. Raises ValueError if weights are not finite in the end.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    begun = time.process_time()
    task, experiment = TASKS[cell.task], benchmark.experiment(cell)
    trainer = PlainTrainer(experiment, {})
    agent = trainer.agents["learner_0"]
    ready = time.process_time()
    while trainer.iteration < experiment.iterations and (
        trainer.iteration == 0 or time.process_time() - begun < TRAINING_SHARE * benchmark.seconds
    ):
        trainer.train()
    frames = trainer.iteration * experiment.trials * experiment.steps
    speed = frames / (time.process_time() - ready)
    if not all(bool(parameter.isfinite().all()) for parameter in agent.parameters()):
        raise ValueError(f"weights are not finite after {frames:,} frames")
    return {
        "parameters": parameters_of(experiment.agent.memory, EMBEDDING),
        "state_size": agent.memory.state_size,
        "frames": frames,
        "share": trainer.iteration / experiment.iterations,
        "frames_per_second": speed,
        "tested": examine(agent, task.tested, task.measure, benchmark.trials),
        "longer": examine(agent, task.longer, task.measure, benchmark.trials, begun + benchmark.seconds),
    }


def examine(occupant: Occupant, game: Game, measure: str, trials: int, deadline: float = float("inf")) -> list[float] | None:
    """[trials] means of the measure, on luck that nobody trains on, the same for everyone; None if it is not over by the deadline, in
    seconds of this process.

    Raises BadInput where what the occupant remembers is not finite.
    """
    rollout = Rollout(game, one_table(("learner_0",), trials), {"learner_0": occupant})
    table = rollout.start(seeds_of(0, Purpose.EVALUATION, trials))
    total, count = torch.zeros(trials), torch.zeros(trials)
    for first in range(0, game.max_steps, PIECE):
        if time.process_time() > deadline:
            return None
        table, log = rollout.play(table, min(PIECE, game.max_steps - first))
        counts = ~log.measures[measure].isnan() & (log.trial == 0)
        total += log.measures[measure].where(counts, 0.0).sum(0)
        count += counts.sum(0)
    return (total / count).tolist()


class Row(NamedTuple):
    """A line of the table: what cells of one task and memory came to. tested, longer: None where nothing is known."""

    task: str
    memory: str
    tested: Interval | None
    longer: Interval | None
    texts: tuple[str, ...]


HEADER = ["task", "memory", "parameters", "state", "frames/s", "right, as trained", "right, ten times longer", "notes"]


def rows_of(benchmark: MemoryBenchmark, done: Mapping[Cell, dict[str, Any]], failed: Mapping[Cell, str]) -> list[Row]:
    """Task after task, the best first."""
    rows: list[Row] = []
    for task in benchmark.task_names:
        of_task = [_row(benchmark, memory, task, done, failed) for memory in benchmark.memory_names]
        rows += sorted(of_task, key=lambda row: -row.tested.mean if row.tested else 1.0)
    return rows


def _row(benchmark: MemoryBenchmark, memory: str, task: str, done: Mapping[Cell, dict[str, Any]], failed: Mapping[Cell, str]) -> Row:
    cells = [Cell(memory, task, seed) for seed in range(benchmark.seeds)]
    there = [done[cell] for cell in cells if cell in done]
    tested, longer = (_interval([result[name] for result in there if result[name] is not None]) for name in ("tested", "longer"))
    notes = [f"seed {cell.seed} failed: {failed[cell]}" for cell in cells if cell in failed]
    notes += [f"seed {cell.seed} was cut at {done[cell]['share']:.0%}" for cell in cells if cell in done and done[cell]["share"] < 1]
    notes += [f"seed {cell.seed}: no time for longer delays" for cell in cells if cell in done and done[cell]["longer"] is None]
    missing = [str(cell.seed) for cell in cells if cell not in done and cell not in failed]
    notes += [f"to do: seed {', '.join(missing)}"] if missing else []
    sizes = ["", "", ""]
    if there:
        speed = float(np.median([result["frames_per_second"] for result in there]))
        sizes = [f"{there[0]['parameters']:,}", f"{there[0]['state_size']:,}", f"{speed:,.0f}"]
    return Row(task, memory, tested, longer, (task, memory, *sizes, str(tested or ""), str(longer or ""), "; ".join(notes)))


def _interval(by_seed: list[list[float]]) -> Interval | None:
    values: NDArray[Any] = np.array(by_seed)
    return bootstrap(values) if by_seed else None


def table(benchmark: MemoryBenchmark, rows: list[Row]) -> str:
    """Markdown: what was done, then the table."""
    known = [row.tested for row in rows if row.tested is not None]
    covers = max(known, key=lambda interval: interval.seeds).covers if known else "nothing yet"
    frames = ", ".join(f"{_frames(benchmark, name):,} of {name}" for name in benchmark.task_names)
    chance = ", ".join(f"{TASKS[name].chance:.3g} in {name}" for name in benchmark.task_names)
    lines = [HEADER, ["---"] * len(HEADER), *([text.replace("|", "/") for text in row.texts] for row in rows)]
    return "\n".join(
        [
            f"Memories of about {benchmark.parameters:,} parameters; frames to learn from: {frames}. Chance: {chance}. State: numbers",
            f"carried from step to step. Share right in {benchmark.trials} trials per seed, 95 % interval, allowing for {covers}.",
            "",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
        ]
    )


def _frames(benchmark: MemoryBenchmark, name: str) -> int:
    task = TASKS[name]
    return (benchmark.iterations or task.iterations) * task.trials * task.learned.max_steps


def _figure(benchmark: MemoryBenchmark, rows: list[Row], board: Board, step: int) -> bytes:
    panels: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {}
    for name in benchmark.task_names:
        series = panels[name] = {"as trained": {}, "ten times longer": {}}
        for row in rows:
            for label, interval in zip(series, (row.tested, row.longer), strict=True):
                if row.task == name and interval is not None:
                    series[label][row.memory] = interval[:3]
    chance = {name: TASKS[name].chance for name in benchmark.task_names}
    return board.dots(NAME, panels, benchmark.memory_names, "share right (dashed: chance)", chance, step)


def write_results(text: str, figure: bytes, file: Path = RESULTS) -> None:
    """Puts the text and the figure, as a file beside the page, between its two marks. Raises BadInput where they are missing."""
    page = file.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"{file} has no place for the table; want the lines {BEGIN} and {END}")
    picture = file.with_name(f"{NAME}.png")
    write_atomically(picture, figure)
    link = f"![share right by memory, as trained and ten times longer]({picture.name})"
    write_atomically(file, f"{before}{begin}\n\n{text}\n{link}\n\n{end}{after}".encode())


def _read(file: Path) -> dict[str, Any] | None:
    """A cell's result; None where there is none."""
    if not file.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{file} is damaged: {error}; delete it to run the cell again") from error
    return result


def _told(result: dict[str, Any]) -> str:
    longer = "no time for longer delays" if result["longer"] is None else f"{np.mean(result['longer']):.3f} ten times longer"
    return f"{np.mean(result['tested']):.3f} right, {longer}, {result['frames_per_second']:,.0f} frames/s"


def _chosen(text: str, names: Mapping[str, Any], what: str, is_open: bool = False) -> list[str]:
    """The names in a list with commas, each once; all of them for "all". Raises BadInput for one that does not exist.

    is_open: `module:object` is a name, too.
    """
    if text == "all":
        return list(names)
    chosen = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in chosen:
        if name not in names and not (is_open and is_elsewhere(*name.partition(":")[::2])):
            raise BadInput(f"no {what} is called {name!r}; {nearest(name, names)}")
    return chosen
