"""RLlib's sampling actor around our rollout: one call plays a slice of an iteration's trials."""

from __future__ import annotations

import traceback
from typing import Any, NamedTuple

import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable

from agents.occupant import Occupant
from training import metrics, tree
from training.allocator import keep_freed_memory
from training.experiment import Experiment, spaces_of
from training.occupants import check_fits
from training.plain import collect
from training.population import check_frozen, co_player
from training.rollout import Trajectories


class Sampled(NamedTuple):
    """What a runner brings home. first: number of its first trial. failure: what went wrong, if anything did; then the rest is empty."""

    first: int
    lived: dict[str, Trajectories]
    tally: metrics.Tally
    failure: str = ""


class BatchedRunner(EnvRunner, Checkpointable):
    """config.env_config: {"experiment": the Experiment, "frozen": its co-players that are agents, by `frozen_in`}."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        keep_freed_memory()
        self.experiment: Experiment = config.env_config["experiment"]
        # One that takes a lost one's place loads them anew.
        check_frozen(self.experiment, config.env_config["frozen"])
        self.module = config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=False).build()
        learners = self.experiment.scheme.learners(self.experiment.game)
        self.occupants: dict[str, Occupant] = {name: self.module[name].to(self.experiment.device).agent for name in learners}
        roles = self.experiment.roles()
        for name in self.experiment.scheme.co_players(self.experiment.game):
            occupant = co_player(name)
            if name in roles:
                check_fits(name, occupant, roles[name], self.experiment.game)
            self.occupants[name] = occupant.to(self.experiment.device) if isinstance(occupant, torch.nn.Module) else occupant

    def sample(self, *, iteration: int, first: int, last: int, stage: int | None = None) -> Sampled:
        """Plays trials first .. last-1 of an iteration, at a stage of the experiment's curriculum.

        An exception would make RLlib restart the actor and go on without its result, so that a bug would look like a hang; it is
        brought home as text instead.
        """
        try:
            played = self.experiment.at(stage)
            seating = played.scheme.seat(played.game, played.trials, iteration).part(first, last)
            lived, log, rollout = collect(played, seating, self.occupants, iteration, first)
            return Sampled(first, lived, metrics.tally(rollout, log))
        except Exception:
            return Sampled(first, {}, {}, traceback.format_exc())

    def sample_remotely(self, weights: dict[str, Any], *, iteration: int, first: int, last: int, stage: int | None = None) -> Sampled:
        """The same with these weights, and tensors that travel well (a transposed view would take its whole storage along)."""
        self.set_state(weights)
        sampled = self.sample(iteration=iteration, first=first, last=last, stage=stage)
        return sampled._replace(lived=tree.map_leaves(lambda leaf: leaf.contiguous().cpu(), sampled.lived))

    def get_spaces(self) -> dict[str, Any]:
        spaces: dict[str, Any] = dict(spaces_of(self.config.env_config["experiment"]))
        first = next(iter(spaces.values()))
        return {"__env__": first, "__env_single__": first, **spaces}

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        return {COMPONENT_RL_MODULE: self.module.get_state()}

    def set_state(self, state: dict[str, Any], **kwargs: Any) -> None:
        if COMPONENT_RL_MODULE in state:
            weights = state[COMPONENT_RL_MODULE]
            self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)

    def get_metrics(self) -> Any:
        return self.metrics.reduce()

    def assert_healthy(self) -> None:
        assert self.module is not None

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[()], dict[str, Any]]:
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        return [(COMPONENT_RL_MODULE, self.module)]
