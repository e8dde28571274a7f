"""The C library's allocator, told to keep what is freed.

Rollouts and updates allocate the same large tensors over and over. glibc hands each back to the kernel, which zeroes its pages anew the
next time: about half the time of training a GRU on two cores went there (docs/log.md).
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """For this process, from now on. Says whether it could be done (glibc only)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
