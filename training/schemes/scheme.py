"""What every scheme is: who meets whom, and who learns."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from envs.game import Game
from training.seating import Seating


@runtime_checkable
class Scheme(Protocol):
    """A frozen dataclass. `seat` is a pure function, so that any machine can work out its part of an iteration."""

    def learners(self, game: Game) -> tuple[str, ...]:
        """Those who learn."""

    def co_players(self, game: Game) -> tuple[str, ...]:
        """Names of the others: of `CO_PLAYERS`, or paths of trained agents."""

    def seat(self, game: Game, trials: int, iteration: int) -> Seating:
        """Who sits where in this iteration's games."""
