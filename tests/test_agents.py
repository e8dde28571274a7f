"""Encoders, heads, and the agent around a memory."""

import inspect
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn.functional import one_hot

from agents import agent as agents_agent
from agents import encoders
from agents.agent import AgentConfig
from agents.encoders import encoder_of
from agents.heads import BoundedHead, head_of
from agents.occupant import Occupant
from envs.chance import Purpose, fold, seeds_of, uniform
from envs.game import ACTION_MASK
from envs.iterated_dilemma import IteratedDilemma
from memory import MEMORIES
from memory.frame_stack import FrameStackConfig
from memory.gru import GRUConfig
from memory.hcam import HCAMConfig
from memory.linear_attention import DeltaRuleConfig
from training.presets import ballet_symbols_quick
from training.settings import load
from training.tree import named_leaves, rows_of

spaces = gym.spaces


def seeds(count, first=0):
    return seeds_of(20251123, Purpose.ACTION, count, first=first)


def box(low, high, shape=()):
    return spaces.Box(np.float32(low), np.float32(high), shape, np.float32)


def shaken(module, seed=1, size=0.8):
    """The module with random parameters, so that nothing is zero or even as it was at first."""
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=luck))
    return module


def draw_from(head, probs, count=40_000):
    """Samples from the given probabilities."""
    policy = torch.tensor(probs).log().clamp_min(-1e30).expand(count, len(probs))
    return head.sample(policy, seeds(count))


def test_a_symbol_is_encoded_by_its_own_row_of_the_table():
    encode = encoder_of(spaces.Discrete(3, start=5), 4)
    assert torch.equal(encode(torch.tensor([[5, 6], [7, 5]])), encode.table.weight[torch.tensor([[0, 1], [2, 0]])])


def test_several_symbols_add_up_each_from_a_table_of_its_own():
    encode = encoder_of(spaces.MultiDiscrete([2, 3], start=[0, 10]), 4)
    rows = encode.table.weight
    assert rows.shape == (5, 4)
    torch.testing.assert_close(encode(torch.tensor([[0, 10], [1, 12]])), torch.stack([rows[0] + rows[2], rows[1] + rows[4]]))


def test_a_box_is_flattened_and_projected():
    encode = encoder_of(box(-1, 1, (2, 3)), 4)
    values = torch.arange(12.0).reshape(2, 2, 3)
    torch.testing.assert_close(encode(values), values.reshape(2, 6) @ encode.project.weight.T + encode.project.bias)


def test_a_box_without_axes_is_one_number():
    encode = encoder_of(box(0, 1), 4)
    assert encode(torch.zeros(5, 7)).shape == (5, 7, 4)
    torch.testing.assert_close(encode(torch.tensor([2.0]))[0], 2 * encode.project.weight[:, 0] + encode.project.bias)


def test_the_pixels_of_a_picture_are_scaled_to_one():
    encode = encoder_of(spaces.Box(0, 255, (2, 2, 3), np.uint8), 4)
    white = encode(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(white[0], encode.project.weight.sum(1) + encode.project.bias)


def test_a_cell_of_a_grid_is_the_sum_of_its_fields_and_its_place_says_what_it_adds():
    encode = encoder_of(spaces.MultiDiscrete(np.broadcast_to([3, 4], (1, 2, 2)), start=np.broadcast_to([5, 0], (1, 2, 2))), 1)
    shapes, colours = encode.tables
    with torch.no_grad():
        for parameter in encode.parameters():
            parameter.zero_()
        shapes.weight[1, 0], shapes.weight[2, 0] = 3, -8
        colours.weight[2, 0], colours.weight[3, 0] = 4, 5
        # The first feature of the left cell counts once, of the right cell ten times.
        encode.project.weight[0, 0], encode.project.weight[0, encode.project.in_features // 2] = 1, 10
    grids = [[[[6, 2], [5, 3]]], [[[5, 3], [6, 2]]], [[[7, 2], [5, 0]]], [[[7, 3], [6, 0]]]]
    # 3 + 4 on the left, 5 on the right; the other way round; -8 + 4 is cut off at 0; likewise, and 3 on the right.
    assert encode(torch.tensor(grids)[:, None])[:, 0, 0].tolist() == [57, 75, 0, 30]


@pytest.mark.parametrize(
    ("memory", "complaint"),
    [
        (HCAMConfig(chunks=65_536, chunk_length=65_536), "memory is HCAMConfig of 2,19[0-9,]* numbers per row; want at most 100,000,000"),
        (GRUConfig(65_536), "memory is GRUConfig of 12,[0-9,]* parameters; want at most 10,000,000,000"),
        (DeltaRuleConfig(width=32_768), "memory is DeltaRuleConfig of [0-9,]* numbers per row; want at most 100,000,000"),
        (FrameStackConfig(frames=65_536, width=65_536), "memory is FrameStackConfig of [0-9,]* parameters; want at most 10,000,000,000"),
    ],
)
def test_what_no_machine_holds_is_refused_by_name(memory, complaint):
    with pytest.raises(ValueError, match=complaint):
        AgentConfig(memory=memory)


def test_many_combinations_of_symbols_are_encoded_as_few_are(monkeypatch):
    space = gym.spaces.MultiDiscrete(np.broadcast_to([5, 4, 3], (6, 7, 3)), start=np.broadcast_to([1, 0, 2], (6, 7, 3)))
    space.seed(0)
    encode = encoder_of(space, 8).double()
    grid = torch.as_tensor(np.stack([space.sample() for _ in range(30)]))[:, None]
    found = []
    for most in (5 * 4 * 3, 5 * 4 * 3 - 1):
        monkeypatch.setattr(encoders, "COMBINATIONS", most)
        encode.zero_grad()
        encoded = encode(grid)
        encoded.square().sum().backward()
        found.append([encoded.detach(), *(parameter.grad.clone() for parameter in encode.parameters())])
    for few, many in zip(*found, strict=True):
        assert few.abs().sum() > 0
        torch.testing.assert_close(few, many)


def test_nothing_on_a_grid_adds_nothing_and_learns_nothing():
    encode = encoder_of(spaces.MultiDiscrete(np.full((2, 2, 1), 3)), 4)
    assert torch.equal(encode(torch.zeros(1, 2, 2, 1, dtype=torch.uint8)), torch.zeros(1, 4))
    encode(torch.tensor([[[[0], [1]], [[0], [0]]]], dtype=torch.uint8)).square().sum().backward()
    assert encode.tables[0].weight.grad.abs().sum(1).gt(0).tolist() == [False, True, False]


def test_scenery_is_encoded_as_nothing():
    space = gym.spaces.Dict({"board": gym.spaces.MultiDiscrete(np.full((2, 2, 1), 3)), "word": gym.spaces.Discrete(2)})
    boards = torch.tensor([[2, 1, 0, 0], [2, 0, 1, 0]]).view(2, 2, 2, 1)
    first = {"board": boards, "word": torch.tensor([0, 1])}
    plain, centred = (AgentConfig().build(space, gym.spaces.Discrete(2), 3, seen) for seen in (None, first))
    board, word = centred.observation_encoder.encoders
    torch.testing.assert_close(board(boards).mean(0), torch.zeros(32))
    assert board(boards)[0].norm() > 0.3
    assert torch.equal(word(first["word"]), plain.observation_encoder.encoders[1](first["word"]))


def test_what_stays_as_it_was_is_encoded_once():
    encode = encoder_of(gym.spaces.MultiDiscrete(np.full((2, 2, 1), 3)), 5)
    grids = torch.tensor([[0, 0, 1, 1], [1, 2, 2, 0]])[..., None, None, None].expand(2, 4, 2, 2, 1)
    counted = []
    plain = encode._encode
    encode._encode = lambda frames: counted.append(len(frames)) or plain(frames)
    found = encode(grids)
    # 0, 1 | 2, 0: the second row goes on with the first one's last.
    assert counted == [4]
    assert torch.equal(found, plain(grids.flatten(0, 1)).unflatten(0, (2, 4)))


def test_one_thing_on_a_grid_is_about_a_unit_vector():
    torch.manual_seed(0)
    lengths = []
    grid = torch.tensor([[[0], [0]], [[1], [0]]])
    for _ in range(1000):
        encode = encoder_of(spaces.MultiDiscrete(np.full((2, 2, 1), 2)), 32)
        lengths.append(encode(grid).norm().item())
    assert 0.8 < np.mean(lengths) < 1.2


@pytest.mark.parametrize(
    ("shape", "kernels", "inputs"),
    [
        # 11, 9 and 7 places a side, of 32 features.
        ((99, 99, 3), [(9, 9), (3, 3), (3, 3)], 7 * 7 * 32),
        # 20, 9 and 7.
        ((84, 84, 1), [(8, 8), (4, 4), (3, 3)], 7 * 7 * 32),
        # 7, 2 and 1 high, 9, 3 and 1 wide.
        ((32, 40, 3), [(8, 8), (4, 4), (2, 3)], 32),
    ],
)
def test_a_picture_is_read_by_convolutions_that_fit_it(shape, kernels, inputs):
    encode = encoder_of(spaces.Box(0, 255, shape, np.uint8), 4)
    assert [layer.kernel_size for layer in encode.convolutions] == kernels
    assert encode.project.in_features == inputs
    assert encode(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, 4)


@pytest.mark.parametrize("shape", [(99, 99, 3), (64, 48, 1)])
def test_the_pixels_of_a_large_picture_are_scaled_to_one(shape):
    encode = encoder_of(spaces.Box(0, 255, shape, np.uint8), 1)
    with torch.no_grad():
        # Layers that average what they read.
        for layer in (*encode.convolutions, encode.project):
            layer.weight.fill_(1 / layer.weight[0].numel())
            layer.bias.zero_()
    shades = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, *shape)
    torch.testing.assert_close(encode(shades)[:, 0], torch.tensor([0, 0.2, 1]))


@pytest.mark.parametrize("turned", [0, 1, 2])
def test_what_is_negative_after_a_convolution_of_a_picture_is_cut_off(turned):
    encode = encoder_of(spaces.Box(0, 255, (99, 99, 3), np.uint8), 1)
    with torch.no_grad():
        for number, layer in enumerate((*encode.convolutions, encode.project)):
            layer.weight.fill_(-1 if number == turned else 1)
            layer.bias.zero_()
    assert encode(torch.full((1, 99, 99, 3), 255, dtype=torch.uint8)).item() == 0


def test_the_colours_of_a_picture_are_the_channels_of_its_first_convolution():
    encode, heard = encoder_of(spaces.Box(0, 255, (40, 50, 3), np.uint8), 1), []
    encode.convolutions[0].register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    picture = torch.zeros(40, 50, 3, dtype=torch.uint8)
    picture[7, 30, 2] = 255
    encode(picture)
    assert heard[0].nonzero().tolist() == [[0, 2, 7, 30]]


@pytest.mark.parametrize("shape", [(31, 99, 3), (99, 31, 3), (99, 99, 2), (99, 99)])
def test_bytes_that_are_no_picture_or_a_small_one_are_projected(shape):
    assert encoder_of(spaces.Box(0, 255, shape, np.uint8), 2).project.in_features == math.prod(shape)


def test_numbers_in_the_shape_of_a_picture_are_no_picture():
    assert encoder_of(box(0, 1, (40, 40, 3)), 2).project.in_features == 4800


def test_bits_are_projected_as_zeros_and_ones():
    encode = encoder_of(spaces.MultiBinary(3), 4)
    torch.testing.assert_close(
        encode(torch.tensor([[1, 0, 1]], dtype=torch.int8))[0], encode.project.weight[:, [0, 2]].sum(1) + encode.project.bias
    )


def test_the_fields_of_a_dict_add_up_without_the_action_mask():
    encode = encoder_of(spaces.Dict({"symbol": spaces.Discrete(3), "place": box(0, 1, (2,)), ACTION_MASK: spaces.MultiBinary(2)}), 4)

    def code(symbol, place, mask=(1, 1)):
        return encode({"symbol": torch.tensor(symbol), "place": torch.tensor(place), ACTION_MASK: torch.tensor(mask)})

    here, there = [0.5, 1.0], [0.0, 0.25]
    torch.testing.assert_close(code(2, here) - code(1, here), code(2, there) - code(1, there))
    assert (code(2, here) - code(1, here)).abs().max() > 0.01
    assert (code(2, here) - code(2, there)).abs().max() > 0.01
    assert torch.equal(code(2, here), code(2, here, (1, 0)))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiDiscrete(np.full((4, 3, 2), 5)),
        spaces.MultiBinary((2, 2)),
        box(-1, 1, (3,)),
        spaces.Box(0, 255, (32, 40, 3), np.uint8),
        spaces.Dict({"a": spaces.Discrete(2), "b": box(0, 1)}),
    ],
)
def test_encoders_take_any_leading_axes(space):
    space.seed(0)
    encode = encoder_of(space, 6)
    samples = [space.sample() for _ in range(10)]
    if isinstance(samples[0], dict):
        flat = {name: torch.as_tensor(np.array([sample[name] for sample in samples])) for name in samples[0]}
        nested = {name: values.unflatten(0, (5, 2)) for name, values in flat.items()}
    else:
        flat = torch.as_tensor(np.array(samples))
        nested = flat.unflatten(0, (5, 2))
    found = encode(nested)
    assert found.shape == (5, 2, 6)
    torch.testing.assert_close(found.flatten(0, 1), encode(flat))
    assert len(found.flatten(0, 1).unique(dim=0)) > 1


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.MultiDiscrete([[2, 2], [2, 2]]), spaces.Tuple((spaces.Discrete(2),))])
def test_a_space_that_no_encoder_reads_is_refused(space):
    with pytest.raises(
        ValueError,
        match=r"(?s)no encoder reads .*; want Discrete, MultiDiscrete \(one axis, or rows, columns and fields\), MultiBinary, Box, or a D",
    ):
        encoder_of(space, 4)


def test_an_unknown_space_inside_a_dict_is_refused_by_its_own_name():
    with pytest.raises(ValueError, match="no encoder reads Text"):
        encoder_of(spaces.Dict({"fine": spaces.Discrete(2), "word": spaces.Text(5)}), 4)


def test_a_seat_that_perceives_nothing_but_a_mask_is_refused():
    with pytest.raises(ValueError, match="nothing to perceive; want at least one field beside action_mask"):
        encoder_of(spaces.Dict({ACTION_MASK: spaces.MultiBinary(2)}), 4)


@pytest.mark.parametrize("space", [spaces.MultiBinary(3), box(0, np.inf), spaces.Text(3), spaces.Box(0, 255, (2,), np.uint8)])
def test_a_space_that_no_head_serves_is_refused(space):
    with pytest.raises(ValueError, match=r"no policy head acts in .*; want Discrete, MultiDiscrete \(one axis\), or a Box of real numbers"):
        head_of(space, 4)


@pytest.mark.parametrize("name", ["type", "keys", "values", "float", "own.place"])
def test_a_field_may_have_any_name(name):
    space = spaces.Dict({name: spaces.Discrete(2)})
    assert encoder_of(space, 4)({name: torch.tensor([1])}).shape == (1, 4)


@pytest.mark.parametrize(
    ("space", "even"),
    [(spaces.Discrete(4), math.log(4)), (spaces.MultiDiscrete([2, 3]), math.log(6)), (box(-1, 3, (2,)), math.log(16))],
)
def test_a_first_policy_is_nearly_even(space, even):
    head = head_of(space, 8)
    policy = head(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), None)
    torch.testing.assert_close(head.entropy(policy), torch.full((50,), even), rtol=0, atol=0.02)


def test_choices_are_sampled_as_often_as_they_are_probable():
    head = head_of(spaces.Discrete(4, start=-1), 3)
    counts = (draw_from(head, [0.1, 0.2, 0.0, 0.7]) + 1).bincount(minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]].numpy(), [4_000, 8_000, 28_000]).pvalue > 1e-3


def test_the_log_probability_and_entropy_of_a_choice_by_hand():
    head = head_of(spaces.Discrete(3, start=4), 3)
    policy = torch.tensor([0.5, 0.25, 0.25]).log().expand(3, 3)
    torch.testing.assert_close(head.log_prob(policy, torch.tensor([4, 5, 6])), torch.tensor([-0.6931472, -1.3862944, -1.3862944]))
    torch.testing.assert_close(head.entropy(policy), torch.full((3,), 1.0397208))
    torch.testing.assert_close(head.parameters_of(policy[0]), torch.tensor([0.5, 0.25, 0.25]))


def test_a_policy_is_the_softmax_of_its_logits():
    head = shaken(head_of(spaces.Discrete(3), 2))
    with torch.no_grad():
        head.logits.weight.zero_()
        head.logits.bias.copy_(torch.tensor([1.0, 2.0, 4.0]).log())
    torch.testing.assert_close(head(torch.zeros(1, 2), None).exp(), torch.tensor([[1 / 7, 2 / 7, 4 / 7]]))


def test_several_choices_are_independent_and_their_log_probabilities_add_up():
    head = head_of(spaces.MultiDiscrete([2, 3], start=[0, 5]), 3)
    probs = [0.25, 0.75, 0.5, 0.5, 0.0]
    actions = draw_from(head, probs)
    counts = (actions[:, 0] * 3 + actions[:, 1] - 5).bincount(minlength=6)
    assert counts[[2, 5]].tolist() == [0, 0]
    assert stats.chisquare(counts[[0, 1, 3, 4]].numpy(), [5_000, 5_000, 15_000, 15_000]).pvalue > 1e-3
    policy = torch.tensor([0.25, 0.75, 0.5, 0.25, 0.25]).log()
    log_probs = head.log_prob(policy.expand(2, 5), torch.tensor([[0, 5], [1, 7]]))
    torch.testing.assert_close(log_probs, torch.tensor([0.125, 0.1875]).log())
    # The entropies 0.562335 and 1.039721 of the two choices.
    torch.testing.assert_close(head.entropy(policy), torch.tensor(1.6020558))


def test_each_of_several_choices_has_a_softmax_of_its_own():
    head = shaken(head_of(spaces.MultiDiscrete([2, 3]), 4))
    probs = head(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), None).exp()
    torch.testing.assert_close(torch.stack([probs[:, :2].sum(1), probs[:, 2:].sum(1)]), torch.ones(2, 6))


MASKS = {
    "one": (spaces.Discrete(4), [0, 1, 0, 1], math.log(2)),
    "several": (spaces.MultiDiscrete([2, 3]), [1, 0, 1, 1, 0], math.log(2)),
}


@pytest.mark.parametrize(("space", "mask", "most"), MASKS.values(), ids=MASKS)
def test_what_the_mask_forbids_is_never_sampled(space, mask, most):
    head = shaken(head_of(space, 3), size=3.0)
    y = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(3))
    policy = head(y, {ACTION_MASK: torch.tensor(mask).expand(20_000, -1)})
    allowed = torch.tensor(mask).bool()
    assert policy.exp()[:, ~allowed].eq(0).all()
    assert policy.exp()[:, allowed].gt(0).all()
    actions = head.sample(policy, seeds(20_000))
    chosen = one_hot(actions, 4) if actions.ndim == 1 else torch.cat([one_hot(actions[:, 0], 2), one_hot(actions[:, 1], 3)], 1)
    assert chosen.sum(0)[~allowed].eq(0).all()
    assert chosen.sum(0)[allowed].gt(0).all()
    entropy = head.entropy(policy)
    assert entropy.ge(0).all()
    assert entropy.le(most + 1e-6).all()


def test_forbidden_choices_share_out_nothing_and_their_gradients_are_finite():
    head = head_of(spaces.Discrete(4), 3)
    y = torch.zeros(1, 3, requires_grad=True)
    policy = head(y, {ACTION_MASK: torch.tensor([[0, 1, 1, 0]])})
    torch.testing.assert_close(policy.exp(), torch.tensor([[0.0, 0.5, 0.5, 0.0]]))
    torch.testing.assert_close(head.entropy(policy), torch.tensor([math.log(2)]))
    (head.log_prob(policy, torch.tensor([1])) + head.entropy(policy)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


# Shapes (a, b) of Kumaraswamy's distribution that bend every way.
SHAPES = [(1.0, 1.0), (2.0, 1.0), (1.0, 3.0), (2.5, 4.0), (0.7, 0.8), (6.0, 1.5)]
LOW, HIGH = -1.0, 3.0


def bounded(a, b, points):
    """A head on [-1, 3], its policy for every point, and the points' log-densities."""
    head = head_of(box(LOW, HIGH), 2)
    policy = torch.tensor([a, b]).expand(len(points), 2)
    return head, policy, head.log_prob(policy, points)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_a_bounded_number_s_density_integrates_to_one_and_its_entropy_is_the_integral(a, b):
    # Midpoints of 400,000 cells, narrower at the ends, where the density may have poles.
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    x, width = u**2 * (3 - 2 * u), 6 * u * (1 - u) / 400_000
    head, policy, log_density = bounded(a, b, (LOW + (HIGH - LOW) * x).float())
    mass = log_density.double().exp() * width * (HIGH - LOW)
    assert abs(mass.sum().item() - 1) < 2e-3
    assert abs(-(mass * log_density).sum().item() - head.entropy(policy[0]).item()) < 5e-3


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_a_bounded_number_is_sampled_from_its_density(a, b):
    points = torch.linspace(LOW, HIGH, 100_001)
    head, policy, log_density = bounded(a, b, (points[1:] + points[:-1]) / 2)
    cumulative = np.concatenate([[0], log_density.double().exp().cumsum(0).numpy() * (HIGH - LOW) / 100_000])
    samples = head.sample(policy[:1].expand(20_000, 2), seeds(20_000))
    assert stats.kstest(samples.numpy(), lambda x: np.interp(x, points.numpy(), cumulative / cumulative[-1])).pvalue > 1e-3


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 1.0), (0.7, 1.0), (1.0, 3.0), (1.0, 0.6)])
def test_where_one_shape_is_1_a_bounded_number_has_a_beta_distribution(a, b):
    points = torch.tensor([-0.9, -0.3, 0.8, 1.7, 2.9])
    head, policy, log_density = bounded(a, b, points)
    oracle = stats.beta(a, b, loc=LOW, scale=HIGH - LOW)
    np.testing.assert_allclose(log_density.numpy(), oracle.logpdf(points.numpy()), atol=1e-5)
    assert abs(head.entropy(policy[0]).item() - oracle.entropy()) < 1e-5
    assert stats.kstest(head.sample(policy[:1].expand(20_000, 2), seeds(20_000)).numpy(), oracle.cdf).pvalue > 1e-3


@settings(deadline=None, derandomize=True, max_examples=40)
@given(a=st.floats(0.05, 60), b=st.floats(0.05, 60), seed=st.integers(0, 10**6))
def test_a_bounded_number_keeps_its_bounds_and_has_a_finite_log_probability(a, b, seed):
    head = head_of(spaces.Box(np.float32([-2, 0, 1000]), np.float32([-1, 1, 1000.5]), dtype=np.float32), 2)
    policy = torch.tensor([a] * 3 + [b] * 3).expand(200, 6).clone().requires_grad_()
    action = head.sample(policy.detach(), seeds(200, seed))
    assert action.ge(head.low).all()
    assert action.le(head.high).all()
    log_prob = head.log_prob(policy, action)
    (log_prob + head.entropy(policy)).sum().backward()
    assert log_prob.isfinite().all()
    assert policy.grad.isfinite().all()


def mean_score(a, b, count=20_000):
    """The mean gradient of a sample's log-probability in (a, b), in standard errors."""
    head = head_of(box(0, 1), 2)
    policy = torch.tensor([a, b]).repeat(count, 1).requires_grad_()
    head.log_prob(policy, head.sample(policy.detach(), seeds(count))).sum().backward()
    return policy.grad.mean(0) / policy.grad.std(0) * count**0.5


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_gradient_of_a_bounded_numbers_log_probability_is_zero_on_average(a, b):
    assert mean_score(a, b).abs().max() < 4


@pytest.mark.parametrize(("a", "b"), [(0.05, 1.0), (0.2, 1.0), (1.0, 0.2)])
def test_it_is_zero_for_shapes_that_crowd_an_edge_too(a, b):
    assert mean_score(a, b).abs().max() < 4


def test_nothing_and_everything_can_be_chosen_and_have_the_mass_that_samples_show():
    head = head_of(box([0], [1], (1,)), 2)
    policy = torch.tensor([[0.3, 0.4]]).expand(40_000, 2)
    action = head.sample(policy, seeds(40_000))
    for bound in (0.0, 1.0):
        share = (action == bound).float().mean().item()
        mass = head.log_prob(policy[:1], torch.tensor([[bound]])).exp().item()
        assert share > 0.01
        assert mass == pytest.approx(share, rel=0.1)


def test_a_number_with_one_possible_value_has_a_finite_log_probability_or_is_refused():
    try:
        head = head_of(box([0, 1], [1, 1], (2,)), 2)
    except ValueError:
        return
    assert head.log_prob(torch.ones(3, 4), head.sample(torch.ones(3, 4), seeds(3))).isfinite().all()


def test_a_box_of_many_numbers_has_bounds_and_shapes_for_each_and_log_probabilities_add_up():
    space = spaces.Box(np.float32([[0, 10], [-5, 0]]), np.float32([[1, 30], [-4, 2]]), dtype=np.float32)
    head = shaken(head_of(space, 3))
    assert isinstance(head, BoundedHead)
    policy = head(torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(4)), None).detach()
    action = head.sample(policy, seeds(35).reshape(7, 5))
    assert action.shape == (7, 5, 2, 2)
    assert all(space.contains(each.numpy()) for each in action.flatten(0, 1))
    # All even: the density is 1 / (1 * 20 * 1 * 2), wherever.
    even = torch.ones(7, 5, 8)
    action = head.sample(even, seeds(35).reshape(7, 5))
    torch.testing.assert_close(head.log_prob(even, action), torch.full((7, 5), -math.log(40)))
    torch.testing.assert_close(head.entropy(even), torch.full((7, 5), math.log(40)))
    # With b = 2 for the last number alone, its density 2 (1 - x) / 2 at x = 1/4 is 3/4, not 1/2.
    policy = torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 2])
    torch.testing.assert_close(head.log_prob(policy, torch.tensor([[0.5, 20], [-4.5, 0.5]])), torch.tensor(math.log(0.75 / 20)))


def test_the_numbers_of_a_box_are_independent():
    head = head_of(box(0, 1, (2,)), 3)
    x, y = head.sample(torch.ones(20_000, 4), seeds(20_000)).T
    assert stats.chisquare(((x * 5).long().clamp(max=4) * 5 + (y * 5).long().clamp(max=4)).bincount(minlength=25).numpy()).pvalue > 1e-3


def test_the_best_guess_among_choices_is_the_likeliest_of_those_allowed():
    assert head_of(spaces.Discrete(3, start=4), 3).best(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]).log()).tolist() == [4, 6]
    several = head_of(spaces.MultiDiscrete([2, 3], start=[0, 5]), 3)
    assert several.best(torch.tensor([0.25, 0.75, 0.2, 0.5, 0.3]).log()).tolist() == [1, 6]
    masked = shaken(head_of(spaces.Discrete(4), 3), size=3.0)
    y = torch.randn(200, 3, generator=torch.Generator().manual_seed(3))
    policy = masked(y, {ACTION_MASK: torch.tensor([0, 1, 0, 1]).expand(200, -1)})
    assert set(masked.best(policy).tolist()) == {1, 3}


def test_the_loss_of_choices_is_their_cross_entropy_with_the_right_ones():
    head = head_of(spaces.Discrete(3, start=4), 3)
    policy = torch.tensor([0.5, 0.25, 0.25]).log().expand(2, 3)
    torch.testing.assert_close(head.loss(policy, torch.tensor([4, 6])), torch.tensor([0.6931472, 1.3862944]))
    several = head_of(spaces.MultiDiscrete([2, 3], start=[0, 5]), 3)
    # - log (1/4 * 1/2).
    policy = torch.tensor([0.25, 0.75, 0.5, 0.25, 0.25]).log()
    torch.testing.assert_close(several.loss(policy, torch.tensor([0, 5])), torch.tensor(2.0794415))


@pytest.mark.parametrize(
    # The means of Kumaraswamy's distribution on (0, 1): a = 1 and b = 1 are beta distributions; for (2, 2) it is 2 B(3/2, 2) = 8 / 15.
    ("a", "b", "mean"),
    [(1.0, 1.0, 1 / 2), (2.0, 1.0, 2 / 3), (1.0, 3.0, 1 / 4), (2.0, 2.0, 8 / 15), (0.05, 1.0, 1 / 21)],
)
def test_the_best_guess_at_a_number_is_the_mean_and_its_loss_the_squared_distance(a, b, mean):
    head = head_of(box(LOW, HIGH), 2)
    policy = torch.tensor([[a, b]])
    place = 4 * mean - 1
    torch.testing.assert_close(head.best(policy), torch.tensor([place]), rtol=0, atol=1e-5)
    torch.testing.assert_close(head.loss(policy, torch.tensor([place + 0.5])), torch.tensor([0.25]), rtol=0, atol=1e-5)


def test_the_best_guess_is_where_samples_are_on_average():
    head = head_of(box([0, 10], [1, 30], (2,)), 2)
    policy = torch.tensor([0.7, 2.5, 0.8, 4.0])
    found = head.sample(policy.expand(40_000, 4), seeds(40_000)).mean(0)
    torch.testing.assert_close(head.best(policy), found, rtol=0.02, atol=0)


def test_the_loss_of_several_numbers_adds_up():
    head = head_of(box([[0, 10]], [[1, 30]], (1, 2)), 2)
    even = torch.ones(3, 4)
    assert head.best(even).tolist() == [[[0.5, 20.0]]] * 3
    torch.testing.assert_close(
        head.loss(even, torch.tensor([[[0.5, 20.0]], [[0.0, 20.0]], [[1.0, 22.0]]])), torch.tensor([0.0, 0.25, 4.25])
    )


@settings(deadline=None, derandomize=True, max_examples=40)
@given(a=st.floats(0.05, 60), b=st.floats(0.05, 60))
def test_a_best_guess_keeps_its_bounds_and_its_loss_has_finite_gradients(a, b):
    head = head_of(box(-2, 1), 2)
    policy = torch.tensor([[a, b]] * 2, requires_grad=True)
    assert head.best(policy).ge(-2).all()
    assert head.best(policy).le(1).all()
    head.loss(policy, torch.tensor([-2.0, 1.0])).sum().backward()
    assert policy.grad.isfinite().all()


MASKED = spaces.Dict({"symbol": spaces.Discrete(5), "place": box(-1, 1, (2,)), ACTION_MASK: spaces.MultiBinary(3)})
TABLES = {
    "discrete, masked": (MASKED, spaces.Discrete(3)),
    "multi-discrete": (spaces.Dict({"symbol": spaces.Discrete(5)}), spaces.MultiDiscrete([2, 3], start=[1, 0])),
    "bounded": (spaces.Dict({"symbol": spaces.Discrete(5)}), box(-1, 2, (2,))),
    "one number": (spaces.Dict({"place": box(-1, 1, (2,))}), box(0, 1)),
}


def build(memory, observation_space, action_space, seed=5, **settings):
    config = AgentConfig(memory=load(MEMORIES[memory])(width=8), embedding=6, **settings)
    # In the deep memories more than this makes chaos of rounding.
    return shaken(config.build(observation_space, action_space, seed), size=0.8 if memory == "gru" else 0.4)


def experience(observation_space, batch, steps, seed=6):
    """Observations [B, T, ...] and rewards [B, T] from nowhere."""
    luck = torch.Generator().manual_seed(seed)
    made = {
        "symbol": torch.randint(5, (batch, steps), generator=luck),
        "place": torch.rand(batch, steps, 2, generator=luck) * 2 - 1,
        ACTION_MASK: torch.cat([torch.ones(batch, steps, 1), torch.rand(batch, steps, 2, generator=luck).round()], -1).to(torch.int8),
    }
    return {name: made[name] for name in observation_space.spaces}, torch.randn(batch, steps, generator=luck)


def at(observation, t):
    return {name: value[:, t] for name, value in observation.items()}


def play(agent, observation, reward, luck):
    """The decisions [B, T, ...] and the state after the last."""
    state, decisions = agent.start(luck), []
    for t in range(reward.shape[1]):
        decision, state = agent.act(at(observation, t), state, reward[:, t])
        decisions.append(decision)
    return type(decision)(*(torch.stack(leaves, 1) for leaves in zip(*decisions, strict=True))), state


@pytest.mark.parametrize(
    ("memory", "table"), [*itertools.product(["gru"], TABLES), *((memory, "discrete, masked") for memory in MEMORIES if memory != "gru")]
)
def test_acting_step_by_step_is_what_forward_sees_in_the_whole_trajectory(memory, table):
    observation_space, action_space = TABLES[table]
    agent = build(memory, observation_space, action_space)
    observation, reward = experience(observation_space, 4, 9)
    played, state = play(agent, observation, reward, seeds(4))
    action_before = played.action.roll(1, 1)
    reset = torch.zeros(4, 9, dtype=torch.bool)
    reset[:, 0] = True
    outlook = agent(observation, action_before, reward, agent.memory.start(4), reset)
    torch.testing.assert_close(outlook.value, played.value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(agent.policy_head.log_prob(outlook.policy, played.action), played.log_prob, rtol=1e-5, atol=1e-5)
    for name, leaf in named_leaves(outlook.memory).items():
        torch.testing.assert_close(leaf, named_leaves(state.memory)[name], rtol=1e-5, atol=1e-5)
    assert played.value.std() > 0.02
    assert all(action_space.contains(each.numpy()) for each in played.action.flatten(0, 1))
    assert isinstance(agent, Occupant)


def test_the_recorded_log_probability_is_that_of_the_action_taken():
    agent = build("gru", *TABLES["discrete, masked"])
    observation, reward = experience(MASKED, 50, 6)
    played, _ = play(agent, observation, reward, seeds(50))
    torch.testing.assert_close(played.log_prob.exp(), played.policy.gather(-1, played.action[..., None])[..., 0])
    assert observation[ACTION_MASK].gather(-1, played.action[..., None]).eq(1).all()
    assert observation[ACTION_MASK].eq(0).any()


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_first_action_of_a_trial_does_not_depend_on_an_action_or_reward_from_before(memory):
    agent = build(memory, *TABLES["discrete, masked"])
    observation, _ = experience(MASKED, 8, 1)
    start = agent.start(seeds(8))
    stale = start._replace(action=torch.full_like(start.action, 2))
    fresh, _ = agent.act(at(observation, 0), start)
    spoilt, _ = agent.act(at(observation, 0), stale, torch.full((8,), 1e3))
    for one, other in zip(fresh, spoilt, strict=True):
        assert torch.equal(one, other)
    later = start._replace(clock=start.clock + 1)
    assert not torch.equal(agent.act(at(observation, 0), later, torch.full((8,), 1e3))[0].value, fresh.value)
    assert not torch.equal(agent.act(at(observation, 0), stale._replace(clock=start.clock + 1))[0].policy, fresh.policy)


def test_a_reset_hides_the_action_and_reward_before_it_and_nothing_else_does():
    agent = build("none", *TABLES["discrete, masked"])
    observation, reward = experience(MASKED, 3, 6)
    action = torch.zeros(3, 6, dtype=torch.int64)
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[1, 4] = True
    value = agent(observation, action, reward, agent.memory.start(3), reset).value
    for changed in (
        agent(observation, action + 1, reward, agent.memory.start(3), reset).value,
        agent(observation, action, reward + 1, agent.memory.start(3), reset).value,
    ):
        assert torch.equal(changed == value, reset)


@pytest.mark.parametrize("sense", ["sees_action", "sees_reward"])
def test_an_agent_without_a_sense_does_not_perceive_it(sense):
    agent = build("gru", *TABLES["discrete, masked"], **{sense: False})
    observation, reward = experience(MASKED, 3, 6)
    action, reset = torch.zeros(3, 6, dtype=torch.int64), torch.zeros(3, 6, dtype=torch.bool)
    value = agent(observation, action, reward, agent.memory.start(3), reset).value
    other_action = agent(observation, action + 1, reward, agent.memory.start(3), reset).value
    other_reward = agent(observation, action, reward + 1, agent.memory.start(3), reset).value
    assert torch.equal(value, other_action) == (sense == "sees_action")
    assert torch.equal(value, other_reward) == (sense == "sees_reward")


def test_the_memorys_output_is_swished_unless_the_settings_say_otherwise():
    observation, reward = experience(MASKED, 2, 3)
    action, reset = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)
    for activation, function in (("silu", lambda y: y / (1 + (-y).exp())), ("none", lambda y: y)):
        agent = build("gru", MASKED, spaces.Discrete(3), activation=activation)
        y, _ = agent.memory(agent.observation_encoder(observation), agent.memory.start(2), reset)
        wanted = agent.value_head(function(y))[..., 0]
        torch.testing.assert_close(agent(observation, action, reward, agent.memory.start(2), reset).value, wanted)


def test_the_same_seed_makes_the_same_agent_and_another_seed_another():
    (role,) = IteratedDilemma().roles
    first, again, other = (AgentConfig().build(role.observation_space, role.action_space, seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_making_and_playing_an_agent_leaves_torchs_own_luck_alone():
    before = torch.random.get_rng_state()
    agent = AgentConfig(GRUConfig(4)).build(*TABLES["bounded"], -(2**63))
    play(agent, *experience(TABLES["bounded"][0], 2, 3), seeds(2))
    # Looks for scenery, and finds it.
    assert ballet_symbols_quick().births()["learner_0"].first is not None
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("table", TABLES)
def test_the_same_luck_gives_the_same_play_and_other_luck_another(table):
    agent = build("gru", *TABLES[table])
    observation, reward = experience(TABLES[table][0], 8, 6)
    first, again, other = (play(agent, observation, reward, luck)[0].action for luck in (seeds(8), seeds(8), seeds(8, first=8)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_actions_of_successive_steps_and_of_rows_are_drawn_independently():
    agent = AgentConfig(GRUConfig(4)).build(spaces.Dict({"symbol": spaces.Discrete(5)}), spaces.Discrete(2), 9)
    # A new agent chooses evenly; the observation never changes.
    observation, reward = {"symbol": torch.zeros(500, 40, dtype=torch.int64)}, torch.zeros(500, 40)
    actions = play(agent, observation, reward, seeds(500))[0].action
    for first, second in ((actions[:, :-1], actions[:, 1:]), (actions[:-1], actions[1:])):
        cells = (first * 2 + second).flatten().bincount(minlength=4).double()
        assert (cells / cells.sum() - 0.25).abs().max() < 0.015


def test_rows_of_an_agents_batch_are_strangers():
    agent = build("gru", *TABLES["discrete, masked"])
    observation, reward = experience(MASKED, 5, 6)
    together, _ = play(agent, observation, reward, seeds(5))
    for row in (0, 3):
        part = slice(row, row + 1)
        alone, _ = play(agent, rows_of(observation, part), reward[part], seeds(5)[part])
        assert torch.equal(alone.action, together.action[part])
        torch.testing.assert_close(alone.log_prob, together.log_prob[part], rtol=1e-5, atol=1e-5)


def test_acting_builds_no_graph_and_moves_the_clock():
    agent = build("gru", *TABLES["multi-discrete"])
    observation, reward = experience(TABLES["multi-discrete"][0], 3, 1)
    decision, state = agent.act(at(observation, 0), agent.start(seeds(3)), reward[:, 0])
    assert not any(leaf.requires_grad for leaf in (*decision, *named_leaves(state).values()))
    assert state.clock.tolist() == [1, 1, 1]
    assert torch.equal(state.action, decision.action)
    assert torch.equal(state.seed, seeds(3))


def test_every_parameter_of_an_agent_learns():
    agent = build("gru", *TABLES["discrete, masked"])
    observation, reward = experience(MASKED, 4, 6)
    outlook = agent(observation, torch.ones(4, 6, dtype=torch.int64), reward, agent.memory.start(4), torch.zeros(4, 6, dtype=torch.bool))
    weights = torch.randn(outlook.policy.shape, generator=torch.Generator().manual_seed(1))
    (outlook.value.sum() + (outlook.policy.clamp_min(-50) * weights).sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in agent.parameters())


def test_an_agent_acts_with_the_luck_of_its_seed_and_clock():
    head = head_of(spaces.Discrete(2), 1)
    agent = AgentConfig(GRUConfig(4)).build(spaces.Dict({"symbol": spaces.Discrete(5)}), spaces.Discrete(2), 9)
    decision, _ = agent.act({"symbol": torch.zeros(100, dtype=torch.int64)}, agent.start(seeds(100)))
    luck = fold(seeds(100), Purpose.ACTION, 0)
    draws = uniform(luck)
    far = (draws - 0.5).abs() > 0.1
    assert torch.equal(decision.action[far], (draws > 0.5).long()[far])
    assert torch.equal(head.sample(decision.policy.log(), luck), decision.action)


@pytest.mark.parametrize("table", TABLES)
def test_an_agent_that_acts_its_best_plays_its_policys_best_guess_whatever_its_luck(table):
    agent = build("gru", *TABLES[table], acts="best")
    observation, reward = experience(TABLES[table][0], 8, 6)
    played, _ = play(agent, observation, reward, seeds(8))
    if isinstance(agent.policy_head, BoundedHead):
        guess = agent.policy_head.best(played.policy)
    else:
        guess = agent.policy_head.best(played.policy.log())
    assert torch.equal(played.action, guess)
    assert torch.equal(play(agent, observation, reward, seeds(8, first=8))[0].action, played.action)
    sampling = build("gru", *TABLES[table])
    assert not torch.equal(play(sampling, observation, reward, seeds(8))[0].action, played.action)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding": 0}, "embedding is 0; want at least 1"),
        ({"activation": "tanh"}, "activation is 'tanh'; want 'silu' or 'none'"),
        ({"acts": "greedy"}, "acts is 'greedy'; want 'sample' or 'best'"),
    ],
)
def test_settings_that_make_no_agent_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        AgentConfig(**settings)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"outcome": torch.tensor([0, 1])}, r"observation.outcome has the shape \(2,\), and the state 1 rows; want one for each"),
        ({"outcome": torch.tensor(0)}, r"observation.outcome has the shape \(\), and the state 1 rows; want one for each"),
        ({"outcom": torch.tensor([0])}, "observation has outcom; want outcome"),
        ({}, "observation has nothing; want outcome"),
    ],
)
def test_what_does_not_fit_the_state_is_named(observation, message):
    space = gym.spaces.Dict({"outcome": gym.spaces.Discrete(5)})
    agent = AgentConfig(memory=GRUConfig(8), embedding=4).build(space, gym.spaces.Discrete(2), seed=0)
    for looks in (agent.act, agent.inspect):
        with pytest.raises(ValueError, match=message):
            looks(observation, agent.start(torch.tensor([7])))
    with pytest.raises(ValueError, match=r"reward has the shape \(3,\), and the state 1 rows"):
        agent.act({"outcome": torch.tensor([0])}, agent.start(torch.tensor([7])), torch.zeros(3))


def test_what_is_no_tensor_is_told() -> None:
    agent = build("gru", *TABLES["bounded"])
    for wrong in (7, [7], torch.tensor(7), torch.tensor([7.0])):
        with pytest.raises(ValueError, match="want a tensor of whole numbers, one per seat"):
            inspect.unwrap(type(agent).start)(agent, wrong)
    with pytest.raises(ValueError, match=r"reward is 1.0; want a tensor with one row per seat, such as torch.tensor\(\[1.0\]\)"):
        inspect.unwrap(agents_agent._check_rows)("reward", 1.0, agent.start(seeds(1)))
