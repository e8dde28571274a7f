"""Frame stacking: what the perceptron is shown, worked by hand."""

import pytest
import torch
from torch import nn

from memory.frame_stack import FrameStackConfig, FrameStackState
from memory.none import NoMemoryConfig


def shown(frames, x, reset, state=None):
    """What reaches the perceptron, [T, w E], of one row."""
    memory = FrameStackConfig(4, frames).build(x.shape[-1])
    memory.layers = nn.Identity()
    if state is None:
        state = FrameStackState(torch.zeros(1, frames - 1, x.shape[-1]))
    y, after = memory(x[None], state, torch.tensor([reset], dtype=torch.bool))
    return y[0].tolist(), after.frames[0].tolist()


def test_the_last_three_inputs_stand_side_by_side_and_nothing_from_before_the_reset():
    y, after = shown(3, torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]), [1, 0, 0, 1, 0])
    assert y == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 4], [0, 4, 5]]
    assert after == [[4], [5]]


def test_inputs_of_an_earlier_call_stand_there_too_until_a_reset():
    before = FrameStackState(torch.tensor([[[7.0, 70.0], [8.0, 80.0]]]))
    x = torch.tensor([[9.0, 90.0], [10.0, 100.0]])
    assert shown(3, x, [0, 0], before) == ([[7, 70, 8, 80, 9, 90], [8, 80, 9, 90, 10, 100]], [[9, 90], [10, 100]])
    assert shown(3, x, [0, 1], before) == ([[7, 70, 8, 80, 9, 90], [0, 0, 0, 0, 10, 100]], [[0, 0], [10, 100]])
    assert shown(3, x[:1], [1], before) == ([[0, 0, 0, 0, 9, 90]], [[0, 0], [9, 90]])


def test_one_frame_is_no_memory_at_all():
    stack, none = FrameStackConfig(4, 1).build(3), NoMemoryConfig(4).build(3)
    none.layers.load_state_dict(stack.layers.state_dict())
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    reset = torch.zeros(2, 5, dtype=torch.bool)
    assert torch.equal(stack(x, stack.start(2), reset)[0], none(x, none.start(2), reset)[0])
    assert stack.state_size == 0


def test_an_input_is_forgotten_when_it_leaves_the_window():
    memory = FrameStackConfig(8, 3).build(2)
    x = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(2))
    other = x.clone()
    other[:, 0] += 1
    reset = torch.zeros(1, 4, dtype=torch.bool)
    y, other_y = (memory(values, memory.start(1), reset)[0][0] for values in (x, other))
    assert not torch.equal(y[2], other_y[2])
    assert torch.equal(y[3], other_y[3])


def test_a_window_of_no_frames_is_refused():
    with pytest.raises(ValueError, match=r"FrameStackConfig.frames is 0; want a whole number from 1"):
        FrameStackConfig(frames=0)
