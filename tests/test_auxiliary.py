"""Auxiliary losses, worked by hand, and what carries them: co-players' actions, and forgetting between episodes."""

from __future__ import annotations

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.agent import AgentConfig
from agents.auxiliary import Auxiliary, AuxiliaryHeads, Lived, Readout
from agents.heads import head_of
from envs.commons import Commons
from envs.donor_game import DonorGame
from envs.iterated_dilemma import IteratedDilemma
from memory.gru import GRUConfig
from memory.memory import MemoryConfig
from tests.test_memories import each_memory, small
from training.algorithms import outlook_on
from training.experiment import Experiment
from training.occupants import check
from training.plain import PlainTrainer
from training.schemes.self_play import independent
from training.settings import BadInput, override

SPACE = gym.spaces.Dict({"outcome": gym.spaces.Discrete(3)})
CHOICES = gym.spaces.Discrete(2)


def heads_of(weights: Auxiliary, space: gym.spaces.Dict = SPACE, width: int = 3) -> AuxiliaryHeads:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AuxiliaryHeads(weights, space, CHOICES, embedding=2, width=width)


def lived_of(y: torch.Tensor, outcome: list[list[int]], reset: list[list[bool]], **more) -> Lived:
    x = torch.zeros(*y.shape[:2], 2)
    policy = torch.full((*y.shape[:2], 2), math.log(0.5))
    return Lived(x, y, policy, {"outcome": torch.tensor(outcome)}, torch.tensor(reset), more.get("others"))


def identity_readout(module: Readout) -> None:
    with torch.no_grad():
        module.linear.weight.copy_(torch.eye(3))
        module.linear.bias.zero_()


def test_reconstruction_is_the_cross_entropy_of_what_was_seen() -> None:
    heads = heads_of(Auxiliary(reconstruction=2.0))
    identity_readout(heads.readouts[0])
    y = torch.tensor([[[0.0, 0.0, 0.0], [math.log(2.0), 0.0, 0.0]]])
    found = {name: value.detach() for name, value in heads(head_of(CHOICES, 3), lived_of(y, [[1, 0]], [[True, False]])).items()}
    # log 3 for an even guess, log 2 where the right one has probability 2 / 4.
    assert float(found["reconstruction"]) == pytest.approx((math.log(3) + math.log(2)) / 2)
    assert float(heads.total(found).detach()) == pytest.approx(math.log(3) + math.log(2))


def test_a_forecast_is_judged_by_its_distance_from_what_comes_next_within_the_trial() -> None:
    heads = heads_of(Auxiliary(forecast=1.0))
    with torch.no_grad():
        heads.forecast.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        heads.forecast.bias.zero_()
    y = torch.tensor([[[1.0, 0.0, 9.0], [0.0, 2.0, 9.0], [5.0, 5.0, 9.0], [7.0, 7.0, 9.0]]], requires_grad=True)
    lived = lived_of(y, [[0, 0, 0, 0]], [[True, False, True, False]])
    x = torch.tensor([[[8.0, 8.0], [1.0, 3.0], [4.0, 4.0], [5.0, 6.0]]], requires_grad=True)
    found = heads(head_of(CHOICES, 3), lived._replace(x=x))["forecast"]
    # (1, 0) of (-7, -5), and (5, 5) of (1, 2); what the second step says of the third, in another trial, does not count.
    assert found.item() == pytest.approx((64 + 25 + 16 + 9) / 2)
    found.backward()
    assert x.grad is None


@pytest.mark.parametrize(
    ("space", "value", "guess", "wanted"),
    [
        # Bytes as shares: 255 at even odds, log 2.
        (gym.spaces.Box(0, 255, (2,), np.uint8), [255, 0], [0.0, 0.0], math.log(2)),
        (gym.spaces.MultiBinary(2), [1, 0], [0.0, 0.0], math.log(2)),
        (gym.spaces.Box(-9, 9, (2,), np.float32), [1.0, 3.0], [0.0, 1.0], 2.5),
        # Of two and of three symbols, both even.
        (gym.spaces.MultiDiscrete([2, 3]), [1, 2], [0.0] * 5, (math.log(2) + math.log(3)) / 2),
        (gym.spaces.MultiDiscrete([2, 2]), [1, 0], [0.0, math.log(3), 0.0, 0.0], (math.log(4 / 3) + math.log(2)) / 2),
        (gym.spaces.Discrete(2, start=5), 6, [0.0, math.log(3)], math.log(4 / 3)),
    ],
)
def test_every_kind_of_field_has_its_error(space, value, guess, wanted) -> None:
    readout = Readout(space, 1)
    with torch.no_grad():
        readout.linear.weight.zero_()
        readout.linear.bias.copy_(torch.tensor(guess))
    values = torch.as_tensor(np.array(value))[None, None]
    assert float(readout(torch.zeros(1, 1, 1), values).detach()) == pytest.approx(wanted, abs=1e-6)


def test_a_lag_reads_what_was_seen_before_but_never_of_another_trial() -> None:
    heads = heads_of(Auxiliary(lag=1.0, lags=(2,)))
    identity_readout(heads.lagged[0])
    sure = torch.tensor([9.0, 0.0, 0.0])
    # A trial of three steps, then one of three: only steps 2 and 5 reach back two steps within their own.
    y = torch.stack([torch.zeros(3), torch.zeros(3), sure, torch.zeros(3), torch.zeros(3), sure])[None]
    reset = [[True, False, False, True, False, False]]
    wanted = math.log(1 + 2 * math.exp(-9.0))
    head = head_of(CHOICES, 3)
    assert heads(head, lived_of(y, [[0, 1, 1, 0, 1, 1]], reset))["lag"].item() == pytest.approx(wanted, rel=1e-3)
    assert heads(head, lived_of(y, [[0, 2, 2, 1, 2, 2]], reset))["lag"].item() == pytest.approx((wanted + 9 + wanted) / 2, rel=1e-3)


def test_a_lag_longer_than_the_trajectory_costs_nothing() -> None:
    heads = heads_of(Auxiliary(lag=1.0, lags=(7,)))
    assert heads(head_of(CHOICES, 3), lived_of(torch.ones(1, 3, 3), [[0, 1, 1]], [[True, False, False]]))["lag"].item() == 0


def test_a_trial_of_one_step_has_no_next_latent_to_predict() -> None:
    heads = heads_of(Auxiliary(next_latent=1.0, next_latent_distance=1.0))
    lived = lived_of(torch.ones(2, 1, 3), [[0], [1]], [[True], [True]])
    assert heads.total(heads(head_of(CHOICES, 3), lived)).item() == 0


def test_a_prediction_of_the_next_latent_is_judged_by_the_policy_that_it_gives() -> None:
    heads, head = heads_of(Auxiliary(next_latent=1.0, next_latent_distance=1.0)), head_of(CHOICES, 3)
    with torch.no_grad():
        # The network adds nothing: the prediction of y_{t+1} is y_t.
        heads.next[-1].weight.zero_()
        heads.next[-1].bias.zero_()
        head.logits.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    y = torch.tensor([[[0.0, 0.0, 0.0], [math.log(3.0), 0.0, 0.0], [5.0, 5.0, 5.0]]], requires_grad=True)
    lived = lived_of(y, [[0, 0, 0]], [[True, False, True]])._replace(policy=head(y, None))
    found = heads(head, lived)
    # pi = (3/4, 1/4), guessed (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2. What begins a trial is not predicted.
    assert found["next_latent"].item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # |log 3| > 1, so log 3 - 1/2, a third of it as a mean over three numbers.
    assert found["next_latent_distance"].item() == pytest.approx((math.log(3) - 0.5) / 3)
    found["next_latent"].backward()
    assert head.logits.weight.grad is None
    assert y.grad[0, 0].abs().sum() > 0
    assert y.grad[0, 1:].abs().sum() == 0


def test_a_co_players_action_is_predicted_by_cross_entropy() -> None:
    heads = heads_of(Auxiliary(co_player=1.0))
    with torch.no_grad():
        heads.co_player.weight.zero_()
        heads.co_player.bias.copy_(torch.tensor([math.log(3.0), 0.0]))
    others = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    found = heads(head_of(CHOICES, 3), lived_of(torch.zeros(1, 2, 3), [[0, 0]], [[True, False]], others=others))
    assert found["co_player"].item() == pytest.approx((math.log(4 / 3) + 0.5 * math.log(4 / 3) + 0.5 * math.log(4)) / 2)


def experiment_of(game, auxiliary: Auxiliary, memory: MemoryConfig | None = None, **more) -> Experiment:
    agent = AgentConfig(memory=memory or GRUConfig(8), embedding=8, auxiliary=auxiliary, **more)
    return Experiment(game=game, agent=agent, scheme=independent(), trials=6, iterations=2)


def test_trajectories_know_what_the_others_did() -> None:
    lived = PlainTrainer(experiment_of(IteratedDilemma(rounds=5), Auxiliary(co_player=1.0)), {}).sample()
    first, second = lived["learner_0"], lived["learner_1"]
    torch.testing.assert_close(first.others, torch.nn.functional.one_hot(second.action, 2).float())
    torch.testing.assert_close(second.others, torch.nn.functional.one_hot(first.action, 2).float())
    four = PlainTrainer(experiment_of(Commons(), Auxiliary(co_player=1.0)), {}).sample()
    taken = torch.stack(
        [torch.nn.functional.one_hot(four[f"learner_{seat}"].action, Commons().roles[0].action_space.n) for seat in range(4)]
    )
    torch.testing.assert_close(four["learner_1"].others, (taken.sum(0) - taken[1]) / 3)


@each_memory
def test_every_auxiliary_loss_trains_any_memory(name: str) -> None:
    weights = Auxiliary(reconstruction=1.0, next_latent=0.5, next_latent_distance=0.1, forecast=0.5, co_player=1.0, lag=1.0)
    experiment = experiment_of(IteratedDilemma(rounds=12), weights, small(name))
    check(experiment)
    trainer = PlainTrainer(experiment, {})
    agent = trainer.agents["learner_0"]
    before = [parameter.clone() for parameter in agent.auxiliary.parameters()]
    trainer.train()
    assert all(not torch.equal(*pair) for pair in zip(before, agent.auxiliary.parameters(), strict=True))
    # Each loss alone reaches what the memory learns.
    batch = experiment.algorithm.prepare(trainer.sample()["learner_0"])
    outlook = outlook_on(agent, batch)
    found = agent.auxiliary(agent.policy_head, Lived(outlook.x, outlook.y, outlook.policy, batch.observation, batch.reset, batch.others))
    assert len(found) == 6
    for loss, value in found.items():
        gradients = torch.autograd.grad(value, [*agent.memory.parameters()], retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients), loss


def test_reconstruction_is_learned() -> None:
    experiment = replace(experiment_of(IteratedDilemma(rounds=10), Auxiliary(reconstruction=1.0, co_player=0.1)), trials=32, iterations=20)
    experiment = override(experiment, "algorithm.learning_rate=0.02")
    trainer = PlainTrainer(experiment, {})

    def loss() -> float:
        agent, batch = trainer.agents["learner_0"], experiment.algorithm.prepare(trainer.sample()["learner_0"])
        outlook = outlook_on(agent, batch)
        lived = Lived(outlook.x, outlook.y, outlook.policy, batch.observation, batch.reset, batch.others)
        return float(agent.auxiliary(agent.policy_head, lived)["reconstruction"].detach())

    assert loss() > 1.0
    for _ in range(20):
        trainer.train()
    assert loss() < 0.2


def test_losses_that_do_not_apply_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"auxiliary.co_player wants a game of two or more seats of one role with Discrete actions; DonorGame"
    ):
        check(experiment_of(DonorGame(), Auxiliary(co_player=1.0)))
    with pytest.raises(BadInput, match=r"auxiliary.next_latent compares choices"):
        check(experiment_of(DonorGame(), Auxiliary(next_latent=1.0)))
    with pytest.raises(BadInput, match=r"lags is \(0,\); want whole numbers of steps, 1 or more"):
        override(Experiment(), "agent.auxiliary.lags=[0]")
    with pytest.raises(BadInput, match=r"reconstruction is -1.0; want 0 or more"):
        override(Experiment(), "agent.auxiliary.reconstruction=-1.0")
    with pytest.raises(BadInput, match="remembers is 'day'; want 'trial' or 'episode'"):
        override(Experiment(), "agent.remembers=day")


@each_memory
@pytest.mark.parametrize("remembers", ["trial", "episode"])
def test_an_agent_remembers_its_trial_or_only_its_episode(name: str, remembers: str) -> None:
    experiment = replace(experiment_of(IteratedDilemma(rounds=3), Auxiliary(), small(name), remembers=remembers), episodes=4)
    lived = PlainTrainer(experiment, {}).sample()["learner_0"]
    starts = lived.reset.nonzero()[:, 1].unique().tolist()
    assert starts == ([0] if remembers == "trial" else [0, 3, 6, 9])
    # What was played is what learning recomputes, wherever it began anew.
    agent = PlainTrainer(experiment, {}).agents["learner_0"]
    policy = agent(lived.observation, lived.action_before, lived.reward_before, lived.memory, lived.reset).policy
    torch.testing.assert_close(agent.policy_head.log_prob(policy, lived.action), lived.log_prob)
    # Luck differs from episode to episode.
    first = lived.action[:, 0:3]
    assert any(not torch.equal(first, lived.action[:, 3 * k : 3 * k + 3]) for k in (1, 2, 3))
