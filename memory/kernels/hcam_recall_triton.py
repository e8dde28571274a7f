"""The recall of hierarchical chunk attention in Triton: `memory.kernels.hcam_recall.recall`, one program of one warp per step.

A program fetches the chunks that its step chose, one after another, into its registers and attends to them for all heads: a chunk is
read once, and nothing is gathered in memory. Its products are too narrow for tensor cores, one query of each head, so that they are
plain multiplications, exact in single precision. A chunk that does not fit the registers comes in blocks of steps, twice: once for its
logits, and once for what is read, by then from the cache. On the way back the attention is worked out anew; nothing is kept between the
two but the inputs.

A block of a chunk is a tensor [LANES, SLICES, PARTS, SLICE], step part * LANES + lane, number slice * SLICE + place: Triton spreads the
first and the last of these over a warp's threads, so that a thread sums most of a product by itself before it asks the others.
"""

# ruff: noqa: RUF005 (Triton's compiler knows sums of tuples, but not (*some, more).)

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

# Numbers of a chunk that a program holds at a time, and of what its heads have read: 64 registers of each of a warp's threads for each.
_BLOCK = 2**11
# Heads of a program, and blocks of a chunk for each of them, at most: both are loops that are unrolled.
_GROUP, _UNROLLED = 4, 16
# Numbers in a row, such that half of a warp reads them at once.
_SLICE = 64


def refused(query: Float[Tensor, "B T H D"], contents: Float[Tensor, "B M C D"]) -> str | None:
    """Why the kernel does not take these; None if it does."""
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16) or contents.dtype != query.dtype:
        return f"{query.dtype} queries and {contents.dtype} contents; want one type of at most 32 bits"
    length, width = contents.shape[2:]
    if width > _BLOCK // 2:
        return f"a width of {width}; want at most {_BLOCK // 2:,}"
    longest = _UNROLLED * _shape(width)[2]
    if length > longest:
        return f"a chunk of {length} steps of width {width}; want at most {longest} steps"
    return None


def recall(
    query: Float[Tensor, "B T H D"],
    contents: Float[Tensor, "B M C D"],
    chosen: Int64[Tensor, "B T K"],
    weights: Float[Tensor, "B T K"],
) -> Float[Tensor, "B T H D"]:
    """As the plain version: differentiable once, in query and weights."""
    read: Tensor = _forward(query, contents, chosen, weights)
    return read


@torch.library.custom_op(
    "coterie::hcam_recall", mutates_args=(), schema="(Tensor query, Tensor contents, Tensor chosen, Tensor weights) -> Tensor"
)
def _forward(query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    query, contents, chosen, weights = (side.contiguous() for side in (query, contents, chosen, weights))
    read = torch.empty_like(query)
    grid, settings = _settings(query, contents)
    _read[grid](query, contents, chosen, weights, read, query.shape[1], contents.shape[1], chosen.shape[2], **settings)
    return read


@torch.library.custom_op(
    "coterie::hcam_recall_backward",
    mutates_args=(),
    schema="(Tensor grad_read, Tensor query, Tensor contents, Tensor chosen, Tensor weights) -> (Tensor, Tensor)",
)
def _backward(grad_read: Tensor, query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    grad_read, query, contents, chosen, weights = (side.contiguous() for side in (grad_read, query, contents, chosen, weights))
    grad_query = torch.empty_like(query)
    grid, settings = _settings(query, contents)
    of_groups = weights.new_empty(grid[1], *weights.shape, dtype=torch.float32)
    sides = (grad_read, query, contents, chosen, weights, grad_query, of_groups)
    _read_backward[grid](*sides, query.shape[1], contents.shape[1], chosen.shape[2], **settings)
    return grad_query, of_groups.sum(0).to(weights.dtype)


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


def _shape(width: int) -> tuple[int, int, int]:
    """Of numbers in a slice, of slices, and of steps in a block, which are a whole number of times what a warp reads at once."""
    slice = min(_SLICE, max(4, triton.next_power_of_2(width)))
    slices = triton.next_power_of_2(triton.cdiv(width, slice))
    return slice, slices, max(128, _BLOCK // slices) // slice


def _settings(query: Tensor, contents: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs, by step and by group of heads, and the kernels' constants."""
    rows, steps, heads, width = query.shape
    length = contents.shape[2]
    slice, slices, most = _shape(width)
    lanes = 128 // slice
    block = min(most, max(lanes, triton.next_power_of_2(length)))
    blocks = triton.cdiv(length, block)
    # What a head has read is there once for each of the lanes.
    group = max(
        1, min(triton.next_power_of_2(heads), _GROUP, _BLOCK // (lanes * slice * slices), _UNROLLED // triton.next_power_of_2(blocks))
    )
    constants = {
        "HEADS": heads,
        "WIDTH": width,
        "LENGTH": length,
        "GROUP": group,
        "BLOCKS": blocks,
        "LANES": lanes,
        "SLICES": slices,
        "PARTS": block // lanes,
        "SLICE": slice,
        "num_warps": 1,
    }
    return (rows * steps, triton.cdiv(heads, group)), constants


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
    recalled,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LENGTH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCKS: tl.constexpr,
    LANES: tl.constexpr,
    SLICES: tl.constexpr,
    PARTS: tl.constexpr,
    SLICE: tl.constexpr,
):
    step = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * GROUP
    at = (step * HEADS + first) * WIDTH
    totals = ()
    for _ in tl.static_range(GROUP):
        totals = totals + (tl.zeros([LANES, SLICES, SLICE], tl.float32),)
    for k in range(recalled):
        weight = tl.load(weights + step * recalled + k).to(tl.float32)
        chunk = contents + (step // steps * chunks + tl.load(chosen + step * recalled + k)) * (LENGTH * WIDTH)
        # What has no weight is not looked at.
        end = (weight != 0.0).to(tl.int32) * LENGTH
        logits = ()
        for b in tl.static_range(BLOCKS):
            block = _block(chunk, b, end, WIDTH, LANES, SLICES, PARTS, SLICE)
            if BLOCKS > 1:
                # Else the compiler would keep all heads' queries from one block to the next, for which there is no room.
                tl.debug_barrier()
            for h in tl.static_range(GROUP):
                logits = logits + (_products(block, _vector(query + at, first, h, HEADS, WIDTH, SLICES, SLICE)),)
        attention = _softmaxes(logits, LENGTH, GROUP, BLOCKS, LANES, PARTS)
        for b in tl.static_range(BLOCKS):
            if BLOCKS > 1:
                tl.debug_barrier()
                block = _block(chunk, b, end, WIDTH, LANES, SLICES, PARTS, SLICE)
            further = ()
            for h in tl.static_range(GROUP):
                further = further + (totals[h] + _sums(block, weight * attention[b * GROUP + h]),)
            totals = further
    for h in tl.static_range(GROUP):
        _store(read + at, first, h, tl.sum(totals[h], 0), HEADS, WIDTH, SLICES, SLICE)


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
    recalled,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LENGTH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCKS: tl.constexpr,
    LANES: tl.constexpr,
    SLICES: tl.constexpr,
    PARTS: tl.constexpr,
    SLICE: tl.constexpr,
):
    step = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * GROUP
    at = (step * HEADS + first) * WIDTH
    to_weights = grad_weights + (tl.program_id(1) * tl.num_programs(0) + step) * recalled
    totals = ()
    for _ in tl.static_range(GROUP):
        totals = totals + (tl.zeros([LANES, SLICES, SLICE], tl.float32),)
    for k in range(recalled):
        weight = tl.load(weights + step * recalled + k).to(tl.float32)
        chunk = contents + (step // steps * chunks + tl.load(chosen + step * recalled + k)) * (LENGTH * WIDTH)
        logits = ()
        to_attention = ()
        for b in tl.static_range(BLOCKS):
            block = _block(chunk, b, LENGTH, WIDTH, LANES, SLICES, PARTS, SLICE)
            if BLOCKS > 1:
                # Else the compiler would keep all heads' queries from one block to the next, for which there is no room.
                tl.debug_barrier()
            for h in tl.static_range(GROUP):
                logits = logits + (_products(block, _vector(query + at, first, h, HEADS, WIDTH, SLICES, SLICE)),)
                to_attention = to_attention + (_products(block, _vector(grad_read + at, first, h, HEADS, WIDTH, SLICES, SLICE)),)
        attention = _softmaxes(logits, LENGTH, GROUP, BLOCKS, LANES, PARTS)
        to_weight = 0.0
        inner = ()
        for h in tl.static_range(GROUP):
            sum = 0.0
            for b in tl.static_range(BLOCKS):
                sum += _all(attention[b * GROUP + h] * to_attention[b * GROUP + h])
            inner = inner + (sum,)
            to_weight += sum
        tl.store(to_weights + k, to_weight)
        for b in tl.static_range(BLOCKS):
            if BLOCKS > 1:
                tl.debug_barrier()
                block = _block(chunk, b, LENGTH, WIDTH, LANES, SLICES, PARTS, SLICE)
            further = ()
            for h in tl.static_range(GROUP):
                # Through the softmax: d logit = p (d p - sum p d p).
                to_logits = weight * attention[b * GROUP + h] * (to_attention[b * GROUP + h] - inner[h])
                further = further + (totals[h] + _sums(block, to_logits),)
            totals = further
    for h in tl.static_range(GROUP):
        _store(grad_query + at, first, h, tl.sum(totals[h], 0), HEADS, WIDTH, SLICES, SLICE)


@triton.jit
@no_type_check
def _block(
    chunk,
    number: tl.constexpr,
    end,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    SLICES: tl.constexpr,
    PARTS: tl.constexpr,
    SLICE: tl.constexpr,
):
    """A block of a chunk's steps, 0 from the end on."""
    c = _steps(number, LANES, PARTS)[:, None, :, None]
    d = tl.arange(0, SLICES)[None, :, None, None] * SLICE + tl.arange(0, SLICE)[None, None, None, :]
    return tl.load(chunk + c * WIDTH + d, (c < end) & (d < WIDTH), 0.0).to(tl.float32)


@triton.jit
@no_type_check
def _steps(number: tl.constexpr, LANES: tl.constexpr, PARTS: tl.constexpr):
    """[LANES, PARTS]: which steps of the chunk a block has."""
    return number * (PARTS * LANES) + tl.arange(0, PARTS)[None, :] * LANES + tl.arange(0, LANES)[:, None]


@triton.jit
@no_type_check
def _places(first, head: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, SLICES: tl.constexpr, SLICE: tl.constexpr):
    """Where the numbers of a group's head are behind those of its first, and which there are."""
    d = tl.arange(0, SLICES)[:, None] * SLICE + tl.arange(0, SLICE)[None, :]
    return head * WIDTH + d, d < (first + head < HEADS).to(tl.int32) * WIDTH


@triton.jit
@no_type_check
def _vector(side, first, head: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, SLICES: tl.constexpr, SLICE: tl.constexpr):
    place, there = _places(first, head, HEADS, WIDTH, SLICES, SLICE)
    return tl.load(side + place, there, 0.0).to(tl.float32)


@triton.jit
@no_type_check
def _store(side, first, head: tl.constexpr, values, HEADS: tl.constexpr, WIDTH: tl.constexpr, SLICES: tl.constexpr, SLICE: tl.constexpr):
    place, there = _places(first, head, HEADS, WIDTH, SLICES, SLICE)
    tl.store(side + place, values, there)


@triton.jit
@no_type_check
def _products(block, vector):
    """[LANES, PARTS]: of a block's steps with a vector."""
    return tl.sum(tl.sum(block * vector[None, :, None, :], 1), 2)


@triton.jit
@no_type_check
def _sums(block, p):
    """[LANES, SLICES, SLICE]: of a block's steps with these weights, each lane's by itself."""
    return tl.sum(block * p[:, None, :, None], 2)


@triton.jit
@no_type_check
def _all(x):
    return tl.sum(tl.sum(x, 1), 0)


@triton.jit
@no_type_check
def _softmaxes(logits, LENGTH: tl.constexpr, GROUP: tl.constexpr, BLOCKS: tl.constexpr, LANES: tl.constexpr, PARTS: tl.constexpr):
    """Over all blocks of a chunk, for each head."""
    highest = ()
    for h in tl.static_range(GROUP):
        most = -float("inf")
        for b in tl.static_range(BLOCKS):
            there = tl.where(_steps(b, LANES, PARTS) < LENGTH, logits[b * GROUP + h], -float("inf"))
            most = tl.maximum(most, tl.max(tl.max(there, 1), 0))
        highest = highest + (most,)
    p = ()
    for b in tl.static_range(BLOCKS):
        for h in tl.static_range(GROUP):
            p = p + (tl.where(_steps(b, LANES, PARTS) < LENGTH, tl.exp(logits[b * GROUP + h] - highest[h]), 0.0),)
    shares = ()
    for h in tl.static_range(GROUP):
        sum = 0.0
        for b in tl.static_range(BLOCKS):
            sum += _all(p[b * GROUP + h])
        shares = shares + (1.0 / sum,)
    attention = ()
    for b in tl.static_range(BLOCKS):
        for h in tl.static_range(GROUP):
            attention = attention + (p[b * GROUP + h] * shares[h],)
    return attention
