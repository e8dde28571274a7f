"""How fast stock RLlib trains on the prisoner's dilemma of 100 rounds: `python -m benchmarks.stock_rllib`.

PPO on the new API stack with RLlib's own MultiAgentEnvRunner, connectors and LSTM of 64, a policy for each seat, two epochs, everything in
one process. An env step is one round, both seats playing; sampling and learning count. RLlib's default of one environment is measured
first, then many in lockstep, its best. The last line printed is the latter: {"env_steps_per_second": x}.
"""

from __future__ import annotations

import json
import statistics
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from envs.iterated_dilemma import prisoners_dilemma
from training.rllib.env import GameEnv

WARM_UP, MEASURED = 1, 5


def main() -> None:
    # Tensors are small here: on an idle machine of two cores a second thread gains a tenth, on a busy one it makes this ten times slower.
    torch.set_num_threads(1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    print(json.dumps({"environments": 1, "env_steps_per_second": env_steps_per_second(environments=1, batch=1000)}), flush=True)
    print(json.dumps({"env_steps_per_second": env_steps_per_second(environments=40, batch=4000)}), flush=True)
    ray.shutdown()


def env_steps_per_second(environments: int, batch: int) -> float:
    """The median over iterations, after a warm-up. batch: env steps of an iteration."""
    game = prisoners_dilemma()
    algorithm = (
        PPOConfig()
        .environment(GameEnv, env_config={"game": game})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=environments,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(multi_agent=True),
        )
        .learners(num_learners=0)
        .multi_agent(policies={"player_0", "player_1"}, policy_mapping_fn=lambda agent, episode, **kwargs: agent)
        # Backpropagation through whole games, as our agents do (RLlib's default cuts them every 20 steps).
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32], use_lstm=True, lstm_cell_size=64, max_seq_len=game.rounds))
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


if __name__ == "__main__":
    main()
