"""How fast stock RLlib trains on the prisoner's dilemma of 100 rounds: `python -m benchmarks.stock_rllib stock|tuned`.

PPO on the new API stack with RLlib's own MultiAgentEnvRunner, connectors and LSTM of 64, a policy for each seat, two epochs, everything in
one process. An env step is one round, both seats playing; sampling and learning count.

stock: one environment, RLlib's own network before the LSTM and its own cuts of trajectories. tuned: the best that we found for it: 40
environments in lockstep, a small network, trajectories in one piece, one thread (two gain a tenth at most).
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from envs.iterated_dilemma import prisoners_dilemma
from training.rllib.env import GameEnv

WARM_UP, MEASURED = 1, 5


def env_steps_per_second(environments: int, batch: int, model: DefaultModelConfig) -> float:
    """The median over iterations, after a warm-up. batch: env steps of an iteration."""
    algorithm = (
        PPOConfig()
        .environment(GameEnv, env_config={"game": prisoners_dilemma()})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=environments,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(multi_agent=True),
        )
        .learners(num_learners=0)
        .multi_agent(policies={"player_0", "player_1"}, policy_mapping_fn=lambda agent, episode, **kwargs: agent)
        .rl_module(model_config=model)
        .training(train_batch_size_per_learner=batch, minibatch_size=1000, num_epochs=2)
        .debugging(log_level="ERROR")
        .build_algo()
    )
    speeds = []
    for _ in range(WARM_UP + MEASURED):
        begin = time.perf_counter()
        result = algorithm.train()
        speeds.append(result["env_runners"]["num_env_steps_sampled"] / (time.perf_counter() - begin))
    algorithm.stop()
    return round(statistics.median(speeds[WARM_UP:]), 1)


def main(which: str) -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    if which == "stock":
        speed = env_steps_per_second(1, 1000, DefaultModelConfig(use_lstm=True, lstm_cell_size=64))
    else:
        torch.set_num_threads(1)
        model = DefaultModelConfig(fcnet_hiddens=[32], use_lstm=True, lstm_cell_size=64, max_seq_len=100)
        speed = env_steps_per_second(40, 4000, model)
    ray.shutdown()
    print(json.dumps({"env_steps_per_second": speed}))


if __name__ == "__main__":
    if sys.argv[1:] not in (["stock"], ["tuned"]):
        sys.exit("error: say stock or tuned")
    main(sys.argv[1])
