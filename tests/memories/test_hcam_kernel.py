"""HCAM's choice and recall in Triton against the plain versions in double precision. Without a GPU they run in Triton's interpreter, which
must be asked for before Triton is first imported."""

import math
import os
import subprocess
import sys

import pytest
import torch

from memory.hcam import HCAMConfig
from memory.kernels import hcam_recall

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
if ON_GPU:
    # Else cuBLAS refuses the deterministic mode that poisons fresh tensors.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
else:
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from memory.kernels import hcam_choose_triton, hcam_recall_triton  # noqa: E402


@pytest.fixture
def _poisoned():
    """Fresh tensors are full of NaN, so that what is read before it is written shows, and what is never written."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def inputs(rows, steps, heads, width, chunks, length, recalled, dtype=torch.float32):
    """Any choices, the same chunk twice among them too, and a third of the weights 0."""
    luck = torch.Generator().manual_seed(0)
    query = torch.randn(rows, steps, heads, width, generator=luck) / width**0.5
    contents = torch.randn(rows, chunks, length, width, generator=luck)
    chosen = torch.randint(chunks, (rows, steps, recalled), generator=luck)
    weights = torch.rand(rows, steps, recalled, generator=luck)
    weights = weights.masked_fill(torch.rand(weights.shape, generator=luck) < 0.3, 0.0)
    query, contents, weights = (side.to(DEVICE, dtype) for side in (query, contents, weights))
    return query.requires_grad_(), contents, chosen.to(DEVICE), weights.requires_grad_()


def in_double(query, contents, chosen, weights):
    query, contents, weights = (side.detach().cpu().double() for side in (query, contents, weights))
    return query.requires_grad_(), contents, chosen.cpu(), weights.requires_grad_()


def read_and_gradients(recall, query, contents, chosen, weights):
    read = recall(query, contents, chosen, weights)
    grad_read = torch.randn(read.shape, generator=torch.Generator().manual_seed(1)).to(read)
    return [side.cpu().double() for side in (read.detach(), *torch.autograd.grad(read, [query, weights], grad_read))]


# 3 and 5 heads do not fill their groups; widths of 20, 130 and 600 do not fill their slices; 3, 5 and 17 steps do not fill their blocks, of
# which 17 of width 130 take two and 70 of width 100 three; 600 wide is one head at a time.
@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize(
    ("rows", "steps", "heads", "width", "chunks", "length", "recalled"),
    [
        (5, 1, 2, 16, 6, 3, 2),
        (3, 1, 3, 20, 5, 16, 3),
        (2, 7, 3, 20, 4, 5, 2),
        (1, 9, 4, 8, 3, 4, 2),
        (2, 7, 1, 4, 2, 1, 1),
        (1, 5, 5, 130, 3, 17, 2),
        (1, 3, 1, 600, 2, 2, 2),
        (1, 3, 2, 100, 3, 70, 2),
    ],
)
def test_the_kernel_reads_what_the_plain_version_reads_and_sends_back_the_same_gradients(
    rows, steps, heads, width, chunks, length, recalled
):
    given = inputs(rows, steps, heads, width, chunks, length, recalled)
    found = read_and_gradients(hcam_recall_triton.recall, *given)
    for mine, want in zip(found, read_and_gradients(hcam_recall.recall_plainly, *in_double(*given)), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-5, atol=2e-5)


@pytest.mark.usefixtures("_poisoned")
def test_half_precision_is_read_with_half_precision_s_error():
    given = inputs(2, 5, 2, 16, 4, 3, 2, torch.float16)
    found = read_and_gradients(hcam_recall_triton.recall, *given)
    for mine, want in zip(found, read_and_gradients(hcam_recall.recall_plainly, *in_double(*given)), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-2, atol=1e-2)


def test_a_recall_worked_by_hand():
    query = torch.tensor([[[[math.log(3), 0.0]]]], device=DEVICE)
    # In chunk 0 both logits are 0: half and half. In chunk 1 they are 0 and log 3: a quarter and three quarters. Chunk 2 has no weight, so
    # that what it holds does not matter.
    contents = torch.tensor([[[[0.0, 4.0], [0.0, 8.0]], [[0.0, 4.0], [1.0, 0.0]], [[math.inf] * 2] * 2]], device=DEVICE)
    chosen, weights = torch.tensor([[[1, 0, 2]]], device=DEVICE), torch.tensor([[[0.8, 0.2, 0.0]]], device=DEVICE)
    read = hcam_recall_triton.recall(query, contents, chosen, weights)
    torch.testing.assert_close(read.cpu(), torch.tensor([[[[0.6, 2.0]]]]))


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("steps_at_once", [1, 14])
def test_a_memory_whose_rows_reset_anywhere_recalls_through_the_kernel_what_it_recalls_plainly(monkeypatch, steps_at_once):
    luck = torch.Generator().manual_seed(2)
    plain = HCAMConfig(width=12, layers=1, heads=3, chunk_length=3, chunks=3, recalled=2, window=2).build(4).double()
    fast = HCAMConfig(width=12, layers=1, heads=3, chunk_length=3, chunks=3, recalled=2, window=2).build(4)
    fast.load_state_dict(plain.state_dict())
    fast = fast.to(DEVICE)
    x, reset = torch.randn(2, 14, 4, generator=luck), torch.rand(2, 14, generator=luck) < 0.1
    reset[:, 0] = True

    def lived(memory, x, reset, at_once):
        x.requires_grad_()
        state, outputs = memory.start(len(x)), []
        for first in range(0, x.shape[1], at_once):
            y, state = memory(x[:, first : first + at_once], state, reset[:, first : first + at_once])
            outputs.append(y)
        y = torch.cat(outputs, 1)
        weighting = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y)
        found = torch.autograd.grad((y * weighting).sum(), [x, *memory.parameters()])
        return [side.detach().cpu().double() for side in (y, *found)]

    wanted = lived(plain, x.double(), reset, 14)
    kernels = []
    fast_ones = {"hcam_choose": hcam_choose_triton, "hcam_recall": hcam_recall_triton}
    monkeypatch.setattr(hcam_recall, "triton_version", lambda kernel, *sides: kernels.append(kernel) or fast_ones[kernel])
    for mine, want in zip(lived(fast, x.to(DEVICE), reset.to(DEVICE), steps_at_once), wanted, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-5 * max(1.0, want.abs().max().item()))
    assert kernels == ["hcam_choose", "hcam_recall"] * (14 // steps_at_once)


def choices(rows, steps, width, chunks, dtype=torch.float32):
    """Queries, summaries, and which of them a step sees: two thirds, and the first step of a row none at all."""
    luck = torch.Generator().manual_seed(4)
    query, summaries = (torch.randn(rows, count, width, generator=luck) for count in (steps, chunks))
    visible = torch.rand(rows, steps, chunks, generator=luck) < 2 / 3
    visible[:, 0] = False
    return query.to(DEVICE, dtype).requires_grad_(), summaries.to(DEVICE, dtype), visible.to(DEVICE)


# 5 steps do not fill a tile of 8; 3, 6 and 40 chunks do not fill theirs; a width of 20 takes two slices and does not fill the second; of
# 300 chunks a program takes one step and four numbers at a time; a width of 150 takes two slices on the way back.
@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize(
    ("rows", "steps", "width", "chunks", "recalled"),
    [(3, 5, 20, 6, 3), (2, 1, 4, 3, 3), (1, 33, 8, 1, 1), (2, 3, 16, 40, 5), (1, 2, 12, 300, 4), (1, 17, 150, 4, 2)],
)
def test_the_kernel_chooses_what_the_plain_version_chooses_and_sends_back_the_same_gradients(rows, steps, width, chunks, recalled):
    query, summaries, visible = choices(rows, steps, width, chunks)
    double = query.detach().cpu().double().requires_grad_()
    chosen, weights = hcam_choose_triton.choose(query, summaries, visible, recalled)
    order, wanted = hcam_recall.choose_plainly(double, summaries.cpu().double(), visible.cpu(), recalled)
    torch.testing.assert_close(weights.detach().cpu().double(), wanted.detach(), rtol=1e-5, atol=1e-5)
    assert ((chosen.cpu() == order) | (wanted == 0)).all()
    # Nobody chooses a chunk twice, whatever fills up the places.
    assert (chosen.sort(-1).values.diff(dim=-1) > 0).all()
    assert chosen.max() < chunks
    grad = torch.randn(weights.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (mine,) = torch.autograd.grad(weights, query, grad.to(weights))
    (want,) = torch.autograd.grad(wanted, double, grad)
    torch.testing.assert_close(mine.cpu().double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_no_number_is_noticed_as_in_the_plain_version():
    query, summaries, visible = choices(1, 6, 4, 3)
    summaries[0, 1, 2] = math.nan
    chosen, weights = hcam_choose_triton.choose(query, summaries, visible, 2)
    order, wanted = hcam_recall.choose_plainly(query, summaries, visible, 2)
    sees = visible[0, :, 1]
    assert sees.any()
    assert weights[0].isfinite().all(-1).tolist() == wanted[0].isfinite().all(-1).tolist() == (~sees).tolist()
    assert (chosen[0, sees, 0] == 1).all()
    assert (order[0, sees, 0] == 1).all()


def test_compilers_know_shapes_and_gradients_of_the_choice():
    torch.library.opcheck(torch.ops.coterie.hcam_choose.default, (*choices(2, 3, 4, 5), 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("query", "summaries", "complaint"),
    [
        (torch.zeros(1, 1, 8, dtype=torch.float64), torch.zeros(1, 1, 8, dtype=torch.float64), "torch.float64 queries and"),
        (torch.zeros(1, 1, 8), torch.zeros(1, 4097, 8), "4,097 chunks; want at most 4,096"),
        (torch.zeros(1, 1, 8), torch.zeros(1, 4096, 8), None),
    ],
)
def test_a_choice_that_does_not_fit_the_kernel_is_refused_with_a_reason(query, summaries, complaint):
    reason = hcam_choose_triton.refused(query, summaries)
    assert reason is None if complaint is None else reason.startswith(complaint)


def test_nothing_stored_takes_gradients_through_the_kernel():
    query, contents, chosen, weights = inputs(1, 2, 1, 4, 2, 2, 1)
    read = hcam_recall_triton.recall(query, contents.requires_grad_(), chosen, weights)
    (gradient,) = torch.autograd.grad(read.sum(), [contents], allow_unused=True, materialize_grads=True)
    assert gradient.eq(0).all()


@pytest.mark.long
def test_compilers_know_shapes_and_gradients_of_the_kernel():
    torch.library.opcheck(torch.ops.coterie.hcam_recall.default, inputs(2, 3, 1, 4, 5, 2, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("query", "contents", "complaint"),
    [
        (torch.zeros(1, 1, 4, 8, dtype=torch.float64), torch.zeros(1, 1, 2, 8, dtype=torch.float64), "torch.float64 queries and"),
        (torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 2, 8, dtype=torch.bfloat16), "torch.float32 queries and torch.bfloat16 contents"),
        (torch.zeros(1, 1, 4, 512), torch.zeros(1, 1, 65, 512), "a chunk of 65 steps of width 512; want at most 64 steps"),
        (torch.zeros(1, 1, 4, 1025), torch.zeros(1, 1, 4, 1025), "a width of 1025; want at most 1,024"),
        (torch.zeros(1, 1, 8, 512), torch.zeros(1, 1, 64, 512), None),
        (torch.zeros(1, 1, 4, 64, dtype=torch.float16), torch.zeros(1, 1, 100, 64, dtype=torch.float16), None),
    ],
)
def test_what_does_not_fit_the_kernel_is_refused_with_a_reason(query, contents, complaint):
    reason = hcam_recall_triton.refused(query, contents)
    assert reason is None if complaint is None else reason.startswith(complaint)


COMPILE = """
import torch, triton
from memory.kernels import hcam_recall_triton as kernels
query, contents = (torch.empty(shape, device="meta") for shape in ((2, 9, 3, 20), (2, 4, 5, 20)))
_, settings = kernels._settings(query, contents)
warps = settings.pop("num_warps")
for kernel in (kernels._read, kernels._read_backward):
    numbers = dict.fromkeys(("steps", "chunks", "recalled"), "i32") | {"chosen": "*i64"}
    types = {name: numbers.get(name, "*fp32") for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in settings.items()}
    source = triton.compiler.ASTSource(kernel, types | dict.fromkeys(settings, "constexpr"), constants)
    compiled = triton.compile(source, triton.backends.compiler.GPUTarget("cuda", 90, 32), {"num_warps": warps})
    print(kernel.__name__, len(compiled.asm["cubin"]) > 0)

from memory.kernels import hcam_choose_triton as kernels
for kernel, settings in (
    (kernels._forward, {"WIDTH": 128, "LOWEST": torch.finfo(torch.float32).min, "CHUNKS": 16, "RECALLED": 4, "TILE": 8, "SLICE": 16}),
    (kernels._backward, {"WIDTH": 128, "TILE": 16, "SLICE": 128}),
):
    numbers = dict.fromkeys(("steps", "chunks", "recalled"), "i32") | {"chosen": "*i64", "visible": "*i1"}
    types = {name: numbers.get(name, "*fp32") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, types | dict.fromkeys(settings, "constexpr"), settings)
    compiled = triton.compile(source, triton.backends.compiler.GPUTarget("cuda", 90, 32), {"num_warps": 1})
    print(kernel.__name__, len(compiled.asm["cubin"]) > 0)
"""


@pytest.mark.long
def test_the_kernels_compile_for_a_gpu_that_need_not_be_there(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["_read True", "_read_backward True", "_forward True", "_backward True"], done.stderr
