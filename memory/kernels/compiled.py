"""Numba's compiler as the kernels use it.

Numba keeps what it compiled for other processes, and compiles anew when a function's own file has changed, but not when that of a function
which it calls has, nor when what is asked of the compiler has. Kernels call one another's functions; what is kept therefore lies in a
directory named after all their files, and this one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numba

# Sums may be reordered, for vectors; infinities and what is not a number stay what they are.
REORDERED = frozenset({"contract", "reassoc", "nsz"})


def compiled(*, fastmath: Iterable[str] = REORDERED) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function when first called; it lets go of Python's lock. fastmath: what LLVM may do with floating-point numbers."""

    def decorate(function: Callable[..., Any]) -> Any:
        config: Any = numba.config
        before = config.CACHE_DIR
        config.CACHE_DIR = str((Path(before) if before else _default()) / f"kernels-{_digest()}")
        try:
            return numba.njit(function, nogil=True, cache=True, error_model="numpy", fastmath=set(fastmath))
        finally:
            config.CACHE_DIR = before

    return decorate


def _default() -> Path:
    """Where nobody says otherwise, by NUMBA_CACHE_DIR."""
    here = Path(__file__).parent
    return here / "__pycache__" if os.access(here, os.W_OK) else Path.home() / ".cache" / "coterie"


@cache
def _digest() -> str:
    files = [Path(__file__), *sorted(Path(__file__).parent.glob("*_numba.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
