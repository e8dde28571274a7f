"""`memory.gru.gru_sequence` in Triton: one program per block of rows, which stays for all steps and computes all columns of the state.

Rows are strangers to each other, so programs never wait for one another. The recurrent weights fit no multiprocessor's registers; they
come tile by tile from the cache that all share. A block's state goes through global memory from step to step: a program's threads each hold
parts of it, and the next step needs all of it. Hence the barriers. One step, for acting, is the same program.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

# Above this, every step reads more weights than a large batched matrix product would.
WIDEST = 512


def refused(hidden: Float[Tensor, "B D"]) -> str | None:
    """Why the kernel does not take a state like this; None if it does."""
    if hidden.dtype != torch.float32:
        return f"its state is {hidden.dtype}; want torch.float32"
    if hidden.shape[1] > WIDEST:
        return f"its width is {hidden.shape[1]}; want at most {WIDEST}"
    return None


def tiles(rows: int, width: int) -> dict[str, Any]:
    """A program's blocks and warps: small blocks of rows until these fill the 132 multiprocessors of a Hopper GPU."""
    block = 16 if rows <= 2048 else 32 if rows <= 4096 else 64
    columns = min(64, max(16, triton.next_power_of_2(width)))
    # As exact as PyTorch's own products are set to be; three products of tf32 make up one of single precision, to a few last bits.
    precision = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return {"ROWS": block, "COLUMNS": columns, "DEPTH": min(32, columns), "PRECISION": precision, "num_warps": 4 if block == 16 else 8}


def gru_sequence(
    gates: Float[Tensor, "T B G"],
    hidden: Float[Tensor, "B D"],
    reset: Bool[Tensor, "T B"],
    weight: Float[Tensor, "G D"],
    candidate_bias: Float[Tensor, "D"],
) -> Float[Tensor, "T B D"]:
    """As `memory.gru.gru_sequence`; all of one type."""
    # Whether an input needs a gradient is not known where functions are transformed.
    states: Tensor = _forward(gates, hidden, reset, weight, candidate_bias, torch.is_grad_enabled())[0]
    return states[1:]


@no_type_check
@triton.jit
def tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@no_type_check
@triton.jit
def _forward_kernel(
    gates_in,
    reset_in,
    weight_in,
    bias_in,
    states,
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
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for t in range(steps):
        at = (t * rows + row).to(tl.int64)[:, None]
        keeps = (row < rows) & (tl.load(reset_in + t * rows + row, row < rows, 1) == 0)
        for first in range(0, D, COLUMNS):
            r = tl.zeros([ROWS, COLUMNS], tl.float32)
            z = tl.zeros([ROWS, COLUMNS], tl.float32)
            u = tl.zeros([ROWS, COLUMNS], tl.float32)
            n = first + tl.arange(0, COLUMNS)
            for depth in range(0, D, DEPTH):
                k = depth + tl.arange(0, DEPTH)
                before = tl.load(states + at * D + k[None, :], keeps[:, None] & (k < D)[None, :], 0.0)
                w = weight_in + n[None, :] * D + k[:, None]
                there = (n < D)[None, :] & (k < D)[:, None]
                r = tl.dot(before, tl.load(w, there, 0.0), r, input_precision=PRECISION)
                z = tl.dot(before, tl.load(w + D * D, there, 0.0), z, input_precision=PRECISION)
                u = tl.dot(before, tl.load(w + 2 * D * D, there, 0.0), u, input_precision=PRECISION)
            inside = (row < rows)[:, None] & (n < D)[None, :]
            gate = gates_in + at * (3 * D) + n[None, :]
            r = tl.sigmoid(r + tl.load(gate, inside, 0.0))
            z = tl.sigmoid(z + tl.load(gate + D, inside, 0.0))
            u += tl.load(bias_in + n, n < D, 0.0)[None, :]
            candidate = tanh(tl.load(gate + 2 * D, inside, 0.0) + r * u)
            before = tl.load(states + at * D + n[None, :], inside & keeps[:, None], 0.0)
            tl.store(states + (at + rows) * D + n[None, :], candidate + z * (before - candidate), inside)
            if LEARNS:
                kept = kept_out + at * (4 * D) + n[None, :]
                tl.store(kept, r, inside)
                tl.store(kept + D, z, inside)
                tl.store(kept + 2 * D, candidate, inside)
                tl.store(kept + 3 * D, u, inside)
        # All columns of h_t are written before any thread goes on to read them.
        tl.debug_barrier()


@no_type_check
@triton.jit
def _backward_kernel(
    reset_in,
    weight_in,
    states,
    kept_in,
    grad_in,
    grad_gates_out,
    grad_u_out,
    grad_hidden,
    grad_kept,
    rows,
    steps,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """grad_hidden comes in as zeros and is the gradient in h_{t-1} after each step back, save what grad_in says of it directly.

    grad_kept, [B, D] too, is its share through z. Nothing is read and written between the same two barriers: which thread holds which
    number is the compiler's choice, at every load and store anew.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for i in range(steps):
        t = steps - 1 - i
        at = (t * rows + row).to(tl.int64)[:, None]
        keeps = (row < rows) & (tl.load(reset_in + t * rows + row, row < rows, 1) == 0)
        for first in range(0, D, COLUMNS):
            n = first + tl.arange(0, COLUMNS)
            inside = (row < rows)[:, None] & (n < D)[None, :]
            kept = kept_in + at * (4 * D) + n[None, :]
            r = tl.load(kept, inside, 0.0)
            z = tl.load(kept + D, inside, 0.0)
            candidate = tl.load(kept + 2 * D, inside, 0.0)
            u = tl.load(kept + 3 * D, inside, 0.0)
            before = tl.load(states + at * D + n[None, :], inside & keeps[:, None], 0.0)
            place = row.to(tl.int64)[:, None] * D + n[None, :]
            grad = tl.load(grad_hidden + place, inside, 0.0) + tl.load(grad_in + (at + rows) * D + n[None, :], inside, 0.0)
            # d h / d n = 1 - z and d h / d z = h_{t-1} - n, each through its tanh or sigmoid.
            grad_n = grad * (1.0 - z) * (1.0 - candidate * candidate)
            to_gate = grad_gates_out + at * (3 * D) + n[None, :]
            tl.store(to_gate, grad_n * u * r * (1.0 - r), inside)
            tl.store(to_gate + D, grad * (before - candidate) * z * (1.0 - z), inside)
            tl.store(to_gate + 2 * D, grad_n, inside)
            tl.store(grad_u_out + at * D + n[None, :], grad_n * r, inside)
            tl.store(grad_kept + place, grad * z, inside)
        tl.debug_barrier()
        for first in range(0, D, COLUMNS):
            n = first + tl.arange(0, COLUMNS)
            inside = (row < rows)[:, None] & (n < D)[None, :]
            place = row.to(tl.int64)[:, None] * D + n[None, :]
            total = tl.load(grad_kept + place, inside, 0.0)
            for depth in range(0, D, DEPTH):
                k = depth + tl.arange(0, DEPTH)
                known = keeps[:, None] & (k < D)[None, :]
                to_gate = grad_gates_out + at * (3 * D) + k[None, :]
                w = weight_in + k[:, None] * D + n[None, :]
                there = (k < D)[:, None] & (n < D)[None, :]
                total = tl.dot(tl.load(to_gate, known, 0.0), tl.load(w, there, 0.0), total, input_precision=PRECISION)
                total = tl.dot(tl.load(to_gate + D, known, 0.0), tl.load(w + D * D, there, 0.0), total, input_precision=PRECISION)
                to_u = tl.load(grad_u_out + at * D + k[None, :], known, 0.0)
                total = tl.dot(to_u, tl.load(w + 2 * D * D, there, 0.0), total, input_precision=PRECISION)
            tl.store(grad_hidden + place, tl.where(keeps[:, None], total, 0.0), inside)
        tl.debug_barrier()


@torch.library.custom_op(
    "coterie::gru",
    mutates_args=(),
    schema="(Tensor gates, Tensor hidden, Tensor reset, Tensor weight, Tensor bias, bool learns) -> (Tensor, Tensor)",
)
def _forward(gates: Tensor, hidden: Tensor, reset: Tensor, weight: Tensor, bias: Tensor, learns: bool) -> tuple[Tensor, Tensor]:
    """States h_0..h_T and, for the way back, r, z, n and U_n h + c_n side by side, [T, B, 4 D]."""
    states, kept = _shapes(gates, hidden, learns)
    (steps, rows, _), width = gates.shape, hidden.shape[1]
    states[0] = hidden
    if rows:
        settings = tiles(rows, width)
        inputs = (x.contiguous() for x in (gates, reset, weight, bias))
        _forward_kernel[(triton.cdiv(rows, settings["ROWS"]),)](*inputs, states, kept, rows, steps, D=width, LEARNS=learns, **settings)
    return states, kept


@torch.library.custom_op(
    "coterie::gru_backward",
    mutates_args=(),
    schema="(Tensor states, Tensor kept, Tensor reset, Tensor weight, Tensor grad) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward(states: Tensor, kept: Tensor, reset: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in gates, hidden, weight and bias."""
    (steps, rows, _), width = kept.shape, states.shape[2]
    grad_gates, grad_u = kept.new_empty(steps, rows, 3 * width), kept.new_empty(steps, rows, width)
    grad_hidden, grad_kept = states.new_zeros(rows, width), states.new_empty(rows, width)
    if rows:
        settings = tiles(rows, width)
        inputs = (x.contiguous() for x in (reset, weight, states, kept, grad))
        outputs = grad_gates, grad_u, grad_hidden, grad_kept
        _backward_kernel[(triton.cdiv(rows, settings["ROWS"]),)](*inputs, *outputs, rows, steps, D=width, **settings)
    before = states[:-1].masked_fill(reset[:, :, None], 0.0).flatten(0, 1)
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    torch.mm(grad_gates.flatten(0, 1)[:, : 2 * width].T, before, out=grad_weight[: 2 * width])
    torch.mm(grad_u.flatten(0, 1).T, before, out=grad_weight[2 * width :])
    return grad_gates, grad_hidden + grad[0], grad_weight, grad_u.sum((0, 1))


@_forward.register_fake
def _(gates: Tensor, hidden: Tensor, reset: Tensor, weight: Tensor, bias: Tensor, learns: bool) -> tuple[Tensor, Tensor]:
    return _shapes(gates, hidden, learns)


@_backward.register_fake
def _(states: Tensor, kept: Tensor, reset: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (steps, rows, _), width = kept.shape, states.shape[2]
    new = states.new_empty
    return new(steps, rows, 3 * width), new(rows, width), new(weight.shape), new(width)


def _shapes(gates: Tensor, hidden: Tensor, learns: bool) -> tuple[Tensor, Tensor]:
    (steps, rows, _), width = gates.shape, hidden.shape[1]
    return gates.new_empty(steps + 1, rows, width), gates.new_empty(steps if learns else 0, rows, 4 * width)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, reset, weight, _, _ = inputs
    ctx.save_for_backward(*output, reset, weight)
    ctx.mark_non_differentiable(output[1])
    # Zeros for the gradient in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor, grad_kept: None) -> tuple[Tensor | None, ...]:
    grad_gates, grad_hidden, grad_weight, grad_bias = _backward(*ctx.saved_tensors, grad)
    return grad_gates, grad_hidden, None, grad_weight, grad_bias, None


_forward.register_autograd(_gradients, setup_context=_keep)
