"""Attention as a recurrence: a softmax over all steps so far, by a query that is learned and never changes (Feng et al. 2024, Aaren).

    s_t = <q, W_k x_t> / sqrt(d)
    o_t = sum_{i<=t} softmax(s_1..s_t)_i W_v x_i,     y_t = W_o o_t

for each of H heads of width d = D / H. Because q does not depend on the input, the sum can be carried along (section 3.2): the paper's
running maximum m, numerator a and denominator c are kept as z = m + log c and o = a / c. A single layer is a learned weighted average;
layers in residual blocks make the later ones' keys depend on the past. Where `taps` is above 1 keys and values come from a causal
convolution over time, so that what comes now can be weighed by what came just before; the paper has none.

State per row: layers (H + D) numbers, and layers 2 D (taps - 1) for the convolution. A reset empties the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.convolution import CausalConvolution
from memory.kernels.scan import NOTHING, SoftmaxState, log_sum_scan, newest_weight, softmax_scan
from memory.memory import Memory, require_divisor, require_positive
from memory.stack import Stack


@dataclass(frozen=True)
class AarenConfig:
    """width: D. heads: H, which divides D. layers: residual blocks. taps: of a convolution over time before k and v; 1 for none."""

    width: int = 128
    heads: int = 4
    layers: int = 2
    taps: int = 1

    def __post_init__(self) -> None:
        require_positive("AarenConfig.width", self.width)
        require_divisor("AarenConfig.heads", self.heads, "width", self.width)
        require_positive("AarenConfig.layers", self.layers)
        require_positive("AarenConfig.taps", self.taps)

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [Aaren(self.width, self.heads, self.taps) for _ in range(self.layers)])


class AarenState(NamedTuple):
    """recent: the convolution's last inputs; None without one."""

    sum: SoftmaxState
    recent: Float[Tensor, "B R Q"] | None


class Aaren(Memory):
    """One layer, from width D to width D."""

    def __init__(self, width: int, heads: int, taps: int) -> None:
        super().__init__(width, width)
        self.heads = heads
        self.query = nn.Parameter(torch.empty(heads, width // heads).normal_())
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.convolution = CausalConvolution(2 * width, taps) if taps > 1 else None
        self.output = nn.Linear(width, width, bias=False)

    @property
    def state_size(self) -> int:
        return self.heads + self.outputs + (self.convolution.state_size if self.convolution else 0)

    def start(self, batch_size: int) -> AarenState:
        empty = SoftmaxState(self.query.new_full((batch_size, self.heads), NOTHING), self.query.new_zeros(batch_size, *self.query.shape))
        return AarenState(empty, self.convolution.start(batch_size) if self.convolution else None)

    def forward(
        self, x: Float[Tensor, "B T E"], state: AarenState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], AarenState]:
        score, value, recent = self._enter(x, state.recent, reset)
        mean, after = softmax_scan(score, value, state.sum, reset)
        return self.output(mean.flatten(2)), AarenState(after, recent)

    def inspect(self, x: Float[Tensor, "B T E"], state: AarenState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """score: s_t. newest: what share of the attention step t gets when it comes; later steps dilute it. Both [B, T, H]."""
        score, _, _ = self._enter(x, state.recent, reset)
        log_weight = log_sum_scan(score, state.sum.log_weight, reset)
        return {"score": score, "newest": newest_weight(score, log_weight, state.sum.log_weight, reset)}

    def _enter(self, x: Float[Tensor, "B T E"], recent: Tensor | None, reset: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor, Tensor | None]:
        """s [B, T, H], v [B, T, H, d], and the convolution's last inputs."""
        key, value = self.key(x), self.value(x)
        if self.convolution:
            both, recent = self.convolution(torch.cat([key, value], -1), recent, reset)
            key, value = both.chunk(2, -1)
        score = (key.unflatten(-1, self.query.shape).to(self.query.dtype) * self.query).sum(-1) * self.query.shape[1] ** -0.5
        return score, value.unflatten(-1, self.query.shape), recent
