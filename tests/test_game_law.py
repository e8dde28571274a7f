"""`envs.law`: every game keeps to it, and whoever does not is told where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from envs import GAMES
from envs.iterated_dilemma import IteratedDilemma
from envs.law import check_game
from training.settings import load


@pytest.mark.parametrize("name", GAMES)
def test_every_game_keeps_to_it(name: str) -> None:
    before = torch.random.get_rng_state()
    check_game(load(GAMES[name])())
    assert torch.equal(torch.random.get_rng_state(), before)


@dataclass(frozen=True)
class Wrong(IteratedDilemma):
    """what: is not as it should be."""

    rounds: int = 4
    what: str = ""

    def observe(self, state: Any) -> Any:
        shown = super().observe(state)
        field = {"flat": shown["player"]["outcome"][:, 0], "real": shown["player"]["outcome"].float()}.get(self.what)
        if field is not None:
            return {"player": {"outcome": field}}
        return {"player": {"outcom": shown["player"]["outcome"]}} if self.what == "named" else {} if self.what == "blind" else shown

    def step(self, state: Any, actions: Any) -> Any:
        after, turn = super().step(state, actions)
        rewards, over = turn.rewards["player"], turn.over
        changed = {
            "narrow": {"rewards": {"player": rewards[:, 0]}},
            "whole": {"rewards": {"player": rewards.long()}},
            "unpaid": {"rewards": {}},
            "listed": {"rewards": {"player": rewards.tolist()}},
            "endless": {"over": torch.zeros_like(over)},
            "counted": {"over": over.long()},
            "measured": {"measures": {"cooperation": torch.zeros(3)}},
        }
        return after, turn._replace(**changed.get(self.what, {}))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("flat", r"outcome of player has shape \[2\]; want \[2, 2\], for 2 games"),
        ("real", "outcome of player is torch.float32; want whole numbers"),
        ("named", "player is shown outcom; its observation_space has outcome"),
        ("blind", "player is shown nothing; its observation_space has outcome"),
        ("narrow", r"rewards of player has shape \[2\]; want \[2, 2\], for 2 games"),
        ("whole", "rewards of player is torch.int64; want floating point"),
        ("unpaid", r"rewards of player: NoneType; want a tensor of shape \[2, 2\]"),
        ("listed", r"rewards of player: list; want a tensor of shape \[2, 2\]"),
        ("endless", "no episode is over after 4 steps; want all to end by max_steps"),
        ("counted", "over is torch.int64; want bool"),
        ("measured", r"measure cooperation has shape \[3\]; want \[2\] or \[2, 2\], for 2 games"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_game(Wrong(what=what))


def test_who_does_nothing_wrong_is_let_through() -> None:
    check_game(Wrong())
