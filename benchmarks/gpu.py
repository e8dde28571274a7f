"""Rollout and update with game, agents and co-players on one device: `python -m benchmarks.gpu` (a GPU if there is one, else the CPU).

PPO, GRU of 128, two epochs, the mixed pool, 100-round prisoner's dilemma; 8,192 games on a GPU, 512 on a CPU. Needs no Ray.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch

from benchmarks.measure import seconds
from envs.chance import Purpose, seeds_of
from training.allocator import keep_freed_memory
from training.experiment import Experiment
from training.graph import CapturedRollout
from training.plain import PlainTrainer
from training.population import co_player
from training.rollout import Rollout, trajectories
from training.settings import override


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--games", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    games = options.games or (8192 if options.device == "cuda" else 512)
    experiment = override(replace(Experiment(trials=games), device=options.device), "algorithm.minibatches=2")
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; PyTorch {torch.__version__}; {games} games x {experiment.steps} rounds, GRU of 128, float32", flush=True)
    trainer = PlainTrainer(experiment, {"random_table": co_player("random_table")})
    seating = experiment.scheme.seat(experiment.game, games, 0)
    rollout = Rollout(experiment.game, seating, trainer.occupants, watched=trainer.agents, device=options.device)
    seeds = seeds_of(0, Purpose.TRIAL, games, device=options.device)

    def finished() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    with torch.no_grad():
        start = rollout.start(seeds)
        captured = CapturedRollout(rollout, start, experiment.steps)

        def plain() -> None:
            rollout.play(start, experiment.steps)
            finished()

        def replayed() -> None:
            captured.play(start)
            finished()

        # Steps of learners; the scripted seats, a third, come on top.
        agent_steps = int((seating.seats < len(trainer.agents)).sum()) * experiment.steps
        plainly, replaying = seconds(plain, options.repeats), seconds(replayed, options.repeats)
        after, log = captured.play(start)
        lived = trajectories(rollout, start, log, after)
    how = "in a CUDA graph" if options.device == "cuda" else "on fixed tensors"
    print(f"rollout step by step: {agent_steps / plainly:,.0f} learners' steps/s; {how}: {agent_steps / replaying:,.0f}")

    def learn() -> None:
        for learner, agent in trainer.agents.items():
            trainer.learn(learner, agent, lived[learner])
        finished()

    learned = sum(rows.reward.numel() for rows in lived.values())
    learning = seconds(learn, options.repeats)
    print(f"update (two epochs): {learned / learning:,.0f} learners' steps/s")
    print(f"rollout and update: {agent_steps / (replaying + learning):,.0f} learners' steps/s")
    if options.device == "cuda":
        print(f"peak memory on the GPU: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.exit(main())
