"""Recurrences that are linear in a semiring, over all steps at once, with resets anywhere (Blelloch 1990).

    linear:   h_t = a_t h_{t-1} + b_t
    log-sum:  z_t = log(exp z_{t-1} + exp s_t)

The steps are cut into chunks. What a chunk does to any state before it is found for all chunks at a time; then the chunks' first states,
one after another; then all states, again for all chunks at a time. That takes about 5 sqrt(T) operations instead of T. Where one step is
work enough for the processor, the steps are simply taken in order, which reads everything once less. Both backward passes are the linear
recurrence run from the end.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels.choice import triton_version

# The logarithm of nothing: finite, so that differences of it are numbers; far below any score.
NOTHING = -1e30


def linear_scan(
    a: Float[Tensor, "B T D"], b: Float[Tensor, "B T D"], h: Float[Tensor, "B D"], reset: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """All h_1..h_T from h_0 = h, in the type of h. At a reset h_{t-1} is zero, so that h_t = b_t. Differentiable once, in a, b and h."""
    a, b = a.to(h.dtype), b.to(h.dtype)
    fast = triton_version("scan", h)
    states: Tensor = fast.linear_scan(a, b, h, reset) if fast else _LinearScan.apply(a, b, h, reset)
    return states


def log_sum_scan(s: Float[Tensor, "B T H"], z: Float[Tensor, "B H"], reset: Bool[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
    """All z_1..z_T from z_0 = z, in the type of z: the log-sum of all s since the last reset. Differentiable once, in s and z."""
    s = s.to(z.dtype)
    fast = triton_version("scan", z)
    sums: Tensor = fast.log_sum_scan(s, z, reset) if fast else _LogSumScan.apply(s, z, reset)
    return sums


class SoftmaxState(NamedTuple):
    """The steps since the last reset, summed up. In the paper's (m, c, a): log_weight = m + log c, mean = a / c."""

    log_weight: Float[Tensor, "B H"]
    mean: Float[Tensor, "B H E"]


def softmax_scan(
    s: Float[Tensor, "B T H"], v: Float[Tensor, "B T H E"], state: SoftmaxState, reset: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T H E"], SoftmaxState]:
    """o_t = sum_i softmax_i(s)_i v_i over the steps i <= t since the last reset (Feng et al. 2024, Attention as an RNN, section 3.2).

    With p_t = sigmoid(s_t - z_{t-1}), the weight of the newest, o_t = (1 - p_t) o_{t-1} + p_t v_t: a mean of means, never a large sum.
    """
    z = log_sum_scan(s, state.log_weight, reset)
    newest = newest_weight(s, z, state.log_weight, reset)
    shape = v.shape[2:]
    kept = (1 - newest).repeat_interleave(shape[1], -1)
    mean = state.mean.flatten(1)
    o = linear_scan(kept, (newest[..., None] * v).flatten(2), mean, reset)
    return o.unflatten(2, shape), SoftmaxState(last(z, state.log_weight), last(o, mean).unflatten(1, shape))


def newest_weight(
    s: Float[Tensor, "B T H"], z: Float[Tensor, "B T H"], z_0: Float[Tensor, "B H"], reset: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T H"]:
    """exp(s_t - z_t), the share of step t in the sum that it ends; in the type of z."""
    return torch.sigmoid(s - before(z, z_0).masked_fill(reset[..., None], NOTHING))


def before(states: Float[Tensor, "B T D"], first: Float[Tensor, "B D"]) -> Float[Tensor, "B T D"]:
    """The states that each step finds: first, states_1..states_{T-1}."""
    return torch.cat([first[:, None], states], 1)[:, :-1]


def last(states: Float[Tensor, "B T D"], first: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """The state after all steps, of which there may be none."""
    return states[:, -1] if states.shape[1] else first


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h: Tensor, reset: Tensor) -> Tensor:
        a, h = a.masked_fill(reset[..., None], 0.0), _forgotten(h, reset, 0.0)
        states = torch.empty_like(b)
        _scan(a, b, h, states, _affine, torch.mul)
        ctx.save_for_backward(a, h, reset, states)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        a, h, reset, states = ctx.saved_tensors
        grad_b, grad_h = _from_the_end(a, grad_states, h)
        grad_a = (grad_b * before(states, h)).masked_fill_(reset[..., None], 0.0)
        return grad_a, grad_b, grad_h, None


class _LogSumScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, z: Tensor, reset: Tensor) -> Tensor:
        kept = torch.zeros_like(s).masked_fill_(reset[..., None], NOTHING)
        sums, z = torch.empty_like(s), _forgotten(z, reset, NOTHING)
        _scan(kept, s, z, sums, _log_affine, torch.add)
        ctx.save_for_backward(s, z, reset, sums)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        s, z, reset, sums = ctx.saved_tensors
        newest = newest_weight(s, sums, z, reset)
        # At a reset the newest is everything, to the last bit.
        total, grad_z = _from_the_end(1 - newest, grad_sums, z)
        return total * newest, grad_z, None


def _forgotten(first: Tensor, reset: Tensor, nothing: float) -> Tensor:
    """The state without what a reset in the first step discards, be it a number or not."""
    return first.masked_fill(reset[:, :1], nothing) if reset.shape[1] else first


def _from_the_end(a: Tensor, grad: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """G_t = grad_t + a_{t+1} G_{t+1}, and a_1 G_1, the gradient in what came before the first step."""
    total = torch.empty_like(a)
    if a.shape[1] == 0:
        return total, torch.zeros_like(h)
    total[:, -1] = grad[:, -1]
    _scan(a[:, 1:], grad[:, :-1], total[:, -1], total[:, :-1], _affine, torch.mul, backward=True)
    return total, a[:, 0] * total[:, 0]


def _affine(a: Tensor, h: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.addcmul(b, a, h, out=out)


def _log_affine(a: Tensor, h: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.logaddexp(a + h, b, out=out)


def _scan(
    a: Tensor,
    b: Tensor,
    h: Tensor,
    out: Tensor,
    step: Callable[..., Tensor],
    join: Callable[[Tensor, Tensor], Tensor],
    backward: bool = False,
) -> None:
    """out_t = step(a_t, out_{t-1}, b_t), where step(a', step(a, h, b), b') = step(join(a, a'), h, step(a', b, b')). All [B, T, D]."""
    a, b, out = a.transpose(0, 1), b.transpose(0, 1), out.transpose(0, 1)
    steps = a.shape[0]
    chunk = _chunk_length(steps, h)
    chunks = steps // chunk if chunk else 0
    whole = chunks * chunk
    if whole:
        part = slice(steps - whole, steps) if backward else slice(whole)
        a_in, b_in, out_in = (side[part].unflatten(0, (chunks, chunk)) for side in (a, b, out))
        first, *others = _order(chunk, backward)
        product, local = a_in[:, first], b_in[:, first]
        for j in others:
            local = step(a_in[:, j], local, b_in[:, j])
            product = join(product, a_in[:, j])
        states = torch.empty_like(local)
        for i in _order(chunks, backward):
            states[i] = h
            h = step(product[i], h, local[i])
        for j in (first, *others):
            states = step(a_in[:, j], states, b_in[:, j], out=out_in[:, j])
    for t in _order(steps - whole, backward):
        t = t if backward else whole + t
        h = step(a[t], h, b[t], out=out[t])


def _order(count: int, backward: bool) -> range:
    return range(count - 1, -1, -1) if backward else range(count)


def _chunk_length(steps: int, h: Tensor) -> int:
    """Steps per chunk; 0 where taking them one by one is as fast. A chunk costs 3 operations per step, and 2 more per chunk."""
    return 0 if steps < 16 or is_work_enough(h) else isqrt(2 * steps // 3)


def is_work_enough(h: Tensor) -> bool:
    """Whether one step of all rows keeps the processor busy, so that nothing is gained by taking many at a time."""
    return h.device.type == "cpu" and h.numel() >= 4096
