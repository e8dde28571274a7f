"""Every Triton kernel against the plain version in double precision, in outputs and gradients.

On a machine without a GPU the kernels run in Triton's interpreter, which must be asked for before Triton is first imported.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch._subclasses import FakeTensorMode

from memory import gru, lstm
from memory.kernels import choice, scan

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if ON_GPU:
    # Else cuBLAS refuses the deterministic mode that poisons fresh tensors.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
else:
    os.environ["TRITON_INTERPRET"] = "1"

triton = pytest.importorskip("triton", reason="Triton exists for Linux alone")
interpreter = pytest.importorskip("triton.runtime.interpreter")

from memory.kernels import gru_triton, lstm_triton, scan_triton  # noqa: E402


def luck(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(shape, generator=luck(seed))


def resets(seed, *shape):
    return torch.rand(shape, generator=luck(seed)) < 0.1


@dataclass(frozen=True)
class Kernel:
    """fast and plain take the same inputs: what `inputs` makes of (rows, steps, width). operator: what torch sees of fast, called by the
    name in the table, with `flags` after the inputs."""

    fast: Callable
    plain: Callable
    inputs: Callable
    operator: Callable
    flags: tuple = ()


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


KERNELS = {
    "linear_scan": Kernel(scan_triton.linear_scan, scan.linear_scan, linear, scan_triton._linear_scan),
    "log_sum_scan": Kernel(scan_triton.log_sum_scan, scan.log_sum_scan, log_sum, scan_triton._log_sum_scan),
    "gru": Kernel(gru_triton.gru_sequence, gru.gru_sequence, gru_inputs, gru_triton._forward, (True,)),
    "lstm": Kernel(lstm_triton.lstm_sequence, lstm.lstm_sequence, lstm_inputs, lstm_triton._forward, (True,)),
}


@pytest.fixture(autouse=True)
def _integers_of_one_element_arrays(monkeypatch):
    """Triton 3.6's interpreter takes bounds of loops as int(array of one), which NumPy 2.4 refuses."""
    original = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


@pytest.fixture
def _poisoned():
    """Fresh tensors are full of NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def run(function, inputs):
    """Outputs, then gradients of a random weighting of them, in double precision on the CPU."""
    learned = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    outputs = function(*inputs)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else [*outputs]
    loss = sum((o * normal(10 + i, *o.shape).to(o)).sum() for i, o in enumerate(outputs))
    return [x.detach().cpu().double() for x in [*outputs, *torch.autograd.grad(loss, learned)]]


@pytest.mark.usefixtures("_poisoned")
# 17 rows are one more than a program's; 40 and 70 are no multiples of a tile's width.
@pytest.mark.parametrize(("rows", "steps", "width"), [(3, 1, 16), (17, 2, 40), (2, 63, 10), (2, 100, 5), (1, 3, 70)])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_its_plain_version_in_outputs_and_gradients(name, rows, steps, width):
    kernel = KERNELS[name]
    inputs = kernel.inputs(rows, steps, width)
    found = run(kernel.fast, [x.clone().to(DEVICE) for x in inputs])
    wanted = run(kernel.plain, [x.double() if x.is_floating_point() else x for x in inputs])
    for mine, want in zip(found, wanted, strict=True):
        # Rounding adds up over 100 steps: relative to the largest number, since small ones are differences of large ones.
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_says_the_same_when_nothing_is_to_be_learned(name, steps):
    kernel = KERNELS[name]
    inputs = [x.to(DEVICE) for x in kernel.inputs(2, steps, 5)]
    acting, learning = kernel.fast(*inputs), kernel.fast(*(x.requires_grad_(x.is_floating_point()) for x in inputs))
    for found, wanted in zip(*(x if isinstance(x, tuple) else (x,) for x in (acting, learning)), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_an_operator_that_autograd_and_torch_compile_accept(name):
    kernel = KERNELS[name]
    inputs = [x.to(DEVICE).requires_grad_(x.is_floating_point()) for x in kernel.inputs(2, 3, 5)]
    torch.library.opcheck(kernel.operator, (*inputs, *kernel.flags))


def on_a_gpu(*inputs):
    """Tensors that say that they are on a GPU and hold nothing."""
    return [torch.empty_like(x, device="cuda") for x in inputs]


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
        monkeypatch.setattr(choice, "_has_triton", lambda: False)
        with pytest.warns(RuntimeWarning, match="Triton is not installed$"):
            assert choice.triton_version("scan", double) is None
    assert choice.triton_version("gru", hidden) is None
