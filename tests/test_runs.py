"""Runs on disk: checkpoints, damage, full disks, evaluation, recordings, replay. Nothing here needs Ray."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import resource
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file

from envs.coin_game import CoinGame
from envs.face import draw
from envs.third_party import ThirdPartyGame
from launch import main
from tests.games import SHAPES, AnyLegal
from training import recording
from training.evaluation.evaluate import evaluate
from training.evaluation.statistics import bootstrap, mean_of, resampled_means
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.population import co_player, load_agent, save_agent, space_from_json, space_to_json
from training.replay import moments, policy_in_words, replay, strip, table_of
from training.run import Run, Snapshot, _digest, wants_trust
from training.schemes.mixture import best_response
from training.schemes.self_play import independent
from training.seating import one_table
from training.settings import BadInput, override


def small_experiment(seed: int = 0) -> Experiment:
    experiment = Experiment(preset="small", seed=seed, trials=12, iterations=4)
    for assignment in ("game.rounds=8", "agent.memory.width=8", "agent.embedding=4"):
        experiment = override(experiment, assignment)
    return experiment


def snapshot_of(trainer: PlainTrainer) -> Snapshot:
    weights = {name: {key: value.clone() for key, value in agent.state_dict().items()} for name, agent in trainer.agents.items()}
    optimisers = {name: optimiser.state_dict()["state"] for name, optimiser in trainer.optimisers.items()}
    return Snapshot(trainer.iteration, weights, optimisers)


def made_in(root: Path) -> Run:
    """A run of three iterations with two checkpoints."""
    experiment = small_experiment()
    made = Run.create(experiment, root)
    trainer = PlainTrainer(experiment, {"random_table": co_player("random_table")})
    for score in (0.1, 0.3, 0.2):
        trainer.train()
        made.save_checkpoint(snapshot_of(trainer), score)
    return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_in(tmp_path / "runs")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Such a run with recordings of three trials each; not to be changed."""
    made = made_in(tmp_path_factory.mktemp("evaluated"))
    evaluate([made], trials=4, record=3)
    return made


@pytest.fixture
def recorded(evaluated: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(evaluated.directory, tmp_path / "runs" / evaluated.directory.name))


def checkpoints(run: Run) -> list[Path]:
    return sorted((run.directory / "checkpoints").glob("[0-9]*.safetensors"))


def test_a_run_opens_as_it_was_made(run: Run) -> None:
    assert Run.open(run.directory).experiment == run.experiment
    about = json.loads((run.directory / "environment.json").read_text())
    assert about["packages"]["torch"] == torch.__version__.split("+")[0] or about["packages"]["torch"] == torch.__version__


def test_two_runs_of_the_same_second_do_not_share_a_directory(tmp_path: Path) -> None:
    assert Run.create(small_experiment(), tmp_path).directory != Run.create(small_experiment(), tmp_path).directory


def test_the_newest_two_checkpoints_and_the_best_are_kept(run: Run) -> None:
    assert [file.name for file in checkpoints(run)] == ["00000002.safetensors", "00000003.safetensors"]
    with safe_open(run.directory / "checkpoints" / "best.safetensors", framework="pt") as best:
        assert json.loads(best.metadata()["coterie"])["iteration"] == 2


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    experiment = small_experiment()
    trainer = PlainTrainer(experiment, {"random_table": co_player("random_table")})
    trainer.train()
    saved = snapshot_of(trainer)
    run = Run.create(experiment, tmp_path)
    run.save_checkpoint(saved, 0.0)
    loaded = run.load_checkpoint()
    assert loaded.iteration == 1
    for name in saved.weights:
        assert all(torch.equal(loaded.weights[name][key], value) for key, value in saved.weights[name].items())
        for number, state in saved.optimisers[name].items():
            assert all(torch.equal(loaded.optimisers[name][number][key], value) for key, value in state.items())


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(run: Run, damage: str) -> None:
    newest = checkpoints(run)[-1]
    data = bytearray(newest.read_bytes())
    if damage == "truncate":
        del data[len(data) // 2 :]
    else:
        data[-5] ^= 1
    newest.write_bytes(bytes(data))
    warnings: list[str] = []
    assert run.load_checkpoint(warnings.append).iteration == 2
    assert "00000003.safetensors is damaged" in warnings[0]
    assert "going on from 00000002.safetensors" in warnings[0]


def test_no_whole_checkpoint_left_is_said(run: Run) -> None:
    for file in checkpoints(run):
        file.write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="no other checkpoint is left"):
        run.load_checkpoint()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}', '{"format": 1, "experiment": {"type": "os:system"}}', '{"format": 1}'])
def test_a_damaged_or_foreign_experiment_is_refused(run: Run, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run.directory / "experiment.json").write_text(content)
    assert main(["evaluate", str(run.directory)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_damages_nothing(run: Run) -> None:
    before = {file: file.read_bytes() for file in run.directory.rglob("*") if file.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            run.save_checkpoint(run.load_checkpoint()._replace(iteration=9), 9.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file: file.read_bytes() for file in run.directory.rglob("*") if file.is_file()} == before


def test_a_loaded_agent_plays_as_the_one_that_was_saved(run: Run) -> None:
    agent = load_agent(run.directory / "population" / "learner_0")
    other = run.population()["learner_0"]
    state, other_state = agent.start(torch.arange(3)), other.start(torch.arange(3))
    for symbol in (0, 1, 4, 2):
        decision, state = agent.act({"outcome": torch.full((3,), symbol)}, state)
        expected, other_state = other.act({"outcome": torch.full((3,), symbol)}, other_state)
        assert torch.equal(decision.action, expected.action)


@pytest.mark.parametrize("file", ["agent.json", "agent.safetensors"])
def test_a_damaged_agent_is_named(run: Run, file: str) -> None:
    folder = run.directory / "population" / "learner_0"
    (folder / file).write_bytes((folder / file).read_bytes()[:-40])
    with pytest.raises(BadInput, match=f"{file} is damaged"):
        load_agent(folder)


def resaved(file: Path, tensors: dict[str, torch.Tensor] | None = None, about: dict[str, Any] | None = None) -> None:
    """A checkpoint's or an agent's file written anew, whole, with other tensors or another header."""
    with safe_open(file, framework="pt") as opened:
        kept = {name: opened.get_tensor(name) for name in opened.keys()} | (tensors or {})
        header = json.loads((opened.metadata() or {}).get("coterie", "{}")) if about is None else about
    if "sha256" in header:
        header["sha256"] = _digest(kept)
    save_file(kept, file, {"coterie": json.dumps(header)} if header else None)
    if file.name == "agent.safetensors":
        beside = json.loads(file.with_name("agent.json").read_text())
        beside["weights_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        file.with_name("agent.json").write_text(json.dumps(beside))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said, in one line, when nothing is done."""
    assert main([*arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_agent_whose_weights_are_not_finite_is_refused_by_name(run: Run, number: float, capsys: pytest.CaptureFixture[str]) -> None:
    file = run.directory / "population" / "learner_1" / "agent.safetensors"
    resaved(file, {"value_head.bias": torch.tensor([number])})
    said = refused(capsys, "evaluate", str(run.directory))
    assert f"{file} cannot be used: its value_head.bias holds {number}" in said
    assert not (run.directory / "results.json").exists()


def test_a_checkpoint_that_is_not_finite_is_named_and_the_previous_one_used(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    resaved(checkpoints(run)[1], {"weights/learner_0/value_head.bias": torch.tensor([torch.nan])})
    warnings: list[str] = []
    assert run.load_checkpoint(warnings.append).iteration == 2
    assert "00000003.safetensors cannot be used: its weights/learner_0/value_head.bias holds nan" in warnings[0]
    resaved(checkpoints(run)[0], {"optimisers/learner_0/0/step": torch.tensor(torch.inf)})
    said = refused(capsys, "train", "--resume", str(run.directory))
    assert "00000002.safetensors cannot be used: its optimisers/learner_0/0/step holds inf" in said
    assert "no other checkpoint is left" in said


def test_a_run_goes_on_for_longer_and_keeps_everything_else(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.go_on_for(3)
    before = run.read_json("experiment.json")
    said = refused(capsys, "train", "--resume", str(run.directory))
    assert "is complete: all 3 iterations are done; to go on for longer, say iterations=N with more" in said
    for words, said in {
        ("iterations=2",): "iterations is 2, and 3 are done; to go on for longer, say iterations=N with more",
        ("iterations=0",): "iterations is 0",
        ("iterations=5", "seed=4"): "--resume takes no preset or settings but iterations=N, and 'seed=4' was given",
        ("two_learners",): "--resume takes no preset or settings but iterations=N, and 'two_learners' was given",
    }.items():
        assert said in refused(capsys, "train", *words, "--resume", str(run.directory))
        assert run.read_json("experiment.json") == before
    run.go_on_for(5)
    after = run.read_json("experiment.json")
    assert after["experiment"].pop("iterations") == 5
    assert before["experiment"].pop("iterations") == 3
    assert after == before
    assert Run.open(run.directory).experiment == run.experiment


def test_an_agent_that_breaks_down_only_as_it_plays_is_refused_by_name(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    huge = {"value_head.weight": torch.full((1, 8), 3e38), "value_head.bias": torch.tensor([3e38])}
    resaved(run.directory / "population" / "learner_1" / "agent.safetensors", huge)
    said = refused(capsys, "evaluate", str(run.directory), "--trials", "4")
    assert "learner_1 in scenario" in said
    assert "learner_1: its value holds" in said


def in_chunks(run: Run, file: Path, length: int) -> None:
    """Changes the chunk length that a file of settings states."""
    about = json.loads(file.read_text())
    settings = about["experiment"]["agent"] if "experiment" in about else about["agent"]
    settings["memory"]["chunk_length"] = length
    file.write_text(json.dumps(about))


@pytest.fixture
def chunked(tmp_path: Path) -> Run:
    """A run of one iteration with a memory whose chunk length no weight's shape tells."""
    experiment = override(small_experiment(), "agent.memory=titans_linear:width=4,layers=1,heads=2,chunk_length=3", "game.rounds=4")
    made, trainer = Run.create(experiment, tmp_path / "runs"), PlainTrainer(experiment, {})
    trainer.iteration = 1
    made.save_checkpoint(snapshot_of(trainer), 0.0)
    return made


def test_settings_that_no_shape_tells_are_refused_by_field_where_they_changed(chunked: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert chunked.load_checkpoint().iteration == 1
    in_chunks(chunked, chunked.directory / "experiment.json", 2)
    said = refused(capsys, "train", "--resume", str(chunked.directory))
    assert f"agent.memory.chunk_length is 2 in {chunked.directory / 'experiment.json'}, 3 in {checkpoints(chunked)[0]}" in said
    folder = chunked.directory / "population" / "learner_0"
    assert load_agent(folder).config.memory.chunk_length == 3
    in_chunks(chunked, folder / "agent.json", 2)
    said = refused(capsys, "evaluate", str(folder))
    assert f"agent.memory.chunk_length is 2 in {folder / 'agent.json'}, 3 in {folder / 'agent.safetensors'}" in said


def test_files_that_do_not_state_their_agents_settings_can_still_be_read(chunked: Run) -> None:
    with safe_open(checkpoints(chunked)[0], framework="pt") as opened:
        about = json.loads(opened.metadata()["coterie"])
    assert about.pop("agent")["memory"]["chunk_length"] == 3
    resaved(checkpoints(chunked)[0], about=about)
    assert chunked.load_checkpoint().iteration == 1
    resaved(chunked.directory / "population" / "learner_0" / "agent.safetensors", about={})
    assert load_agent(chunked.directory / "population" / "learner_0").config == chunked.experiment.agent


def test_a_setting_that_is_new_since_a_file_was_written_is_no_difference(chunked: Run) -> None:
    file = chunked.directory / "population" / "learner_0" / "agent.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["coterie"])
    del about["agent"]["points"], about["agent"]["memory"]["rate"]
    resaved(file, about=about)
    assert load_agent(file.parent).config == chunked.experiment.agent


def test_a_frozen_co_player_that_has_changed_is_not_trained_with_any_more(run: Run, tmp_path: Path) -> None:
    frozen = shutil.copytree(run.directory / "population" / "learner_0", tmp_path / "frozen")
    experiment = replace(small_experiment(), scheme=best_response(str(frozen)))
    made = Run.create(experiment, tmp_path)
    made.save_checkpoint(snapshot_of(PlainTrainer(experiment, {str(frozen): load_agent(frozen)})), 0.0)
    made.load_checkpoint()
    agent = load_agent(frozen)
    with torch.no_grad():
        agent.value_head.bias += 1
    save_agent(agent, frozen)
    with pytest.raises(BadInput, match=r"frozen is not the agent that the run began with: its settings or weights have changed; want"):
        Run.open(made.directory).load_checkpoint()
    shutil.rmtree(frozen)
    with pytest.raises(BadInput, match=r"frozen is not the agent that the run began with: it is gone; want"):
        Run.open(made.directory).load_checkpoint()
    made.write_json("experiment.json", {**made.read_json("experiment.json"), "frozen": None})
    with pytest.raises(BadInput, match=r'experiment.json is damaged: its "frozen" is None'):
        made.load_checkpoint()


def test_a_co_player_whose_name_is_longer_than_a_path_is_trained_with(tmp_path: Path) -> None:
    Run.create(override(small_experiment(), "scheme=best_response:cycler:pattern=" + "CCD" * 200), tmp_path)


def test_who_has_to_be_trusted_is_known_when_the_next_command_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = small_experiment()
    monkeypatch.setitem(sys.modules, "somebodys", importlib.import_module("pettingzoo.classic.rps_v2"))
    assert not wants_trust(experiment)
    assert not wants_trust(override(experiment, "scheme=best_response:tit_for_tat"))
    assert wants_trust(override(experiment, "scheme=best_response:collections:OrderedDict"))
    assert wants_trust(replace(experiment, game=ThirdPartyGame("somebodys")))
    assert not wants_trust(override(experiment, "game=pettingzoo:pettingzoo.classic.rps_v2"))


def test_spaces_survive_json() -> None:
    for game in SHAPES.values():
        for role in game.roles:
            for space in (role.observation_space, role.action_space):
                assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space


def test_evaluation_counts_trials_and_seeds_and_writes_its_results(run: Run) -> None:
    results = evaluate([run], trials=16, record=2).results
    rows = {(row["agent"], row["scenario"]): row for row in results["scenarios"]}
    assert len(rows) == 2 * 20
    row = rows["learner_0", "always_cooperate"]
    figures = row["figures"]
    ones = dict.fromkeys(("mean", "low", "high", "iqm", "iqm_low", "iqm_high"), 1.0)
    assert figures["other_cooperation"] == {**ones, "seeds": 1, "trials": 16}
    # Against unconditional cooperation: 2 minus the own rate of cooperation, in every round.
    assert figures["reward"]["mean"] == pytest.approx(2 - figures["cooperation"]["mean"])
    assert len(row["curves"]["cooperation"]["mean"]) == 8
    assert np.mean(row["curves"]["cooperation"]["mean"]) == pytest.approx(figures["cooperation"]["mean"])
    stored = json.loads((run.directory / "results.json").read_text())
    assert stored["evaluations"]["ipd_classics"]["version"] == 2


@pytest.mark.long
def test_several_runs_are_seeds(run: Run, tmp_path: Path) -> None:
    experiment = small_experiment(seed=1)
    other = Run.create(experiment, tmp_path / "runs")
    trainer = PlainTrainer(experiment, {"random_table": co_player("random_table")})
    trainer.train()
    other.save_checkpoint(snapshot_of(trainer), 0.0)
    results = evaluate([run, other], trials=8, record=0).results
    assert results["scenarios"][0]["figures"]["reward"]["seeds"] == 2
    assert results["scenarios"][0]["figures"]["reward"]["trials"] == 8


def test_a_recording_replays_identically(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(recorded.directory), "--recording", "ipd_classics-tit_for_tat-learner_1", "--trial", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("  0  before round 1 of at most 8\n  1  round 1: ")
    assert "round 8:" in printed
    assert "re-simulated 3 trials, identical, bit for bit" in printed


def test_a_replay_begins_before_the_first_step_of_every_episode() -> None:
    """Held to a rollout that is stopped before every step, where the start still stands on the table."""
    game, seeds = CoinGame(rounds=3), torch.tensor([11, 12, 13])
    rollout, log = recording.play(game, one_table(("any", "any"), 3), {"any": AnyLegal(game.roles[0])}, seeds, episodes=2)
    told = moments(rollout, seeds, log, 1)
    table = rollout.start(seeds)
    seen = []
    for step in range(6):
        if step in (0, 3):
            seen.append((step, rollout.game.describe(table.game, 1).text))
        table, after = rollout.step(table)
        seen.append((step + 1, rollout.game.describe(after.game, 1).text))
    assert [(moment.steps, moment.scene.text) for moment in told] == seen
    assert [moment.steps for moment in told] == [0, 1, 2, 3, 3, 4, 5, 6]
    assert "before step 1 of 3: red player_0 is R, blue player_1 is B" in told[0].scene.text
    assert "before step 1 of 3" in told[4].scene.text
    assert told[0].scene.text != told[4].scene.text
    assert table_of(told)[0] == ["  0", told[0].scene.text, ""]


def test_a_strip_of_pictures_begins_with_the_start() -> None:
    game, seeds = CoinGame(rounds=10), torch.tensor([11])
    rollout, log = recording.play(game, one_table(("any", "any"), 1), {"any": AnyLegal(game.roles[0])}, seeds)
    told = moments(rollout, seeds, log, 0)
    picture = strip(told)
    # A start and ten steps: ten frames of 96 pixels, then one and nine that are left white.
    assert picture.shape == (192, 960, 3)
    assert (picture[:96, :96] == draw(rollout.game.describe(rollout.start(seeds).game, 0), 96)).all()
    assert (picture[96:, :96] == draw(told[10].scene, 96)).all()
    assert (picture[96:, 96:] == 255).all()


@pytest.mark.parametrize(
    ("policy", "space", "words"),
    [
        ([0.625, 0.375], gym.spaces.Discrete(2), "p 0.62 0.38"),
        ([0.1, 0.0, 0.05, 0.05, 0.25, 0.05, 0.4, 0.05, 0.05], gym.spaces.Discrete(9), "p 6: 0.40 4: 0.25 0: 0.10 2: 0.05 ..."),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.75, 0.0, 0.0, 0.25], gym.spaces.Discrete(9, start=20), "p 25: 0.75 28: 0.25"),
        ([0.5, 0.5, 0.2, 0.3, 0.5], gym.spaces.MultiDiscrete([2, 3]), "p 0.50 0.50 | 0.20 0.30 0.50"),
        ([1.0] * 9, gym.spaces.MultiDiscrete([1] * 9), "p " + "1.00 | " * 8 + "..."),
        ([1.5, 2.0, 0.5, 3.0], gym.spaces.Box(0.0, 1.0, (2,)), "a 1.50 b 0.50 | a 2.00 b 3.00"),
    ],
)
def test_a_policy_is_told_whole_or_by_its_likeliest_choices(policy: list[float], space: gym.Space[Any], words: str) -> None:
    assert policy_in_words(torch.tensor(policy), space) == words


def tampered(path: Path, name: str) -> None:
    recorded = recording.load(path)
    tensors = {key: value.clone() for key, value in recorded.tensors.items()}
    flat = tensors[name].view(-1)
    flat[5] = 1 - flat[5]
    save_file(tensors, path, {"coterie": json.dumps(recorded.about)})


@pytest.mark.long
@pytest.mark.parametrize("name", ["decisions.0.action", "rewards.player", "game.outcome"])
def test_a_recording_that_does_not_come_out_the_same_is_told(recorded: Run, name: str) -> None:
    tampered(recorded.directory / "episodes" / "ipd_classics-random-learner_0.safetensors", name)
    screen = io.StringIO()
    assert not replay(recorded, "ipd_classics-random-learner_0", 0, Console(file=screen))
    assert f"NOT the same: {name} at step" in screen.getvalue()


def test_a_recording_is_refused_when_the_agent_has_changed(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shifted = {name: {key: value + 1 for key, value in weights.items()} for name, weights in recorded.load_checkpoint().weights.items()}
    recorded.save_checkpoint(recorded.load_checkpoint()._replace(weights=shifted), 0.0)
    assert main(["replay", str(recorded.directory)]) == 2
    assert "has other weights than when this was recorded" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("who", [{"agent": "x"}, {"co_player": "/etc"}, {"co_player": "os:system"}])
def test_a_recording_reaches_nothing_outside_its_run(recorded: Run, who: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded.directory / "episodes" / "ipd_classics-random-learner_0.safetensors"
    found = recording.load(path)
    occupants = {"../../outside": who, "random": {"co_player": "random"}}
    save_file(found.tensors, path, {"coterie": json.dumps({**found.about, "occupants": occupants})})
    assert main(["replay", str(recorded.directory), "--recording", path.stem]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_may_not_name_a_module_to_import(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    about = json.loads((run.directory / "experiment.json").read_text())
    about["experiment"]["game"] = {"type": "envs.third_party:ThirdPartyGame", "module": "antigravity", "limit": 5}
    (run.directory / "experiment.json").write_text(json.dumps(about))
    assert main(["evaluate", str(run.directory)]) == 2
    assert "--trust" in capsys.readouterr().err


def test_bootstrap_intervals_cover_what_they_say() -> None:
    """In simulation: of 200 samples' 95 % intervals for a known mean, about 190 hold it."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        interval = bootstrap(generator.exponential(2.0, size=(1, 60)), resamples=400)
        held += interval.low <= 2.0 <= interval.high
    assert 178 <= held <= 198


def test_seeds_widen_an_interval_that_trials_alone_make_narrow() -> None:
    by_seed = np.repeat([[0.0], [1.0], [2.0], [3.0]], 50, axis=1)
    interval = bootstrap(by_seed)
    assert interval.mean == 1.5
    assert interval.high - interval.low > 1.0
    assert bootstrap(np.full((1, 50), 1.0)).high == 1.0


def test_intervals_over_seeds_that_share_their_luck_cover_what_they_say() -> None:
    """A trial's luck moves every seed alike; resampling it apart for each seed would make the interval a third too short."""
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        luck, skill = generator.normal(size=40), generator.normal(size=(8, 1)) * 0.1
        held += (interval := bootstrap(luck[None] + skill, resamples=300)).low <= 0.0 <= interval.high
    assert 176 <= held <= 198


def test_steps_after_a_trials_end_do_not_count() -> None:
    values = np.array([[[1.0, 1.0], [1.0, np.nan], [1.0, np.nan]]])
    assert np.nanmin(resampled_means(values, 50)) == 1.0
    assert mean_of(values, 1).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("place", ["agent", "game", "scheme"])
def test_no_file_imports_a_module_by_naming_it_anywhere(run: Run, place: str) -> None:
    about = json.loads((run.directory / "experiment.json").read_text())
    about["experiment"][place] = {"type": "envs.third_party:ThirdPartyGame", "module": "antigravity", "limit": 5}
    (run.directory / "experiment.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match="wants to import 'antigravity'"):
        Run.open(run.directory)
    folder = run.directory / "population" / "learner_0"
    described = json.loads((folder / "agent.json").read_text())
    described["agent"] = about["experiment"][place]
    (folder / "agent.json").write_text(json.dumps(described))
    with pytest.raises(BadInput, match="wants to import 'antigravity'"):
        load_agent(folder)


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "a/b", "", "tit_for_tat"])
def test_a_learners_name_is_no_path_and_no_co_players(run: Run, name: str) -> None:
    about = json.loads((run.directory / "experiment.json").read_text())
    about["experiment"]["scheme"]["names"][0] = name
    (run.directory / "experiment.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match="want letters, digits"):
        Run.open(run.directory)


def test_a_third_party_games_recording_replays_and_its_copies_do_not_pile_up(tmp_path: Path) -> None:
    experiment = Experiment(preset="rps", scheme=independent(), trials=4, suite="together")
    for assignment in ("game=pettingzoo:pettingzoo.classic.rps_v2", "game.limit=7", "agent.memory.width=8"):
        experiment = override(experiment, assignment)
    trainer = PlainTrainer(experiment, {})
    for _ in range(4):
        trainer.train()
    assert len(experiment.game._live) <= 8
    made = Run.create(experiment, tmp_path)
    made.save_checkpoint(snapshot_of(trainer), 0.0)
    evaluate([made], trials=6, record=3)
    screen = io.StringIO()
    assert replay(made, None, 1, Console(file=screen)), screen.getvalue()


def test_a_trained_agent_is_met_by_its_path_and_stays_as_it_was(run: Run) -> None:
    path = run.directory / "population" / "learner_0"
    experiment = override(small_experiment(seed=3), f"scheme=mixed_pool:{path}")
    frozen = co_player(str(path))
    before = {name: value.clone() for name, value in load_agent(path).state_dict().items()}
    trainer = PlainTrainer(experiment, {str(path): frozen})
    trainer.train()
    assert experiment.scheme.co_players(experiment.game) == (str(path),)
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


@pytest.mark.parametrize("width", [40, 80, 1000])
def test_a_replay_fits_the_screen(width: int, recorded: Run) -> None:
    screen, pipe = io.StringIO(), io.StringIO()
    name = "ipd_classics-tit_for_tat-learner_1"
    replay(recorded, name, 0, Console(file=screen, width=width, force_terminal=True, color_system=None))
    replay(recorded, name, 0, Console(file=pipe, width=width))
    lines = screen.getvalue().splitlines()
    steps = [line for line in lines if not line.startswith(name)]
    assert max(map(len, steps)) <= width
    assert len([line for line in steps if line[:3].strip()]) == 9
    assert screen.getvalue().replace(";", "").split() == pipe.getvalue().replace(";", "").split()


def test_who_names_a_recording_is_told_its_run(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((recorded.directory / "episodes").iterdir())
    assert main(["replay", str(file)]) == 2
    assert f"it is a recording: say its run, {recorded.directory}, and --recording {file.stem}\n" in capsys.readouterr().err
