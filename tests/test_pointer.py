"""Pointing: scores by hand, wherever an item stands; which roles point; agents to whom order means nothing, and what they learn."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.agent import AgentConfig
from agents.auxiliary import Auxiliary, AuxiliaryHeads, Lived
from agents.heads import CategoricalHead, PointerHead, head_of
from agents.pointer import ItemsEncoder, Pointer, item_features
from envs.chance import Purpose, seeds_of
from envs.diagnostics.modular_addition import ModularAddition
from envs.diagnostics.sorting import Sorting
from memory.gru import GRUConfig
from training.algorithms import Supervised
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.rollout import Rollout
from training.schemes.self_play import SelfPlay
from training.seating import one_table


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


def items_of(count, features=2):
    return gym.spaces.Box(0, 1, (count, features), np.float32)


def agent_on(game, seed=0, **settings):
    role = game.roles[0]
    config = AgentConfig(memory=GRUConfig(8), embedding=8, sees_action=False, acts="best", **settings)
    return config.build(role.observation_space, role.action_space, seed)


def test_roles_that_choose_among_items_point_and_others_do_not():
    def of(space, choices, name="items"):
        return item_features(gym.spaces.Dict({name: space}), choices)

    five = gym.spaces.Discrete(5)
    assert of(items_of(5, 3), five) == 3
    assert of(items_of(5, 3), gym.spaces.Discrete(4)) is None
    assert of(items_of(5, 3), gym.spaces.MultiDiscrete([5])) is None
    assert of(items_of(5, 3), five, name="words") is None
    assert of(gym.spaces.Box(0, 1, (5,), np.float32), five) is None
    assert of(gym.spaces.MultiBinary([5, 3]), five) is None


def test_agents_point_where_they_can_unless_told_not_to():
    assert isinstance(agent_on(Sorting()).policy_head, PointerHead)
    assert type(agent_on(Sorting(), points=False).policy_head) is CategoricalHead
    assert type(agent_on(ModularAddition()).policy_head) is CategoricalHead


def test_a_place_is_counted_from_the_spaces_first_and_none_that_is_forbidden_is_pointed_at():
    head = head_of(gym.spaces.Discrete(3, start=4), 1, features=1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(1.0)
    # The greater the number the better; the greatest is forbidden.
    seen = {"items": torch.tensor([[[0.2], [0.9], [0.5]]]), "action_mask": torch.tensor([[1, 0, 1]])}
    policy = head(torch.zeros(1, 1), seen)
    assert head.best(policy).tolist() == [6]
    assert policy.exp()[0, 1].item() == 0


def test_items_are_perceived_as_a_set_and_other_fields_beside_it():
    encode = ItemsEncoder(gym.spaces.Dict({"items": items_of(2, 1), "word": gym.spaces.Discrete(2)}), 1)
    with torch.no_grad():
        for parameter in encode.of_item.parameters():
            parameter.fill_(1.0)
        encode.of_others.encoders[0].table.weight.copy_(torch.tensor([[10.0], [20.0]]))
    # silu(0 + 1) + 1 = 1.7310586, silu(1 + 1) + 1 = 2.7615942, their mean 2.2463264.
    seen = {"items": torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]]]), "word": torch.tensor([0, 1])}
    torch.testing.assert_close(encode(seen), torch.tensor([[12.2463264], [22.2463264]]))


@pytest.mark.parametrize("points", [True, False])
def test_an_agent_whose_items_are_permuted_permutes_its_policy_if_it_points(points):
    agent, luck = agent_on(Sorting(items=4), points=points), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=luck))
    items = torch.rand(6, 3, 4, 2, generator=luck)
    mask = torch.tensor([1, 1, 0, 1], dtype=torch.int8).expand(6, 3, 4)
    order = torch.tensor([2, 0, 3, 1])
    reward, reset = torch.rand(6, 3, generator=luck), torch.tensor([[True, False, False]]).expand(6, 3)

    def outlook(items, mask):
        seen = {"items": items, "action_mask": mask}
        return agent(seen, torch.zeros(6, 3, dtype=torch.int64), reward, agent.memory.start(6), reset)

    first, other = outlook(items, mask), outlook(items[..., order, :], mask[..., order])
    assert torch.allclose(other.policy, first.policy[..., order], atol=1e-5) is points
    assert torch.allclose(other.value, first.value, atol=1e-5) is points


def test_a_latent_that_is_predicted_points_at_the_items_of_its_own_step():
    sorter = Sorting(items=3).roles[0]
    torch.manual_seed(0)
    head = head_of(sorter.action_space, 4, features=2)
    heads = AuxiliaryHeads(Auxiliary(next_latent=1.0), sorter.observation_space, sorter.action_space, 4, 4)
    with torch.no_grad():
        head.logits.score.weight.mul_(1000)
        # The network adds nothing, and the memory puts out the same at every step, so its prediction is right.
        heads.next[-1].weight.zero_()
        heads.next[-1].bias.zero_()
    y, seen = torch.randn(2, 1, 4).expand(2, 5, 4), {"items": torch.rand(2, 5, 3, 2)}
    reset = torch.tensor([[True, False, False, False, False]]).expand(2, 5)
    found = heads(head, Lived(y, y, head(y, seen), seen, reset, None))
    assert found["next_latent"].item() == pytest.approx(0, abs=1e-6)


def test_what_an_agent_learns_on_five_items_sorts_nine():
    experiment = Experiment(
        game=Sorting(items=5),
        agent=AgentConfig(memory=GRUConfig(8), sees_action=False, acts="best"),
        scheme=SelfPlay(),
        algorithm=Supervised(learning_rate=0.02, minibatches=4),
        trials=64,
    )
    trainer = PlainTrainer(experiment, {})
    for _ in range(6):
        trainer.train()
    nine = Sorting(items=9)
    agent = experiment.agent.build(nine.roles[0].observation_space, nine.roles[0].action_space, 1)
    agent.load_state_dict(trainer.agents["learner_0"].state_dict())
    rollout = Rollout(nine, one_table(("learner_0",), 100), {"learner_0": agent})
    _, log = rollout.play(rollout.start(seeds_of(20251123, Purpose.EVALUATION, 100)), 9)
    # The last item is no choice.
    assert log.rewards["sorter"][:8].mean() > 0.95
