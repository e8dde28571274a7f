"""Intervals that hold the truth as often as they say, and differences on the same luck. The plain bootstrap's other tests: test_runs."""

import numpy as np
import pytest
from scipy import stats

from training.evaluation.statistics import Interval, bootstrap, interquartile_mean, paired_difference, probability_of_improvement, ratio

NAN = np.nan


def simulated(generator, seeds, trials=100, seed_spread=0.3, trial_spread=1.0, noise=1.0):
    """[S, n] with mean 0 over all seeds and trials, and what each seed adds, [S, 1]."""
    skill = generator.normal(size=(seeds, 1)) * seed_spread
    luck = generator.normal(size=(1, trials)) * trial_spread
    return skill + luck + generator.normal(size=(seeds, trials)) * noise, skill


def share_that_holds(truths, intervals):
    return np.mean([interval.low <= truth <= interval.high for truth, interval in zip(truths, intervals, strict=True)])


def test_intervals_of_ten_seeds_hold_the_mean_of_all_seeds_and_trials():
    """Of 300 experiments 95 % should; taking 10 seeds of 100 trials for 1,000 trials of one holds it in half of them."""
    generator = np.random.default_rng(4)
    data = [simulated(generator, 10)[0] for _ in range(300)]
    assert 0.88 <= share_that_holds(np.zeros(300), [bootstrap(values, 300) for values in data]) <= 0.98
    naive = [bootstrap(values.reshape(1, -1), 100) for values in data[:100]]
    assert share_that_holds(np.zeros(100), naive) < 0.65


def test_the_interval_of_one_seed_is_about_that_seed_and_not_about_others():
    generator = np.random.default_rng(5)
    data = [simulated(generator, 1) for _ in range(300)]
    intervals = [bootstrap(values, 300) for values, _ in data]
    assert 0.88 <= share_that_holds([skill.item() for _, skill in data], intervals) <= 0.98
    assert 0.45 <= share_that_holds(np.zeros(300), intervals) <= 0.68


def test_three_seeds_are_too_few_as_the_table_says():
    """88 %, and 75 % where seeds alone differ."""
    generator = np.random.default_rng(6)
    mixed = [bootstrap(simulated(generator, 3)[0], 200) for _ in range(300)]
    assert 0.82 <= share_that_holds(np.zeros(300), mixed) <= 0.93
    seeds_alone = [bootstrap(simulated(generator, 3, 100, 1.0, 0.1, 0.1)[0], 200) for _ in range(300)]
    assert 0.67 <= share_that_holds(np.zeros(300), seeds_alone) <= 0.82


@pytest.mark.parametrize(
    ("seeds", "trials", "words"),
    [
        (1, 100, "luck of the trials only: nothing is known about other seeds"),
        (2, 100, "luck of trials and of seeds"),
        (2, 1, "luck of the seeds only: nothing is known about other trials"),
        (1, 1, "nothing: it is one trial of one seed"),
    ],
)
def test_an_interval_says_what_it_covers(seeds, trials, words):
    interval = Interval(0.5, 0.25, 0.75, seeds, trials)
    assert interval.covers == words
    assert list(interval._asdict()) == ["mean", "low", "high", "seeds", "trials"]


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    """Eight values: two are cut at each end, wherever they stand."""
    interval = interquartile_mean(np.array([[9.0, 1.0, 3.0, -50.0], [4.0, 900.0, 5.0, 6.0]]))
    assert interval.mean == 4.5
    assert interval[3:] == (2, 4)
    assert interval.low <= 4.5 <= interval.high


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (3, 7), (5, 100)])
def test_the_interquartile_mean_is_scipys(shape):
    values = np.random.default_rng(7).exponential(size=shape)
    assert interquartile_mean(values, 50).mean == pytest.approx(stats.trim_mean(values.ravel(), 0.25))


def test_the_interquartile_means_resamples_are_those_of_repeated_rows_and_columns(monkeypatch):
    """Every seed twice and two trials three times each, by numpy's own repeat; values in several pieces, and some that are not there."""
    values = np.random.default_rng(8).normal(size=(3, 6))
    values[1, 2:4] = NAN
    drawn = {3: np.array([2.0, 0.0, 1.0]), 6: np.array([0.0, 3.0, 0.0, 1.0, 0.0, 2.0])}
    monkeypatch.setattr(
        "training.evaluation.statistics._counts", lambda seed, what, count, resamples: np.tile(drawn[count], (resamples, 1))
    )
    repeated = values[[0, 0, 2]][:, [1, 1, 1, 3, 5, 5]].ravel()
    interval = interquartile_mean(values, 5)
    assert interval.low == pytest.approx(stats.trim_mean(repeated[~np.isnan(repeated)], 0.25))
    assert interval.high == pytest.approx(interval.low)
    there = values[~np.isnan(values)]
    assert interval.mean == pytest.approx(stats.trim_mean(there, 0.25))


def test_the_interquartile_means_interval_holds_the_truth():
    """Symmetric data: the middle half's mean is 0."""
    generator = np.random.default_rng(9)
    intervals = [interquartile_mean(simulated(generator, 10, 60)[0], 200) for _ in range(200)]
    assert 0.87 <= share_that_holds(np.zeros(200), intervals) <= 0.99


def test_trials_that_say_nothing_are_left_out_everywhere():
    nothing = np.full((2, 3), NAN)
    assert all(np.isnan(interval[:3]).all() for interval in (interquartile_mean(nothing), paired_difference(nothing, nothing)))
    a, b = np.array([[1.0, NAN, 3.0, 9.0]]), np.array([[0.0, 5.0, 1.0, NAN]])
    # Only the first and the third trial are there for both.
    assert paired_difference(a, b).mean == 1.5
    assert probability_of_improvement(a, b)[:3] == (1.0, 1.0, 1.0)


def test_what_a_trials_luck_does_to_both_cancels():
    luck = np.random.default_rng(10).normal(size=(1, 50)) * 100
    difference = paired_difference(luck + np.array([[1.0], [2.0]]), luck + np.array([[0.5], [0.5], [0.5]]))
    assert difference.mean == pytest.approx(1.0)
    assert difference.low == pytest.approx(0.5)
    assert difference.high == pytest.approx(1.5)
    assert (difference.seeds, difference.trials) == (2, 50)


def test_the_seeds_of_both_sides_widen_a_difference():
    """Seeds 0 and 1 on one side: a fourth of the resamples holds only zeros, a fourth only ones. On the other side likewise."""
    two, one = np.array([[0.0], [1.0]]) + np.zeros((1, 20)), np.zeros((1, 20))
    assert paired_difference(two, one)[:3] == (0.5, 0.0, 1.0)
    assert paired_difference(one, two)[:3] == (-0.5, -1.0, 0.0)
    assert paired_difference(two, two)[:3] == (0.0, -1.0, 1.0)


def test_the_trials_widen_a_difference_of_single_seeds():
    """400 trials, half of them won by 1 and half lost by 1: a standard error of 1/20, so 2 * 1.96 / 20 = 0.196 wide."""
    difference = paired_difference(np.tile([[1.0, -1.0]], 200), np.zeros((1, 400)))
    assert difference.mean == 0.0
    assert abs(difference.high - difference.low - 0.196) < 0.02


def test_seeds_without_a_trial_are_left_out_of_a_difference():
    """Ten of twenty: hardly a resample has none of them."""
    a = np.repeat([[1.0], [NAN]], 10, axis=0) + np.zeros((1, 3))
    assert paired_difference(a, np.zeros((1, 3)))[:3] == (1.0, 1.0, 1.0)


def test_intervals_of_differences_hold_the_truth():
    """Ten seeds against eight that are 0.2 worse, on the same luck."""
    generator = np.random.default_rng(11)
    intervals = []
    for _ in range(200):
        luck = generator.normal(size=(1, 60))
        a, b = (simulated(generator, seeds, 60, trial_spread=0.0)[0] + luck for seeds in (10, 8))
        intervals.append(paired_difference(a + 0.2, b, 200))
    assert 0.87 <= share_that_holds(np.full(200, 0.2), intervals) <= 0.99


def test_an_improvement_is_a_trial_won_and_a_tie_is_half_of_one():
    """Trial by trial, a's two seeds against b's one: 1 and 3 against 2 win one of two; 5 and 5 against 5 tie; 1 and 2 against 9 lose."""
    better = probability_of_improvement(np.array([[1.0, 5.0, 1.0], [3.0, 5.0, 2.0]]), np.array([[2.0, 5.0, 9.0]]))
    assert better.mean == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert (better.seeds, better.trials) == (1, 3)


def test_an_improvement_is_counted_on_the_same_luck():
    """A constant lead of 0.1 wins every trial, however much more the trials differ from one another; and both ways add up to one."""
    luck = np.random.default_rng(12).normal(size=(1, 40))
    assert probability_of_improvement(luck + 0.1, luck)[:3] == (1.0, 1.0, 1.0)
    a, b = np.random.default_rng(13).normal(size=(2, 4, 30))
    assert probability_of_improvement(a, b).mean + probability_of_improvement(b, a).mean == pytest.approx(1.0)


def test_the_probability_of_improvement_is_the_mann_whitney_statistic_of_each_trial():
    a, b = np.random.default_rng(14).normal(size=(5, 3)), np.random.default_rng(15).normal(size=(4, 3))
    by_trial = [stats.mannwhitneyu(a[:, trial], b[:, trial]).statistic / 20 for trial in range(3)]
    assert probability_of_improvement(a, b).mean == pytest.approx(np.mean(by_trial))


def test_only_the_same_trials_can_be_compared():
    with pytest.raises(ValueError, match="a has 3 trials and b has 1; want the same trials in both"):
        paired_difference(np.ones((2, 3)), np.ones((2, 1)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_has_no_interval(shape):
    for interval in (bootstrap, interquartile_mean):
        with pytest.raises(ValueError, match="at least one seed and one trial"):
            interval(np.ones(shape))
    with pytest.raises(ValueError, match="at least one seed and one trial"):
        paired_difference(np.ones(shape), np.ones(shape))


def test_a_ratios_interval_holds_the_truth_although_its_denominator_is_luck_too():
    """Gains of 0.5 a trial beside spans that are 0 in four of five trials and 1 in the fifth: the ratio is 0.5 / 0.2."""
    generator = np.random.default_rng(11)
    held = fixed = 0
    for _ in range(200):
        span = (generator.random(150) < 0.2).astype(float)
        gain = 0.5 + 2.0 * (span - 0.2) + generator.normal(size=(1, 150)) * 0.2
        interval = ratio(gain, span, 300)
        held += interval.low <= 2.5 <= interval.high
        plain = bootstrap(gain / span.mean(), 300)
        fixed += plain.low <= 2.5 <= plain.high
    assert 180 <= held <= 198
    # As if the denominator were known: what an interval of the quotient must not be.
    assert abs(fixed - held) > 10


def test_a_ratio_to_nothing_is_nothing():
    interval = ratio(np.ones((1, 5)), np.zeros(5))
    assert np.isnan(interval.mean)
    assert np.isnan(interval.low)
