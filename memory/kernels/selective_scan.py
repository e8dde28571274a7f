"""A diagonal state space whose decay, input and output follow what is seen, over all steps at once (Gu and Dao 2023, Mamba, algorithm 2).

    h_t[d, n] = exp(-size_t[d] rate[d, n]) h_{t-1}[d, n] + size_t[d] u_t[d] b_t[n],     y_t[d] = sum_n c_t[n] h_t[d, n]

A reset replaces h_{t-1} by zero. The plain version keeps three times B T D N numbers for the way back; compiled for a CPU it keeps a
sixteenth of B T D N.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels.choice import numba_version
from memory.kernels.scan import last, linear_scan


def selective_scan(
    size: Float[Tensor, "B T D"],
    u: Float[Tensor, "B T D"],
    rate: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    state: Float[Tensor, "B D N"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """All y_1..y_T and h_T from h_0 = state, in the type of state. size and rate: not below zero. Differentiable once."""
    size, u, rate, b, c = (side.to(state.dtype) for side in (size, u, rate, b, c))
    fast = numba_version("selective_scan", state)
    y, after = (fast.selective_scan if fast else scan_plainly)(size, u, rate, b, c, state, reset)
    return y, after


def scan_plainly(
    size: Tensor, u: Tensor, rate: Tensor, b: Tensor, c: Tensor, state: Tensor, reset: Tensor
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """The same in tensor operations."""
    decay = torch.exp(-size[..., None] * rate)
    written = (size * u)[..., None] * b[:, :, None]
    before = state.flatten(1)
    hidden = linear_scan(decay.flatten(2), written.flatten(2), before, reset)
    y = (hidden.unflatten(2, state.shape[1:]) @ c[..., None]).squeeze(-1)
    return y, last(hidden, before).view_as(state)
