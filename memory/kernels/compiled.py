"""Numba's compiler as the kernels use it.

Numba keeps what it compiled for other processes, and compiles anew when a function's own file has changed, but not when that of a function
which it calls has. Kernels call one another's functions; what is kept therefore lies in a directory named after all their files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
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
        config.CACHE_DIR = str(_kept_in(Path(before) if before else None))
        try:
            return numba.njit(function, nogil=True, cache=True, error_model="numpy", fastmath=set(fastmath))
        finally:
            config.CACHE_DIR = before

    return decorate


def _kept_in(chosen: Path | None) -> Path:
    """chosen: what the person says, by NUMBA_CACHE_DIR."""
    here = Path(__file__).parent
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(here.glob("*_numba.py")))).hexdigest()[:16]
    default = here / "__pycache__" if os.access(here, os.W_OK) else Path.home() / ".cache" / "coterie"
    return (chosen or default) / f"kernels-{digest}"
