"""Work for compiled functions that let go of Python's lock, shared out among threads.

Threads of our own and none of Numba's, whose pools do not go together with forks, nor with other threads that call them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


def in_threads(work: Callable[..., Any], count: int, *arguments: Any, threads: int | None = None) -> None:
    """work(first, last, *arguments) for parts of `count` things as even as can be, one for each of PyTorch's threads, or of `threads`."""
    share = -(-count // (threads or torch.get_num_threads()))
    parts = [(first, min(first + share, count)) for first in range(0, count, share)]
    others = [threading.Thread(target=work, args=(*part, *arguments)) for part in parts[1:]]
    for other in others:
        other.start()
    if parts:
        work(*parts[0], *arguments)
    for other in others:
        other.join()
