"""Numba's compiler as the kernels use it, and what must be asked before compiled code is let loose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from torch import Tensor

# Infinities and what is not a number stay what they are. A product and a sum may be fused; in the second, sums may be reordered, too, which
# they must be to become vectors where numbers are added up.
AS_WRITTEN = frozenset({"contract", "nsz"})
REORDERED = AS_WRITTEN | {"reassoc"}


def compiled(*, fastmath: Iterable[str] = REORDERED) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function when first called; it lets go of Python's lock. fastmath: what LLVM may do with floating-point numbers.

    Numba keeps what it compiled for other processes until the function's own file changes. Kernels call one another's functions, so that
    it is kept here until any of their files does.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        made = numba.njit(function, nogil=True, cache=True, error_model="numpy", fastmath=set(fastmath))
        # There is no public way to say what else a function depends on. None where nothing is kept, or compiled.
        kept = getattr(getattr(made, "_cache", None), "_cache_file", None)
        if kept is not None:
            kept._source_stamp = (kept._source_stamp, _digest())
        return made

    return decorate


@cache
def _digest() -> str:
    """Of all kernels' files as this process found them, and of this one, which says what is asked of the compiler."""
    files = [Path(__file__), *sorted(Path(__file__).parent.glob("*_numba.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def require_shapes(**sides: tuple[Tensor | None, tuple[int, ...]]) -> None:
    """Raises ValueError for the first that is there in another shape than beside it: compiled code would read and write elsewhere."""
    for name, (side, shape) in sides.items():
        if side is not None and side.shape != shape:
            raise ValueError(f"{name} is {list(side.shape)}; want {list(shape)}")
