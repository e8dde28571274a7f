"""Aaren against torch's own attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from memory.aaren import Aaren, AarenConfig
from training.tree import map_leaves


def random_layer(seed=0, width=6, heads=2, taps=1):
    layer = Aaren(width, heads, taps).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return layer, luck


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.15])
def test_a_layer_is_torchs_attention_within_each_episode(share, taps):
    layer, luck = random_layer(taps=taps)
    x = torch.randn(3, 40, 6, generator=luck, dtype=torch.float64, requires_grad=True)
    reset = torch.rand(3, 40, generator=luck) < share
    reset[:, 0] = True
    y, _ = layer(x, layer.start(3), reset)
    episode = reset.cumsum(1)
    visible = (episode[:, :, None] == episode[:, None, :]) & torch.ones(40, 40).tril().bool()
    both = torch.cat([x @ layer.key.weight.T, x @ layer.value.weight.T], -1)
    if taps > 1:
        # Of each step those of its episode that are 0, 1 and 2 steps before it.
        lags = torch.arange(40)[:, None] - torch.arange(40)
        weights = layer.convolution.weight[lags.clamp(0, taps - 1)] * ((lags >= 0) & (lags < taps))[..., None]
        both = torch.einsum("tsd,bts,bsd->btd", weights, visible.double(), both)
    key, value = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in both.chunk(2, -1))
    query = layer.query[None, :, None].expand(3, 2, 40, 3)
    attended = scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None])
    wanted = attended.transpose(1, 2).flatten(2) @ layer.output.weight.T
    torch.testing.assert_close(y, wanted)
    sources = [x, *layer.parameters()]
    for mine, want in zip(torch.autograd.grad(y.square().sum(), sources), torch.autograd.grad(wanted.square().sum(), sources), strict=True):
        torch.testing.assert_close(mine, want)


def test_a_query_of_zero_takes_the_mean_of_all_steps():
    layer, _ = random_layer(width=2, heads=1)
    with torch.no_grad():
        layer.query.zero_()
        layer.value.weight.copy_(torch.eye(2))
        layer.output.weight.copy_(torch.eye(2))
    x = torch.tensor([[[3.0, 0.0], [5.0, 6.0], [1.0, 3.0]]], dtype=torch.float64)
    y, _ = layer(x, layer.start(1), torch.tensor([[True, False, False]]))
    torch.testing.assert_close(y, torch.tensor([[[3.0, 0.0], [4.0, 3.0], [3.0, 3.0]]], dtype=torch.float64))
    newest = layer.inspect(x, layer.start(1), torch.tensor([[True, False, False]]))["newest"]
    torch.testing.assert_close(newest.flatten(), torch.tensor([1.0, 1 / 2, 1 / 3], dtype=torch.float64))


def test_a_state_that_has_seen_nothing_needs_no_reset():
    layer, luck = random_layer()
    x = torch.randn(2, 5, 6, generator=luck, dtype=torch.float64)
    first, never = torch.tensor([[True, False, False, False, False]] * 2), torch.zeros(2, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(x, layer.start(2), never)[0], layer(x, layer.start(2), first)[0])


@pytest.mark.parametrize("taps", [1, 4])
def test_a_trial_may_be_split_anywhere_and_a_reset_forgets_all(taps):
    layer, luck = random_layer(taps=taps)
    x = torch.randn(2, 20, 6, generator=luck, dtype=torch.float64)
    reset = torch.rand(2, 20, generator=luck) < 0.15
    reset[:, 0] = True
    whole, _ = layer(x, layer.start(2), reset)
    state, parts, seen = layer.start(2), [], []
    for first, then in ((0, 1), (1, 9), (9, 10), (10, 20)):
        seen.append(layer.inspect(x[:, first:then], state, reset[:, first:then]))
        y, state = layer(x[:, first:then], state, reset[:, first:then])
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-11, atol=1e-11)
    for name, wanted in layer.inspect(x, layer.start(2), reset).items():
        torch.testing.assert_close(torch.cat([part[name] for part in seen], 1), wanted, rtol=1e-11, atol=1e-11)
    spoiled = map_leaves(lambda field: torch.full_like(field, torch.nan), layer.start(2))
    assert torch.equal(layer(x, spoiled, reset)[0], whole)


def test_a_row_carries_a_sum_and_a_mean_per_head_and_layer():
    assert AarenConfig(width=8, heads=2, layers=3).build(5).state_size == 3 * (2 + 8)
    assert AarenConfig(width=8, heads=2, layers=3, taps=4).build(5).state_size == 3 * (2 + 8 + 3 * 16)


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match=r"AarenConfig.heads is 3, which does not divide width 8; want one of 1, 2, 4, 8"):
        AarenConfig(width=8, heads=3)
    with pytest.raises(ValueError, match=r"AarenConfig.taps is 0; want a whole number from 1 to 65,536"):
        AarenConfig(taps=0)
