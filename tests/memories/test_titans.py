"""Titans and the Miras family against one step after another with autograd's own inner gradients."""

import dataclasses
import itertools

import pytest
import torch
from torch.nn import functional

from memory import titans
from memory.titans import MemoraConfig, Miras, MirasConfig, MonetaConfig, TitansConfig, TitansLinearConfig, YaadConfig

CONFIGS = [TitansConfig, TitansLinearConfig, MonetaConfig, YaadConfig, MemoraConfig]
each_config = pytest.mark.parametrize("config", CONFIGS)


def mixer(config, scale=0.7, **settings):
    memory = Miras(config(**settings)).double()
    luck = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return memory


def inputs(rows, steps, width, resets=0.0):
    luck = torch.Generator().manual_seed(5)
    x = torch.randn(rows, steps, width, generator=luck, dtype=torch.float64, requires_grad=True)
    reset = torch.rand(rows, steps, generator=luck) < resets
    reset[:, 0] = True
    return x, reset


def network(config, weights, k):
    if config is TitansLinearConfig:
        return weights[0] @ k
    raw = weights[1] @ functional.gelu(weights[0] @ k)
    centred = raw - raw.mean()
    return k + centred / (centred.square().mean() + 0.1).sqrt()


def retained(config, weights):
    if config is MonetaConfig:
        return [matrix / (1 + (matrix**4).sum()) ** 0.5 for matrix in weights]
    if config is MemoraConfig:
        return [matrix.shape[1] ** 0.5 * matrix.exp() / matrix.exp().sum(1, keepdim=True) for matrix in weights]
    return weights


def slope(config, error, threshold):
    if config is MonetaConfig:
        return torch.tanh(10 * error) * error**2
    if config is YaadConfig and error.norm() > threshold:
        return threshold * torch.tanh(10 * error)
    return error


def unit(vector):
    return vector / (vector.square().sum() + 0.01) ** 0.5


def one_trial(memory, config, x):
    """A head and a step at a time; inner gradients are autograd's, at the weights with which the chunk began."""
    settings, width = memory.config, memory.outputs
    d = width // settings.heads
    taps = memory.convolution.weight.flip(0).T[:, None]
    mixed = functional.conv1d(functional.pad((x @ memory.project.weight.T).T, (3, 0)), taps, groups=3 * width).T
    q, k, v = functional.silu(mixed).split(width, -1)
    keep, momentum, rate, threshold = memory.gates(x).split(settings.heads, -1)
    heads = []
    for head in range(settings.heads):
        part = slice(head * d, (head + 1) * d)
        weights = [matrix[head] for matrix in memory.first_weights]
        surprise = [torch.zeros_like(matrix) for matrix in weights]
        recalled = []
        for t in range(len(x)):
            if t % settings.chunk_length == 0:
                anchor = retained(config, weights)
            key = unit(k[t, part])
            found = network(config, anchor, key)
            error = found - v[t, part]
            delta = functional.softplus(threshold[t, head])
            inner = torch.autograd.grad(found, anchor, slope(config, error, delta), create_graph=True)
            carried = torch.sigmoid(momentum[t, head]) if config in (TitansConfig, TitansLinearConfig) else 0.0
            step = settings.rate * torch.sigmoid(rate[t, head]) * (1 - carried if config is TitansLinearConfig else 1)
            surprise = [carried * before - step * gradient for before, gradient in zip(surprise, inner, strict=True)]
            weights = [torch.sigmoid(keep[t, head]) * matrix + moved for matrix, moved in zip(weights, surprise, strict=True)]
            recalled.append(network(config, retained(config, weights), unit(q[t, part])))
        recalled = torch.stack(recalled)
        heads.append(recalled * (recalled.square().mean(-1, keepdim=True) + 0.01).rsqrt() * memory.norm.weight)
    return (torch.cat(heads, -1) * functional.silu(x @ memory.output_gate.weight.T)) @ memory.to_output.weight.T


def trial_by_trial(memory, config, x, reset):
    rows = []
    for row in range(len(x)):
        starts = [*reset[row].nonzero()[:, 0].tolist(), x.shape[1]]
        rows.append(torch.cat([one_trial(memory, config, x[row, a:b]) for a, b in itertools.pairwise(starts)]))
    return torch.stack(rows)


def gradients(y, sources):
    luck = torch.Generator().manual_seed(7)
    loss = (y * torch.randn(y.shape, generator=luck, dtype=y.dtype)).sum()
    return torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)


@each_config
def test_each_is_its_equations_in_outputs_and_gradients(config):
    memory = mixer(config, width=6, heads=2, chunk_length=4, rate=0.4, expansion=2)
    x, reset = inputs(2, 14, 6, 0.1)
    # One row with resets in the middle of chunks, one without.
    reset[0, [5, 7]], reset[1, 1:] = True, False
    y, _ = memory(x, memory.start(2), reset)
    wanted = trial_by_trial(memory, config, x, reset)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-11)
    sources = [x, *memory.parameters()]
    for found, want in zip(gradients(y, sources), gradients(wanted, sources), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-10)


@each_config
def test_what_a_gpu_computes_because_it_may_not_ask_changes_nothing(config, monkeypatch):
    memory = mixer(config, width=6, heads=2, chunk_length=4)
    x, reset = inputs(3, 14, 6, 0.1)
    reset[0, [5, 7]], reset[2, 1:] = True, False
    y, _ = memory(x, memory.start(3), reset)
    asked = gradients(y, [x, *memory.parameters()])
    monkeypatch.setattr("memory.titans.may_be_true", lambda mask: True)
    unasked, _ = memory(x, memory.start(3), reset)
    torch.testing.assert_close(unasked, y, rtol=0, atol=1e-13)
    for found, want in zip(gradients(unasked, [x, *memory.parameters()]), asked, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-12)


def test_chunks_are_part_of_the_function():
    longer, shorter = (mixer(TitansLinearConfig, width=6, heads=2, chunk_length=length, rate=0.2) for length in (8, 1))
    x, reset = inputs(1, 16, 6)
    (y, _), (other, _) = longer(x, longer.start(1), reset), shorter(x, shorter.start(1), reset)
    torch.testing.assert_close(y[:, 0], other[:, 0], rtol=0, atol=1e-12)
    assert (y - other).abs().amax((0, 2))[1:].gt(1e-6).all()


def test_the_chunk_that_is_open_when_a_call_ends_is_gone_on_with():
    memory = mixer(TitansConfig, width=6, heads=2, chunk_length=4)
    x, reset = inputs(2, 10, 6)
    reset[1, 3] = True
    _, state = memory(x, memory.start(2), reset)
    # Ten steps are two in the third chunk; seven are three in the second.
    assert state.phase.tolist() == [2, 3]
    _, ended = memory(x[:, :8], memory.start(2), reset[:, :8])
    assert ended.phase.tolist() == [0, 1]
    # A chunk that has ended is the next one's anchor.
    assert torch.equal(ended.anchor[0], ended.weights[0])
    assert not torch.equal(ended.anchor[1], ended.weights[1])
    assert torch.equal(state.anchor[0], ended.weights[0])


# What is taken as initialised is half of the largest rate; of a linear memory's, times 1 - sigmoid(1).
@pytest.mark.parametrize(
    ("config", "rate", "taken"), [(TitansConfig, 0.5, 0.25), (TitansLinearConfig, 1.0, 0.13447071), (YaadConfig, 0.5, 0.25)]
)
def test_what_recurs_surprises_less_each_time_and_what_is_new_surprises_again(config, rate, taken):
    torch.manual_seed(4)
    memory = Miras(config(width=16, heads=2, chunk_length=1, rate=rate)).double()
    with torch.no_grad():
        memory.gates.weight.zero_()
    same, new = torch.randn(2, 1, 1, 16, dtype=torch.float64)
    x = torch.cat([same.expand(1, 12, 16), new.expand(1, 4, 16)], 1)
    reset = torch.arange(16)[None] == 0
    seen = memory.inspect(x, memory.start(1), reset)
    # The convolution sees the same four steps from the fourth on.
    surprise = seen["surprise"].sum(2)[0]
    assert surprise[11] < 0.7 * surprise[3]
    assert surprise[15] > surprise[11]
    # As initialised: sigmoid(4) is kept.
    torch.testing.assert_close(seen["kept"], torch.full((1, 16, 2), 0.98201379, dtype=torch.float64))
    torch.testing.assert_close(seen["rate"], torch.full((1, 16, 2), taken, dtype=torch.float64))


def test_a_linear_memory_learns_a_value_in_one_step_of_rate_one():
    """W = 0, one key of length 1: after W = v k^T the query that is the key recalls v, and half of it at half the rate."""
    memory = mixer(TitansLinearConfig, width=2, heads=1, chunk_length=1, rate=1.0)
    with torch.no_grad():
        for parameter in (memory.first_weights[0], memory.gates.weight):
            parameter.zero_()
        # Nothing forgotten, no momentum; the rate's gate is open, then half open.
        memory.gates.bias.copy_(torch.tensor([50.0, -50.0, 50.0, 0.0]))
    x, reset = inputs(1, 1, 2)
    whole = memory(x, memory.start(1), reset)[1].weights
    with torch.no_grad():
        memory.gates.bias[2] = 0.0
    half = memory(x, memory.start(1), reset)[1].weights
    taken, _ = memory._inputs(x, memory.start(1), reset)
    key, value = taken.k[0, 0, 0], taken.v[0, 0, 0]
    torch.testing.assert_close(whole[0, 0].reshape(2, 2), torch.outer(value, key))
    torch.testing.assert_close(2 * half, whole)
    # The gradient is the outer product of -v and k, and as long as the product of their lengths.
    surprise = memory.inspect(x, memory.start(1), reset)["surprise"]
    torch.testing.assert_close(surprise[0, 0, 0], value.norm() * key.norm())


def test_retentions_worked_by_hand():
    weights = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    settings = {"width": 2, "heads": 1, "network": "linear"}
    # |A|_4^4 = 2, so 1 / sqrt 3; exp 1 against exp 0 is 0.7310586 against 0.2689414, here times the root of 2.
    for retention, large, small in (("decay", 1.0, 0.0), ("norm", 0.5773503, 0.0), ("softmax", 1.0338730, 0.3803406)):
        (found,) = Miras(MirasConfig(**settings, retention=retention))._retained(weights)
        torch.testing.assert_close(found[0], torch.tensor([[large, small], [small, large]], dtype=torch.float64), rtol=0, atol=1e-7)


def test_losses_worked_by_hand():
    error = torch.tensor([3.0, -4.0]).reshape(1, 1, 1, 2)

    def slope_at(threshold, **settings):
        memory = Miras(MirasConfig(width=2, heads=1, **settings))
        return memory._slope(error, torch.full((1, 1, 1), threshold)).flatten().tolist()

    assert slope_at(1.0, loss="squared") == [3.0, -4.0]
    assert slope_at(1.0, loss="power") == pytest.approx([9.0, -16.0])
    # The error's length is 5.
    assert slope_at(5.5, loss="huber") == [3.0, -4.0]
    assert slope_at(0.5, loss="huber") == pytest.approx([0.5, -0.5])


def test_the_family_is_four_choices():
    chosen = [dataclasses.astuple(config())[4:8] for config in CONFIGS]
    assert chosen == [
        ("mlp", "squared", "decay", True),
        ("linear", "squared", "decay", True),
        ("mlp", "power", "norm", False),
        ("mlp", "huber", "decay", False),
        ("mlp", "squared", "softmax", False),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "YaadConfig.heads is 3, which does not divide width 128; want one of 1, 2, 4, 8, 16, 32, 64"),
        ({"chunk_length": 0}, "YaadConfig.chunk_length is 0; want a whole number from 1 to 65,536"),
        ({"layers": 0}, "YaadConfig.layers is 0; want a whole number from 1 to 65,536"),
        ({"expansion": 0}, "YaadConfig.expansion is 0; want a whole number from 1 to 65,536"),
        ({"network": "deep"}, "YaadConfig.network is 'deep'; want one of 'linear', 'mlp'"),
        ({"loss": "absolute"}, "YaadConfig.loss is 'absolute'; want one of 'squared', 'power', 'huber'"),
        ({"retention": "none"}, "YaadConfig.retention is 'none'; want one of 'decay', 'norm', 'softmax'"),
        ({"rate": 0.0}, "YaadConfig.rate is 0.0; want a number above 0 and at most 1"),
        ({"rate": 1.5}, "YaadConfig.rate is 1.5; want a number above 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        YaadConfig(**settings)


def test_a_linear_memory_that_would_break_out_is_refused_by_name():
    message = "^TitansLinearConfig.rate is 0.1; want a number above 0 and at most 0.0258 for linear chunks of 64$"
    with pytest.raises(ValueError, match=message):
        TitansLinearConfig(chunk_length=64)
    assert TitansLinearConfig(chunk_length=64, rate=0.025).rate == 0.025


@pytest.mark.long
@pytest.mark.parametrize("carried", [-5.0, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("chunk_length", [1, 2, 16, 50])
def test_the_same_again_and_again_stays_bounded_in_a_linear_memory_whatever_its_gates(chunk_length, carried):
    rate = min(1.0, titans.STABLE / chunk_length)
    memory = mixer(TitansLinearConfig, width=6, heads=2, chunk_length=chunk_length, rate=rate)
    with torch.no_grad():
        # All is kept, momentum as given, the largest rate; a key of length one.
        memory.gates.weight.zero_()
        memory.gates.bias.copy_(torch.tensor([20.0, carried, 20.0, 0.5]).repeat_interleave(2))
        memory.project.weight.mul_(30.0)
        x = torch.ones(1, 3000, 6, dtype=torch.float64)
        _, after = memory(x, memory.start(1), torch.zeros(1, 3000, dtype=torch.bool))
    # The values are as large as 90.
    assert after.weights.abs().max() < 200
