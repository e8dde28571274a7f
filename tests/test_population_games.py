"""Population analyses against games solved by hand, and alpha-rank against numbers that OpenSpiel printed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.evaluation.population_games import alpha_rank, analyse, elo, nash_average, replicator

ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])

# Helping costs 1 and gives 3: to defect earns 1 more, whoever one meets.
DONATION = np.array([[2.0, -1.0], [3.0, 0.0]])

# Hawks fight over 1 at a cost of 4.
HAWK_DOVE = np.array([[-1.5, 1.0], [0.0, 0.5]])

# Tit for tat and always defect over ten rounds of the iterated dilemma with payoffs 5, 3, 1, 0: means per round.
TIT_FOR_TAT_OR_DEFECT = np.array([[3.0, 0.9], [1.4, 1.0]])

# Arbitrary numbers, for comparison with OpenSpiel.
ARBITRARY = np.array([[0.3, -1.2, 0.8, 0.1], [0.5, 0.2, -0.7, 1.1], [-0.4, 0.9, 0.6, -0.2], [0.7, -0.3, 0.4, -0.9]])


@pytest.mark.parametrize("offset", [0.0, -1e6])
def test_defection_spreads_logistically_whatever_is_added_to_all_payoffs(offset: float) -> None:
    # Cooperators are 1 / (1 + exp(t)) when they start as half: 1/2, 1 / 3.71828, 1 / 8.38906.
    times, shares = replicator(DONATION + offset, duration=2.0, points=3)
    assert times.tolist() == [0.0, 1.0, 2.0]
    np.testing.assert_allclose(shares[:, 0], [0.5, 0.2689414, 0.1192029], atol=1e-6)
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-12)


@pytest.mark.parametrize("start", [0.01, 0.9])
def test_hawks_become_a_quarter_where_a_fight_costs_four_times_the_prize(start: float) -> None:
    np.testing.assert_allclose(replicator(HAWK_DOVE, np.array([start, 1 - start])).shares[-1], [0.25, 0.75], atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_rock_paper_and_scissors_circle_with_a_constant_product(offset: float) -> None:
    # 1/2 * 1/4 * 1/4.
    shares = replicator(ROCK_PAPER_SCISSORS + offset, np.array([0.5, 0.25, 0.25])).shares
    np.testing.assert_allclose(shares.prod(1), 0.03125, atol=1e-7)
    assert shares[:, 0].max() - shares[:, 0].min() > 0.2


def test_an_agent_that_starts_with_nothing_never_appears() -> None:
    shares = replicator(ROCK_PAPER_SCISSORS, np.array([0.5, 0.0, 0.5])).shares
    assert shares[:, 1].tolist() == [0.0] * 201
    np.testing.assert_allclose(shares[-1], [1.0, 0.0, 0.0], atol=1e-6)


def test_alpha_rank_gives_everything_to_a_dominant_agent() -> None:
    ranked = alpha_rank(np.array([[1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(ranked.shares, [1.0, 0.0], atol=1e-9)
    assert ranked.settled


@pytest.mark.parametrize("alpha", [0.01, 1.0, 1e6, None])
def test_alpha_rank_gives_rock_paper_and_scissors_a_third_each(alpha: float | None) -> None:
    np.testing.assert_allclose(alpha_rank(ROCK_PAPER_SCISSORS, alpha).shares, [1 / 3] * 3, atol=1e-9)


def test_alpha_rank_of_two_weighs_them_by_their_chances_to_take_over() -> None:
    # With m = 2 and u = ln 3 the better one takes over with (1 - 1/3) / (1 - 1/9) = 3/4, the other with (1 - 3) / (1 - 9) = 1/4.
    payoff = np.array([[0.0, np.log(3.0)], [0.0, 0.0]])
    np.testing.assert_allclose(alpha_rank(payoff, 1.0, population_size=2).shares, [0.75, 0.25], atol=1e-12)


def test_ties_drift_however_strong_selection_is() -> None:
    # The first two draw with each other and both beat the third.
    payoff = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    for alpha in (1e3, 1e12):
        np.testing.assert_allclose(alpha_rank(payoff, alpha).shares, [0.5, 0.5, 0.0], atol=1e-9)


def test_of_a_pair_defection_wins_but_in_a_population_tit_for_tat() -> None:
    np.testing.assert_allclose(alpha_rank(TIT_FOR_TAT_OR_DEFECT).shares, [0.0, 1.0], atol=1e-9)
    np.testing.assert_allclose(alpha_rank(TIT_FOR_TAT_OR_DEFECT, whole_population=True).shares, [1.0, 0.0], atol=1e-9)


# Printed by open_spiel 2.0.2: alpharank.compute([ARBITRARY], m=10, alpha=..., use_local_selection_model=not whole_population)[2].
@pytest.mark.parametrize(
    ("alpha", "whole_population", "printed"),
    [
        (0.1, False, [0.19291773986899946, 0.31883921335837084, 0.2594960586594307, 0.22874698811319896]),
        (0.1, True, [0.2389976060406157, 0.29559892381477165, 0.3039466924851079, 0.16145677765950484]),
        (1.0, False, [0.14084272333763834, 0.36747217035961494, 0.25520011745007554, 0.23648498885267127]),
        (1.0, True, [0.31279769776124144, 0.24577974931104046, 0.4234959816920464, 0.017926571235671627]),
        (5.0, False, [0.1044498240040365, 0.39783013374330517, 0.20418426744088422, 0.293535774811774]),
        (5.0, True, [0.3409900408948868, 0.29596496848616316, 0.3630307841384656, 1.4206480484259999e-05]),
    ],
)
def test_alpha_rank_is_what_open_spiel_prints(alpha: float, whole_population: bool, printed: list[float]) -> None:
    np.testing.assert_allclose(alpha_rank(ARBITRARY, alpha, 10, whole_population).shares, printed, atol=1e-12)


def test_the_sweep_of_alpha_ends_where_that_of_open_spiel_does() -> None:
    # Printed by open_spiel 2.0.2: alpharank.sweep_pi_vs_alpha([ARBITRARY]).
    ranked = alpha_rank(ARBITRARY)
    np.testing.assert_allclose(ranked.shares, [0.1, 0.4, 0.2, 0.3], atol=1e-6)
    assert ranked.settled


def test_nash_averaging_gives_rock_paper_and_scissors_a_third_each_and_no_advantage() -> None:
    shares, advantage = nash_average(ROCK_PAPER_SCISSORS)
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=1e-9)
    np.testing.assert_allclose(advantage, 0.0, atol=1e-9)


def test_a_copy_shares_what_its_original_had_alone() -> None:
    twice_rock = np.ix_([0, 1, 2, 0], [0, 1, 2, 0])
    np.testing.assert_allclose(nash_average(ROCK_PAPER_SCISSORS[twice_rock]).shares, [1 / 6, 1 / 3, 1 / 3, 1 / 6], atol=1e-6)


def test_a_worse_copy_gets_nothing_and_its_disadvantage_is_named() -> None:
    # The fourth plays rock and pays 0.25 for it, and whoever meets it is given as much.
    payoff = np.array([[0.0, -1.0, 1.0, 0.25], [1.0, 0.0, -1.0, 1.25], [-1.0, 1.0, 0.0, -0.75], [-0.25, -1.25, 0.75, 0.0]])
    shares, advantage = nash_average(payoff)
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 1 / 3, 0.0], atol=1e-8)
    # An advantage counts both sides: -0.25 - 0.25.
    np.testing.assert_allclose(advantage, [0.0, 0.0, 0.0, -0.5], atol=1e-8)


def test_of_many_equilibria_the_most_even_one_that_holds_an_outsider_off_is_taken() -> None:
    # The first two draw. The third loses 1 to the first and takes 2 from the second: the first must have 2/3 to keep it out.
    payoff = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    np.testing.assert_allclose(nash_average(payoff).shares, [2 / 3, 1 / 3, 0.0], atol=1e-6)


def test_agents_that_all_draw_share_evenly() -> None:
    np.testing.assert_allclose(nash_average(np.ones((5, 5))).shares, [0.2] * 5, atol=1e-9)


def test_nobody_gains_on_a_nash_average_of_random_games_and_copies() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        agents = int(generator.integers(2, 7))
        drawn = generator.integers(0, agents, agents + 2)
        payoff = generator.normal(size=(agents, agents)).round(1)[np.ix_(drawn, drawn)]
        shares, advantage = nash_average(payoff)
        assert advantage.max() < 1e-8
        for agent in range(agents):
            np.testing.assert_allclose(shares[drawn == agent], shares[drawn == agent].mean() if (drawn == agent).any() else 0.0, atol=1e-5)


def test_three_wins_in_four_are_147_points_beside_a_virtual_draw() -> None:
    per_trial = np.zeros((2, 2, 4))
    per_trial[0, 1] = [1.0, 1.0, 1.0, 0.0]
    per_trial[1, 0] = [0.0, 0.0, 0.0, 1.0]
    # 3.5 to 1.5: 400 log10(7/3) = 147.19.
    np.testing.assert_allclose(elo(per_trial), [1573.595, 1426.405], atol=0.01)


def test_a_draw_is_half_a_win() -> None:
    per_trial = np.zeros((2, 2, 3))
    per_trial[0, 1] = [1.0, 0.0, 0.0]
    # 2.5 to 1.5: 400 log10(5/3) = 88.74.
    np.testing.assert_allclose(elo(per_trial), [1544.37, 1455.63], atol=0.01)


def test_a_perfect_record_stays_finite() -> None:
    per_trial = np.zeros((2, 2, 1000))
    per_trial[0, 1] = 1.0
    # 1000.5 to 0.5: 400 log10(2001) = 1320.50.
    np.testing.assert_allclose(elo(per_trial), [2160.25, 839.75], atol=0.01)


def test_draws_missing_games_and_self_play_move_no_rating() -> None:
    per_trial = np.full((3, 3, 5), np.nan)
    per_trial[0, 0] = 7.0
    per_trial[0, 1] = per_trial[1, 0] = 2.0
    np.testing.assert_allclose(elo(per_trial), [1500.0] * 3, atol=1e-6)


def test_ratings_hide_a_cycle() -> None:
    np.testing.assert_allclose(elo(np.repeat(ROCK_PAPER_SCISSORS[..., None], 9, -1)), [1500.0] * 3, atol=1e-6)


def test_an_analysis_is_plain_json_with_an_interval_around_every_figure() -> None:
    per_trial = TIT_FOR_TAT_OR_DEFECT[..., None] + np.random.default_rng(1).normal(size=(2, 2, 40)) * 0.05
    payoff = per_trial.mean(-1)
    analysis = analyse(["tit_for_tat", "always_defect"], payoff, per_trial, resamples=50)
    assert json.loads(json.dumps(analysis, allow_nan=False)) == analysis
    assert analysis["agents"] == ["tit_for_tat", "always_defect"]
    assert (np.array(analysis["payoff_interval"]["low"]) < payoff).all()
    assert (np.array(analysis["payoff_interval"]["high"]) > payoff).all()
    assert analysis["alpha_rank"]["shares"][1] > 0.99
    assert analysis["alpha_rank_whole_population"]["low"][0] > 0.99
    assert analysis["nash_average"]["low"] == [0.0, 1.0]
    assert analysis["elo"]["high"][0] < 1500 < analysis["elo"]["low"][1]
    assert len(analysis["replicator"]["times"]) == len(analysis["replicator"]["shares"]) == 201


def test_one_agent_alone_has_everything() -> None:
    analysis = analyse(["hermit"], np.array([[2.0]]), np.full((1, 1, 3), 2.0), resamples=5)
    for name, figure in [("alpha_rank", "shares"), ("nash_average", "shares"), ("elo", "ratings")]:
        assert analysis[name][figure] == pytest.approx([1500.0 if name == "elo" else 1.0])
    assert analysis["replicator"]["shares"][-1] == [1.0]


def test_what_is_no_payoff_is_named() -> None:
    with pytest.raises(ValueError, match=r"payoff .*nan.*finite"):
        nash_average(np.array([[0.0, np.nan], [1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"start \[0.5, 0.6\]; want 2 shares"):
        replicator(DONATION, np.array([0.5, 0.6]))
    with pytest.raises(ValueError, match="population_size 1; want"):
        alpha_rank(DONATION, population_size=1)
    with pytest.raises(ValueError, match="1 names, payoff"):
        analyse(["alone"], DONATION, np.zeros((2, 2, 3)))
