"""A diagonal state-space layer that selects by its input, in residual blocks (Gu and Dao 2023, Mamba, algorithm 2).

    u_t = silu(convolution over time of W_u x_t)
    Delta_t = softplus(W_2 W_1 u_t + b),   B_t = W_B u_t,   C_t = W_C u_t
    h_t[d, n] = exp(Delta_t[d] A[d, n]) h_{t-1}[d, n] + Delta_t[d] B_t[n] u_t[d]
    y_t[d] = sum_n C_t[n] h_t[d, n] + S[d] u_t[d]
    out_t = W_o (y_t * silu(W_z x_t))

A is negative, held to zero-order for the decay and to first order for the input, as published. Left out: the convolution's bias, and
the doubled inner width, since the stack has perceptrons.
State per row: layers D (N + taps - 1) numbers; learning keeps three times B T D N in memory, on a CPU in single precision a sixteenth of
B T D N. A reset replaces h_{t-1} by zero, and what the convolution saw before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from memory.convolution import CausalConvolution
from memory.kernels.selective_scan import selective_scan
from memory.memory import Memory, require_positive
from memory.stack import Stack


class SSMState(NamedTuple):
    """recent: the convolution's last inputs; None without one."""

    hidden: Float[Tensor, "B D N"]
    recent: Float[Tensor, "B R D"] | None


@dataclass(frozen=True)
class SSMConfig:
    """width: D, the number of channels. states: N, the numbers that each channel keeps. layers: residual blocks. taps: of the convolution
    over time, each channel alone; 1 for none.
    """

    width: int = 128
    states: int = 16
    layers: int = 2
    taps: int = 4

    def __post_init__(self) -> None:
        require_positive("SSMConfig.width", self.width)
        require_positive("SSMConfig.states", self.states)
        require_positive("SSMConfig.layers", self.layers)
        require_positive("SSMConfig.taps", self.taps)

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [SSM(self.width, self.states, self.taps) for _ in range(self.layers)])


def step_size_bias(count: int) -> Float[Tensor, "count"]:
    """As published: b such that softplus(b) is spread evenly over the orders of magnitude from 0.001 to 0.1."""
    return torch.empty(count).uniform_(log(1e-3), log(1e-1)).exp().expm1().log()


class SSM(Memory):
    """One layer, from width D to width D."""

    def __init__(self, width: int, states: int, taps: int) -> None:
        super().__init__(width, width)
        self.states = states
        rank = ceil(width / 16)
        self.inwards = nn.Linear(width, 2 * width, bias=False)
        self.convolution = CausalConvolution(width, taps) if taps > 1 else None
        self.selects = nn.Linear(width, rank + 2 * states, bias=False)
        self.step_size = nn.Linear(rank, width)
        # As published: A = -1..-N.
        self.log_rate = nn.Parameter(torch.arange(1.0, states + 1).log().expand(width, states).clone())
        self.skip = nn.Parameter(torch.ones(width))
        nn.init.uniform_(self.step_size.weight, -(rank**-0.5), rank**-0.5)
        self.step_size.bias = nn.Parameter(step_size_bias(width))
        self.outwards = nn.Linear(width, width, bias=False)

    @property
    def state_size(self) -> int:
        return self.outputs * self.states + (self.convolution.state_size if self.convolution else 0)

    def start(self, batch_size: int) -> SSMState:
        hidden = self.skip.new_zeros(batch_size, self.outputs, self.states)
        return SSMState(hidden, self.convolution.start(batch_size) if self.convolution else None)

    def forward(self, x: Float[Tensor, "B T E"], state: SSMState, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], SSMState]:
        u, gate, recent = self._enter(x, state.recent, reset)
        size, b, c = self._select(u)
        u = u.to(self.skip.dtype)
        y, hidden = selective_scan(size, u, self.log_rate.exp(), b, c, state.hidden, reset)
        return self.outwards((y + self.skip * u) * silu(gate)), SSMState(hidden, recent)

    def inspect(self, x: Float[Tensor, "B T E"], state: SSMState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """step_size: Delta_t, [B, T, D]; a channel's slowest number keeps exp(-Delta_t) of itself as the layer starts out."""
        u, _, _ = self._enter(x, state.recent, reset)
        return {"step_size": self._select(u)[0]}

    def _enter(self, x: Float[Tensor, "B T E"], recent: Tensor | None, reset: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor, Tensor | None]:
        """u and the gate W_z x, both [B, T, D], and the convolution's last inputs."""
        u, gate = self.inwards(x).chunk(2, -1)
        if self.convolution:
            u, recent = self.convolution(u, recent, reset)
        return silu(u), gate, recent

    def _select(self, u: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Delta [B, T, D], B [B, T, N] and C [B, T, N], in the state's type."""
        rank = self.step_size.in_features
        low, b, c = self.selects(u).split([rank, self.states, self.states], -1)
        dtype = self.skip.dtype
        return softplus(self.step_size(low).to(dtype)), b.to(dtype), c.to(dtype)
