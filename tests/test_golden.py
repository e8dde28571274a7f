"""Readable playthroughs of every game, and the settings, as files: a change shows up in review.

Write them anew, on purpose, with COTERIE_WRITE_GOLDEN=1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from envs import GAMES
from envs.donor_game import DonorGame
from envs.face import make_game
from envs.game import seats_of
from envs.iterated_dilemma import IteratedDilemma
from envs.referential import Referential
from tests.games import AnyLegal, told
from training import tree
from training.experiment import Experiment
from training.population import co_player
from training.rollout import Rollout
from training.seating import one_table
from training.settings import to_json

GOLDEN = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("COTERIE_WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.is_file(), f"there is no {file.name} yet; COTERIE_WRITE_GOLDEN=1 writes it, to be read and kept"
    assert file.read_text() == text, f"{file.name} has changed; if that is meant, COTERIE_WRITE_GOLDEN=1 writes it anew"


DILEMMAS = [name for name in GAMES if isinstance(make_game(name), IteratedDilemma)]


@pytest.mark.parametrize("name", DILEMMAS)
def test_playthrough(name: str) -> None:
    """Tit-for-tat in the first seat, a coin in the second."""
    game = make_game(name)
    rollout = Rollout(
        game, one_table(("tit_for_tat", "random"), 1), {n: co_player(n) for n in ("tit_for_tat", "random")}, watched=None, keeps_states=True
    )
    table = rollout.start(torch.tensor([1]))
    _, log = rollout.play(table, 8)
    lines = [game.describe(table.game, 0).text]
    for step in range(8):
        lines.append(game.describe(tree.rows_of(log.game, step), 0).text)
        seen = {field: values[step, 0].item() for field, values in log.observations[0].items()}
        lines.append(f"    tit_for_tat saw {seen}")
    assert_golden(f"{name}.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("name", [name for name in GAMES if name not in DILEMMAS])
def test_playthrough_of_anything_legal(name: str) -> None:
    """What a replay would say of eight steps in which everyone acts at random, or of all where what counts comes last.

    Playthroughs with scripts are in the games' own tests.
    """
    game = make_game(name)
    seats = tuple(role.name for _, role, _ in seats_of(game))
    occupants = {role.name: AnyLegal(role) for role in game.roles}
    steps = game.max_steps if isinstance(game, (Referential, DonorGame)) else min(8, game.max_steps)
    lines = told(game, seats, occupants, torch.tensor([1]), steps)
    assert_golden(f"{name}.txt", "\n".join(lines) + "\n")


def is_taught(name: str) -> bool:
    """Whether a game has answers that take a while, but not minutes."""
    game = make_game(name)
    return 8 < game.max_steps < 150 and hasattr(game, "answers") and not isinstance(game, Referential)


TAUGHT = [name for name in GAMES if is_taught(name)]


@pytest.mark.parametrize("name", TAUGHT)
def test_playthrough_of_who_follows_the_answers(name: str) -> None:
    """A whole trial: what a replay would say, and every reward that is not 0."""
    game = make_game(name)
    state, lines = game.start(torch.tensor([1])), []
    for _ in range(game.max_steps):
        lines.append(game.describe(state, 0).text)
        answers = game.answers(state)
        state, turn = game.step(state, {role: torch.where(answer.asked, answer.action, 0) for role, answer in answers.items()})
        lines += [
            f"    {role} gets {[round(number, 3) for number in reward[0].tolist()]}"
            for role, reward in turn.rewards.items()
            if reward.any()
        ]
        if turn.over.all():
            break
    assert turn.over.all()
    lines.append(game.describe(state, 0).text)
    assert_golden(f"taught_{name}.txt", "\n".join(lines) + "\n")


def test_the_settings_and_their_defaults() -> None:
    assert_golden("settings.json", json.dumps(to_json(Experiment()), indent=1) + "\n")
