"""Pointing at what is seen: scores for each of a row of items, by additive attention (Vinyals et al. 2015, arXiv 1506.03134, eq. 3).

Every item is perceived and scored by the same weights, so what was learned about an item holds wherever in the row it stands, and in rows
of any length.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.encoders import encoder_of
from envs.game import ACTION_MASK, Observation

# The observation field that holds what can be pointed at.
ITEMS = "items"


class Pointer(nn.Module):
    """u_j = v . tanh(W_1 e_j + W_2 d): the logit of item e_j, as the memory's output d stands.

    features: F, numbers that describe an item. inputs: D. width: of the comparison.
    """

    def __init__(self, features: int, inputs: int, width: int) -> None:
        super().__init__()
        self.of_item = nn.Linear(features, width)
        self.of_memory = nn.Linear(inputs, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        # As other heads start: the first policy is nearly even.
        nn.init.orthogonal_(self.score.weight, gain=0.01)

    def forward(self, items: Float[Tensor, "... N F"], y: Float[Tensor, "... D"]) -> Float[Tensor, "... N"]:
        """Logits, not yet masked."""
        compared = torch.tanh(self.of_item(items) + self.of_memory(y)[..., None, :])
        return self.score(compared)[..., 0]


class ItemsEncoder(nn.Module):
    """What a role that points perceives: the mean of what its items say, in whatever order (Zaheer et al. 2017, arXiv 1703.06114), and its
    other fields added to it.
    """

    def __init__(self, space: gym.spaces.Dict, width: int) -> None:
        super().__init__()
        self.of_item = nn.Sequential(nn.Linear(space[ITEMS].shape[1], width), nn.SiLU(), nn.Linear(width, width))
        others = {name: field for name, field in space.items() if name != ITEMS}
        self.of_others = encoder_of(gym.spaces.Dict(others), width) if others.keys() - {ACTION_MASK} else None

    def forward(self, observation: Observation) -> Float[Tensor, "... E"]:
        items = self.of_item(observation[ITEMS]).mean(-2)
        return items if self.of_others is None else items + self.of_others(observation)


def item_features(observation_space: gym.spaces.Dict, action_space: gym.Space[Any]) -> int | None:
    """F, for a role whose action is the place of one of the `items` [N, F] that it sees; None where it is anything else."""
    items = observation_space.spaces.get(ITEMS)
    is_row = isinstance(items, gym.spaces.Box) and len(items.shape) == 2
    is_place = isinstance(action_space, gym.spaces.Discrete)
    return int(items.shape[1]) if is_row and is_place and items.shape[0] == action_space.n else None
