"""The selective state-space layer against its equations, one step, channel and number at a time."""

import math

import pytest
import torch

from memory.ssm import SSM, SSMConfig, SSMState


def logistic(value):
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("taps", [1, 3])
def test_a_layer_is_its_equations_one_number_at_a_time(taps):
    width, states, steps = 3, 2, 6
    layer, luck = SSM(width, states, taps).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    x = torch.randn(1, steps, width, generator=luck, dtype=torch.float64)
    first = torch.randn(1, width, states, generator=luck, dtype=torch.float64)
    recent = torch.randn(1, taps - 1, width, generator=luck, dtype=torch.float64)
    reset = torch.tensor([[False, False, True, False, False, False]])
    with torch.no_grad():
        found, after = layer(x, SSMState(first, recent if taps > 1 else None), reset)
        hidden, past = first[0].tolist(), recent[0].tolist()
        tap = layer.convolution.weight.tolist() if taps > 1 else [[1.0] * width]
        for t in range(steps):
            if reset[0, t]:
                hidden, past = [[0.0] * states for _ in range(width)], [[0.0] * width for _ in past]
            both = (layer.inwards.weight @ x[0, t]).tolist()
            past = [*past, both[:width]]
            mixed = [sum(tap[lag][d] * past[-1 - lag][d] for lag in range(taps)) for d in range(width)]
            past = past[1:]
            u = [value * logistic(value) for value in mixed]
            low, *select = (layer.selects.weight @ torch.tensor(u, dtype=torch.float64)).tolist()
            written, read = select[:states], select[states:]
            y = []
            for d in range(width):
                size = math.log1p(math.exp(layer.step_size.weight[d, 0].item() * low + layer.step_size.bias[d].item()))
                for n in range(states):
                    rate = -math.exp(layer.log_rate[d, n].item())
                    hidden[d][n] = math.exp(size * rate) * hidden[d][n] + size * written[n] * u[d]
                total = sum(read[n] * hidden[d][n] for n in range(states)) + layer.skip[d].item() * u[d]
                y.append(total * both[width + d] * logistic(both[width + d]))
            wanted = layer.outwards.weight @ torch.tensor(y, dtype=torch.float64)
            torch.testing.assert_close(found[0, t], wanted)
        torch.testing.assert_close(after.hidden[0], torch.tensor(hidden, dtype=torch.float64))
        if taps > 1:
            torch.testing.assert_close(after.recent[0], torch.tensor(past, dtype=torch.float64))


def test_a_layer_starts_with_the_published_rates_and_step_sizes():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = SSM(1000, 3, 4)
    torch.testing.assert_close(layer.log_rate.exp()[7], torch.tensor([1.0, 2.0, 3.0]))
    sizes = layer.inspect(torch.zeros(1, 1, 1000), layer.start(1), torch.ones(1, 1, dtype=torch.bool))["step_size"].flatten()
    assert 0.000999 < sizes.min() < 0.00105
    assert 0.097 < sizes.max() < 0.1001
    # Half of them below the geometric middle.
    assert 0.4 < (sizes < 0.01).float().mean() < 0.6


def test_a_channel_with_no_input_decays_at_its_rates():
    layer = SSM(2, 2, 1)
    with torch.no_grad():
        layer.step_size.bias.fill_(math.log(math.e - 1))
    state = SSMState(torch.ones(1, 2, 2), None)
    _, after = layer(torch.zeros(1, 3, 2), state, torch.zeros(1, 3, dtype=torch.bool))
    # Steps of size one, three of them, at rates 1 and 2.
    torch.testing.assert_close(after.hidden, torch.tensor([[[math.exp(-3), math.exp(-6)]] * 2]))


def test_a_row_carries_every_channels_numbers():
    assert SSMConfig(width=4, states=5, layers=3, taps=1).build(2).state_size == 60
    assert SSMConfig(width=4, states=5, layers=3, taps=4).build(2).state_size == 60 + 36


@pytest.mark.parametrize("field", ["states", "layers", "taps"])
def test_settings_that_cannot_be_are_named(field):
    with pytest.raises(ValueError, match=f"SSMConfig.{field} is 0; want a whole number from 1 to 65,536"):
        SSMConfig(**{field: 0})
