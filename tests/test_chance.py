"""Counter-based chance: known answers, and the statistics that a random number generator owes us."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from envs.chance import Purpose, categorical, fold, integers, mix, permutation, seeds_of, uniform

BELOW_ONE = 1 - 2**-24
repeatable = settings(deadline=None, derandomize=True)
WHOLE = st.integers(-(2**63), 2**63 - 1)


def number(value):
    return torch.tensor(value, dtype=torch.int64)


def splitmix64(seed, count):
    """The published generator in Python's own integers: the oracle."""
    outputs = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        outputs.append(z ^ (z >> 31))
    return outputs


def unsigned(bits):
    return [value % 2**64 for value in bits.tolist()]


def bits_of(values):
    return ((values[..., None] >> torch.arange(64)) & 1).float()


def assert_uncorrelated(first, second):
    """Four standard errors: one case in 16,000 fails by bad luck, and the luck is always the same."""
    pair = torch.stack([first.flatten(), second.flatten()]).double()
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 4 / math.sqrt(pair.shape[1])


# Streams as games and occupants draw them: along counters, seeds, rows of a batch, and seats.
STREAMS = {
    "counters of one seed": lambda draw: draw(number(20251122), torch.arange(100_000)),
    "consecutive seeds": lambda draw: draw(torch.arange(100_000), 0),
    "seeds of a run": lambda draw: draw(seeds_of(3, Purpose.TRIAL, 100_000)),
    "rounds and seats": lambda draw: draw(torch.arange(500)[:, None, None], Purpose.NOISE, torch.arange(100)[:, None], torch.arange(2)),
    "far-away counters": lambda draw: draw(number(-5), torch.arange(100_000) * 2**32),
}


def test_fold_gives_the_published_outputs_of_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert unsigned(fold(number(1234567), torch.arange(5))) == published
    assert [unsigned(fold(number([1234567]), counter))[0] for counter in range(5)] == published


@repeatable
@given(seed=WHOLE)
def test_fold_is_splitmix64_from_any_seed(seed):
    assert unsigned(fold(number(seed), torch.arange(3))) == splitmix64(seed, 3)


@repeatable
@given(seed=WHOLE, counter=WHOLE)
def test_a_counter_may_be_a_number_or_a_tensor(seed, counter):
    assert fold(number(seed), counter) == fold(number(seed), number(counter))


def test_folding_several_counters_is_folding_one_after_another_and_their_order_matters():
    seed = number([0, 1, -7])
    assert torch.equal(fold(seed, 3, 8), fold(fold(seed, 3), 8))
    assert not (fold(seed, 3, 8) == fold(seed, 8, 3)).any()


def test_purposes_keep_their_numbers_for_ever():
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "TRIAL": 1,
        "EPISODE": 2,
        "OCCUPANT": 3,
        "ACTION": 4,
        "NOISE": 5,
        "CONTINUE": 6,
        "PARAMETERS": 8,
        "MINIBATCH": 9,
        "EVALUATION": 10,
        "GAME": 11,
    }


@pytest.mark.parametrize("stream", STREAMS)
def test_uniform_fills_its_interval_evenly(stream):
    draws = STREAMS[stream](uniform)
    counts = torch.histc(draws, 64, 0, 1)
    assert counts.sum() == 100_000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > 1e-3


def test_the_low_bits_of_uniform_are_even_too():
    low = (uniform(number(99), torch.arange(100_000)).double() * 2**24).long() % 16
    assert stats.chisquare(torch.bincount(low, minlength=16).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("below", [2, 3, 10, 1000])
@pytest.mark.parametrize("stream", STREAMS)
def test_integers_are_even(stream, below):
    draws = STREAMS[stream](lambda seed, *counters: integers(seed, below, *counters))
    counts = torch.bincount(draws.flatten(), minlength=below)
    assert len(counts) == below
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_uniform_reaches_zero_and_stays_below_one():
    # Without counters the seed's own 64 bits are read: all zeros and all ones are the extremes.
    extremes = uniform(number([0, -1]))
    assert extremes.dtype == torch.float32
    assert extremes.tolist() == [0.0, BELOW_ONE]


def test_draws_are_the_high_bits_of_the_published_outputs():
    # Recordings rest on these numbers.
    published = fold(number(1234567), torch.arange(5))
    assert (uniform(published) * 2**24).tolist() == [5873360, 2913264, 8928956, 4177655, 14923828]
    assert integers(published, 10).tolist() == [3, 1, 5, 2, 8]


def test_integers_reach_both_bounds_and_no_further():
    extremes = number([0, -1])
    assert integers(extremes, 1).tolist() == [0, 0]
    assert integers(extremes, 10).tolist() == [0, 9]
    assert integers(extremes, 2**31 - 1).tolist() == [0, 2**31 - 2]


@pytest.mark.parametrize("below", [0, -3, 2**31])
def test_integers_refuse_a_range_that_they_cannot_draw_from(below):
    with pytest.raises(ValueError, match=f"below is {below}; want a whole number from 1 to 2147483647"):
        integers(number(1), below)


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 100])
def test_draws_along_a_counter_are_uncorrelated(lag):
    draws = uniform(number(4), torch.arange(100_000))
    assert_uncorrelated(draws[lag:], draws[:-lag])


def test_pairs_of_successive_draws_fill_the_square_evenly():
    x, y = uniform(number(5), torch.arange(100_000)).reshape(-1, 2).T
    cells = ((x * 8).long() * 8 + (y * 8).long()).bincount(minlength=64)
    assert stats.chisquare(cells.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (-1, 0), (2, 2**62)])
def test_streams_of_neighbouring_seeds_are_uncorrelated(first, second):
    counters = torch.arange(50_000)
    assert_uncorrelated(uniform(number(first), counters), uniform(number(second), counters))


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(Purpose)))
def test_streams_of_neighbouring_purposes_are_uncorrelated(first, second):
    seeds = torch.arange(50_000)
    assert_uncorrelated(uniform(seeds, first, 0), uniform(seeds, second, 0))


def test_streams_of_neighbouring_seats_and_steps_are_uncorrelated():
    draws = uniform(torch.arange(50_000)[:, None, None], Purpose.NOISE, torch.arange(3)[:, None], torch.arange(2)).flatten(1)
    for first, second in itertools.combinations(range(6), 2):
        assert_uncorrelated(draws[:, first], draws[:, second])


@pytest.mark.parametrize("which", ["seed", "counter"])
def test_flipping_any_one_input_bit_flips_half_of_the_output_bits(which):
    inputs = torch.randint(-(2**63), 2**63 - 1, (2000, 1), generator=torch.Generator().manual_seed(8))
    flipped = inputs ^ (1 << torch.arange(64))
    changed = fold(inputs, 5) ^ fold(flipped, 5) if which == "seed" else fold(number(5), inputs) ^ fold(number(5), flipped)
    # [64 input bits, 64 output bits]; a fair coin thrown 2,000 times stays within 0.06 of a half, 5 standard errors.
    share = bits_of(changed).mean(0)
    assert (share - 0.5).abs().max() < 0.06
    assert abs(share.mean().item() - 0.5) < 0.002


def test_mix_never_maps_two_numbers_to_one():
    assert len(mix(torch.arange(-100_000, 100_000)).unique()) == 200_000


@repeatable
@given(seed=WHOLE, length=st.integers(1, 40))
def test_a_permutation_has_every_number_once(seed, length):
    assert sorted(permutation(number(seed), length, 2).tolist()) == list(range(length))


def test_all_six_orders_of_three_are_equally_likely():
    orders = permutation(torch.arange(12_000), 3, Purpose.MINIBATCH)
    counts = (orders * number([9, 3, 1])).sum(1).bincount()
    assert (counts > 0).sum() == 6
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 1e-3


def test_categorical_picks_in_proportion_and_never_what_is_impossible():
    probs = torch.tensor([0.0, 0.1, 0.0, 0.6, 0.3, 0.0])
    counts = categorical(probs.expand(50_000, 6), uniform(number(6), torch.arange(50_000))).bincount(minlength=6)
    assert counts[[0, 2, 5]].tolist() == [0, 0, 0]
    assert stats.chisquare(counts[[1, 3, 4]].numpy(), [5_000, 30_000, 15_000]).pvalue > 1e-3


def test_categorical_changes_its_choice_exactly_at_the_cumulative_probability():
    probs = torch.tensor([0.25, 0.5, 0.25])
    draws = torch.tensor([0.0, 0.25 - 2**-24, 0.25, 0.75 - 2**-24, 0.75, BELOW_ONE])
    assert categorical(probs.expand(6, 3), draws).tolist() == [0, 0, 1, 1, 2, 2]


def test_categorical_needs_no_probabilities_that_sum_to_one():
    draws = torch.tensor([0.0, 0.49, 0.51, BELOW_ONE])
    assert categorical(torch.tensor([0.0, 3.0, 3.0, 0.0]).expand(4, 4), draws).tolist() == [1, 1, 2, 2]


@repeatable
@given(
    probs=st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 0.7, 1.0, 1e-7, 1e-30, 1e-42]), min_size=1, max_size=12).filter(any),
    draw=st.sampled_from([0.0, 2.0**-24, 1 / 3, 0.5, BELOW_ONE]),
)
@example(probs=[1e-42, 0.0], draw=BELOW_ONE)
@example(probs=[0.0, 1e-42], draw=0.0)
def test_the_extreme_draws_pick_something_possible(probs, draw):
    assert torch.tensor(probs)[categorical(torch.tensor(probs), torch.tensor(draw))] > 0


def test_a_batch_of_draws_equals_each_draw_alone():
    seeds = number([3, -9, 2**40])
    for draw in (uniform, lambda seed, *counters: integers(seed, 7, *counters), lambda seed, *counters: permutation(seed, 5, *counters)):
        alone = torch.stack([draw(seed, Purpose.ACTION, 4) for seed in seeds])
        assert torch.equal(draw(seeds, Purpose.ACTION, 4), alone)
        assert torch.equal(draw(seeds, Purpose.ACTION, torch.full((3,), 4)), alone)


@repeatable
@given(run=WHOLE, first=st.integers(0, 10), count=st.integers(0, 10))
def test_any_slice_of_a_runs_seeds_can_be_had_alone(run, first, count):
    whole = seeds_of(run, Purpose.TRIAL, 20, 6)
    assert torch.equal(seeds_of(run, Purpose.TRIAL, count, 6, first=first), whole[first : first + count])


def test_a_runs_seeds_are_the_outputs_of_nested_splitmix64():
    # Output number 9 (MINIBATCH) of seed 17, then output number 2 of that, then outputs 0 to 3 of that.
    root = splitmix64(splitmix64(17, 10)[9], 3)[2]
    assert unsigned(seeds_of(17, Purpose.MINIBATCH, 4, 2)) == splitmix64(root, 4)


def test_runs_purposes_and_iterations_have_seeds_of_their_own():
    streams = [
        seeds_of(run, purpose, 100, iteration) for run in (0, 1) for purpose in (Purpose.TRIAL, Purpose.GAME) for iteration in (0, 1)
    ]
    assert len(torch.cat(streams).unique()) == 800
