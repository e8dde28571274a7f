"""The law of memories, over all of `MEMORIES`, and each memory against an independent oracle."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from memory import MEMORIES
from memory.gru import GRUConfig, gru_sequence
from memory.none import NoMemoryConfig
from training.settings import load
from training.tree import map_leaves, named_leaves, rows_of

INPUTS, WIDTH = 3, 4
# What keeps a memory small enough to be tested often, where its settings have such a field.
SMALL = {"width": WIDTH, "layers": 2, "heads": 2, "chunk_length": 3, "chunks": 4, "recalled": 2, "window": 3}


def small(name):
    """A memory's settings, with which it can be tested often."""
    config = load(MEMORIES[name])()
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{field: value for field, value in SMALL.items() if field in fields})


def build(name, seed=0, dtype=torch.float64):
    """A memory whose parameters, biases too, are random and a function of the seed."""
    memory = small(name).build(INPUTS).to(dtype)
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=dtype))
    return memory


def inputs(seed, batch, steps, dtype=torch.float64, resets=0.25):
    luck = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, INPUTS, generator=luck, dtype=dtype)
    return x, torch.rand(batch, steps, generator=luck) < resets


def used_state(memory, seed, batch, dtype=torch.float64):
    """A state that has seen five steps; its real numbers take gradients."""
    x, reset = inputs(seed + 1000, batch, 5, dtype)
    with torch.no_grad():
        _, state = memory(x, memory.start(batch), reset)
    return map_leaves(lambda leaf: leaf.clone().requires_grad_(leaf.is_floating_point()), state)


def fold(memory, x, state, reset, cuts):
    """Outputs and final state when the steps are split at `cuts`."""
    outputs = []
    for first, last in itertools.pairwise((0, *cuts, x.shape[1])):
        y, state = memory(x[:, first:last], state, reset[:, first:last])
        outputs.append(y)
    return torch.cat(outputs, 1), state


def differentiable(nest):
    return [leaf for leaf in named_leaves(nest).values() if leaf.requires_grad]


def everything(memory, x, state, reset, cuts, drawn=None):
    """Outputs, final state, and gradients in inputs, parameters and initial state: {name: tensor}. drawn: the type of the loss's weights,
    which are others in another type; None for that of the results."""
    x = x.clone().requires_grad_()
    y, after = fold(memory, x, state, reset, cuts)
    results = [y, *differentiable(after)]
    luck = torch.Generator().manual_seed(1)
    loss = sum((result * torch.randn(result.shape, generator=luck, dtype=drawn or result.dtype).to(result)).mean() for result in results)
    sources = {"x": x, **dict(memory.named_parameters()), **{f"state {i}": leaf for i, leaf in enumerate(differentiable(state))}}
    gradients = torch.autograd.grad(loss, list(sources.values()), allow_unused=True, materialize_grads=True)
    found = {"y": y, **{f"after {name}": leaf for name, leaf in named_leaves(after).items()}}
    return found | {f"gradient of {name}": gradient for name, gradient in zip(sources, gradients, strict=True)}


def assert_same(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


each_memory = pytest.mark.parametrize("name", MEMORIES)


@each_memory
@settings(deadline=None, derandomize=True, max_examples=6)
@given(data=st.data())
def test_any_split_of_the_steps_gives_the_same_outputs_state_and_gradients(name, data):
    seed, batch, steps = (data.draw(st.integers(low, high)) for low, high in ((0, 10**6), (1, 4), (1, 12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, steps), max_size=6)))
    resets = data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    memory = build(name, seed)
    x, reset = inputs(seed, batch, steps, resets=resets)
    state = used_state(memory, seed, batch)
    whole = everything(memory, x, state, reset, ())
    assert_same(everything(memory, x, state, reset, cuts), whole, 1e-11)
    assert_same(everything(memory, x, state, reset, range(1, steps)), whole, 1e-11)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compares one with the CPU")
@pytest.mark.parametrize("steps", [1, 40])
@each_memory
def test_a_gpu_remembers_what_a_cpu_does(name, steps):
    """A GPU in single precision, through kernels where there are some, a CPU in double."""
    x, reset = inputs(5, 4, steps, resets=0.1)
    memory = build(name, 5)
    state = used_state(memory, 5, 4)
    wanted = everything(memory, x, state, reset, (), torch.float64)
    there = memory.float().to("cuda")
    moved = map_leaves(lambda leaf: (leaf.detach().float() if leaf.is_floating_point() else leaf).to("cuda"), state)
    moved = map_leaves(lambda leaf: leaf.requires_grad_(leaf.is_floating_point()), moved)
    found = everything(there, x.float().to("cuda"), moved, reset.to("cuda"), (), torch.float64)
    for part, value in wanted.items():
        right = value.detach().double()
        tolerance = 1e-4 * max([1.0, *right.abs().flatten().tolist()])
        torch.testing.assert_close(
            found[part].cpu().double(), right, rtol=1e-3, atol=tolerance, msg=lambda text, part=part: f"{part}: {text}"
        )


@each_memory
def test_a_long_trial_in_single_precision_may_be_split(name):
    """Step by step for 34 steps, then in parts of all lengths. Of luck by which rounding does not decide: by some, single precision is out
    by more than is asked here, however it is split (docs/log.md)."""
    luck, cuts = 6, [*range(1, 34), 70, 128, 129, 144, 160, 200, 255, 256]
    memory = build(name, luck, torch.float32)
    x, reset = inputs(luck, 5, 257, torch.float32, resets=0.02)
    state = used_state(memory, luck, 5, torch.float32)
    split, whole = everything(memory, x, state, reset, cuts), everything(memory, x, state, reset, ())
    assert_same(split, whole, 1e-5)
    # Gradients of a mean are small: beside their own size, too.
    sizes = {name: value.abs().max().clamp(min=1e-12) for name, value in whole.items() if name.startswith("gradient") and value.numel()}
    assert len(sizes) > 3
    assert_same(
        {name: split[name] / size for name, size in sizes.items()}, {name: whole[name] / size for name, size in sizes.items()}, 5e-5
    )


@pytest.mark.slow
@each_memory
def test_a_long_trial_may_be_split_with_the_settings_and_weights_that_one_begins_with(name):
    """Small memories with large weights hide what wide ones do as they are initialised."""
    torch.manual_seed(4)
    memory = load(MEMORIES[name])().build(INPUTS)
    x, reset = inputs(4, 2, 257, torch.float32, resets=0.01)
    reset[:, 0] = True
    with torch.no_grad():
        whole, after = memory(x, memory.start(2), reset)
        split, after_split = fold(memory, x, memory.start(2), reset, [*range(1, 17), *range(18, 257, 12)])
    assert_same({"y": split, **named_leaves(after_split)}, {"y": whole, **named_leaves(after)}, 1e-4)


@each_memory
def test_acting_without_gradients_gives_what_learning_recomputes(name):
    memory = build(name)
    x, reset = inputs(4, 3, 9)
    state = used_state(memory, 4, 3)
    with torch.no_grad():
        played, after_play = fold(memory, x, state, reset, range(1, 9))
    learned, after_learning = memory(x, state, reset)
    assert_same({"y": played, **named_leaves(after_play)}, {"y": learned, **named_leaves(after_learning)}, 1e-11)


@each_memory
@pytest.mark.parametrize("at", [5, 7], ids=["long ago", "at the last step"])
def test_a_reset_forgets_everything_before_it(name, at):
    memory = build(name)
    x, _ = inputs(5, 2, 8)
    reset = torch.zeros(2, 8, dtype=torch.bool)
    reset[:, at] = True
    y, after = memory(x, used_state(memory, 5, 2), reset)
    other = x.clone()
    other[:, :at] = 1e6
    other_y, other_after = memory(other, used_state(memory, 6, 2), reset)
    assert_same({"y": other_y[:, at:], **named_leaves(other_after)}, {"y": y[:, at:], **named_leaves(after)}, 1e-12)


@each_memory
def test_nothing_after_a_reset_sends_gradients_to_what_came_before(name):
    memory = build(name)
    x, _ = inputs(5, 2, 8)
    x.requires_grad_()
    reset = torch.zeros(2, 8, dtype=torch.bool)
    reset[:, 5] = True
    state = used_state(memory, 5, 2)
    y, after = memory(x, state, reset)
    loss = y[:, 5:].sum() + sum(leaf.sum() for leaf in differentiable(after))
    to_x, *to_state = torch.autograd.grad(loss, [x, *differentiable(state)], allow_unused=True, materialize_grads=True)
    assert to_x[:, :5].eq(0).all()
    assert all(gradient.eq(0).all() for gradient in to_state)
    assert to_x[:, 5:].abs().sum() > 0


@each_memory
def test_a_row_that_resets_is_a_row_that_starts(name):
    memory = build(name)
    x, reset = inputs(7, 3, 6)
    reset[:, 0] = True
    y, after = memory(x, used_state(memory, 7, 3), reset)
    fresh_y, fresh_after = memory(x, memory.start(3), reset)
    assert_same({"y": y, **named_leaves(after)}, {"y": fresh_y, **named_leaves(fresh_after)}, 1e-12)


@pytest.mark.parametrize("name", [name for name in MEMORIES if name != "none"])
def test_without_a_reset_the_past_is_remembered(name):
    memory = build(name)
    x, _ = inputs(8, 2, 6)
    other = x.clone()
    other[:, 0] += 1
    never = torch.zeros(2, 6, dtype=torch.bool)
    state = used_state(memory, 8, 2)
    assert (memory(x, state, never)[0][:, -1] - memory(other, state, never)[0][:, -1]).abs().max() > 1e-6


@each_memory
def test_no_output_peeks_ahead(name):
    memory = build(name)
    x, reset = inputs(9, 2, 8)
    x.requires_grad_()
    state = used_state(memory, 9, 2)
    y, _ = memory(x, state, reset)
    for t in range(8):
        (gradient,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        assert gradient[:, t + 1 :].eq(0).all()
    changed, changed_reset = x.detach().clone(), reset.clone()
    changed[:, 4:], changed_reset[:, 4:] = 100.0, ~reset[:, 4:]
    torch.testing.assert_close(memory(changed, state, changed_reset)[0][:, :4], y[:, :4], rtol=0, atol=1e-12)


@each_memory
def test_rows_of_a_batch_are_strangers(name):
    memory = build(name)
    x, reset = inputs(10, 4, 9)
    state = used_state(memory, 10, 4)
    y, after = memory(x, state, reset)
    for row in range(4):
        part = slice(row, row + 1)
        alone_y, alone_after = memory(x[part], rows_of(state, part), reset[part])
        assert_same({"y": alone_y, **named_leaves(alone_after)}, {"y": y[part], **named_leaves(rows_of(after, part))}, 1e-12)
    others = torch.arange(4) != 2
    changed, changed_reset = x.clone(), reset.clone()
    changed[2], changed_reset[2] = float("nan"), ~reset[2]
    changed_y, changed_after = memory(changed, state, changed_reset)
    found = {"y": changed_y[others], **named_leaves(rows_of(changed_after, others))}
    assert_same(found, {"y": y[others], **named_leaves(rows_of(after, others))}, 1e-12)


@each_memory
@pytest.mark.parametrize(("rows", "steps"), [(0, 1), (0, 5), (2, 0)])
def test_nobody_and_no_steps_remember_and_show_nothing(name, rows, steps):
    memory = build(name)
    x, reset = torch.zeros(rows, steps, INPUTS, dtype=torch.float64), torch.zeros(rows, steps, dtype=torch.bool)
    y, after = memory(x, memory.start(rows), reset)
    assert y.shape == (rows, steps, memory.outputs)
    assert all(len(leaf) == rows for leaf in named_leaves(after).values())
    assert all(seen.shape[:2] == (rows, steps) for seen in memory.inspect(x, memory.start(rows), reset).values())


@each_memory
def test_no_steps_give_no_outputs_and_leave_the_state(name):
    memory = build(name)
    state = used_state(memory, 11, 3)
    y, after = memory(torch.zeros(3, 0, INPUTS, dtype=torch.float64), state, torch.zeros(3, 0, dtype=torch.bool))
    assert y.shape == (3, 0, memory.outputs)
    assert y.dtype == torch.float64
    assert_same(named_leaves(after), named_leaves(state), 0)


@each_memory
def test_a_state_keeps_its_shapes_and_types_and_the_old_one_its_numbers(name):
    memory = build(name)
    state = memory.start(3)
    for seed in range(4):
        x, reset = inputs(seed, 3, 7)
        before = map_leaves(torch.clone, state)
        _, after = memory(x, state, reset)
        assert_same(named_leaves(state), named_leaves(before), 0)
        assert [(leaf.shape, leaf.dtype) for leaf in named_leaves(after).values()] == [
            (leaf.shape, leaf.dtype) for leaf in named_leaves(state).values()
        ]
        assert all(leaf.shape[0] == 3 for leaf in named_leaves(after).values())
        state = after


@each_memory
def test_the_size_of_a_state_is_what_its_formula_says(name):
    memory = build(name)
    assert memory.state_size == sum(leaf.numel() for leaf in named_leaves(memory.start(3)).values()) // 3


@each_memory
@pytest.mark.parametrize("cuts", [(), range(1, 9)], ids=["whole", "step by step"])
def test_in_mixed_precision_the_state_keeps_its_type_and_the_outputs_are_near(name, cuts):
    memory = build(name, dtype=torch.float32)
    x, reset = inputs(12, 3, 9, torch.float32)
    y, after = fold(memory, x, memory.start(3), reset, cuts)
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_after = fold(memory, x, memory.start(3), reset, cuts)
    assert {path: leaf.dtype for path, leaf in named_leaves(rough_after).items()} == {
        path: leaf.dtype for path, leaf in named_leaves(after).items()
    }
    # bfloat16 keeps eight bits.
    torch.testing.assert_close(rough.float(), y, rtol=0.1, atol=0.1)


@each_memory
def test_what_a_memory_looks_at_is_a_row_per_step_and_leaves_the_outputs_alone(name):
    memory = build(name)
    x, reset = inputs(13, 3, 9)
    state = used_state(memory, 13, 3)
    y, _ = memory(x, state, reset)
    seen = memory.inspect(x, state, reset)
    assert all(value.shape[:2] == (3, 9) for value in seen.values())
    assert torch.equal(memory(x, state, reset)[0], y)
    # A step at a time it looks at the same.
    for t in range(9):
        step = memory.inspect(x[:, t : t + 1], state, reset[:, t : t + 1])
        assert_same({key: value[:, 0] for key, value in step.items()}, {key: value[:, t] for key, value in seen.items()}, 1e-10)
        _, state = memory(x[:, t : t + 1], state, reset[:, t : t + 1])


@each_memory
def test_settings_name_a_width_that_cannot_be(name):
    config = load(MEMORIES[name])
    with pytest.raises(ValueError, match=f"{config.__name__}.width is 0; want a whole number from 1 to 65,536"):
        config(width=0)


def gru_and_oracle():
    """Ours and torch.nn.GRU with the same weights: gates in the order r, z, n; the recurrent biases of r and z are zero."""
    ours = build("gru", 12)
    assert isinstance(GRUConfig(WIDTH).build(INPUTS), type(ours))
    oracle = nn.GRU(INPUTS, WIDTH, batch_first=True).double()
    with torch.no_grad():
        oracle.weight_ih_l0.copy_(ours.from_input.weight)
        oracle.bias_ih_l0.copy_(ours.from_input.bias)
        oracle.weight_hh_l0.copy_(ours.from_hidden)
        oracle.bias_hh_l0.zero_()
        oracle.bias_hh_l0[2 * WIDTH :] = ours.candidate_bias
    return ours, oracle


def oracle_with_resets(oracle, x, hidden, reset):
    """torch.nn.GRU one step at a time, its hidden state set to zero wherever a row resets."""
    outputs = []
    for t in range(x.shape[1]):
        hidden = hidden * (~reset[:, t, None])
        y, last = oracle(x[:, t : t + 1], hidden[None])
        hidden = last[0]
        outputs.append(y)
    return torch.cat(outputs, 1), hidden


@pytest.mark.parametrize("resets", [0.0, 0.3])
def test_the_gru_agrees_with_torchs_in_outputs_state_and_gradients(resets):
    ours, oracle = gru_and_oracle()
    x, reset = inputs(13, 5, 11, resets=resets)
    x.requires_grad_()
    state = used_state(ours, 13, 5)
    y, after = ours(x, state, reset)
    oracle_y, oracle_after = oracle_with_resets(oracle, x, state.hidden, reset)
    torch.testing.assert_close(y, oracle_y)
    torch.testing.assert_close(after.hidden, oracle_after)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    gradients = torch.autograd.grad(
        (y * weights).sum() + after.hidden.square().sum(),
        [x, state.hidden, ours.from_input.weight, ours.from_input.bias, ours.from_hidden, ours.candidate_bias],
    )
    *wanted, hidden_bias = torch.autograd.grad(
        (oracle_y * weights).sum() + oracle_after.square().sum(),
        [x, state.hidden, oracle.weight_ih_l0, oracle.bias_ih_l0, oracle.weight_hh_l0, oracle.bias_hh_l0],
    )
    for found, want in zip(gradients, [*wanted, hidden_bias[2 * WIDTH :]], strict=True):
        torch.testing.assert_close(found, want)


def test_one_call_of_torchs_gru_over_all_steps_agrees_too():
    ours, oracle = gru_and_oracle()
    x, _ = inputs(14, 2, 30)
    y, after = ours(x, ours.start(2), torch.zeros(2, 30, dtype=torch.bool))
    oracle_y, oracle_after = oracle(x)
    torch.testing.assert_close(y, oracle_y)
    torch.testing.assert_close(after.hidden, oracle_after[0])


@pytest.mark.parametrize("resets", [0.0, 0.4])
def test_gru_sequences_own_gradients_match_finite_differences(resets):
    luck = torch.Generator().manual_seed(15)
    shapes = ((4, 3, 6), (3, 2), (6, 2), (2,))
    gates, hidden, weight, bias = (torch.randn(shape, generator=luck, dtype=torch.float64, requires_grad=True) for shape in shapes)
    reset = torch.rand(4, 3, generator=luck) < resets
    assert reset.any() == (resets > 0)
    assert torch.autograd.gradcheck(
        lambda *learned: gru_sequence(learned[0], learned[1], reset, *learned[2:]), (gates, hidden, weight, bias)
    )


@pytest.mark.parametrize("learned", range(4))
def test_gru_sequence_gives_the_same_gradient_when_only_one_argument_needs_it(learned):
    luck = torch.Generator().manual_seed(16)
    values = [torch.randn(shape, generator=luck, dtype=torch.float64) for shape in ((4, 3, 6), (3, 2), (6, 2), (2,))]
    reset = torch.rand(4, 3, generator=luck) < 0.3

    def gradient(*needed):
        leaves = [value.clone().requires_grad_(number in needed) for number, value in enumerate(values)]
        output = gru_sequence(leaves[0], leaves[1], reset, *leaves[2:])
        return torch.autograd.grad(output.square().sum(), leaves[learned])[0]

    torch.testing.assert_close(gradient(learned), gradient(0, 1, 2, 3))


def test_a_gru_whose_update_gate_is_open_keeps_its_state_and_whose_gate_is_shut_takes_the_candidate():
    memory = GRUConfig(2).build(1)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.zero_()
        memory.from_input.bias[2:4] = torch.tensor([100.0, -100.0])
        memory.from_input.bias[4:6] = torch.tensor([0.5, 0.5])
    before = type(memory.start(1))(torch.tensor([[0.25, 0.25]]))
    y, _ = memory(torch.zeros(1, 1, 1), before, torch.zeros(1, 1, dtype=torch.bool))
    # z = 1 keeps 0.25, z = 0 takes tanh(0.5).
    torch.testing.assert_close(y, torch.tensor([[[0.25, 0.46211716]]]))


def test_no_memory_is_a_perceptron_worked_by_hand():
    memory = NoMemoryConfig(2).build(2)
    first, last = memory.layers[0], memory.layers[2]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.0]]))
        first.bias.copy_(torch.tensor([0.5, 1.0]))
        last.weight.copy_(torch.tensor([[2.0, 1.0], [-1.0, 1.0]]))
        last.bias.copy_(torch.tensor([0.0, 1.0]))
    # (1, 1): hidden (3.5, 0), output (7, -2.5 -> 0). (-3, 1): hidden (-0.5 -> 0, 4), output (4, 5).
    y, _ = memory(torch.tensor([[[1.0, 1.0], [-3.0, 1.0]]]), memory.start(1), torch.zeros(1, 2, dtype=torch.bool))
    assert y.tolist() == [[[7.0, 0.0], [4.0, 5.0]]]


def test_no_memory_remembers_nothing():
    memory = build("none")
    x, reset = inputs(17, 2, 5)
    other = x.clone()
    other[:, :4] += 1
    assert torch.equal(memory(x, memory.start(2), reset)[0][:, 4], memory(other, memory.start(2), reset)[0][:, 4])
