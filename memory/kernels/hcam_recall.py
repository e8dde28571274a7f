"""The recall of hierarchical chunk attention: which chunks a step looks into, and what it reads there (Lampinen et al. 2021).

`choose` takes the k chunks of highest relevance and a softmax over these alone. `recall` attends inside them:

    read_{t,h} = sum_k w_{t,k} sum_c softmax_c(q_{t,h} . C_{k,c}) C_{k,c}

with k over the chunks that step t chose and c over their steps. Keys and values are the contents themselves: a caller who projects them
moves the projections, which are linear, to the queries and to what was read (`memory.hcam`). So a chunk is fetched once for all heads.
Contents and summaries get no gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from memory.kernels.choice import triton_version

# How many numbers of contents are fetched at a time: about what a core's cache holds; on a GPU enough work for all of it.
_FETCHED, _FETCHED_ON_GPU = 2**18, 2**27
# Up to so many chunks for each that is recalled, and so many steps in them for each number of a step's width, a CPU attends to all of them:
# large products cost less than many fetches.
FEW = 4


def choose(
    query: Float[Tensor, "B T D"], summaries: Float[Tensor, "B M D"], visible: Bool[Tensor, "B T M"], recalled: int
) -> tuple[Int64[Tensor, "B T K"], Float[Tensor, "B T K"]]:
    """The chunks that each step recalls, most relevant first, and their weights. recalled: K, at most M.

    Where fewer than K chunks are visible, others fill up the places with a weight of 0. Weights are differentiable once, in query.
    """
    fast = triton_version("hcam_choose", query, summaries)
    found: tuple[Tensor, Tensor] = (fast.choose if fast else choose_plainly)(query, summaries.detach(), visible, recalled)
    return found


def choose_plainly(
    query: Float[Tensor, "B T D"], summaries: Float[Tensor, "B M D"], visible: Bool[Tensor, "B T M"], recalled: int
) -> tuple[Int64[Tensor, "B T K"], Float[Tensor, "B T K"]]:
    """`choose` in PyTorch alone."""
    relevance = (query @ summaries.transpose(1, 2)).masked_fill(~visible, torch.finfo(query.dtype).min)
    highest, chosen = relevance.topk(recalled, -1)
    return chosen, highest.softmax(-1).masked_fill(~visible.gather(2, chosen), 0.0)


def recall(
    query: Float[Tensor, "B T H D"],
    contents: Float[Tensor, "B M C D"],
    chosen: Int64[Tensor, "B T K"],
    weights: Float[Tensor, "B T K"],
) -> Float[Tensor, "B T H D"]:
    """What each head reads in the chosen chunks. query: scaled, so that its product with a step of a chunk is the logit.

    Differentiable once, in query and weights. Memory grows with B T H D and never holds the B T K C D numbers at once.
    """
    fast = triton_version("hcam_recall", query, contents)
    read: Tensor = (fast.recall if fast else recall_plainly)(query, contents, chosen, weights)
    return read


def recall_plainly(
    query: Float[Tensor, "B T H D"],
    contents: Float[Tensor, "B M C D"],
    chosen: Int64[Tensor, "B T K"],
    weights: Float[Tensor, "B T K"],
) -> Float[Tensor, "B T H D"]:
    """`recall` in PyTorch alone. A few steps' chunks are fetched at a time, and again on the way back; where there are few chunks on a CPU,
    all are attended to, and those not chosen count for nothing."""
    rows, steps, heads, width = query.shape
    chunks, recalled = contents.shape[1], chosen.shape[2]
    if query.device.type == "cpu" and are_few(chunks, recalled, contents):
        line = contents.detach().flatten(1, 2)
        attention = (query.flatten(1, 2) @ line.transpose(1, 2)).view(rows, steps, heads, chunks, contents.shape[2]).softmax(-1)
        shares = weights.new_zeros(rows, steps, chunks).scatter_add(2, chosen, weights)
        return ((attention * shares[:, :, None, :, None]).flatten(3).flatten(1, 2) @ line).view(query.shape)
    first = torch.arange(rows, device=query.device)[:, None, None] * contents.shape[1]
    read: Tensor = _Recall.apply(
        query.reshape(rows * steps, heads, width), contents.flatten(0, 1), (chosen + first).flatten(0, 1), weights.flatten(0, 1)
    )
    return read.unflatten(0, (rows, steps))


def are_few(chunks: int, recalled: int, contents: Float[Tensor, "B M C D"]) -> bool:
    """Whether so many chunks are little to look at for a step that recalls so many of them."""
    return chunks <= FEW * recalled and chunks * contents.shape[2] <= FEW * contents.shape[3]


class _Recall(torch.autograd.Function):
    """Over N = B T queries: query [N, H, D], contents [B M, C, D], chosen [N, K], weights [N, K]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(query, contents, chosen, weights)
        read = torch.empty_like(query)
        for part in _parts(chosen, contents):
            fetched, attention = _attend(query[part], contents, chosen[part])
            weighted = attention * weights[part, None, :, None]
            torch.bmm(weighted.flatten(2), fetched, out=read[part])
        return read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_read: Tensor) -> tuple[Tensor | None, ...]:
        query, contents, chosen, weights = ctx.saved_tensors
        grad_query, grad_weights = torch.empty_like(query), torch.empty_like(weights)
        for part in _parts(chosen, contents):
            fetched, attention = _attend(query[part], contents, chosen[part])
            grad_weighted = torch.bmm(grad_read[part], fetched.transpose(1, 2)).view_as(attention)
            grad_weights[part] = (grad_weighted * attention).sum((1, 3))
            grad_attention = grad_weighted * weights[part, None, :, None]
            # Through the softmax: d logit = p (d p - sum p d p).
            inner = (grad_attention * attention).sum(-1, keepdim=True)
            torch.bmm((attention * (grad_attention - inner)).flatten(2), fetched, out=grad_query[part])
        return grad_query, None, None, grad_weights


def _attend(query: Tensor, contents: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen chunks' steps [n, K C, D], and each head's attention to them [n, H, K, C], a softmax over every chunk of its own."""
    fetched = contents.index_select(0, chosen.flatten()).view(len(query), -1, query.shape[-1])
    logits = torch.bmm(query, fetched.transpose(1, 2))
    return fetched, logits.unflatten(2, (chosen.shape[1], -1)).softmax(-1)


def _parts(chosen: Tensor, contents: Tensor) -> list[slice]:
    fetched = _FETCHED_ON_GPU if contents.is_cuda else _FETCHED
    size = max(1, fetched // (chosen.shape[1] * contents[0].numel()))
    return [slice(first, first + size) for first in range(0, len(chosen), size)]
