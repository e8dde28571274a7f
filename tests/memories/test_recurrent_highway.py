"""The recurrent highway network against a loop written from its equations, and its attention against one over lists."""

import pytest
import torch

from memory.recurrent_highway import GATINGS, RecurrentHighwayConfig, RecurrentHighwayState

INPUTS, WIDTH = 3, 4


def build(seed=1, **settings):
    memory = RecurrentHighwayConfig(WIDTH, **settings).build(INPUTS).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return memory


def inputs(seed, steps, resets=()):
    x = torch.randn(1, steps, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reset = torch.zeros(1, steps, dtype=torch.bool)
    reset[0, list(resets)] = True
    return x, reset


def highway(memory, x, resets):
    """One row's h [T, D], each layer and gate written out, matrices times columns."""
    config, state, sequence = memory.config, torch.zeros(WIDTH, dtype=torch.float64), []
    for t, now in enumerate(x):
        if t in resets:
            state = torch.zeros(WIDTH, dtype=torch.float64)
        for layer in range(config.layers):
            weight = memory.from_state[layer]
            entering = memory.bias[layer - 1] if layer else memory.from_input.weight @ now + memory.from_input.bias
            candidate = (weight[:WIDTH] @ state + entering[:WIDTH]).tanh()
            if config.gating == "full":
                gate = 1 / (1 + (-(weight[WIDTH:] @ state + entering[WIDTH:])).exp())
            elif config.gating == "input":
                part = slice(layer * WIDTH, (layer + 1) * WIDTH)
                gate = 1 / (1 + (-(memory.gates.weight[part] @ now + memory.gates.bias[part])).exp())
            elif config.gating == "rate":
                gate = 1 / (1 + (-memory.rates[layer]).exp())
            else:
                gate = torch.ones(WIDTH, dtype=torch.float64)
            state = gate * candidate + (1 - gate) * state
        sequence.append(state)
    return torch.stack(sequence)


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_highway_follows_its_equations(gating, layers):
    memory = build(gating=gating, layers=layers)
    x, reset = inputs(2, 9, (0, 5))
    y, after = memory(x, memory.start(1), reset)
    wanted = highway(memory, x[0], (0, 5))
    torch.testing.assert_close(y[0], wanted)
    torch.testing.assert_close(after.hidden[0], wanted[-1])


@pytest.mark.parametrize("window", [1, 3, 4, 30])
@pytest.mark.parametrize("cuts", [(), (1,), (4, 5)])
def test_attention_is_over_the_last_steps_of_this_life(window, cuts):
    memory = build(window=window)
    x, reset = inputs(3, 11, (0, 6))
    state, pieces = memory.start(1), []
    for first, last in zip((0, *cuts), (*cuts, 11), strict=True):
        y, state = memory(x[:, first:last], state, reset[:, first:last])
        pieces.append(y)
    hidden = highway(memory, x[0], (0, 6))
    recalled = []
    for t in range(11):
        seen = hidden[max(6 if t >= 6 else 0, t - window + 1) : t + 1]
        exponentials = torch.stack([(h @ memory.query.weight @ hidden[t]).exp() for h in seen])
        recalled.append(sum(e * h for e, h in zip(exponentials, seen, strict=True)) / exponentials.sum())
    torch.testing.assert_close(torch.cat(pieces, 1)[0], torch.cat([hidden, torch.stack(recalled)], 1))


def test_a_window_of_one_step_recalls_that_step():
    memory = build(window=1)
    x, reset = inputs(4, 5)
    y, _ = memory(x, memory.start(1), reset)
    torch.testing.assert_close(y[..., :WIDTH], y[..., WIDTH:])


def test_what_attention_looked_at_stands_newest_first_and_is_nothing_before_a_reset():
    memory = build(window=3)
    with torch.no_grad():
        # Without a query attention is uniform over whatever there is.
        memory.query.weight.zero_()
    x, reset = inputs(5, 5, (0, 4))
    seen = memory.inspect(x, memory.start(1), reset)["attention"][0]
    wanted = [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]]
    torch.testing.assert_close(seen, torch.tensor(wanted, dtype=torch.float64))


def test_a_step_worked_by_hand():
    memory = RecurrentHighwayConfig(1, layers=2).build(1).double()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        # The first layer takes half of its candidate, tanh(1); the second, whose candidate is 0, keeps three quarters.
        memory.from_input.weight[0] = 1.0
        memory.bias[0, 1] = -1.0986122886681098
    before = RecurrentHighwayState(torch.tensor([[0.4]]).double(), torch.zeros(1, 0, 1).double(), torch.zeros(1, 0, dtype=torch.bool))
    y, _ = memory(torch.ones(1, 1, 1).double(), before, torch.zeros(1, 1, dtype=torch.bool))
    # (0.76159416 + 0.4) / 2 * 3/4
    assert y.item() == pytest.approx(0.43559780835)


@pytest.mark.parametrize("gating", ["full", "input", "rate"])
def test_at_first_the_carry_is_open(gating):
    torch.manual_seed(0)
    memory = RecurrentHighwayConfig(WIDTH, gating=gating).build(INPUTS).double()
    before = memory.start(1)._replace(hidden=torch.ones(1, WIDTH, dtype=torch.float64))
    y, _ = memory(torch.zeros(1, 1, INPUTS, dtype=torch.float64), before, torch.zeros(1, 1, dtype=torch.bool))
    # Three gates of about sigmoid(-2) = 0.12 each; a candidate may be as low as -1.
    assert y.min() > 0.2


def test_a_row_carries_what_the_formula_says():
    assert RecurrentHighwayConfig(5).build(3).state_size == 5
    assert RecurrentHighwayConfig(5, window=4).build(3).state_size == 5 + 3 * 6
    assert RecurrentHighwayConfig(5, window=4).build(3).outputs == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gating": "ful"}, r"RecurrentHighwayConfig.gating is 'ful'; want one of 'full', 'input', 'rate', 'none'"),
        ({"layers": 0}, r"RecurrentHighwayConfig.layers is 0; want a whole number from 1"),
        ({"window": -1}, r"RecurrentHighwayConfig.window is -1; want a whole number from 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RecurrentHighwayConfig(**settings)
