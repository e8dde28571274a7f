"""Curricula: when the stage rises, what is played then, checkpoints, and what is refused. Nothing here needs Ray."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from agents.agent import AgentConfig
from envs.diagnostics.match_to_sample import MatchToSample
from envs.diagnostics.n_parity import NParity
from memory.gru import GRUConfig
from training.algorithms import Supervised
from training.curriculum import Curriculum
from training.experiment import Experiment
from training.occupants import check
from training.plain import PlainTrainer
from training.presets import match_to_sample_quick
from training.run import Run, Snapshot, read_checkpoint
from training.schemes.self_play import SelfPlay
from training.settings import BadInput, from_json, override, to_json

RISING = Curriculum("n", first=2, measures=("correct", "hardest_correct"), above=0.98)
GOOD, BAD, NOBODY = (99.0, 100.0), (98.0, 100.0), (0.0, 0.0)


def experiment_of(above: float = 0.55, **changes: Any) -> Experiment:
    return Experiment(
        preset="rising",
        game=MatchToSample(n=9, curriculum="many"),
        agent=AgentConfig(memory=GRUConfig(8), embedding=4, acts="best"),
        scheme=SelfPlay(),
        algorithm=Supervised(learning_rate=0.01, minibatches=2),
        trials=32,
        iterations=8,
        seed=3,
        suite="together",
        curriculum=Curriculum("n", above=above),
        **changes,
    )


def stages_of(trainer: PlainTrainer, iterations: int) -> list[int | None]:
    """The stages of the next iterations, and of the one after them."""
    stages = [trainer.stage]
    for _ in range(iterations):
        trainer.train()
        stages.append(trainer.stage)
    return stages


@pytest.mark.parametrize(
    ("correct", "hardest", "after"),
    [
        ([GOOD], [GOOD], 4),
        ([GOOD], [BAD], 3),
        ([BAD], [GOOD], 3),
        ([GOOD], [NOBODY], 3),
        ([(98.1, 100.0)], [GOOD], 4),
        ([GOOD, GOOD], [GOOD, GOOD], 4),
        ([GOOD, BAD], [GOOD, GOOD], 3),
    ],
)
def test_a_stage_rises_by_one_where_every_measure_of_every_learner_is_above_the_threshold(
    correct: list[tuple[float, float]], hardest: list[tuple[float, float]], after: int
) -> None:
    tally = {"return/player": (0.0, 1.0), "reward/learner_0/vs_learner": BAD, "correctness/learner_0/vs_learner": BAD}
    for name, figures in (("correct", correct), ("hardest_correct", hardest)):
        tally |= {f"{name}/learner_{number}/vs_learner": figure for number, figure in enumerate(figures)}
    assert RISING.after(3, NParity(7), tally) == after


def test_the_games_own_value_is_the_last_stage() -> None:
    tally = {f"{name}/learner_0/vs_learner": GOOD for name in RISING.measures}
    assert [RISING.after(stage, NParity(4), tally) for stage in (2, 3, 4)] == [3, 4, 4]


def test_what_loses_less_than_nothing_rises_by_rewards_below_zero() -> None:
    rises = Curriculum("n", measures=("reward",), above=-0.1)
    assert rises.after(2, NParity(4), {"reward/learner_0/vs_learner": (-5.0, 100.0)}) == 3
    assert rises.after(2, NParity(4), {"reward/learner_0/vs_learner": NOBODY}) == 2


def test_what_is_shown_is_right_from_the_first_stage_on_and_so_proves_nothing() -> None:
    shown = replace(experiment_of().algorithm, shows=True)
    with pytest.raises(ValueError, match=r"curriculum.raises is 'n' and algorithm.shows True; want one of them"):
        replace(experiment_of(), algorithm=shown)


def test_without_a_curriculum_there_is_no_stage_and_the_game_stays_as_it_is() -> None:
    experiment = replace(experiment_of(), curriculum=Curriculum())
    assert experiment.at(None) is experiment
    assert stages_of(PlainTrainer(experiment, {}), 2) == [None, None, None]


def test_each_iteration_plays_the_game_of_its_stage() -> None:
    trainer = PlainTrainer(experiment_of(above=-1.0), {})
    steps = []
    for _ in range(3):
        steps.append(trainer.sample()["learner_0"].reward.shape[1])
        trainer.train()
    # Two queries of n + 1 steps, with n 2, 3, 4.
    assert steps == [6, 8, 10]
    assert trainer.experiment.game.n == 9


def test_a_run_rises_where_it_does_well_and_not_before() -> None:
    stages = stages_of(PlainTrainer(experiment_of(), {}), 8)
    rises = [later - before for before, later in itertools.pairwise(stages)]
    assert set(rises) == {0, 1}
    assert stages_of(PlainTrainer(experiment_of(above=0.999), {}), 3) == [2, 2, 2, 2]
    assert stages_of(PlainTrainer(experiment_of(above=-1.0), {}), 9) == [2, 3, 4, 5, 6, 7, 8, 9, 9, 9]


def test_an_experiment_with_a_curriculum_survives_json_and_older_files_have_none() -> None:
    experiment = experiment_of()
    data = json.loads(json.dumps(to_json(experiment)))
    assert from_json(data) == experiment
    del data["curriculum"]
    assert from_json(data).curriculum == Curriculum()


def test_a_curriculum_is_set_on_the_command_line() -> None:
    experiment = override(
        Experiment(scheme=SelfPlay()),
        "curriculum.raises=n",
        "curriculum.measures=correct,hardest_correct",
        "game=n_parity:n=20,curriculum=many",
        "curriculum.above=0.9",
    )
    assert experiment.curriculum == Curriculum("n", 2, ("correct", "hardest_correct"), 0.9)
    assert experiment.at(5).game == NParity(5, curriculum="many")


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["curriculum.raises=m"], "curriculum.raises is 'm'; want a setting that is a whole number: those of this game are n"),
        (["curriculum.raises=dense"], "curriculum.raises is 'dense'; want a setting that is a whole number"),
        (["curriculum.raises=n", "curriculum.first=5"], "curriculum.first is 5; want at most game.n, 4, up to which it rises"),
        (["curriculum.raises=n", "curriculum.first=0"], "n is 0; want from 1 to 10,000"),
        (["curriculum.raises=n", "curriculum.measures=[]"], "curriculum.measures is empty; want at least one, such as correct"),
        (["game=sorting", "curriculum.raises=items"], "curriculum.raises is 'items', and with it what is seen or done would change"),
    ],
)
def test_a_curriculum_that_does_not_fit_is_refused_by_name(assignments: list[str], words: str) -> None:
    with pytest.raises(BadInput) as refused:
        override(Experiment(scheme=SelfPlay(), game=NParity()), *assignments)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_measure_that_does_not_exist_is_named_in_the_first_iteration() -> None:
    trainer = PlainTrainer(replace(experiment_of(), curriculum=Curriculum("n", measures=("right",))), {})
    with pytest.raises(
        BadInput, match=r"curriculum.measures has 'right'; what is measured in this game is correct, hardest_correct, reward"
    ):
        trainer.train()


def snapshot_of(trainer: PlainTrainer) -> Snapshot:
    weights = {name: {key: value.clone() for key, value in agent.state_dict().items()} for name, agent in trainer.agents.items()}
    optimisers = {name: optimiser.state_dict()["state"] for name, optimiser in trainer.optimisers.items()}
    return Snapshot(trainer.iteration, weights, optimisers, trainer.stage)


def test_a_checkpoint_keeps_the_stage_and_the_best_is_of_the_highest(tmp_path: Path) -> None:
    trainer = PlainTrainer(experiment_of(), {})
    snapshot = snapshot_of(trainer)
    run = Run.create(trainer.experiment, tmp_path)
    earned = ((2, 0.9), (3, 0.5), (3, 0.4), (3, 0.6))
    better = [run.save_checkpoint(snapshot._replace(stage=stage + 1, played=stage), score) for stage, score in earned]
    assert better == [True, True, False, True]
    assert (run.load_checkpoint().stage, run.load_checkpoint().played) == (4, 3)
    assert Run.open(run.directory).experiment == trainer.experiment


def test_a_checkpoint_without_a_curriculum_holds_no_stage(tmp_path: Path) -> None:
    """Nor do those of before there were curricula."""
    experiment = replace(experiment_of(), curriculum=Curriculum())
    run = Run.create(experiment, tmp_path)
    run.save_checkpoint(snapshot_of(PlainTrainer(experiment, {})), 0.5)
    (file,) = (run.directory / "checkpoints").glob("[0-9]*.safetensors")
    with safe_open(file, framework="pt") as opened:
        assert "stage" not in json.loads(opened.metadata()["coterie"])
    assert read_checkpoint(file).stage is None
    assert torch.equal(read_checkpoint(file).weights["learner_0"]["value_head.bias"], torch.zeros(1))


def test_what_is_not_measured_is_refused_before_anything_starts() -> None:
    experiment = override(match_to_sample_quick(), "curriculum.raises=n", "curriculum.measures=correc")
    with pytest.raises(BadInput, match=r"has 'correc'; what is measured in this game is correct, hardest_correct, reward"):
        check(experiment)
    check(override(match_to_sample_quick(), "curriculum.raises=n", "curriculum.measures=reward"))
