"""Experiments, rollouts, losses, runs, evaluation and replay."""
