"""RLlib's module around an Agent. Our own path calls the agent itself; RLlib's stock runners call the `_forward_...` methods below."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from agents.agent import Agent, AgentState
from training import tree
from training.algorithms import Batch, outlook_on

# Fields that `training.rllib.env` adds to an observation, so that stock RLlib hands an agent all that our rollout would.
SEED, REWARD = "__seed__", "__reward__"


class AgentModule(TorchRLModule):
    """model_config: {"agent": AgentConfig, "seed": int}. observation_space: the role's own, without added fields."""

    agent: Agent

    def setup(self) -> None:
        self.agent = self.model_config["agent"].build(self.observation_space, self.action_space, self.model_config["seed"])

    def _forward_train(self, batch: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, Any]:
        """batch: the leaves of a `Batch`, by name. Returns what the loss needs."""
        rows = self.batch_of(batch)
        outlook = outlook_on(self.agent, rows)
        return {"policy": outlook.policy, "value": outlook.value}

    def batch_of(self, columns: Any) -> Batch:
        fields = {name: None for name in Batch._fields}
        observation = {name: 0 for name in self.agent.observation_space.spaces}
        template = Batch(**{**dict.fromkeys(fields, 0), "observation": observation, "memory": self.agent.memory.start(1)})  # type: ignore[arg-type]
        batch: Batch = tree.fill(template, columns)
        return batch

    def get_initial_state(self) -> dict[str, torch.Tensor]:
        """The agent's state before it has perceived anything, one row without its batch axis; the seed comes with the first observation."""
        state = self.agent.start(torch.zeros(1, dtype=torch.int64))
        return {name: leaf[0] for name, leaf in tree.named_leaves(state).items()}

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """One step, as `Agent.act` plays it. Observations [B, 1, ...] hold the fields SEED and REWARD too."""
        observation = {name: value[:, 0] for name, value in batch[Columns.OBS].items()}
        seeds, reward = observation.pop(SEED), observation.pop(REWARD)
        state: AgentState = tree.fill(self.agent.start(seeds[:1]), batch[Columns.STATE_IN])
        state = state._replace(seed=torch.where(state.clock == 0, seeds, state.seed))
        decision, state = self.agent.act(observation, state, reward)
        assert decision.log_prob is not None and decision.value is not None
        return {
            Columns.ACTIONS: decision.action[:, None],
            Columns.ACTION_LOGP: decision.log_prob[:, None],
            Columns.VF_PREDS: decision.value[:, None],
            Columns.STATE_OUT: tree.named_leaves(state),
        }

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._forward_inference(batch, **kwargs)
