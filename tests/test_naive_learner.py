"""A co-player that learns within the trial: its rule by hand, what it learns, and that it can be shaped."""

import pytest
import torch

from agents.co_players.naive_learner import NaiveLearner
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma
from training.population import co_player
from training.rollout import Rollout
from training.seating import one_table

COOPERATE, DEFECT = 0, 1


def seeds(count, first=0):
    return seeds_of(20251123, Purpose.OCCUPANT, count, first=first)


def lives_through(player, rounds, count=64):
    """Actions [rounds, count] and states while everybody sees (outcome, reward) each round."""
    state, actions, states = player.start(seeds(count)), [], []
    for outcome, reward in rounds:
        decision, state = player.act({"outcome": torch.full((count,), outcome)}, state, torch.full((count,), reward))
        actions.append(decision.action)
        states.append(state)
    return torch.stack(actions), states


def rewards_of_last_rounds(learner, other, trials=200, rounds=1000):
    """(the learner's cooperation, its reward, the other's reward) per round in the last fifth of a trial."""
    game = IteratedDilemma(rounds=rounds)
    rollout = Rollout(game, one_table(("learner", other), trials), {"learner": learner, other: co_player(other)})
    _, log = rollout.play(rollout.start(seeds_of(7, Purpose.TRIAL, trials)), rounds)
    last = slice(rounds - rounds // 5, None)
    mine, others = log.rewards["player"][last].double().mean((0, 1)).tolist()
    return log.measures["cooperation"][last, :, 0].double().mean().item(), mine, others


def test_two_updates_worked_by_hand():
    player = NaiveLearner(learning_rate=2.0, discount=0.5, cooperation=0.5, baseline_rate=0.25)
    actions, states = lives_through(player, [(0, 0.0), (2, 1.0), (4, -3.0)])
    rows = (actions[0] == COOPERATE) & (actions[1] == DEFECT) & (actions[2] == COOPERATE)
    assert rows.any()
    opened, second, third = ([state.logits[rows], state.trace[rows], state.baseline[rows]] for state in states)
    # Before the first round nothing was earned; it cooperates at even odds: the gradient is 1 - 1/2.
    assert_all(opened, [0, 0, 0, 0, 0], [0.5, 0, 0, 0, 0], 0.0)
    # Reward 1, baseline 0: logits rise by 2 * 1 * 0.5. It defects after CD: -1/2; the older trace is halved.
    assert_all(second, [1.0, 0, 0, 0, 0], [0.25, 0, -0.5, 0, 0], 0.25)
    # Reward -3, baseline 0.25: logits move by 2 * -3.25 * trace. It cooperates after DD.
    assert_all(third, [-0.625, 0, 3.25, 0, 0], [0.125, 0, -0.25, 0, 0.5], -0.5625)


def assert_all(found, logits, trace, baseline):
    for leaf, expected in zip(found, (logits, trace, baseline), strict=True):
        torch.testing.assert_close(leaf, torch.tensor(expected).float().expand_as(leaf))


def test_the_gradient_is_that_of_the_probability_it_has_by_now():
    player = NaiveLearner(learning_rate=1.0, discount=0.0, cooperation=0.2, baseline_rate=0.0)
    actions, states = lives_through(player, [(1, 0.0), (1, 2.0)])
    defected = actions[0] == DEFECT
    # The log-odds of 1/5 are -1.386294; a defection has the gradient -1/5, so that 2 * -0.2 is added: -1.786294, which is 0.143528.
    torch.testing.assert_close(states[1].logits[defected, 1], torch.full((int(defected.sum()),), -1.786294))
    rows = defected & (actions[1] == DEFECT)
    torch.testing.assert_close(states[1].trace[rows, 1], torch.full((int(rows.sum()),), -0.143528), atol=1e-6, rtol=0)
    assert (~defected).any()


def test_it_learns_to_defect_on_whoever_always_cooperates():
    cooperation, mine, _ = rewards_of_last_rounds(NaiveLearner(), "always_cooperate")
    assert cooperation < 0.05
    assert mine > 1.9


@pytest.mark.long
def test_it_learns_to_cooperate_with_tit_for_tat_if_it_looks_ahead():
    with_tit_for_tat, _, _ = rewards_of_last_rounds(NaiveLearner(), "tit_for_tat")
    with_a_defector, _, _ = rewards_of_last_rounds(NaiveLearner(), "always_defect")
    assert with_tit_for_tat > 0.9
    assert with_a_defector < 0.05
    short_sighted, _, _ = rewards_of_last_rounds(NaiveLearner(discount=0.0), "tit_for_tat")
    assert short_sighted < 0.05


@pytest.mark.long
def test_it_can_be_shaped():
    _, _, by_cooperation = rewards_of_last_rounds(NaiveLearner(), "tit_for_tat")
    _, mine, by_extortion = rewards_of_last_rounds(NaiveLearner(), "extortion")
    _, _, by_defection = rewards_of_last_rounds(NaiveLearner(), "always_defect")
    assert by_cooperation > 0.9
    assert by_defection < 0.1
    # An extortioner with slope 2 takes two thirds.
    assert by_extortion > 0.9
    assert by_extortion == pytest.approx(2 * mine, abs=0.05)


def test_without_a_learning_rate_it_plays_as_its_table_does():
    table, player = co_player("random"), NaiveLearner(learning_rate=0.0)
    outcomes = torch.randint(5, (50, 30), generator=torch.Generator().manual_seed(5))
    state, other = player.start(seeds(30)), table.start(seeds(30))
    for outcome in outcomes:
        decision, state = player.act({"outcome": outcome}, state, outcome.float())
        expected, other = table.act({"outcome": outcome}, other, outcome.float())
        assert torch.equal(decision.action, expected.action)
    drawn = NaiveLearner(learning_rate=0.0, cooperation=-1.0).start(seeds(30)).logits.sigmoid()
    torch.testing.assert_close(drawn, co_player("random_table").start(seeds(30)).cooperates)


def test_a_probability_at_first_is_given_or_drawn_for_the_trial():
    given = NaiveLearner(cooperation=0.75).start(seeds(3)).logits
    torch.testing.assert_close(given, torch.full((3, 5), 1.098612))
    drawn = NaiveLearner(cooperation=-1.0).start(seeds(20_000)).logits.sigmoid()
    # Four standard errors of a mean of 20,000 numbers from U(0, 1).
    assert (drawn.double().mean(0) - 0.5).abs().max() < 0.0082
    assert drawn.isfinite().all()


def test_other_seeds_learn_otherwise_and_the_same_seeds_alike():
    def actions(first):
        state, played = NaiveLearner().start(seeds(20, first)), []
        outcome = torch.zeros(20, dtype=torch.int64)
        for _ in range(50):
            decision, state = NaiveLearner().act({"outcome": outcome}, state, outcome.float())
            outcome = 1 + 2 * decision.action
            played.append(decision.action)
        return torch.stack(played), state.logits

    for one, same in zip(actions(0), actions(0), strict=True):
        assert torch.equal(one, same)
    for one, other in zip(actions(0), actions(20), strict=True):
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rate": -1.0}, r"learning_rate is -1.0; want from 0 to 1,000,000"),
        ({"discount": 1.0}, r"discount is 1.0; want from 0 to below 1"),
        ({"cooperation": 1.0}, r"cooperation is 1.0; want a probability between 0 and 1, or below 0 to draw it"),
        ({"cooperation": 0.0}, r"cooperation is 0.0; want a probability between 0 and 1"),
        ({"cooperation": float("nan")}, r"cooperation is nan; want a probability between 0 and 1"),
        ({"baseline_rate": 1.5}, r"baseline_rate is 1.5; want from 0 to 1"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(settings, expected):
    with pytest.raises(ValueError, match=expected):
        NaiveLearner(**settings)
