"""Who one plays with, told to a learner whose settings ask for it: an ablation (Weis et al. 2026, A.4), off everywhere else.

A co-player that plays a memory-one table is shown as the table's log-probabilities, to cooperate and to defect in each of the five
situations; everyone else, learners above all, as zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from envs.game import Game, Role, seat_count
from training.seating import Group

# The field of an observation, added to the game's own.
FIELD = "co_player"
WIDTH = 10
# Certain actions have log-probabilities that a network can read.
_LEAST = 1e-3


def role_with_identities(game: Game, role: Role) -> Role:
    """The role of a learner that is told who sits in the other seats, one after another from the seat that follows its own."""
    others = seat_count(game) - 1
    shown = gym.spaces.Box(math.log(_LEAST) - 1e-3, 0.0, (WIDTH * others,), np.float32)
    return role._replace(observation_space=gym.spaces.Dict({**role.observation_space.spaces, FIELD: shown}))


def asks(occupant: Any, role: Role) -> bool:
    """Whether an occupant wants to be told (and the game itself does not show a field of that name)."""
    space = getattr(occupant, "observation_space", None)
    return space is not None and FIELD in space.spaces and FIELD not in role.observation_space.spaces


def identities(groups: Sequence[Group], occupants: Sequence[Any], states: Sequence[Any], games: int, seats: int) -> Float[Tensor, "B P K"]:
    """Of everyone at every table, K = WIDTH numbers each."""
    device = groups[0].games.device
    known = torch.zeros(games, seats, WIDTH, device=device)
    for group, occupant, state in zip(groups, occupants, states, strict=True):
        cooperates = occupant.cooperates_in(state) if hasattr(occupant, "cooperates_in") else None
        if cooperates is not None and cooperates.shape[1] == WIDTH // 2:
            log_probs = torch.stack([cooperates, 1 - cooperates], -1).clamp_min(_LEAST).log()
            known[group.games, group.seats] = log_probs.flatten(1)
    return known


def of_others(known: Float[Tensor, "B P K"], group: Group) -> Float[Tensor, "N L"]:
    """What those in a group's seats are told, L = K (P - 1)."""
    seats = known.shape[1]
    others = (group.seats[:, None] + 1 + torch.arange(seats - 1, device=known.device)) % seats
    return known[group.games[:, None], others].flatten(1)
