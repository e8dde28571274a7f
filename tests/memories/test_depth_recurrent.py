"""Depth recurrence around other memories: its equations, its beginning close to the identity, its settings."""

import dataclasses

import pytest
import torch
from torch.nn.functional import layer_norm

from memory.depth_recurrent import DepthRecurrentConfig
from memory.frame_stack import FrameStackConfig
from memory.gru import GRUConfig
from memory.lazy_eviction import LazyEvictionConfig
from memory.lstm import LSTMConfig
from memory.none import NoMemoryConfig
from memory.recurrent_highway import RecurrentHighwayConfig

INPUTS, WIDTH = 3, 8
CORES = [GRUConfig(), LSTMConfig(), FrameStackConfig(frames=2), RecurrentHighwayConfig(window=3), LazyEvictionConfig(chunks=4, window=2)]


def build(core=None, seed=1, **settings):
    memory = DepthRecurrentConfig(WIDTH, core or GRUConfig(), **settings).build(INPUTS).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return memory


def inputs(seed, batch, steps):
    luck = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, INPUTS, generator=luck, dtype=torch.float64)
    return x, torch.rand(batch, steps, generator=luck) < 0.2


@pytest.mark.parametrize("core", CORES, ids=lambda core: type(core).__name__)
def test_each_iteration_follows_the_equations_with_the_same_weights_and_a_state_of_its_own(core):
    memory = build(core, iterations=3)
    x, reset = inputs(2, 2, 7)
    y, after = memory(x, memory.start(2), reset)
    assert len(after) == 3
    h = x @ memory.embed.weight.T + memory.embed.bias
    openness = []
    for k in range(3):
        u = h + memory.iteration_embedding[k]
        normal = layer_norm(u, (WIDTH,), memory.before_core.weight, memory.before_core.bias)
        recalled, _ = memory.core(normal, memory.core.start(2), reset)
        u = u + memory.core_scale * (recalled @ memory.from_core.weight.T + memory.from_core.bias)
        norm, first, _, second = memory.perceptron
        normal = layer_norm(u, (WIDTH,), norm.weight, norm.bias)
        inner = normal @ first.weight.T + first.bias
        # gelu by the normal distribution function.
        inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
        u = u + memory.perceptron_scale * (inner @ second.weight.T + second.bias)
        z = 1 / (1 + (-(u @ memory.gate.weight[:, :WIDTH].T + h @ memory.gate.weight[:, WIDTH:].T + memory.gate.bias)).exp())
        openness.append(z.mean(-1))
        h = z * u + (1 - z) * h
    torch.testing.assert_close(y, layer_norm(h, (WIDTH,), memory.last.weight, memory.last.bias))
    torch.testing.assert_close(memory.inspect(x, memory.start(2), reset)["gate"], torch.stack(openness, -1))


@pytest.mark.parametrize("core", CORES, ids=lambda core: type(core).__name__)
def test_it_may_be_split_around_any_core(core):
    memory = build(core, iterations=2)
    x, reset = inputs(3, 2, 9)
    y, _ = memory(x, memory.start(2), reset)
    state, pieces = memory.start(2), []
    for t in range(9):
        piece, state = memory(x[:, t : t + 1], state, reset[:, t : t + 1])
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), y, rtol=0, atol=1e-11)


def test_at_first_twenty_iterations_change_little():
    memory = DepthRecurrentConfig(WIDTH, iterations=20).build(INPUTS)
    x = torch.randn(4, 5, INPUTS, generator=torch.Generator().manual_seed(4))
    reset = torch.zeros(4, 5, dtype=torch.bool)
    with torch.no_grad():
        memory.iteration_embedding.zero_()
        y, _ = memory(x, memory.start(4), reset)
        untouched = layer_norm(memory.embed(x), (WIDTH,))
    assert 0 < (y - untouched).abs().max() < 0.02
    assert memory.gate.bias.eq(-2).all()


def test_more_iterations_cost_state_but_no_weights_except_an_embedding_each():
    shallow, deep = (DepthRecurrentConfig(WIDTH, LSTMConfig(), iterations=k).build(INPUTS) for k in (1, 4))
    count = [sum(parameter.numel() for parameter in memory.parameters()) for memory in (shallow, deep)]
    assert count[1] - count[0] == 3 * WIDTH
    assert (shallow.state_size, deep.state_size) == (2 * WIDTH, 4 * 2 * WIDTH)


def test_what_the_core_looked_at_is_told_apart_by_iteration():
    memory = build(RecurrentHighwayConfig(window=3), iterations=2)
    x, reset = inputs(5, 2, 4)
    seen = memory.inspect(x, memory.start(2), reset)
    assert set(seen) == {"gate", "iteration_0.attention", "iteration_1.attention"}
    assert seen["gate"].shape == (2, 4, 2)


def test_the_core_is_as_wide_as_the_block():
    config = DepthRecurrentConfig(24, LazyEvictionConfig(heads=2))
    assert config.core_as_wide() == LazyEvictionConfig(width=24, heads=2)
    assert dataclasses.replace(config, width=48).core_as_wide().width == 48
    assert DepthRecurrentConfig(24, GRUConfig(24)).core_as_wide() == GRUConfig(24)
    nested = DepthRecurrentConfig(WIDTH, DepthRecurrentConfig(core=NoMemoryConfig(), iterations=2), iterations=3)
    assert nested.core_as_wide().core_as_wide() == NoMemoryConfig(WIDTH)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, r"DepthRecurrentConfig.iterations is 0; want a whole number from 1"),
        ({"core": GRUConfig(9)}, r"DepthRecurrentConfig.core.width is 9; want the block's own width, 128"),
        ({"core": LazyEvictionConfig(heads=4), "width": 6}, r"heads is 4, which does not divide width 6"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DepthRecurrentConfig(**settings)
