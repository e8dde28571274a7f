"""Matrix recurrences, by chunks and compiled for a CPU, against loops over steps, and numbers worked by hand."""

import inspect
import subprocess
import sys

import pytest
import torch

from memory.kernels import chunkwise, chunkwise_numba
from memory.kernels.chunkwise import matrix_scan

B, H, K, V = 2, 2, 4, 3


def luck(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=luck(seed), dtype=dtype)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def material(seed, steps, decay, batch=B, resets=0.1):
    """q, k, v, beta, log_g, state and reset; keys of length one, decays per key, per head or not at all."""
    q, k, v = normal(seed, batch, steps, H, K), unit(normal(seed + 1, batch, steps, H, K)), normal(seed + 2, batch, steps, H, V)
    beta = torch.rand((batch, steps, H), generator=luck(seed + 3), dtype=torch.float64)
    log_g = {"none": None, "head": -normal(seed + 4, batch, steps, H, 1).abs(), "key": -normal(seed + 4, batch, steps, H, K).abs()}[decay]
    return q, k, v, beta, log_g, normal(seed + 5, batch, H, K, V), torch.rand((batch, steps), generator=luck(seed + 6)) < resets


def loop(q, k, v, beta, log_g, state, reset):
    """One step at a time, in plain sums; beta None is the gated rule."""
    outputs = []
    for t in range(q.shape[1]):
        state = torch.where(reset[:, t, None, None, None], torch.zeros_like(state), state)
        if log_g is not None:
            state = torch.einsum("bhk,bhkv->bhkv", log_g[:, t].exp().expand(-1, -1, K), state)
        write = v[:, t]
        if beta is not None:
            write = beta[:, t, :, None] * (write - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], write)
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outputs, 1), state


# Both versions that a CPU can run.
SCANS = {"plain": chunkwise.scan_plainly, "compiled": chunkwise_numba.matrix_scan}


@pytest.fixture(params=SCANS)
def scan(request):
    return SCANS[request.param]


def heads(*steps):
    """One row and one head: a list of vectors as [1, T, 1, width]."""
    return torch.tensor(steps, dtype=torch.float64)[None, :, None]


def test_a_gated_scan_worked_by_hand():
    k, v = heads([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]), heads([2.0], [3.0], [4.0])
    q = heads([1.0, 1.0], [1.0, 1.0], [1.0, 10.0])
    log_g = heads([1.0, 1.0], [0.5, 1.0], [0.5, 0.25]).log()
    state, never = torch.zeros(1, 1, 2, 1, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.bool)
    o, after = matrix_scan(q, k, v, None, log_g, state, never)
    # S: (2, 0), then (1, 3), then (0.5, 0.75) + (4, 4).
    torch.testing.assert_close(o.flatten(), torch.tensor([2.0, 4.0, 52.0], dtype=torch.float64))
    torch.testing.assert_close(after.flatten(), torch.tensor([4.5, 4.75], dtype=torch.float64))
    o, after = matrix_scan(q, k, v, None, log_g, state, torch.tensor([[False, True, False]]))
    # From the second step: (0, 3), then (0, 0.75) + (4, 4).
    torch.testing.assert_close(o.flatten(), torch.tensor([2.0, 3.0, 51.5], dtype=torch.float64))


def test_a_delta_scan_worked_by_hand():
    k, v = heads([1.0, 0.0], [1.0, 0.0], [0.6, 0.8]), heads([2.0], [6.0], [0.0])
    beta = torch.tensor([[[1.0], [0.5], [1.0]]], dtype=torch.float64)
    state, never = torch.zeros(1, 1, 2, 1, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.bool)
    o, after = matrix_scan(k, k, v, beta, None, state, never)
    # The key recalls 2, then half-way between 2 and 6; then (0.6, 0.8) recalled 2.4, which is taken away along it: (4, 0) - 2.4 (0.6, 0.8).
    torch.testing.assert_close(o.flatten(), torch.tensor([2.0, 4.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(after.flatten(), torch.tensor([2.56, -1.92], dtype=torch.float64))


@pytest.mark.parametrize("rule", ["gated", "delta"])
@pytest.mark.parametrize("decay", ["none", "head", "key"])
@pytest.mark.parametrize("steps", [1, 2, 7, 32, 33, 70])
def test_a_scan_is_the_loop_in_outputs_state_and_gradients(scan, steps, decay, rule):
    q, k, v, beta, log_g, state, reset = material(10, steps, decay)
    beta = None if rule == "gated" else beta
    learned = [x.requires_grad_() for x in (q, k, v, state, beta, log_g) if x is not None]
    results = []
    for function in (scan, loop):
        o, after = function(q, k, v, beta, log_g, state, reset)
        loss = (o * normal(20, *o.shape)).sum() + (after * normal(21, *after.shape)).sum()
        results.append([o, after, *torch.autograd.grad(loss, learned)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 8, 128])
@pytest.mark.parametrize("rule", ["gated", "delta"])
def test_the_chunks_length_is_no_part_of_the_function(monkeypatch, chunk, rule):
    q, k, v, beta, log_g, state, reset = material(30, 50, "key")
    beta = None if rule == "gated" else beta
    wanted = chunkwise.scan_plainly(q, k, v, beta, log_g, state, reset)
    monkeypatch.setattr(chunkwise, "CHUNK", chunk)
    for found, want in zip(chunkwise.scan_plainly(q, k, v, beta, log_g, state, reset), wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("strength", [1e-4, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("rule", ["gated", "delta"])
def test_a_long_trial_in_single_precision_stays_near_double_however_strong_the_decay(scan, strength, rule):
    q, k, v, beta, log_g, state, reset = material(40, 500, "key", batch=1, resets=0.01)
    log_g = log_g * strength
    beta = None if rule == "gated" else beta
    narrow = [None if x is None else x.float() for x in (q, k, v, beta, log_g, state)]
    wide = [None if x is None else x.double() for x in narrow]
    found, wanted = scan(*narrow, reset), loop(*wide, reset)
    for mine, loops in zip(found, wanted, strict=True):
        size = loops.abs().max().item()
        torch.testing.assert_close(mine.double() / size, loops / size, rtol=1e-5, atol=3e-6)


def test_gradients_through_the_strongest_decay_are_numbers(scan):
    q, k, v, beta, log_g, state, reset = material(50, 40, "key")
    log_g = (1e30 * log_g).requires_grad_()
    o, after = scan(q, k.requires_grad_(), v, beta, log_g, state, reset)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(o.sum() + after.sum(), [k, log_g]))


def test_what_is_not_a_number_is_forgotten_at_a_reset_where_it_is_compiled():
    q, k, v, beta, log_g, state, _ = material(55, 20, "key", batch=1)
    reset = torch.zeros(1, 20, dtype=torch.bool)
    reset[:, 17] = True
    v[:, 3] = torch.nan
    v.requires_grad_()
    o, after = chunkwise_numba.matrix_scan(q, k, v, beta, log_g, state, reset)
    assert o[:, 3:17].isnan().any()
    assert o[:, 17:].isfinite().all()
    assert after.isfinite().all()
    (to_v,) = torch.autograd.grad(after.sum(), v)
    assert to_v.isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_rows_and_heads_out(monkeypatch, threads):
    monkeypatch.setattr(chunkwise_numba, "_ALONE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    q, k, v, beta, log_g, state, reset = material(57, 20, "key", batch=3)
    v.requires_grad_()
    results = []
    for way in SCANS.values():
        o, after = way(q, k, v, beta, log_g, state, reset)
        results.append((o, after, *torch.autograd.grad(o.square().sum(), v)))
    for found, want in zip(*results, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-12)


def test_gradients_come_through_a_function_that_is_mapped_over():
    q, k, v, beta, log_g, state, reset = material(58, 20, "key")
    many = torch.stack([v, 2 * v]).requires_grad_()
    mapped = torch.func.vmap(lambda one: chunkwise_numba.matrix_scan(q, k, one, beta, log_g, state, reset)[0])(many)
    apart = torch.stack([SCANS["plain"](q, k, one, beta, log_g, state, reset)[0] for one in many])
    (found,), (want,) = (torch.autograd.grad(result.square().sum(), many) for result in (mapped, apart))
    torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-12)


def test_nobody_has_nothing(scan):
    q, k, v, beta, log_g, state, reset = (x[:0] for x in material(59, 20, "key"))
    v.requires_grad_()
    o, after = scan(q, k, v, beta, log_g, state, reset)
    assert (o.shape, after.shape) == ((0, 20, H, V), (0, H, K, V))
    (to_v,) = torch.autograd.grad(o.sum() + after.sum(), v)
    assert to_v.shape == v.shape


@pytest.mark.parametrize("wrong", ["k", "v", "beta", "log_g", "state", "reset"])
def test_shapes_that_do_not_fit_are_named(wrong):
    sides = dict(zip(("q", "k", "v", "beta", "log_g", "state", "reset"), material(59, 20, "key"), strict=True))
    sides[wrong] = sides[wrong][:1]
    with pytest.raises(ValueError, match=rf"^{wrong} is \[1, .*\]; want \[2, "):
        # Without the tests' own check of shapes.
        inspect.unwrap(chunkwise_numba.matrix_scan)(**sides)


COMPILE = """
import torch
from memory.kernels.chunkwise import matrix_scan
q, state, reset = torch.randn(2, 20, 2, 4), torch.randn(2, 2, 4, 4), torch.rand(2, 20) < 0.1
wanted, _ = matrix_scan(q, q, q, None, -q.abs(), state, reset)
found, _ = torch.compile(matrix_scan, backend="aot_eager", fullgraph=True)(q, q, q, None, -q.abs(), state, reset)
assert torch.equal(found, wanted)
"""


@pytest.mark.long
def test_torch_compile_takes_the_compiled_scan_for_one_operator():
    # Elsewhere, where no shapes are checked, which no compiler follows.
    subprocess.run([sys.executable, "-c", COMPILE], check=True)


@pytest.mark.parametrize("rule", ["gated", "delta"])
def test_nothing_crosses_a_reset_within_a_chunk_not_even_a_gradient(scan, rule):
    q, k, v, beta, log_g, state, _ = material(60, 20, "head", batch=1)
    beta = None if rule == "gated" else beta
    reset = torch.zeros(1, 20, dtype=torch.bool)
    reset[:, 13] = True
    k.requires_grad_(), v.requires_grad_(), state.requires_grad_()
    o, after = scan(q, k, v, beta, log_g, state, reset)
    to_k, to_v, to_state = torch.autograd.grad(o[:, 13:].square().sum() + after.square().sum(), [k, v, state])
    assert to_k[:, :13].eq(0).all()
    assert to_v[:, :13].eq(0).all()
    assert to_state.eq(0).all()
    assert to_k[:, 13:].ne(0).all()


def test_no_steps_leave_the_state():
    q, k, v, beta, log_g, state, reset = material(70, 0, "key")
    o, after = matrix_scan(q, k, v, beta, log_g, state, reset)
    assert o.shape == (B, 0, H, V)
    assert torch.equal(after, state)


def test_a_row_that_is_not_a_number_leaves_the_others_alone(scan):
    q, k, v, beta, log_g, state, reset = material(80, 40, "key", batch=3)
    clean, _ = scan(q, k, v, beta, log_g, state, reset)
    for spoiled in (q, k, v, log_g):
        spoiled[1] = torch.nan
    found, after = scan(q, k, v, beta, log_g, state, reset)
    torch.testing.assert_close(found[[0, 2]], clean[[0, 2]])
    assert after[1].isnan().any()


def test_mixed_precision_does_not_reach_the_products():
    q, k, v, beta, log_g, state, reset = (x if x.dtype == torch.bool else x.float() for x in material(90, 40, "key"))
    wanted = matrix_scan(q, k, v, beta, log_g, state, reset)
    with torch.autocast("cpu", torch.bfloat16):
        found = matrix_scan(q, k, v, beta, log_g, state, reset)
    assert all(torch.equal(mine, want) for mine, want in zip(found, wanted, strict=True))


def read_errors(rule, pairs, width=64, rows=16):
    """Squared error of reading each of N values by its own random key, in units of a value's square."""
    k, v = unit(normal(100, rows, pairs, 1, width)), normal(101, rows, pairs, 1, width)
    state, never = torch.zeros(rows, 1, width, width, dtype=torch.float64), torch.zeros(rows, pairs, dtype=torch.bool)
    beta = None if rule == "gated" else torch.ones(rows, pairs, 1, dtype=torch.float64)
    _, matrix = chunkwise.scan_plainly(k, k, v, beta, None, state, never)
    read = torch.einsum("bhkv,bthk->bthv", matrix, k)
    return ((read - v).square().sum() / v.square().sum()).item()


@pytest.mark.parametrize(("pairs", "expected"), [(17, 0.25), (33, 0.5), (65, 1.0), (129, 2.0)])
def test_hebbian_memory_errs_by_its_load_over_its_width(pairs, expected):
    # (N - 1) / d: each other key overlaps with the one asked for by 1 / d on average of squares.
    assert read_errors("gated", pairs) == pytest.approx(expected, rel=0.15)


def test_the_delta_rule_errs_less_than_hebbs_at_the_same_load():
    assert read_errors("delta", 65) < 0.7 * read_errors("gated", 65)


def test_the_delta_rule_keeps_what_orthogonal_keys_wrote_and_replaces_what_the_same_key_wrote():
    k = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 1]][None, :, None]
    v = normal(110, 1, 5, 1, 3)
    state, never = torch.zeros(1, 1, 4, 3, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.bool)
    _, matrix = matrix_scan(k, k, v, torch.ones(1, 5, 1, dtype=torch.float64), None, state, never)
    torch.testing.assert_close(matrix[0, 0], v[0, [0, 4, 2, 3], 0])
