"""RLlib's module around an Agent. Our own path calls the agent itself; RLlib's stock runners call the `_forward_...` methods below."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from agents.agent import Agent, AgentState
from envs.game import Answer
from training import tree
from training.algorithms import Batch, outlook_on
from training.rollout import Relaxation

# Fields that `training.rllib.env` adds to an observation, so that stock RLlib hands an agent all that our rollout would.
SEED, EPISODE_SEED, BEGAN, REWARD = "__seed__", "__episode_seed__", "__began__", "__reward__"


class AgentModule(TorchRLModule):
    """model_config: {"agent": AgentConfig, "seed", "first": as `AgentConfig.build` takes them, the last if need be}.

    observation_space: the role's own, without added fields.
    """

    agent: Agent

    def setup(self) -> None:
        self.agent = self.model_config["agent"].build(
            self.observation_space, self.action_space, self.model_config["seed"], self.model_config.get("first")
        )

    def _forward_train(self, batch: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, Any]:
        """batch: the leaves of a `Batch`, by name. Returns what the loss needs."""
        rows = self.batch_of(batch)
        outlook = outlook_on(self.agent, rows)
        return {"policy": outlook.policy, "value": outlook.value, "x": outlook.x, "y": outlook.y}

    def batch_of(self, columns: Any) -> Batch:
        leaf: Any = 0
        template = Batch(*[leaf] * len(Batch._fields))._replace(
            observation=dict.fromkeys(self.agent.observation_space.spaces, leaf),
            memory=self.agent.memory.start(1),
            answer=Answer(leaf, leaf) if "answer.asked" in columns else None,
            others=leaf if "others" in columns else None,
            relaxation=Relaxation(leaf, leaf) if "relaxation.noise" in columns else None,
        )
        batch: Batch = tree.fill(template, columns)
        return batch

    def get_initial_state(self) -> dict[str, torch.Tensor]:
        """What is carried of the agent's state before it has perceived anything, one row without its batch axis."""
        return {name: leaf[0] for name, leaf in _carried(self.agent.start(torch.zeros(1, dtype=torch.int64))).items()}

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """One step, as `Agent.act` plays it. Observations [B, 1, ...] hold the added fields, too."""
        observation = {name: value[:, 0] for name, value in batch[Columns.OBS].items()}
        of_trial, of_episode, began, reward = (observation.pop(name) for name in (SEED, EPISODE_SEED, BEGAN, REWARD))
        seeds = of_episode if self.agent.forgets_episodes else of_trial
        fresh = self.agent.start(seeds)
        state = tree.fill(fresh, {**batch[Columns.STATE_IN], "seed": seeds})
        # RLlib narrows a state's numbers to 32 bits from step to step.
        state = tree.map_leaves(lambda leaf, like: leaf.to(like.dtype), state, fresh)
        if self.agent.forgets_episodes:
            state = tree.where(began.bool(), fresh, state)
        decision, state = self.agent.act(observation, state, reward)
        assert decision.log_prob is not None
        assert decision.value is not None
        return {
            Columns.ACTIONS: decision.action[:, None],
            Columns.ACTION_LOGP: decision.log_prob[:, None],
            Columns.VF_PREDS: decision.value[:, None],
            Columns.STATE_OUT: _carried(state),
        }

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._forward_inference(batch, **kwargs)


def _carried(state: AgentState) -> dict[str, torch.Tensor]:
    """What RLlib carries from step to step: all but the seed, which needs 64 bits and so comes with every observation."""
    leaves = tree.named_leaves(state)
    del leaves["seed"]
    return leaves
