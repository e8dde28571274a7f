"""A short causal convolution over time, each channel alone: y_t = sum_{lag < taps} w_lag * x_{t - lag}, none of it from before a reset."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from memory.kernels.choice import numba_version


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
        fast = numba_version("convolution", past)
        mixed: Tensor = (fast.convolve if fast else convolve_plainly)(past, weight, reach)
        forgotten = reach[:, -1:] < torch.arange(taps - 2, -1, -1, device=x.device)
        return mixed, past[:, steps:].masked_fill(forgotten[..., None], 0.0)


def convolve_plainly(past: Float[Tensor, "B P D"], weight: Float[Tensor, "taps D"], reach: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """Each tap where it may look: nothing that a GPU would have to wait for."""
    steps = reach.shape[1]
    mixed = torch.zeros_like(past[:, :steps])
    for lag, tap in enumerate(weight):
        first = past.shape[1] - steps - lag
        mixed = mixed + tap * past[:, first : first + steps].masked_fill((reach < lag)[..., None], 0.0)
    return mixed
