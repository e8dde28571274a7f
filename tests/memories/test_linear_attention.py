"""The four matrix memories against what each sums up, written out episode by episode and step by step."""

import pytest
import torch
from torch.nn.functional import silu

from memory.linear_attention import (
    DeltaRule,
    DeltaRuleConfig,
    GatedLinear,
    GatedLinearConfig,
    LightNet,
    LightNetConfig,
    LinearAttention,
    LinearAttentionConfig,
)

WIDTH, HEADS, EACH = 6, 2, 3
CONFIGS = [LinearAttentionConfig, GatedLinearConfig, DeltaRuleConfig, LightNetConfig]
LAYERS = {LinearAttentionConfig: LinearAttention, GatedLinearConfig: GatedLinear, DeltaRuleConfig: DeltaRule, LightNetConfig: LightNet}


def layer_of(config, **settings):
    return LAYERS[config](config(width=WIDTH, heads=HEADS, **settings))


def prepared(layer, seed=0, batch=2, steps=40, share=0.1):
    """The layer with random parameters, inputs that take gradients, and resets, the first step's among them."""
    layer, luck = layer.double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    x = torch.randn(batch, steps, WIDTH, generator=luck, dtype=torch.float64, requires_grad=True)
    reset = torch.rand(batch, steps, generator=luck) < share
    reset[:, 0] = True
    return layer, x, reset


def projected(layer, x, reset):
    mixed = x @ layer.query_key_value.weight.T
    if layer.convolution:
        mixed = convolved(mixed, reset, layer.convolution.weight)
    q, k, v = mixed.unflatten(-1, (3, HEADS, EACH)).unbind(2)
    return q, k, v


def convolved(x, reset, weight):
    """Step after step, each channel alone; nothing from before a reset."""
    episode, results = reset.cumsum(1), []
    for t in range(x.shape[1]):
        total = torch.zeros_like(x[:, 0])
        for lag in range(min(len(weight), t + 1)):
            total = total + weight[lag] * x[:, t - lag] * (episode[:, t] == episode[:, t - lag])[:, None]
        results.append(total)
    return torch.stack(results, 1)


def finished(layer, x, o):
    """Norm, gate and output of the three that have them."""
    o = o.flatten(2)
    normal = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.normal.norm.weight
    return (normal * silu(layer.normal.gate(x))) @ layer.output.weight.T


def assert_agree(layer, x, reset, wanted):
    y, _ = layer(x, layer.start(x.shape[0]), reset)
    torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-9)
    sources = [x, *layer.parameters()]
    for mine, want in zip(torch.autograd.grad(y.square().sum(), sources), torch.autograd.grad(wanted.square().sum(), sources), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-7, atol=1e-7)


def visible(reset):
    """[b, t, s]: whether step t may see step s."""
    episode, steps = reset.cumsum(1), reset.shape[1]
    return (episode[:, :, None] == episode[:, None, :]) & torch.ones(steps, steps).tril().bool()


@pytest.mark.parametrize("taps", [1, 4])
def test_linear_attention_is_a_weighted_mean_with_weights_that_are_products(taps):
    layer, x, reset = prepared(layer_of(LinearAttentionConfig, taps=taps))
    q, k, v = projected(layer, x, reset)
    q, k = (torch.where(part > 0, part + 1, part.exp()) for part in (q, k))
    weights = torch.einsum("bthk,bshk->bhts", q, k) * visible(reset)[:, None]
    o = torch.einsum("bhts,bshv->bthv", weights / (weights.sum(-1, keepdim=True) + 1e-6), v)
    assert_agree(layer, x, reset, o.flatten(2) @ layer.output.weight.T)


def recur(k, v, q, keep, reset, beta=None):
    """keep: [B, T, H, K], what is left of each row of the matrix. beta: the delta rule's."""
    matrix, outputs = torch.zeros(k.shape[0], HEADS, EACH, EACH, dtype=torch.float64), []
    for t in range(k.shape[1]):
        matrix = torch.where(reset[:, t, None, None, None], torch.zeros_like(matrix), matrix)
        matrix = keep[:, t, :, :, None] * matrix
        new = v[:, t]
        if beta is not None:
            new = beta[:, t, :, None] * (new - (k[:, t, :, :, None] * matrix).sum(-2))
        matrix = matrix + k[:, t, :, :, None] * new[:, :, None, :]
        outputs.append((q[:, t, :, :, None] * matrix).sum(-2))
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("taps", [1, 3])
def test_gated_linear_attention_forgets_by_its_gate(taps):
    layer, x, reset = prepared(layer_of(GatedLinearConfig, taps=taps))
    q, k, v = projected(layer, x, reset)
    if taps > 1:
        q, k, v = silu(q), silu(k), silu(v)
    keep = torch.sigmoid(x @ layer.decay[0].weight.T @ layer.decay[1].weight.T + layer.decay[1].bias) ** (1 / 16)
    o = recur(k, v, q, keep.unflatten(-1, (HEADS, EACH)), reset)
    assert_agree(layer, x, reset, finished(layer, x, o))


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("decay", [False, True])
def test_the_delta_rule_replaces_what_its_keys_recall(decay, taps):
    layer, x, reset = prepared(layer_of(DeltaRuleConfig, decay=decay, taps=taps))
    q, k, v = (silu(part) for part in projected(layer, x, reset))
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    keep = torch.ones(*x.shape[:2], HEADS, dtype=torch.float64)
    if decay:
        size = torch.log1p(torch.exp(x @ layer.decay.step_size.weight.T + layer.decay.bias))
        keep = torch.exp(-torch.exp(layer.decay.log_rate) * size)
    o = recur(k, v, q, keep[..., None].expand(-1, -1, -1, EACH), reset, torch.sigmoid(x @ layer.strength.weight.T))
    assert_agree(layer, x, reset, finished(layer, x, o))


@pytest.mark.parametrize("taps", [1, 2])
def test_each_key_channel_of_lightnet_is_a_softmax_over_the_episodes_steps(taps):
    layer, x, reset = prepared(layer_of(LightNetConfig, taps=taps))
    q, k, v = projected(layer, x, reset)
    scores = k[:, None].expand(-1, 40, -1, -1, -1).masked_fill(~visible(reset)[..., None, None], -torch.inf)
    matrix = torch.einsum("btshk,bshv->bthkv", scores.softmax(2), v)
    o = torch.einsum("bthk,bthkv->bthv", silu(q), matrix)
    assert_agree(layer, x, reset, finished(layer, x, o))


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (DeltaRuleConfig, {"decay": True}),
        (LinearAttentionConfig, {"taps": 4}),
        (GatedLinearConfig, {"taps": 4}),
        (LightNetConfig, {"taps": 4}),
    ],
)
def test_what_is_not_by_default_may_be_split_anywhere(config, settings):
    layer, x, reset = prepared(layer_of(config, **settings))
    state = layer.start(2)
    whole, last = layer(x, state, reset)
    parts, seen = [], []
    for first, then in ((0, 1), (1, 18), (18, 19), (19, 40)):
        seen.append(layer.inspect(x[:, first:then], state, reset[:, first:then]))
        y, state = layer(x[:, first:then], state, reset[:, first:then])
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-11, atol=1e-11)
    for found, wanted in zip(state, last, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    for name, wanted in layer.inspect(x, layer.start(2), reset).items():
        torch.testing.assert_close(torch.cat([part[name] for part in seen], 1), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_reset_forgets_a_state_that_is_not_a_number(config, taps):
    layer, x, reset = prepared(layer_of(config, taps=taps))
    state = layer.start(2)
    wanted, _ = layer(x, state, reset)
    spoiled = type(state)(*(None if field is None else torch.full_like(field, torch.nan) for field in state))
    y, after = layer(x, spoiled, reset)
    assert torch.equal(y, wanted)
    assert all(field is None or field.isfinite().all() for field in after)


def test_a_delta_rule_that_decays_shows_by_how_much():
    layer, x, reset = prepared(layer_of(DeltaRuleConfig, decay=True))
    seen = layer.inspect(x, layer.start(2), reset)
    assert seen["decay"].shape == seen["strength"].shape == (2, 40, HEADS)
    assert ((seen["decay"] > 0) & (seen["decay"] < 1)).all()


def test_a_delta_rules_decay_starts_as_published():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decay = DeltaRuleConfig(width=1024, heads=1024, layers=1, decay=True).build(2).layers[0].mixer.decay
    sizes, rates = torch.nn.functional.softplus(decay.bias), decay.log_rate.exp()
    assert 0.000999 < sizes.min() < 0.0012
    assert 0.097 < sizes.max() < 0.1001
    assert 0.4 < (sizes < 0.01).float().mean() < 0.6
    assert rates.max() < 16
    assert 7 < rates.mean() < 9


@pytest.mark.parametrize(("config", "size"), list(zip(CONFIGS, (80, 64, 64 + 144, 80), strict=True)))
def test_a_row_carries_a_matrix_per_head_and_layer(config, size):
    assert config(width=8, heads=2, layers=2).build(3).state_size == size
    convolution = 0 if config is DeltaRuleConfig else 144
    assert config(width=8, heads=2, layers=2, taps=4).build(3).state_size == size + convolution


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_that_cannot_be_are_named(config):
    with pytest.raises(ValueError, match=f"{config.__name__}.heads is 3, which does not divide width 8; want one of 1, 2, 4, 8"):
        config(width=8, heads=3)
    with pytest.raises(ValueError, match=f"{config.__name__}.layers is 0; want a whole number from 1 to 65,536"):
        config(layers=0)
    with pytest.raises(ValueError, match=f"{config.__name__}.taps is 0; want a whole number from 1 to 65,536"):
        config(taps=0)
