"""Training through RLlib: the same numbers whoever samples and learns, resuming, and what happens when something breaks."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.games import Breaks
from training import run as run_module
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.population import co_player
from training.rllib import algorithm as rllib
from training.run import Run, Snapshot
from training.settings import BadInput, override
from training.train import Failed, Stopped, summary, train

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROOT = Path(__file__).parent.parent


def experiment_with(*assignments: str) -> Experiment:
    experiment = Experiment(preset="small", seed=5, trials=24, iterations=4, checkpoint_every=2)
    for assignment in ("game.rounds=6", "agent.memory.width=8", "agent.embedding=4", *assignments):
        experiment = override(experiment, assignment)
    return experiment


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    # Enough for every test here, whatever the machine has.
    rllib.start_ray(Experiment(runners=4, learners=2))
    yield
    rllib.stop_ray()


def trained(experiment: Experiment, iterations: int, start: Snapshot | None = None) -> Snapshot:
    algorithm = rllib.build(experiment)
    try:
        if start:
            algorithm.restore_snapshot(start)
        for _ in range(iterations):
            algorithm.train()
        return algorithm.snapshot()
    finally:
        algorithm.stop()


def assert_same(one: Snapshot, other: Snapshot) -> None:
    assert (one.iteration, one.stage) == (other.iteration, other.stage)
    kept, wanted = ({"weights": side.weights, "optimisers": side.optimisers} for side in (one, other))
    _assert_equal(kept, wanted, "")


def _assert_equal(one: Any, other: Any, where: str) -> None:
    if not isinstance(one, dict):
        assert torch.equal(one, other), where
        return
    assert one.keys() == other.keys(), where
    for name, value in one.items():
        _assert_equal(value, other[name], f"{where}/{name}")


@pytest.fixture(scope="module")
def reference() -> Snapshot:
    """Three iterations in one process."""
    return trained(experiment_with(), 3)


def test_one_seed_gives_the_same_run_twice(reference: Snapshot) -> None:
    assert_same(trained(experiment_with(), 3), reference)


def test_another_seed_gives_another_run(reference: Snapshot) -> None:
    other = trained(experiment_with("seed=6"), 1)
    assert not torch.equal(other.weights["learner_0"]["memory.from_hidden"], reference.weights["learner_0"]["memory.from_hidden"])


@pytest.mark.long
@pytest.mark.parametrize("assignments", [("runners=1",), ("runners=3",), ("learners=1",)])
def test_whoever_samples_or_learns_the_run_is_the_same(assignments: tuple[str, ...], reference: Snapshot) -> None:
    assert_same(trained(experiment_with(*assignments), 3), reference)


def test_rllib_learns_what_the_plain_loop_learns(reference: Snapshot) -> None:
    trainer = PlainTrainer(experiment_with(), {"random_table": co_player("random_table")})
    for _ in range(3):
        trainer.train()
    for name, agent in trainer.agents.items():
        for key, value in agent.state_dict().items():
            assert torch.equal(value, reference.weights[name][key]), (name, key)


def test_rllib_learns_from_a_teacher_what_the_plain_loop_learns_and_says_nothing_of_how_far_the_policy_moved() -> None:
    experiment = experiment_with(
        "game=match_to_sample:n=5",
        "scheme=self_play",
        "algorithm=supervised:shows=true,minibatches=2",
        "agent.acts=best",
        # Of these lags one is longer than any trial: what reads it has no gradient.
        "agent.auxiliary.lag=0.3",
        "agent.auxiliary.lags=1,1000",
        "trials=32",
    )
    trainer = PlainTrainer(experiment, {})
    algorithm = rllib.build(experiment)
    try:
        for _ in range(2):
            trainer.train()
            algorithm.train()
        report, snapshot = algorithm.report, algorithm.snapshot()
    finally:
        algorithm.stop()
    # The teacher is always right.
    assert report["correct/learner_0/vs_learner"] == 1.0
    assert "learning/learner_0/entropy" in report
    assert report["learning/learner_0/lag"] > 0
    assert "learning/learner_0/kl" not in report
    for key, value in trainer.agents["learner_0"].state_dict().items():
        assert torch.equal(value, snapshot.weights["learner_0"][key]), key


@pytest.mark.long
def test_two_learner_processes_agree_with_each_other_and_learn(reference: Snapshot) -> None:
    snapshot = trained(experiment_with("learners=2", "algorithm=a2c", "algorithm.minibatches=1"), 2)
    alone = trained(experiment_with("algorithm=a2c", "algorithm.minibatches=1"), 2)
    # One update on all rows: the mean of two halves' gradients is the whole's, up to rounding.
    for name, value in snapshot.weights["learner_0"].items():
        torch.testing.assert_close(value, alone.weights["learner_0"][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("runners", [0, 2])
def test_a_resumed_run_goes_on_to_the_same_numbers(runners: int, reference: Snapshot, tmp_path: Path) -> None:
    run = Run.create(experiment_with(), tmp_path)
    run.save_checkpoint(trained(experiment_with(), 2), 0.0)
    assert_same(trained(experiment_with(f"runners={runners}"), 1, start=run.load_checkpoint()), reference)


def rising_with(*assignments: str) -> Experiment:
    """A curriculum that rises after some iterations and not after others."""
    game = "game=match_to_sample:n=9,curriculum=many"
    learns = ("scheme=self_play", "algorithm=supervised:learning_rate=0.01,minibatches=2", "agent.acts=best", "trials=32", "iterations=8")
    return experiment_with(game, *learns, "curriculum.raises=n", "curriculum.above=0.48", *assignments)


@pytest.mark.long
@pytest.mark.parametrize("runners", [0, 2])
def test_a_curriculum_rises_as_in_the_plain_loop_whoever_samples_and_after_resuming(runners: int, tmp_path: Path) -> None:
    trainer, stages = PlainTrainer(rising_with(), {}), []
    for _ in range(8):
        trainer.train()
        stages.append(trainer.stage)
    assert stages == [2, 2, 2, 3, 3, 3, 4, 4]
    run = Run.create(rising_with(f"runners={runners}"), tmp_path)
    run.save_checkpoint(trained(run.experiment, 5), 0.0)
    assert run.load_checkpoint().stage == stages[4]
    snapshot = trained(run.experiment, 3, start=run.load_checkpoint())
    assert (snapshot.iteration, snapshot.stage) == (8, stages[7])
    for key, value in trainer.agents["learner_0"].state_dict().items():
        assert torch.equal(value, snapshot.weights["learner_0"][key]), key


def test_a_runner_does_not_play_with_another_agent_than_the_run_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rllib, "frozen_in", lambda experiment: {"runs/a/population/learner_0": "its digest then"})
    with pytest.raises(BadInput, match=r"^co-player runs/a/population/learner_0 is not the agent that the run began with: it is gone"):
        rllib.build(experiment_with())


def test_the_stage_that_was_played_is_reported() -> None:
    algorithm = rllib.build(rising_with("curriculum.above=0"))
    try:
        reported = []
        for _ in range(3):
            algorithm.train()
            reported.append(algorithm.report["curriculum/n"])
        assert (reported, algorithm.stage) == ([2.0, 3.0, 4.0], 5)
        assert "n 4" in summary(algorithm.report)
    finally:
        algorithm.stop()


def test_a_wrong_measure_of_a_curriculum_stops_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rllib, "stop_ray", lambda: None)
    with pytest.raises(BadInput, match=r"curriculum.measures has 'right'; what is measured in this game is correct"):
        train(Run.create(rising_with("curriculum.measures=right"), tmp_path))


class Pretend:
    """Earns what it is told to, iteration after iteration, at the stages it is told; a person stops it after `stops` iterations."""

    def __init__(self, experiment: Experiment, rewards: list[float], stages: list[int], stops: int = 1000) -> None:
        self.rewards, self.stages, self.stops = rewards, stages, stops
        self.completed, self.report = 0, dict[str, float]()
        self._weights = {name: dict(agent.state_dict()) for name, agent in experiment.build_learners().items()}

    @property
    def stage(self) -> int:
        return self.stages[min(self.completed, len(self.stages) - 1)]

    def train(self) -> None:
        if self.completed == self.stops:
            raise KeyboardInterrupt
        self.report = {"reward/learner_0/vs_learner": self.rewards[self.completed], "speed/overall": 1.0}
        self.completed += 1

    def snapshot(self) -> Snapshot:
        return Snapshot(self.completed, self._weights, {}, self.stage)

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        self.completed = snapshot.iteration

    def stop(self) -> None: ...


def best_of(run: Run) -> tuple[int, float]:
    """Iteration and score of the best checkpoint."""
    with safe_open(run.directory / "checkpoints" / "best.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["coterie"])
    return about["iteration"], about["score"]


@pytest.mark.parametrize("stops", [1, 2, 3, 5, 1000])
def test_the_best_checkpoint_is_the_same_whether_or_not_the_run_was_stopped(
    stops: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means of two iterations each: -6, -3, -5."""
    monkeypatch.setattr(rllib, "stop_ray", lambda: None)
    experiment = experiment_with("iterations=6", "checkpoint_every=2")
    rewards = [-11.0, -1.0, -2.0, -4.0, -1.0, -9.0]
    run = Run.create(experiment, tmp_path)
    monkeypatch.setattr(rllib, "build", lambda given: Pretend(given, rewards, [0] * 6, stops))
    if stops < 6:
        with pytest.raises(Stopped):
            train(run)
        assert (run.directory / "checkpoints" / "best.safetensors").exists() == (stops > 1)
        monkeypatch.setattr(rllib, "build", lambda given: Pretend(given, rewards, [0] * 6))
        train(run, run.load_checkpoint())
    else:
        train(run)
    assert best_of(run) == (4, -3.0)


def test_a_stop_while_a_checkpoint_is_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the numbered file and the best one."""
    monkeypatch.setattr(rllib, "stop_ray", lambda: None)
    run = Run.create(experiment_with("iterations=6", "checkpoint_every=2"), tmp_path)
    monkeypatch.setattr(rllib, "build", lambda given: Pretend(given, [-11.0, -1.0, -2.0, -4.0, -1.0, -9.0], [0] * 6))
    save, calls = run_module.write_atomically, []

    def stopped(file: Path, data: bytes) -> None:
        calls.append(file.name)
        if calls.count("best.safetensors") == 2 and "stopped" not in calls:
            calls.append("stopped")
            raise KeyboardInterrupt
        save(file, data)

    monkeypatch.setattr(run_module, "write_atomically", stopped)
    with pytest.raises(Stopped, match="stopped after iteration 4"):
        train(run)
    assert best_of(run) == (4, -3.0)
    train(run, run.load_checkpoint())
    assert best_of(run) == (4, -3.0)


def test_the_best_checkpoint_is_of_the_highest_stage_that_was_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an easier stage paid counts neither for the stage that comes next nor in a mean with what that one pays."""
    monkeypatch.setattr(rllib, "stop_ray", lambda: None)
    run = Run.create(experiment_with("iterations=8", "checkpoint_every=2"), tmp_path)
    monkeypatch.setattr(rllib, "build", lambda given: Pretend(given, [9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 1.0, 1.0], [2, 2, 2, 3, 3, 3, 3, 3, 3]))
    train(run)
    assert best_of(run) == (6, 2.5)


@pytest.mark.long
def test_a_killed_runner_is_replaced_and_the_run_is_the_same(reference: Snapshot) -> None:
    algorithm = rllib.build(experiment_with("runners=2"))
    try:
        algorithm.train()
        group = algorithm.env_runner_group
        victim = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)[0]
        os.kill(victim, signal.SIGKILL)
        algorithm.train()
        algorithm.train()
        assert_same(algorithm.snapshot(), reference)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and group.num_healthy_remote_workers() < 2:
            algorithm.train()
        pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
        assert len(pids) == 2
        assert victim not in pids
    finally:
        algorithm.stop()


@pytest.mark.long
@pytest.mark.parametrize("runners", [0, 1])
def test_a_bug_while_sampling_is_shown_and_does_not_hang(runners: int) -> None:
    algorithm = rllib.build(replace(experiment_with(), game=Breaks(), runners=runners))
    try:
        with pytest.raises(RuntimeError, match="the third step always fails"):
            algorithm.train()
    finally:
        algorithm.stop()


@pytest.mark.long
@pytest.mark.parametrize("learners", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_run_by_name_and_keeps_the_checkpoint(
    learners: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rllib, "stop_ray", lambda: None)
    run = Run.create(experiment_with(f"learners={learners}"), tmp_path)
    good = trained(experiment_with(), 2)
    run.save_checkpoint(good, 0.0)
    # The first update makes weights of it with which the second one's loss is computed.
    poisoned = copy.deepcopy(good.optimisers)
    poisoned["learner_1"][0]["exp_avg"].fill_(torch.nan)
    with pytest.raises(Failed, match=r"the loss of learner_1 is nan.*the last good checkpoint is of iteration 2"):
        train(run, good._replace(optimisers=poisoned))
    assert_same(run.load_checkpoint(), good)


def test_weights_that_are_not_finite_stop_the_run_where_they_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rllib, "stop_ray", lambda: None)
    run = Run.create(experiment_with(), tmp_path)
    good = trained(experiment_with(), 2)
    run.save_checkpoint(good, 0.0)
    poisoned = {**good.weights, "learner_1": {**good.weights["learner_1"], "value_head.bias": torch.tensor([torch.nan])}}
    with pytest.raises(Failed, match=r"^learner_1: its value holds nan as it plays.*the last good checkpoint is of iteration 2"):
        train(run, good._replace(weights=poisoned))


def command(*arguments: str, cwd: Path) -> list[str]:
    return [sys.executable, str(ROOT / "launch.py"), *arguments]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["control-C", "kill"])
def test_a_signal_ends_within_five_seconds_with_a_checkpoint_to_go_on_from(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [
        "train",
        "two_learners",
        "iterations=100000",
        "checkpoint_every=100000",
        "trials=8",
        "game.rounds=5",
        "--runs",
        str(tmp_path),
    ]
    process = subprocess.Popen(command(*arguments, cwd=tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("1/"):
            break
    time.sleep(1)
    begin = time.monotonic()
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    took = time.monotonic() - begin
    assert process.returncode == 130, [*lines, rest]
    assert took < 5, f"{took:.1f} s"
    run = Run.open(next(tmp_path.iterdir()))
    assert f"train --resume {run.directory}" in rest
    assert run.load_checkpoint().iteration > 0


def test_a_run_that_is_being_trained_is_not_trained_by_another_process(tmp_path: Path) -> None:
    run = Run.create(experiment_with(), tmp_path)
    code = f"from training.run import Run; Run.open({str(run.directory)!r}).held().__enter__()"
    with run.held():
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert f"{run.directory} is being trained by another process" in done.stderr
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)


def test_progress_is_told_in_numbers_that_say_something() -> None:
    report = {"speed/overall": 431.2, "reward/learner_0/vs_random_table": 0.5, "reward/learner_1/vs_random_table": 0.25}
    assert summary(report) == ["431 agent steps/s", "reward 0.38 vs random_table"]
    assert summary({"speed/overall": 43_120.0, "reward/learner_0/vs_learner": 0.5}, alone=True) == ["43k agent steps/s", "reward 0.50"]


@pytest.mark.long
def test_train_resume_evaluate_replay_on_the_command_line(tmp_path: Path) -> None:
    def launch(*arguments: str) -> str:
        done = subprocess.run(command(*arguments, cwd=tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    settings = ["trials=12", "game.rounds=6", "agent.memory.width=8", "checkpoint_every=1"]
    printed = launch("train", "ipd_mixed_pool_quick", "iterations=2", "--evaluate", *settings)
    assert "always_defect" in printed
    assert "tensorboard --logdir runs" in printed
    directory = next((tmp_path / "runs").iterdir())
    assert f"python launch.py replay runs/{directory.name}" in printed
    assert "identical, bit for bit" in launch("replay", f"runs/{directory.name}")
    # As if it had been killed after its first iteration.
    (directory / "checkpoints" / "00000002.safetensors").unlink()
    weights = (directory / "population" / "learner_0" / "agent.safetensors").read_bytes()
    launch("train", "--resume", f"runs/{directory.name}")
    assert (directory / "population" / "learner_0" / "agent.safetensors").read_bytes() == weights
    # It is complete; and goes on for longer when it is told to.
    launch("train", "--resume", f"runs/{directory.name}", "iterations=3")
    assert (directory / "checkpoints" / "00000003.safetensors").is_file()
    assert json.loads((directory / "experiment.json").read_text())["experiment"]["iterations"] == 3


@pytest.mark.long
def test_a_third_party_environment_trains_with_the_same_command(tmp_path: Path) -> None:
    arguments = [
        "train",
        "two_learners",
        "game=pettingzoo:pettingzoo.classic.rps_v2",
        "game.limit=6",
        "trials=4",
        "iterations=2",
        "--evaluate",
    ]
    done = subprocess.run(command(*arguments, cwd=tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "learner_0 + learner_1" in done.stdout
