"""The selective scan, plain and compiled for a CPU, against its recurrence, and what is compiled against what is plain."""

import math

import numpy as np
import pytest
import torch
from numba import njit

from memory.kernels import selective_scan_numba
from memory.kernels.exponential_numba import exp
from memory.kernels.selective_scan import scan_plainly, selective_scan

NAMES = ("size", "u", "rate", "b", "c", "state")


def material(seed, rows=2, steps=40, channels=70, numbers=3, resets=0.1, dtype=torch.float32):
    """size, u, rate, b, c, state and reset; more channels than go into one block."""
    luck = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=luck, dtype=dtype)

    size, rate = normal(rows, steps, channels).abs(), normal(channels, numbers).abs()
    selects = normal(rows, steps, numbers), normal(rows, steps, numbers)
    reset = torch.rand((rows, steps), generator=luck) < resets
    return size, normal(rows, steps, channels), rate, *selects, normal(rows, channels, numbers), reset


def loop(size, u, rate, b, c, state, reset):
    outputs = []
    for t in range(size.shape[1]):
        state = torch.where(reset[:, t, None, None], torch.zeros_like(state), state)
        state = torch.exp(-size[:, t, :, None] * rate) * state + (size * u)[:, t, :, None] * b[:, t, None]
        outputs.append((state * c[:, t, None]).sum(-1))
    return torch.stack(outputs, 1), state


def results_of(function, inputs, reset):
    """Outputs, state and the gradients in all inputs."""
    learned = [x.clone().requires_grad_() for x in inputs]
    y, after = function(*learned, reset)
    luck = torch.Generator().manual_seed(9)
    weights = [torch.randn(x.shape, generator=luck, dtype=torch.float64).to(x.dtype) for x in (y, after)]
    return [y, after, *torch.autograd.grad((y * weights[0]).sum() + (after * weights[1]).sum(), learned)]


@pytest.mark.parametrize("steps", [1, 2, 16, 17, 40])
def test_both_are_the_recurrence_in_outputs_state_and_gradients(steps):
    *inputs, reset = material(1, steps=steps, dtype=torch.float64)
    wanted = results_of(loop, inputs, reset)
    for found, want in zip(results_of(selective_scan, inputs, reset), wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-12)
    narrow = [x.float() for x in inputs]
    for found, want in zip(results_of(selective_scan_numba.selective_scan, narrow, reset), wanted, strict=True):
        scale = want.abs().max()
        torch.testing.assert_close(found.double() / scale, want / scale, rtol=1e-5, atol=1e-6)


def test_a_scan_in_single_precision_on_a_cpu_is_the_compiled_one_and_in_double_the_plain_one():
    *inputs, reset = material(2)
    assert torch.equal(selective_scan(*inputs, reset)[0], selective_scan_numba.selective_scan(*inputs, reset)[0])
    assert not torch.equal(selective_scan(*inputs, reset)[0], scan_plainly(*inputs, reset)[0])
    wide = [x.double() for x in inputs]
    assert torch.equal(selective_scan(*wide, reset)[0], scan_plainly(*wide, reset)[0])


@pytest.mark.parametrize("strength", [1e-4, 1.0, 30.0, 1e4, math.inf])
def test_decays_of_all_sizes_stay_near_double(strength):
    size, *others, reset = material(3, steps=300, resets=0.01)
    rate = others[1] * strength
    inputs = [size, others[0], rate, *others[2:]]
    found = selective_scan_numba.selective_scan(*inputs, reset)
    wanted = loop(*(x.double() for x in inputs), reset)
    for mine, want in zip(found, wanted, strict=True):
        scale = want.abs().max()
        torch.testing.assert_close(mine.double() / scale, want / scale, rtol=1e-5, atol=1e-6)


def test_nothing_crosses_a_reset_not_even_what_is_not_a_number():
    size, u, rate, b, c, state, _ = material(4)
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[:, 21] = True
    spoiled = u.index_fill(1, torch.tensor([5]), torch.nan)
    y, after = selective_scan_numba.selective_scan(size, spoiled, rate, b, c, state, reset)
    assert y[:, 5:21].isnan().all()
    assert y[:, 21:].isfinite().all()
    assert after.isfinite().all()
    learned = [x.requires_grad_() for x in (size, u, state)]
    y, after = selective_scan_numba.selective_scan(size, u, rate, b, c, state, reset)
    to_size, to_u, to_state = torch.autograd.grad(y[:, 21:].square().sum() + after.square().sum(), learned)
    assert to_size[:, :21].eq(0).all()
    assert to_u[:, :21].eq(0).all()
    assert to_state.eq(0).all()
    assert to_u[:, 21:].ne(0).all()


def test_a_row_that_is_not_a_number_leaves_the_others_alone():
    *inputs, reset = material(5, rows=3)
    clean, _ = selective_scan_numba.selective_scan(*inputs, reset)
    for spoiled in (inputs[0], inputs[1], inputs[3], inputs[5]):
        spoiled[1] = torch.nan
    found, after = selective_scan_numba.selective_scan(*inputs, reset)
    assert torch.equal(found[[0, 2]], clean[[0, 2]])
    assert found[1].isnan().all()
    assert after[1].isnan().all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_rows_and_channels_out(monkeypatch, threads):
    monkeypatch.setattr(selective_scan_numba, "_ALONE", 0)
    *inputs, reset = material(6, rows=3)
    wanted = results_of(selective_scan_numba.selective_scan, inputs, reset)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for found, want in zip(results_of(selective_scan_numba.selective_scan, inputs, reset), wanted, strict=True):
        assert torch.equal(found, want)


def test_no_steps_leave_the_state():
    *inputs, reset = material(7, steps=0)
    y, after = selective_scan(*inputs, reset)
    assert y.shape == (2, 0, 70)
    assert torch.equal(after, inputs[-1])


def test_what_is_kept_for_learning_is_a_sixteenth():
    *inputs, reset = material(8, steps=64)
    *_, states = selective_scan_numba._forward(*inputs, reset, True)
    assert states.numel() == 2 * 64 * 70 * 3 // 16
    assert selective_scan_numba._forward(*inputs, reset, False)[2].numel() == 0


@njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def exp_of_all(values, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[i] = exp(values[i])


def test_its_exponential_is_right_but_for_the_last_bits():
    values = -np.linspace(0, 87.3, 100_001, dtype=np.float32)
    out = np.empty_like(values)
    exp_of_all(values, out)
    wanted = np.exp(values.astype(np.float64))
    # Units in the last place.
    assert np.max(np.abs(out - wanted) / np.spacing(wanted.astype(np.float32))) < 1.5
    few = np.array([-0.0, -1e4, -np.inf, np.nan], dtype=np.float32)
    exp_of_all(few, out[:4])
    assert out[0] == 1
    assert (out[1:3] < 1.3e-38).all()
    assert np.isnan(out[3])


def test_nobody_has_nothing():
    *inputs, reset = material(9)
    y, after = selective_scan(*(x if x.dim() == 2 else x[:0] for x in inputs), reset[:0])
    assert (y.shape, after.shape) == ((0, 40, 70), (0, 70, 3))


def test_gradients_come_through_a_function_that_is_mapped_over():
    size, u, *others, reset = material(11)
    many = torch.stack([u, 2 * u]).requires_grad_()
    mapped = torch.func.vmap(lambda one: selective_scan_numba.selective_scan(size, one, *others, reset)[0])(many)
    apart = torch.stack([scan_plainly(size, one, *others, reset)[0] for one in many])
    (found,), (want,) = (torch.autograd.grad(result.sum(), many) for result in (mapped, apart))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
