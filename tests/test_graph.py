"""The captured rollout: its bookkeeping on a CPU, the graph itself on a GPU."""

from __future__ import annotations

import pytest
import torch

from envs.face import make_game
from training import tree
from training.experiment import Experiment
from training.graph import CapturedRollout
from training.population import co_player
from training.rollout import Rollout
from training.schemes.mixture import mixed_pool
from training.settings import override


def rollout_on(device: str) -> tuple[Rollout, torch.Tensor]:
    experiment = override(override(Experiment(trials=12), "game.rounds=5"), "game.continuation=0.7")
    occupants = {name: agent.to(device) for name, agent in experiment.build_learners().items()}
    seating = mixed_pool().seat(experiment.game, 12, 0)
    everyone = {**occupants, "random_table": co_player("random_table")}
    return Rollout(experiment.game, seating, everyone, episodes=2, watched=None, device=device), torch.arange(12, device=device)


def assert_plays_alike(device: str) -> None:
    rollout, seeds = rollout_on(device)
    with torch.no_grad():
        captured = CapturedRollout(rollout, rollout.start(seeds), 9)
        for luck in (seeds, seeds + 100):
            after, log = captured.play(rollout.start(luck))
            expected_after, expected_log = rollout.play(rollout.start(luck), 9)
            for one, other in ((after, expected_after), (log, expected_log)):
                expected = tree.named_leaves(other)
                for name, leaf in tree.named_leaves(one).items():
                    torch.testing.assert_close(leaf, expected[name], equal_nan=True, msg=name)


def test_it_plays_what_a_rollout_plays() -> None:
    assert_plays_alike("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: a CUDA graph cannot be captured without one")
def test_its_graph_plays_what_a_rollout_plays() -> None:
    assert_plays_alike("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compares one with the CPU")
def test_a_gpu_plays_the_same_games_as_a_cpu() -> None:
    game = make_game("prisoners_dilemma")
    logs = []
    for device in ("cpu", "cuda"):
        from training.seating import one_table

        rollout = Rollout(
            game, one_table(("random_table", "random"), 64), {n: co_player(n) for n in ("random_table", "random")}, device=device
        )
        logs.append(rollout.play(rollout.start(torch.arange(64)), 100)[1])
    assert torch.equal(logs[0].rewards["player"], logs[1].rewards["player"].cpu())
