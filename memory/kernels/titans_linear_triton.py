"""`memory.titans` with a linear network, the squared loss and the retention `decay`, in Triton: step by step, the weights on chip.

A row of the weights is what recalls one number of the value, and a stranger to the other rows. So a program holds some rows of one head of
one row of the batch for all steps: A, S and the chunk's first weights W, which are the A that the chunk's first step found. On the way back
the steps of a window are taken again from what was kept at its beginning, and A and S as each step finds them go through global memory.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

# The widest head; the numbers of A that a program holds; and the steps of a window.
WIDEST, _NUMBERS, _WINDOW = 128, 1024, 16


def refused(weights: Float[Tensor, "B H P"]) -> str | None:
    """Why the kernel does not take weights like these; None if it does."""
    if weights.dtype not in (torch.float32, torch.float64):
        return f"its state is {weights.dtype}; want torch.float32 or torch.float64"
    if weights.shape[2] > WIDEST**2:
        return f"its heads are {isqrt(weights.shape[2])} wide; want at most {WIDEST}"
    return None


def learn(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T d"],
    log_keep: Float[Tensor, "B H T"],
    log_momentum: Float[Tensor, "B H T"] | None,
    rate: Float[Tensor, "B H T"],
    first: Float[Tensor, "H P"],
    anchor: Float[Tensor, "B H P"],
    weights: Float[Tensor, "B H P"],
    momentum: Float[Tensor, "B H P"] | None,
    phase: Int[Tensor, "B"],
    reset: Bool[Tensor, "B T"],
    chunk_length: int,
) -> tuple[Float[Tensor, "B T H d"], Float[Tensor, "B H P"], Float[Tensor, "B H P"], Float[Tensor, "B H P"] | None, Int[Tensor, "B"]]:
    """What is recalled, then anchor, weights, momentum and phase after all steps; all of one type, P = d^2. Momentum: both or neither."""
    began, after = _clocks(phase, reset, chunk_length)
    # Whether an input needs a gradient is not known where functions are transformed.
    learns = torch.is_grad_enabled()
    by_step = (None if x is None else x.transpose(1, 2) for x in (q, k, v, log_keep, log_momentum, rate))
    recalled, anchor, weights, last_momentum, _ = _forward(*by_step, first, anchor, weights, momentum, reset, began, after == 0, learns)
    return recalled, anchor, weights, None if momentum is None else last_momentum, after


def _clocks(phase: Int[Tensor, "B"], reset: Bool[Tensor, "B T"], chunk_length: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """The step with which each step's chunk began, -1 if before the first; and the phase after all steps."""
    step = torch.arange(reset.shape[1], device=reset.device)
    # Counted from the last reset, or from where the state's open chunk began.
    age = step - torch.where(reset, step, -phase[:, None]).cummax(1).values
    begins = (age % chunk_length == 0) & ((step > 0) | reset)
    return torch.where(begins, step, -1).cummax(1).values.int(), (age[:, -1] + 1) % chunk_length


@no_type_check
@triton.jit
def _gates(log_keep_in, log_momentum_in, rate_in, at, MOMENTUM: tl.constexpr):
    """What a step keeps of A, what it carries of S, and its rate."""
    rate = tl.load(rate_in + at)
    carried = tl.zeros_like(rate)
    if MOMENTUM:
        carried = tl.exp(tl.load(log_momentum_in + at))
    return tl.exp(tl.load(log_keep_in + at)), carried, rate


@no_type_check
@triton.jit
def _step(a, s, w, k, v, keep, carried, rate):
    """A and S after a step, and the error."""
    error = tl.sum(w * k, 1)[:, None] - v
    s = carried * s - rate * error * k
    return keep * a + s, s, error


@no_type_check
@triton.jit
def _forward_kernel(
    q_in,
    k_in,
    v_in,
    log_keep_in,
    log_momentum_in,
    rate_in,
    first_in,
    anchor_in,
    weights_in,
    momentum_in,
    reset_in,
    began_in,
    ended_in,
    recalled_out,
    anchor_out,
    weights_out,
    momentum_out,
    kept_out,
    steps,
    windows,
    LEARNS: tl.constexpr,
    MOMENTUM: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WINDOW: tl.constexpr,
):
    one = tl.program_id(0).to(tl.int64)
    row, head = one // HEADS, one % HEADS
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, COLUMNS)[None, :]
    place, inside = r * WIDTH + c, (r < WIDTH) & (c < WIDTH)
    first = tl.load(first_in + head * (WIDTH * WIDTH) + place, inside, 0.0)
    a = tl.load(weights_in + one * (WIDTH * WIDTH) + place, inside, 0.0)
    w = tl.load(anchor_in + one * (WIDTH * WIDTH) + place, inside, 0.0)
    s = tl.zeros_like(a)
    if MOMENTUM:
        s = tl.load(momentum_in + one * (WIDTH * WIDTH) + place, inside, 0.0)
    for t in range(steps):
        if LEARNS and t % WINDOW == 0:
            kept = kept_out + (one * windows + t // WINDOW) * (3 * WIDTH * WIDTH) + place
            tl.store(kept, a, inside)
            tl.store(kept + WIDTH * WIDTH, s, inside)
            tl.store(kept + 2 * WIDTH * WIDTH, w, inside)
        at = (row * steps + t) * HEADS + head
        reset = tl.load(reset_in + row * steps + t) != 0
        a = tl.where(reset, first, a)
        s = tl.where(reset, 0.0, s)
        w = tl.where(tl.load(began_in + row * steps + t) == t, a, w)
        k = tl.load(k_in + at * WIDTH + c, c < WIDTH, 0.0)
        v = tl.load(v_in + at * WIDTH + r, r < WIDTH, 0.0)
        keep, carried, rate = _gates(log_keep_in, log_momentum_in, rate_in, at, MOMENTUM)
        a, s, _ = _step(a, s, w, k, v, keep, carried, rate)
        y = tl.sum(a * tl.load(q_in + at * WIDTH + c, c < WIDTH, 0.0), 1)[:, None]
        tl.store(recalled_out + at * WIDTH + r, y, r < WIDTH)
    tl.store(weights_out + one * (WIDTH * WIDTH) + place, a, inside)
    tl.store(anchor_out + one * (WIDTH * WIDTH) + place, tl.where(tl.load(ended_in + row) != 0, a, w), inside)
    if MOMENTUM:
        tl.store(momentum_out + one * (WIDTH * WIDTH) + place, s, inside)


@no_type_check
@triton.jit
def _backward_kernel(
    q_in,
    k_in,
    v_in,
    log_keep_in,
    log_momentum_in,
    rate_in,
    first_in,
    reset_in,
    began_in,
    ended_in,
    kept_in,
    grad_recalled_in,
    grad_anchor_in,
    grad_weights_in,
    grad_momentum_in,
    grad_q_out,
    grad_k_out,
    grad_v_out,
    grad_log_keep_out,
    grad_log_momentum_out,
    grad_rate_out,
    grad_first_out,
    grad_anchor_out,
    grad_weights_out,
    grad_momentum_out,
    scratch,
    steps,
    windows,
    batch,
    MOMENTUM: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WINDOW: tl.constexpr,
):
    """Gradients in q, k and the gates are those by way of a program's rows of the weights: [blocks, B, T, H, .], to be summed over blocks.

    scratch, [B, H, WINDOW, 2, P]: A and S as each step of the window at hand finds them, after the reset if there is one.
    """
    one = tl.program_id(0).to(tl.int64)
    row, head = one // HEADS, one % HEADS
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, COLUMNS)[None, :]
    place, inside = r * WIDTH + c, (r < WIDTH) & (c < WIDTH)
    first = tl.load(first_in + head * (WIDTH * WIDTH) + place, inside, 0.0)
    found = scratch + one * (WINDOW * 2 * WIDTH * WIDTH) + place
    to_a = tl.load(grad_weights_in + one * (WIDTH * WIDTH) + place, inside, 0.0)
    to_w = tl.load(grad_anchor_in + one * (WIDTH * WIDTH) + place, inside, 0.0)
    to_s = tl.zeros_like(to_a)
    if MOMENTUM:
        to_s = tl.load(grad_momentum_in + one * (WIDTH * WIDTH) + place, inside, 0.0)
    to_first = tl.zeros_like(to_a)
    # A chunk that ended with the last step left its weights as the anchor.
    ended = tl.load(ended_in + row) != 0
    to_a = tl.where(ended, to_a + to_w, to_a)
    to_w = tl.where(ended, 0.0, to_w)
    for back in range(windows):
        window = windows - 1 - back
        start = window * WINDOW
        length = tl.minimum(WINDOW, steps - start)
        kept = kept_in + (one * windows + window) * (3 * WIDTH * WIDTH) + place
        a = tl.load(kept, inside, 0.0)
        s = tl.load(kept + WIDTH * WIDTH, inside, 0.0)
        w = tl.load(kept + 2 * WIDTH * WIDTH, inside, 0.0)
        for i in range(length):
            t = start + i
            at = (row * steps + t) * HEADS + head
            reset = tl.load(reset_in + row * steps + t) != 0
            a = tl.where(reset, first, a)
            s = tl.where(reset, 0.0, s)
            w = tl.where(tl.load(began_in + row * steps + t) == t, a, w)
            tl.store(found + i * (2 * WIDTH * WIDTH), a, inside)
            tl.store(found + i * (2 * WIDTH * WIDTH) + WIDTH * WIDTH, s, inside)
            k = tl.load(k_in + at * WIDTH + c, c < WIDTH, 0.0)
            v = tl.load(v_in + at * WIDTH + r, r < WIDTH, 0.0)
            keep, carried, rate = _gates(log_keep_in, log_momentum_in, rate_in, at, MOMENTUM)
            a, s, _ = _step(a, s, w, k, v, keep, carried, rate)
        # All of the window is written before any thread goes on to read it.
        tl.debug_barrier()
        for j in range(length):
            i = length - 1 - j
            t = start + i
            at = (row * steps + t) * HEADS + head
            out = ((tl.program_id(1) * batch + row) * steps + t) * HEADS + head
            began = tl.load(began_in + row * steps + t)
            before = tl.load(found + i * (2 * WIDTH * WIDTH), inside, 0.0)
            s_before = tl.load(found + i * (2 * WIDTH * WIDTH) + WIDTH * WIDTH, inside, 0.0)
            # The chunk's first weights are the A that its first step found.
            w = tl.load(found + (began - start) * (2 * WIDTH * WIDTH), inside & (began >= start), 0.0)
            w += tl.load(kept + 2 * WIDTH * WIDTH, inside & (began < start), 0.0)
            q = tl.load(q_in + at * WIDTH + c, c < WIDTH, 0.0)
            k = tl.load(k_in + at * WIDTH + c, c < WIDTH, 0.0)
            v = tl.load(v_in + at * WIDTH + r, r < WIDTH, 0.0)
            keep, carried, rate = _gates(log_keep_in, log_momentum_in, rate_in, at, MOMENTUM)
            a, s, error = _step(before, s_before, w, k, v, keep, carried, rate)
            to_y = tl.load(grad_recalled_in + at * WIDTH + r, r < WIDTH, 0.0)
            to_a += to_y * q
            to_s += to_a
            tl.store(grad_q_out + out * WIDTH + c, tl.sum(to_y * a, 0)[None, :], c < WIDTH)
            tl.store(grad_log_keep_out + out, keep * tl.sum(tl.sum(to_a * before, 1), 0))
            if MOMENTUM:
                tl.store(grad_log_momentum_out + out, carried * tl.sum(tl.sum(to_s * s_before, 1), 0))
            taken = tl.sum(to_s * k, 1)[:, None]
            tl.store(grad_rate_out + out, -tl.sum(tl.sum(error * taken, 1), 0))
            to_error = -rate * taken
            tl.store(grad_k_out + out * WIDTH + c, tl.sum(w * to_error - rate * error * to_s, 0)[None, :], c < WIDTH)
            tl.store(grad_v_out + at * WIDTH + r, -to_error, r < WIDTH)
            to_w += to_error * k
            to_a = keep * to_a
            to_s = carried * to_s
            to_a = tl.where(began == t, to_a + to_w, to_a)
            to_w = tl.where(began == t, 0.0, to_w)
            reset = tl.load(reset_in + row * steps + t) != 0
            to_first += tl.where(reset, to_a, 0.0)
            to_a = tl.where(reset, 0.0, to_a)
            to_s = tl.where(reset, 0.0, to_s)
        # All of the window is read before any thread goes on to write the next.
        tl.debug_barrier()
    tl.store(grad_first_out + one * (WIDTH * WIDTH) + place, to_first, inside)
    tl.store(grad_anchor_out + one * (WIDTH * WIDTH) + place, to_w, inside)
    tl.store(grad_weights_out + one * (WIDTH * WIDTH) + place, to_a, inside)
    if MOMENTUM:
        tl.store(grad_momentum_out + one * (WIDTH * WIDTH) + place, to_s, inside)


_SIDES = "Tensor q, Tensor k, Tensor v, Tensor log_keep, Tensor? log_momentum, Tensor rate, Tensor first"


@torch.library.custom_op(
    "coterie::titans_linear",
    mutates_args=(),
    schema=f"({_SIDES}, Tensor anchor, Tensor weights, Tensor? momentum, Tensor reset, Tensor began, Tensor ended, bool learns)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    log_momentum: Tensor | None,
    rate: Tensor,
    first: Tensor,
    anchor: Tensor,
    weights: Tensor,
    momentum: Tensor | None,
    reset: Tensor,
    began: Tensor,
    ended: Tensor,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What is recalled; anchor, A and S after it; and A, S and anchor at each window's beginning [B, H, windows, 3, P].

    All but states lead with [B, T]. began: the step with which each step's chunk began, -1 if before the first; ended: whether a chunk
    ended with the last.
    """
    outputs = _shapes(v, weights, momentum, learns)
    if weights.numel():
        inputs = (q, k, v, log_keep, log_momentum, rate, first, anchor, weights, momentum, reset, began, ended)
        grid, settings = _settings(v, momentum)
        sides = [x if x is None else x.contiguous() for x in inputs]
        _forward_kernel[grid](*sides, *outputs, v.shape[1], outputs[4].shape[2], LEARNS=learns, **settings)
    return outputs


@torch.library.custom_op(
    "coterie::titans_linear_backward",
    mutates_args=(),
    schema=f"({_SIDES}, Tensor reset, Tensor began, Tensor ended, Tensor kept, Tensor grad_recalled, Tensor grad_anchor,"
    " Tensor grad_weights, Tensor? grad_momentum) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    log_momentum: Tensor | None,
    rate: Tensor,
    first: Tensor,
    reset: Tensor,
    began: Tensor,
    ended: Tensor,
    kept: Tensor,
    grad_recalled: Tensor,
    grad_anchor: Tensor,
    grad_weights: Tensor,
    grad_momentum: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients in q, k, v, log_keep, log_momentum, rate, first, anchor, weights and momentum; those of momentum are empty without it."""
    grid, settings = _settings(v, grad_momentum)
    new, state = v.new_empty, grad_weights.shape
    if grad_weights.numel() == 0:
        return tuple(torch.zeros_like(x) for x in (q, k, v, log_keep, log_keep, rate, first, grad_anchor, grad_weights, grad_weights))
    grad_q, grad_k, grad_keep, grad_carried, grad_rate = in_blocks = [new(grid[1], *x.shape) for x in (q, k, log_keep, log_keep, rate)]
    grad_v, to_first, to_anchor, to_weights = new(v.shape), new(state), new(state), new(state)
    to_momentum = new(0 if grad_momentum is None else state)
    inputs = (q, k, v, log_keep, log_momentum, rate, first, reset, began, ended, kept, grad_recalled, grad_anchor, grad_weights)
    sides = [x if x is None else x.contiguous() for x in (*inputs, grad_momentum)]
    outputs = grad_q, grad_k, grad_v, grad_keep, grad_carried, grad_rate, to_first, to_anchor, to_weights, to_momentum
    scratch = new(*state[:2], _WINDOW, 2, state[2])
    _backward_kernel[grid](*sides, *outputs, scratch, v.shape[1], kept.shape[2], v.shape[0], **settings)
    grad_q, grad_k, grad_keep, grad_carried, grad_rate = (x[0] if len(x) == 1 else x.sum(0) for x in in_blocks)
    if grad_momentum is None:
        grad_carried = new(0)
    return grad_q, grad_k, grad_v, grad_keep, grad_carried, grad_rate, to_first.sum(0), to_anchor, to_weights, to_momentum


@_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    log_momentum: Tensor | None,
    rate: Tensor,
    first: Tensor,
    anchor: Tensor,
    weights: Tensor,
    momentum: Tensor | None,
    reset: Tensor,
    began: Tensor,
    ended: Tensor,
    learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _shapes(v, weights, momentum, learns)


@_backward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    log_momentum: Tensor | None,
    rate: Tensor,
    first: Tensor,
    reset: Tensor,
    began: Tensor,
    ended: Tensor,
    kept: Tensor,
    grad_recalled: Tensor,
    grad_anchor: Tensor,
    grad_weights: Tensor,
    grad_momentum: Tensor | None,
) -> tuple[Tensor, ...]:
    like = (q, k, v, log_keep, log_momentum, rate, first, grad_anchor, grad_weights, grad_momentum)
    return tuple(v.new_empty(0 if x is None else x.shape) for x in like)


def _shapes(v: Tensor, weights: Tensor, momentum: Tensor | None, learns: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    new, shape = v.new_empty, weights.shape
    kept = new(*shape[:2], (v.shape[1] + _WINDOW - 1) // _WINDOW if learns else 0, 3, shape[2])
    return new(v.shape), new(shape), new(shape), new(0 if momentum is None else shape), kept


def _settings(v: Tensor, momentum: Tensor | None) -> tuple[tuple[int, int], dict[str, Any]]:
    """The grid, a program for each row, head and block of rows of the weights, and the kernels' constants."""
    rows, _, heads, width = v.shape
    columns = triton.next_power_of_2(width)
    block = max(1, min(columns, _NUMBERS // columns))
    constants = {
        "MOMENTUM": momentum is not None,
        "HEADS": heads,
        "WIDTH": width,
        "ROWS": block,
        "COLUMNS": columns,
        "WINDOW": _WINDOW,
        "num_warps": 2,
    }
    return (rows * heads, triton.cdiv(width, block)), constants


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *sides, _, _, momentum, reset, began, ended, _ = inputs
    kept = output[4]
    ctx.save_for_backward(*sides, reset, began, ended, kept)
    ctx.momentum = momentum is not None
    ctx.mark_non_differentiable(kept)
    # Zeros for the gradients in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, grad_recalled: Tensor | None, grad_anchor: Tensor | None, grad_weights: Tensor | None, grad_momentum: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    _, _, v, *_, kept = ctx.saved_tensors
    state = kept.shape[0], kept.shape[1], kept.shape[4]
    grad_recalled = torch.zeros_like(v) if grad_recalled is None else grad_recalled
    grad_anchor, grad_weights, grad_momentum = (v.new_zeros(state) if x is None else x for x in (grad_anchor, grad_weights, grad_momentum))
    grads = _backward(*ctx.saved_tensors, grad_recalled, grad_anchor, grad_weights, grad_momentum if ctx.momentum else None)
    grad_q, grad_k, grad_v, grad_keep, grad_carried, *others, grad_first_momentum = grads
    if not ctx.momentum:
        return grad_q, grad_k, grad_v, grad_keep, None, *others, None, None, None, None, None
    return grad_q, grad_k, grad_v, grad_keep, grad_carried, *others, grad_first_momentum, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)
