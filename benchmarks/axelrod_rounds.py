"""Rounds of the prisoner's dilemma between two scripts, tit-for-tat and random, in our rollout and in a match of the Axelrod library."""

from __future__ import annotations

import sys

import torch

from agents.co_players.axelrod import library
from agents.co_players.tables import random, tit_for_tat
from benchmarks.measure import seconds, verdict
from envs.iterated_dilemma import prisoners_dilemma
from training.allocator import keep_freed_memory
from training.rollout import Rollout
from training.seating import one_table

BATCH, ROUNDS, MATCHES = 32_768, 100, 100


def main() -> bool:
    keep_freed_memory()
    axelrod = library()
    match = axelrod.Match((axelrod.TitForTat(), axelrod.Random()), turns=ROUNDS, seed=1)
    names = ("tit_for_tat", "random")
    rollout = Rollout(prisoners_dilemma(), one_table(names, BATCH), {"tit_for_tat": tit_for_tat(), "random": random()})
    table = rollout.start(torch.arange(BATCH))

    def play_theirs() -> None:
        for _ in range(MATCHES):
            match.play()

    theirs = MATCHES * ROUNDS / seconds(play_theirs, 9)
    ours = BATCH * ROUNDS / seconds(lambda: rollout.play(table, ROUNDS), 9)
    print(f"a match of Axelrod's: {theirs:,.0f} rounds/s; our rollout of {BATCH:,}: {ours:,.0f} rounds/s", flush=True)
    return verdict("our rollout plays", ours / theirs, 100, "times Axelrod's rounds")


if __name__ == "__main__":
    sys.exit(not main())
