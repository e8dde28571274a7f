"""RAT against a list of chunks kept step by step, and at its two ends: attention and a gated recurrence."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from memory.rat import RAT, RATConfig


def mixer(seed=3, **settings):
    memory = RAT(RATConfig(**settings)).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return memory


def inputs(rows, steps, width, resets=0.0):
    luck = torch.Generator().manual_seed(5)
    x = torch.randn(rows, steps, width, generator=luck, dtype=torch.float64, requires_grad=True)
    return x, torch.rand(rows, steps, generator=luck) < resets


def projected(memory, x):
    """Output gate, forget gate and value [..., D], queries and keys [..., G, d]."""
    width, groups, d = memory.outputs, memory.config.groups, memory.head_width
    z, g, value, query, key = (x @ memory.project.weight.T).split([width, width, width, groups * d, groups * d], -1)
    return z.sigmoid(), (g + memory.gate_bias).sigmoid(), value, query.unflatten(-1, (groups, d)), key.unflatten(-1, (groups, d))


def turned(vector, chunk):
    """The rotary code by complex numbers: each pair of channels turned by its own frequency."""
    half = len(vector) // 2
    angles = torch.tensor([chunk / 10_000 ** (i / half) for i in range(half)], dtype=torch.float64)
    spun = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([spun.real, spun.imag])


def step_by_step(memory, x, reset):
    """One row after another; every head's closed chunks in lists that a reset empties."""
    config, d = memory.config, memory.head_width
    rows = []
    for row in range(len(x)):
        outputs, clock = [], 0
        for t in range(x.shape[1]):
            if t == 0 or reset[row, t]:
                clock, closed = 0, []
            z, g, value, query, key = projected(memory, x[row, t])
            if clock % config.chunk_length == 0:
                k_run = v_run = torch.zeros_like(value)
            shared = torch.cat([key[head * config.groups // config.heads] for head in range(config.heads)])
            k_run, v_run = g * k_run + (1 - g) * shared, g * v_run + (1 - g) * value
            chunk = clock // config.chunk_length
            candidates = [*closed[-config.chunks :], (chunk, k_run, v_run)]
            heads = []
            for head in range(config.heads):
                part = slice(head * d, (head + 1) * d)
                q = turned(query[head * config.groups // config.heads], chunk)
                scores = torch.stack([q @ turned(k[part], number) / d**0.5 for number, k, _ in candidates])
                heads.append(scores.softmax(0) @ torch.stack([v[part] for _, _, v in candidates]))
            outputs.append(memory.to_output.weight @ (z * torch.cat(heads)))
            if clock % config.chunk_length == config.chunk_length - 1:
                closed.append((chunk, k_run, v_run))
            clock += 1
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


def gradients(y, sources):
    luck = torch.Generator().manual_seed(7)
    return torch.autograd.grad((y * torch.randn(y.shape, generator=luck, dtype=y.dtype)).sum(), sources)


@pytest.mark.parametrize("resets", [0.0, 0.12])
def test_rat_is_its_equations_in_outputs_and_gradients(resets):
    memory = mixer(width=16, heads=4, groups=2, chunk_length=3, chunks=4)
    x, reset = inputs(2, 26, 16, resets)
    assert reset.any() == (resets > 0)
    y, _ = memory(x, memory.start(2), reset)
    wanted = step_by_step(memory, x, reset)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    sources = [x, *memory.parameters()]
    for found, want in zip(gradients(y, sources), gradients(wanted, sources), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("chunks", [40, 5])
def test_chunks_of_one_step_are_attention(chunks):
    memory = mixer(width=8, heads=2, groups=1, chunk_length=1, chunks=chunks)
    x, reset = inputs(2, 30, 8)
    y, _ = memory(x, memory.start(2), reset)
    z, g, value, query, key = projected(memory, x)
    # Between steps that are n apart the code turns by the angle n; heads of width 4 have two pairs.
    q = torch.stack([torch.stack([turned(query[b, t, 0], t) for t in range(30)]) for b in range(2)])[:, None].expand(-1, 2, -1, -1)
    gated = ((1 - g) * key.flatten(2).repeat(1, 1, 2)).unflatten(2, (2, 4)).transpose(1, 2)
    k = torch.stack([torch.stack([torch.stack([turned(gated[b, h, t], t) for t in range(30)]) for h in range(2)]) for b in range(2)])
    v = ((1 - g) * value).unflatten(2, (2, 4)).transpose(1, 2)
    apart = torch.arange(30)[:, None] - torch.arange(30)
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=(apart >= 0) & (apart <= chunks))
    wanted = (z * mixed.transpose(1, 2).flatten(2)) @ memory.to_output.weight.T
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)


def test_one_chunk_as_long_as_the_trial_is_a_gated_recurrence():
    memory = mixer(width=8, heads=2, groups=1, chunk_length=30, chunks=1)
    x, reset = inputs(2, 30, 8)
    y, _ = memory(x, memory.start(2), reset)
    z, g, value, _, _ = projected(memory, x)
    state, outputs = torch.zeros(2, 8, dtype=torch.float64), []
    for t in range(30):
        state = g[:, t] * state + (1 - g[:, t]) * value[:, t]
        outputs.append((z[:, t] * state) @ memory.to_output.weight.T)
    torch.testing.assert_close(y, torch.stack(outputs, 1), rtol=0, atol=1e-12)


def test_without_queries_all_chunks_in_sight_weigh_the_same():
    memory = mixer(width=4, heads=2, chunk_length=2, chunks=3)
    with torch.no_grad():
        memory.project.weight[12:16] = 0.0
    reset = torch.zeros(1, 11, dtype=torch.bool)
    reset[0, 9] = True
    x, _ = inputs(1, 11, 4)
    seen = memory.inspect(x, memory.start(1), reset)["chunk_attention"]
    half, third, quarter = [0.5, 0.5, 0, 0], [1 / 3] * 3 + [0], [0.25] * 4
    wanted = torch.tensor([[1, 0, 0, 0]] * 2 + [half] * 2 + [third] * 2 + [quarter] * 3 + [[1, 0, 0, 0]] * 2, dtype=torch.float64)
    for head in range(2):
        torch.testing.assert_close(seen[0, :, head], wanted)


def test_a_chunk_out_of_sight_is_forgotten():
    memory = mixer(width=4, heads=2, chunk_length=2, chunks=2)
    x, reset = inputs(1, 8, 4)
    other = x.detach().clone()
    other[:, :2] += 1
    y, changed = (memory(values, memory.start(1), reset)[0] for values in (x, other))
    # Steps 4 and 5 have chunks 0 and 1 behind them, steps 6 and 7 chunks 1 and 2.
    assert (y - changed)[0, :6].abs().amax(-1).gt(1e-9).all()
    assert torch.equal(y[0, 6:], changed[0, 6:])


def test_gates_begin_by_remembering_for_one_step_to_a_chunk():
    memory = RAT(RATConfig(width=512, chunk_length=16))
    # A gate of sigmoid(log n) = n / (n + 1).
    kept = memory.gate_bias.sigmoid()
    assert kept.min() >= 0.5
    assert kept.max() <= 15 / 16
    assert kept.max() - kept.min() > 0.4
    assert RAT(RATConfig(width=8, chunk_length=1)).gate_bias.eq(0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "RATConfig.heads is 3, which does not divide width 128; want one of 1, 2, 4, 8, 16, 32, 64"),
        ({"width": 12, "heads": 4}, "RATConfig.heads is 4, which gives heads of odd width 3; want an even one"),
        ({"heads": 4, "groups": 3}, "RATConfig.groups is 3, which does not divide heads 4; want one of 1, 2, 4"),
        ({"chunk_length": 0}, "RATConfig.chunk_length is 0; want a whole number from 1 to 65,536"),
        ({"chunks": 0}, "RATConfig.chunks is 0; want a whole number from 1 to 65,536"),
        ({"layers": 0}, "RATConfig.layers is 0; want a whole number from 1 to 65,536"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        RATConfig(**settings)
