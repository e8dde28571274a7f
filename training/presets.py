"""Complete, named experiments. Each says what it trains, on what machine, how long, and the result it promises.

`PRESETS` names them, as `module:function`. A variant edits another's result with `dataclasses.replace`.
"""

from __future__ import annotations

from envs.iterated_dilemma import prisoners_dilemma
from training.algorithms import PPO
from training.experiment import Experiment
from training.schemes.mixture import mixed_pool
from training.schemes.self_play import independent

PRESETS: dict[str, str] = {
    "ipd_mixed_pool_quick": "training.presets:ipd_mixed_pool_quick",
    "two_learners": "training.presets:two_learners",
}


def ipd_mixed_pool_quick() -> Experiment:
    """The mixed pool of Weis et al. 2026 in three minutes."""
    return Experiment(
        preset="ipd_mixed_pool_quick",
        game=prisoners_dilemma(),
        scheme=mixed_pool(),
        algorithm=PPO(),
        trials=768,
        iterations=300,
    )


def two_learners() -> Experiment:
    """Two learners with weights of their own on any game: the place to start with `game=...`. It promises nothing but to run."""
    return Experiment(preset="two_learners", scheme=independent(), trials=256, iterations=50, suite="together")
