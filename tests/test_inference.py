"""Linear probes on states that were made up, so that what can be read from them is known."""

import numpy as np
import pytest

from training.evaluation.inference import read_kind, read_table


def noise(n, rounds, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, rounds, width)).astype(np.float32)


def test_noise_is_read_no_better_than_by_chance():
    kinds = np.arange(4000) % 4
    accuracy = read_kind(noise(4000, 3, 20), kinds)
    assert accuracy.shape == (3,)
    # 4,000 guesses at chance 1/4 have a standard error of 0.0068.
    assert (np.abs(accuracy - 0.25) < 0.025).all()


@pytest.mark.parametrize(("trials", "kinds"), [(64, 4), (64, 5), (23, 3), (12, 20)])
def test_noise_that_twins_share_is_read_by_chance_and_not_below_it(trials, kinds):
    """The same luck against every kind. Of the twins of one trial a probe takes all for one kind, so that it is right once in K times."""
    states = np.tile(noise(trials, 2, 40), (kinds, 1, 1))
    for order in (np.arange(trials * kinds), np.argsort(np.tile(np.arange(trials), kinds), kind="stable")):
        accuracy = read_kind(states[order], np.repeat(np.arange(kinds), trials)[order])
        np.testing.assert_allclose(accuracy, 1 / kinds, atol=1e-12)
    # Twins that differ a little are no nearer to one another's kind.
    nearly = states + 0.1 * noise(trials * kinds, 2, 40, seed=1)
    accuracy = read_kind(nearly, np.repeat(np.arange(kinds), trials))
    assert (np.abs(accuracy - 1 / kinds) < 4 * np.sqrt(1 / kinds / trials / kinds)).all()


def test_a_kind_is_read_from_the_round_on_in_which_the_state_tells_it():
    kinds = np.arange(900) % 3 * 10
    states = noise(900, 4, 16)
    states[:, 2:, :3] += 8 * np.eye(3, dtype=np.float32)[kinds // 10][:, None]
    accuracy = read_kind(states, kinds)
    assert (accuracy[:2] < 0.42).all()
    assert (accuracy[2:] > 0.99).all()


def test_rare_kinds_count_as_much_as_common_ones():
    """One trial in eleven is of the rare kind. Its states are moved by one standard deviation; the middle between the two kinds tells each
    with probability Phi(1/2) = 0.69, and always guessing the common one would score 0.5."""
    kinds = (np.arange(3000) % 11 == 0).astype(int)
    states = noise(3000, 1, 1)
    states[:, 0, 0] += kinds
    assert abs(read_kind(states, kinds)[0] - 0.69) < 0.03


def test_the_mean_is_over_kinds_and_not_over_trials():
    """Kinds 0 (80 of 100) and 1 look alike, so that what one gains the other loses; kind 2 is plain. (1 + 1) / 3, not 0.55."""
    kinds = np.repeat([0, 1, 2], [1600, 200, 200])
    states = noise(2000, 1, 3)
    states[kinds == 2, 0, 0] += 30
    assert abs(read_kind(states, kinds)[0] - 2 / 3) < 0.04


def test_every_fold_has_every_kind_whatever_their_order():
    kinds = np.arange(200) % 5
    states = noise(200, 1, 5) + 20 * np.eye(5, dtype=np.float32)[kinds][:, None]
    assert read_kind(states, kinds).tolist() == [1.0]
    order = np.argsort(kinds, kind="stable")
    assert read_kind(states[order], kinds[order]).tolist() == [1.0]


def test_a_code_that_differs_from_row_to_row_does_not_leak_from_the_fitted_rows():
    """Every trial has a feature of its own, which tells the kind to whoever was fitted on that trial, and nothing otherwise."""
    kinds = np.arange(200) % 2
    own_feature = np.eye(200, dtype=np.float32)[:, None] * (2 * kinds[:, None, None] - 1)
    states = np.concatenate([own_feature, noise(200, 1, 5)], 2)
    assert abs(read_kind(states.astype(np.float32), kinds)[0] - 0.5) < 0.15
    assert read_table(states.astype(np.float32), kinds[:, None].astype(float))[0, 0] < 0.05


def test_more_features_than_trials_are_no_hindrance():
    kinds = np.arange(120) % 2
    states = noise(120, 2, 600)
    states[:, 1, :60] += 2 * kinds[:, None]
    accuracy = read_kind(states, kinds)
    assert abs(accuracy[0] - 0.5) < 0.16
    assert accuracy[1] > 0.99


def test_both_sides_of_the_switch_to_the_smaller_system_agree():
    """400 trials, four fifths of them fitted to: 320 features are solved by features, 321 by rows; the last feature never varies."""
    states = noise(400, 1, 321)
    states[..., -1] = 0.3
    tables = np.random.default_rng(5).random((400, 2)) + states[:, 0, :2]
    np.testing.assert_allclose(read_table(states, tables), read_table(states[..., :-1], tables), atol=1e-8)


def test_a_probabilitys_share_is_one_where_the_state_holds_it_and_half_behind_equal_noise():
    tables = np.random.default_rng(1).random((4000, 5))
    states = noise(4000, 2, 10)
    states[:, 1, 0] = 100 + 3 * tables[:, 0]
    # U(0, 1) has variance 1/12, and the noise that is added has the same.
    states[:, 1, 1] = tables[:, 1] + states[:, 1, 1] / np.sqrt(12)
    share = read_table(states, tables)
    assert share.shape == (2, 5)
    assert (np.abs(share[0]) < 0.02).all()
    assert share[1, 0] > 0.999
    assert abs(share[1, 1] - 0.5) < 0.04
    assert (np.abs(share[1, 2:]) < 0.02).all()


def test_a_probability_that_never_varies_has_no_share():
    share = read_table(noise(50, 1, 3), np.full((50, 1), 0.3))
    assert np.isnan(share).all()


def test_units_do_not_matter_and_the_same_rows_give_the_same_numbers():
    kinds = np.arange(300) % 3
    states = noise(300, 1, 8)
    states[:, 0, :2] += np.stack([kinds == 1, kinds == 2], 1)
    first = read_kind(states, kinds)
    assert 0.5 < first[0] < 0.9
    assert read_kind(states, kinds).tolist() == first.tolist()
    moved = states * np.array([1e-3, 1, 1e3, 1, 7, 1, 1, 1], np.float32) + 20
    np.testing.assert_allclose(read_kind(moved.astype(np.float64), kinds), first, atol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": np.zeros(20, int)}, r"kinds holds only \[0\]"),
        ({"kinds": np.arange(20) // 17}, "kinds holds 1 in 3 trials; want at least as many as folds, 5"),
        ({"folds": 1}, "folds is 1; want at least 2"),
        ({"ridge": 0.0}, "ridge is 0.0; want a number above 0"),
        ({"states": np.full((20, 1, 2), np.nan)}, "states holds values that are not finite"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        read_kind(**{"states": noise(20, 1, 2), "kinds": np.arange(20) % 2, **change})


def test_fewer_trials_than_folds_are_refused():
    with pytest.raises(ValueError, match="states holds 3 trials"):
        read_table(noise(3, 1, 2), np.ones((3, 5)))
