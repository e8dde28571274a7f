"""Every Triton kernel against the plain version in double precision, in outputs and gradients.

On a machine without a GPU the kernels run in Triton's interpreter, which must be asked for before Triton is first imported.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch._subclasses import FakeTensorMode

from memory import gru, lstm
from memory.kernels import choice, chunkwise, scan
from memory.kernels.threads import in_threads
from memory.titans import Miras, MirasState, TitansLinearConfig, _Inputs

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if ON_GPU:
    # Else cuBLAS refuses the deterministic mode that poisons fresh tensors.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
else:
    os.environ["TRITON_INTERPRET"] = "1"

triton = pytest.importorskip("triton", reason="Triton exists for Linux alone")
interpreter = pytest.importorskip("triton.runtime.interpreter")

from memory.kernels import chunkwise_triton, gru_triton, lstm_triton, scan_triton, titans_linear_triton  # noqa: E402


def luck(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(shape, generator=luck(seed))


def resets(seed, *shape):
    return torch.rand(shape, generator=luck(seed)) < 0.1


@dataclass(frozen=True)
class Kernel:
    """fast and plain take the same inputs: what `inputs` makes of (rows, steps, width). operator: what torch sees of fast, called by the
    name in the table, with `flags` after the inputs, or with what `arguments` makes of these."""

    fast: Callable
    plain: Callable
    inputs: Callable
    operator: Callable
    flags: tuple = ()
    arguments: Callable = lambda *inputs: inputs


def linear(rows, steps, width):
    a = torch.sigmoid(normal(1, rows, steps, width) + 2)
    return a, normal(2, rows, steps, width), normal(3, rows, width), resets(4, rows, steps)


def log_sum(rows, steps, width):
    return 5 * normal(1, rows, steps, width), normal(2, rows, width), resets(3, rows, steps)


def gru_inputs(rows, steps, width):
    weight, bias = normal(1, 3 * width, width) / width**0.5, normal(2, width)
    return normal(3, steps, rows, 3 * width), normal(4, rows, width), resets(5, steps, rows), weight, bias


def lstm_inputs(rows, steps, width):
    weight = normal(1, 4 * width, width) / width**0.5
    return normal(2, steps, rows, 4 * width), normal(3, rows, width), normal(4, rows, width), resets(5, steps, rows), weight


def gated(decays):
    """decays: how many each head has, of a width; None for none.

    Rows and heads are programs of their own, which the interpreter runs one after another: two heads, and two rows of few steps, tell. So
    do two chunks of 16 steps and what of the steps is left over.
    """

    def inputs(rows, steps, width):
        steps = min(steps, 32 + steps % 16)
        shape, values = (min(rows, 2) if steps <= 2 else 1, steps, 2), width + 1
        q, k, v = normal(1, *shape, width), normal(2, *shape, width) / width**0.5, normal(3, *shape, values)
        log_g = None if decays is None else -normal(4, *shape, decays(width)).abs()
        return q, k, v, None, log_g, normal(5, shape[0], 2, width, values), resets(24, *shape[:2])

    return inputs


def delta(decays):
    def inputs(rows, steps, width):
        q, k, v, _, *others = gated(decays)(rows, steps, width)
        return q, torch.nn.functional.normalize(k, dim=-1), v, 2 * torch.sigmoid(normal(7, *k.shape[:3])), *others

    return inputs


def matrix_kernel(inputs):
    return Kernel(chunkwise_triton.matrix_scan, chunkwise.matrix_scan, inputs, chunkwise_triton._forward, (True,))


def titans(with_momentum):
    """Chunks of 4 steps, of which the state's is open in the first row; the second's ended with the state's last step."""

    def inputs(rows, steps, width):
        # As above: few rows, a window of 16 steps and some, and not all blocks of a wide head.
        rows, steps, width = min(rows, 2) if steps <= 2 else 1, min(steps, 16 + steps % 16 // 2), min(width, 40)
        shape, state = (rows, 2, steps), (rows, 2, width * width)
        q, k = (torch.nn.functional.normalize(normal(seed, *shape, width), dim=-1) for seed in (1, 2))
        kept, carried, rate = torch.sigmoid(normal(4, 3, *shape) + 1)
        gates = kept.log(), carried.log() if with_momentum else None, 0.5 * rate
        first, weights = normal(5, 2, width * width) / width**0.5, normal(6, *state) / width**0.5
        phase = torch.tensor([3, 0])[:rows]
        anchor = torch.where(phase[:, None, None] == 0, weights, normal(7, *state) / width**0.5)
        momentum = normal(8, *state) / width**0.5 if with_momentum else None
        v, reset = normal(3, *shape, width), resets(24, rows, steps)
        return q, k, v, *gates, first, anchor, weights, momentum, phase, reset, 4

    return inputs


def titans_plain(q, k, v, log_keep, log_momentum, rate, first, anchor, weights, momentum, phase, reset, chunk_length):
    heads, width = q.shape[1], q.shape[3]
    memory = Miras(TitansLinearConfig(heads * width, heads=heads, chunk_length=chunk_length, momentum=momentum is not None))
    gates = log_keep, rate if log_momentum is None else log_momentum, rate, rate
    state = MirasState(anchor, weights, momentum, q.new_zeros(len(q), 3, 3 * heads * width), phase)
    recalled, (*matrices, _, phase) = memory._recall_and_learn(_Inputs(q, k, v, *gates), first, state, reset)
    return recalled, *matrices, phase


def titans_operands(q, k, v, log_keep, log_momentum, rate, first, anchor, weights, momentum, phase, reset, chunk_length, learns):
    by_step = each(lambda x: x.detach().transpose(1, 2).requires_grad_(), (q, k, v, log_keep, log_momentum, rate))
    began, after = titans_linear_triton._clocks(phase, reset, chunk_length)
    return *by_step, first, anchor, weights, momentum, reset, began, after == 0, learns


def titans_kernel(with_momentum):
    inputs = titans(with_momentum)
    return Kernel(titans_linear_triton.learn, titans_plain, inputs, titans_linear_triton._forward, (True,), titans_operands)


KERNELS = {
    "linear_scan": Kernel(scan_triton.linear_scan, scan.linear_scan, linear, scan_triton._linear_scan),
    "log_sum_scan": Kernel(scan_triton.log_sum_scan, scan.log_sum_scan, log_sum, scan_triton._log_sum_scan),
    "gru": Kernel(gru_triton.gru_sequence, gru.gru_sequence, gru_inputs, gru_triton._forward, (True,)),
    "lstm": Kernel(lstm_triton.lstm_sequence, lstm.lstm_sequence, lstm_inputs, lstm_triton._forward, (True,)),
    "gated_scan": matrix_kernel(gated(None)),
    "gated_scan, decay per head": matrix_kernel(gated(lambda width: 1)),
    "gated_scan, decay per key": matrix_kernel(gated(lambda width: width)),
    "delta_scan": matrix_kernel(delta(None)),
    "delta_scan, decay per key": matrix_kernel(delta(lambda width: width)),
    "titans_linear": titans_kernel(True),
    "titans_linear without momentum": titans_kernel(False),
}


def each(change, inputs):
    """The tensors among the inputs changed."""
    return [change(x) if isinstance(x, torch.Tensor) else x for x in inputs]


def learned(inputs):
    """The inputs of which there are gradients, from now on."""
    return [x.requires_grad_() for x in inputs if isinstance(x, torch.Tensor) and x.is_floating_point()]


def tensors(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else [x for x in outputs if x is not None]


@pytest.fixture
def _poisoned():
    """Fresh tensors are full of NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def run(function, inputs):
    """Outputs, then gradients of a random weighting of them, in double precision on the CPU."""
    sources = learned(inputs)
    outputs = tensors(function(*inputs))
    loss = sum((o * normal(10 + i, *o.shape).to(o)).sum() for i, o in enumerate(outputs))
    return [x.detach().cpu().double() for x in [*outputs, *torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)]]


@pytest.mark.usefixtures("_poisoned")
# 17 rows are one more than a program's; 40 and 70 are no multiples of a tile's width.
@pytest.mark.long
@pytest.mark.parametrize(("rows", "steps", "width"), [(3, 1, 16), (17, 2, 40), (2, 63, 10), (1, 3, 70)])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_its_plain_version_in_outputs_and_gradients(name, rows, steps, width):
    kernel = KERNELS[name]
    inputs = kernel.inputs(rows, steps, width)
    found = run(kernel.fast, each(lambda x: x.clone().to(DEVICE), inputs))
    wanted = run(kernel.plain, each(lambda x: x.double() if x.is_floating_point() else x, inputs))
    for mine, want in zip(found, wanted, strict=True):
        # Rounding adds up over 100 steps: relative to the largest number, since small ones are differences of large ones.
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_says_the_same_when_nothing_is_to_be_learned(name, steps):
    kernel = KERNELS[name]
    inputs = each(lambda x: x.to(DEVICE), kernel.inputs(2, steps, 5))
    with torch.no_grad():
        acting = kernel.fast(*inputs)
    learned(inputs)
    learning = kernel.fast(*inputs)
    for found, wanted in zip(tensors(acting), tensors(learning), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("name", KERNELS)
def test_a_single_step_with_nothing_to_be_learned_is_the_plain_version(name):
    kernel = KERNELS[name]
    inputs = kernel.inputs(2, 1, 70)
    # The first row starts anew.
    (reset,) = (x for x in inputs if isinstance(x, torch.Tensor) and x.dtype == torch.bool)
    reset.view(-1)[0], reset.view(-1)[1] = True, False
    with torch.no_grad():
        found = kernel.fast(*each(lambda x: x.to(DEVICE), inputs))
    wanted = kernel.plain(*each(lambda x: x.double() if x.is_floating_point() else x, inputs))
    for mine, want in zip(tensors(found), tensors(wanted), strict=True):
        torch.testing.assert_close(mine.cpu().double(), want.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_come_through_a_kernel_that_is_mapped_over(name):
    kernel = KERNELS[name]
    one, *others = each(lambda x: x.to(DEVICE), kernel.inputs(2, 3, 5))
    many = torch.stack([one, one / 2]).requires_grad_()
    mapped = torch.func.vmap(lambda one: tensors(kernel.fast(one, *others))[0])(many)
    apart = torch.stack([tensors(kernel.fast(one, *others))[0] for one in many])
    (found,), (wanted,) = (torch.autograd.grad(result.square().sum(), many) for result in (mapped, apart))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["gated_scan, decay per head", "delta_scan, decay per key"])
def test_nothing_of_before_a_reset_or_the_strongest_decay_is_left_by_a_matrix_kernel(name):
    kernel = KERNELS[name]
    inputs = each(lambda x: x.to(DEVICE), kernel.inputs(1, 20, 5))
    *_, log_g, state, reset = inputs
    reset[:] = torch.arange(20) == 13
    log_g[:, 3] = -torch.inf
    log_g[:, 5] *= 1e30
    v = inputs[2]
    learned(inputs)
    o, after = kernel.fast(*inputs)
    to_v, to_log_g, to_state = torch.autograd.grad(o[:, 5:].sum() + after.sum(), [v, log_g, state])
    assert to_state.eq(0).all()
    assert to_v[:, :5].eq(0).all()
    assert to_log_g[:, [3, 5, 13]].eq(0).all()
    assert to_log_g.isfinite().all()
    to_v, to_state = torch.autograd.grad(kernel.fast(*inputs)[0][:, 13:].sum(), [v, state])
    assert to_v[:, :13].eq(0).all()
    assert to_v[:, 13:].ne(0).all()
    assert to_state.eq(0).all()


@pytest.mark.long
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_an_operator_that_autograd_and_torch_compile_accept(name):
    kernel = KERNELS[name]
    inputs = each(lambda x: x.to(DEVICE), kernel.inputs(2, 3, 5))
    learned(inputs)
    torch.library.opcheck(kernel.operator, kernel.arguments(*inputs, *kernel.flags))


class Learner(torch.nn.Module):
    """A kernel all of whose real inputs are parameters."""

    def __init__(self, kernel, inputs):
        super().__init__()
        self.kernel = kernel
        given = kernel.arguments(*inputs, *kernel.flags)
        self.inputs = [torch.nn.Parameter(x.detach()) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given]
        for number, x in enumerate(self.inputs):
            if isinstance(x, torch.nn.Parameter):
                self.register_parameter(f"input_{number}", x)

    def forward(self, scale):
        outputs = tensors(self.kernel.operator(*self.inputs))
        return sum((scale * x).square().sum() for x in outputs if x.requires_grad)


@pytest.fixture(scope="module")
def alone():
    torch.distributed.init_process_group("nccl" if ON_GPU else "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_learns_in_a_compiled_graph_without_breaks_and_in_distributed_data_parallel(name, alone):
    torch.compiler.reset()
    kernel = KERNELS[name]
    scale = torch.tensor(0.5, device=DEVICE)
    found = []
    for wrap in (
        lambda module: module,
        lambda module: torch.compile(module, backend="aot_eager", fullgraph=True),
        torch.nn.parallel.DistributedDataParallel,
    ):
        module = Learner(kernel, each(lambda x: x.to(DEVICE), kernel.inputs(2, 6, 5)))
        loss = wrap(module)(scale)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in module.parameters())])
    assert len(found[0]) > 2
    for others in found[1:]:
        for other, own in zip(others, found[0], strict=True):
            torch.testing.assert_close(other, own)


def on_a_gpu(*inputs):
    """Tensors that say that they are on a GPU and hold nothing."""
    return each(lambda x: torch.empty_like(x, device="cuda"), inputs)


class HandedOverError(Exception):
    pass


@pytest.mark.parametrize("name", KERNELS)
def test_on_a_gpu_the_plain_version_hands_over_to_the_kernel(monkeypatch, name):
    kernel = KERNELS[name]

    def hand_over(*inputs):
        raise HandedOverError

    monkeypatch.setattr(sys.modules[kernel.fast.__module__], kernel.fast.__name__, hand_over)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(HandedOverError):
        kernel.plain(*on_a_gpu(*kernel.inputs(2, 3, 5)))


def test_a_kernel_that_is_refused_says_why_once(monkeypatch):
    choice._say.cache_clear()
    hidden = torch.zeros(1, 513)
    with FakeTensorMode(allow_non_fake_inputs=True):
        wide, double = on_a_gpu(hidden, hidden[:, :64].double())
        with pytest.warns(RuntimeWarning, match="^gru runs in plain PyTorch.*: its width is 513; want at most 512$"):
            assert choice.triton_version("gru", wide) is None
        # Warnings are errors: a second one would fail.
        assert choice.triton_version("gru", wide) is None
        with pytest.warns(RuntimeWarning, match="its state is torch.float64; want torch.float32$"):
            assert choice.triton_version("lstm", double) is None
        monkeypatch.setattr(choice, "_has", lambda name: False)
        with pytest.warns(RuntimeWarning, match="Triton is not installed$"):
            assert choice.triton_version("scan", double) is None
    assert choice.triton_version("gru", hidden) is None


def test_what_numba_cannot_compile_runs_plainly_and_says_so_once(monkeypatch):
    def fails(name):
        raise RuntimeError("cannot cache function '_read'")

    state = torch.zeros(1, 2, 3)
    monkeypatch.setattr(choice, "_COMPILED", {})
    monkeypatch.setattr(choice, "import_module", fails)
    with pytest.warns(RuntimeWarning, match="^selective_scan runs in plain PyTorch, which is slower: cannot cache function '_read'$"):
        assert choice.numba_version("selective_scan", state) is None
    # Warnings are errors: a second one would fail.
    assert choice.numba_version("selective_scan", state) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_threads_do_all_and_tell_what_failed(count):
    done = []
    in_threads(lambda first, last, more: done.extend(range(first + more, last + more)), count, 10, threads=3)
    assert sorted(done) == list(range(10, 10 + count))

    def fails(first, last):
        if last == count:
            raise MemoryError(f"from {first}")

    if count:
        with pytest.raises(MemoryError, match="from"):
            in_threads(fails, count, threads=3)


COMPILE = """
import torch, triton
from memory.kernels import chunkwise_triton, titans_linear_triton

def compile_all(module, names, settings):
    for kernel in (getattr(module, name) for name in names):
        arguments = kernel.arg_names
        types = {"reset_in": "*i1", "ended_in": "*i1", "began_in": "*i32"} | dict.fromkeys(NUMBERS, "i32")
        types = {name: "constexpr" if name in settings else types.get(name, "*fp32") for name in arguments}
        constants = {(arguments.index(name),): settings[name] for name in arguments if name in settings}
        source = triton.compiler.ASTSource(kernel, types, constants)
        compiled = triton.compile(source, triton.backends.compiler.GPUTarget("cuda", 90, 32), {"num_warps": settings["num_warps"]})
        print(kernel.__name__, len(compiled.asm["cubin"]) > 0)

NUMBERS = ("steps", "chunks", "windows", "levels", "rows", "batch")
log_g, state = torch.empty(1, 1, 2, 9, device="meta"), torch.empty(1, 2, 9, 9, device="meta")
settings = chunkwise_triton._settings(log_g, state) | {"LEARNS": True, "DELTA": True}
compile_all(chunkwise_triton, ["_step_kernel", "_inverse_kernel", "_forward_kernel", "_backward_kernel"], settings)
_, settings = titans_linear_triton._settings(log_g, log_g)
compile_all(titans_linear_triton, ["_forward_kernel", "_backward_kernel"], settings | {"LEARNS": True})
"""


@pytest.mark.long
def test_the_matrix_kernels_compile_for_a_gpu_that_need_not_be_there(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    kernels = ["_step_kernel", "_inverse_kernel", "_forward_kernel", "_backward_kernel", "_forward_kernel", "_backward_kernel"]
    assert done.stdout.splitlines() == [f"{kernel} True" for kernel in kernels], done.stderr
