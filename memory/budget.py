"""Memories of equal size: comparing two says something about their design only if both have as many parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch

from memory.memory import Memory, MemoryConfig

# The widest that `require_positive` lets through, and the largest of the small widths among which the narrowest is sought.
_WIDEST, _NARROW = 65_536, 1_024


def parameters_of(config: MemoryConfig, inputs: int) -> int:
    """How many parameters the memory has."""
    return _size(shape_of(config, inputs))


def check_size(config: MemoryConfig, inputs: int) -> None:
    """Raises ValueError for a memory that no machine holds, before anybody asks the machine for it."""
    numbers = sorted((1, 1, 1, *_numbers(dataclasses.astuple(config))), reverse=True)  # type: ignore[call-overload]
    # To build the shape of a memory takes PyTorch seconds, the first time; what is far from any limit is not worth them.
    if numbers[0] < 4096 and math.prod(numbers[:3]) < 10**6:
        return
    memory = shape_of(config, inputs)
    for count, most, what in ((memory.state_size, 10**8, "numbers per row"), (_size(memory), 10**10, "parameters")):
        if count > most:
            raise ValueError(f"memory is {type(config).__name__} of {count:,} {what}; want at most {most:,}")


def _numbers(values: tuple[Any, ...]) -> Iterator[int]:
    for value in values:
        if isinstance(value, tuple):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield value


def _size(memory: Memory) -> int:
    return sum(parameter.numel() for parameter in memory.parameters())


def shape_of(config: MemoryConfig, inputs: int) -> Memory:
    """The memory without its numbers, which costs none of the machine's and draws nothing from anybody's luck."""
    with torch.device("meta"):
        return config.build(inputs)


def with_parameters(config: MemoryConfig, inputs: int, target: int) -> MemoryConfig:
    """The config, all else equal, whose width gives the number of parameters nearest to `target` (of two as near, the smaller).

    Widths that the config refuses (its heads do not divide them, say) are passed over: those it takes are the multiples of the smallest.
    Raises ValueError where even the smallest has more than `target`, or the largest fewer.
    """
    own: Any = config
    unit = next((width for width in range(1, _NARROW + 1) if _takes(own, width)), own.width)

    def size(units: int) -> int:
        return parameters_of(_widened(config, units * unit), inputs)

    name = type(config).__name__
    if size(1) > target:
        raise ValueError(f"target is {target}; want at least {size(1)}, the parameters of the narrowest {name}")
    # The size grows with the width: `fits` holds no more than the target, `exceeds` more.
    fits, exceeds, widest = 1, 2, _WIDEST // unit
    while size(exceeds) <= target:
        if exceeds >= widest:
            if size(exceeds) == target:
                return _widened(config, exceeds * unit)
            raise ValueError(f"target is {target}; want at most {size(exceeds)}, the parameters of {name} with width {exceeds * unit}")
        fits, exceeds = exceeds, min(2 * exceeds, widest)
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        fits, exceeds = (middle, exceeds) if size(middle) <= target else (fits, middle)
    nearest = fits if target - size(fits) <= size(exceeds) - target else exceeds
    return _widened(config, nearest * unit)


def _takes(config: MemoryConfig, width: int) -> bool:
    # Three times as well: a width may be refused for being odd.
    try:
        _widened(config, width)
        _widened(config, 3 * width)
    except ValueError:
        return False
    return True


def _widened(config: Any, width: int) -> Any:
    # A core is as wide as what holds it.
    core = {"core": _widened(config.core, width)} if hasattr(config, "core") else {}
    return dataclasses.replace(config, width=width, **core)
