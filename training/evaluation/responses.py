"""Best responses that are trained: against co-players whose best response is not known exactly, and against a contender, to exploit it.

A trained response is a lower bound: whoever trains longer, or better, may find more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.agent import AgentConfig
from agents.occupant import Occupant
from envs.chance import Purpose, seeds_of
from memory.gru import GRUConfig
from training.algorithms import PPO
from training.evaluation.contenders import Entrants
from training.evaluation.play import figures_of, play
from training.evaluation.statistics import bootstrap, figure, mean_of
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.schemes.mixture import Mixture, Pairing

if TYPE_CHECKING:
    from training.evaluation.evaluate import Outcome

# What every response is trained with, so that figures compare.
TRIALS = 256
LEARNER = AgentConfig(GRUConfig(32))
ALGORITHM = PPO(
    learning_rate=0.005,
    final_learning_rate=0.001,
    entropy_coefficient=0.2,
    final_entropy_coefficient=0.01,
    discount=0.95,
    trace=0.9,
    reward_scale=0.2,
)


def trained_response(entrants: Entrants, co_player: Occupant, iterations: int, seed: int) -> Occupant:
    """A fresh learner that has played `iterations` times 256 trials against this co-player alone."""
    experiment = Experiment(
        preset="response",
        game=entrants.experiment.game,
        episodes=entrants.experiment.episodes,
        agent=LEARNER,
        algorithm=ALGORITHM,
        scheme=Mixture(("responder",), (Pairing(("responder", "co_player"), "co_player"),)),
        trials=TRIALS,
        iterations=iterations,
        seed=seed,
    )
    trainer = PlainTrainer(experiment, {"co_player": co_player})
    for _ in range(iterations):
        trainer.train()
    return trainer.agents["responder"].eval()


def exploitability(entrants: Entrants, trials: int, iterations: int, seed: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Per contender: what a fresh learner that trains against each member comes to earn from it, what the contender is left with, and
    `exploitability`, the learner's reward less what the contender earns against a copy of itself.
    """
    rows = []
    game, episodes = entrants.experiment.game, entrants.experiment.episodes
    seeds = seeds_of(seed, Purpose.EVALUATION, trials)
    count = sum(len(contender.members) for contender in entrants.contenders)
    begun = itertools.count(1)
    for contender in entrants.contenders:
        earned, left, alone = [], [], []
        for number, member in enumerate(contender.members):
            say(f"a fresh learner trains against {contender.name}, {next(begun)} of {count}")
            occupants = {"exploiter": trained_response(entrants, member.occupant, iterations, seed + number), "victim": member.occupant}
            figures = figures_of(game, play(game, episodes, ("exploiter", "victim"), (0,), occupants, seeds))
            copies = {"victim": member.occupant, "copy": member.occupant}
            own = figures_of(game, play(game, episodes, ("victim", "copy"), (0,), copies, seeds))
            earned.append(mean_of(figures["reward"].astype(float), 1))
            left.append(mean_of(figures["other_reward"].astype(float), 1))
            alone.append(mean_of(own["reward"].astype(float), 1))
        rows.append(
            {
                "agent": contender.name,
                "iterations": iterations,
                "trials_per_iteration": TRIALS,
                "exploiter_reward": bootstrap(np.stack(earned))._asdict(),
                "agent_reward": bootstrap(np.stack(left))._asdict(),
                "copy_reward": bootstrap(np.stack(alone))._asdict(),
                "exploitability": bootstrap(np.stack(earned) - np.stack(alone))._asdict(),
            }
        )
    return rows


def fill_gaps(
    entrants: Entrants, outcomes: list[Outcome], results: dict[str, Any], iterations: int, seed: int, say: Callable[[str], None]
) -> None:
    """`trained_response_gap` for every scenario without an exact best response: a trained response's reward less the contender's."""
    game, episodes = entrants.experiment.game, entrants.experiment.episodes
    found: dict[str, Any] = {}
    for outcome, row in zip(outcomes, results["scenarios"], strict=True):
        played = outcome.played[0]
        if "best_response_gap" in row["figures"] or len(played.seats) != 1 or outcome.co_player is None:
            continue
        name = outcome.scenario.name
        if name not in found:
            say(f"a fresh learner trains against {name}")
            seeds = seeds_of(seed, Purpose.EVALUATION, outcome.figures["reward"].shape[1])
            responder = trained_response(entrants, outcome.co_player, iterations, seed)
            people = {"responder": responder, "co_player": outcome.co_player}
            figures = figures_of(game, play(game, episodes, ("responder", "co_player"), (0,), people, seeds))
            found[name] = mean_of(figures["reward"].astype(float), 1)
        gap = found[name] - mean_of(outcome.figures["reward"].astype(float), 2)
        row["figures"]["trained_response_gap"] = figure(gap)
