"""The recurrences of `memory.pararnn` on a CPU: a row at a time, step after step, compiled by Numba.

In order every step is computed once, and not once per iteration of Newton's method; units lie side by side, so that vectors of them go
through everything, gates included. The way back, in the symbols of `memory.pararnn`, computes each step's gates anew from the states, which
are the result. With h and s the state before a step, G_h and G_s the gradients in the one after it, and u_g that in what enters gate g:

    ParaGRU   u_h = G_h z (1 - c^2),    u_r = u_h a_h h r (1 - r),    u_z = G_h (c - h) z (1 - z)
              dh = G_h (1 - z) + u_h a_h r + u_r a_r + u_z a_z,    da_h = u_h h r,    da_r = u_r h,    da_z = u_z h
    ParaLSTM  u_o = G_h tanh(s_t) o (1 - o),    D = G_s + G_h o (1 - tanh(s_t)^2) + u_o p_o
              u_n = D (1 - f) (1 - n^2),    u_f = D (s - n) f (1 - f),    dh = u_o a_o + u_n a_n + u_f a_f,    ds = D f + u_f p_f
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels.compiled import AS_WRITTEN, compiled, require_shapes
from memory.kernels.exponential_numba import sigmoid, tanh
from memory.kernels.threads import in_threads

# Numbers of gates, below which starting a thread costs more than it saves.
_ALONE = 1 << 16

_F = np.float32
_1 = _F(1)


def refused(units: Float[Tensor, "B N D"], gates: Float[Tensor, "B T 3 D"], recurrence: Float[Tensor, "W D"]) -> str | None:
    """Why the kernel does not take states, gates and recurrent weights like these; None if it does."""
    for name, side in (("state", units), ("gates", gates), ("recurrence", recurrence)):
        if side.dtype != torch.float32:
            return f"its {name} is {side.dtype}; want torch.float32"
    return None


def recur(
    gates: Float[Tensor, "B T 3 D"], weights: Float[Tensor, "W D"], first: Float[Tensor, "B N D"], reset: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T N D"]:
    """All states. gates: z, r, h or f, n, o, the inputs' share. weights: a_z, a_r, a_h where N is 1, a_f, a_n, a_o, p_f, p_o where it is 2.

    Differentiable once, by going back.
    """
    rows, steps, _, width = gates.shape
    carried = first.shape[1]
    require_shapes(
        gates=(gates, (rows, steps, 3, width)),
        weights=(weights, (3 if carried == 1 else 5, width)),
        first=(first, (rows, 1 if carried == 1 else 2, width)),
        reset=(reset, (rows, steps)),
    )
    units: Tensor = _forward(gates, weights, first, reset)
    return units


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _gru(x_z, x_r, x_h, a_z, a_r, a_h, h, z, r, c):
    """The gates of a step."""
    for d in range(len(h)):
        z[d] = sigmoid(a_z[d] * h[d] + x_z[d])
        r[d] = sigmoid(a_r[d] * h[d] + x_r[d])
    for d in range(len(h)):
        c[d] = tanh(a_h[d] * (h[d] * r[d]) + x_h[d])


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _lstm(x_f, x_n, x_o, a_f, a_n, a_o, p_f, p_o, h, s, f, n, o, cell, shown):
    """The gates of a step, the cell after it, and what is shown of that."""
    for d in range(len(h)):
        f[d] = sigmoid(a_f[d] * h[d] + p_f[d] * s[d] + x_f[d])
        n[d] = tanh(a_n[d] * h[d] + x_n[d])
    for d in range(len(h)):
        cell[d] = n[d] + f[d] * (s[d] - n[d])
        shown[d] = tanh(cell[d])
    for d in range(len(h)):
        o[d] = sigmoid(a_o[d] * h[d] + p_o[d] * cell[d] + x_o[d])


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _forwards(begin, end, gates, weights, first, reset, units):
    carried, width = first.shape[1:]
    nothing, parts = np.zeros((carried, width), _F), np.empty((4, width), _F)
    for row in range(begin, end):
        for t in range(gates.shape[1]):
            before = nothing if reset[row, t] else first[row] if t == 0 else units[row, t - 1]
            x, after, h = gates[row, t], units[row, t, 0], before[0]
            if carried == 1:
                z, _, c = parts[0], parts[1], parts[2]
                _gru(x[0], x[1], x[2], weights[0], weights[1], weights[2], h, z, parts[1], c)
                for d in range(width):
                    after[d] = z[d] * c[d] + (_1 - z[d]) * h[d]
            else:
                o, shown = parts[2], parts[3]
                _lstm(
                    x[0], x[1], x[2], weights[0], weights[1], weights[2], weights[3], weights[4], h, before[1],
                    parts[0], parts[1], o, units[row, t, 1], shown,
                )  # fmt: skip
                for d in range(width):
                    after[d] = o[d] * shown[d]


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _gru_back(a_z, a_r, a_h, h, z, r, c, to_h, u_z, u_r, u_h):
    """to_h: the gradient in the state after the step, which becomes that in the one before."""
    for d in range(len(h)):
        grad = to_h[d]
        candidate = grad * z[d] * (_1 - c[d] * c[d])
        by_reset = candidate * a_h[d]
        reset = by_reset * h[d] * r[d] * (_1 - r[d])
        kept = grad * (c[d] - h[d]) * z[d] * (_1 - z[d])
        u_z[d], u_r[d], u_h[d] = kept, reset, candidate
        to_h[d] = grad * (_1 - z[d]) + by_reset * r[d] + reset * a_r[d] + kept * a_z[d]


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _lstm_back(a_f, a_n, a_o, p_f, p_o, s, f, n, o, shown, to_h, to_s, u_f, u_n, u_o):
    """As `_gru_back`; to_s is the cell's."""
    for d in range(len(s)):
        grad = to_h[d]
        shows = grad * shown[d] * o[d] * (_1 - o[d])
        by_cell = to_s[d] + grad * o[d] * (_1 - shown[d] * shown[d]) + shows * p_o[d]
        new = by_cell * (_1 - f[d]) * (_1 - n[d] * n[d])
        kept = by_cell * (s[d] - n[d]) * f[d] * (_1 - f[d])
        u_f[d], u_n[d], u_o[d] = kept, new, shows
        to_h[d] = shows * a_o[d] + new * a_n[d] + kept * a_f[d]
        to_s[d] = by_cell * f[d] + kept * p_f[d]


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _add_product(a, b, out):
    for d in range(len(out)):
        out[d] += a[d] * b[d]


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def _backwards(begin, end, gates, weights, first, reset, units, grad_units, grad_gates, grad_weights, grad_first):
    carried, width = first.shape[1:]
    nothing, parts = np.zeros((carried, width), _F), np.empty((5, width), _F)
    for row in range(begin, end):
        to_state, to_weights = grad_first[row], grad_weights[row]
        to_state[:] = 0
        to_weights[:] = 0
        for t in range(gates.shape[1] - 1, -1, -1):
            for n in range(carried):
                to_units, grads = to_state[n], grad_units[row, t, n]
                for d in range(width):
                    to_units[d] += grads[d]
            before = nothing if reset[row, t] else first[row] if t == 0 else units[row, t - 1]
            x, to_x, h = gates[row, t], grad_gates[row, t], before[0]
            if carried == 1:
                _gru(x[0], x[1], x[2], weights[0], weights[1], weights[2], h, parts[0], parts[1], parts[2])
                _gru_back(weights[0], weights[1], weights[2], h, parts[0], parts[1], parts[2], to_state[0], to_x[0], to_x[1], to_x[2])
                for d in range(width):
                    parts[1, d] *= h[d]
                _add_product(to_x[2], parts[1], to_weights[2])
            else:
                cell = units[row, t, 1]
                _lstm(
                    x[0], x[1], x[2], weights[0], weights[1], weights[2], weights[3], weights[4], h, before[1],
                    parts[0], parts[1], parts[2], parts[4], parts[3],
                )  # fmt: skip
                _lstm_back(
                    weights[0], weights[1], weights[2], weights[3], weights[4], before[1], parts[0], parts[1], parts[2], parts[3],
                    to_state[0], to_state[1], to_x[0], to_x[1], to_x[2],
                )  # fmt: skip
                _add_product(to_x[2], h, to_weights[2])
                _add_product(to_x[0], before[1], to_weights[3])
                _add_product(to_x[2], cell, to_weights[4])
            _add_product(to_x[0], h, to_weights[0])
            _add_product(to_x[1], h, to_weights[1])
            if reset[row, t]:
                to_state[:] = 0


@torch.library.custom_op(
    "coterie::pararnn",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor gates, Tensor weights, Tensor first, Tensor reset) -> Tensor",
)
def _forward(gates: Tensor, weights: Tensor, first: Tensor, reset: Tensor) -> Tensor:
    units = gates.new_empty(*gates.shape[:2], *first.shape[1:])
    _work(_forwards, gates, weights, first, reset, units)
    return units


@torch.library.custom_op(
    "coterie::pararnn_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor gates, Tensor weights, Tensor first, Tensor reset, Tensor units, Tensor grad) -> (Tensor, Tensor, Tensor)",
)
def _backward(gates: Tensor, weights: Tensor, first: Tensor, reset: Tensor, units: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in gates, weights and first."""
    # Each row has its own gradient in the weights.
    results = gates.new_empty(gates.shape), gates.new_empty(len(gates), *weights.shape), gates.new_empty(first.shape)
    _work(_backwards, gates, weights, first, reset, units, grad, *results)
    return results[0], results[1].sum(0), results[2]


def _work(function: Any, gates: Tensor, *others: Tensor) -> None:
    """Calls the function for some rows on each thread."""
    arrays = (x.detach().contiguous().numpy() for x in (gates, *others))
    in_threads(function, len(gates), *arrays, threads=None if gates.numel() > _ALONE else 1)


@_forward.register_fake
def _(gates: Tensor, weights: Tensor, first: Tensor, reset: Tensor) -> Tensor:
    return gates.new_empty(*gates.shape[:2], *first.shape[1:])


@_backward.register_fake
def _(gates: Tensor, weights: Tensor, first: Tensor, reset: Tensor, units: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return gates.new_empty(gates.shape), weights.new_empty(weights.shape), first.new_empty(first.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(*ctx.saved_tensors, grad), None


_forward.register_autograd(_gradients, setup_context=_keep)
