"""What every memory is, and the one law that all of them obey.

A memory maps inputs `x [B, T, E]` and a state to outputs `[B, T, D]` and the state after them. `reset[b, t]` true means: forget everything
before consuming `x[b, t]`. The law (tested for every entry of `MEMORIES`): folding `forward` one step at a time, in any split of T, gives
the same outputs, final state and gradients as one call over T. So one method serves acting (T = 1) and learning (T = a trial).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

# A NamedTuple of tensors, every leaf [B, ...] with shapes that do not change from step to step.
State = Any


class Memory(nn.Module, ABC):
    """inputs: E, the width of what comes in. outputs: D, the width of what goes out."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.outputs = outputs

    @property
    @abstractmethod
    def state_size(self) -> int:
        """How many numbers a row carries from step to step, by the formula in the module's docstring."""

    @abstractmethod
    def start(self, batch_size: int) -> State:
        """The state of `batch_size` rows that have seen nothing. The first step given to it should reset."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "B T E"], state: State, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], State]: ...

    def inspect(self, x: Float[Tensor, "B T E"], state: State, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """What `forward` looks at on the way, for people: {name: [B, T, ...]}. Never called in playing or training.

        `attention`, by heads where there are any, tells the weights of the steps by how long ago they were, the step itself first, or of
        those at `position`, steps of the trial, the step itself last (`training.looks` puts them into words).
        """
        return {}


@runtime_checkable
class MemoryConfig(Protocol):
    """A frozen dataclass with the memory's settings."""

    def build(self, inputs: int) -> Memory: ...


def for_trials(config: MemoryConfig, steps: int) -> MemoryConfig:
    """The config for trials of so many steps, if it has a method `for_trials`: a store may be as large as a trial needs."""
    fitted: MemoryConfig = config.for_trials(steps) if hasattr(config, "for_trials") else config
    return fitted


def require_positive(name: str, value: int) -> None:
    if not 1 <= value <= 65_536:
        raise ValueError(f"{name} is {value}; want a whole number from 1 to 65,536")


def require_divisor(name: str, value: int, of: str, whole: int) -> None:
    """Raises ValueError unless `value` parts divide `whole` (named `of`) evenly."""
    require_positive(name, value)
    if whole % value:
        fits = ", ".join(str(part) for part in range(1, min(whole, 64) + 1) if whole % part == 0)
        raise ValueError(f"{name} is {value}, which does not divide {of} {whole}; want one of {fits}")
