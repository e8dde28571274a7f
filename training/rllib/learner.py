"""RLlib's learner around our losses: no connectors, minibatches count trajectories, and the order of updates follows from the seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from agents.agent import Outlook
from training import algorithms
from training.allocator import keep_freed_memory
from training.experiment import Experiment


class NonFiniteLoss(FloatingPointError):
    """A learner's loss or gradient is NaN or infinite; it was not applied."""


class AgentLearner(TorchLearner):
    """config.env_config["experiment"]: the Experiment."""

    def build(self) -> None:
        keep_freed_memory()
        self.experiment: Experiment = self.config.env_config["experiment"]
        super().build()
        # Batches arrive ready.
        self._learner_connector = None
        self._iteration = 0
        self._figures: dict[str, dict[str, list[torch.Tensor]]] = defaultdict(lambda: defaultdict(list))

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module = self._module[module_id]
        algorithm = self.experiment.algorithm
        self.register_optimizer(
            module_id=module_id,
            optimizer=algorithm.optimiser(module),
            params=self.get_parameters(module),
            lr_or_lr_schedule=algorithm.learning_rate,
        )

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self._iteration = timesteps["iteration"]
        self._progress = self.experiment.progress_at(self._iteration)
        self._rate = self.experiment.algorithm.learning_rate_at(self._progress)
        self._figures.clear()
        for module_id in self.module.keys():
            for _, optimiser in self.get_optimizers_for_module(module_id):
                for group in optimiser.param_groups:
                    group["lr"] = self._rate

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Figures become means over the updates. (RLlib's own schedules are not used.)"""
        for module_id, figures in self._figures.items():
            self.metrics.log_value((module_id, "learning_rate"), self._rate, window=1)
            for name, values in figures.items():
                self.metrics.log_value((module_id, name), torch.stack(values).mean().item(), window=1)

    def _create_iterator_if_necessary(self, *, training_data: TrainingData, **kwargs: Any) -> Iterator[MultiAgentBatch]:
        """Every learner's rows in the order that `algorithms.minibatches` says, the same number of updates for each."""
        batches = training_data.batch.policy_batches
        orders = {
            name: algorithms.minibatches(len(rows), self.experiment.algorithm, self.experiment.seed, self._iteration)
            for name, rows in batches.items()
        }
        for parts in zip(*orders.values(), strict=True):
            chosen = {}
            for name, part in zip(orders, parts, strict=True):
                chosen[name] = SampleBatch({key: value[part.to(value.device)].to(self.device) for key, value in batches[name].items()})
            yield MultiAgentBatch(chosen, env_steps=max(len(rows) for rows in chosen.values()))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: dict[str, Any]) -> torch.Tensor:
        module = self.module[module_id].unwrapped()
        outlook = Outlook(fwd_out["policy"], fwd_out["value"], None, fwd_out["x"], fwd_out["y"])
        algorithm = self.experiment.algorithm
        loss, figures = algorithm.loss(module.agent.policy_head, outlook, module.batch_of(batch), self._progress, module.agent.auxiliary)
        if not bool(loss.isfinite()):
            raise NonFiniteLoss(f"the loss of {module_id} is {loss.item()} in iteration {self._iteration}")
        for name, value in figures.items():
            self._figures[module_id][name].append(value)
        return loss

    def postprocess_gradients(self, gradients_dict: dict[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
        """Clips each learner's gradient by its own norm; refuses one that is not finite (RLlib would put zeros in its place)."""
        for module_id in self.module.keys():
            names = [self.get_param_ref(parameter) for parameter in self.get_parameters(self.module[module_id])]
            gradients = [gradients_dict[name] for name in names if gradients_dict.get(name) is not None]
            norm = algorithms.clip_gradients(gradients, self.experiment.algorithm.max_gradient_norm)
            if not bool(norm.isfinite()):
                raise NonFiniteLoss(f"the gradient of {module_id} is {norm.item()} in iteration {self._iteration}")
            self._figures[module_id]["gradient_norm"].append(norm)
        # What had no part in the loss, a readout of a lag longer than trials say, has no gradient; RLlib would ask whether it is finite.
        return {name: gradient for name, gradient in gradients_dict.items() if gradient is not None}
