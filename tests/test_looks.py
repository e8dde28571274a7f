"""What memories looked at: in words, beside a replay, and never asked for by anything that plays or learns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from agents.agent import Agent, AgentConfig
from envs.iterated_dilemma import IteratedDilemma
from launch import main
from memory import MEMORIES
from memory.memory import Memory
from tests.test_memories import small
from tests.test_runs import small_experiment, snapshot_of
from training.evaluation.evaluate import evaluate
from training.experiment import Experiment, spaces_of
from training.looks import in_words
from training.plain import PlainTrainer
from training.population import co_player
from training.replay import replay
from training.rollout import Rollout
from training.run import Run
from training.schemes.self_play import independent
from training.seating import one_table
from training.settings import override


def made_run(root: Path, *assignments: str) -> Run:
    """Two learners that have met nobody yet, evaluated together, a recording of it, and nothing else."""
    experiment = Experiment(preset="small", trials=4, scheme=independent(), suite="self_and_others")
    experiment = override(experiment, "game.rounds=6", "agent.embedding=4", *assignments)
    run = Run.create(experiment, root)
    run.save_checkpoint(snapshot_of(PlainTrainer(experiment, {})), 0.0)
    evaluate([run], trials=4, record=2)
    return run


def shown(run: Run, look: bool = True, width: int = 200) -> str:
    screen = io.StringIO()
    assert replay(run, "self_and_others-partner-learner_0", 1, Console(file=screen, width=width), look=look)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, []),
        ({"attention": [[0.5, 0.1, 0.2, 0.2], [0.1, 0.1, 0.2, 0.6]]}, ["attention 3 back 0.40, now 0.30, 2 back 0.20"]),
        # An average would not be one over what has not been lived.
        ({"attention": [1.0, 0.0, 0.0]}, ["attention now 1.00"]),
        ({"recalled": [1, 3, 0], "weights": [0.25, 0.75, 0.0]}, ["recalled chunks 3 (0.75), 1 (0.25)"]),
        ({"recalled": [0, 0], "weights": [0.5, 0.5]}, ["recalled nothing yet"]),
        ({"chunk_attention": [[0.25, 0.0, 0.75]]}, ["attention to chunks 2 0.75, open 0.25"]),
        (
            {"position": [2, -1, 5, 7], "attention": [[0.5, 0.0, 0.125, 0.375]], "kept": [True, False, False, True]},
            ["attention 5 back 0.50, now 0.38, 2 back 0.12; evicted 2 back"],
        ),
        ({"position": [7], "attention": [[1.0]], "kept": [True]}, ["attention now 1.00"]),
        ({"surprise": [0.25, 0.75], "kept": [0.98, 0.982], "step_size": [0.001]}, ["surprise 0.5; kept 0.981; step size 0.001"]),
        (
            {"gate": [0.5], "iteration_0.layer_1.surprise": [0.25], "iteration_1.layer_1.surprise": [2.0]},
            ["gate 0.5", "iteration 0, layer 1: surprise 0.25", "iteration 1, layer 1: surprise 2"],
        ),
    ],
)
def test_what_was_looked_at_is_said_in_a_few_words(seen: dict[str, list], words: list[str]) -> None:
    assert in_words({name: torch.tensor(values) for name, values in seen.items()}) == words


@pytest.mark.parametrize("name", MEMORIES)
def test_what_any_memory_looks_at_can_be_said(name: str) -> None:
    memory = small(name).build(3)
    state = memory.start(1)
    for t in range(9):
        x, reset = torch.randn(1, 1, 3, generator=torch.Generator().manual_seed(t)), torch.tensor([[t == 0]])
        lines = in_words({key: values[0, 0] for key, values in memory.inspect(x, state, reset).items()})
        assert not [line for line in lines if "nan" in line or line.rstrip().endswith((":", "attention", "chunks"))]
        _, state = memory(x, state, reset)


def test_a_replay_shows_what_memories_looked_at_and_is_the_same_all_the_same(tmp_path: Path) -> None:
    run = made_run(tmp_path, "agent.memory=hcam:width=4,layers=1,heads=2,chunk_length=2,chunks=3,recalled=2,window=2,expansion=1")
    plain, lines = shown(run, look=False), shown(run).splitlines()
    assert "identical, bit for bit" in lines[-1]
    looks = [line.strip() for line in lines if line.startswith("     player_")]
    # A line for each seat and round, right below its round, and otherwise what a replay shows anyway.
    assert len(looks) == 12
    assert "\n".join(line for line in lines if not line.startswith("     ")) + "\n" == plain
    assert looks[0] == "player_0 layer 0: attention now 1.00; recalled nothing yet"
    assert lines[1].startswith("  1  round 1")
    assert looks[1].startswith("player_1 layer 0: attention now 1.00;")
    # After two steps there is one chunk, which has all the weight.
    assert looks[4].endswith("recalled chunks 1 (1.00)")
    assert looks[10].count("(0.") == 2
    # On a narrow screen a line breaks between two phrases.
    narrow = [line for line in shown(run, width=80).splitlines() if line.startswith("     ")]
    assert max(map(len, narrow)) <= 80
    assert " ".join(line.strip() for line in narrow) == " ".join(looks)
    assert "       recalled chunks 1 (1.00)" in narrow


def test_a_memory_with_nothing_to_show_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path, "agent.memory.width=4")
    assert main(["replay", str(run.directory), "--recording", "self_and_others-partner-learner_0", "--look"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("has nothing to show") == 2
    assert "learner_1: its memory (GRUConfig) has nothing to show" in printed
    assert "identical, bit for bit" in printed


def test_looking_shows_an_episodes_beginning_as_it_is_and_asks_no_script() -> None:
    agent = AgentConfig(memory=small("transformer_xl"), embedding=4, remembers="episode").build(
        *spaces_of(small_experiment())["learner_0"], seed=0
    )
    people = {"me": agent, "tit_for_tat": co_player("tit_for_tat")}
    rollout = Rollout(IteratedDilemma(rounds=3), one_table(("me", "tit_for_tat"), 2), people, episodes=2)
    table, seen = rollout.start(torch.arange(2)), []
    for _ in range(6):
        mine, scripts = rollout.look(table)
        assert scripts == {}
        seen.append(mine["layer_0.attention"].gt(0).sum(-1).amax().item())
        table, _ = rollout.step(table)
    assert seen == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("name", MEMORIES)
def test_neither_playing_nor_learning_asks_what_was_looked_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("inspect was called")

    experiment = override(small_experiment(), "trials=4", "game.rounds=4", "algorithm.minibatches=1", "algorithm.epochs=1")
    config = AgentConfig(memory=small(name), embedding=4)
    trainer = PlainTrainer(Experiment(**{**vars(experiment), "agent": config}), {"random_table": co_player("random_table")})
    kinds = [Agent, *(type(module) for agent in trainer.agents.values() for module in agent.modules() if isinstance(module, Memory))]
    for kind in kinds:
        monkeypatch.setattr(kind, "inspect", never)
    trainer.train()
    assert trainer.iteration == 1
    with pytest.raises(AssertionError, match="inspect was called"):
        trainer.agents["learner_0"].memory.inspect()
