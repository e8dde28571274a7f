"""ParaGRU and ParaLSTM against torch's GRU, against a loop of their own, and where Newton's method fails."""

import pytest
import torch
from torch import nn

from memory import pararnn
from memory.pararnn import ParaGRU, ParaGRUConfig, ParaLSTM, ParaLSTMConfig, ParaRNNState

MIXERS = {"gru": (ParaGRU, ParaGRUConfig), "lstm": (ParaLSTM, ParaLSTMConfig)}
each_mixer = pytest.mark.parametrize("kind", MIXERS)


def mixer(kind, width=4, scale=0.7, dtype=torch.float64, **settings):
    """One layer whose parameters are all random, unless scale is None."""
    cell, config = MIXERS[kind]
    torch.manual_seed(3)
    memory = cell(config(width=width, **settings)).to(dtype)
    if scale is not None:
        with torch.no_grad():
            for parameter in memory.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, dtype=dtype))
    return memory


def inputs(rows, steps, width=4, dtype=torch.float64, resets=0.1):
    luck = torch.Generator().manual_seed(5)
    x = torch.randn(rows, steps, width, generator=luck, dtype=dtype, requires_grad=True)
    return x, torch.rand(rows, steps, generator=luck) < resets


def dense(blocks):
    """A gate's block-diagonal matrix [D, D], written out."""
    return torch.block_diag(*blocks)


def lstm_by_hand(memory, x, units, reset):
    """The five equations of the docstring, a step and a row at a time."""
    a_f, a_n, a_o, p_f, p_o = (memory.config.bound * torch.tanh(memory.recurrence)).unbind()
    matrices = [dense(gate) for gate in memory.from_input]
    rows = []
    for row in range(len(x)):
        h, s = units[row]
        seen = []
        for t in range(x.shape[1]):
            if reset[row, t]:
                h, s = torch.zeros_like(h), torch.zeros_like(s)
            x_f, x_n, x_o = (matrix @ x[row, t] + bias for matrix, bias in zip(matrices, memory.bias, strict=True))
            f = 1 / (1 + torch.exp(-(a_f * h + p_f * s + x_f)))
            s = f * s + (1 - f) * torch.tanh(a_n * h + x_n)
            h = torch.tanh(s) / (1 + torch.exp(-(a_o * h + p_o * s + x_o)))
            seen.append(h)
        rows.append(torch.stack(seen))
    return torch.stack(rows)


def gradients(y, sources):
    luck = torch.Generator().manual_seed(7)
    return torch.autograd.grad((y * torch.randn(y.shape, generator=luck, dtype=y.dtype)).sum(), sources)


def no_loop(*_):
    raise AssertionError("Newton's method has not converged")


def test_para_gru_is_torchs_gru_with_diagonal_recurrence_in_outputs_and_gradients():
    memory = mixer("gru")
    oracle = nn.GRU(4, 4, batch_first=True).double()
    a_z, a_r, a_h = memory.recurrence.tanh()
    b_z, b_r, b_h = (dense(gate) for gate in memory.from_input)
    with torch.no_grad():
        # torch's update gate keeps what ours replaces; its order is r, z, n.
        oracle.weight_hh_l0.copy_(torch.cat([a_r.diag(), -a_z.diag(), a_h.diag()]))
        oracle.weight_ih_l0.copy_(torch.cat([b_r, -b_z, b_h]))
        oracle.bias_ih_l0.copy_(torch.cat([memory.bias[1], -memory.bias[0], memory.bias[2]]))
        oracle.bias_hh_l0.zero_()
    x, _ = inputs(3, 40)
    before = 0.5 * torch.randn(3, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before.requires_grad_()
    y, after = memory(x, ParaRNNState(before), torch.zeros(3, 40, dtype=torch.bool))
    wanted, last = oracle(x, before.transpose(0, 1))
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(after.units[:, 0], last[0], rtol=0, atol=1e-12)
    for found, want in zip(gradients(y, [x, before]), gradients(wanted, [x, before]), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-12)


def test_para_lstm_is_its_equations_in_outputs_and_gradients():
    memory = mixer("lstm", bound=1.5)
    x, reset = inputs(2, 30)
    assert reset.any()
    units = torch.rand(2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y, _ = memory(x, ParaRNNState(units), reset)
    wanted = lstm_by_hand(memory, x, units, reset)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    sources = [x, units, *memory.parameters()]
    for found, want in zip(gradients(y, sources), gradients(wanted, sources), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-11)


def test_a_para_gru_with_half_open_gates_goes_half_way_to_its_candidate():
    memory = mixer("gru", width=1, heads=1)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        memory.bias[2] = 1.0
    y, _ = memory(torch.zeros(1, 3, 1, dtype=torch.float64), memory.start(1), torch.tensor([[True, False, True]]))
    # tanh 1 = 0.7615942: a half of it, three quarters, and from zero again.
    torch.testing.assert_close(y[0, :, 0], torch.tensor([0.3807971, 0.5711956, 0.3807971], dtype=torch.float64), rtol=0, atol=1e-7)


@each_mixer
def test_the_jacobian_is_the_steps_derivative(kind):
    memory = mixer(kind)
    luck = torch.Generator().manual_seed(2)
    gates = torch.randn(1, 1, 3, 4, generator=luck, dtype=torch.float64)
    before = torch.randn(1, 1, memory.carried, 4, generator=luck, dtype=torch.float64)
    whole = torch.autograd.functional.jacobian(lambda units: memory.step(gates, units), before)[0, 0, :, :, 0, 0]
    # A unit moves nobody but itself.
    diagonal = torch.diagonal(whole, dim1=1, dim2=3)
    assert whole.abs().sum() == pytest.approx(diagonal.abs().sum().item())
    torch.testing.assert_close(memory.jacobian(gates, before)[0, 0], diagonal, rtol=0, atol=1e-12)


@each_mixer
def test_as_initialised_newtons_method_converges_in_the_published_three_iterations(kind, monkeypatch):
    memory = mixer(kind, width=16, scale=None, dtype=torch.float32, iterations=3)
    x, reset = inputs(2, 256, 16, torch.float32, resets=0.01)
    gates = memory._gates(x, memory.start(2))
    stepped = memory._loop(gates, memory.start(2).units, reset)
    monkeypatch.setattr(memory, "_loop", no_loop)
    torch.testing.assert_close(memory._solve(gates, memory.start(2).units, reset), stepped, rtol=0, atol=2e-6)


@each_mixer
def test_trained_weights_at_the_bound_need_no_more_than_the_default_iterations(kind, monkeypatch):
    monkeypatch.setattr(pararnn, "numba_version", lambda *_: None)
    memory = mixer(kind, scale=None, dtype=torch.float32)
    with torch.no_grad():
        memory.recurrence.copy_(5.0 * torch.randn(memory.recurrence.shape, generator=torch.Generator().manual_seed(1)))
    x, reset = inputs(2, 200, dtype=torch.float32)
    wanted = memory._loop(memory._gates(x, memory.start(2)), memory.start(2).units, reset)
    monkeypatch.setattr(memory, "_loop", no_loop)
    torch.testing.assert_close(memory(x, memory.start(2), reset)[0], wanted[:, :, 0], rtol=0, atol=1e-5)


@each_mixer
def test_steps_taken_in_order_give_what_newtons_method_finds(kind, monkeypatch):
    memory = mixer(kind)
    x, reset = inputs(3, 40)
    state = type(memory.start(3))(torch.randn_like(memory.start(3).units).requires_grad_())
    found = []
    for enough in (False, True):
        monkeypatch.setattr("memory.pararnn.is_work_enough", lambda numbers, enough=enough: enough)
        y, after = memory(x, state, reset)
        found.append([y, *after, *gradients(y, [x, *state, *memory.parameters()])])
    for newton, in_order in zip(*found, strict=True):
        assert newton.abs().sum() > 0
        torch.testing.assert_close(in_order, newton, rtol=1e-9, atol=1e-12)


@each_mixer
def test_rows_in_which_newtons_method_fails_are_played_step_by_step(kind, monkeypatch):
    memory = mixer(kind, scale=3.0, bound=4.0, iterations=1)
    x, _ = inputs(2, 50)
    # A row that resets at every step is solved by the first guess.
    reset = torch.tensor([[False], [True]]).expand(2, 50)
    gates = memory._gates(x, memory.start(2))
    wanted = memory._loop(gates, memory.start(2).units, reset)
    pararnn._say_that_it_diverged.cache_clear()
    with pytest.warns(
        RuntimeWarning, match="Newton's method has not converged with a bound of 4 within 1 iterations in some trials; they are"
    ):
        found = memory._solve(gates, memory.start(2).units, reset)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)
    # Once: warnings are errors.
    monkeypatch.setattr(memory, "_loop", lambda *_: torch.full_like(wanted, 9.0))
    rough = memory._solve(gates, memory.start(2).units, reset)
    assert rough[0].eq(9.0).all()
    torch.testing.assert_close(rough[1], wanted[1], rtol=0, atol=1e-13)


@pytest.mark.filterwarnings("ignore:.*Newton's method has not converged:RuntimeWarning")
@each_mixer
def test_on_a_gpu_too_rows_in_which_newtons_method_fails_are_played_step_by_step(kind, monkeypatch):
    monkeypatch.setattr("memory.pararnn._may_ask", lambda numbers: False)
    memory = mixer(kind, scale=3.0, bound=4.0, iterations=1)
    x, reset = inputs(2, 50)
    gates = memory._gates(x, memory.start(2))
    wanted = memory._loop(gates, memory.start(2).units, reset)
    torch.testing.assert_close(memory._solve(gates, memory.start(2).units, reset), wanted, rtol=0, atol=1e-13)


@each_mixer
def test_on_a_gpu_a_converged_trial_is_not_played_step_by_step_and_without_a_guard_nothing_is_asked(kind, monkeypatch):
    monkeypatch.setattr(pararnn, "numba_version", lambda *_: None)
    monkeypatch.setattr("memory.pararnn._may_ask", lambda numbers: False)
    x, reset = inputs(2, 200, dtype=torch.float32)
    found = []
    for guard in (True, False):
        memory = mixer(kind, scale=None, dtype=torch.float32, guard=guard)
        with torch.no_grad():
            memory.recurrence.copy_(5.0 * torch.randn(memory.recurrence.shape, generator=torch.Generator().manual_seed(1)))
        wanted = memory._loop(memory._gates(x, memory.start(2)), memory.start(2).units, reset)
        monkeypatch.setattr(memory, "_loop", no_loop)
        found.append(memory(x, memory.start(2), reset)[0])
        torch.testing.assert_close(found[-1], wanted[:, :, 0], rtol=0, atol=1e-5)
    assert torch.equal(*found)


@each_mixer
def test_what_is_inspected_obeys_the_recurrence_and_says_what_is_kept(kind):
    memory = mixer(kind)
    with torch.no_grad():
        memory.from_input[0] = 0.0
        memory.recurrence.zero_()
        memory.bias[0] = 0.0
    x, reset = inputs(2, 12)
    seen = memory.inspect(x, memory.start(2), reset)
    assert seen["residual"].shape == (2, 12)
    assert seen["residual"].max() < 1e-14
    # A gate that hears nothing is half open.
    assert seen["kept"].eq(0.5).all()


def test_recurrent_weights_never_leave_their_bound():
    memory = mixer("gru", bound=0.5)
    with torch.no_grad():
        memory.recurrence.fill_(100.0)
    assert all(weight.eq(0.5).all() for weight in memory.weights())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "ParaLSTMConfig.heads is 3, which does not divide width 128; want one of 1, 2, 4, 8, 16, 32, 64"),
        ({"layers": 0}, "ParaLSTMConfig.layers is 0; want a whole number from 1 to 65,536"),
        ({"iterations": 0}, "ParaLSTMConfig.iterations is 0; want a whole number from 1 to 65,536"),
        ({"bound": 0.0}, "ParaLSTMConfig.bound is 0.0; want a number above 0 and at most 4"),
        ({"bound": 5.0}, "ParaLSTMConfig.bound is 5.0; want a number above 0 and at most 4"),
        (
            {"guard": False, "bound": 1.5},
            "ParaLSTMConfig.guard is False with a bound of 1.5 and 6 iterations; want True, or a bound of at most 1",
        ),
        ({"guard": False, "iterations": 5}, "ParaLSTMConfig.guard is False .* at least 6 iterations"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ParaLSTMConfig(**settings)
