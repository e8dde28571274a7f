"""How fast we train against stock RLlib: PPO, 100-round prisoner's dilemma, two learners, two epochs, sampling and learning together.

Ours: a GRU of 128, 2,048 games. Theirs: RLlib's MultiAgentEnvRunner and PPO with an LSTM of 64, as RLlib comes (one environment), and with
the best batch settings that we found for it (`benchmarks.stock_rllib`). They take turns, each in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from benchmarks.measure import verdict

ROUNDS = 3


def ours() -> None:
    """Prints env steps per second, the median of a few iterations."""
    from benchmarks.overhead import experiment
    from training.rllib import algorithm as rllib
    from training.settings import override

    # Two updates of 1,024 trajectories per epoch: large ones keep two cores busy.
    settings = override(override(experiment(), "trials=2048"), "algorithm.minibatches=2")
    algorithm = rllib.build(settings)
    speeds = []
    for iteration in range(6):
        algorithm.train()
        if iteration:
            # Two learners act in every env step.
            speeds.append(algorithm.report["speed/overall"] / 2)
    rllib.stop_ray()
    print(json.dumps({"env_steps_per_second": statistics.median(speeds)}))


def last_line(*arguments: str) -> float:
    printed = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=True).stdout
    return float(json.loads(printed.strip().splitlines()[-1])["env_steps_per_second"])


def main() -> bool:
    speeds: dict[str, list[float]] = {"ours": [], "stock": [], "tuned": []}
    for _ in range(ROUNDS):
        speeds["ours"].append(last_line("benchmarks.training", "ours"))
        speeds["stock"].append(last_line("benchmarks.stock_rllib", "stock"))
        speeds["tuned"].append(last_line("benchmarks.stock_rllib", "tuned"))
        print({name: round(values[-1]) for name, values in speeds.items()}, flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"ours: {medians['ours']:,.0f} env steps/s; RLlib: {medians['stock']:,.0f} as it comes, {medians['tuned']:,.0f} at its best")
    print(f"against RLlib at its best: {medians['ours'] / medians['tuned']:.1f} times")
    return verdict("against RLlib as it comes", medians["ours"] / medians["stock"], 100, "times")


if __name__ == "__main__":
    if sys.argv[1:] == ["ours"]:
        ours()
    else:
        sys.exit(not main())
