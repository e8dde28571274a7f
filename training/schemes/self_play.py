"""Learners among themselves, in a game of any number of roles and seats."""

from __future__ import annotations

from dataclasses import dataclass

from envs.game import Game, seats_of
from training.seating import Seating, one_table


@dataclass(frozen=True)
class SelfPlay:
    """shares_weights: one learner for all seats of a role; otherwise one for each seat."""

    shares_weights: bool = True

    def learners(self, game: Game) -> tuple[str, ...]:
        count = len(game.roles) if self.shares_weights else len(list(seats_of(game)))
        return tuple(f"learner_{number}" for number in range(count))

    def co_players(self, game: Game) -> tuple[str, ...]:
        return ()

    def seat(self, game: Game, trials: int, iteration: int) -> Seating:
        names = self.learners(game)
        roles = [role.name for role in game.roles]
        by_seat = [names[roles.index(role.name)] for _, role, _ in seats_of(game)] if self.shares_weights else names
        return one_table(tuple(by_seat), trials, "learner")


def self_play() -> SelfPlay:
    """One learner per role, in all of its seats: they share weights."""
    return SelfPlay()


def independent() -> SelfPlay:
    """One learner per seat, each with weights of its own."""
    return SelfPlay(shares_weights=False)
