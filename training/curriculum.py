"""A curriculum: one setting of the game rises as play goes well, from 2 to 3 to 4, up to the value that the game has.

So what is evaluated in the end is the experiment's own game, and what is played until then is easier. With a game that is as hard as its
setting says this is the "single" curriculum of Khajehabdollahi et al. 2024 (arXiv 2309.12927); with one that draws each episode from all
that is as hard or easier (`game.curriculum=many`) it is their "cumulative" one. They want 0.98, on average and of the hardest alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.settings import BadInput


@dataclass(frozen=True)
class Curriculum:
    """raises: a setting of the game that is a whole number; "" for none, and then the game stays as it is. first: its value at first.
    measures, above: it rises by 1 after an iteration in which each of these measures was above this, for every learner against every kind
    of co-player.
    """

    raises: str = ""
    first: int = 2
    measures: tuple[str, ...] = ("correct",)
    above: float = 0.98

    def __post_init__(self) -> None:
        if self.raises and not self.measures:
            raise ValueError("curriculum.measures is empty; want at least one, such as correct")

    @property
    def start(self) -> int | None:
        """The first stage: the setting's value, None where there is none."""
        return self.first if self.raises else None

    def check_fits(self, game: Any) -> None:
        """Raises ValueError where the game has no such setting, or where spaces or seats would change with it."""
        if not self.raises:
            return
        numbers = [field.name for field in dataclasses.fields(game) if type(getattr(game, field.name)) is int]
        if self.raises not in numbers:
            there = f"those of this game are {', '.join(numbers)}" if numbers else "this game has none"
            raise ValueError(f"curriculum.raises is {self.raises!r}; want a setting that is a whole number: {there}")
        last = getattr(game, self.raises)
        if self.first > last:
            raise ValueError(f"curriculum.first is {self.first}; want at most game.{self.raises}, {last}, up to which it rises")
        if self.game_at(game, self.first).roles != game.roles:
            raise ValueError(f"curriculum.raises is {self.raises!r}, and with it what is seen or done would change; want another setting")

    def game_at(self, game: Any, stage: int | None) -> Any:
        return game if stage is None else dataclasses.replace(game, **{self.raises: stage})

    def after(self, stage: int | None, game: Any, tally: Mapping[str, tuple[float, float]]) -> int | None:
        """The next iteration's stage. tally: {name: (sum, count)} of this one's first trials, by the names of `training.metrics`.

        Raises BadInput where there is no such measure, which nobody knows before something was played.
        """
        if stage is None:
            return None
        is_high = True
        for measure in self.measures:
            found = [figure for name, figure in tally.items() if name.startswith(f"{measure}/") and "/vs_" in name]
            if not found:
                there = sorted({name.split("/")[0] for name in tally if "/vs_" in name})
                raise BadInput(f"curriculum.measures has {measure!r}; what is measured in this game is {', '.join(there)}")
            is_high &= all(count > 0 and total / count > self.above for total, count in found)
        return stage + 1 if is_high and stage < getattr(game, self.raises) else stage
