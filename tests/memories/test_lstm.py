"""The LSTM against torch.nn.LSTM, finite differences and numbers worked by hand."""

import pytest
import torch
from torch import nn

from memory import lstm
from memory.lstm import LSTMConfig, LSTMState, lstm_sequence

INPUTS, WIDTH = 3, 4
# Ours has the gates in the order i, f, o, g; torch has i, f, g, o.
ORDER = [*range(2 * WIDTH), *range(3 * WIDTH, 4 * WIDTH), *range(2 * WIDTH, 3 * WIDTH)]


def lstm_and_oracle():
    """Ours and torch.nn.LSTM with the same random weights; torch's second bias is zero."""
    ours = LSTMConfig(WIDTH).build(INPUTS).double()
    oracle = nn.LSTM(INPUTS, WIDTH, batch_first=True).double()
    luck = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
        oracle.weight_ih_l0.copy_(ours.from_input.weight[ORDER])
        oracle.bias_ih_l0.copy_(ours.from_input.bias[ORDER])
        oracle.weight_hh_l0.copy_(ours.from_hidden[ORDER])
        oracle.bias_hh_l0.zero_()
    return ours, oracle


def inputs(seed, batch, steps, resets):
    luck = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, INPUTS, generator=luck, dtype=torch.float64)
    state = LSTMState(*(torch.randn(batch, WIDTH, generator=luck, dtype=torch.float64).requires_grad_() for _ in range(2)))
    return x.requires_grad_(), state, torch.rand(batch, steps, generator=luck) < resets


def step_by_step(oracle, x, state, reset):
    """torch.nn.LSTM one step at a time, its state set to zero wherever a row resets."""
    hidden, cell = state
    outputs = []
    for t in range(x.shape[1]):
        hidden, cell = (part * ~reset[:, t, None] for part in (hidden, cell))
        y, (hidden, cell) = oracle(x[:, t : t + 1], (hidden[None], cell[None]))
        hidden, cell = hidden[0], cell[0]
        outputs.append(y)
    return torch.cat(outputs, 1), LSTMState(hidden, cell)


@pytest.mark.parametrize("resets", [0.0, 0.3])
def test_the_lstm_agrees_with_torchs_in_outputs_state_and_gradients(resets):
    ours, oracle = lstm_and_oracle()
    x, state, reset = inputs(2, 5, 11, resets)
    y, after = ours(x, state, reset)
    oracle_y, oracle_after = step_by_step(oracle, x, state, reset)
    torch.testing.assert_close(y, oracle_y)
    torch.testing.assert_close(tuple(after), tuple(oracle_after))
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)

    def gradients(y, after, *parameters):
        return torch.autograd.grad((y * weights).sum() + after.hidden.square().sum() + after.cell.sin().sum(), [x, *state, *parameters])

    found = gradients(y, after, ours.from_input.weight, ours.from_input.bias, ours.from_hidden)
    wanted = gradients(oracle_y, oracle_after, oracle.weight_ih_l0, oracle.bias_ih_l0, oracle.weight_hh_l0)
    for ours_is, theirs_is in zip(found[:3], wanted[:3], strict=True):
        torch.testing.assert_close(ours_is, theirs_is)
    for ours_is, theirs_is in zip(found[3:], wanted[3:], strict=True):
        torch.testing.assert_close(ours_is[ORDER], theirs_is)


def test_one_call_of_torchs_lstm_over_all_steps_agrees_too():
    ours, oracle = lstm_and_oracle()
    x, _, _ = inputs(4, 2, 30, 0.0)
    y, after = ours(x, ours.start(2), torch.zeros(2, 30, dtype=torch.bool))
    oracle_y, (hidden, cell) = oracle(x)
    torch.testing.assert_close(y, oracle_y)
    torch.testing.assert_close(tuple(after), (hidden[0], cell[0]))


def test_long_pieces_between_resets_are_left_to_pytorch_with_the_same_result(monkeypatch):
    ours, _ = lstm_and_oracle()
    ours.float()
    x, state, reset = inputs(8, 5, 48, 0.0)
    reset[1, 0] = reset[2:4, 16] = reset[4, 20] = reset[4, 22] = True
    assert ours._pieces(x.float(), ours.start(5), reset) == []
    reset[4, 20:] = False
    assert ours._pieces(x, state, reset) == []
    found = []
    for long in (16, 25):
        monkeypatch.setattr(lstm, "LONG", long)
        single = LSTMState(*(part.detach().float().requires_grad_() for part in state))
        given = x.detach().float().requires_grad_()
        assert ours._pieces(given, single, reset) == ([16, 32] if long == 16 else [])
        y, after = ours(given, single, reset)
        loss = y.square().sum() + after.hidden.sin().sum() + after.cell.square().sum()
        found.append([y, *after, *torch.autograd.grad(loss, [given, *single, *ours.parameters()])])
    for by_pytorch, own in zip(*found, strict=True):
        assert own.abs().sum() > 0
        torch.testing.assert_close(by_pytorch, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("resets", [0.0, 0.4])
def test_lstm_sequences_own_gradients_match_finite_differences(resets):
    luck = torch.Generator().manual_seed(5)
    shapes = ((4, 3, 8), (3, 2), (3, 2), (8, 2))
    learned = [torch.randn(shape, generator=luck, dtype=torch.float64, requires_grad=True) for shape in shapes]
    reset = torch.rand(4, 3, generator=luck) < resets
    assert reset.any() == (resets > 0)
    assert torch.autograd.gradcheck(lambda gates, hidden, cell, weight: lstm_sequence(gates, hidden, cell, reset, weight), learned)


@pytest.mark.parametrize("learned", range(4))
def test_lstm_sequence_gives_the_same_gradient_when_only_one_argument_needs_it(learned):
    luck = torch.Generator().manual_seed(6)
    values = [torch.randn(shape, generator=luck, dtype=torch.float64) for shape in ((4, 3, 8), (3, 2), (3, 2), (8, 2))]
    reset = torch.rand(4, 3, generator=luck) < 0.3

    def gradient(*needed):
        leaves = [value.clone().requires_grad_(number in needed) for number, value in enumerate(values)]
        output, _ = lstm_sequence(*leaves[:3], reset, leaves[3])
        return torch.autograd.grad(output.square().sum(), leaves[learned])[0]

    torch.testing.assert_close(gradient(learned), gradient(0, 1, 2, 3))


def test_the_cell_alone_sends_its_gradient_back():
    gates = torch.zeros(2, 1, 4, dtype=torch.float64)
    hidden, cell = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 0.8, dtype=torch.float64, requires_grad=True)
    _, after = lstm_sequence(gates, hidden, cell, torch.zeros(2, 1, dtype=torch.bool), torch.zeros(4, 1, dtype=torch.float64))
    # Every gate is 1/2 and the candidate 0: the cell is halved twice.
    assert after.item() == pytest.approx(0.2)
    assert torch.autograd.grad(after.sum(), cell)[0].item() == pytest.approx(0.25)


def test_a_step_worked_by_hand():
    memory = LSTMConfig(1).build(1).double()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        # Gates i, f, o shut, open and open; then all the cell can do is to keep what it has.
        memory.from_input.bias.copy_(torch.tensor([-100.0, 100.0, 100.0, 3.0]))
    before = LSTMState(torch.tensor([[0.3]]).double(), torch.tensor([[0.5]]).double())
    y, after = memory(torch.zeros(1, 1, 1).double(), before, torch.zeros(1, 1, dtype=torch.bool))
    assert after.cell.item() == pytest.approx(0.5)
    # tanh(0.5)
    assert y.item() == pytest.approx(0.46211715726)
    with torch.no_grad():
        # Input open, forget shut, output half open: tanh(tanh(3)) / 2 = tanh(0.99505475) / 2.
        memory.from_input.bias.copy_(torch.tensor([100.0, -100.0, 0.0, 3.0]))
    y, after = memory(torch.zeros(1, 1, 1).double(), before, torch.zeros(1, 1, dtype=torch.bool))
    assert after.cell.item() == pytest.approx(0.99505475369)
    assert y.item() == pytest.approx(0.37975472240)


def test_the_forget_gates_bias_begins_at_one_and_the_others_at_zero():
    assert LSTMConfig(2).build(3).from_input.bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_a_row_carries_hidden_state_and_cell():
    assert LSTMConfig(5).build(3).state_size == 10
