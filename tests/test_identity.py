"""Who one plays with, told where asked for and hidden otherwise."""

from __future__ import annotations

import math

import pytest
import torch

from agents.agent import AgentConfig
from agents.co_players.tables import Table, always_defect
from agents.occupant import Decision
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma
from memory.gru import GRUConfig
from training.experiment import Experiment
from training.occupants import check
from training.plain import PlainTrainer
from training.population import co_player, load_agent, save_agent
from training.rollout import Rollout
from training.schemes.mixture import best_response, mixed_pool
from training.seating import one_table

GAME = IteratedDilemma(rounds=4)
TOLD = AgentConfig(GRUConfig(4), embedding=4, sees_co_player=True)


def told_agent(**more: object):
    experiment = Experiment(game=GAME, agent=TOLD, scheme=best_response(), trials=8)
    return experiment.build_learners()["learner_0"]


def test_an_agent_that_asks_is_told_the_log_probabilities_of_the_table_it_meets():
    table = Table((0.5, 0.25, 1.0, 0.0, 0.75))
    rollout = Rollout(GAME, one_table(("me", "table"), 2), {"me": told_agent(), "table": table}, watched=None)
    _, log = rollout.play(rollout.start(seeds_of(0, Purpose.TRIAL, 2)), 4)
    shown = log.observations[0]
    assert shown is not None
    # To cooperate, to defect; start, CC, CD, DC, DD. A certain action's other side is held at a thousandth.
    expected = [0.5, 0.5, 0.25, 0.75, 1.0, 0.001, 0.001, 1.0, 0.75, 0.25]
    assert shown["co_player"].shape == (4, 2, 10)
    torch.testing.assert_close(shown["co_player"][3, 1].exp(), torch.tensor(expected))


def test_learners_and_scripts_that_are_no_tables_are_shown_as_zeros():
    agent = told_agent()

    class Defects:
        def start(self, seeds):
            return seeds

        def act(self, observation, state, reward):
            return Decision(torch.ones_like(state)), state

    for other in (agent, Defects()):
        rollout = Rollout(GAME, one_table(("me", "other"), 2), {"me": agent, "other": other}, watched=None)
        _, log = rollout.play(rollout.start(seeds_of(0, Purpose.TRIAL, 2)), 4)
        assert log.observations[0] is not None
        assert bool((log.observations[0]["co_player"] == 0).all())


def test_with_one_agent_in_some_seats_each_is_told_of_its_own_co_player():
    agent = told_agent()
    seating = one_table(("me", "defector"), 2)._replace(seats=torch.tensor([[0, 1], [2, 0]]), occupants=("me", "defector", "coin"))
    occupants = {"me": agent, "defector": always_defect(), "coin": Table((0.5,) * 5)}
    rollout = Rollout(GAME, seating, occupants, watched=None)
    _, log = rollout.play(rollout.start(seeds_of(0, Purpose.TRIAL, 2)), 1)
    assert log.observations[0] is not None
    told = log.observations[0]["co_player"][0].exp()
    torch.testing.assert_close(told[0], torch.tensor([0.001, 1.0] * 5))
    torch.testing.assert_close(told[1], torch.tensor([0.5] * 10))


def test_nobody_is_told_who_does_not_ask():
    experiment = Experiment(game=GAME, agent=AgentConfig(GRUConfig(4), 4), scheme=best_response(), trials=8)
    assert set(experiment.roles()["learner_0"].observation_space.spaces) == {"outcome"}


def test_a_told_learner_trains_and_what_it_is_told_reaches_its_policy():
    experiment = Experiment(game=GAME, agent=TOLD, scheme=mixed_pool(), trials=16)
    check(experiment)
    trainer = PlainTrainer(experiment, {"random_table": co_player("random_table")})
    trainer.train()
    agent = trainer.agents["learner_0"]
    observation = {"outcome": torch.zeros(2, dtype=torch.int64), "co_player": torch.zeros(2, 10)}
    observation["co_player"][1] = -3.0
    decision, _ = agent.act(observation, agent.start(torch.zeros(2, dtype=torch.int64)))
    assert decision.policy is not None
    assert abs(float(decision.policy[0, 0] - decision.policy[1, 0])) > 1e-6


def test_a_told_agent_from_disk_is_told_again(tmp_path):
    save_agent(told_agent(), tmp_path / "told")
    agent = load_agent(tmp_path / "told")
    rollout = Rollout(GAME, one_table(("me", "other"), 1), {"me": agent, "other": always_defect()}, watched=None)
    _, log = rollout.play(rollout.start(seeds_of(0, Purpose.TRIAL, 1)), 1)
    assert log.observations[0] is not None
    assert log.observations[0]["co_player"][0, 0, 0].item() == pytest.approx(math.log(0.001))
