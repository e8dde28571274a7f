"""`memory.kernels.selective_scan` on a CPU: a row and some channels at a time, step after step, compiled by Numba.

Channels lie side by side, so that vectors of them go through everything, the exponential included, and what lies between two steps never
leaves the nearest caches. The way out keeps every `CHUNK`th state; on the way back the others of a chunk are computed anew, the last first.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels.compiled import compiled, require_shapes
from memory.kernels.exponential_numba import exp
from memory.kernels.threads import in_threads

# Steps between two states that are kept, and channels at a time.
CHUNK, CHANNELS = 16, 64
# Numbers of a state times steps, below which starting a thread costs more than it saves.
_ALONE = 1 << 18

_F = np.float32


def refused(state: Float[Tensor, "B D N"]) -> str | None:
    """Why the kernel does not take a state like this; None if it does."""
    if state.dtype != torch.float32:
        return f"its state is {state.dtype}; want torch.float32"
    return None


def selective_scan(
    size: Float[Tensor, "B T D"],
    u: Float[Tensor, "B T D"],
    rate: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    state: Float[Tensor, "B D N"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """As `memory.kernels.selective_scan.selective_scan`; all of one type."""
    rows, steps, channels = size.shape
    numbers = rate.shape[-1]
    require_shapes(
        u=(u, (rows, steps, channels)),
        rate=(rate, (channels, numbers)),
        b=(b, (rows, steps, numbers)),
        c=(c, (rows, steps, numbers)),
        state=(state, (rows, channels, numbers)),
        reset=(reset, (rows, steps)),
    )
    # Whether an input needs a gradient is not known where functions are transformed.
    learns = torch.is_grad_enabled()
    y, after, _ = _forward(size, u, rate, b, c, state, reset, learns)
    return y, after


@compiled()
@no_type_check
def _step(h, size, written, rate, b, c, decay, y):
    """The state after it, in place; `decay` and y on the way."""
    y[:] = 0
    for n in range(len(b)):
        bn, cn, hn, rate_n, decay_n = b[n], c[n], h[n], rate[n], decay[n]
        for d in range(len(y)):
            decay_n[d] = exp(-size[d] * rate_n[d])
        for d in range(len(y)):
            new = decay_n[d] * hn[d] + written[d] * bn
            hn[d] = new
            y[d] += cn * new


@compiled()
@no_type_check
def _forwards(first, last, blocks, size, u, rate, b, c, before, reset, y, after, states):
    _, steps, channels = size.shape
    numbers = rate.shape[1]
    wide = min(CHANNELS, channels)
    h, rates, decay = np.empty((numbers, wide), _F), np.empty((numbers, wide), _F), np.empty((numbers, wide), _F)
    written = np.empty(wide, _F)
    for part in range(first, last):
        row, start = part // blocks, part % blocks * CHANNELS
        count = min(CHANNELS, channels - start)
        for d in range(count):
            for n in range(numbers):
                h[n, d], rates[n, d] = before[row, start + d, n], rate[start + d, n]
        for t in range(steps):
            if states.shape[1] and t % CHUNK == 0:
                for n in range(numbers):
                    for d in range(count):
                        states[row, t // CHUNK, n, start + d] = h[n, d]
            if reset[row, t]:
                h[:] = 0
            sizes, us = size[row, t, start : start + count], u[row, t, start : start + count]
            for d in range(count):
                written[d] = sizes[d] * us[d]
            _step(h, sizes, written, rates, b[row, t], c[row, t], decay, y[row, t, start : start + count])
        for d in range(count):
            for n in range(numbers):
                after[row, start + d, n] = h[n, d]


@compiled()
@no_type_check
def _step_back(before, size, written, rate, b, c, decay, to_y, to_h, to_b, to_c, to_written, to_size, to_rate, to_decay):
    """Gradients by one step, added to `to_rate` and, but for `to_h`, which becomes that in the state before, put into the others."""
    count = len(size)
    to_written[:] = 0
    to_size[:] = 0
    for n in range(len(b)):
        bn, cn, to_hn = b[n], c[n], to_h[n]
        before_n, decay_n, rate_n, to_rate_n = before[n], decay[n], rate[n], to_rate[n]
        by_b, by_c = _F(0), _F(0)
        for d in range(count):
            grown = to_hn[d] + cn * to_y[d]
            to_hn[d] = grown
            to_written[d] += bn * grown
        for d in range(count):
            by_b += to_hn[d] * written[d]
            by_c += to_y[d] * (decay_n[d] * before_n[d] + written[d] * bn)
        to_b[n], to_c[n] = by_b, by_c
        for d in range(count):
            to_hn[d] *= decay_n[d]
            to_decay[d] = to_hn[d] * before_n[d]
        for d in range(count):
            to_size[d] -= rate_n[d] * to_decay[d]
            to_rate_n[d] -= size[d] * to_decay[d]


@compiled()
@no_type_check
def _backwards(
    first, last, blocks, size, u, rate, b, c, reset, states, grad_y, grad_after, grad_size, grad_u, grad_rate, grad_b, grad_c, grad_state
):
    _, steps, channels = size.shape
    numbers = rate.shape[1]
    wide = min(CHANNELS, channels)
    kept, decays = np.empty((CHUNK + 1, numbers, wide), _F), np.empty((CHUNK, numbers, wide), _F)
    rates, to_h, to_rate = np.empty((numbers, wide), _F), np.empty((numbers, wide), _F), np.empty((numbers, wide), _F)
    written, to_written, to_size = np.empty((CHUNK, wide), _F), np.empty(wide, _F), np.empty(wide, _F)
    to_decay, y = np.empty(wide, _F), np.empty(wide, _F)
    for part in range(first, last):
        row, block = part // blocks, part % blocks
        start = block * CHANNELS
        count = min(CHANNELS, channels - start)
        there = slice(start, start + count)
        for d in range(count):
            for n in range(numbers):
                rates[n, d], to_h[n, d] = rate[start + d, n], grad_after[row, start + d, n]
        to_rate[:] = 0
        for chunk in range(states.shape[1] - 1, -1, -1):
            begin = chunk * CHUNK
            many = min(CHUNK, steps - begin)
            for n in range(numbers):
                for d in range(count):
                    kept[0, n, d] = states[row, chunk, n, start + d]
            for i in range(many):
                t = begin + i
                if reset[row, t]:
                    kept[i] = 0
                for n in range(numbers):
                    for d in range(count):
                        kept[i + 1, n, d] = kept[i, n, d]
                sizes, us = size[row, t, there], u[row, t, there]
                for d in range(count):
                    written[i, d] = sizes[d] * us[d]
                _step(kept[i + 1], sizes, written[i], rates, b[row, t], c[row, t], decays[i], y[:count])
            for i in range(many - 1, -1, -1):
                t = begin + i
                sizes, us = size[row, t, there], u[row, t, there]
                _step_back(
                    kept[i],
                    sizes,
                    written[i],
                    rates,
                    b[row, t],
                    c[row, t],
                    decays[i],
                    grad_y[row, t, there],
                    to_h,
                    grad_b[block, row, t],
                    grad_c[block, row, t],
                    to_written,
                    to_size,
                    to_rate,
                    to_decay,
                )
                to_sizes, to_us = grad_size[row, t, there], grad_u[row, t, there]
                for d in range(count):
                    to_sizes[d] = to_size[d] + to_written[d] * us[d]
                    to_us[d] = to_written[d] * sizes[d]
                if reset[row, t]:
                    to_h[:] = 0
        for d in range(count):
            for n in range(numbers):
                grad_rate[row, start + d, n], grad_state[row, start + d, n] = to_rate[n, d], to_h[n, d]


@torch.library.custom_op(
    "coterie::selective_scan",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor size, Tensor u, Tensor rate, Tensor b, Tensor c, Tensor state, Tensor reset, bool learns) -> (Tensor, Tensor, Tensor)",
)
def _forward(
    size: Tensor, u: Tensor, rate: Tensor, b: Tensor, c: Tensor, state: Tensor, reset: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y_1..y_T, h_T and, for the way back, the states before every `CHUNK`th step, [B, M, N, D]."""
    results = _shapes(size, state, learns)
    _work(_forwards, size, state, (size, u, rate, b, c, state, reset, *results))
    return results


@torch.library.custom_op(
    "coterie::selective_scan_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor size, Tensor u, Tensor rate, Tensor b, Tensor c, Tensor reset, Tensor states, Tensor grad_y, Tensor grad_after)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    size: Tensor, u: Tensor, rate: Tensor, b: Tensor, c: Tensor, reset: Tensor, states: Tensor, grad_y: Tensor, grad_after: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients in size, u, rate, b, c and state."""
    grad_rate, grad_state = (size.new_empty(grad_after.shape) for _ in range(2))
    # Each block of channels has its own sum.
    grad_b, grad_c = (size.new_empty(_blocks(size), *b.shape) for _ in range(2))
    results = (size.new_empty(size.shape), size.new_empty(size.shape), grad_rate, grad_b, grad_c, grad_state)
    _work(_backwards, size, grad_after, (size, u, rate, b, c, reset, states, grad_y, grad_after, *results))
    return *results[:2], grad_rate.sum(0), grad_b.sum(0), grad_c.sum(0), grad_state


def _work(function: Any, size: Tensor, state: Tensor, tensors: tuple[Tensor, ...]) -> None:
    """Calls the function for some rows and blocks of channels on each thread."""
    blocks = _blocks(size)
    arrays = (x.detach().contiguous().numpy() for x in tensors)
    threads = None if state.numel() * size.shape[1] > _ALONE else 1
    in_threads(function, len(size) * blocks, blocks, *arrays, threads=threads)


def _blocks(size: Tensor) -> int:
    return -(-size.shape[2] // CHANNELS)


@_forward.register_fake
def _(
    size: Tensor, u: Tensor, rate: Tensor, b: Tensor, c: Tensor, state: Tensor, reset: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _shapes(size, state, learns)


@_backward.register_fake
def _(
    size: Tensor, u: Tensor, rate: Tensor, b: Tensor, c: Tensor, reset: Tensor, states: Tensor, grad_y: Tensor, grad_after: Tensor
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (size, u, rate, b, c, grad_after))


def _shapes(size: Tensor, state: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, steps, channels = size.shape
    states = size.new_empty(rows, -(-steps // CHUNK) if learns else 0, state.shape[2], channels)
    return size.new_empty(size.shape), state.new_empty(state.shape), states


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, states = output
    ctx.save_for_backward(*inputs[:5], inputs[6], states)
    ctx.shape = inputs[5].shape
    ctx.mark_non_differentiable(states)
    # Zeros for the gradient in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_y: Tensor | None, grad_after: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    size, *_ = kept = ctx.saved_tensors
    grad_y = torch.zeros_like(size) if grad_y is None else grad_y
    grad_after = size.new_zeros(ctx.shape) if grad_after is None else grad_after
    return *_backward(*kept, grad_y, grad_after), None, None


_forward.register_autograd(_gradients, setup_context=_keep)
