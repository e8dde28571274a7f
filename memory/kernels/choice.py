"""Which version of a kernel runs: Triton's on a GPU that it can serve, Numba's on a CPU where there is one, else plain PyTorch."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

# What was found on first use, by kernel; not looked for again, which torch.compile could not follow.
_COMPILED: dict[str, ModuleType | None] = {}


def numba_version(kernel: str, *inputs: Tensor) -> ModuleType | None:
    """`memory.kernels.<kernel>_numba`, if it takes these inputs, of which the first is on the device that is meant; else None.

    Where Numba is there but does not work (it finds no place to keep what it compiles, say), that becomes a RuntimeWarning, once.
    """
    if inputs[0].device.type != "cpu":
        return None
    if kernel not in _COMPILED:
        _COMPILED[kernel] = _compiled(kernel)
    module = _COMPILED[kernel]
    return None if module is None or module.refused(*inputs) is not None else module


def _compiled(kernel: str) -> ModuleType | None:
    if not _has("numba"):
        return None
    try:
        return import_module(f"memory.kernels.{kernel}_numba")
    except (ImportError, RuntimeError) as error:
        warnings.warn(f"{kernel} runs in plain PyTorch, which is slower: {error}", RuntimeWarning, stacklevel=4)
        return None


def triton_version(kernel: str, *inputs: Tensor) -> ModuleType | None:
    """`memory.kernels.<kernel>_triton`, if it takes these inputs, of which the first is on the device that is meant; else None.

    A module's `refused(*inputs)` says why it does not take them. Where a GPU could have been faster, that becomes a RuntimeWarning, once.
    """
    if not inputs[0].is_cuda:
        return None
    if not _has("triton"):
        _say(kernel, "Triton is not installed")
        return None
    module = import_module(f"memory.kernels.{kernel}_triton")
    reason = module.refused(*inputs)
    if reason is None:
        return module
    _say(kernel, reason)
    return None


@cache
def _has(name: str) -> bool:
    return find_spec(name) is not None


@cache
def _say(kernel: str, reason: str) -> None:
    warnings.warn(f"{kernel} runs in plain PyTorch, which is slower on a GPU: {reason}", RuntimeWarning, stacklevel=3)
