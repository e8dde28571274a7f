"""`memory.kernels.scan` in Triton: one program per row and block of channels, which goes through time by tiles of steps.

A program is one warp. In tiles of full width, in single precision, a thread holds all steps of its channels, so that the scan within a
tile needs no exchange between threads; and the loads of a whole tile are under way at once. Each number is read and written once.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels.scan import NOTHING

# The largest tile: with these, a tile of a and one of b are 32 registers of each thread apiece.
_STEPS, _WIDTH = 8, 128


def refused(h: Float[Tensor, "B D"]) -> str | None:
    """Why the kernels do not take a state like this; None if they do."""
    if h.dtype not in (torch.float32, torch.float64):
        return f"its state is {h.dtype}; want torch.float32 or torch.float64"
    return None


def linear_scan(
    a: Float[Tensor, "B T D"], b: Float[Tensor, "B T D"], h: Float[Tensor, "B D"], reset: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """As `memory.kernels.scan.linear_scan`; all of one type."""
    return _linear_scan(a, b, h, reset)


def log_sum_scan(s: Float[Tensor, "B T H"], z: Float[Tensor, "B H"], reset: Bool[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
    """As `memory.kernels.scan.log_sum_scan`; all of one type."""
    return _log_sum_scan(s, z, reset)


@no_type_check
@triton.jit
def _affine(a, h, a_next, h_next):
    return a * a_next, a_next * h + h_next


@no_type_check
@triton.jit
def _log_affine(kept, z, kept_next, z_next):
    return kept + kept_next, _log_add(kept_next + z, z_next)


@no_type_check
@triton.jit
def _log_add(x, y):
    # Equal infinities have no difference.
    apart = tl.where(x == y, 0.0, tl.abs(x - y))
    return tl.maximum(x, y) + tl.log(1.0 + tl.exp(-apart))


@no_type_check
@triton.jit
def _row_of(tile, i, ROWS: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, ROWS)[:, None] == i, tile, 0.0), 0)


@no_type_check
@triton.jit
def _linear_forward(a_in, b_in, h_in, reset_in, states_out, steps, D: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    h = tl.load(h_in + row * D + d, d < D, 0.0)
    for first in range(0, steps, STEPS):
        t = first + tl.arange(0, STEPS)
        inside = (t < steps)[:, None] & (d < D)[None, :]
        at = (row * steps + t)[:, None] * D + d[None, :]
        reset = tl.load(reset_in + row * steps + t, t < steps, 0) != 0
        a = tl.where(reset[:, None], 0.0, tl.load(a_in + at, inside, 0.0))
        b = tl.load(b_in + at, inside, 0.0)
        product, local = tl.associative_scan((a, b), 0, _affine)
        states = product * h[None, :] + local
        tl.store(states_out + at, states, inside)
        h = _row_of(states, STEPS - 1, STEPS)


@no_type_check
@triton.jit
def _linear_backward(
    a_in,
    h_in,
    reset_in,
    states_in,
    grad_in,
    grad_a_out,
    grad_b_out,
    grad_h_out,
    steps,
    D: tl.constexpr,
    STEPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """G_t = grad_t + a_{t+1} G_{t+1}, which is b's gradient; h_{t-1} G_t, a's; and a_1 G_1, the first state's."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    h = tl.load(h_in + row * D + d, d < D, 0.0)
    total = tl.zeros_like(h)
    for first in range(0, steps, STEPS):
        t = steps - 1 - first - tl.arange(0, STEPS)
        inside = (t >= 0)[:, None] & (d < D)[None, :]
        followed = inside & (t + 1 < steps)[:, None]
        preceded = inside & (t > 0)[:, None]
        at = (row * steps + t)[:, None] * D + d[None, :]
        reset = tl.load(reset_in + row * steps + t, t >= 0, 0) != 0
        reset_next = tl.load(reset_in + row * steps + t + 1, (t >= 0) & (t + 1 < steps), 0) != 0
        a_next = tl.where(reset_next[:, None], 0.0, tl.load(a_in + at + D, followed, 0.0))
        # Before the first step the total stays.
        a_next = tl.where((t < 0)[:, None], 1.0, a_next)
        grad = tl.load(grad_in + at, inside, 0.0)
        product, local = tl.associative_scan((a_next, grad), 0, _affine)
        totals = product * total[None, :] + local
        before = tl.where((t > 0)[:, None], tl.load(states_in + at - D, preceded, 0.0), h[None, :])
        tl.store(grad_b_out + at, totals, inside)
        tl.store(grad_a_out + at, tl.where(reset[:, None], 0.0, totals * before), inside)
        total = _row_of(totals, STEPS - 1, STEPS)
    a = tl.load(a_in + row * steps * D + d, d < D, 0.0)
    reset = tl.load(reset_in + row * steps) != 0
    tl.store(grad_h_out + row * D + d, tl.where(reset, 0.0, a * total), d < D)


@no_type_check
@triton.jit
def _log_sum_forward(
    s_in, z_in, reset_in, sums_out, steps, D: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr, NOTHING: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    z = tl.load(z_in + row * D + d, d < D, 0.0)
    for first in range(0, steps, STEPS):
        t = first + tl.arange(0, STEPS)
        inside = (t < steps)[:, None] & (d < D)[None, :]
        at = (row * steps + t)[:, None] * D + d[None, :]
        reset = tl.load(reset_in + row * steps + t, t < steps, 0) != 0
        s = tl.load(s_in + at, inside, 0.0)
        kept = tl.where(reset[:, None], NOTHING, tl.zeros_like(s))
        product, local = tl.associative_scan((kept, s), 0, _log_affine)
        sums = _log_add(product + z[None, :], local)
        tl.store(sums_out + at, sums, inside)
        z = _row_of(sums, STEPS - 1, STEPS)


@no_type_check
@triton.jit
def _log_sum_backward(
    s_in, z_in, reset_in, sums_in, grad_in, grad_s_out, grad_z_out, steps, D: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr
):
    """The linear recurrence from the end, where a_t = sigmoid(z_{t-1} - s_t) is what step t keeps and exp(s_t - z_t) what it adds."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    z = tl.load(z_in + row * D + d, d < D, 0.0)
    total = tl.zeros_like(z)
    for first in range(0, steps, STEPS):
        t = steps - 1 - first - tl.arange(0, STEPS)
        inside = (t >= 0)[:, None] & (d < D)[None, :]
        followed = inside & (t + 1 < steps)[:, None]
        at = (row * steps + t)[:, None] * D + d[None, :]
        reset_next = tl.load(reset_in + row * steps + t + 1, (t >= 0) & (t + 1 < steps), 0) != 0
        s = tl.load(s_in + at, inside, 0.0)
        sums = tl.load(sums_in + at, inside, 0.0)
        s_next = tl.load(s_in + at + D, followed, 0.0)
        kept = tl.where(followed & ~reset_next[:, None], tl.sigmoid(sums - s_next), 0.0)
        # Before the first step the total stays.
        kept = tl.where((t < 0)[:, None], 1.0, kept)
        grad = tl.load(grad_in + at, inside, 0.0)
        product, local = tl.associative_scan((kept, grad), 0, _affine)
        totals = product * total[None, :] + local
        tl.store(grad_s_out + at, totals * tl.exp(s - sums), inside)
        total = _row_of(totals, STEPS - 1, STEPS)
    s = tl.load(s_in + row * steps * D + d, d < D, 0.0)
    reset = tl.load(reset_in + row * steps) != 0
    tl.store(grad_z_out + row * D + d, tl.where(reset, 0.0, tl.sigmoid(z - s) * total), d < D)


@torch.library.custom_op("coterie::linear_scan", mutates_args=(), schema="(Tensor a, Tensor b, Tensor h, Tensor reset) -> Tensor")
def _linear_scan(a: Tensor, b: Tensor, h: Tensor, reset: Tensor) -> Tensor:
    states = b.new_empty(b.shape)
    _launch(_linear_forward, [a, b, h, reset], [states], states)
    return states


@torch.library.custom_op(
    "coterie::linear_scan_backward",
    mutates_args=(),
    schema="(Tensor a, Tensor h, Tensor reset, Tensor states, Tensor grad) -> (Tensor, Tensor, Tensor)",
)
def _linear_scan_backward(a: Tensor, h: Tensor, reset: Tensor, states: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads = a.new_empty(a.shape), a.new_empty(a.shape), h.new_zeros(h.shape)
    _launch(_linear_backward, [a, h, reset, states, grad], [*grads], a)
    return grads


@torch.library.custom_op("coterie::log_sum_scan", mutates_args=(), schema="(Tensor s, Tensor z, Tensor reset) -> Tensor")
def _log_sum_scan(s: Tensor, z: Tensor, reset: Tensor) -> Tensor:
    sums = s.new_empty(s.shape)
    _launch(_log_sum_forward, [s, z, reset], [sums], s, NOTHING=NOTHING)
    return sums


@torch.library.custom_op(
    "coterie::log_sum_scan_backward",
    mutates_args=(),
    schema="(Tensor s, Tensor z, Tensor reset, Tensor sums, Tensor grad) -> (Tensor, Tensor)",
)
def _log_sum_scan_backward(s: Tensor, z: Tensor, reset: Tensor, sums: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    grads = s.new_empty(s.shape), z.new_zeros(z.shape)
    _launch(_log_sum_backward, [s, z, reset, sums, grad], [*grads], s)
    return grads


def _launch(kernel: Any, inputs: list[Tensor], outputs: list[Tensor], like: Tensor, **constants: float) -> None:
    """Runs a program for each row of `like` [B, T, D] and block of its channels. The outputs are contiguous."""
    rows, steps, width = like.shape
    if like.numel() == 0:
        return
    tile_steps, tile_width = min(_STEPS, triton.next_power_of_2(steps)), min(_WIDTH, triton.next_power_of_2(width))
    tensors = [x.contiguous() for x in inputs] + outputs
    grid = rows, triton.cdiv(width, tile_width)
    kernel[grid](*tensors, steps, D=width, STEPS=tile_steps, WIDTH=tile_width, num_warps=1, **constants)


@_linear_scan.register_fake
def _(a: Tensor, b: Tensor, h: Tensor, reset: Tensor) -> Tensor:
    return b.new_empty(b.shape)


@_linear_scan_backward.register_fake
def _(a: Tensor, h: Tensor, reset: Tensor, states: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape), h.new_empty(h.shape)


@_log_sum_scan.register_fake
def _(s: Tensor, z: Tensor, reset: Tensor) -> Tensor:
    return s.new_empty(s.shape)


@_log_sum_scan_backward.register_fake
def _(s: Tensor, z: Tensor, reset: Tensor, sums: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return s.new_empty(s.shape), z.new_empty(z.shape)


def _keep_linear(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    a, _, h, reset = inputs
    ctx.save_for_backward(a, h, reset, output)


def _differentiate_linear(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_linear_scan_backward(*ctx.saved_tensors, grad), None


def _keep_log_sum(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _differentiate_log_sum(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_log_sum_scan_backward(*ctx.saved_tensors, grad), None


_linear_scan.register_autograd(_differentiate_linear, setup_context=_keep_linear)
_log_sum_scan.register_autograd(_differentiate_log_sum, setup_context=_keep_log_sum)
