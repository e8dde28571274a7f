"""Whoever can sit at a table: learner, script, frozen agent or third-party policy. A rollout does not care which.

An occupant has no memory but the state it is handed. Two methods are all it needs, so a policy from elsewhere takes ten lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from envs.game import Observation

# A NamedTuple of tensors [N, ...].
State = Any


class Decision(NamedTuple):
    """action: [N, ...] in the role's action space. What only learners know is None for others.

    log_prob: [N], of the action. value: [N], the return expected. policy: [N, ...], the distribution (probabilities of the choices, or
    the two shape parameters of each bounded number).
    """

    action: Tensor
    log_prob: Float[Tensor, "N"] | None = None
    value: Float[Tensor, "N"] | None = None
    policy: Float[Tensor, "N ..."] | None = None


@runtime_checkable
class Occupant(Protocol):
    """A script may say more about itself. `reads = {field: how many symbols, or the shape of its numbers}`, `acts`, the space of all
    that it may do, or how many choices, and `settings_in(game) -> {setting: value}`, what settings of its own must be there: a game that
    shows something else, does not take all of that or wants other settings is refused at the start.
    `forgets_episodes`: whether it starts anew with every episode of a trial.
    `cooperates_in(state) -> [N, 5] or [N, 21]`: its probabilities to cooperate in every situation, if it plays by nothing else
    (`agents.co_players.tables`, `memory_two`); evaluation then knows the best response to it, and an agent can be told which table of five
    it meets (`training.identity`).
    """

    def start(self, seeds: Int64[Tensor, "N"]) -> State:
        """The state of N seats that have seen nothing. seeds: the luck of each, all that its chance may depend on."""

    def act(self, observation: Observation, state: State, reward: Float[Tensor, "N"]) -> tuple[Decision, State]:
        """observation: {field: [N, ...]}. reward: earned since the last act, 0 at the first of a trial."""
