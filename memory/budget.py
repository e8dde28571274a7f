"""Memories of equal size: comparing two says something about their design only if both have as many parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch

from memory.memory import MemoryConfig

# The widest that `require_positive` lets through, and the largest of the small widths among which the narrowest is sought.
_WIDEST, _NARROW = 65_536, 1_024


def parameters_of(config: MemoryConfig, inputs: int) -> int:
    """How many parameters the memory has. Builds it without memory for its numbers, and draws nothing from anybody's luck."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in config.build(inputs).parameters())


def check_size(config: MemoryConfig, inputs: int) -> None:
    """Raises ValueError for a memory that no machine holds, before anybody asks the machine for it."""
    numbers = sorted((number for number in _numbers(dataclasses.astuple(config)) if number > 0), reverse=True)  # type: ignore[call-overload]
    # To build even the shape of a memory takes PyTorch a second, the first time; few settings are worth it.
    if math.prod(numbers[:3]) < 10**7:
        return
    with torch.device("meta"):
        memory = config.build(inputs)
    parameters = sum(parameter.numel() for parameter in memory.parameters())
    for count, most, what in ((memory.state_size, 10**8, "numbers per row"), (parameters, 10**10, "parameters")):
        if count > most:
            raise ValueError(f"memory is {type(config).__name__} of {count:,} {what}; want at most {most:,}")


def _numbers(values: tuple[Any, ...]) -> Iterator[int]:
    for value in values:
        if isinstance(value, tuple):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield value


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
    fits, exceeds = 1, 2
    while size(exceeds) <= target:
        fits, exceeds = exceeds, 2 * exceeds
        if exceeds * unit > _WIDEST:
            raise ValueError(f"target is {target}; want at most {size(fits)}, the parameters of {name} with width {fits * unit}")
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
