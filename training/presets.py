"""Complete, named experiments. Each says what it trains, on what machine, how long, and the result it promises.

`PRESETS` names them, as `module:function`. A variant edits another's result with `dataclasses.replace`.
"""

from __future__ import annotations

from dataclasses import replace

from agents.agent import AgentConfig
from envs.iterated_dilemma import prisoners_dilemma
from memory.gru import GRUConfig
from training.algorithms import PPO
from training.experiment import Experiment
from training.schemes.mixture import best_response, mixed_pool
from training.schemes.self_play import independent

PRESETS: dict[str, str] = {
    "ipd_in_context_quick": "training.presets:ipd_in_context_quick",
    "ipd_mixed_pool_quick": "training.presets:ipd_mixed_pool_quick",
    "two_learners": "training.presets:two_learners",
}


def ipd_mixed_pool_quick() -> Experiment:
    """The mixed pool of Weis et al. 2026 in three minutes.

    Two learners (a GRU of 32 each), half of their trials against each other, half against random tables; three to four minutes on two
    cores. Promise, for each learner of every seed, on luck that no run trains on: it tells co-players apart within the trial. Cooperation
    against tit-for-tat above 0.15 (0.18 to 0.56 on seeds 0 to 2), against always-defect and always-cooperate below 0.02 (at most 0.006);
    reward per round against unseen tables above 0.93 (0.958 to 0.965). Learners do not come to cooperate with each other in this time.
    Departures from the paper: docs/results.md.
    """
    return Experiment(
        preset="ipd_mixed_pool_quick",
        game=prisoners_dilemma(),
        agent=AgentConfig(memory=GRUConfig(32)),
        scheme=mixed_pool(),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            # Defection pays at once, reciprocity later and only against some: without this much entropy at first, exploration dies out in
            # twenty iterations and what remains is always-defect.
            entropy_coefficient=0.3,
            final_entropy_coefficient=0.1,
            # A co-player's answer comes within a few rounds. A short horizon lets its share of the return be heard above the noise.
            discount=0.9,
            trace=0.8,
            reward_scale=0.2,
        ),
        trials=768,
        iterations=450,
    )


def ipd_in_context_quick() -> Experiment:
    """In-context best response to random tables, the first step of Weis et al. 2026, in eight minutes.

    One learner (a GRU of 32) against tables drawn anew for every trial. Nothing tells it whom it meets: it must find out by playing.
    """
    quick = ipd_mixed_pool_quick()
    return replace(
        quick,
        preset="ipd_in_context_quick",
        scheme=best_response(),
        # Much entropy for long, as in `ipd_mixed_pool_quick`, but down to where what is left of it costs little against tables.
        algorithm=replace(quick.algorithm, final_entropy_coefficient=0.05),
        iterations=1400,
    )


def two_learners() -> Experiment:
    """Two learners with weights of their own on any game: the place to start with `game=...`. It promises nothing but to run."""
    return Experiment(preset="two_learners", scheme=independent(), trials=256, iterations=50, suite="together")
