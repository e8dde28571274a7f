"""RLlib's Algorithm around our loop: ask the scheme who meets whom, sample on all runners, update, send the weights back."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
import torch
from ray.job_config import JobConfig
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_OPTIMIZER, COMPONENT_RL_MODULE
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from training import metrics, tree
from training.experiment import Experiment, spaces_of
from training.population import frozen_in
from training.rllib.learner import AgentLearner
from training.rllib.module import AgentModule
from training.rllib.runner import BatchedRunner, Sampled
from training.rollout import join
from training.run import Snapshot
from training.settings import BadInput

ROOT = Path(__file__).parents[2]
# How long RLlib waits before it replaces a dead runner; its default of a minute makes any failure look like a hang.
RESTART_DELAY_S = 1.0
# AgentModule holds the agent under this name.
_PREFIX = "agent."


class PopulationConfig(AlgorithmConfig):
    """RLlib asks a configuration for its defaults even where every learner's module is given."""

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=AgentModule)

    def get_default_learner_class(self) -> type[AgentLearner]:
        return AgentLearner


class PopulationAlgorithm(Algorithm):
    """One call of `train()` is one iteration; `report` then holds its figures by the names of `training.metrics`."""

    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        self.experiment: Experiment = config.env_config["experiment"]
        # Iterations completed: the next one's number.
        self.completed = 0
        # Of the curriculum, in the next iteration.
        self.stage = self.experiment.curriculum.start
        self.report: dict[str, float] = {}

    def _setup_logdir(self) -> None:
        """RLlib would leave an empty directory in the home for every run."""
        self._logdir = tempfile.gettempdir()

    def training_step(self) -> None:
        experiment, iteration = self.experiment.at(self.stage), self.completed
        begin = time.perf_counter()
        sampled = self._sample(iteration)
        names = experiment.scheme.learners(experiment.game)
        lived = {name: join([part.lived[name] for part in sampled if name in part.lived]) for name in names}
        steps = sum(rows.reward.numel() for rows in lived.values())
        between = time.perf_counter()
        batches = {name: SampleBatch(tree.named_leaves(experiment.algorithm.prepare(rows))) for name, rows in lived.items()}
        learned = self.learner_group.update(
            training_data=TrainingData(batch=MultiAgentBatch(batches, env_steps=experiment.trials * experiment.steps)),
            timesteps={"iteration": iteration},
        )
        self.metrics.aggregate(learned, key="learners")
        end = time.perf_counter()
        self.completed = iteration + 1
        tally = metrics.merge([part.tally for part in sampled])
        self.report = metrics.means(tally)
        if self.stage is not None:
            self.report[f"curriculum/{experiment.curriculum.raises}"] = float(self.stage)
            self.stage = experiment.curriculum.after(self.stage, self.experiment.game, tally)
        for name in names:
            # What a teacher played says nothing of a policy that has changed.
            moved = () if experiment.algorithm.shows else ("kl",)
            for figure in (
                "entropy",
                "policy_loss",
                "value_loss",
                "gradient_norm",
                "learning_rate",
                *moved,
                *experiment.agent.auxiliary.wanted,
            ):
                # Trials may be too short for an auxiliary loss, or show nothing of others.
                value = self.metrics.peek(("learners", name, figure), default=None)
                if value is not None:
                    self.report[f"learning/{name}/{figure}"] = float(value)
        self.report["speed/sampling"] = steps / (between - begin)
        self.report["speed/learning"] = steps / (end - between)
        self.report["speed/overall"] = steps / (end - begin)

    def _sample(self, iteration: int) -> list[Sampled]:
        """All trials of an iteration, in order. What a lost runner should have played is played here, with the same result."""
        trials = self.experiment.trials
        group = self.env_runner_group
        # The weights go along with the request: RLlib's own broadcast may drop one, and a runner that was just replaced has none yet.
        weights = self.learner_group.get_state(components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}")[COMPONENT_LEARNER]
        self.env_runner.set_state(weights)
        workers = group.healthy_worker_ids()
        if not workers:
            return [_checked(self.env_runner.sample(iteration=iteration, first=0, last=trials, stage=self.stage))]
        shared = ray.put(weights)
        bounds = [trials * part // len(workers) for part in range(len(workers) + 1)]
        wanted = list(itertools.pairwise(bounds))
        results = group.foreach_env_runner(
            [_playing(shared, iteration, first, last, self.stage) for first, last in wanted],
            local_env_runner=False,
            remote_worker_ids=workers,
        )
        done = {result.first: _checked(result) for result in results}
        for first, last in wanted:
            if first not in done:
                sampled = self.env_runner.sample_remotely(weights, iteration=iteration, first=first, last=last, stage=self.stage)
                done[first] = _checked(sampled)
        return [done[first] for first, _ in wanted]

    def snapshot(self) -> Snapshot:
        """All that the rest of the run depends on, as it is now; later updates cannot reach it."""
        state = self.learner_group.get_state(components=[COMPONENT_LEARNER])[COMPONENT_LEARNER]
        names = self.experiment.scheme.learners(self.experiment.game)
        weights = {name: {_bare(key): torch.tensor(value) for key, value in state[COMPONENT_RL_MODULE][name].items()} for name in names}
        optimisers = {
            entry["module_id"]: {
                number: {key: torch.tensor(value) for key, value in buffers.items()} for number, buffers in entry["state"]["state"].items()
            }
            for entry in state[COMPONENT_OPTIMIZER].values()
        }
        return Snapshot(self.completed, weights, optimisers, self.stage)

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        state = self.learner_group.get_state(components=[COMPONENT_LEARNER])
        learner = state[COMPONENT_LEARNER]
        for name, weights in snapshot.weights.items():
            learner[COMPONENT_RL_MODULE][name] = {_PREFIX + key: value for key, value in weights.items()}
        for entry in learner[COMPONENT_OPTIMIZER].values():
            entry["state"]["state"] = snapshot.optimisers.get(entry["module_id"], {})
        self.learner_group.set_state(state)
        self.completed = snapshot.iteration
        self.stage = self.experiment.curriculum.start if snapshot.stage is None else snapshot.stage


def build(experiment: Experiment) -> PopulationAlgorithm:
    """Starts Ray, if need be, and the algorithm with its runners and learners."""
    start_ray(experiment)
    specs = {
        name: RLModuleSpec(
            module_class=AgentModule,
            observation_space=birth.observation_space,
            action_space=birth.action_space,
            model_config={"agent": experiment.agent, "seed": birth.seed, "first": birth.first},
        )
        for name, birth in experiment.births().items()
    }
    first = next(iter(spaces_of(experiment).values()))
    gpu = 1 if experiment.device == "cuda" else 0
    config = (
        PopulationConfig(algo_class=PopulationAlgorithm)
        .api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
        .environment(
            env=None,
            observation_space=first[0],
            action_space=first[1],
            env_config={"experiment": experiment, "frozen": frozen_in(experiment)},
        )
        .env_runners(env_runner_cls=BatchedRunner, num_env_runners=experiment.runners)
        .learners(num_learners=experiment.learners, num_gpus_per_learner=gpu)
        .multi_agent(policies=set(specs), policy_mapping_fn=_nobody)
        .training(learner_class=AgentLearner)
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
        .fault_tolerance(restart_failed_env_runners=True, delay_between_env_runner_restarts_s=RESTART_DELAY_S)
        .debugging(log_level="ERROR")
    )
    algorithm = config.build_algo()
    assert isinstance(algorithm, PopulationAlgorithm)
    return algorithm


def start_ray(experiment: Experiment) -> None:
    """A local Ray just large enough, quiet, without its dashboard. Raises BadInput where the machine cannot start it."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name in ("ray", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    job = JobConfig()
    job._py_driver_sys_path = _NotHere()
    try:
        ray.init(
            job_config=job,
            num_cpus=max(os.cpu_count() or 1, 1 + experiment.runners + 2 * experiment.learners),
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=512 * 1024**2,
        )
    # Ray says that it waited in vain with exceptions of many kinds, a bare Exception among them.
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"Ray did not start ({said}); want a machine with a free core and memory: try again when it is less busy") from error


class _NotHere(list[str]):
    """Where Ray's processes look for modules first: not where the person is. A file there, an `agents.py` say, would take our place; and
    who goes on with a stranger's run would run the stranger's files.
    """

    def extend(self, places: Iterable[str]) -> None:
        super().extend(place for place in places if place != os.getcwd() or place == str(ROOT))


def stop_ray() -> None:
    ray.shutdown()


def _playing(weights: Any, iteration: int, first: int, last: int, stage: int | None) -> Any:
    return lambda runner: runner.sample_remotely(ray.get(weights), iteration=iteration, first=first, last=last, stage=stage)


class SamplingFailed(RuntimeError):
    """Something went wrong while playing; the message is the traceback, from whichever process it was."""


def _checked(sampled: Sampled) -> Sampled:
    if sampled.failure:
        raise SamplingFailed(sampled.failure)
    return sampled


def _nobody(*args: Any, **kwargs: Any) -> str:
    raise AssertionError("seatings say who plays; RLlib's mapping function is not used")


def _bare(name: str) -> str:
    """A weight's name in the agent, from its name in RLlib's module."""
    return name.removeprefix(_PREFIX)
