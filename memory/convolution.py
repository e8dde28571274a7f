"""A short causal convolution over time, each channel alone: y_t = sum_{lag < taps} w_lag * x_{t - lag}, none of it from before a reset."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class CausalConvolution(nn.Module):
    """taps: steps that reach into a result, its own among them. State: the last R = taps - 1 inputs, zero where there was none."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(taps, channels).uniform_(-(taps**-0.5), taps**-0.5))

    @property
    def state_size(self) -> int:
        taps, channels = self.weight.shape
        return (taps - 1) * channels

    def start(self, batch_size: int) -> Float[Tensor, "B R D"]:
        taps, channels = self.weight.shape
        return self.weight.new_zeros(batch_size, taps - 1, channels)

    def forward(
        self, x: Float[Tensor, "B T D"], recent: Float[Tensor, "B R D"], reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B R D"]]:
        """What it makes of x, in the state's type, and the last inputs after it."""
        taps, steps = len(self.weight), x.shape[1]
        if steps == 0:
            return x.to(recent.dtype), recent
        past = torch.cat([recent, x.to(recent.dtype)], 1)
        step = torch.arange(steps, device=x.device).expand(reset.shape)
        # How far back each step may look: to the last reset, or as far as the state goes.
        reach = step - torch.cat([step.new_full((len(reset), 1), -taps), step.where(reset, -taps)], 1).cummax(1).values[:, 1:]
        weight = self.weight.to(past.dtype)
        mixed: Tensor = _Convolve.apply(past, weight, reach) if past.device.type == "cpu" else _convolve(past, weight, reach)
        forgotten = reach[:, -1:] < torch.arange(taps - 2, -1, -1, device=x.device)
        return mixed, past[:, steps:].masked_fill(forgotten[..., None], 0.0)


def _convolve(past: Tensor, weight: Tensor, reach: Tensor) -> Tensor:
    """Each tap where it may look: nothing that a GPU would have to wait for."""
    steps = reach.shape[1]
    mixed = torch.zeros_like(past[:, :steps])
    for lag, tap in enumerate(weight):
        first = past.shape[1] - steps - lag
        mixed = mixed + tap * past[:, first : first + steps].masked_fill((reach < lag)[..., None], 0.0)
    return mixed


class _Convolve(torch.autograd.Function):
    """All steps as if there were no resets, a pass over everything for each tap; then the few that a reset cuts short anew.

    Products and sums apart: fused, the rest of a row that does not fill a vector would be rounded otherwise than the same in another split.
    """

    @staticmethod
    def forward(ctx: Any, past: Tensor, weight: Tensor, reach: Tensor) -> Tensor:
        ctx.save_for_backward(past, weight, reach)
        steps = reach.shape[1]
        mixed = past[:, -steps:] * weight[0]
        for lag, tap in enumerate(weight[1:], 1):
            mixed += past[:, -steps - lag : -lag] * tap
        row, step, there = _cut_short(past, weight, reach)
        # In the same order, so that rounding is the same where a later call finds zeros in the state instead of a reset.
        few = there[:, 0] * weight[0]
        for lag, tap in enumerate(weight[1:], 1):
            few += there[:, lag] * tap
        mixed[row, step] = few
        return mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        past, weight, reach = ctx.saved_tensors
        steps, lags = reach.shape[1], torch.arange(len(weight), device=past.device)
        row, step, there = _cut_short(past, weight, reach)
        of_those = grad[row, step]
        rest = grad.index_put((row, step), grad.new_zeros(()))
        grad_past, grad_weight = torch.zeros_like(past), (there * of_those[:, None]).sum(0)
        for lag, tap in enumerate(weight):
            first = past.shape[1] - steps - lag
            grad_past[:, first : first + steps] += rest * tap
            grad_weight[lag] += (rest * past[:, first : first + steps]).sum((0, 1))
        to_there = (of_those[:, None] * weight).masked_fill_(reach[row, step, None, None] < lags[:, None], 0.0)
        grad_past.index_put_((row[:, None], past.shape[1] - steps + step[:, None] - lags), to_there, accumulate=True)
        return grad_past, grad_weight, None


def _cut_short(past: Tensor, weight: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and steps [n] that a reset keeps from looking back all the way, and what their taps find, [n, taps, D]."""
    lags = torch.arange(len(weight), device=past.device)
    row, step = (reach < len(weight) - 1).nonzero(as_tuple=True)
    there = past[row[:, None], past.shape[1] - reach.shape[1] + step[:, None] - lags]
    return row, step, there.masked_fill_(reach[row, step, None, None] < lags[:, None], 0.0)
