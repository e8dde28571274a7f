"""A policy of somebody else's at our tables: whatever it gets wrong is said in one line that names it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from agents.occupant import Decision
from envs.game import ACTION_MASK, Observation, Role
from training.settings import BadInput

# What an occupant may say about itself (`agents.occupant.Occupant`).
_SAYS = ("reads", "acts", "settings_in", "forgets_episodes", "cooperates_in")


class Foreign:
    """name: as a person wrote it. policy: has `start` and `act` (see `agents.occupant.Occupant`). role: where it sits; None where nobody
    plays yet.
    """

    def __init__(self, name: str, policy: Any, role: Role | None = None) -> None:
        self.name = name
        self.policy = policy
        self.role = role
        for said in _SAYS:
            if hasattr(policy, said):
                setattr(self, said, getattr(policy, said))

    def start(self, seeds: Tensor) -> Any:
        try:
            return self.policy.start(seeds)
        # Whatever somebody else's code makes of it: it is named.
        except (Exception, SystemExit) as error:
            raise BadInput(f"{self.name}.start failed: {_said(error)}") from error

    def act(self, observation: Observation, state: Any, reward: Tensor) -> tuple[Decision, Any]:
        """Raises BadInput where the policy fails, or returns anything but (Decision, state) with one allowed action per row."""
        try:
            returned = self.policy.act(observation, state, reward)
        except (Exception, SystemExit) as error:
            raise BadInput(f"{self.name}.act failed: {_said(error)}") from error
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[0], Decision):
            raise BadInput(f"{self.name}.act returned {type(returned).__name__}; want (agents.occupant.Decision(action), state)")
        decision, after = returned
        self._check(decision.action, len(reward), observation)
        return decision, after

    def _check(self, action: Any, rows: int, observation: Observation) -> None:
        space = self.role.action_space if self.role else gym.spaces.Discrete(2**31)
        shape = (rows, *(space.shape or ()))
        if not isinstance(action, Tensor) or tuple(action.shape) != shape:
            found = f"shape {list(action.shape)}" if isinstance(action, Tensor) else type(action).__name__
            raise BadInput(f"{self.name}.act gave actions of {found}; want a torch tensor of shape {list(shape)}, one per row")
        if isinstance(space, gym.spaces.Box):
            low, high = (torch.as_tensor(bound) for bound in (space.low, space.high))
            fits = action.is_floating_point() and bool(((action >= low) & (action <= high)).all())
        else:
            start = torch.as_tensor(space.start)
            count = torch.as_tensor(space.n if isinstance(space, gym.spaces.Discrete) else space.nvec)
            fits = action.dtype == torch.int64 and bool(((action >= start) & (action < start + count)).all())
        mask = observation.get(ACTION_MASK)
        if fits and mask is not None and isinstance(space, gym.spaces.Discrete):
            fits = bool(mask.gather(-1, (action - int(space.start))[..., None]).all())
        if not fits:
            found = f"{action.dtype} actions from {action.min().item()} to {action.max().item()}"
            raise BadInput(f"{self.name}.act gave {found}; want what is allowed in {space}")


def in_role(occupant: Any, role: Role) -> Any:
    """The occupant; somebody else's policy is held to the role's actions from here on."""
    return Foreign(occupant.name, occupant.policy, role) if isinstance(occupant, Foreign) else occupant


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
