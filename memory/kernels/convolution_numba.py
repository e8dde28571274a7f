"""The sums of `memory.convolution` on a CPU, compiled by Numba: steps in order, a channel beside the next.

Products and sums are not fused, and always taken in the same order: a trial in pieces comes to the same numbers as at once.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from memory.kernels.compiled import compiled, require_shapes
from memory.kernels.threads import in_threads

# Numbers of the result, below which starting a thread costs more than it saves.
_ALONE = 1 << 19


def refused(past: Float[Tensor, "B P D"]) -> str | None:
    """Why the kernel does not take inputs like these; None if it does."""
    if past.dtype not in (torch.float32, torch.float64):
        return f"its inputs are {past.dtype}; want torch.float32 or torch.float64"
    return None


def convolve(past: Float[Tensor, "B P D"], weight: Float[Tensor, "taps D"], reach: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """As `memory.convolution`'s; both of one type."""
    rows, channels = len(past), past.shape[2]
    require_shapes(weight=(weight, (len(weight), channels)), reach=(reach, (rows, past.shape[1] - len(weight) + 1)))
    mixed: Tensor = _forward(past, weight, reach)
    return mixed


@compiled(fastmath=())
@no_type_check
def _forwards(first, last, past, weight, reach, mixed):
    steps, taps = reach.shape[1], len(weight)
    since = past.shape[1] - steps
    for row in range(first, last):
        for t in range(steps):
            out = mixed[row, t]
            for lag in range(min(reach[row, t] + 1, taps)):
                there, tap = past[row, since + t - lag], weight[lag]
                if lag == 0:
                    for d in range(len(out)):
                        out[d] = there[d] * tap[d]
                else:
                    for d in range(len(out)):
                        out[d] += there[d] * tap[d]


@compiled(fastmath=())
@no_type_check
def _backwards(first, last, past, weight, reach, grad, grad_past, grad_weight):
    steps, taps = reach.shape[1], len(weight)
    since = past.shape[1] - steps
    for row in range(first, last):
        for place in range(past.shape[1]):
            there, to_there = past[row, place], grad_past[row, place]
            fresh = True
            # Step `place - since` and those after it that look back so far.
            for lag in range(max(0, since - place), min(taps, past.shape[1] - place)):
                t = place - since + lag
                if reach[row, t] < lag:
                    continue
                to_out, tap, to_tap = grad[row, t], weight[lag], grad_weight[row, lag]
                if fresh:
                    for d in range(len(there)):
                        to_there[d] = to_out[d] * tap[d]
                    fresh = False
                else:
                    for d in range(len(there)):
                        to_there[d] += to_out[d] * tap[d]
                for d in range(len(there)):
                    to_tap[d] += to_out[d] * there[d]
            if fresh:
                to_there[:] = 0


@torch.library.custom_op(
    "coterie::convolution", mutates_args=(), device_types="cpu", schema="(Tensor past, Tensor weight, Tensor reach) -> Tensor"
)
def _forward(past: Tensor, weight: Tensor, reach: Tensor) -> Tensor:
    mixed = past.new_empty(*reach.shape, past.shape[2])
    _work(_forwards, past, weight, reach, mixed)
    return mixed


@torch.library.custom_op(
    "coterie::convolution_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor past, Tensor weight, Tensor reach, Tensor grad) -> (Tensor, Tensor)",
)
def _backward(past: Tensor, weight: Tensor, reach: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    grad_past, grad_weight = past.new_empty(past.shape), past.new_zeros(len(past), *weight.shape)
    _work(_backwards, past, weight, reach, grad, grad_past, grad_weight)
    return grad_past, grad_weight.sum(0)


def _work(function: Any, past: Tensor, weight: Tensor, reach: Tensor, *others: Tensor) -> None:
    """Calls the function for some rows on each thread."""
    arrays = (x.detach().contiguous().numpy() for x in (past, weight, reach, *others))
    in_threads(function, len(past), *arrays, threads=None if others[0].numel() > _ALONE else 1)


@_forward.register_fake
def _(past: Tensor, weight: Tensor, reach: Tensor) -> Tensor:
    return past.new_empty(*reach.shape, past.shape[2])


@_backward.register_fake
def _(past: Tensor, weight: Tensor, reach: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return past.new_empty(past.shape), past.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(*ctx.saved_tensors, grad), None


_forward.register_autograd(_gradients, setup_context=_keep)
