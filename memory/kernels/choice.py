"""Which version of a kernel runs: Triton's on a GPU that it can serve, Numba's on a CPU where there is one, else plain PyTorch."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor


def numba_version(kernel: str, *inputs: Tensor) -> ModuleType | None:
    """`memory.kernels.<kernel>_numba`, if it takes these inputs, of which the first is on the device that is meant; else None."""
    if inputs[0].device.type != "cpu" or not _has("numba"):
        return None
    module = import_module(f"memory.kernels.{kernel}_numba")
    return module if module.refused(*inputs) is None else None


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
