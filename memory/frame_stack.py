"""Frame stacking (Mnih et al. 2015): the last w inputs side by side, then a perceptron.

    y_t = relu(W_2 relu(W_1 [x_{t-w+1}; ...; x_t] + b_1) + b_2)

Where t - j lies before the row's last reset, x_{t-j} is zero. State per row: (w - 1) E numbers. The control that says how much of what a
memory gains a short and perfect one would gain too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.memory import Memory, require_positive


class FrameStackState(NamedTuple):
    """frames: the last w - 1 inputs, oldest first."""

    frames: Float[Tensor, "B older E"]


@dataclass(frozen=True)
class FrameStackConfig:
    """width: of the hidden layer and of what comes out. frames: w, the inputs side by side; 1 remembers nothing."""

    width: int = 128
    frames: int = 8

    def __post_init__(self) -> None:
        require_positive("FrameStackConfig.width", self.width)
        require_positive("FrameStackConfig.frames", self.frames)

    def build(self, inputs: int) -> FrameStack:
        return FrameStack(inputs, self.width, self.frames)


class FrameStack(Memory):
    def __init__(self, inputs: int, width: int, frames: int) -> None:
        super().__init__(inputs, width)
        self.window = frames
        self.layers = nn.Sequential(nn.Linear(frames * inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    @property
    def state_size(self) -> int:
        return (self.window - 1) * self.inputs

    def start(self, batch_size: int) -> FrameStackState:
        return FrameStackState(next(self.parameters()).new_zeros(batch_size, self.window - 1, self.inputs))

    def forward(
        self, x: Float[Tensor, "B T E"], state: FrameStackState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], FrameStackState]:
        older, steps = self.window - 1, x.shape[1]
        if steps == 0:
            return x.new_zeros(x.shape[0], 0, self.outputs), state
        frames = torch.cat([state.frames, x.to(state.frames.dtype)], 1)
        # Which life a frame belongs to: 0 before this call's first reset, 1 after it, and so on.
        life = nn.functional.pad(reset.cumsum(1), (older, 0))
        another_life = life.unfold(1, self.window, 1) != life[:, older:, None]
        side_by_side = frames.unfold(1, self.window, 1).mT.masked_fill(another_life[..., None], 0.0)
        kept = frames[:, steps:].masked_fill((life[:, steps:] != life[:, -1:])[..., None], 0.0)
        return self.layers(side_by_side.flatten(2)), FrameStackState(kept)
