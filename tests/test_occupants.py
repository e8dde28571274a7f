"""Who is refused before anything starts: scripts that read, do or suppose what is not the game's, and a suite's own co-players."""

from __future__ import annotations

import gymnasium as gym
import pytest

from envs.commons import Commons
from envs.game import Role
from envs.referential import Referential
from training.occupants import check, check_fits
from training.population import co_player
from training.presets import PRESETS, commons_quick, referential_quick, two_learners
from training.settings import BadInput, load, override


class Fixed:
    """A script of which only `acts` counts."""

    def __init__(self, acts: gym.Space | int) -> None:
        self.acts = acts


TEN = gym.spaces.Discrete(10)
UNIT = gym.spaces.Box(0, 1, ())


@pytest.mark.parametrize(
    ("space", "acts", "fits"),
    [
        (TEN, 10, True),
        (TEN, 4, True),
        (TEN, 11, False),
        (TEN, gym.spaces.Discrete(4, start=1), False),
        (TEN, UNIT, False),
        (gym.spaces.MultiDiscrete([5, 4, 4]), gym.spaces.MultiDiscrete([5, 2, 4]), True),
        (gym.spaces.MultiDiscrete([5, 4, 4]), gym.spaces.MultiDiscrete([5, 4, 5]), False),
        (gym.spaces.MultiDiscrete([5, 4, 4]), gym.spaces.MultiDiscrete([5, 4]), False),
        (UNIT, gym.spaces.Box(0, 1, ()), True),
        (UNIT, gym.spaces.Box(-1, 1, ()), False),
    ],
)
def test_a_script_may_do_less_than_the_role_but_nothing_else(space: gym.Space, acts: gym.Space | int, fits: bool) -> None:
    role = Role("player", 2, gym.spaces.Dict(), space)
    if fits:
        check_fits("fixed", Fixed(acts), role)
    else:
        with pytest.raises(BadInput, match=r"'fixed' cannot play this game: it acts in .*; player acts in "):
            check_fits("fixed", Fixed(acts), role)


@pytest.mark.parametrize("setting", ["limit=5.0", "capacity=200.0", "levels=21"])
def test_training_among_scripts_of_another_commons_is_refused(setting: str) -> None:
    with pytest.raises(BadInput, match=f"'conditional_harvester:keeps=0.6' cannot play this game: its .*; want {setting}$"):
        check(override(commons_quick(), f"game.{setting}"))


def test_a_script_of_another_game_gets_no_advice() -> None:
    game = Commons()
    with pytest.raises(BadInput, match=r"it reads target as numbers of shape \(5,\); the game shows Dict\(.*\)$"):
        check_fits("simulated_person", co_player("simulated_person"), game.roles[0], game)


def test_a_vocabulary_too_small_for_the_suites_people_is_found_before_training() -> None:
    experiment = override(override(two_learners(), "game=referential"), "suite=referential")
    check(experiment, evaluates=True)
    too_small = override(experiment, "game.vocabulary=20")
    check(too_small)
    with pytest.raises(BadInput, match=r"^simulated_person: vocabulary is 20; English about values .* want at least that$"):
        check(too_small, evaluates=True)


def test_a_vocabulary_too_small_for_the_schemes_people_is_named() -> None:
    with pytest.raises(BadInput, match=r"^'simulated_person:\S+' cannot play this game: vocabulary is 9; English .* want at least that$"):
        check(override(referential_quick(), "game.vocabulary=9"))


def test_people_of_a_smaller_vocabulary_are_refused_with_the_setting_to_give() -> None:
    game = Referential(vocabulary=120)
    with pytest.raises(BadInput, match=r"it reads action_mask as numbers of shape \(100,\); .*; want vocabulary=120$"):
        check_fits("simulated_person", co_player("simulated_person"), game.roles[0], game)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_and_its_suite_are_let_through(preset: str) -> None:
    check(load(PRESETS[preset])(), evaluates=True)
