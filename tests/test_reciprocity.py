"""Reciprocity and extortion, of scripted players whose numbers are known."""

import numpy as np
import pytest

from agents.co_players.tables import RandomTable, Table, always_defect, extortion, generous_tit_for_tat, random, tit_for_tat
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma
from training.evaluation.reciprocity import extortion_slope, reciprocity
from training.rollout import Rollout
from training.seating import one_table

NAN = np.nan


def play(own, other, trials, rounds=100):
    """Cooperation and rewards, [2, trials, rounds] each."""
    rollout = Rollout(IteratedDilemma(rounds=rounds), one_table(("own", "other"), trials), {"own": own, "other": other})
    _, log = rollout.play(rollout.start(seeds_of(20251123, Purpose.EVALUATION, trials)), rounds)
    return tuple(values.permute(2, 1, 0).double().numpy() for values in (log.measures["cooperation"], log.rewards["player"]))


def moves(*trials):
    return np.array([[{"C": 1.0, "D": 0.0, "-": NAN}[letter] for letter in trial] for trial in trials])


def test_the_answer_to_the_others_last_move_is_told_from_the_habit_of_ones_own():
    """After C C: C, D; after C D: D; after D C: C; after D D: D, D. Half, none, all, none: (1/2 - 0 and 1 - 0) weighed by what each says.

    Normal equations with moves 0 and 1: six answers 1 0 0 1 0 0, own last 1 1 1 0 0 0, the other's last 1 1 0 1 0 0. Own and other have
    spread 3/2 and covariance 1/2; the answers have covariance 0 with own and 1 with the other. So (1 * 3/2) / (9/4 - 1/4) = 3/4.
    """
    own = moves("C C - C D - C D - D C - D D - D D".replace(" ", ""))
    other = moves("C - - C - - D - - C - - D - - D -".replace(" ", ""))
    assert reciprocity(own, other) == pytest.approx([0.75])


@pytest.mark.parametrize(
    ("player", "expected", "tolerance"),
    [
        (tit_for_tat(), 1.0, 1e-9),
        (Table((0.0, 0.0, 1.0, 0.0, 1.0)), -1.0, 1e-9),
        (always_defect(), 0.0, 1e-9),
        # Standard errors of 400 trials: 0.0034, 0.005 and 0.005.
        (generous_tit_for_tat(), 2 / 3, 0.015),
        (Table((0.5, 0.8, 0.4, 0.6, 0.2)), 0.4, 0.02),
        (random(), 0.0, 0.02),
    ],
)
def test_scripts_answer_random_players_as_their_tables_say(player, expected, tolerance):
    (own, other), _ = play(player, random(), 400)
    values = reciprocity(own, other)
    assert values.shape == (400,)
    assert abs(values.mean() - expected) < tolerance


def test_answers_that_are_answered_are_measured_a_little_low():
    """The bias that the docstring states, against tit-for-tat: 0.366 for 0.4 in 100 rounds, 0.203 in 20."""
    player = Table((0.5, 0.8, 0.4, 0.6, 0.2))
    for rounds, trials, measured in ((100, 2000, 0.366), (20, 4000, 0.203)):
        (own, other), _ = play(player, tit_for_tat(), trials, rounds)
        assert abs(np.nanmean(reciprocity(own, other)) - measured) < 0.02


def test_trials_that_cannot_tell_are_nan_and_rounds_after_the_end_say_nothing():
    own = moves("CCDCDD", "CDCDCD", "CCCCCC", "DC----", "CDDC--", "------")
    other = moves("CDCDDC", "CCCCCC", "CCDCDC", "CD----", "DDCD--", "------")
    values = reciprocity(own, other)
    # Tit-for-tat; the other never varied; always-cooperate; one answer only; three answers of tit-for-tat; nothing.
    np.testing.assert_allclose(values, [1.0, NAN, 0.0, NAN, 1.0, NAN], atol=1e-9)


def test_two_who_always_do_the_same_cannot_be_told_apart():
    together = moves("CCDDCDCC")
    assert np.isnan(reciprocity(together, together)).all()


def test_the_slope_is_the_lines_whatever_its_place():
    other = np.random.default_rng(0).random((2, 30, 1)) + np.zeros((2, 30, 6))
    own = 3 * other + np.array([-5.0, 7.0])[:, None, None]
    slope = extortion_slope(own, other)
    assert slope[:3] == pytest.approx((3.0, 3.0, 3.0))
    assert slope[3:] == (2, 30)


def test_extortioners_gain_their_factor_over_random_tables():
    """Press and Dyson: chi times. In 4,000 trials of 100 rounds each, the two plain regressions are far off."""
    _, (own, other) = play(extortion(2.0), RandomTable(), 4000)
    slope = extortion_slope(own[None], other[None], resamples=500)
    assert slope.low < 2.0 < slope.high
    assert abs(slope.mean - 2.0) < 0.15
    assert slope.high - slope.low < 0.2
    covariance = np.cov(own.mean(1), other.mean(1))
    assert covariance[0, 1] / covariance[1, 1] < 1.7
    assert covariance[0, 0] / covariance[0, 1] > 2.1


def test_tit_for_tat_shares_evenly_and_always_defect_takes_two_for_each_one_lost():
    _, (own, other) = play(tit_for_tat(), RandomTable(), 1000)
    assert abs(extortion_slope(own[None], other[None], resamples=200).mean - 1.0) < 0.05
    _, (own, other) = play(always_defect(), RandomTable(), 100)
    assert extortion_slope(own[None], other[None], resamples=200)[:3] == pytest.approx((-2.0, -2.0, -2.0))


def test_the_slopes_interval_holds_two_as_often_as_it_says():
    """60 experiments of 200 trials each: about 57 should."""
    _, (own, other) = play(extortion(2.0), RandomTable(), 12_000)
    held = 0
    for first in range(0, 12_000, 200):
        slope = extortion_slope(own[None, first : first + 200], other[None, first : first + 200], resamples=300)
        held += slope.low <= 2.0 <= slope.high
    assert 52 <= held <= 60


def test_trials_that_end_in_their_earlier_half_are_left_out_of_the_slope():
    own, other = np.random.default_rng(1).random((2, 1, 10, 4)) + np.arange(10.0)[:, None]
    own[0, 3, 2:], other[0, 3, 2:] = NAN, NAN
    slope = extortion_slope(own, other)
    own[0, 3], other[0, 3] = NAN, NAN
    assert extortion_slope(own, other) == slope
    assert 0.5 < slope.mean < 1.5


def test_an_other_that_always_earns_the_same_gives_no_slope():
    own = np.random.default_rng(0).random((1, 20, 4))
    assert np.isnan(extortion_slope(own, np.ones((1, 20, 4)))[:3]).all()


def test_slopes_want_the_same_trials_of_at_least_two_rounds():
    with pytest.raises(ValueError, match=r"own is \[1, 3, 1\] and other \[1, 3, 1\]; want the same S, n and T, and at least two rounds"):
        extortion_slope(np.ones((1, 3, 1)), np.ones((1, 3, 1)))
