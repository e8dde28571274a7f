"""Work for compiled functions that let go of Python's lock, shared out among threads.

Threads of our own and none of Numba's, whose pools do not go together with forks, nor with other threads that call them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


def in_threads(work: Callable[..., Any], count: int, *arguments: Any, threads: int | None = None) -> None:
    """work(first, last, *arguments) for parts of `count` things as even as can be, one for each of PyTorch's threads, or of `threads`.

    Returns when all have ended. Raises what the first of them raised that failed.
    """
    if count == 0:
        return
    share = -(-count // (threads or torch.get_num_threads()))
    problems: list[BaseException] = []

    def part(first: int) -> None:
        try:
            work(first, min(first + share, count), *arguments)
        except BaseException as problem:
            problems.append(problem)

    others = [threading.Thread(target=part, args=(first,)) for first in range(share, count, share)]
    for other in others:
        other.start()
    part(0)
    for other in others:
        other.join()
    if problems:
        raise problems[0]
