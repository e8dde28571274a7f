"""The law of memories, asked in a moment of one that has no tests here: somebody's own, named on the command line."""

from __future__ import annotations

import torch
from torch import Tensor

from memory.memory import Memory, MemoryConfig, State

# Of a trial that is tried, and how near two ways of computing it have to be in single precision.
_ROWS, _STEPS, _INPUTS, _TOLERANCE = 3, 9, 5, 1e-3


def check_law(config: MemoryConfig) -> None:
    """Raises ValueError saying which part of the law does not hold: one call over all steps gives what one call per step gives, and what a
    row saw before a reset does not matter. (Gradients are for tests.)
    """
    name = type(config).__name__
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        memory = config.build(_INPUTS)
        if not isinstance(memory, Memory):
            raise ValueError(f"{name}.build made a {type(memory).__name__}; want a Memory, as in memory/memory.py")
        memory.eval()
        x, reset = torch.randn(_ROWS, _STEPS, _INPUTS), torch.rand(_ROWS, _STEPS) < 0.3
        reset[:, 0], reset[0, 1:] = True, False
        whole, _ = memory(x, memory.start(_ROWS), reset)
        if whole.shape != (_ROWS, _STEPS, memory.outputs):
            raise ValueError(f"{name}'s outputs are {list(whole.shape)}; want [B, T, D], here {[_ROWS, _STEPS, memory.outputs]}")
        used, state = _step_by_step(memory, x, reset)
        _compare(f"{name} breaks the law of memories: one call over {_STEPS} steps and {_STEPS} calls over one", used, whole)
        again, _ = memory(x, state, reset)
        _compare(f"{name} breaks the law of memories: what was seen before a reset, and nothing,", again, whole)


def _step_by_step(memory: Memory, x: Tensor, reset: Tensor) -> tuple[Tensor, State]:
    outputs, state = [], memory.start(len(x))
    for t in range(x.shape[1]):
        y, state = memory(x[:, t : t + 1], state, reset[:, t : t + 1])
        outputs.append(y)
    return torch.cat(outputs, 1), state


def _compare(what: str, found: Tensor, wanted: Tensor) -> None:
    apart = (found - wanted).abs().max().item()
    if not apart <= _TOLERANCE * max(1.0, wanted.abs().max().item()):
        raise ValueError(f"{what} give outputs that are {apart:.3g} apart; want the same (docs/adding.md)")
