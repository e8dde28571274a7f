"""A rollout whose step is captured once in a CUDA graph and then replayed: on a GPU, launching small kernels one by one is what costs.

The same code runs on a CPU, where the step is simply called; so its bookkeeping is tested without a GPU.
"""

from __future__ import annotations

from typing import Any

import torch

from training import tree
from training.rollout import Rollout, Step, Table

# Runs before capture, so that libraries have allocated what they keep.
WARM_UPS = 3


class CapturedRollout:
    """Plays like `Rollout.play`, on tensors that stay where they are. The occupants' weights are read where they are, too.

    Games and occupants whose step waits for the device cannot be captured; capturing then raises RuntimeError.
    """

    def __init__(self, rollout: Rollout, table: Table, steps: int) -> None:
        self.rollout = rollout
        self.steps = steps
        self._table: Table = tree.map_leaves(torch.clone, table)
        self._clock = torch.zeros(1, dtype=torch.int64, device=rollout.device)
        _, sample = rollout.step(table)
        self._log: Any = tree.map_leaves(lambda leaf: leaf.new_empty((steps, *leaf.shape)), sample)
        self._graph = self._capture() if rollout.device.type == "cuda" else None

    def play(self, table: Table) -> tuple[Table, Step]:
        """Plays `steps` steps from a table. What it returns is overwritten by the next call."""
        tree.map_leaves(lambda kept, new: kept.copy_(new), self._table, table)
        self._clock.zero_()
        for _ in range(self.steps):
            if self._graph is not None:
                self._graph.replay()
            else:
                self._advance()
        return self._table, self._log

    @torch.no_grad()
    def _advance(self) -> None:
        after, step = self.rollout.step(self._table)
        # A state may hand one of its tensors on under another name: none may be overwritten before all are read.
        after = tree.map_leaves(torch.clone, after)
        tree.map_leaves(lambda kept, leaf: kept.index_copy_(0, self._clock, leaf[None]), self._log, step)
        tree.map_leaves(lambda kept, leaf: kept.copy_(leaf), self._table, after)
        self._clock.add_(1)

    def _capture(self) -> Any:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._clock.zero_()
                self._advance()
        torch.cuda.current_stream().wait_stream(stream)
        self._clock.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        return graph
