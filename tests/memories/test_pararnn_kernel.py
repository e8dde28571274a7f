"""ParaRNN's recurrences compiled for a CPU against the same module in double precision, whose Newton's method they replace."""

import numpy as np
import pytest
import torch
from numba import njit

from memory.kernels import pararnn_numba
from memory.kernels.exponential_numba import sigmoid, tanh
from memory.pararnn import ParaGRU, ParaGRUConfig, ParaLSTM, ParaLSTMConfig, ParaRNNState

MIXERS = {"gru": (ParaGRU, ParaGRUConfig), "lstm": (ParaLSTM, ParaLSTMConfig)}
each_mixer = pytest.mark.parametrize("kind", MIXERS)


def mixer(kind, width, dtype, **settings):
    cell, config = MIXERS[kind]
    memory = cell(config(width=width, iterations=12, **settings)).to(dtype)
    luck = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return memory


def material(memory, rows, steps, share=0.05):
    """Inputs, a state and resets, the first two of which take gradients."""
    luck = torch.Generator().manual_seed(rows * steps)
    dtype = memory.bias.dtype
    x = torch.randn(rows, steps, memory.inputs, generator=luck, dtype=torch.float64).to(dtype).requires_grad_()
    units = torch.rand(rows, memory.carried, memory.outputs, generator=luck, dtype=torch.float64).to(dtype).requires_grad_()
    return x, units, torch.rand(rows, steps, generator=luck) < share


def results_of(memory, x, units, reset):
    """Outputs, the state after, and gradients of a random sum of both in everything."""
    y, after = memory(x, ParaRNNState(units), reset)
    luck = torch.Generator().manual_seed(7)
    weighted = [(side * torch.randn(side.shape, generator=luck, dtype=torch.float64).to(side.dtype)).sum() for side in (y, after.units)]
    return [y, after.units, *torch.autograd.grad(sum(weighted), [x, units, *memory.parameters()])]


@pytest.mark.parametrize(("rows", "steps", "width", "share"), [(2, 257, 10, 0.02), (3, 40, 70, 0.3), (1, 2, 1, 0.0), (2, 9, 16, 1.0)])
@each_mixer
def test_it_is_the_recurrence_in_outputs_and_gradients(kind, rows, steps, width, share, monkeypatch):
    heads = 1 if width == 1 else 2
    single, double = (mixer(kind, width, dtype, heads=heads) for dtype in (torch.float32, torch.float64))
    calls = []
    recur = pararnn_numba.recur
    monkeypatch.setattr(pararnn_numba, "recur", lambda *sides: calls.append(1) or recur(*sides))
    found = results_of(single, *material(single, rows, steps, share))
    assert calls == [1]
    wanted = results_of(double, *material(double, rows, steps, share))
    assert calls == [1]
    for mine, want in zip(found, wanted, strict=True):
        assert want.abs().sum() > 0 or share == 1.0
        torch.testing.assert_close(mine.double(), want, rtol=1e-4, atol=1e-5 * want.detach().abs().max().clamp(min=1).item())


@each_mixer
def test_a_trial_may_be_split_anywhere(kind):
    memory = mixer(kind, 12, torch.float32)
    x, units, reset = material(memory, 2, 50)
    whole, last = memory(x, ParaRNNState(units), reset)
    state, parts = ParaRNNState(units), []
    for first, then in ((0, 1), (1, 18), (18, 20), (20, 50)):
        y, state = memory(x[:, first:then], state, reset[:, first:then])
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-6)
    torch.testing.assert_close(state.units, last.units, rtol=0, atol=2e-6)


@each_mixer
def test_nothing_comes_across_a_reset_and_a_row_that_is_not_a_number_keeps_to_itself(kind):
    memory = mixer(kind, 8, torch.float32)
    x, units, reset = material(memory, 3, 20)
    reset[:, 10] = True
    clean, _ = memory(x, ParaRNNState(units), reset)
    (wanted,) = torch.autograd.grad(clean.sum(), x)
    with torch.no_grad():
        x[1, :10] = torch.nan
        units[2] = torch.nan
    found, _ = memory(x, ParaRNNState(units), reset)
    assert found[1, :10].isnan().all()
    assert torch.equal(found[:, 10:], clean[:, 10:])
    assert torch.equal(found[0], clean[0])
    # Nor back.
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(grad[:, 10:], wanted[:, 10:])
    assert torch.equal(grad[0], wanted[0])
    x.data[0, 10:] = torch.nan
    (grad,) = torch.autograd.grad(memory(x, ParaRNNState(units), reset)[0].sum(), x)
    assert torch.equal(grad[0, :10], wanted[0, :10])


@pytest.mark.parametrize("threads", [1, 2, 5])
@each_mixer
def test_threads_share_rows_out(kind, threads, monkeypatch):
    memory = mixer(kind, 6, torch.float32)
    sides = material(memory, 3, 10)
    wanted = results_of(memory, *sides)
    monkeypatch.setattr(pararnn_numba, "_ALONE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for found, want in zip(results_of(memory, *sides), wanted, strict=True):
        assert torch.equal(found, want)


@pytest.mark.parametrize("carried", [1, 2])
def test_compilers_know_shapes_and_gradients(carried):
    luck = torch.Generator().manual_seed(0)
    shapes = (2, 5, 3, 4), ((3, 5)[carried - 1], 4), (2, carried, 4)
    sides = [torch.randn(shape, generator=luck).requires_grad_() for shape in shapes]
    reset = torch.rand(2, 5, generator=luck) < 0.3
    torch.library.opcheck(torch.ops.coterie.pararnn.default, (*sides, reset))


def test_nobody_has_nothing():
    memory = mixer("lstm", 6, torch.float32)
    y, after = memory(torch.zeros(0, 5, 6), memory.start(0), torch.zeros(0, 5, dtype=torch.bool))
    assert (y.shape, after.units.shape) == ((0, 5, 6), (0, 2, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.zeros(5, 4)}, r"weights is \[5, 4\]; want \[3, 4\]"),
        ({"gates": torch.zeros(2, 5, 2, 4)}, r"gates is \[2, 5, 2, 4\]; want \[2, 5, 3, 4\]"),
        ({"first": torch.zeros(1, 1, 4)}, r"first is \[1, 1, 4\]; want \[2, 1, 4\]"),
        ({"first": torch.zeros(2, 3, 4), "weights": torch.zeros(5, 4)}, r"first is \[2, 3, 4\]; want \[2, 2, 4\]"),
        ({"reset": torch.zeros(2, 4, dtype=torch.bool)}, r"reset is \[2, 4\]; want \[2, 5\]"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(change, message):
    sides = {
        "gates": torch.zeros(2, 5, 3, 4),
        "weights": torch.zeros(3, 4),
        "first": torch.zeros(2, 1, 4),
        "reset": torch.zeros(2, 5, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=message):
        pararnn_numba.recur.__wrapped__(*(sides | change).values())


def test_what_is_not_single_precision_is_refused():
    sides = [torch.zeros(1, 1, 1), torch.zeros(1, 1, 3, 1), torch.zeros(3, 1)]
    assert pararnn_numba.refused(*sides) is None
    for number, name in enumerate(("state", "gates", "recurrence")):
        others = [side.bfloat16() if place == number else side for place, side in enumerate(sides)]
        assert pararnn_numba.refused(*others) == f"its {name} is torch.bfloat16; want torch.float32"


@each_mixer
def test_weights_of_half_precision_are_left_to_pytorch(kind):
    memory = mixer(kind, 8, torch.bfloat16)
    x, units, reset = material(memory, 2, 6)
    y, _ = memory(x, ParaRNNState(units.float()), reset)
    assert y.dtype == torch.float32


def test_a_para_gru_comes_down_from_any_state():
    memory = mixer("gru", 2, torch.float32)
    with torch.no_grad():
        # Wide open, and deaf to what was, which is gone.
        memory.bias[0] = 100.0
        memory.recurrence.zero_()
    x, _, reset = material(memory, 1, 5, share=0.0)
    clean, _ = memory(x, memory.start(1), reset)
    for size in (1e6, -1e6, 1e30):
        found, _ = memory(x, ParaRNNState(torch.full((1, 1, 2), size)), reset)
        torch.testing.assert_close(found, clean, rtol=0, atol=1e-6)


@each_mixer
def test_what_is_inspected_is_of_the_same_states(kind, monkeypatch):
    memory = mixer(kind, 8, torch.float32)
    x, units, reset = material(memory, 2, 30)
    recur = pararnn_numba.recur
    # States that are wrong by a tenth in one step, which `inspect` must see in that step and the next.
    off = torch.zeros(2, 30, memory.carried, 8)
    off[0, 10] = 0.1
    reset[0, 11:13] = False
    true = memory.inspect(x, ParaRNNState(units), reset)
    monkeypatch.setattr(pararnn_numba, "recur", lambda *sides: recur(*sides) + off)
    seen = memory.inspect(x, ParaRNNState(units), reset)
    assert true["residual"].max() < 1e-6
    assert (seen["residual"] > 0.01).nonzero().tolist() == [[0, 10], [0, 11]]
    assert (seen["kept"] != true["kept"]).any(-1).nonzero().tolist() == [[0, 11]]


@njit(error_model="numpy")
def both_of_all(values, out):
    for i in range(len(values)):
        out[0, i], out[1, i] = sigmoid(values[i]), tanh(values[i])


def test_its_sigmoid_and_tanh_are_right_but_for_the_last_bits():
    near = np.logspace(-30, 1.9, 100_001)
    values = np.concatenate([-near, [0.0], near]).astype(np.float32)
    out = np.empty((2, len(values)), np.float32)
    both_of_all(values, out)
    exact = values.astype(np.float64)
    for found, wanted in zip(out, (1 / (1 + np.exp(-exact)), np.tanh(exact)), strict=True):
        # Units in the last place.
        assert np.max(np.abs(found - wanted) / np.spacing(np.abs(wanted).astype(np.float32))) < 3.5
    few = np.array([-np.inf, np.inf, np.nan, -0.0], dtype=np.float32)
    both_of_all(few, out[:, :4])
    assert out[0, 0] < 1.3e-38
    assert out[0, 1] == out[1, 1] == 1
    assert out[1, 0] == -1
    assert np.isnan(out[:, 2]).all()
    assert out[0, 3] == 0.5
    assert out[1, 3] == 0
