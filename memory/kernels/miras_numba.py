"""What `memory.titans` learns and recalls, on a CPU: custom operators around `memory.kernels.miras_steps_numba`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memory.kernels.compiled import require_shapes
from memory.kernels.miras_choices_numba import LINEAR
from memory.kernels.miras_steps_numba import CHUNK, backwards, forwards
from memory.kernels.threads import in_threads

# Numbers of a state times steps, below which starting a thread costs more than it saves.
_ALONE = 1 << 17

_F = np.float32


def refused(weights: Float[Tensor, "B H P"]) -> str | None:
    """Why the kernel does not take weights like these; None if it does."""
    if weights.dtype != torch.float32:
        return f"its state is {weights.dtype}; want torch.float32"
    return None


def learn(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T d"],
    keep: Float[Tensor, "B H T"],
    carried: Float[Tensor, "B H T"] | None,
    rate: Float[Tensor, "B H T"],
    threshold: Float[Tensor, "B H T"],
    first: Float[Tensor, "H P"],
    anchor: Float[Tensor, "B H P"],
    weights: Float[Tensor, "B H P"],
    momentum: Float[Tensor, "B H P"] | None,
    phase: Int[Tensor, "B"],
    reset: Bool[Tensor, "B T"],
    kind: tuple[int, int, int],
    chunk_length: int,
    constants: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """What is recalled [B, H, T, d]; anchor, weights, momentum and phase after. All numbers of one type.

    keep, carried, rate: 1 - alpha, eta (None without momentum) and theta. kind: network, loss and retention, by the numbers of
    `memory.kernels.miras_choices_numba`. constants: of LayerNorm's denominator, and the smoothed sign's steepness.
    Differentiable once, by going back.
    """
    rows, heads, steps, d = q.shape
    numbers = first.shape[1]
    if kind[0] != LINEAR and numbers % (2 * d):
        raise ValueError(f"first is {list(first.shape)}; want a multiple of {2 * d} per head")
    if (carried is None) != (momentum is None):
        raise ValueError(
            f"momentum is {momentum if momentum is None else list(momentum.shape)}; want {'some' if carried is not None else None}"
        )
    require_shapes(
        k=(k, (rows, heads, steps, d)),
        v=(v, (rows, heads, steps, d)),
        keep=(keep, (rows, heads, steps)),
        carried=(carried, (rows, heads, steps)),
        rate=(rate, (rows, heads, steps)),
        threshold=(threshold, (rows, heads, steps)),
        first=(first, (heads, d * d if kind[0] == LINEAR else numbers)),
        anchor=(anchor, (rows, heads, numbers)),
        weights=(weights, (rows, heads, numbers)),
        momentum=(momentum, (rows, heads, numbers)),
        phase=(phase, (rows,)),
        reset=(reset, (rows, steps)),
    )
    # Whether an input needs a gradient is not known where functions are transformed.
    y, *after, _ = _forward(
        q, k, v, keep, carried, rate, threshold, first, anchor, weights, momentum, phase, reset, *kind, chunk_length, *constants,
        torch.is_grad_enabled(),
    )  # fmt: skip
    return y, after[0], after[1], None if momentum is None else after[2], after[3]


@torch.library.custom_op(
    "coterie::miras",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, Tensor keep, Tensor? carried, Tensor rate, Tensor threshold, Tensor first, Tensor anchor,"
    " Tensor weights, Tensor? momentum, Tensor phase, Tensor reset, int network, int loss, int retention, int chunk, float eps,"
    " float steepness, bool learns) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, anchor: Tensor,
    weights: Tensor, momentum: Tensor | None, phase: Tensor, reset: Tensor, network: int, loss: int, retention: int, chunk: int, eps: float,
    steepness: float, learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the state after (momentum empty where there is none) and, for the way back, the weights before every `CHUNK`th step."""
    results = _shapes(q, weights, momentum, phase, network, learns)
    tensors = (q, k, v, keep, carried, rate, threshold, first, anchor, weights, momentum, phase, reset, *results)
    _work(forwards, q, weights, (network, loss, retention, chunk, _F(eps), _F(steepness)), tensors)
    return results


@torch.library.custom_op(
    "coterie::miras_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, Tensor keep, Tensor? carried, Tensor rate, Tensor threshold, Tensor first, Tensor phase,"
    " Tensor reset, Tensor kept, Tensor grad_y, Tensor grad_anchor, Tensor grad_weights, Tensor? grad_momentum, int network, int loss,"
    " int retention, int chunk, float eps, float steepness)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, phase: Tensor,
    reset: Tensor, kept: Tensor, grad_y: Tensor, grad_anchor: Tensor, grad_weights: Tensor, grad_momentum: Tensor | None, network: int,
    loss: int, retention: int, chunk: int, eps: float, steepness: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients in q, k, v, keep, carried, rate, threshold, first, anchor, weights and momentum; empty where there is none."""
    results = _gradient_shapes(q, keep, carried, grad_weights, grad_momentum)
    # Each row has its own gradient in the first weights.
    results[7] = grad_weights.new_empty(grad_weights.shape)
    inputs = (q, k, v, keep, carried, rate, threshold, first, phase, reset, kept, grad_y, grad_anchor, grad_weights, grad_momentum)
    _work(backwards, q, grad_weights, (network, loss, retention, chunk, _F(eps), _F(steepness)), (*inputs, *results))
    results[7] = results[7].sum(0)
    return tuple(results)


def _work(function: Any, q: Tensor, weights: Tensor, settings: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> None:
    """Calls the function for some rows and heads on each thread."""
    rows, heads, steps, _ = q.shape
    nothing = q.new_empty(0, 0, 0)
    arrays = ((nothing if x is None else x).detach().contiguous().numpy() for x in tensors)
    threads = None if weights.numel() * steps > _ALONE else 1
    in_threads(function, rows * heads, *settings, *arrays, threads=threads)


def _shapes(
    q: Tensor, weights: Tensor, momentum: Tensor | None, phase: Tensor, network: int, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, heads, steps, d = q.shape
    high = d if network == LINEAR else 2 * d
    kept = q.new_empty(rows, heads, -(-steps // CHUNK) if learns else 0, 2 if momentum is None else 3, high, weights.shape[2] // high)
    anchor, after = (weights.new_empty(weights.shape) for _ in range(2))
    moved = weights.new_empty((0, 0, 0) if momentum is None else momentum.shape)
    return q.new_empty(q.shape), anchor, after, moved, phase.new_empty(phase.shape), kept


def _gradient_shapes(q: Tensor, keep: Tensor, carried: Tensor | None, weights: Tensor, momentum: Tensor | None) -> list[Tensor]:
    none = (0, 0, 0)
    gates = keep.shape
    shapes = [q.shape] * 3 + [gates, none if carried is None else gates, gates, gates, weights.shape[1:], weights.shape, weights.shape]
    return [q.new_empty(shape) for shape in (*shapes, none if momentum is None else weights.shape)]


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, anchor: Tensor,
    weights: Tensor, momentum: Tensor | None, phase: Tensor, reset: Tensor, network: int, loss: int, retention: int, chunk: int, eps: float,
    steepness: float, learns: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _shapes(q, weights, momentum, phase, network, learns)


@_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, phase: Tensor,
    reset: Tensor, kept: Tensor, grad_y: Tensor, grad_anchor: Tensor, grad_weights: Tensor, grad_momentum: Tensor | None, network: int,
    loss: int, retention: int, chunk: int, eps: float, steepness: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(_gradient_shapes(q, keep, carried, grad_weights, grad_momentum))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, phase_after, kept = output
    # The weights before the first step are in what is kept.
    ctx.save_for_backward(*inputs[:8], *inputs[11:13], kept)
    ctx.settings, ctx.state, ctx.carries = inputs[13:19], inputs[9].shape, inputs[10] is not None
    ctx.mark_non_differentiable(phase_after, kept)
    # Zeros for the gradient in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_y: Tensor | None, *after: Tensor | None) -> tuple[Tensor | None, ...]:
    q, *_ = kept = ctx.saved_tensors
    grad_y = torch.zeros_like(q) if grad_y is None else grad_y
    anchor, weights = (q.new_zeros(ctx.state) if grad is None else grad for grad in after[:2])
    momentum = (q.new_zeros(ctx.state) if after[2] is None else after[2]) if ctx.carries else None
    found = _backward(*kept, grad_y, anchor, weights, momentum, *ctx.settings)
    grads: list[Tensor | None] = list(found)
    if kept[4] is None:
        grads[4] = None
    if not ctx.carries:
        grads[10] = None
    return *grads, *[None] * 9


_forward.register_autograd(_gradients, setup_context=_keep)
