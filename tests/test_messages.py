"""Straight-through Gumbel-softmax between two learners, held against one graph that spans both."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from envs.coin_game import CoinGame
from envs.referential import Referential
from memory.gru import GRUConfig
from training import messages
from training.algorithms import StraightThrough, outlook_on
from training.experiment import Experiment
from training.occupants import check
from training.plain import PlainTrainer
from training.population import co_player
from training.schemes.mixture import Mixture, Pairing
from training.settings import BadInput

GAME = Referential(candidates=3, length=1, vocabulary=6, values=(2, 2))


def experiment_of(game=GAME, **settings) -> Experiment:
    experiment = Experiment(
        game=game,
        scheme=Mixture(("learner_0", "learner_1"), (Pairing(("learner_0", "learner_1"), "learner"),)),
        algorithm=StraightThrough(**settings),
        trials=16,
        iterations=2,
    )
    return replace(experiment, agent=replace(experiment.agent, memory=GRUConfig(8), embedding=8))


def test_noise_given_a_word_makes_that_word_the_largest() -> None:
    seeds = torch.arange(2000)
    log_prob = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0]).log().clamp(min=-1e30).expand(2000, -1)
    word = torch.arange(2000) % 4
    noise = messages.gumbel_given(log_prob, word, seeds)
    assert noise.isfinite().all()
    assert torch.equal((log_prob + noise).argmax(-1), word)


def test_noise_given_words_that_were_drawn_is_gumbels() -> None:
    count = 200_000
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    word = torch.multinomial(probabilities.expand(count, -1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    noise = messages.gumbel_given(probabilities.log().expand(count, -1), word, torch.arange(count))
    # Euler's constant and pi squared over six, in every word.
    torch.testing.assert_close(noise.mean(0), torch.full((3,), 0.5772), rtol=0, atol=0.015)
    torch.testing.assert_close(noise.var(0), torch.full((3,), math.pi**2 / 6), rtol=0, atol=0.03)
    assert abs(float(torch.corrcoef(noise.T)[0, 1])) < 0.01


def test_the_gradient_in_what_was_heard_is_that_of_a_small_change() -> None:
    trainer = PlainTrainer(experiment_of(), {})
    lived = trainer.sample()["learner_1"]
    agent = trainer.agents["learner_1"].double()
    lived = lived._replace(reward_before=lived.reward_before.double(), memory=agent.memory.start(16))
    found = messages.gradient_in_heard(agent, lived, "word")
    encoder = agent.observation_encoder.encoders[agent.observation_encoder.names.index("word")]

    def loss_with(change: float) -> float:
        def shift(module, inputs, output):
            output = output.clone()
            output[3, 1] += change * encoder.table.weight[4]
            return output

        handle = encoder.register_forward_hook(shift)
        policy = agent(lived.observation, lived.action_before, lived.reward_before, lived.memory, lived.reset).policy
        handle.remove()
        error = agent.policy_head.loss(policy, lived.answer.action)
        return float(error.masked_fill(~lived.answer.asked, 0.0).sum().detach())

    assert float(found[3, 1, 4]) == pytest.approx((loss_with(1e-4) - loss_with(-1e-4)) / 2e-4, rel=1e-5, abs=1e-9)
    assert found[3, 1, 4] != 0


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_speakers_gradient_is_that_of_one_graph_over_both(temperature: float) -> None:
    trainer = PlainTrainer(experiment_of(temperature=temperature), {})
    lived = trainer.sample()
    speaker, listener = trainer.agents["learner_0"], trainer.agents["learner_1"]
    said, heard = lived["learner_0"], lived["learner_1"]

    policy = speaker(said.observation, said.action_before, said.reward_before, said.memory, said.reset).policy
    found = torch.autograd.grad(
        messages.straight_through_loss(policy, said.relaxation, temperature, said.reset | True),
        list(speaker.parameters()),
        allow_unused=True,
    )

    # One graph: the word said at the first step, hard forwards and soft backwards, is what the listener hears at the second.
    policy = speaker(said.observation, said.action_before, said.reward_before, said.memory, said.reset).policy
    soft = ((policy[:, 0] + said.relaxation.noise[:, 0]) / temperature).softmax(-1)
    hard = torch.nn.functional.one_hot(said.action[:, 0], 6)
    word = hard + soft - soft.detach()
    encoder = listener.observation_encoder.encoders[listener.observation_encoder.names.index("word")]

    def hear(module, inputs, output):
        return torch.stack([output[:, 0], word @ encoder.table.weight], 1)

    handle = encoder.register_forward_hook(hear)
    picks = listener(heard.observation, heard.action_before, heard.reward_before, heard.memory, heard.reset).policy[:, 1]
    handle.remove()
    loss = -picks.gather(1, heard.answer.action[:, 1:2]).mean()
    wanted = torch.autograd.grad(loss, list(speaker.parameters()), allow_unused=True)
    assert sum(float(gradient.abs().sum()) for gradient in wanted if gradient is not None) > 1e-4
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)


def test_a_word_whose_probability_has_moved_far_counts_no_more() -> None:
    experiment = experiment_of(clip=0.2)
    trainer = PlainTrainer(experiment, {})
    batch = experiment.algorithm.prepare(trainer.sample()["learner_0"])
    agent = trainer.agents["learner_0"]

    def gradient(batch) -> torch.Tensor:
        outlook = outlook_on(agent, batch)
        loss, _ = experiment.algorithm.loss(agent.policy_head, outlook, batch, 0.0)
        return torch.autograd.grad(loss, agent.policy_head.logits.bias)[0]

    assert gradient(batch).abs().max() > 0
    near, far = batch.log_prob - math.log(1.19), batch.log_prob - math.log(1.21)
    torch.testing.assert_close(gradient(batch._replace(log_prob=near)), gradient(batch))
    assert gradient(batch._replace(log_prob=far)).abs().max() == 0


def test_words_said_to_people_have_no_gradient() -> None:
    experiment = experiment_of(game=replace(GAME, vocabulary=40))
    listener = "literal_listener:candidates=3,vocabulary=40,values=[2,2]"
    scheme = Mixture(
        ("learner_0", "learner_1"), (Pairing(("learner_0", "learner_1"), "learner"), Pairing(("learner_0", listener), "people"))
    )
    experiment = replace(experiment, scheme=scheme)
    lived = PlainTrainer(experiment, {listener: co_player(listener)}).sample()["learner_0"]
    total = lived.relaxation.gradient.abs().sum((1, 2))
    assert bool((total[lived.kind == 1] == 0).all())
    assert bool((total[lived.kind == 0] > 0).any())


def test_a_game_without_words_is_refused() -> None:
    with pytest.raises(BadInput, match=r"in CoinGame no learner hears the words of another; want 'referential', with turns=1"):
        check(experiment_of(game=CoinGame()))
    with pytest.raises(BadInput, match="with turns=1"):
        check(experiment_of(game=replace(GAME, turns=2)))


def test_a_temperature_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0.0; want a number above 0"):
        StraightThrough(temperature=0.0)
