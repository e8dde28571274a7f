"""The minimal GRU: a gated average whose gate does not see the state, in residual blocks (Feng et al. 2024, section 3.1).

    z_t = sigmoid(W_z x_t + b_z)
    c_t = W_h x_t + b_h
    h_t = (1 - z_t) * h_{t-1} + z_t * c_t

The paper's own program keeps h positive so that it can scan logarithms; `linear_scan` needs no logarithms, so c_t is what section 3.1 says.
State per row: layers D numbers. A reset replaces h_{t-1} by zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.kernels.scan import last, linear_scan
from memory.memory import Memory, require_positive
from memory.stack import Stack


class MinGRUState(NamedTuple):
    hidden: Float[Tensor, "B D"]


@dataclass(frozen=True)
class MinGRUConfig:
    """width: D, the number of hidden units of a layer. layers: residual blocks. expansion: hidden width of the perceptrons between them, in
    units of D; 0 leaves them out, which takes a quarter of the time."""

    width: int = 128
    layers: int = 2
    expansion: int = 0

    def __post_init__(self) -> None:
        require_positive("MinGRUConfig.width", self.width)
        require_positive("MinGRUConfig.layers", self.layers)
        if not 0 <= self.expansion <= 64:
            raise ValueError(f"MinGRUConfig.expansion is {self.expansion}; want a whole number from 0 to 64")

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [MinGRU(self.width) for _ in range(self.layers)], self.expansion)


class MinGRU(Memory):
    """One layer, from width D to width D."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.update = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width)

    @property
    def state_size(self) -> int:
        return self.outputs

    def start(self, batch_size: int) -> MinGRUState:
        return MinGRUState(self.update.bias.new_zeros(batch_size, self.outputs))

    def forward(
        self, x: Float[Tensor, "B T E"], state: MinGRUState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MinGRUState]:
        update = torch.sigmoid(self.update(x).to(state.hidden.dtype))
        hidden = linear_scan(1 - update, update * self.candidate(x), state.hidden, reset)
        return hidden, MinGRUState(last(hidden, state.hidden))

    def inspect(self, x: Float[Tensor, "B T E"], state: MinGRUState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """update: z_t, the share of each unit that is written anew, [B, T, D]."""
        return {"update": torch.sigmoid(self.update(x))}
