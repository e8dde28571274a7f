"""Scans against loops, torch's own cumulative functions, and numbers worked by hand."""

import math

import pytest
import torch

from memory.kernels import scan
from memory.kernels.scan import NOTHING, SoftmaxState, linear_scan, log_sum_scan, softmax_scan


def luck(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(shape, generator=luck(seed), dtype=torch.float64)


def resets(seed, batch, steps, share=0.1):
    return torch.rand(batch, steps, generator=luck(seed)) < share


def loop(a, b, h, reset):
    states = []
    for t in range(a.shape[1]):
        h = a[:, t] * torch.where(reset[:, t, None], torch.zeros_like(h), h) + b[:, t]
        states.append(h)
    return torch.stack(states, 1)


def test_a_linear_scan_worked_by_hand():
    a = torch.tensor([[[0.5], [2.0], [7.0], [0.5]]])
    b = torch.tensor([[[1.0], [1.0], [3.0], [0.0]]])
    states = linear_scan(a, b, torch.tensor([[4.0]]), torch.tensor([[False, False, True, False]]))
    assert states.flatten().tolist() == [3.0, 7.0, 3.0, 1.5]


# 2 x 3 takes chunks where T allows, 64 x 64 steps one by one.
@pytest.mark.parametrize(("rows", "width"), [(2, 3), (64, 64)])
@pytest.mark.parametrize("steps", [1, 2, 15, 16, 17, 100])
def test_a_linear_scan_is_the_loop_in_states_and_gradients(rows, width, steps):
    a, b, h = (normal(i, *shape).requires_grad_() for i, shape in enumerate([(rows, steps, width), (rows, steps, width), (rows, width)]))
    reset = resets(3, rows, steps)
    found, wanted = linear_scan(torch.sigmoid(a), b, h, reset), loop(torch.sigmoid(a), b, h, reset)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    weights = normal(4, *found.shape)
    for mine, loops in zip(torch.autograd.grad(found, [a, b, h], weights), torch.autograd.grad(wanted, [a, b, h], weights), strict=True):
        torch.testing.assert_close(mine, loops, rtol=1e-12, atol=1e-12)


def test_long_scans_in_single_precision_stay_near_double():
    a, b, h = torch.sigmoid(3 + 3 * normal(1, 2, 2000, 5)), normal(2, 2, 2000, 5), normal(3, 2, 5)
    reset = resets(4, 2, 2000, 0.002)
    found = linear_scan(a.float(), b.float(), h.float(), reset)
    wanted = loop(a.float().double(), b.float().double(), h.float().double(), reset)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_decay_of_one_sums_up_and_of_zero_forgets():
    b, reset = normal(5, 2, 40, 3), torch.zeros(2, 40, dtype=torch.bool)
    h = normal(6, 2, 3)
    torch.testing.assert_close(linear_scan(torch.ones_like(b), b, h, reset), b.cumsum(1) + h[:, None])
    assert torch.equal(linear_scan(torch.zeros_like(b), b, h, reset), b)


@pytest.mark.parametrize("steps", [5, 20])
def test_the_scans_own_gradients_match_finite_differences(steps):
    a, b, h = normal(7, 2, steps, 2).requires_grad_(), normal(8, 2, steps, 2).requires_grad_(), normal(9, 2, 2).requires_grad_()
    reset = resets(10, 2, steps, 0.4)
    assert reset.any()
    assert torch.autograd.gradcheck(lambda a, b, h: linear_scan(torch.sigmoid(a), b, h, reset), (a, b, h))
    assert torch.autograd.gradcheck(lambda s, z: log_sum_scan(s, z, reset), (b, h))


@pytest.mark.parametrize("steps", [10, 50])
def test_nothing_crosses_a_reset_not_even_a_gradient(steps):
    a, b, h = normal(11, 1, steps, 2).requires_grad_(), normal(12, 1, steps, 2).requires_grad_(), normal(13, 1, 2).requires_grad_()
    reset = torch.zeros(1, steps, dtype=torch.bool)
    reset[:, 7] = True
    for states in (linear_scan(a, b, h, reset), log_sum_scan(b, h, reset) + 0 * a):
        to_a, to_b, to_h = torch.autograd.grad(states[:, 7:].square().sum(), [a, b, h], allow_unused=True)
        assert to_a[:, :8].eq(0).all()
        assert to_b[:, :7].eq(0).all()
        assert to_b[:, 7:].ne(0).all()
        assert to_h.eq(0).all()


def test_scans_take_no_steps_at_all():
    empty, h, never = torch.zeros(2, 0, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True), torch.zeros(2, 0, dtype=torch.bool)
    for states in (linear_scan(empty, empty, h, never), log_sum_scan(empty, h, never)):
        assert states.shape == (2, 0, 3)
        assert torch.equal(torch.autograd.grad(states.sum(), h)[0], torch.zeros(2, 3))
    state = SoftmaxState(torch.ones(2, 3), torch.ones(2, 3, 4))
    o, after = softmax_scan(empty, torch.zeros(2, 0, 3, 4), state, never)
    assert o.shape == (2, 0, 3, 4)
    assert torch.equal(after.mean, state.mean)


def test_a_log_sum_worked_by_hand():
    s = torch.tensor([[1.0, 2.0, 4.0, 5.0]], dtype=torch.float64).log()[..., None]
    z = log_sum_scan(s, torch.tensor([[math.log(3.0)]], dtype=torch.float64), torch.tensor([[False, False, True, False]]))
    torch.testing.assert_close(z.exp().flatten(), torch.tensor([4.0, 6.0, 4.0, 9.0], dtype=torch.float64))


def test_a_log_sum_without_resets_is_torchs_logcumsumexp_in_gradients_too():
    s, never = normal(14, 2, 70, 3).mul(4).requires_grad_(), torch.zeros(2, 70, dtype=torch.bool)
    found, wanted = log_sum_scan(s, torch.full((2, 3), NOTHING, dtype=torch.float64), never), s.logcumsumexp(1)
    torch.testing.assert_close(found, wanted)
    weights = normal(15, 2, 70, 3)
    torch.testing.assert_close(torch.autograd.grad(found, s, weights), torch.autograd.grad(wanted, s, weights))


def direct_softmax(s, v, reset):
    """Every step's own softmax over the steps since its row's last reset; the first step resets."""
    outputs = torch.zeros_like(v)
    for row in range(s.shape[0]):
        first = 0
        for t in range(s.shape[1]):
            first = t if reset[row, t] else first
            weights = torch.softmax(s[row, first : t + 1], 0)
            outputs[row, t] = torch.einsum("sh,she->he", weights, v[row, first : t + 1])
    return outputs


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e4])
def test_a_softmax_scan_is_the_softmax_of_each_episode_however_large_the_scores(spread):
    s, v, reset = spread * normal(16, 3, 60, 2), normal(17, 3, 60, 2, 4), resets(18, 3, 60)
    reset[:, 0] = True
    nonsense = SoftmaxState(normal(19, 3, 2), normal(20, 3, 2, 4))
    o, after = softmax_scan(s, v, nonsense, reset)
    torch.testing.assert_close(o, direct_softmax(s, v, reset), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.mean, o[:, -1])
    assert after.log_weight.isfinite().all()


def test_a_softmax_scan_over_a_long_trial_in_single_precision_stays_near_double():
    s, v, reset = 3 * normal(21, 1, 2000, 2), normal(22, 1, 2000, 2, 4), torch.zeros(1, 2000, dtype=torch.bool)
    empty = SoftmaxState(torch.full((1, 2), NOTHING), torch.zeros(1, 2, 4))
    o, _ = softmax_scan(s.float(), v.float(), empty, reset)
    torch.testing.assert_close(o[:, -1].double(), torch.einsum("bth,bthe->bhe", torch.softmax(s, 1), v), rtol=1e-5, atol=1e-5)


def test_a_row_that_is_not_a_number_leaves_the_others_alone():
    a, b, h, reset = normal(23, 3, 30, 2), normal(24, 3, 30, 2), normal(25, 3, 2), resets(26, 3, 30)
    for function in (lambda b: linear_scan(a, b, h, reset), lambda b: log_sum_scan(b, h, reset)):
        spoiled = b.clone()
        spoiled[1] = math.nan
        assert torch.equal(function(spoiled)[[0, 2]], function(b)[[0, 2]])


def test_large_batches_step_one_by_one_and_small_ones_in_chunks():
    assert scan._chunk_length(512, torch.zeros(64, 64)) == 0
    assert scan._chunk_length(512, torch.zeros(4, 64)) == 18
    assert scan._chunk_length(15, torch.zeros(4, 64)) == 0
