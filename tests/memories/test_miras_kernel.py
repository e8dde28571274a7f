"""Titans and the Miras family compiled for a CPU, against the plain version in double precision (which has tests of its own)."""

import copy
import inspect
import itertools
import subprocess
import sys

import pytest
import torch

from memory import titans
from memory.kernels import miras_numba
from memory.titans import LOSSES, NETWORKS, RETENTIONS, MemoraConfig, Miras, MirasConfig, MirasState, MonetaConfig, TitansConfig, YaadConfig

WIDTH, HEADS = 12, 2
# Of what the kernel is asked.
NAMES = ("q", "k", "v", "keep", "carried", "rate", "threshold", "first", "anchor", "weights", "momentum", "phase", "reset")
# Every choice with every other, with momentum and without.
KINDS = list(itertools.product(NETWORKS, LOSSES, RETENTIONS, (True, False)))


def prepared(seed=0, rows=3, steps=41, share=0.08, **settings):
    """A layer, inputs, resets (a row's in the first step and now and then, one's never, one's close together) and a state in mid-chunk."""
    config = MirasConfig(**{"width": WIDTH, "heads": HEADS, "chunk_length": 5, "rate": 0.05, "expansion": 2, **settings})
    luck = torch.Generator().manual_seed(seed)
    layer = Miras(config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=luck))
    x = torch.randn(rows, steps, WIDTH, generator=luck)
    reset = torch.rand(rows, steps, generator=luck) < share
    reset[:, 0] = torch.arange(rows) == 0
    if rows > 2:
        reset[1] = False
        reset[2, [step for step in (5, 6, 7, 15, 16, 20, 31, 32) if step < steps]] = True
    start = layer.start(rows)
    fields = [
        0.3 * torch.randn(field.shape, generator=luck) if field is not None and field.is_floating_point() else field for field in start
    ]
    return layer, x, reset, MirasState(*fields)._replace(phase=torch.arange(rows) % config.chunk_length)


def results_of(layer, x, reset, state, dtype):
    """Outputs, the state after, and gradients in inputs, parameters and state, all of one weighted sum."""
    layer = copy.deepcopy(layer).to(dtype)
    x = x.to(dtype).requires_grad_()
    state = MirasState(*(field.to(dtype).requires_grad_() if is_number(field) else field for field in state))
    y, after = layer(x, state, reset)
    luck = torch.Generator().manual_seed(7)
    found = [y, *(field for field in after if is_number(field))]
    total = sum((field * torch.randn(field.shape, generator=luck).to(dtype)).sum() for field in found)
    sources = [x, *layer.parameters(), *(field for field in state if is_number(field))]
    return [*found, *torch.autograd.grad(total, sources, allow_unused=True, materialize_grads=True)], after.phase


def is_number(field):
    return field is not None and field.is_floating_point()


def assert_near(found, wanted):
    for mine, want in zip(found, wanted, strict=True):
        scale = want.abs().max() + 1e-30
        torch.testing.assert_close(mine.double() / scale, want / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("network", "loss", "retention", "momentum"), KINDS)
def test_every_kind_is_the_plain_one_in_outputs_state_and_gradients(network, loss, retention, momentum):
    material = prepared(network=network, loss=loss, retention=retention, momentum=momentum)
    found, phase = results_of(*material, torch.float32)
    wanted, wanted_phase = results_of(*material, torch.float64)
    assert_near(found, wanted)
    assert torch.equal(phase, wanted_phase)


@pytest.mark.parametrize("steps", [1, 15, 16, 17, 41])
@pytest.mark.parametrize("chunk_length", [1, 3, 16, 50])
def test_no_length_of_chunks_or_calls_makes_a_difference(steps, chunk_length):
    material = prepared(1, steps=steps, chunk_length=chunk_length, rate=0.01)
    assert_near(results_of(*material, torch.float32)[0], results_of(*material, torch.float64)[0])


@pytest.mark.parametrize("source", ["anchor", "weights", "momentum"])
def test_gradients_come_from_the_state_after_alone(source):
    layer, x, reset, state = prepared(13)
    reset[:, 8:] = False

    def found_in(dtype):
        own = copy.deepcopy(layer).to(dtype)
        fields = {name: field.to(dtype) for name, field in state._asdict().items() if is_number(field)}
        begun = fields["weights"].requires_grad_()
        _, after = own(x.to(dtype), state._replace(**fields), reset)
        return torch.autograd.grad(getattr(after, source).square().sum(), [begun, own.project.weight, own.first_weights[0]])

    assert_near(found_in(torch.float32), found_in(torch.float64))


@pytest.mark.parametrize("heads", [1, 3, 4, 12])
@pytest.mark.parametrize("expansion", [1, 4])
def test_heads_may_be_of_any_width(heads, expansion):
    for network in NETWORKS:
        material = prepared(2, heads=heads, expansion=expansion, network=network)
        assert_near(results_of(*material, torch.float32)[0], results_of(*material, torch.float64)[0])


def test_a_layer_in_single_precision_on_a_cpu_is_the_compiled_one(monkeypatch):
    layer, x, reset, state = prepared(3)
    calls = []
    compiled = miras_numba.learn
    monkeypatch.setattr(miras_numba, "learn", lambda *arguments: calls.append(1) or compiled(*arguments))
    layer(x, state, reset)
    assert calls == [1]
    layer.double()(x.double(), MirasState(*(field.double() if is_number(field) else field for field in state)), reset)
    assert calls == [1]


@pytest.mark.parametrize("config", [TitansConfig, MonetaConfig, YaadConfig, MemoraConfig])
def test_nothing_crosses_a_reset_not_even_what_is_not_a_number(config):
    luck = torch.Generator().manual_seed(4)
    layer = Miras(config(width=WIDTH, heads=HEADS, chunk_length=4))
    x = torch.randn(2, 30, WIDTH, generator=luck)
    reset = torch.zeros(2, 30, dtype=torch.bool)
    reset[:, [0, 21]] = True
    x.requires_grad_()
    y, _ = layer(x, layer.start(2), reset)
    (reached,) = torch.autograd.grad(y[:, 21:].square().sum(), x)
    assert reached[:, :21].eq(0).all()
    assert reached[:, 21:].ne(0).all()
    spoiled = x.detach().index_fill(1, torch.tensor([3]), torch.nan)
    found, after = layer(spoiled, layer.start(2), reset)
    assert found[:, 3:21].isnan().all()
    assert torch.equal(found[:, 21:], y[:, 21:])
    assert all(field.isfinite().all() for field in after if is_number(field))


def test_what_is_not_a_number_at_a_reset_does_not_reach_what_came_before_it():
    *tensors, kind, chunk_length, constants = arguments_of(*prepared(14))
    sides = dict(zip(NAMES, tensors, strict=True))
    spoiled = torch.arange(41) == 20
    sides["reset"] = sides["reset"] | spoiled
    sides["carried"] = sides["carried"].masked_fill(spoiled, torch.nan)
    learned = [sides[name].clone().requires_grad_() for name in ("k", "v", "keep", "anchor", "weights", "momentum")]
    sides |= dict(zip(("k", "v", "keep", "anchor", "weights", "momentum"), learned, strict=True))
    y, *_ = miras_numba.learn(**sides, kind=kind, chunk_length=chunk_length, constants=constants)
    *by_step, anchor, weights, momentum = torch.autograd.grad(y[:, :, :20].square().sum(), learned)
    assert all(grad.isfinite().all() for grad in (*(each[:, :, :20] for each in by_step), anchor, weights, momentum))


@pytest.mark.parametrize("retention", RETENTIONS)
def test_a_first_reset_forgets_a_state_that_is_not_a_number_both_ways(retention):
    layer, x, reset, state = prepared(15, retention=retention)
    reset[:, 0] = True
    wanted, _ = layer(x, state, reset)
    fields = {name: torch.full_like(field, torch.nan).requires_grad_() for name, field in state._asdict().items() if is_number(field)}
    y, after = layer(x, state._replace(**fields), reset)
    assert torch.equal(y, wanted)
    assert all(field.isfinite().all() for field in after if is_number(field))
    reached = torch.autograd.grad(y.sum(), [fields[name] for name in ("anchor", "weights", "momentum")])
    assert all(grad.eq(0).all() for grad in reached)


def test_a_row_that_is_not_a_number_leaves_the_others_alone():
    layer, x, reset, state = prepared(5)
    clean, _ = layer(x, state, reset)
    x[1], reset[1] = torch.nan, False
    found, after = layer(x, state, reset)
    assert torch.equal(found[[0, 2]], clean[[0, 2]])
    assert found[1].isnan().all()
    assert after.weights[1].isnan().any()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_rows_and_heads_out(monkeypatch, threads):
    monkeypatch.setattr(miras_numba, "_ALONE", 0)
    material = prepared(6)
    wanted, _ = results_of(*material, torch.float32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found, _ = results_of(*material, torch.float32)
    assert all(torch.equal(mine, want) for mine, want in zip(found, wanted, strict=True))


def test_nobody_has_nothing():
    layer, x, reset, _ = prepared(7)
    y, after = layer(x[:0], layer.start(0), reset[:0])
    assert y.shape == (0, 41, WIDTH)
    assert after.weights.shape[0] == 0


def arguments_of(layer, x, reset, state):
    """What the layer would ask the kernel."""
    asked = []
    original = miras_numba.learn

    def learn(*arguments):
        asked.append(arguments)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(miras_numba, "learn", learn)
        layer(x, state, reset)
    return list(asked[0])


def test_what_is_kept_for_learning_is_a_state_for_sixteen_steps():
    q, k, v, *others, kind, chunk_length, constants = arguments_of(*prepared(8, steps=48))
    *_, kept = miras_numba._forward(q, k, v, *others, *kind, chunk_length, *constants, True)
    assert kept.numel() == 3 * (48 // 16) * others[6].numel()
    assert miras_numba._forward(q, k, v, *others, *kind, chunk_length, *constants, False)[-1].numel() == 0


def test_gradients_come_through_a_function_that_is_mapped_over():
    q, k, v, *others = arguments_of(*prepared(9, momentum=False))
    many = torch.stack([v, 2 * v]).requires_grad_()
    mapped = torch.func.vmap(lambda one: miras_numba.learn(q, k, one, *others)[0])(many)
    apart = torch.stack([miras_numba.learn(q, k, one, *others)[0] for one in many])
    (found,), (want,) = (torch.autograd.grad(result.square().sum(), many) for result in (mapped, apart))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrong", NAMES)
def test_shapes_that_do_not_fit_are_named(wrong):
    *tensors, kind, chunk_length, constants = arguments_of(*prepared(10))
    sides = dict(zip(NAMES, tensors, strict=True))
    sides[wrong] = sides[wrong][..., :1]
    # Without the tests' own check of shapes.
    learn = inspect.unwrap(miras_numba.learn)
    with pytest.raises(ValueError, match=r"^\w+ is \[.*\]; want ") as refused:
        learn(**sides, kind=kind, chunk_length=chunk_length, constants=constants)
    assert wrong == "q" or str(refused.value).startswith(wrong)


def test_momentum_is_there_for_both_or_for_neither():
    learn = inspect.unwrap(miras_numba.learn)
    *tensors, kind, chunk_length, constants = arguments_of(*prepared(10))
    sides = dict(zip(NAMES, tensors, strict=True)) | {"kind": kind, "chunk_length": chunk_length, "constants": constants}
    with pytest.raises(ValueError, match=r"momentum is None; want some"):
        learn(**sides | {"momentum": None})
    with pytest.raises(ValueError, match=r"momentum is \[3, 2, 144\]; want None"):
        learn(**sides | {"carried": None})


def test_no_steps_leave_the_state():
    q, k, v, keep, carried, rate, threshold, first, *state, reset, kind, chunk_length, constants = arguments_of(*prepared(10))
    several = (side[:, :, :0] for side in (q, k, v, keep, carried, rate, threshold))
    y, *after = miras_numba.learn(*several, first, *state, reset[:, :0], kind, chunk_length, constants)
    assert y.shape == (3, 2, 0, 6)
    assert all(torch.equal(found, want) for found, want in zip(after, state, strict=True))


COMPILE = """
import torch
from memory.titans import Miras, TitansConfig
layer, x, reset = Miras(TitansConfig(width=12, heads=2)), torch.randn(2, 20, 12), torch.rand(2, 20) < 0.1
reset[:, 0] = True
wanted, _ = layer(x, layer.start(2), reset)
found, _ = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, layer.start(2), reset)
torch.testing.assert_close(found, wanted)
found.sum().backward()
"""


@pytest.mark.long
def test_torch_compile_takes_a_layer_whole():
    # Elsewhere, where no shapes are checked, which no compiler follows.
    subprocess.run([sys.executable, "-c", COMPILE], check=True)


def test_without_numba_it_is_plain(monkeypatch):
    layer, x, reset, state = prepared(12)
    y, _ = layer(x, state, reset)
    monkeypatch.setattr(titans, "numba_version", lambda *_: None)
    plain, _ = layer(x, state, reset)
    assert not torch.equal(plain, y)
    torch.testing.assert_close(plain, y, rtol=1e-4, atol=1e-5)
