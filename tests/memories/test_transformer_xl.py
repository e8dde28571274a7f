"""Attention with relative positions, and the plain and the gated Transformer-XL, against loops, torch's attention and numbers by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from memory.attention import WindowAttention, sinusoids
from memory.resets import steps_before
from memory.transformer_xl import Gate, GatedTransformerXLConfig, TransformerXLConfig


def random_parameters(module, seed=0):
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=parameter.dtype))
    return module


def random_trials(seed, rows, steps, resets, width=4):
    luck = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, steps, width, generator=luck, dtype=torch.float64)
    reset = torch.rand(rows, steps, generator=luck) < resets
    reset[:, 0] = True
    return x, reset


def attended_step_by_step(memory, x, reset):
    """The equations of the module's docstring, one query and one key at a time."""
    rows, steps, width = x.shape
    heads, size = memory.heads, width // memory.heads
    u, v = memory.content_bias.view(heads, size), memory.distance_bias.view(heads, size)
    outputs = []
    for b in range(rows):
        first = 0
        for t in range(steps):
            first = t if reset[b, t] else first
            mixed = []
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                w_q, w_k, w_v = (weight[part] for weight in memory.project.weight.chunk(3))
                scores, values = [], []
                for j in range(max(first, t - memory.window), t + 1):
                    angles = [(t - j) / 10_000 ** (i / width) for i in range(0, width, 2)]
                    sinusoid = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=x.dtype)
                    query, distance = w_q @ x[b, t], memory.project_distance.weight[part] @ sinusoid
                    scores.append(((query + u[h]) @ (w_k @ x[b, j]) + (query + v[h]) @ distance) / size**0.5)
                    values.append(w_v @ x[b, j])
                mixed.append(torch.stack(scores).softmax(0) @ torch.stack(values))
            outputs.append(memory.out.weight @ torch.cat(mixed))
    return torch.stack(outputs).view(rows, steps, width)


# Shorter than the window, as long, several windows, and several windows and a rest.
@pytest.mark.parametrize(("window", "steps"), [(9, 5), (5, 5), (3, 12), (4, 13), (1, 6)])
@pytest.mark.parametrize("resets", [0.0, 0.2])
def test_attention_in_blocks_is_attention_one_key_at_a_time(window, steps, resets):
    memory = WindowAttention(4, 2, window).double()
    random_parameters(memory)
    x, reset = random_trials(1, 2, steps, resets)
    x.requires_grad_()
    y, _ = memory(x, memory.start(2), reset)
    wanted = attended_step_by_step(memory, x, reset)
    # The codes of distances are good to the seven digits of single precision.
    torch.testing.assert_close(y, wanted, rtol=1e-6, atol=1e-6)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    sources = [x, *memory.parameters()]
    for found, want in zip(
        torch.autograd.grad((y * weights).sum(), sources), torch.autograd.grad((wanted * weights).sum(), sources), strict=True
    ):
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6)


def test_without_positions_and_with_a_window_as_long_as_the_trial_it_is_torchs_causal_attention():
    memory = random_parameters(WindowAttention(6, 3, 20).double())
    with torch.no_grad():
        memory.project_distance.weight.zero_()
        memory.content_bias.zero_()
    x, reset = random_trials(3, 2, 17, 0.0, width=6)
    query, key, value = (part.unflatten(2, (3, 2)).transpose(1, 2) for part in memory.project(x).chunk(3, -1))
    wanted = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2) @ memory.out.weight.T
    torch.testing.assert_close(memory(x, memory.start(2), reset)[0], wanted)


def averaging(window):
    """Width 1, every score 0: a step's output is the mean of what it sees."""
    memory = WindowAttention(1, 1, window).double()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        memory.project.weight[2] = 1.0
        memory.out.weight.fill_(1.0)
    return memory


def test_equal_scores_average_the_steps_that_are_seen():
    memory = averaging(2)
    x = torch.tensor([[1.0, 2.0, 6.0, 10.0, 20.0], [1.0, 2.0, 6.0, 10.0, 20.0]], dtype=torch.float64)[..., None]
    reset = torch.tensor([[True, False, False, False, False], [True, False, False, True, False]])
    y, after = memory(x, memory.start(2), reset)
    torch.testing.assert_close(y[..., 0], torch.tensor([[1, 1.5, 3, 6, 12], [1, 1.5, 3, 10, 15]], dtype=torch.float64))
    assert after.values.flatten(1).tolist() == [[10, 20], [10, 20]]
    assert after.clock.tolist() == [5, 2]


def test_the_window_is_empty_where_the_trial_is_younger():
    memory = averaging(3)
    x = torch.tensor([[1.0, 2.0, 6.0, 10.0]], dtype=torch.float64)[..., None]
    with torch.no_grad():
        memory.project.weight[1] = -1.0
    for at, kept in ((0, [2.0, 6.0, 10.0]), (1, [2.0, 6.0, 10.0]), (2, [0.0, 6.0, 10.0]), (3, [0.0, 0.0, 10.0])):
        reset = torch.arange(4)[None] == at
        _, after = memory(x, memory.start(1), reset)
        assert after.values.flatten().tolist() == kept
        assert after.keys.flatten().tolist() == [-value for value in kept]


def test_what_it_looks_at_is_told_by_how_long_ago_it_was():
    memory = averaging(2)
    reset = torch.tensor([[True, False, False, True, False]])
    attention = memory.inspect(torch.ones(1, 5, 1, dtype=torch.float64), memory.start(1), reset)["attention"]
    third = 1 / 3
    wanted = [[1, 0, 0], [0.5, 0.5, 0], [third, third, third], [1, 0, 0], [0.5, 0.5, 0]]
    torch.testing.assert_close(attention[0, :, 0], torch.tensor(wanted, dtype=torch.float64))


def test_a_position_is_coded_by_sines_then_cosines_counting_down():
    # Angles 2, 1, 0 and, at frequency 10000^(-2 / 4), 0.02, 0.01, 0.
    wanted = [[0.909297, 0.019999, -0.416147, 0.999800], [0.841471, 0.010000, 0.540302, 0.999950], [0, 0, 1, 1]]
    torch.testing.assert_close(sinusoids(3, 4), torch.tensor(wanted), rtol=0, atol=1e-6)


def test_steps_are_counted_from_the_last_reset():
    reset = torch.tensor([[False, False, True, False], [True, False, False, False], [False, False, False, False]])
    assert steps_before(torch.tensor([5, 6, 0]), reset).tolist() == [[5, 6, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("config", [TransformerXLConfig, GatedTransformerXLConfig])
def test_layers_reach_as_far_as_their_windows_together(config):
    memory = random_parameters(config(width=16, layers=2, heads=2, window=3).build(4).double())
    x, reset = random_trials(4, 3, 10, 0.0)
    other = x.clone()
    other[:, 0] += 1
    change = (memory(x, memory.start(3), reset)[0] - memory(other, memory.start(3), reset)[0]).abs().amax((0, 2))
    assert change.ne(0).tolist() == [True] * 7 + [False] * 3


def test_a_new_gate_is_nearly_shut():
    gate = Gate(1).double()
    x, y = torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64)
    with torch.no_grad():
        for linear in (gate.from_branch, gate.from_stream, gate.candidate):
            linear.weight.zero_()
        # z = sigmoid(-2) = 0.119203.
        assert gate(x, y).item() == pytest.approx(0.880797 * 3, abs=1e-5)
        # W_g = 1: h = tanh(1) = 0.761594.
        gate.from_branch.weight[2] = 1.0
        assert gate(x, y).item() == pytest.approx(2.642391 + 0.119203 * 0.761594, abs=1e-5)
        # And U_g = 1, r = sigmoid(0) = 1/2: h = tanh(1 + 1.5) = 0.986614.
        gate.candidate.weight.fill_(1.0)
        assert gate(x, y).item() == pytest.approx(2.642391 + 0.119203 * 0.986614, abs=1e-5)
        # U_z = 1: z = sigmoid(3 - 2) = 0.731059.
        gate.from_stream.weight[1] = 1.0
        assert gate(x, y).item() == pytest.approx(0.268941 * 3 + 0.731059 * 0.986614, abs=1e-5)


def test_gates_that_are_shut_let_nothing_into_the_stream():
    memory = GatedTransformerXLConfig(width=4, layers=2, heads=2, window=3).build(4).double()
    random_parameters(memory)
    with torch.no_grad():
        for layer in memory.layers:
            layer.join_attention.bias.fill_(1e3)
            layer.join_perceptron.bias.fill_(1e3)
    x, reset = random_trials(5, 2, 6, 0.0)
    torch.testing.assert_close(memory(x, memory.start(2), reset)[0], memory.last(memory.embed(x)))


def test_the_plain_layer_adds_rectified_branches():
    memory = TransformerXLConfig(width=4, layers=1, heads=2, window=3).build(4).double()
    random_parameters(memory)
    (layer,) = memory.layers
    with torch.no_grad():
        # The attention's branch is 0 and the perceptron's is its last bias.
        layer.attention.out.weight.zero_()
        layer.perceptron[3].weight.zero_()
        layer.perceptron[3].bias.copy_(torch.tensor([1.0, -1.0, 2.0, -2.0]))
    x, reset = random_trials(6, 1, 3, 0.0)
    y, _ = layer(x, layer.start(1), reset)
    torch.testing.assert_close(y - x, torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64).expand_as(x))


@pytest.mark.parametrize("config", [TransformerXLConfig, GatedTransformerXLConfig])
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"heads": 5, "width": 12}, "{}.heads is 5, which does not divide {}.width 12; want one of 1, 2, 3, 4, 6, 12"),
        ({"window": 0}, "{}.window is 0; want a whole number from 1 to 65,536"),
        ({"layers": 0}, "{}.layers is 0; want a whole number"),
        ({"expansion": 0}, "{}.expansion is 0; want a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(config, settings, complaint):
    with pytest.raises(ValueError, match=complaint.format(config.__name__, config.__name__)):
        config(**settings)
