"""Pointing: scores by hand, wherever an item stands; which roles point; and that sorting by pointing can be learnt."""

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from agents.pointer import Pointer, pointer_of
from envs.chance import Purpose, seeds_of
from envs.diagnostics.modular_addition import ModularAddition
from envs.diagnostics.sorting import Sorting


def test_scores_by_hand():
    pointer = Pointer(features=2, inputs=1, width=2)
    with torch.no_grad():
        pointer.of_item.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        pointer.of_item.bias.copy_(torch.tensor([0.0, 1.0]))
        pointer.of_memory.weight.copy_(torch.tensor([[3.0], [-1.0]]))
        pointer.score.weight.copy_(torch.tensor([[10.0, 100.0]]))
    # tanh(1 + 1.5) = 0.9866143, tanh(0 + 1 - 0.5) = 0.4621172; tanh(-1.5 + 1.5) = 0, tanh(2 + 1 - 0.5) = 0.9866143.
    scores = pointer(torch.tensor([[[1.0, 0.0], [-1.5, 1.0]]]), torch.tensor([[0.5]]))
    torch.testing.assert_close(scores, torch.tensor([[9.866143 + 46.21172, 98.66143]]))


def test_items_in_another_order_get_their_scores_in_that_order():
    torch.manual_seed(0)
    pointer, items, y = Pointer(3, 4, 8), torch.randn(2, 5, 6, 3), torch.randn(2, 5, 4)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(pointer(items[..., order, :], y), pointer(items, y)[..., order])


def test_the_first_policy_is_nearly_even():
    torch.manual_seed(0)
    probs = Pointer(2, 8, 64)(torch.rand(100, 5, 2), torch.randn(100, 8)).softmax(-1)
    assert (probs - 0.2).abs().max() < 0.01


def test_roles_that_choose_among_items_point_and_others_do_not():
    def of(role):
        return pointer_of(role.observation_space, role.action_space, 8)

    assert of(Sorting(items=4).roles[0]).of_item.in_features == 2
    assert of(ModularAddition().roles[0]) is None
    five = gym.spaces.Dict({"items": gym.spaces.Box(0, 1, (5, 2), np.float32)})
    assert pointer_of(five, gym.spaces.Discrete(4), 8) is None
    assert pointer_of(five, gym.spaces.Discrete(5), 8) is not None


def test_what_is_learnt_on_five_items_sorts_nine():
    torch.manual_seed(0)
    # No memory is needed: y says nothing.
    pointer, nothing = Pointer(2, 1, 32), torch.zeros(1000, 1)
    optimiser = torch.optim.Adam(pointer.parameters(), 0.01)

    def starts(items, first):
        """(what is seen, the right place) at the start of 1,000 games."""
        game = Sorting(items=items)
        state = game.start(seeds_of(20251123, Purpose.TRIAL, 1000, first=first))
        return game.observe(state)["sorter"]["items"][:, 0], game.answers(state)["sorter"].action[:, 0]

    items, right = starts(5, 0)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(pointer(items, nothing), right).backward()
        optimiser.step()
    items, right = starts(9, 1000)
    assert (pointer(items, nothing).argmax(-1) == right).float().mean() > 0.95
