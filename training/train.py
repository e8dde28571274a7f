"""Training from start to finish: RLlib's iterations, the run's directory, TensorBoard and the screen."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from envs.game import seat_count
from training.board import Board
from training.experiment import Experiment
from training.run import Run, Snapshot, wants_trust


class Stopped(Exception):
    """A person stopped the run; the message says where it can go on. Ray still runs: it ends with the process, faster than by asking."""


class Failed(RuntimeError):
    """The run cannot go on; the message is one line for people."""


def train(run: Run, snapshot: Snapshot | None = None) -> None:
    """Trains a run to its end, from a snapshot if one is given. Raises Stopped or Failed; in both cases what is on disk is whole. Raises
    BadInput where another process trains it.
    """
    with run.held():
        _train(run, snapshot)


def _train(run: Run, snapshot: Snapshot | None) -> None:
    # Ray takes seconds to import; the command line should not.
    from training.rllib import algorithm as rllib
    from training.rllib.algorithm import SamplingFailed
    from training.rllib.learner import NonFiniteLoss

    experiment = run.experiment
    safe = snapshot
    saved_at = snapshot.iteration if snapshot else -1
    board = Board(run.directory, purge_after=snapshot.iteration + 1 if snapshot else None)
    screen = Screen(experiment, start=snapshot.iteration if snapshot else 0)
    played, scores = (snapshot.played, snapshot.scores) if snapshot else (None, ())
    # A checkpoint that is being written.
    due: tuple[Snapshot, float] | None = None
    stopped, algorithm = False, None
    try:
        with _interruptible() as listen:
            algorithm = rllib.build(experiment)
            # Ray takes SIGTERM for itself, and dies of it.
            listen()
            if snapshot:
                algorithm.restore_snapshot(snapshot)
            else:
                board.settings(experiment)
            safe = algorithm.snapshot()
            with screen:
                while algorithm.completed < experiment.iterations:
                    stage = algorithm.stage
                    algorithm.train()
                    # What was earned at an easier stage is no measure of what was earned at this one.
                    scores = (*scores, score_of(algorithm.report)) if stage == played else (score_of(algorithm.report),)
                    played = stage
                    safe = algorithm.snapshot()._replace(played=played, scores=scores)
                    board.scalars(algorithm.report, algorithm.completed)
                    screen.show(algorithm.completed, algorithm.report)
                    if algorithm.completed % experiment.checkpoint_every == 0 or algorithm.completed == experiment.iterations:
                        due = safe._replace(scores=()), sum(scores) / len(scores)
                        run.save_checkpoint(*due)
                        saved_at, scores, due = algorithm.completed, (), None
            board.hyper_parameters(experiment, algorithm.report)
            stored = run.read_json("results.json")
            run.write_json("results.json", {**stored, "training": {"iterations": algorithm.completed, **algorithm.report}})
    except KeyboardInterrupt:
        stopped = True
        if safe is not None and safe.iteration > max(saved_at, 0):
            run.save_checkpoint(*(due or (safe,)))
            saved_at = safe.iteration
        if saved_at < 1:
            raise Stopped("stopped before the first iteration was done; nothing to go on from") from None
        trust = " --trust" if wants_trust(experiment) else ""
        go_on = f"python launch.py train --resume {run.directory}{trust}"
        raise Stopped(f"stopped after iteration {saved_at}; go on with: {go_on}") from None
    except NonFiniteLoss as error:
        raise Failed(f"{_last_line(error)}; {_last_checkpoint(run, saved_at)}") from error
    except SamplingFailed as error:
        with contextlib.suppress(OSError):
            (run.directory / "failure.txt").write_text(str(error))
        last = str(error).strip().splitlines()[-1].removeprefix("training.settings.BadInput: ")
        raise Failed(f"{last} (all of it in {run.directory / 'failure.txt'}); {_last_checkpoint(run, saved_at)}") from error
    except OSError as error:
        raise Failed(f"{error.filename or 'the run'}: {error.strerror or error}; {_last_checkpoint(run, saved_at)}") from error
    finally:
        with contextlib.suppress(OSError):
            board.close()
        if not stopped:
            if algorithm is not None:
                algorithm.stop()
            rllib.stop_ray()


def score_of(report: dict[str, float]) -> float:
    """What "best" means: the mean reward per step of all learners over all kinds of games."""
    rewards = [value for name, value in report.items() if name.startswith("reward/")]
    return sum(rewards) / len(rewards)


class Screen:
    """The live display: a bar with the time left and, below, the figures, on a terminal; a line every ten seconds elsewhere."""

    def __init__(self, experiment: Experiment, start: int) -> None:
        self.experiment = experiment
        self.console = Console(file=sys.stdout)
        self.start = start
        self._begun = self._told = time.monotonic()
        self._progress = Progress(TextColumn("{task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn(), TextColumn("left"))
        self._task = self._progress.add_task("", total=experiment.iterations, completed=start)
        self._live = Live(self._progress, console=self.console, auto_refresh=False)
        self._is_live = self.console.is_terminal and not self.console.is_dumb_terminal

    def __enter__(self) -> Screen:
        if self.experiment.algorithm.shows:
            told = "The right action is shown while training: figures are the teacher's. What is learned, `launch.py evaluate` tells."
            self.console.print(Text(told))
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_live:
            self._live.stop()

    def show(self, iteration: int, report: dict[str, float]) -> None:
        figures = summary(report, alone=seat_count(self.experiment.game) == 1)
        if self._is_live:
            self._progress.update(self._task, completed=iteration)
            self._live.update(Group(self._progress, Text("\n".join(figures))), refresh=True)
            return
        now = time.monotonic()
        is_first = iteration == self.start + 1
        if is_first:
            # Starting up takes longer than an iteration and says nothing about the rest.
            self._begun = now
        if is_first or iteration == self.experiment.iterations or now - self._told >= 10:
            self._told = now
            left = (now - self._begun) / max(1, iteration - self.start - 1) * (self.experiment.iterations - iteration)
            words = [f"{iteration}/{self.experiment.iterations}", *([] if is_first else [f"{left:.0f} s left"]), *figures]
            self.console.print(Text("  ".join(words)), soft_wrap=True)


def summary(report: dict[str, float], alone: bool = False) -> list[str]:
    """Speed, and means over learners of reward and of the game's measures, by kind of co-player: a few words each.

    alone: nobody sits opposite.
    """
    by_figure: dict[str, dict[str, list[float]]] = {}
    for name, value in report.items():
        figure, _, rest = name.partition("/")
        if "/vs_" in rest:
            by_figure.setdefault(figure, {}).setdefault(rest.split("/vs_")[1], []).append(value)
    speed = report["speed/overall"]
    words = [f"{speed / 1000:.0f}k agent steps/s" if speed >= 10_000 else f"{speed:,.0f} agent steps/s"]
    words += [f"{name.removeprefix('curriculum/')} {value:g}" for name, value in report.items() if name.startswith("curriculum/")]
    for figure, kinds in by_figure.items():
        means = {kind: f"{sum(values) / len(values):.2f}" for kind, values in kinds.items()}
        words.append(f"{figure} {', '.join(mean if alone else f'{mean} vs {kind}' for kind, mean in means.items())}")
    return words


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """The first control-C, or polite kill, raises KeyboardInterrupt. After it both are ignored: the process is ending, and writing.

    What it yields sees to that again, where somebody else has taken a signal for himself meanwhile.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    def listen() -> None:
        for number in numbers:
            signal.signal(number, interrupt)

    listen()
    try:
        yield listen
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            for number, handler in before.items():
                signal.signal(number, handler)


def _last_line(error: BaseException) -> str:
    """RLlib wraps a remote learner's error in a traceback; the sentence is its last line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("NonFiniteLoss: ")[-1] if lines else type(error).__name__


def _last_checkpoint(run: Run, iteration: int) -> str:
    if iteration < 1:
        return f"no checkpoint had been written to {run.directory}"
    return f"the last good checkpoint is of iteration {iteration}, in {run.directory / 'checkpoints'}"
