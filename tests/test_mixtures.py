"""Pools of co-players as people write them: weights, settings, agents, directories of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.co_players.tables import RandomTable, extortion, tit_for_tat
from envs.iterated_dilemma import IteratedDilemma
from training.experiment import Experiment
from training.population import co_player, members, runs_foreign_code, save_agent
from training.schemes.mixture import best_response, mixed_pool, weighted
from training.settings import BadInput, override, split_outside_brackets

GAME = IteratedDilemma(rounds=4)


@pytest.fixture
def population(tmp_path: Path) -> Path:
    for name in ("learner_0", "learner_1", "learner_2"):
        agent = Experiment(game=GAME, scheme=best_response()).build_learners()["learner_0"]
        save_agent(agent, tmp_path / "my_run" / "population" / name)
    return tmp_path / "my_run" / "population"


def test_shares_follow_the_weights() -> None:
    assert weighted("random_table+2*tit_for_tat+extortion:slope=3") == [
        ("random_table", "random_table", 0.25),
        ("tit_for_tat", "tit_for_tat", 0.5),
        ("extortion:slope=3", "extortion:slope=3", 0.25),
    ]


def test_a_directory_of_agents_shares_its_weight_and_is_one_kind(population: Path) -> None:
    terms = weighted(f"random_table+{population}")
    assert [share for _, _, share in terms] == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert [name for name, _, _ in terms[1:]] == [str(population / f"learner_{k}") for k in range(3)]
    assert {kind for _, kind, _ in terms[1:]} == {"my_run"}


def test_games_are_dealt_out_in_proportion(population: Path) -> None:
    scheme = mixed_pool(co_players=f"3*tit_for_tat+{population}/learner_1")
    seating = scheme.seat(GAME, 1200, 0)
    sitters = {name: int((seating.seats == number).sum()) for number, name in enumerate(seating.occupants)}
    assert sitters == {"learner_0": 800, "learner_1": 800, "tit_for_tat": 600, f"{population}/learner_1": 200}


def test_a_mixture_from_the_command_line_trains_against_frozen_agents(population: Path) -> None:
    experiment = override(Experiment(game=GAME, trials=8), f"scheme=best_response:0.5*random_table:a=2,b=3+0.5*{population}")
    names = experiment.scheme.co_players(GAME)
    assert names[0] == "random_table:a=2,b=3"
    assert len(names) == 4
    assert co_player(names[0]) == RandomTable(a=2.0, b=3.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0*tit_for_tat", "no co-player with a weight above 0"),
        ("x*tit_for_tat", "no co-player is called 'x\\*tit_for_tat'"),
        ("tit_for_tat+", "no co-player with a weight above 0"),
        ("1.2.3*tit_for_tat", "no co-player with a weight above 0"),
        ("runs/nobody", "runs/nobody is no agent"),
    ],
)
def test_a_wrong_mixture_is_named(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        [co_player(name) for name, _, _ in weighted(text)]


def test_a_directory_without_agents_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no agent, no run and no directory of agents"):
        members(tmp_path)


def test_settings_of_a_co_player_are_read_as_what_they_are() -> None:
    assert co_player("extortion:slope=3") == extortion(slope=3.0)
    assert co_player("table:cooperates=[1,1,0,1,0]") == tit_for_tat()
    assert co_player("random_table:a=[2,1,1,1,1],b=2") == RandomTable(a=(2.0, 1.0, 1.0, 1.0, 1.0), b=2.0)
    assert co_player("cycler:pattern=CD").cooperates == (1.0, 0.0)


def test_commas_inside_brackets_separate_nothing() -> None:
    assert split_outside_brackets("a=[1,2],b=(3,4),c", ",") == ["a=[1,2]", "b=(3,4)", "c"]
    assert split_outside_brackets("", ",") == []


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("my_module:Policy", True),
        ("package.module:things.Policy", True),
        ("extortion:slope", False),
        ("axelrod:Tit", False),
        ("runs/a:b", False),
        ("tit_for_tat", False),
    ],
)
def test_what_would_run_somebody_elses_code_is_known_by_its_form(name: str, foreign: bool) -> None:
    assert runs_foreign_code(name) is foreign
