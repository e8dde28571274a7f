"""The minimal GRU against its equations, one step at a time."""

import pytest
import torch

from memory.min_gru import MinGRU, MinGRUConfig, MinGRUState


def random_layer(seed=0, width=4):
    layer = MinGRU(width).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return layer, luck


def test_a_layer_is_its_equations_one_step_at_a_time():
    layer, luck = random_layer()
    x = torch.randn(3, 40, 4, generator=luck, dtype=torch.float64, requires_grad=True)
    reset = torch.rand(3, 40, generator=luck) < 0.1
    first = torch.randn(3, 4, generator=luck, dtype=torch.float64, requires_grad=True)
    y, after = layer(x, MinGRUState(first), reset)
    hidden, steps = first, []
    for t in range(40):
        hidden = torch.where(reset[:, t, None], torch.zeros_like(hidden), hidden)
        z = 1 / (1 + torch.exp(-(x[:, t] @ layer.update.weight.T + layer.update.bias)))
        hidden = hidden + z * (x[:, t] @ layer.candidate.weight.T + layer.candidate.bias - hidden)
        steps.append(hidden)
    wanted = torch.stack(steps, 1)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(after.hidden, hidden)
    sources = [x, first, *layer.parameters()]
    for mine, want in zip(torch.autograd.grad(y.square().sum(), sources), torch.autograd.grad(wanted.square().sum(), sources), strict=True):
        torch.testing.assert_close(mine, want)


def test_a_closed_gate_keeps_and_an_open_one_replaces():
    layer, luck = random_layer()
    x, never = torch.randn(2, 20, 4, generator=luck, dtype=torch.float64), torch.zeros(2, 20, dtype=torch.bool)
    state = MinGRUState(torch.randn(2, 4, generator=luck, dtype=torch.float64))
    with torch.no_grad():
        layer.update.bias.fill_(-1e3)
        torch.testing.assert_close(layer(x, state, never)[0], state.hidden[:, None].expand(2, 20, 4))
        layer.update.bias.fill_(1e3)
        torch.testing.assert_close(layer(x, state, never)[0], layer.candidate(x))


def test_two_layers_of_two_units_carry_four_numbers_and_have_perceptrons_only_if_asked():
    plain, deep = MinGRUConfig(width=2, layers=2).build(5), MinGRUConfig(width=2, layers=2, expansion=3).build(5)
    assert plain.state_size == deep.state_size == 4
    assert [block.perceptron for block in plain.layers] == [None, None]
    assert [block.perceptron[1].out_features for block in deep.layers] == [6, 6]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "MinGRUConfig.layers is 0; want a whole number from 1 to 65,536"),
        ({"expansion": -1}, "MinGRUConfig.expansion is -1; want a whole number from 0 to 64"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MinGRUConfig(**settings)
