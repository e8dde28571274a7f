"""How fast stock RLlib trains on the prisoner's dilemma, for comparison: `python -m benchmarks.stock_rllib`.

PPO on RLlib's new API stack with its own MultiAgentEnvRunner, connectors and LSTM of 64, two policies, two epochs, everything in one
process as on a machine of two cores. The last line printed is {"env_steps_per_second": x}: an env step is one round, both seats
playing; sampling and learning both count.
"""

from __future__ import annotations

import time

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from envs.iterated_dilemma import prisoners_dilemma
from training.rllib.env import GameEnv

WARM_UP, MEASURED = 1, 3
BATCH = 4000


def config(N, fc, msl, mb, mode):
    return (
        PPOConfig()
        .environment(GameEnv, env_config={"game": prisoners_dilemma()})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=N,
            batch_mode=mode,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(multi_agent=True),
        )
        .learners(num_learners=0)
        .multi_agent(policies={"player_0", "player_1"}, policy_mapping_fn=lambda agent, episode, **kwargs: agent)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=fc, use_lstm=True, lstm_cell_size=64, max_seq_len=msl))
        .training(train_batch_size_per_learner=BATCH, minibatch_size=mb, num_epochs=2)
        .debugging(log_level="ERROR")
    )


if __name__ == "__main__":
    import sys

    N, fc, msl, mb, mode = eval(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    algo = config(N, fc, msl, mb, mode).build_algo()
    for _i in range(2):
        t = time.time()
        r = algo.train()
        dt = time.time() - t
        n = r["env_runners"]["num_env_steps_sampled"]
        print(sys.argv[1], n, dt, n / dt, {k: v for k, v in r["timers"].items() if "timer" in k or k}, flush=True)
