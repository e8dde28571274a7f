"""The choice of chunks in Triton: `memory.kernels.hcam_recall.choose`, one program per row and tile of steps.

A program multiplies its queries with the summaries that they see, takes the k highest one after another, and weighs them; relevances never
leave its registers, and no sort is needed. On the way back a step's gradient is a weighted sum of the summaries that it chose.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Products of a program at a time, 64 registers of each of a warp's threads; numbers in a row; steps at most.
_BLOCK, _SLICE, _TILE = 2**11, 16, 16
_CHUNKS = 2**12


def refused(query: Float[Tensor, "B T D"], summaries: Float[Tensor, "B M D"]) -> str | None:
    """Why the kernel does not take these; None if it does."""
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16) or summaries.dtype != query.dtype:
        return f"{query.dtype} queries and {summaries.dtype} summaries; want one type of at most 32 bits"
    if summaries.shape[1] > _CHUNKS:
        return f"{summaries.shape[1]:,} chunks; want at most {_CHUNKS:,}"
    return None


def choose(
    query: Float[Tensor, "B T D"], summaries: Float[Tensor, "B M D"], visible: Bool[Tensor, "B T M"], recalled: int
) -> tuple[Int64[Tensor, "B T K"], Float[Tensor, "B T K"]]:
    """As the plain version; weights are differentiable once, in query. Which chunks fill up the places of those not there may differ."""
    weights, chosen = _choose(query, summaries, visible, recalled)
    return chosen, weights


@torch.library.custom_op(
    "coterie::hcam_choose", mutates_args=(), schema="(Tensor query, Tensor summaries, Tensor visible, int recalled) -> (Tensor, Tensor)"
)
def _choose(query: Tensor, summaries: Tensor, visible: Tensor, recalled: int) -> tuple[Tensor, Tensor]:
    query, summaries, visible = (side.contiguous() for side in (query, summaries, visible))
    weights, chosen = _results(query, recalled)
    if not query.numel():
        return weights, chosen
    steps, chunks = visible.shape[1:]
    grid, settings = _settings(query, chunks)
    lowest = torch.finfo(query.dtype).min
    constants = {"LOWEST": lowest, "CHUNKS": triton.next_power_of_2(chunks), "RECALLED": triton.next_power_of_2(recalled)}
    _forward[grid](query, summaries, visible, chosen, weights, steps, chunks, recalled, WIDTH=query.shape[2], **constants, **settings)
    return weights, chosen


@torch.library.custom_op(
    "coterie::hcam_choose_backward",
    mutates_args=(),
    schema="(Tensor grad_weights, Tensor summaries, Tensor chosen, Tensor weights) -> Tensor",
)
def _choose_backward(grad_weights: Tensor, summaries: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    grad_weights, summaries = grad_weights.contiguous(), summaries.contiguous()
    rows, steps, recalled = weights.shape
    chunks, width = summaries.shape[1:]
    grad_query = weights.new_empty(rows, steps, width)
    if not grad_query.numel():
        return grad_query
    grid, settings = _settings(grad_query, 1)
    settings["SLICE"] = min(triton.next_power_of_2(width), _BLOCK // settings["TILE"])
    _backward[grid](grad_weights, summaries, chosen, weights, grad_query, steps, chunks, recalled, WIDTH=width, **settings)
    return grad_query


@_choose.register_fake
def _(query: Tensor, summaries: Tensor, visible: Tensor, recalled: int) -> tuple[Tensor, Tensor]:
    return _results(query, recalled)


@_choose_backward.register_fake
def _(grad_weights: Tensor, summaries: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    return weights.new_empty(*weights.shape[:2], summaries.shape[2])


def _results(query: Tensor, recalled: int) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:2], recalled)
    return query.new_empty(shape), query.new_empty(shape, dtype=torch.int64)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    weights, chosen = output
    ctx.mark_non_differentiable(chosen)
    ctx.save_for_backward(inputs[1], chosen, weights)


def _gradients(ctx: Any, grad_weights: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return _choose_backward(grad_weights, *ctx.saved_tensors), None, None, None


_choose.register_autograd(_gradients, setup_context=_keep)


def _settings(query: Tensor, chunks: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Programs, by row and by tile of steps, and the kernels' constants."""
    rows, steps, width = query.shape
    places = triton.next_power_of_2(chunks)
    slice = max(1, min(_SLICE, triton.next_power_of_2(width), _BLOCK // places))
    tile = max(1, min(_TILE, triton.next_power_of_2(steps), _BLOCK // (places * slice)))
    return (rows, triton.cdiv(steps, tile)), {"TILE": tile, "SLICE": slice, "num_warps": 1 if places <= _BLOCK else 4}


@triton.jit
@no_type_check
def _forward(
    query,
    summaries,
    visible,
    chosen,
    weights,
    steps,
    chunks,
    recalled,
    WIDTH: tl.constexpr,
    LOWEST: tl.constexpr,
    CHUNKS: tl.constexpr,
    RECALLED: tl.constexpr,
    TILE: tl.constexpr,
    SLICE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    t, m, k = tl.program_id(1) * TILE + tl.arange(0, TILE), tl.arange(0, CHUNKS), tl.arange(0, RECALLED)
    step = row * steps + t
    sees = tl.load(visible + step[:, None] * chunks + m[None, :], (t < steps)[:, None] & (m < chunks)[None, :], 0) != 0
    # What none of these steps sees is not fetched.
    seen = tl.max(sees.to(tl.int32), 0) != 0
    relevance = tl.zeros([TILE, CHUNKS], tl.float32)
    for first in range(0, WIDTH, SLICE):
        d = first + tl.arange(0, SLICE)
        q = tl.load(query + step[:, None] * WIDTH + d[None, :], (t < steps)[:, None] & (d < WIDTH)[None, :], 0.0).to(tl.float32)
        s = tl.load(summaries + (row * chunks + m)[:, None] * WIDTH + d[None, :], seen[:, None] & (d < WIDTH)[None, :], 0.0)
        relevance += tl.sum(q[:, None, :] * s.to(tl.float32)[None, :, :], 2)
    # What is no number is chosen first, and makes the weights none either, so that it is noticed.
    relevance = tl.where(relevance == relevance, relevance, float("inf"))
    relevance = tl.where((m < chunks)[None, :], tl.where(sees, relevance, LOWEST), -float("inf"))
    order = tl.zeros([TILE, RECALLED], tl.int32)
    highest = tl.full([TILE, RECALLED], -float("inf"), tl.float32)
    for place in range(recalled):
        best, which = tl.max(relevance, 1, return_indices=True)
        order = tl.where((k == place)[None, :], which[:, None], order)
        highest = tl.where((k == place)[None, :], best[:, None], highest)
        relevance = tl.where(m[None, :] == which[:, None], -float("inf"), relevance)
    share = tl.exp(highest - tl.max(highest, 1)[:, None])
    share = tl.where(highest > LOWEST, share / tl.sum(share, 1)[:, None], 0.0)
    at, inside = step[:, None] * recalled + k[None, :], (t < steps)[:, None] & (k < recalled)[None, :]
    tl.store(chosen + at, order.to(tl.int64), inside)
    tl.store(weights + at, share, inside)


@triton.jit
@no_type_check
def _backward(
    grad_weights,
    summaries,
    chosen,
    weights,
    grad_query,
    steps,
    chunks,
    recalled,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    SLICE: tl.constexpr,
):
    """d relevance_k = w_k (d w_k - sum_j w_j d w_j): through the softmax."""
    row = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * TILE + tl.arange(0, TILE)
    step = row * steps + t
    inner = tl.zeros([TILE], tl.float32)
    for k in range(recalled):
        share = tl.load(weights + step * recalled + k, t < steps, 0.0).to(tl.float32)
        inner += share * tl.load(grad_weights + step * recalled + k, t < steps, 0.0).to(tl.float32)
    for first in range(0, WIDTH, SLICE):
        d = first + tl.arange(0, SLICE)
        inside = (t < steps)[:, None] & (d < WIDTH)[None, :]
        total = tl.zeros([TILE, SLICE], tl.float32)
        for k in range(recalled):
            share = tl.load(weights + step * recalled + k, t < steps, 0.0).to(tl.float32)
            to_share = tl.load(grad_weights + step * recalled + k, t < steps, 0.0).to(tl.float32)
            chunk = row * chunks + tl.load(chosen + step * recalled + k, t < steps, 0)
            # What counts for nothing is not looked at.
            summary = tl.load(summaries + chunk[:, None] * WIDTH + d[None, :], inside & (share != 0.0)[:, None], 0.0).to(tl.float32)
            total += (share * (to_share - inner))[:, None] * summary
        tl.store(grad_query + step[:, None] * WIDTH + d[None, :], total, inside)
