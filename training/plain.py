"""The training loop without Ray: the same rollouts, losses and order of minibatches as `training.rllib`, in one process.

For machines without Ray, and to measure what RLlib costs. On a CPU both give the same weights, bit for bit (tested).
"""

from __future__ import annotations

from typing import Any

import torch

from agents.agent import Agent
from agents.occupant import Occupant
from envs.chance import Purpose, seeds_of
from training import algorithms, messages, metrics, tree
from training.experiment import Experiment
from training.rollout import Rollout, Trajectories, trajectories
from training.seating import Seating


class PlainTrainer:
    def __init__(self, experiment: Experiment, co_players: dict[str, Occupant]) -> None:
        self.experiment = experiment
        self.agents = {name: agent.to(experiment.device) for name, agent in experiment.build_learners().items()}
        self.occupants: dict[str, Occupant] = {**self.agents, **co_players}
        self.optimisers = {name: experiment.algorithm.optimiser(agent) for name, agent in self.agents.items()}
        self.iteration = 0
        self.stage = experiment.curriculum.start

    def train(self) -> None:
        """One iteration: sample, then learn."""
        lived, log, rollout = self._collect()
        for name, agent in self.agents.items():
            self.learn(name, agent, lived[name])
        self.iteration += 1
        if self.stage is not None:
            self.stage = self.experiment.curriculum.after(self.stage, self.experiment.game, metrics.tally(rollout, log))

    def sample(self) -> dict[str, Trajectories]:
        return self._collect()[0]

    def _collect(self) -> tuple[dict[str, Trajectories], Any, Rollout]:
        played = self.experiment.at(self.stage)
        seating = played.scheme.seat(played.game, played.trials, self.iteration)
        return collect(played, seating, self.occupants, self.iteration, first=0)

    def learn(self, name: str, agent: Agent, lived: Trajectories) -> None:
        experiment, optimiser = self.experiment, self.optimisers[name]
        progress = experiment.progress_at(self.iteration)
        batch = experiment.algorithm.prepare(lived)
        for group in optimiser.param_groups:
            group["lr"] = experiment.algorithm.learning_rate_at(progress)
        for rows in algorithms.minibatches(len(batch.target), experiment.algorithm, experiment.seed, self.iteration):
            part = tree.rows_of(batch, rows.to(batch.target.device))
            outlook = algorithms.outlook_on(agent, part)
            loss, _ = experiment.algorithm.loss(agent.policy_head, outlook, part, progress, agent.auxiliary)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            gradients = [parameter.grad for parameter in agent.parameters() if parameter.grad is not None]
            algorithms.clip_gradients(gradients, experiment.algorithm.max_gradient_norm)
            optimiser.step()


@torch.no_grad()
def collect(
    experiment: Experiment, seating: Seating, occupants: dict[str, Occupant], iteration: int, first: int
) -> tuple[dict[str, Trajectories], Any, Rollout]:
    """The trials of (a part of) an iteration, which start at number `first`: ({learner: Trajectories}, the rollout's log, the rollout)."""
    rollout = Rollout(
        experiment.game,
        seating,
        occupants,
        episodes=experiment.episodes,
        watched=experiment.scheme.learners(experiment.game),
        keeps_answers=experiment.algorithm.wants_answers,
        shows_answers=experiment.algorithm.shows,
        device=experiment.device,
    )
    seeds = seeds_of(experiment.seed, Purpose.TRIAL, len(seating.kind), iteration, first=first, device=experiment.device)
    before = rollout.start(seeds)
    after, log = rollout.play(before, experiment.steps)
    lived = trajectories(rollout, before, log, after, keeps_others=experiment.agent.auxiliary.co_player > 0)
    if experiment.algorithm.wants_relaxations:
        lived = messages.relaxed(lived, rollout, before)
    rollout.finish(after)
    return lived, log, rollout
