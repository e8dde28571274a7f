"""Everything on one device: `python -m benchmarks.gpu` (a GPU if there is one, else small shapes on the CPU). Needs no Ray.

Rollout and update: PPO, GRU of 128, two epochs, the mixed pool, 100-round prisoner's dilemma; 8,192 games on a GPU, 512 on a CPU.

Rooms in 3D: all renderers that can draw on the device (Warp where `pip install warp-lang` was done), once their tests have passed.

Kernels: each beside its plain version and what others have; none whose test fails. "of best" is the share of what the device could do: the
fewest bytes at the speed of a big copy, or the fewest operations at that of a big matrix product, both measured, whichever takes longer.

Memories: `benchmarks.memories`, learning, in single precision and bfloat16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import memories, renderers
from benchmarks.measure import seconds, verdict
from benchmarks.rooms3d import furnished
from envs.chance import Purpose, seeds_of
from envs.rooms3d import camera
from envs.rooms3d.camera import Camera, Eyes
from envs.rooms3d.primitives import Slots
from envs.rooms3d.world import World, four_rooms
from memory import MEMORIES, titans
from memory.kernels import chunkwise, hcam_recall, scan
from memory.memory import Memory
from training.allocator import keep_freed_memory
from training.experiment import Experiment
from training.graph import CapturedRollout
from training.plain import PlainTrainer
from training.population import co_player
from training.rollout import Rollout, trajectories
from training.settings import override

# What pytest runs before a kernel is timed.
TESTS = {
    "hcam": ["tests/memories/test_hcam_kernel.py"],
    "chunkwise": ["tests/memories/test_kernels.py", "-k", "gated_scan or delta_scan or matrix_kernel"],
    "scan": ["tests/memories/test_kernels.py", "-k", "linear_scan or log_sum_scan"],
    "gru": ["tests/memories/test_kernels.py", "-k", "gru"],
    "lstm": ["tests/memories/test_kernels.py", "-k", "lstm"],
    "titans_linear": ["tests/memories/test_kernels.py", "-k", "titans_linear or matrix_kernels"],
}
ROOMS = ["tests/test_rooms3d_camera.py"]
HEADS, LENGTH, CHUNKS, RECALLED = 4, 16, 16, 4
REPLAYED = 20
# Of gru and lstm, learning from 256 rows of 512 steps and acting in 4,096 rows.
WIDTHS = (64, 128, 256, 512)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--games", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("rollout", "rooms", "kernels", "memories"))
    options = parser.parse_args()
    keep_freed_memory()
    if options.only in (None, "rollout"):
        rollout_and_update(options)
    if options.only in (None, "rooms"):
        rooms(options.device, options.repeats)
    met = options.only not in (None, "kernels") or kernels(options.device, options.repeats)
    return (options.only not in (None, "memories") or every_memory(options.device)) and met


def rollout_and_update(options: argparse.Namespace) -> None:
    games = options.games or (8192 if options.device == "cuda" else 512)
    experiment = override(replace(Experiment(trials=games), device=options.device), "algorithm.minibatches=2")
    print(
        f"{device_name(options.device)}; PyTorch {torch.__version__}; {games} games x {experiment.steps} rounds, GRU of 128, float32",
        flush=True,
    )
    trainer = PlainTrainer(experiment, {"random_table": co_player("random_table")})
    seating = experiment.scheme.seat(experiment.game, games, 0)
    rollout = Rollout(experiment.game, seating, trainer.occupants, watched=trainer.agents, device=options.device)
    seeds = seeds_of(0, Purpose.TRIAL, games, device=options.device)

    def finished() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    with torch.no_grad():
        start = rollout.start(seeds)
        captured = CapturedRollout(rollout, start, experiment.steps)

        def plain() -> None:
            rollout.play(start, experiment.steps)
            finished()

        def replayed() -> None:
            captured.play(start)
            finished()

        # Steps of learners; the scripted seats, a third, come on top.
        agent_steps = int((seating.seats < len(trainer.agents)).sum()) * experiment.steps
        plainly, replaying = seconds(plain, options.repeats), seconds(replayed, options.repeats)
        after, log = captured.play(start)
        lived = trajectories(rollout, start, log, after)
    how = "in a CUDA graph" if options.device == "cuda" else "on fixed tensors"
    print(f"rollout step by step: {agent_steps / plainly:,.0f} learners' steps/s; {how}: {agent_steps / replaying:,.0f}")

    def learn() -> None:
        for learner, agent in trainer.agents.items():
            trainer.learn(learner, agent, lived[learner])
        finished()

    learned = sum(rows.reward.numel() for rows in lived.values())
    learning = seconds(learn, options.repeats)
    print(f"update (two epochs): {learned / learning:,.0f} learners' steps/s")
    print(f"rollout and update: {agent_steps / (replaying + learning):,.0f} learners' steps/s")
    if options.device == "cuda":
        print(f"peak memory on the GPU: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


class Ceilings(NamedTuple):
    """bytes: moved per second by a big copy, read and written. operations: float32 per second in a big matrix product."""

    bytes: float
    operations: float


@torch.no_grad()
def rooms(device: str, repeats: int) -> None:
    """Pictures of four rooms with ten things, by all that could draw them on the device, each held against what draws there."""
    world, eye = World(four_rooms()), Camera(64)
    state = furnished(world)
    few, many = (len(state.place), 4096) if device == "cuda" else (4, 4)
    if device == "cuda" and not passes("rooms", ROOMS):
        return
    slots, eyes = world.slots(state), world.eyes(state)

    def first(count: int) -> tuple[Slots, Eyes]:
        turns = -(-count // len(state.place))
        return tuple(type(batch)(*(torch.cat([field] * turns)[:count].to(device) for field in batch)) for batch in (slots, eyes))

    def report(name: str, draw: Callable[[], object], count: int) -> None:
        time, peak = cost(draw, device, repeats)
        memory = f", {peak / 1e6:,.0f} MB at most" if device == "cuda" else ""
        print(f"rooms, {count} pictures of 64 x 64, {name}: {count / time:,.0f} pictures/s{memory}", flush=True)

    ours = "Numba" if device == "cpu" else "Triton" if find_spec("triton") else "plain, eager"
    given = first(many)
    report(ours, lambda: eye.see(*given), many)
    seen = eye.see(*given).segmentation
    if warp := renderers.warp_draw(eye, *given):
        draw, segmentation = warp
        report("Warp, no colours, rectangles given", draw, many)
        print(f"    {(segmentation() == seen.flatten(1)).float().mean():.2%} of pixels see the same as {ours}'s", flush=True)
    given = first(few)
    shown = given[0].visible[:, None]
    report("plain, eager", lambda: eye.draw_plainly(*given, shown), few)
    same = eye.draw_plainly(*given, shown).segmentation == seen[:few]
    print(f"    {same.float().mean():.2%} of pixels see the same as {ours}'s", flush=True)
    # Last, for compiling takes more than a minute on a GPU.
    with patch.object(camera, "_look", torch.compile(camera._look, dynamic=False)):
        report("plain, torch.compile", lambda: eye.draw_plainly(*given, shown), few)


def kernels(device: str, repeats: int) -> bool:
    """Whether the tests of all kernels passed and targets were met. Without a GPU there are only the plain versions."""
    on_gpu = device == "cuda"
    ceilings = measured_ceilings(device, repeats)
    precision = torch.get_float32_matmul_precision()
    print(f"\n{device_name(device)}; PyTorch {torch.__version__}; kernels, float32 (matrix products: {precision})")
    print(f"a big copy: {ceilings.bytes / 1e9:,.0f} GB/s, a big matrix product: {ceilings.operations / 1e12:,.3g} TFLOP/s", flush=True)
    with ThreadPoolExecutor() as testing:
        trusted = [name for name, passed in zip(TESTS, testing.map(passes, TESTS, TESTS.values()), strict=True) if passed] if on_gpu else []
    share, shapes = share_and_shapes(device)
    print(f"{'':<58}{'ms':>10}{'of best':>9}{'peak MB':>9}")
    met = [
        recall_of_chunks(device, rows, steps, width, "hcam" in trusted, repeats, ceilings)
        for rows, steps, width in [(4096 // share, 1, 128), *shapes]
    ]
    for shape in shapes:
        linear_scan(device, shape, "scan" in trusted, repeats, ceilings)
        titans_linear(device, shape, "titans_linear" in trusted, repeats, ceilings)
    for name in ("gru", "lstm"):
        if name in trusted or not on_gpu:
            for width in WIDTHS:
                for rows, steps in ((4096 // share, 1), (256 // share, 512)):
                    recurrent(name, device, (rows, steps, width), repeats, ceilings)
    # Last, for flash-linear-attention spends minutes on choosing among its own settings.
    for rule in ("gated_scan", "delta_scan"):
        for shape in shapes:
            matrix_scan(rule, device, shape, "chunkwise" in trusted, repeats, ceilings)
    return all(met) and (len(trusted) == len(TESTS) or not on_gpu)


def every_memory(device: str) -> bool:
    """Whether those that should be as quick as `nn.GRU` are; on a CPU a few, for `benchmarks.memories` has them all."""
    names, dtypes = (list(MEMORIES), ("float32", "bfloat16")) if device == "cuda" else (["gru", "lstm"], ("float32",))
    print(f"\n{device_name(device)}; PyTorch {torch.__version__}; memories")
    _, shapes = share_and_shapes(device)
    met = [memories.learning(names, shapes, device, patience=3, gigabytes=20, dtype=dtype) for dtype in dtypes]
    return all(met)


def share_and_shapes(device: str) -> tuple[int, list[tuple[int, int, int]]]:
    """Rows are divided by the share; (rows, steps, width) of learning."""
    share = 1 if device == "cuda" else 64
    return share, [(max(1, rows // share), steps, width) for rows, steps, width in memories.SHAPES]


def passes(kernel: str, tests: list[str]) -> bool:
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:xdist", *tests], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{kernel}: its test fails, so that it is not timed:\n{done.stdout[-2000:]}", flush=True)
    return done.returncode == 0


def measured_ceilings(device: str, repeats: int) -> Ceilings:
    numbers, side = (2**29, 8192) if device == "cuda" else (2**24, 512)
    source, factor = torch.rand(numbers, device=device), torch.rand(side, side, device=device)
    target = torch.empty_like(source)
    copying, _ = cost(lambda: target.copy_(source), device, repeats)
    multiplying, _ = cost(lambda: factor @ factor, device, repeats)
    return Ceilings(8 * numbers / copying, 2 * side**3 / multiplying)


def recall_of_chunks(device: str, rows: int, steps: int, width: int, trusted: bool, repeats: int, ceilings: Ceilings) -> bool:
    """Four of the newest sixteen chunks at every step, by relevance, and what is read in them; one step without gradients is acting.
    Whether the kernels are as good as they are to be, where there are some.
    """
    contents = torch.randn(rows, CHUNKS + steps // LENGTH, LENGTH, width, device=device)
    summaries = contents.mean(2)
    query = (torch.randn(rows, steps, HEADS, width, device=device) / width**0.5).requires_grad_(steps > 1)
    seeking = torch.randn(rows, steps, width, device=device, requires_grad=steps > 1)
    oldest = torch.arange(steps, device=device)[:, None] // LENGTH
    number = torch.arange(contents.shape[1], device=device)
    visible = ((oldest <= number) & (number < oldest + CHUNKS)).expand(rows, -1, -1).contiguous()
    weighting = torch.randn_like(query)
    # Forward: both queries in, what is read out, once every summary and every chunk that is chosen; products with summaries, keys and
    # values. Backward: queries, chunks and one gradient in, two out; three products, and one with the summaries chosen.
    directions = 1 if steps == 1 else 2
    looked_at = contents.nbytes * (RECALLED / CHUNKS if steps == 1 else 1)
    moved = (2 if steps == 1 else 5) * query.nbytes + (1 if steps == 1 else 2) * seeking.nbytes + visible.nbytes
    moved += directions * (looked_at + summaries.nbytes)
    products = (2 if steps == 1 else 5) * 2 * query.numel() * RECALLED * LENGTH
    products += 2 * seeking.numel() * (CHUNKS if steps == 1 else CHUNKS + RECALLED)
    floor = max(moved / ceilings.bytes, products / ceilings.operations)
    print(f"hcam {'acting' if steps == 1 else 'learning'}, {rows} rows of {steps} steps, width {width}: ", end="")
    print(f"at least {moved / 1e9:.3g} GB, {products / 1e9:.3g} GFLOP, {1e3 * floor:.3g} ms", flush=True)

    def through(choose: Callable[..., tuple[Tensor, Tensor]], recall: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def both(query: Tensor, seeking: Tensor, contents: Tensor, summaries: Tensor, visible: Tensor) -> Tensor:
            return recall(query, contents, *choose(seeking, summaries, visible, RECALLED))

        return both

    plain = hcam_recall.choose_plainly
    versions = {"plain": through(plain, hcam_recall.recall_plainly), "everything fetched at once": through(plain, recall_at_once)}
    if device == "cuda":
        # Its parts are a loop that is unrolled: on a CPU there are too many to compile.
        versions |= {f"{name}, torch.compile": torch.compile(each, dynamic=False) for name, each in versions.items()}
    if trusted:
        versions |= {"Triton": through(hcam_recall.choose, hcam_recall.recall)}

    def work_of(version: Callable[..., Tensor]) -> Callable[[], object]:
        def work() -> None:
            read = version(query, seeking, contents, summaries, visible)
            if steps > 1:
                torch.autograd.grad(read, [query, seeking], weighting)

        return work

    costs = {name: show(name, work_of(each), device, repeats, floor, replayed=steps == 1) for name, each in versions.items()}
    if "Triton" not in costs:
        return True
    taken, peak = costs["Triton"]
    compiled = [costs[name] for name in costs if "compile" in name]
    quick = verdict("speed", min(each for each, _ in compiled) / taken, 3 if steps == 1 else 4, "times the quicker of the compiled")
    # What is fetched in parts trades time for memory; the plain thing to do is to fetch.
    return verdict("peak memory", peak / compiled[-1][1], 0.1, "of fetching everything at once, compiled", at_least=False) and quick


def recall_at_once(query: Tensor, contents: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """[B, T, K, C, D] in memory, which is how one would first write it."""
    rows = torch.arange(len(contents), device=contents.device)[:, None, None]
    fetched = contents[rows, chosen]
    attention = torch.einsum("bthd,btkcd->bthkc", query, fetched).softmax(-1)
    return torch.einsum("btk,bthkc,btkcd->bthd", weights, attention, fetched)


def linear_scan(device: str, shape: tuple[int, int, int], trusted: bool, repeats: int, ceilings: Ceilings) -> None:
    a, b = torch.rand(shape, device=device).requires_grad_(), torch.randn(shape, device=device).requires_grad_()
    first, reset = torch.zeros(shape[0], shape[2], device=device), torch.rand(shape[:2], device=device) < 0.01
    weighting = torch.randn_like(b)
    # Forward: a and b in, states out. Backward: a, states and their gradients in, two gradients out.
    floor = 8 * b.nbytes / ceilings.bytes
    print(f"linear_scan, {shape[0]} rows of {shape[1]} steps, width {shape[2]}: at least {8 * b.nbytes / 1e9:.3g} GB, {1e3 * floor:.3g} ms")

    def work() -> None:
        torch.autograd.grad(scan.linear_scan(a, b, first, reset), [a, b], weighting)

    if trusted:
        show("Triton", work, device, repeats, floor)
    with plainly(scan):
        show("plain", work, device, repeats, floor)


def matrix_scan(rule: str, device: str, shape: tuple[int, int, int], trusted: bool, repeats: int, ceilings: Ceilings) -> None:
    """Gated with decay per key, delta without. Ours with resets beside flash-linear-attention's without, in its bfloat16."""
    rows, steps, width = shape
    size = width // HEADS
    gated = rule == "gated_scan"
    q, k, v = (torch.randn(rows, steps, HEADS, size, device=device) for _ in range(3))
    sides = [q, functional.normalize(k, dim=-1), v, -torch.rand_like(q) if gated else torch.rand(rows, steps, HEADS, device=device)]
    first, reset = torch.zeros(rows, HEADS, size, size, device=device), torch.rand(rows, steps, device=device) < 0.01
    weighting = torch.randn_like(v)
    # Forward: the four in, what is read out. Backward: they and its gradient in, four gradients out. The states are small beside these.
    moved = 3 * sum(side.nbytes for side in sides) + 2 * v.nbytes
    # Step by step: a product with the state to read and one to write, and with the delta rule one more; twice as many on the way back.
    products = 3 * (2 if gated else 3) * 2 * q.numel() * size
    floor = max(moved / ceilings.bytes, products / ceilings.operations)
    print(f"{rule}, {rows} rows of {steps} steps, {HEADS} heads of {size}: ", end="")
    print(f"at least {moved / 1e9:.3g} GB, {products / 1e9:.3g} GFLOP, {1e3 * floor:.3g} ms", flush=True)
    learned = [side.requires_grad_() for side in sides]

    def work() -> None:
        *qkv, last = learned
        o, _ = chunkwise.matrix_scan(*qkv, *((None, last) if gated else (last, None)), first, reset)
        torch.autograd.grad(o, learned, weighting)

    if trusted:
        show("Triton", work, device, repeats, floor)
    with plainly(chunkwise):
        show("plain", work, device, repeats, floor)
    if device != "cuda" or not find_spec("fla"):
        return
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.gla import chunk_gla

    half = [side.bfloat16().detach().requires_grad_() for side in sides]
    theirs = chunk_gla if gated else chunk_delta_rule

    def elsewhere() -> None:
        torch.autograd.grad(theirs(*half, scale=1.0)[0], half, weighting.bfloat16())

    show("flash-linear-attention, bfloat16, no resets", elsewhere, device, repeats, floor)


def titans_linear(device: str, shape: tuple[int, int, int], trusted: bool, repeats: int, ceilings: Ceilings) -> None:
    """A layer without its projections: what it learns and recalls, in chunks of 16 steps."""
    rows, steps, width = shape
    layer = titans.Miras(titans.TitansLinearConfig(width, heads=HEADS)).to(device)
    q, k, v = (torch.randn(rows, HEADS, steps, width // HEADS, device=device) for _ in range(3))
    gates = torch.rand(3, rows, HEADS, steps, device=device)
    sides = [functional.normalize(q, dim=-1), functional.normalize(k, dim=-1), v, -0.02 * gates[0], -gates[1], 0.1 * gates[2]]
    reset = torch.rand(rows, steps, device=device) < 0.01
    reset[:, 0] = True
    weighting = torch.randn(rows, steps, HEADS, width // HEADS, device=device)
    # Forward: the six in, what is recalled out. Backward: they and its gradient in, six gradients out. The states are small beside these.
    moved = 3 * sum(side.nbytes for side in sides) + 2 * v.nbytes
    # Step by step: the error, S, A and what is recalled, each a product with a matrix; twice as many on the way back.
    products = 3 * 4 * 2 * q.numel() * (width // HEADS)
    floor = max(moved / ceilings.bytes, products / ceilings.operations)
    print(f"titans_linear, {rows} rows of {steps} steps, {HEADS} heads of {width // HEADS}: ", end="")
    print(f"at least {moved / 1e9:.3g} GB, {products / 1e9:.3g} GFLOP, {1e3 * floor:.3g} ms", flush=True)
    learned = [side.requires_grad_() for side in sides]

    def work() -> None:
        inputs = titans._Inputs(*learned, gates[0])
        recalled, _ = layer._recall_and_learn(inputs, layer._first(), layer.start(rows), reset)
        torch.autograd.grad(recalled, learned, weighting)

    if trusted:
        show("Triton", work, device, repeats, floor)
    with plainly(titans):
        show("plain", work, device, repeats, floor)


def recurrent(name: str, device: str, shape: tuple[int, int, int], repeats: int, ceilings: Ceilings) -> None:
    """Ours with resets beside cuDNN's without; one step without gradients is acting."""
    rows, steps, width = shape
    layers = {name: memories.built(name, width, device), f"nn.{name.upper()}": getattr(nn, name.upper())(width, width, batch_first=True)}
    x = torch.randn(shape, device=device, requires_grad=steps > 1)
    reset = torch.rand(rows, steps, device=device) < 0.01
    weighting = torch.randn_like(x)
    gates = 3 if name == "gru" else 4
    # Forward: inputs in, outputs out. Backward: both and the outputs' gradient in, the inputs' out. Weights are small beside these.
    moved = (2 if steps == 1 else 6) * x.nbytes
    # Of inputs and of states with all gates' weights; twice as many on the way back.
    products = (1 if steps == 1 else 3) * 2 * 2 * gates * x.numel() * width
    floor = max(moved / ceilings.bytes, products / ceilings.operations)
    print(f"{name} {'acting' if steps == 1 else 'learning'}, {rows} rows of {steps} steps, width {width}: ", end="")
    print(f"at least {moved / 1e9:.3g} GB, {products / 1e9:.3g} GFLOP, {1e3 * floor:.3g} ms", flush=True)

    def through(layer: nn.Module) -> Callable[[], object]:
        def work() -> None:
            with torch.set_grad_enabled(steps > 1):
                y = layer(x, layer.start(rows), reset)[0] if isinstance(layer, Memory) else layer(x)[0]
            if steps > 1:
                torch.autograd.grad(y, [x, *layer.parameters()], weighting)

        return work

    for label, layer in layers.items():
        show(label, through(layer.to(device)), device, repeats, floor, replayed=steps == 1)


def plainly(module: ModuleType) -> AbstractContextManager[object]:
    """In which a module does not find its Triton version."""
    return patch.object(module, "triton_version", lambda *inputs: None)


def show(name: str, work: Callable[[], object], device: str, repeats: int, floor: float, replayed: bool = False) -> tuple[float, int]:
    """Prints what it costs, see `cost`; with `replayed`, the time is that in a CUDA graph, as in a rollout: launching takes longer."""
    taken, peak = cost(work, device, repeats)
    if replayed and device == "cuda":
        taken = cost(many_times(work), device, repeats)[0] / REPLAYED
    best, memory = f"{floor / taken:.0%}", f"{peak / 1e6:,.0f}" if device == "cuda" else "-"
    print(f"    {name:<54}{1e3 * taken:>10.3g}{best:>9}{memory:>9}", flush=True)
    return taken, peak


def many_times(work: Callable[[], object]) -> Callable[[], object]:
    """A CUDA graph of the same work `REPLAYED` times, which has been done before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPLAYED):
            work()
    return graph.replay


def cost(work: Callable[[], object], device: str, repeats: int) -> tuple[float, int]:
    """Seconds, the median, and the most bytes of the GPU's memory beyond what was taken before."""

    def finished() -> None:
        work()
        memories.finish(torch.device(device))

    if device != "cuda":
        return seconds(finished, repeats), 0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    taken = seconds(finished, repeats, warm_up=3)
    return taken, torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    sys.exit(not main())
