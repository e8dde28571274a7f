"""No memory at all: a perceptron with one hidden layer, y_t = relu(W_2 relu(W_1 x_t)). The control that every memory must beat.

An agent sees its own last action and reward unless told not to, and can keep a note there: a control for memory has `sees_action=False`
and, where what was earned tells something, `sees_reward=False`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.memory import Memory, require_positive


class NoState(NamedTuple):
    """Zero numbers per row."""


@dataclass(frozen=True)
class NoMemoryConfig:
    """width: of the hidden layer and of what comes out."""

    width: int = 128

    def __post_init__(self) -> None:
        require_positive("NoMemoryConfig.width", self.width)

    def build(self, inputs: int) -> NoMemory:
        return NoMemory(inputs, self.width)


class NoMemory(Memory):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width)
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    @property
    def state_size(self) -> int:
        return 0

    def start(self, batch_size: int) -> NoState:
        return NoState()

    def forward(self, x: Float[Tensor, "B T E"], state: NoState, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], NoState]:
        return self.layers(x), state
