"""`memory.lstm.lstm_sequence` in Triton, in the way of `memory.kernels.gru_triton`: a program holds a block of rows for all steps."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels import gru_triton
from memory.kernels.gru_triton import tanh, tiles


def refused(hidden: Float[Tensor, "B D"]) -> str | None:
    """Why the kernel does not take a state like this; None if it does."""
    return gru_triton.refused(hidden)


def lstm_sequence(
    gates: Float[Tensor, "T B G"],
    hidden: Float[Tensor, "B D"],
    cell: Float[Tensor, "B D"],
    reset: Bool[Tensor, "T B"],
    weight: Float[Tensor, "G D"],
) -> tuple[Float[Tensor, "T B D"], Float[Tensor, "B D"]]:
    """As `memory.lstm.lstm_sequence`; all of one type."""
    # Whether an input needs a gradient is not known where functions are transformed.
    states, last_cell, _, _ = _forward(gates, hidden, cell, reset, weight, torch.is_grad_enabled())
    return states[1:], last_cell


@no_type_check
@triton.jit
def _forward_kernel(
    gates_in,
    reset_in,
    weight_in,
    states,
    cells,
    kept_out,
    rows,
    steps,
    D: tl.constexpr,
    LEARNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Without LEARNS there are two places for cells, [2, B, D], of which a step reads one and writes the other."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for t in range(steps):
        at = (t * rows + row).to(tl.int64)[:, None]
        keeps = (row < rows) & (tl.load(reset_in + t * rows + row, row < rows, 1) == 0)
        for first in range(0, D, COLUMNS):
            i = tl.zeros([ROWS, COLUMNS], tl.float32)
            f = tl.zeros([ROWS, COLUMNS], tl.float32)
            o = tl.zeros([ROWS, COLUMNS], tl.float32)
            g = tl.zeros([ROWS, COLUMNS], tl.float32)
            n = first + tl.arange(0, COLUMNS)
            for depth in range(0, D, DEPTH):
                k = depth + tl.arange(0, DEPTH)
                before = tl.load(states + at * D + k[None, :], keeps[:, None] & (k < D)[None, :], 0.0)
                w = weight_in + n[None, :] * D + k[:, None]
                there = (n < D)[None, :] & (k < D)[:, None]
                i = tl.dot(before, tl.load(w, there, 0.0), i, input_precision=PRECISION)
                f = tl.dot(before, tl.load(w + D * D, there, 0.0), f, input_precision=PRECISION)
                o = tl.dot(before, tl.load(w + 2 * D * D, there, 0.0), o, input_precision=PRECISION)
                g = tl.dot(before, tl.load(w + 3 * D * D, there, 0.0), g, input_precision=PRECISION)
            inside = (row < rows)[:, None] & (n < D)[None, :]
            gate = gates_in + at * (4 * D) + n[None, :]
            i = tl.sigmoid(i + tl.load(gate, inside, 0.0))
            f = tl.sigmoid(f + tl.load(gate + D, inside, 0.0))
            o = tl.sigmoid(o + tl.load(gate + 2 * D, inside, 0.0))
            g = tanh(g + tl.load(gate + 3 * D, inside, 0.0))
            cell_from = at if LEARNS else (t % 2 * rows + row).to(tl.int64)[:, None]
            cell_to = at + rows if LEARNS else ((t + 1) % 2 * rows + row).to(tl.int64)[:, None]
            cell = f * tl.load(cells + cell_from * D + n[None, :], inside & keeps[:, None], 0.0) + i * g
            tl.store(cells + cell_to * D + n[None, :], cell, inside)
            tl.store(states + (at + rows) * D + n[None, :], o * tanh(cell), inside)
            if LEARNS:
                kept = kept_out + at * (4 * D) + n[None, :]
                tl.store(kept, i, inside)
                tl.store(kept + D, f, inside)
                tl.store(kept + 2 * D, o, inside)
                tl.store(kept + 3 * D, g, inside)
        # All columns of h_t are written before any thread goes on to read them.
        tl.debug_barrier()


@no_type_check
@triton.jit
def _backward_kernel(
    reset_in,
    weight_in,
    cells,
    kept_in,
    grad_in,
    grad_gates_out,
    grad_hidden,
    grad_cell,
    rows,
    steps,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """grad_hidden comes in as zeros and is the gradient in h_{t-1} after each step back, save what grad_in says of it directly. That in c_t
    is grad_cell[t % 2], [2, B, D] in all: nothing is read and written between the same two barriers, as in the GRU's."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for back in range(steps):
        t = steps - 1 - back
        at = (t * rows + row).to(tl.int64)[:, None]
        keeps = (row < rows) & (tl.load(reset_in + t * rows + row, row < rows, 1) == 0)
        for first in range(0, D, COLUMNS):
            n = first + tl.arange(0, COLUMNS)
            inside = (row < rows)[:, None] & (n < D)[None, :]
            kept = kept_in + at * (4 * D) + n[None, :]
            i = tl.load(kept, inside, 0.0)
            f = tl.load(kept + D, inside, 0.0)
            o = tl.load(kept + 2 * D, inside, 0.0)
            g = tl.load(kept + 3 * D, inside, 0.0)
            before = tl.load(cells + at * D + n[None, :], inside & keeps[:, None], 0.0)
            squashed = tanh(tl.load(cells + (at + rows) * D + n[None, :], inside, 0.0))
            place = row.to(tl.int64)[:, None] * D + n[None, :]
            to_hidden = tl.load(grad_hidden + place, inside, 0.0) + tl.load(grad_in + (at + rows) * D + n[None, :], inside, 0.0)
            to_cell = tl.load(grad_cell + (t + 1) % 2 * rows * D + place, inside, 0.0) + to_hidden * o * (1.0 - squashed * squashed)
            to_gate = grad_gates_out + at * (4 * D) + n[None, :]
            tl.store(to_gate, to_cell * g * i * (1.0 - i), inside)
            tl.store(to_gate + D, to_cell * before * f * (1.0 - f), inside)
            tl.store(to_gate + 2 * D, to_hidden * squashed * o * (1.0 - o), inside)
            tl.store(to_gate + 3 * D, to_cell * i * (1.0 - g * g), inside)
            tl.store(grad_cell + t % 2 * rows * D + place, tl.where(keeps[:, None], to_cell * f, 0.0), inside)
        tl.debug_barrier()
        for first in range(0, D, COLUMNS):
            n = first + tl.arange(0, COLUMNS)
            total = tl.zeros([ROWS, COLUMNS], tl.float32)
            # All four gates at once: the weights [4 D, D] and the gates' gradients lie in the same order.
            for depth in range(0, 4 * D, DEPTH):
                k = depth + tl.arange(0, DEPTH)
                to_gate = tl.load(grad_gates_out + at * (4 * D) + k[None, :], keeps[:, None] & (k < 4 * D)[None, :], 0.0)
                w = tl.load(weight_in + k[:, None] * D + n[None, :], (k < 4 * D)[:, None] & (n < D)[None, :], 0.0)
                total = tl.dot(to_gate, w, total, input_precision=PRECISION)
            place = row.to(tl.int64)[:, None] * D + n[None, :]
            tl.store(grad_hidden + place, total, (row < rows)[:, None] & (n < D)[None, :])
        tl.debug_barrier()


@torch.library.custom_op(
    "coterie::lstm",
    mutates_args=(),
    schema="(Tensor gates, Tensor hidden, Tensor cell, Tensor reset, Tensor weight, bool learns) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    gates: Tensor, hidden: Tensor, cell: Tensor, reset: Tensor, weight: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States h_0..h_T, c_T and, for the way back, c_0..c_T, and i, f, o and g side by side, [T, B, 4 D]."""
    states, _, cells, kept = _shapes(gates, hidden, learns)
    (steps, rows, _), width = gates.shape, hidden.shape[1]
    states[0], cells[0] = hidden, cell
    if rows:
        settings = tiles(rows, width)
        inputs = (x.contiguous() for x in (gates, reset, weight))
        grid = (triton.cdiv(rows, settings["ROWS"]),)
        _forward_kernel[grid](*inputs, states, cells, kept, rows, steps, D=width, LEARNS=learns, **settings)
    return states, cells[steps if learns else steps % 2].clone(), cells, kept


@torch.library.custom_op(
    "coterie::lstm_backward",
    mutates_args=(),
    schema="(Tensor states, Tensor cells, Tensor kept, Tensor reset, Tensor weight, Tensor grad, Tensor? grad_last)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    states: Tensor, cells: Tensor, kept: Tensor, reset: Tensor, weight: Tensor, grad: Tensor, grad_last: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in gates, hidden, cell and weight, from those in all states and in the last cell."""
    (steps, rows, _), width = kept.shape, states.shape[2]
    grad_gates = torch.empty_like(kept)
    grad_hidden, grad_cell = states.new_zeros(rows, width), states.new_zeros(2, rows, width)
    if grad_last is not None:
        grad_cell[steps % 2] = grad_last
    if rows:
        settings = tiles(rows, width)
        inputs = (x.contiguous() for x in (reset, weight, cells, kept, grad))
        grid = (triton.cdiv(rows, settings["ROWS"]),)
        _backward_kernel[grid](*inputs, grad_gates, grad_hidden, grad_cell, rows, steps, D=width, **settings)
    before = states[:-1].masked_fill(reset[:, :, None], 0.0).flatten(0, 1)
    return grad_gates, grad_hidden + grad[0], grad_cell[0].clone(), grad_gates.flatten(0, 1).T @ before


@_forward.register_fake
def _(gates: Tensor, hidden: Tensor, cell: Tensor, reset: Tensor, weight: Tensor, learns: bool) -> tuple[Tensor, ...]:
    return _shapes(gates, hidden, learns)


@_backward.register_fake
def _(
    states: Tensor, cells: Tensor, kept: Tensor, reset: Tensor, weight: Tensor, grad: Tensor, grad_last: Tensor | None
) -> tuple[Tensor, ...]:
    state = states.shape[1:]
    return torch.empty_like(kept), states.new_empty(state), states.new_empty(state), states.new_empty(weight.shape)


def _shapes(gates: Tensor, hidden: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (steps, rows, _), width = gates.shape, hidden.shape[1]
    states, last_cell = gates.new_empty(steps + 1, rows, width), gates.new_empty(rows, width)
    cells = gates.new_empty(steps + 1 if learns else 2, rows, width)
    return states, last_cell, cells, gates.new_empty(steps if learns else 0, rows, 4 * width)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, _, reset, weight, _ = inputs
    states, _, cells, kept = output
    ctx.save_for_backward(states, cells, kept, reset, weight)
    ctx.mark_non_differentiable(cells, kept)
    # Zeros for the gradient in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, grad_last: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    states, *others = ctx.saved_tensors
    grad = torch.zeros_like(states) if grad is None else grad
    grad_gates, grad_hidden, grad_cell, grad_weight = _backward(states, *others, grad, grad_last)
    return grad_gates, grad_hidden, grad_cell, None, grad_weight, None


_forward.register_autograd(_gradients, setup_context=_keep)
