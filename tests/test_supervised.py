"""Right answers: from the game through rollout, loss and both training loops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from agents.agent import AgentConfig, Outlook
from agents.heads import head_of
from envs.game import Answer, KnowsAnswers, Observation, Role, Scene, Turn
from envs.iterated_dilemma import IteratedDilemma
from envs.referential import Referential
from memory.gru import GRUConfig
from memory.none import NoMemoryConfig
from training import recording, tree
from training.algorithms import A2C, PPO, Batch, StraightThrough, Supervised
from training.experiment import Experiment
from training.graph import CapturedRollout
from training.losses import answer_loss
from training.occupants import check
from training.plain import PlainTrainer, collect
from training.rllib.module import AgentModule
from training.rollout import Rollout, join, trajectories
from training.schemes.self_play import SelfPlay, independent
from training.seating import Seating, one_table
from training.settings import BadInput, from_json, override, to_json


class SchoolState(NamedTuple):
    seed: Tensor
    step: Tensor


@dataclass(frozen=True)
class School:
    """Two pupils are shown a number; it is asked back in every other step, and of the second pupil its double as well."""

    rounds: int = 4

    @property
    def roles(self) -> tuple[Role, ...]:
        shown = gym.spaces.Dict({"number": gym.spaces.Discrete(3)})
        return (Role("pupil", 2, shown, gym.spaces.Discrete(6)),)

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Tensor) -> SchoolState:
        return SchoolState(seeds, torch.zeros_like(seeds))

    def _number(self, state: SchoolState) -> Tensor:
        return ((state.seed + state.step) % 3)[:, None].expand(-1, 2)

    def observe(self, state: SchoolState) -> dict[str, Observation]:
        return {"pupil": {"number": self._number(state)}}

    def answers(self, state: SchoolState) -> dict[str, Answer]:
        asked = (state.step % 2 == 0)[:, None] | torch.tensor([False, True])
        return {"pupil": Answer(self._number(state) * torch.tensor([1, 2]), asked)}

    def step(self, state: SchoolState, actions: Mapping[str, Tensor]) -> tuple[SchoolState, Turn]:
        right, asked = self.answers(state)["pupil"]
        correct = (actions["pupil"] == right).float()
        after = SchoolState(state.seed, state.step + 1)
        measures = {"correct": correct.masked_fill(~asked, math.nan)}
        return after, Turn({"pupil": correct * asked}, after.step >= self.rounds, measures)

    def describe(self, state: SchoolState, index: int) -> Scene:
        return Scene(f"lesson {int(state.step[index])}")


SMALL = AgentConfig(NoMemoryConfig(8), embedding=8)


def pupils(seeds: list[int], watched: tuple[str, ...] = ("ann", "bob"), **options: Any) -> tuple[Rollout, Any, Any, Any]:
    """Ann sits first in the first table and second in the others. The rollout, the table before, what happened, the table after."""
    role = School().roles[0]
    occupants = {name: SMALL.build(role.observation_space, role.action_space, seed) for name, seed in (("ann", 1), ("bob", 2))}
    seats = torch.tensor([[0, 1]] + [[1, 0]] * (len(seeds) - 1))
    seating = Seating(("ann", "bob"), seats, ("all",), torch.zeros(len(seeds), dtype=torch.int64))
    rollout = Rollout(School(), seating, occupants, watched=watched, **options)
    # The game's own seed is a function of the row's; here the numbers shown are to be known.
    before = rollout.start(torch.tensor(seeds))
    before = before._replace(game=before.game._replace(seed=torch.tensor(seeds)))
    after, log = rollout.play(before, 4)
    return rollout, before, log, after


def test_a_rollout_keeps_every_learners_right_answers_in_its_own_rows() -> None:
    lived = trajectories(*pupils([0, 1], keeps_answers=True))
    # Ann is first at the first table, where 0, 1, 2, 0 are shown, and second at the other: twice 1, 2, 0, 1.
    assert lived["ann"].answer is not None
    assert lived["bob"].answer is not None
    assert lived["ann"].answer.action.tolist() == [[0, 1, 2, 0], [2, 4, 0, 2]]
    assert lived["ann"].answer.asked.tolist() == [[True, False, True, False], [True] * 4]
    assert lived["bob"].answer.action.tolist() == [[0, 2, 4, 0], [1, 2, 0, 1]]
    assert lived["bob"].answer.asked.tolist() == [[True] * 4, [True, False, True, False]]


def test_answers_are_kept_only_where_they_are_wanted_and_of_those_who_are_watched() -> None:
    *_, log, _ = pupils([0, 1])
    assert log.answers == (None, None)
    assert all(lived.answer is None for lived in trajectories(*pupils([0, 1])).values())
    *_, log, _ = pupils([0, 1], watched=("bob",), keeps_answers=True)
    assert log.answers[0] is None
    assert log.answers[1] is not None


def test_keeping_answers_changes_nothing_else() -> None:
    *_, without, _ = pupils([5, 6])
    *_, kept, _ = pupils([5, 6], keeps_answers=True)
    leaves = tree.named_leaves(kept)
    for name, leaf in tree.named_leaves(without).items():
        assert torch.equal(leaf.nan_to_num(7), leaves[name].nan_to_num(7)), name
    assert {name for name in leaves if name not in tree.named_leaves(without)} == {
        f"answers.{group}.{leaf}" for group in (0, 1) for leaf in ("action", "asked")
    }


def test_who_is_shown_the_answers_does_as_is_right_where_it_is_asked_and_takes_it_for_its_own() -> None:
    chosen = trajectories(*pupils([0, 1], keeps_answers=True))
    shown = trajectories(*pupils([0, 1], keeps_answers=True, shows_answers=True))
    for name, lived in shown.items():
        assert lived.answer is not None
        asked = lived.answer.asked
        assert torch.equal(lived.action[asked], lived.answer.action[asked])
        assert torch.equal(lived.action_before[:, 1:], lived.action[:, :-1])
        assert lived.reward[asked].eq(1).all()
        assert not torch.equal(chosen[name].action[asked], lived.action[asked])
        # Anything that is allowed elsewhere; and nothing of it went through the memory.
        assert len(lived.action[~asked].unique()) > 1
        assert lived.value.eq(0).all()


def test_training_shows_the_answers_where_its_algorithm_says_so() -> None:
    experiment = Experiment(game=School(), agent=SMALL, scheme=SelfPlay(), algorithm=Supervised(shows=True), trials=8, iterations=1)
    assert (
        collect(experiment, experiment.scheme.seat(School(), 8, 0), PlainTrainer(experiment, {}).occupants, 0, 0)[0][
            "learner_0"
        ].reward.sum()
        == 48
    )
    with pytest.raises(ValueError, match="shows is True; want False"):
        StraightThrough(shows=True)
    with pytest.raises(ValueError, match="shows is True; want False, for what is right to say in Referential no teacher knows"):
        Supervised(shows=True).check_fits(Referential())
    with pytest.raises(ValueError, match=r"value_coefficient is 0\.5 and shows True; want 0"):
        Supervised(shows=True, value_coefficient=0.5)


def test_who_is_led_does_what_is_allowed_where_nothing_is_asked_and_keeps_its_memory_as_it_was() -> None:
    rows = 400
    space = gym.spaces.Dict({"symbol": gym.spaces.Discrete(2), "action_mask": gym.spaces.MultiBinary(4)})
    agent = AgentConfig(memory=GRUConfig(8)).build(space, gym.spaces.Discrete(4), 0)
    before = agent.start(torch.arange(rows))
    seen = {"symbol": torch.zeros(rows).long(), "action_mask": torch.tensor([1, 0, 1, 1], dtype=torch.int8).expand(rows, 4)}
    answer = Answer(torch.full((rows,), 2), torch.arange(rows) % 2 == 0)
    decision, after = agent.follow(seen, before, answer)
    assert decision.action[::2].eq(2).all()
    assert decision.action[1::2].unique().tolist() == [0, 2, 3]
    assert after.memory is before.memory
    assert torch.equal(after.action, decision.action)
    assert after.clock.eq(1).all()
    bounded = AgentConfig(memory=GRUConfig(8)).build(space, gym.spaces.Box(-1.0, 3.0, (2,)), 0)
    decision, _ = bounded.follow(seen, bounded.start(torch.arange(rows)), Answer(torch.zeros(rows, 2), torch.zeros(rows, dtype=torch.bool)))
    assert decision.action.mean(0).tolist() == pytest.approx([1.0, 1.0], abs=0.2)
    assert decision.action.std(0).tolist() == pytest.approx([4 / 12**0.5] * 2, abs=0.1)


def test_recordings_hold_no_answers() -> None:
    role = School().roles[0]
    agent = SMALL.build(role.observation_space, role.action_space, 1)
    _, log = recording.play(School(), one_table(("ann", "ann"), 2), {"ann": agent}, torch.tensor([1, 2]))
    assert not any(name.startswith("answers") for name in tree.named_leaves(log))


def test_a_captured_rollout_keeps_answers_too() -> None:
    rollout, before, log, _ = pupils([0, 1], keeps_answers=True)
    _, captured = CapturedRollout(rollout, before, 4).play(before)
    for name, leaf in tree.named_leaves(log.answers).items():
        assert torch.equal(leaf, tree.named_leaves(captured.answers)[name])


def test_rows_of_several_runners_keep_their_answers_under_one_another() -> None:
    one, two = (trajectories(*pupils(seeds, keeps_answers=True))["bob"] for seeds in ([0, 1], [2, 0]))
    together = join([one, two]).answer
    assert together is not None
    assert together.action.tolist() == [[0, 2, 4, 0], [1, 2, 0, 1], [4, 0, 2, 4], [0, 1, 2, 0]]
    assert together.asked[3].tolist() == [True, False, True, False]
    without = trajectories(*pupils([0, 1]))["bob"]
    assert join([without, without]).answer is None


def test_the_loss_of_answers_is_the_mean_over_what_was_asked() -> None:
    error = torch.tensor([[1.0, 100.0, 3.0], [math.inf, 5.0, 100.0]])
    asked = torch.tensor([[True, False, True], [False, True, False]])
    assert answer_loss(error, asked).item() == 3.0
    assert answer_loss(error, torch.zeros_like(asked)).item() == 0.0


def batch_of(action: Tensor, answer: Answer | None) -> Batch:
    """Two steps."""
    blank = torch.zeros(1, 2)
    return Batch(
        {"number": blank.long()}, action, action, blank, blank.bool(), None,
        torch.full((1, 2), math.log(0.5)), torch.tensor([[5.0, -5.0]]), torch.tensor([[2.0, 4.0]]), answer,
    )  # fmt: skip


def test_the_supervised_loss_of_choices_by_hand() -> None:
    head = head_of(gym.spaces.Discrete(2), 4)
    outlook = Outlook(torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]).log(), torch.tensor([[1.0, 2.0]]), None)
    # The right actions are 1 and 0, whatever was played: - log 1/4 and - log 1/2.
    batch = batch_of(torch.tensor([[0, 0]]), Answer(torch.tensor([[1, 0]]), torch.tensor([[True, True]])))
    loss, figures = Supervised().loss(head, outlook, batch, 0.0)
    assert loss.item() == pytest.approx(1.0397208, abs=1e-6)
    assert figures["policy_loss"].item() == pytest.approx(1.0397208, abs=1e-6)
    assert figures["value_loss"].item() == pytest.approx(2.5)
    batch = batch._replace(answer=Answer(torch.tensor([[1, 0]]), torch.tensor([[True, False]])))
    assert Supervised().loss(head, outlook, batch, 0.0)[0].item() == pytest.approx(1.3862944, abs=1e-6)
    # Values count where their coefficient says so.
    assert Supervised(value_coefficient=0.5).loss(head, outlook, batch, 0.0)[0].item() == pytest.approx(1.3862944 + 1.25, abs=1e-6)


def test_the_supervised_loss_of_numbers_by_hand() -> None:
    head = head_of(gym.spaces.Box(-1, 3, (), np.float32), 4)
    # Both steps' distributions have their mean where 1/2 and 2/3 of the way are: at 1 and 5/3.
    outlook = Outlook(torch.tensor([[[1.0, 1.0], [2.0, 1.0]]]), torch.zeros(1, 2), None)
    batch = batch_of(torch.tensor([[0.0, 0.0]]), Answer(torch.tensor([[3.0, 2.0]]), torch.tensor([[True, True]])))
    loss, _ = Supervised().loss(head, outlook, batch, 0.0)
    assert loss.item() == pytest.approx((4 + 1 / 9) / 2, abs=1e-5)


def test_every_parameter_of_a_supervised_agent_has_a_gradient() -> None:
    """RLlib's learners want one, zeros for what does not count."""
    experiment = Experiment(game=School(), agent=SMALL, scheme=SelfPlay(), algorithm=Supervised(), trials=4)
    trainer = PlainTrainer(experiment, {})
    trainer.train()
    agent = trainer.agents["learner_0"]
    assert all(parameter.grad is not None for parameter in agent.parameters())
    assert agent.value_head.weight.grad is not None
    assert agent.value_head.weight.grad.abs().sum() == 0
    assert agent.policy_head.logits.weight.grad.abs().sum() > 0


def test_pupils_learn_what_they_are_asked_and_act_their_best() -> None:
    agent = AgentConfig(NoMemoryConfig(16), embedding=16, acts="best")
    experiment = Experiment(
        game=School(), agent=agent, scheme=independent(), algorithm=Supervised(learning_rate=0.03), trials=16, iterations=40
    )
    trainer = PlainTrainer(experiment, {})
    for _ in range(40):
        trainer.train()
    seating = experiment.scheme.seat(experiment.game, 16, 40)
    _, log, _ = collect(experiment, seating, trainer.occupants, 40, 0)
    assert log.measures["correct"].nanmean().item() == 1.0


def test_a_game_that_does_not_know_the_answers_is_refused_by_name() -> None:
    assert isinstance(School(), KnowsAnswers)
    assert not isinstance(IteratedDilemma(), KnowsAnswers)
    wanted = r"IteratedDilemma does not know the right actions; want a game that has `answers`"
    with pytest.raises(BadInput, match=wanted):
        check(Experiment(algorithm=Supervised()))
    with pytest.raises(ValueError, match=wanted):
        PlainTrainer(Experiment(scheme=SelfPlay(), algorithm=Supervised(), trials=4), {}).train()
    check(Experiment(game=School(), agent=SMALL, scheme=SelfPlay(), algorithm=Supervised(), suite="together"))


@pytest.mark.parametrize("algorithm", [PPO(), A2C()])
def test_an_agent_that_acts_its_best_cannot_learn_from_rewards_and_is_refused(algorithm: PPO | A2C) -> None:
    with pytest.raises(BadInput, match=r"agent.acts is 'best': .*; want 'sample', or algorithm=supervised"):
        check(Experiment(agent=AgentConfig(acts="best"), algorithm=algorithm))


def test_supervision_is_a_setting_like_others() -> None:
    experiment = Experiment()
    for assignment in ("algorithm=supervised", "algorithm.learning_rate=0.01", "agent.acts=best"):
        experiment = override(experiment, assignment)
    assert experiment.algorithm == Supervised(learning_rate=0.01)
    assert experiment.agent.acts == "best"
    assert from_json(to_json(experiment)) == experiment
    assert "wants_answers" not in to_json(experiment)["algorithm"]


def test_batches_go_through_rllibs_flat_dictionary_with_answers_and_without() -> None:
    role = School().roles[0]
    module = AgentModule(observation_space=role.observation_space, action_space=role.action_space, model_config={"agent": SMALL, "seed": 1})
    for keeps in (True, False):
        lived = trajectories(*pupils([0, 1], keeps_answers=keeps))["ann"]
        batch = (Supervised() if keeps else PPO()).prepare(lived)
        back = module.batch_of(tree.named_leaves(batch))
        assert (back.answer is not None) == keeps
        for name, leaf in tree.named_leaves(batch).items():
            assert torch.equal(leaf, tree.named_leaves(back)[name]), name
        assert type(back.answer) is (Answer if keeps else type(None))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.xdist_group("ray")
def test_rllib_learns_from_answers_what_the_plain_loop_learns() -> None:
    from training.rllib import algorithm as rllib

    experiment = Experiment(
        game=School(), agent=SMALL, scheme=SelfPlay(), trials=8, iterations=2, algorithm=Supervised(epochs=2, minibatches=2)
    )
    rllib.start_ray(experiment)
    try:
        algorithm = rllib.build(experiment)
        for _ in range(2):
            algorithm.train()
        weights = algorithm.snapshot().weights["learner_0"]
        report = algorithm.report
        algorithm.stop()
    finally:
        rllib.stop_ray()
    trainer = PlainTrainer(experiment, {})
    for _ in range(2):
        trainer.train()
    for name, value in trainer.agents["learner_0"].state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert report["learning/learner_0/policy_loss"] > 0.5
