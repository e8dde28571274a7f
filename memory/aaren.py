"""Attention as a recurrence: a softmax over all steps so far, by a query that is learned and never changes (Feng et al. 2024, Aaren).

    s_t = <q, W_k x_t> / sqrt(d)
    o_t = sum_{i<=t} softmax(s_1..s_t)_i W_v x_i,     y_t = W_o o_t

for each of H heads of width d = D / H. Because q does not depend on the input, the sum can be carried along (section 3.2): the paper's
running maximum m, numerator a and denominator c are kept as z = m + log c and o = a / c. A single layer is a learned weighted average;
layers in residual blocks make the later ones' keys depend on the past.
State per row: layers (H + D) numbers. A reset empties the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.kernels.scan import NOTHING, SoftmaxState, log_sum_scan, newest_weight, softmax_scan
from memory.memory import Memory, require_divisor, require_positive
from memory.stack import Stack


@dataclass(frozen=True)
class AarenConfig:
    """width: D. heads: H, which divides D. layers: residual blocks."""

    width: int = 128
    heads: int = 4
    layers: int = 2

    def __post_init__(self) -> None:
        require_positive("AarenConfig.width", self.width)
        require_divisor("AarenConfig.heads", self.heads, "width", self.width)
        require_positive("AarenConfig.layers", self.layers)

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [Aaren(self.width, self.heads) for _ in range(self.layers)])


class Aaren(Memory):
    """One layer, from width D to width D."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, width)
        self.heads = heads
        self.query = nn.Parameter(torch.empty(heads, width // heads).normal_())
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    @property
    def state_size(self) -> int:
        return self.heads + self.outputs

    def start(self, batch_size: int) -> SoftmaxState:
        return SoftmaxState(self.query.new_full((batch_size, self.heads), NOTHING), self.query.new_zeros(batch_size, *self.query.shape))

    def forward(
        self, x: Float[Tensor, "B T E"], state: SoftmaxState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], SoftmaxState]:
        value = self.value(x).unflatten(-1, self.query.shape)
        mean, state = softmax_scan(self._scores(x), value, state, reset)
        return self.output(mean.flatten(2)), state

    def inspect(self, x: Float[Tensor, "B T E"], state: SoftmaxState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """score: s_t. newest: what share of the attention step t gets when it comes; later steps dilute it. Both [B, T, H]."""
        score = self._scores(x)
        log_weight = log_sum_scan(score, state.log_weight, reset)
        return {"score": score, "newest": newest_weight(score, log_weight, state.log_weight, reset)}

    def _scores(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T H"]:
        key = self.key(x).unflatten(-1, self.query.shape).to(self.query.dtype)
        return (key * self.query).sum(-1) * self.query.shape[1] ** -0.5
