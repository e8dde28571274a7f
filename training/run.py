"""A run is a directory: `runs/<preset>-<seed>-<time>/`.

experiment.json: every setting. environment.json: versions, commit, hardware. checkpoints/: the two newest and the best. population/: one
directory per learner, as last saved. episodes/: recordings. results.json: what evaluations found. events...: TensorBoard's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from agents.agent import Agent, AgentConfig
from envs.third_party import ThirdPartyGame
from training.experiment import Experiment, spaces_of
from training.files import new_directory, write_atomically
from training.population import (
    check_finite,
    check_frozen,
    check_same_settings,
    frozen_in,
    is_an_agents_path,
    load_agent,
    runs_foreign_code,
    save_agent,
    wants_trust_to_play,
)
from training.settings import BadInput, from_json, is_pettingzoos, names_modules, to_json

FORMAT = 1
KEPT_CHECKPOINTS = 2


class Snapshot(NamedTuple):
    """All that the rest of a run depends on, besides its settings.

    iteration: how many are completed. weights: {learner: {name: tensor}}. optimisers: {learner: {parameter's number: {name: tensor}}}.
    stage: of the curriculum, in the next iteration; None where there is none. played: the stage of the last iteration. scores: of the
    iterations at that stage since the last checkpoint that was due.
    """

    iteration: int
    weights: dict[str, dict[str, Tensor]]
    optimisers: dict[str, dict[int, dict[str, Tensor]]]
    stage: int | None = None
    played: int | None = None
    scores: tuple[float, ...] = ()


class Run:
    """An open run. experiment: its settings."""

    def __init__(self, directory: Path, experiment: Experiment) -> None:
        self.directory = directory
        self.experiment = experiment

    @classmethod
    def create(cls, experiment: Experiment, root: Path) -> Run:
        """A new directory under root; never one that exists."""
        run = cls(new_directory(root, f"{experiment.preset}-{experiment.seed}"), experiment)
        run.write_json("experiment.json", {"format": FORMAT, "experiment": to_json(experiment), "frozen": frozen_in(experiment)})
        run.write_json("environment.json", _environment())
        return run

    @classmethod
    def open(cls, directory: str | Path, trust: bool = False) -> Run:
        """A run that exists. Raises BadInput naming what is wrong.

        trust: whether somebody else's module may be imported although it is a file that names it (PettingZoo's own always may).
        """
        directory = Path(directory)
        file = directory / "experiment.json"
        if not directory.is_dir():
            is_recording = directory.is_file() and directory.parent.name == "episodes"
            of_it = f"it is a recording: say its run, {directory.parent.parent}, and --recording {directory.stem}"
            raise BadInput(f"there is no run {str(directory)!r}; {of_it if is_recording else _runs_near(directory)}")
        if not file.is_file():
            raise BadInput(f"{directory} is no run: it has no experiment.json")
        try:
            about = json.loads(file.read_text())
            found = about["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{file} is damaged: {error}") from error
        if found != FORMAT:
            raise BadInput(f"{file} has format {found}; this version reads format {FORMAT}")
        try:
            experiment = from_json(about.get("experiment"), trust)
        # Whatever a damaged file makes of itself: it is the file that is wrong.
        except Exception as error:
            raise BadInput(f"{file} cannot be used: {error}") from error
        if not isinstance(experiment, Experiment):
            raise BadInput(f"{file} is damaged: it does not hold an experiment")
        for name in experiment.scheme.co_players(experiment.game):
            if wants_trust_to_play(name) and not trust:
                raise BadInput(f"{file} wants to run the code of co-player {name!r}; say --trust if you know it")
        return cls(directory, experiment)

    def go_on_for(self, iterations: int) -> None:
        """From now on the run has so many; schedules over a run (of a learning rate, say) are over all of them."""
        if iterations == self.experiment.iterations:
            return
        self.experiment = replace(self.experiment, iterations=iterations)
        about = {**self.read_json("experiment.json"), "experiment": to_json(self.experiment)}
        self.write_json("experiment.json", about)

    def write_json(self, name: str, data: Any) -> None:
        write_atomically(self.directory / name, (json.dumps(data, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The file's contents; an empty dict where there is none."""
        file = self.directory / name
        if not file.is_file():
            return {}
        try:
            data = json.loads(file.read_text())
        except ValueError as error:
            raise BadInput(f"{file} is damaged: {error}") from error
        if not isinstance(data, dict) or not isinstance(data.get("evaluations", {}), dict):
            raise BadInput(f"{file} is damaged: it does not hold results")
        return data

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else trains it meanwhile. Raises BadInput where somebody does; what a process held that died is free."""
        with open(self.directory / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(f"{self.directory} is being trained by another process; want it to end first") from None
            except OSError:
                # A file system without locks.
                pass
            yield

    def save_checkpoint(self, snapshot: Snapshot, score: float | None = None) -> bool:
        """Writes a checkpoint and the population; says whether it is the best so far. A failure leaves what was there as it was.

        score: reached at the stage that was played. Without one it is not compared: a run that was stopped and goes on has the same best
        checkpoint as one that was not.
        """
        folder = self.directory / "checkpoints"
        folder.mkdir(exist_ok=True)
        data = _checkpoint_bytes(snapshot, score, self.experiment.agent)
        write_atomically(folder / f"{snapshot.iteration:08d}.safetensors", data)
        best = folder / "best.safetensors"
        is_best = score is not None and (not best.exists() or (snapshot.played or 0, score) > _score_of(best))
        if is_best:
            write_atomically(best, data)
        for old in sorted(folder.glob("[0-9]*.safetensors"))[:-KEPT_CHECKPOINTS]:
            old.unlink()
        for name, spaces in spaces_of(self.experiment).items():
            # Its first weights are all overwritten.
            agent = self.experiment.agent.build(*spaces, seed=0)
            agent.load_state_dict(snapshot.weights[name])
            save_agent(agent, self.directory / "population" / name)
        return is_best

    def load_checkpoint(self, warn: Callable[[str], None] = print) -> Snapshot:
        """The newest checkpoint that is whole. A damaged one is named (through `warn`) and the one before is used.

        Raises BadInput where none is left, where it is of agents with other settings than the run's, and where a trained agent that the
        run learned with has changed since.
        """
        frozen = self.read_json("experiment.json").get("frozen", {})
        if not isinstance(frozen, dict):
            raise BadInput(f'{self.directory / "experiment.json"} is damaged: its "frozen" is {frozen!r}; want an object')
        check_frozen(self.experiment, frozen)
        problems = []
        for file in sorted((self.directory / "checkpoints").glob("[0-9]*.safetensors"), reverse=True):
            try:
                snapshot = read_checkpoint(file)
            except BadInput as problem:
                problems.append(str(problem))
                continue
            check_same_settings(self.experiment.agent, _about(file).get("agent"), self.directory / "experiment.json", file)
            for problem_text in problems:
                warn(f"{problem_text}; going on from {file.name}")
            return snapshot
        if problems:
            raise BadInput("; ".join(problems) + "; no other checkpoint is left")
        raise BadInput(f"{self.directory} has no checkpoint to go on from; start it anew with train {self.experiment.preset}")

    @property
    def iteration(self) -> int:
        """After which the population was saved last; 0 where it never was."""
        names = [file.stem for file in (self.directory / "checkpoints").glob("[0-9]*.safetensors")]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def population(self) -> dict[str, Agent]:
        """{learner: agent}, as last saved."""
        names = self.experiment.scheme.learners(self.experiment.game)
        folder = self.directory / "population"
        if not folder.is_dir():
            raise BadInput(f"{self.directory} has no population yet: it was stopped before its first checkpoint")
        return {name: load_agent(folder / name) for name in names}


def wants_trust(experiment: Experiment) -> bool:
    """Whether somebody has to say --trust before a file may have this experiment's modules imported."""
    game = experiment.game
    is_foreign = isinstance(game, ThirdPartyGame) and not is_pettingzoos(game.module)
    return is_foreign or names_modules(experiment) or any(map(_wants_trust, experiment.scheme.co_players(game)))


def _wants_trust(co_player: str) -> bool:
    about = Path(co_player) / "agent.json"
    return runs_foreign_code(co_player) or (is_an_agents_path(co_player) and names_modules(json.loads(about.read_text())))


def read_checkpoint(file: Path) -> Snapshot:
    """The snapshot in a checkpoint file. Raises BadInput naming the file if it is damaged."""
    try:
        about = _about(file)
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        found, iteration, digest = about["format"], int(about["iteration"]), about["sha256"]
        stage, played = (int(about[name]) if name in about else None for name in ("stage", "played"))
        scores = tuple(float(score) for score in about.get("scores", ()))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise BadInput(f"checkpoint {file} is damaged: {error}") from error
    if found != FORMAT:
        raise BadInput(f"checkpoint {file} has format {found}; this version reads format {FORMAT}")
    if _digest(tensors) != digest:
        raise BadInput(f"checkpoint {file} is damaged: its contents do not match its digest")
    check_finite(tensors, f"checkpoint {file}")
    weights: dict[str, dict[str, Tensor]] = {}
    optimisers: dict[str, dict[int, dict[str, Tensor]]] = {}
    try:
        for name, tensor in tensors.items():
            part, owner, rest = name.split("/", 2)
            if part == "weights":
                weights.setdefault(owner, {})[rest] = tensor
            else:
                number, key = rest.split("/")
                optimisers.setdefault(owner, {}).setdefault(int(number), {})[key] = tensor
    except ValueError as error:
        raise BadInput(f"checkpoint {file} is damaged: it holds a tensor {name!r}") from error
    return Snapshot(iteration, weights, optimisers, stage, played, scores)


def _about(file: Path) -> dict[str, Any]:
    """What a checkpoint says about itself: format, iteration, scores, digest, the agents' settings, the curriculum's stages."""
    with safe_open(file, framework="pt") as opened:
        about: dict[str, Any] = json.loads((opened.metadata() or {})["coterie"])
    return about


def _checkpoint_bytes(snapshot: Snapshot, score: float | None, agent: AgentConfig) -> bytes:
    """One file, so that a checkpoint is there as a whole or not at all."""
    tensors = {f"weights/{owner}/{key}": value for owner, weights in snapshot.weights.items() for key, value in weights.items()}
    for owner, buffers in snapshot.optimisers.items():
        tensors |= {f"optimisers/{owner}/{number}/{key}": value for number, state in buffers.items() for key, value in state.items()}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    about = {"format": FORMAT, "iteration": snapshot.iteration, "score": score, "sha256": _digest(tensors), "agent": to_json(agent)}
    about |= {name: stage for name, stage in (("stage", snapshot.stage), ("played", snapshot.played)) if stage is not None}
    about["scores"] = snapshot.scores
    return save_tensors(tensors, {"coterie": json.dumps(about)})


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _score_of(file: Path) -> tuple[int, float]:
    """What is best was reached at the highest stage of a curriculum; what comes first is easier, and so earns more."""
    try:
        about = _about(file)
        return int(about.get("played", about.get("stage", 0))), float(about["score"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError):
        return 0, float("-inf")


def _runs_near(directory: Path) -> str:
    root = directory.parent if directory.parent.is_dir() else Path("runs")
    names = sorted(path.name for path in root.iterdir() if (path / "experiment.json").is_file()) if root.is_dir() else []
    return f"the newest in {root} is {max(names, key=lambda name: (root / name).stat().st_mtime)}" if names else f"{root} holds none"


def _environment() -> dict[str, Any]:
    packages = ("torch", "ray", "pettingzoo", "gymnasium", "numpy", "tensorboard", "safetensors")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code that runs, with "+" where files differ from it."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, timeout=5, check=True).stdout
        return head + ("+" if changed.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None
