"""Parameters counted by hand, and widths found for as many."""

import pytest
import torch

from memory import MEMORIES
from memory.aaren import AarenConfig
from memory.budget import parameters_of, with_parameters
from memory.depth_recurrent import DepthRecurrentConfig
from memory.frame_stack import FrameStackConfig
from memory.gru import GRUConfig
from memory.lazy_eviction import LazyEvictionConfig
from memory.lstm import LSTMConfig
from memory.none import NoMemoryConfig
from training.settings import load


def test_parameters_counted_by_hand():
    # Two layers: 5 * 4 + 4, 4 * 4 + 4.
    assert parameters_of(NoMemoryConfig(4), 5) == 44
    # Three gates of 5 + 4 weights and a bias for each of 4 units, and the candidates' second bias.
    assert parameters_of(GRUConfig(4), 5) == 3 * 4 * 10 + 4
    assert parameters_of(LSTMConfig(4), 5) == 4 * 4 * 10
    # Three frames of 5: 15 * 4 + 4, 4 * 4 + 4.
    assert parameters_of(FrameStackConfig(4, 3), 5) == 84


@pytest.mark.parametrize("name", MEMORIES)
def test_nothing_is_built_for_counting_and_nobodys_luck_is_spent(name):
    config = load(MEMORIES[name])()
    before = torch.random.get_rng_state()
    counted = parameters_of(config, 7)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng():
        assert counted == sum(parameter.numel() for parameter in config.build(7).parameters())


@pytest.mark.parametrize(
    ("target", "width"),
    # A GRU with 5 inputs has 3 D (D + 6) + D parameters: 22, 50, 84, 124 with 1, 2, 3, 4 units; 51,904 with 128.
    [(22, 1), (35, 1), (36, 1), (37, 2), (66, 2), (68, 3), (124, 4), (51_904, 128), (51_903, 128), (51_905, 128)],
)
def test_the_nearest_width_is_found(target, width):
    assert with_parameters(GRUConfig(77), 5, target) == GRUConfig(width)


def test_heads_keep_dividing_the_width_and_all_else_stays():
    config = with_parameters(LazyEvictionConfig(width=12, heads=6, layers=1, window=9), 20, 100_000)
    assert (config.heads, config.layers, config.window, config.chunks) == (6, 1, 9, 64)
    # Six heads of an even width each.
    assert config.width % 12 == 0
    near = [parameters_of(LazyEvictionConfig(width=config.width + more, heads=6, layers=1), 20) for more in (-12, 0, 12)]
    assert abs(near[1] - 100_000) < min(abs(near[0] - 100_000), abs(near[2] - 100_000))


def test_a_core_grows_with_what_holds_it():
    config = with_parameters(DepthRecurrentConfig(24, LSTMConfig(24)), 10, 200_000)
    assert config.core == LSTMConfig(config.width)
    assert abs(parameters_of(config, 10) / 200_000 - 1) < 0.02


def test_equal_budgets_are_nearly_equal():
    sizes = [parameters_of(with_parameters(load(MEMORIES[name])(), 32, 150_000), 32) for name in ("gru", "lstm", "frame_stack", "none")]
    assert all(abs(size / 150_000 - 1) < 0.01 for size in sizes)


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(ValueError, match="target is 21; want at least 22, the parameters of the narrowest GRUConfig"):
        with_parameters(GRUConfig(), 5, 21)
    with pytest.raises(ValueError, match=r"target is 1000000000000; want at most \d+, the parameters of GRUConfig with width 65536"):
        with_parameters(GRUConfig(), 5, 10**12)
    # No power of two is a multiple of its heads.
    with pytest.raises(ValueError, match=r"want at most \d+, the parameters of AarenConfig with width 65532"):
        with_parameters(AarenConfig(width=12, heads=12, layers=1), 5, 10**12)
    widest = parameters_of(AarenConfig(width=65532, heads=12, layers=1), 5)
    assert with_parameters(AarenConfig(width=12, heads=12, layers=1), 5, widest).width == 65532
