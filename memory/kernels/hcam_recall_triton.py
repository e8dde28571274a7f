"""The recall of hierarchical chunk attention in Triton: `memory.kernels.hcam_recall.recall`, one program per block of a row's steps.

A program goes through the choices of its steps and takes every distinct chunk once, for all steps and heads of the block: two matrix
products and a softmax, in which a step that did not choose the chunk has a weight of 0. So a chunk is read once per block and not once per
step and nothing is gathered. Acting is the same with blocks of one step. On the way back the attention is worked out anew from the
chunk at hand; nothing is kept between the two but the inputs.

`choose` stays PyTorch's own: its product is a plain one, its logits [B, T, M] are smaller than the queries by heads * width / M, and so
there is little to fuse.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

# How many numbers of queries, and at most of one chunk, a program holds: what fits a multiprocessor's registers and shared memory.
_QUERIES, _CHUNK = 2**13, 2**14


def refused(query: Float[Tensor, "B T H D"], contents: Float[Tensor, "B M C D"]) -> str | None:
    """Why the kernel does not take these; None if it does."""
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16) or contents.dtype != query.dtype:
        return f"{query.dtype} queries and {contents.dtype} contents; want one type of at most 32 bits"
    chunk = _padded(contents.shape[2]) * _padded(query.shape[3])
    if chunk > _CHUNK:
        return f"a chunk of {contents.shape[2]} steps of width {query.shape[3]} takes {chunk:,} numbers; want at most {_CHUNK:,}"
    queries = _heads(query.shape[2], 16) * _padded(query.shape[3])
    if queries > _QUERIES:
        return f"{query.shape[2]} heads of width {query.shape[3]} take {queries:,} numbers; want at most {_QUERIES:,}"
    return None


def recall(
    query: Float[Tensor, "B T H D"],
    contents: Float[Tensor, "B M C D"],
    chosen: Int64[Tensor, "B T K"],
    weights: Float[Tensor, "B T K"],
) -> Float[Tensor, "B T H D"]:
    """As the plain version: differentiable once, in query and weights. Single precision is as exact as PyTorch's matrix products are set
    to be (`torch.set_float32_matmul_precision`)."""
    read: Tensor = _forward(query, contents, chosen, weights)
    return read


@torch.library.custom_op(
    "coterie::hcam_recall", mutates_args=(), schema="(Tensor query, Tensor contents, Tensor chosen, Tensor weights) -> Tensor"
)
def _forward(query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    query, contents, chosen, weights = (side.contiguous() for side in (query, contents, chosen, weights))
    read = torch.empty_like(query)
    programs, settings = _settings(query, contents, chosen)
    _read[(programs,)](query, contents, chosen, weights, read, query.shape[1], contents.shape[1], **settings)
    return read


@torch.library.custom_op(
    "coterie::hcam_recall_backward",
    mutates_args=(),
    schema="(Tensor grad_read, Tensor query, Tensor contents, Tensor chosen, Tensor weights) -> (Tensor, Tensor)",
)
def _backward(grad_read: Tensor, query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    grad_read, query, contents, chosen, weights = (side.contiguous() for side in (grad_read, query, contents, chosen, weights))
    grad_query, grad_weights = torch.empty_like(query), torch.empty_like(weights)
    programs, settings = _settings(query, contents, chosen)
    sides = (grad_read, query, contents, chosen, weights, grad_query, grad_weights)
    _read_backward[(programs,)](*sides, query.shape[1], contents.shape[1], **settings)
    return grad_query, grad_weights


@_forward.register_fake
def _(query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(grad_read: Tensor, query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    kept = torch.contiguous_format
    return torch.empty_like(query, memory_format=kept), torch.empty_like(weights, memory_format=kept)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad_read: Tensor) -> tuple[Tensor | None, ...]:
    grad_query, grad_weights = _backward(grad_read, *ctx.saved_tensors)
    return grad_query, None, None, grad_weights


_forward.register_autograd(_gradients, setup_context=_keep)


def _padded(length: int) -> int:
    """A side of a matrix product: a power of two, at least 16."""
    return max(16, triton.next_power_of_2(length))


def _heads(heads: int, rows: int) -> int:
    """Heads of a step with padding, such that one step alone fills the fewest rows of a matrix product."""
    return max(triton.next_power_of_2(heads), rows)


def _settings(query: Tensor, contents: Tensor, chosen: Tensor) -> tuple[int, dict[str, Any]]:
    """How many programs, and the kernels' constants."""
    rows, steps, heads, width = query.shape
    width_padded = _padded(width)
    block = max(1, min(triton.next_power_of_2(steps), min(64, _QUERIES // width_padded) // triton.next_power_of_2(heads)))
    constants = {
        "HEADS": heads,
        "WIDTH": width,
        "LENGTH": contents.shape[2],
        "RECALLED": chosen.shape[2],
        "STEPS_BLOCK": block,
        "HEADS_BLOCK": _heads(heads, 16 // block),
        "WIDTH_BLOCK": width_padded,
        "LENGTH_BLOCK": _padded(contents.shape[2]),
        "RECALLED_BLOCK": triton.next_power_of_2(chosen.shape[2]),
        "PRECISION": "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "num_warps": 4 if width_padded <= 128 else 8,
    }
    return rows * triton.cdiv(steps, block), constants


@triton.jit
@no_type_check
def _read(
    query,
    contents,
    chosen,
    weights,
    read,
    steps,
    chunks,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LENGTH: tl.constexpr,
    RECALLED: tl.constexpr,
    STEPS_BLOCK: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    LENGTH_BLOCK: tl.constexpr,
    RECALLED_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    blocks = tl.cdiv(steps, STEPS_BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * STEPS_BLOCK
    at, there = _queries(row, first, steps, HEADS, WIDTH, STEPS_BLOCK, HEADS_BLOCK)
    choice_at, place = _choices(row, first, steps, RECALLED, STEPS_BLOCK, RECALLED_BLOCK)
    c = tl.load(chosen + choice_at, place >= 0, 0).to(tl.int32)
    w = tl.load(weights + choice_at, place >= 0, 0.0).to(tl.float32)
    total = tl.zeros([STEPS_BLOCK * HEADS_BLOCK, WIDTH_BLOCK], tl.float32)
    for i in range(STEPS_BLOCK * RECALLED):
        number = tl.load(chosen + (row * steps + first) * RECALLED + i, first * RECALLED + i < steps * RECALLED, -1)
        # What has no weight is not looked at.
        mine = (c == number.to(tl.int32)) & (place >= 0) & (w != 0.0)
        if _is_first(mine, place, i):
            content = contents + (row * chunks + number) * (LENGTH * WIDTH)
            logits = _products(query, at, there, content, WIDTH, LENGTH, WIDTH_BLOCK, LENGTH_BLOCK, PRECISION)
            attention = _softmax(logits, LENGTH, LENGTH_BLOCK)
            weighted = attention * _per_head(tl.sum(tl.where(mine, w, 0.0), 1), STEPS_BLOCK, HEADS_BLOCK)
            chunk = _load(content, tl.arange(0, LENGTH_BLOCK) * WIDTH, tl.arange(0, LENGTH_BLOCK) < LENGTH, 0, WIDTH, WIDTH_BLOCK)
            total = tl.dot(weighted.to(chunk.dtype), chunk, total, input_precision=PRECISION)
    _store(read, at, there, total, WIDTH, WIDTH_BLOCK)


@triton.jit
@no_type_check
def _read_backward(
    grad_read,
    query,
    contents,
    chosen,
    weights,
    grad_query,
    grad_weights,
    steps,
    chunks,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LENGTH: tl.constexpr,
    RECALLED: tl.constexpr,
    STEPS_BLOCK: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    LENGTH_BLOCK: tl.constexpr,
    RECALLED_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    blocks = tl.cdiv(steps, STEPS_BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * STEPS_BLOCK
    at, there = _queries(row, first, steps, HEADS, WIDTH, STEPS_BLOCK, HEADS_BLOCK)
    choice_at, place = _choices(row, first, steps, RECALLED, STEPS_BLOCK, RECALLED_BLOCK)
    c = tl.load(chosen + choice_at, place >= 0, 0).to(tl.int32)
    w = tl.load(weights + choice_at, place >= 0, 0.0).to(tl.float32)
    to_query = tl.zeros([STEPS_BLOCK * HEADS_BLOCK, WIDTH_BLOCK], tl.float32)
    to_weights = tl.zeros([STEPS_BLOCK, RECALLED_BLOCK], tl.float32)
    for i in range(STEPS_BLOCK * RECALLED):
        number = tl.load(chosen + (row * steps + first) * RECALLED + i, first * RECALLED + i < steps * RECALLED, -1)
        mine = (c == number.to(tl.int32)) & (place >= 0)
        if _is_first(mine, place, i):
            content = contents + (row * chunks + number) * (LENGTH * WIDTH)
            logits = _products(query, at, there, content, WIDTH, LENGTH, WIDTH_BLOCK, LENGTH_BLOCK, PRECISION)
            attention = _softmax(logits, LENGTH, LENGTH_BLOCK)
            to_weighted = _products(grad_read, at, there, content, WIDTH, LENGTH, WIDTH_BLOCK, LENGTH_BLOCK, PRECISION)
            inner = tl.sum(to_weighted * attention, 1)
            per_step = tl.sum(tl.reshape(inner, [STEPS_BLOCK, HEADS_BLOCK]), 1)
            to_weights += tl.where(mine, per_step[:, None], 0.0)
            # Through the softmax: d logit = p (d p - sum p d p).
            weight = _per_head(tl.sum(tl.where(mine, w, 0.0), 1), STEPS_BLOCK, HEADS_BLOCK)
            to_logits = weight * attention * (to_weighted - inner[:, None])
            chunk = _load(content, tl.arange(0, LENGTH_BLOCK) * WIDTH, tl.arange(0, LENGTH_BLOCK) < LENGTH, 0, WIDTH, WIDTH_BLOCK)
            to_query = tl.dot(to_logits.to(chunk.dtype), chunk, to_query, input_precision=PRECISION)
    _store(grad_query, at, there, to_query, WIDTH, WIDTH_BLOCK)
    tl.store(grad_weights + choice_at, to_weights, place >= 0)


@triton.jit
@no_type_check
def _queries(row, first, steps, HEADS: tl.constexpr, WIDTH: tl.constexpr, STEPS_BLOCK: tl.constexpr, HEADS_BLOCK: tl.constexpr):
    """Where the block's queries begin in [B, T, H, D], one for each step and head, and which of them there are."""
    one = tl.arange(0, STEPS_BLOCK * HEADS_BLOCK)
    step, head = first + one // HEADS_BLOCK, one % HEADS_BLOCK
    return ((row * steps + step) * HEADS + head) * WIDTH, (step < steps) & (head < HEADS)


@triton.jit
@no_type_check
def _choices(row, first, steps, RECALLED: tl.constexpr, STEPS_BLOCK: tl.constexpr, RECALLED_BLOCK: tl.constexpr):
    """Where the block's choices are in [B, T, K], and their places in the block's list of choices, -1 where there is none."""
    step, k = tl.arange(0, STEPS_BLOCK)[:, None], tl.arange(0, RECALLED_BLOCK)[None, :]
    place = step * RECALLED + k
    there = (first + step < steps) & (k < RECALLED)
    return (row * steps + first) * RECALLED + place, tl.where(there, place, -1)


@triton.jit
@no_type_check
def _is_first(mine, place, i):
    """Whether the choice at place i is the first of its chunk."""
    return tl.min(tl.min(tl.where(mine, place, 2**30), 1), 0) == i


@triton.jit
@no_type_check
def _load(side, at, there, first, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Columns of vectors of length WIDTH that begin `at`, from the first on; 0 beyond their ends and where there is none."""
    d = first + tl.arange(0, COLUMNS)[None, :]
    return tl.load(side + at[:, None] + d, there[:, None] & (d < WIDTH), 0.0)


@triton.jit
@no_type_check
def _store(side, at, there, values, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    d = tl.arange(0, COLUMNS)[None, :]
    tl.store(side + at[:, None] + d, values, there[:, None] & (d < WIDTH))


@triton.jit
@no_type_check
def _products(
    side,
    at,
    there,
    content,
    WIDTH: tl.constexpr,
    LENGTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    LENGTH_BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of the block's vectors with a chunk's steps. Some columns at a time, because the whole of both does not fit the registers."""
    SLICE: tl.constexpr = min(WIDTH_BLOCK, 64)
    step = tl.arange(0, LENGTH_BLOCK)
    products = tl.zeros([at.shape[0], LENGTH_BLOCK], tl.float32)
    for first in range(0, WIDTH_BLOCK, SLICE):
        vectors = _load(side, at, there, first, WIDTH, SLICE)
        steps = _load(content, step * WIDTH, step < LENGTH, first, WIDTH, SLICE)
        products = tl.dot(vectors, tl.trans(steps), products, input_precision=PRECISION)
    return products


@triton.jit
@no_type_check
def _softmax(logits, LENGTH: tl.constexpr, LENGTH_BLOCK: tl.constexpr):
    logits = tl.where((tl.arange(0, LENGTH_BLOCK) < LENGTH)[None, :], logits, -float("inf"))
    p = tl.exp(logits - tl.max(logits, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]


@triton.jit
@no_type_check
def _per_head(weight, STEPS_BLOCK: tl.constexpr, HEADS_BLOCK: tl.constexpr):
    """[steps] to one column for the steps and heads."""
    return tl.reshape(tl.broadcast_to(weight[:, None], [STEPS_BLOCK, HEADS_BLOCK]), [STEPS_BLOCK * HEADS_BLOCK, 1])
