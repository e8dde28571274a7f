"""The law of memories, asked in a moment of one that has no tests here: somebody's own, named on the command line."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from memory.memory import Memory, MemoryConfig, State

# Of a trial that is tried, where it is cut, and how near two ways of computing it have to be in single precision.
_ROWS, _CUTS, _TOLERANCE = 3, (0, 1, 2, 5, 9), 1e-3


def check_law(config: MemoryConfig, inputs: int) -> None:
    """Raises ValueError saying which part of the law does not hold, as learners live by it (in training mode): in any split, steps give the
    same outputs, final state and gradients; a state keeps its shapes; and what a row saw before a reset does not matter.
    """
    name = type(config).__name__
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        memory = config.build(inputs)
        if not isinstance(memory, Memory):
            raise ValueError(f"{name}.build made a {type(memory).__name__}; want a Memory, as in memory/memory.py")
        # What begins at zero would hide what it multiplies.
        with torch.no_grad():
            for parameter in memory.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        x, reset = torch.randn(_ROWS, _CUTS[-1], inputs, requires_grad=True), torch.rand(_ROWS, _CUTS[-1]) < 0.3
        reset[:, 0], reset[0, 1:] = True, False
        whole, last = memory(x, memory.start(_ROWS), reset)
        if whole.shape != (_ROWS, _CUTS[-1], memory.outputs):
            raise ValueError(f"{name}'s outputs are {list(whole.shape)}; want [B, T, D], here {[_ROWS, _CUTS[-1], memory.outputs]}")
        (gradient,) = torch.autograd.grad(whole.square().sum(), x)
        parts, after = _in_parts(memory, x, reset)
        (again,) = torch.autograd.grad(parts.square().sum(), x)
        broken = f"{name} breaks the law of memories: one call over {_CUTS[-1]} steps and calls over some each"
        _compare(f"{broken} give outputs", parts, whole)
        for found, wanted in zip(_leaves(after, name), _leaves(last, name), strict=True):
            _compare(f"{broken} end with states", found.double(), wanted.double())
        _compare(f"{broken} give gradients", again, gradient)
        used, _ = memory(x, after, reset)
        _compare(f"{name} breaks the law of memories: what was seen before a reset, and nothing, give outputs", used, whole)


def _in_parts(memory: Memory, x: Tensor, reset: Tensor) -> tuple[Tensor, State]:
    outputs, state, name = [], memory.start(_ROWS), type(memory).__name__
    shapes = _shapes(state, name)
    for first, end in itertools.pairwise(_CUTS):
        y, state = memory(x[:, first:end], state, reset[:, first:end])
        outputs.append(y)
        if _shapes(state, name) != shapes:
            raise ValueError(f"{name}'s state begins as {_told(shapes)} and is {_told(_shapes(state, name))} after a step; want the same")
    return torch.cat(outputs, 1), state


def _leaves(state: State, name: str) -> list[Tensor]:
    """Its tensors, [B, ...] each."""
    if state is None:
        return []
    if isinstance(state, Tensor):
        if state.shape[:1] != (_ROWS,):
            raise ValueError(f"{name}'s state holds {list(state.shape)}; want [B, ...], here B is {_ROWS}")
        return [state]
    if not isinstance(state, tuple):
        raise ValueError(f"{name}'s state is or holds a {type(state).__name__}; want a NamedTuple of tensors")
    return [leaf for part in state for leaf in _leaves(part, name)]


def _shapes(state: State, name: str) -> list[tuple[torch.Size, torch.dtype]]:
    return [(leaf.shape, leaf.dtype) for leaf in _leaves(state, name)]


def _told(shapes: list[tuple[torch.Size, torch.dtype]]) -> str:
    return ", ".join(f"{str(dtype).removeprefix('torch.')} {list(shape)}" for shape, dtype in shapes) or "nothing"


def _compare(what: str, found: Tensor, wanted: Tensor) -> None:
    apart = (found - wanted).abs().max().item() if found.numel() else 0.0
    if not apart <= _TOLERANCE * max(1.0, wanted.abs().max().item() if wanted.numel() else 0.0):
        raise ValueError(f"{what} that are {apart:.3g} apart; want the same (docs/adding.md)")
