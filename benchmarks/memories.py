"""What each memory costs, acting and learning, beside PyTorch's own layers: `python -m benchmarks.memories [--help]`.

Acting: microseconds per agent and step, after trials of some lengths. A row's state is made once and given to all rows; a figure is the
mean over the steps that fit a third of a second, the median of three turns. "-" where the states alone would take more than `--gigabytes`.

Learning: thousands of tokens per second, forward and backward, one step in a hundred a reset (PyTorch's layers know no resets), the median
of as many turns. "*" where one turn took longer than `--patience` and the first, with its warming up, is all there is; "(N rows)" where no
more fit, by what one row keeps for the way back. Without a GPU the shapes have an eighth of the rows. Of a memory in residual blocks also
one mixer alone, which is what one nn.GRU is to be compared with: blocks have two layers, and most have perceptrons. TorchRL's GRU, which
does know resets, where it is installed.

Both: random inputs as wide as the memory, float32 (or bfloat16, by autocast), settings as they are by default but for the width.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import verdict
from memory import MEMORIES
from memory.memory import Memory, State
from memory.stack import Stack
from training.allocator import keep_freed_memory
from training.settings import load
from training.tree import map_leaves, rows_of

TURNS = 3
# Seconds of acting in one turn, and the most steps: some cycles of memories that do more work every sixteenth step, say.
WINDOW, STEPS = 0.33, 64
# Shapes of learning: rows, steps, width.
SHAPES = ((2048, 100, 128), (256, 512, 256), (64, 2048, 256))
# Memories that compute all steps of a trial at once, and from how many steps on that should pay.
PARALLEL = (
    "mingru",
    "ssm",
    "aaren",
    "linear_attention",
    "gated_linear",
    "delta_rule",
    "lightnet",
    "rat",
    "pararnn_gru",
    "pararnn_lstm",
)
LONG = 512


class Attention(nn.Module):
    """One layer of causal self-attention over the whole trial."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", nargs="+", default=list(MEMORIES), choices=MEMORIES, metavar="NAME", help="default: all")
    parser.add_argument("--only", choices=("acting", "learning"))
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 64, 4096], help="of acting")
    parser.add_argument("--trials", nargs="+", type=int, default=[100, 1000, 10_000], help="of acting: steps that the state has seen")
    parser.add_argument("--shapes", nargs="+", type=_shape, help="of learning: ROWSxSTEPSxWIDTH")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast, on a GPU")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="the most that all states, or all that is kept, may take")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds that a turn may take")
    options = parser.parse_args()
    if options.dtype == "bfloat16" and options.device != "cuda":
        parser.error(f"--dtype is bfloat16 and --device {options.device}; want cuda, for PyTorch's own layers have no bfloat16 elsewhere")
    keep_freed_memory()
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; PyTorch {torch.__version__}, {options.dtype}", flush=True)
    met = True
    if options.only != "learning":
        with computing_in(options.dtype, options.device):
            met = acting(options.memories, options.rows, options.trials, options.device, options.gigabytes)
    if options.only == "acting":
        return 0 if met else 1
    share = 1 if options.device == "cuda" else 8
    shapes = options.shapes or [(rows // share, steps, width) for rows, steps, width in SHAPES]
    return 0 if learning(options.memories, shapes, options.device, options.patience, options.gigabytes, options.dtype) and met else 1


def acting(names: Sequence[str], rows: Sequence[int], trials: Sequence[int], device: str, gigabytes: float) -> bool:
    """Whether no memory acts more slowly late in a long trial: all are bounded, and by the last length but one those that fill are full."""
    growth: dict[str, list[float]] = {}
    lengths = "".join(f"{length:>10,}" for length in trials)
    print("\nacting, microseconds per agent and step\n" + f"{'memory':<22}{'rows':>6}{'kB a row':>10}  after{lengths} steps", flush=True)
    for name in names:
        memory = built(name, 128, device)
        with torch.no_grad():
            states = [seen(memory, length, device) for length in trials]
            for count in rows:
                kilobytes = 4 * memory.state_size / 1e3
                fits = count * kilobytes < 1e6 * gigabytes
                taken = _acting(memory, count, states) if fits else []
                if fits and len(trials) > 1:
                    growth.setdefault(name, []).append(taken[-1] / taken[-2])
                figures = [f"{1e6 * each / count:,.3g}" for each in taken] or ["-"] * len(trials)
                print(f"{name:<22}{count:>6,}{kilobytes:>10,.1f}       " + "".join(f"{figure:>10}" for figure in figures), flush=True)
    if not growth:
        return True
    # The least of its rows, for a machine has hiccups and a memory that slows down does so in all.
    slower = {name: min(ratios) for name, ratios in growth.items()}
    worst = max(slower, key=slower.__getitem__)
    what = f"acting after {trials[-1]:,} steps in units of acting after {trials[-2]:,}, the slowest to stay the same ({worst})"
    return verdict(what, slower[worst], 1.25, "times", at_least=False)


def _acting(memory: Memory, rows: int, states: Sequence[State]) -> list[float]:
    """Seconds of a step, by state."""
    times: list[list[float]] = [[] for _ in states]
    for _ in range(TURNS):
        for state, taken in zip(states, times, strict=True):
            taken.append(step_time(memory, rows_of(state, torch.zeros(rows, dtype=torch.int64)), rows))
    return [statistics.median(taken) for taken in times]


def built(name: str, width: int, device: str) -> Memory:
    return replace(load(MEMORIES[name])(), width=width).build(width).to(device)


def seen(memory: Memory, steps: int, device: str) -> State:
    """The state of one row in the middle of a trial. In pieces, so that memory for their outputs does not grow."""
    state = memory.start(1)
    for first in range(0, steps, 1000):
        x = torch.randn(1, min(1000, steps - first), memory.inputs, device=device)
        reset = torch.zeros(x.shape[:2], dtype=torch.bool, device=device)
        reset[:, 0] = first == 0
        _, state = memory(x, state, reset)
    return map_leaves(Tensor.clone, state)


def step_time(memory: Memory, state: State, rows: int) -> float:
    """Seconds per step, the first left out, as warming up."""
    x = torch.randn(rows, 1, memory.inputs, device=_device(memory))
    reset = torch.zeros(rows, 1, dtype=torch.bool, device=x.device)
    _, state = memory(x, state, reset)
    finish(x.device)
    begin, steps = time.perf_counter(), 0
    while steps == 0 or (steps < STEPS and (x.is_cuda or time.perf_counter() - begin < WINDOW)):
        _, state = memory(x, state, reset)
        steps += 1
    finish(x.device)
    return (time.perf_counter() - begin) / steps


def computing_in(dtype: str, device: str) -> AbstractContextManager[object]:
    return nullcontext() if dtype == "float32" else torch.autocast(device, torch.bfloat16)


def learning(
    names: Sequence[str],
    shapes: Sequence[tuple[int, int, int]],
    device: str,
    patience: float,
    gigabytes: float,
    dtype: str = "float32",
) -> bool:
    """Whether nothing that should be as quick as `nn.GRU` is slower."""
    met = []
    for rows, steps, width in shapes:
        print(
            f"\nlearning, {rows} rows of {steps} steps, width {width}, {dtype}: thousands of tokens per second, and of nn.GRU's", flush=True
        )
        memories: dict[str, Memory] = {}
        for name in names:
            memory = memories[name] = built(name, width, device)
            if isinstance(memory, Stack):
                memories[f"{name}, its mixer"] = memory.layers[0].mixer
        fit = {name: min(rows, max(1, int(1e9 * gigabytes / kept(memory, steps)))) for name, memory in memories.items()}
        works = {name: _memory_work(memory, fit[name], steps, dtype) for name, memory in memories.items()}
        references = {"nn.GRU": nn.GRU(width, width, batch_first=True), "nn.LSTM": nn.LSTM(width, width, batch_first=True)}
        references["scaled_dot_product"] = Attention(width)
        works |= {name: _reference_work(layer.to(device), rows, steps, width, dtype) for name, layer in references.items()}
        if find_spec("torchrl"):
            works["TorchRL's GRU"] = _torchrl_work(rows, steps, width, device, dtype)
        times = in_turns(works, device, patience)
        speeds = {name: fit.get(name, rows) * steps / statistics.median(taken) for name, taken in times.items()}
        shares = {name: speed / speeds["nn.GRU"] for name, speed in speeds.items()}
        for name, taken in times.items():
            mark = "*" if len(taken) == 1 else " "
            fewer = f"  ({fit[name]} rows)" if fit.get(name, rows) < rows else ""
            print(f"{name:<28}{speeds[name] / 1e3:>10,.1f}{mark}{shares[name]:>10.2f}{fewer}", flush=True)
        wanted = ["gru"] if device == "cpu" and "gru" in names else []
        wanted += [f"{name}, its mixer" for name in PARALLEL if name in names and steps >= LONG]
        met += [verdict(f"{name} at {steps} steps", shares[name], 1.0, "times nn.GRU's speed") for name in wanted]
    return all(met)


def in_turns(works: dict[str, Callable[[], object]], device: str, patience: float) -> dict[str, list[float]]:
    """Seconds of each turn, after one to warm up; of that one where it took too long to be repeated."""
    times: dict[str, list[float]] = {}
    slow = set()
    for turn in range(TURNS + 1):
        for name, work in works.items():
            if name in slow:
                continue
            begin = time.perf_counter()
            work()
            finish(torch.device(device))
            taken = time.perf_counter() - begin
            if turn == 0 and taken > patience:
                slow.add(name)
            if turn > 0 or name in slow:
                times.setdefault(name, []).append(taken)
    return {name: times[name] for name in works}


def kept(memory: Memory, steps: int) -> int:
    """Bytes that learning keeps of one row for the way back."""
    storages: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return x

    weights = {parameter.untyped_storage().data_ptr() for parameter in memory.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        x, reset = _inputs(memory, 1, steps)
        y, _ = memory(x, memory.start(1), reset)
    return y.nbytes + sum(size for place, size in storages.items() if place not in weights)


def _inputs(memory: Memory, rows: int, steps: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, steps, memory.inputs, device=_device(memory), requires_grad=True)
    reset = torch.rand(rows, steps, device=x.device) < 0.01
    reset[:, 0] = True
    return x, reset


def _memory_work(memory: Memory, rows: int, steps: int, dtype: str) -> Callable[[], object]:
    x, reset = _inputs(memory, rows, steps)

    def work() -> None:
        with computing_in(dtype, x.device.type):
            y, _ = memory(x, memory.start(rows), reset)
        y.sum().backward()

    return work


def _torchrl_work(rows: int, steps: int, width: int, device: str, dtype: str) -> Callable[[], object]:
    """Its module learns from whole trajectories with resets at `is_init`, all of them cut apart and padded."""
    from tensordict import TensorDict
    from torchrl.modules import GRUModule, set_recurrent_mode

    module = GRUModule(input_size=width, hidden_size=width, in_key="x", out_key="y", device=device)
    x = torch.randn(rows, steps, width, device=device, requires_grad=True)
    is_init = torch.rand(rows, steps, 1, device=device) < 0.01
    is_init[:, 0] = True
    state = torch.zeros(rows, steps, 1, width, device=device)

    def work() -> None:
        lived = TensorDict({"x": x, "is_init": is_init, "recurrent_state": state}, [rows, steps])
        with set_recurrent_mode(True), computing_in(dtype, device):
            y = module(lived)["y"]
        y.sum().backward()

    return work


def _reference_work(layer: nn.Module, rows: int, steps: int, width: int, dtype: str) -> Callable[[], object]:
    x = torch.randn(rows, steps, width, device=_device(layer), requires_grad=True)

    def work() -> None:
        with computing_in(dtype, x.device.type):
            y: Any = layer(x)
        (y[0] if isinstance(y, tuple) else y).sum().backward()

    return work


def finish(device: torch.device) -> None:
    """Waits for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _shape(text: str) -> tuple[int, int, int]:
    rows, steps, width = (int(part) for part in text.split("x"))
    return rows, steps, width


if __name__ == "__main__":
    sys.exit(main())
