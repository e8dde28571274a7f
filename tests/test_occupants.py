"""Who is refused before anything starts: scripts that read, do or suppose what is not the game's, and a suite's own co-players."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from agents.occupant import Decision
from envs.commons import Commons
from envs.diagnostics.sorting import Sorting
from envs.donor_game import DonorGame
from envs.game import ACTION_MASK, Observation, Role, seat_count
from envs.iterated_dilemma import IteratedDilemma
from envs.referential import Referential
from training.foreign import Foreign
from training.occupants import _check_game, check, check_fits
from training.population import co_player
from training.presets import PRESETS, commons_quick, referential_quick, two_learners
from training.rollout import Rollout
from training.seating import one_table
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


class Counts:
    """Somebody's policy that starts anew with every episode: counts an episode's steps, and notes them and what it earned before each."""

    forgets_episodes = True

    def __init__(self) -> None:
        self.noted: list[tuple[int, float]] = []

    def start(self, seeds: Tensor) -> Tensor:
        return torch.zeros_like(seeds)

    def act(self, observation: Observation, state: Tensor, reward: Tensor) -> tuple[Decision, Tensor]:
        self.noted.append((int(state[0]), float(reward[0])))
        return Decision(torch.zeros_like(state)), state + 1


def test_somebodys_policy_that_forgets_episodes_starts_each_with_nothing_earned() -> None:
    policy = Counts()
    rollout = Rollout(IteratedDilemma(rounds=3), one_table(("me", "me"), 1), {"me": Foreign("my_module:policy", policy)}, episodes=2)
    rollout.play(rollout.start(torch.tensor([5])), 6)
    # Both cooperate, and have 1 each time.
    assert policy.noted == [(0, 0.0), (1, 1.0), (2, 1.0)] * 2


def test_what_somebodys_policy_says_it_does_is_compared_with_the_game() -> None:
    policy = Counts()
    policy.acts = 3  # type: ignore[attr-defined]
    foreign = Foreign("my_module:policy", policy)
    with pytest.raises(BadInput, match=r"'my_module:policy' cannot play this game: it acts in Discrete\(3\); player acts in Discrete\(2\)"):
        check_fits("my_module:policy", foreign, IteratedDilemma().roles[0], IteratedDilemma())
    assert foreign.acts == 3  # type: ignore[attr-defined]
    assert not hasattr(foreign, "cooperates_in")


@pytest.mark.parametrize(("gives", "fits"), [(0.5, True), (1.5, False)])
def test_somebodys_policy_is_held_to_the_role_that_it_plays(gives: float, fits: bool) -> None:
    class Gives(Counts):
        def act(self, observation: Observation, state: Tensor, reward: Tensor) -> tuple[Decision, Tensor]:
            return Decision(torch.full(state.shape, gives)), state

    game = DonorGame()
    # Nobody has been asked whether it fits.
    rollout = Rollout(game, one_table(("me",) * seat_count(game), 2), {"me": Foreign("my_module:policy", Gives())})
    begun = rollout.start(torch.tensor([5, 6]))
    if fits:
        rollout.play(begun, 1)
    else:
        with pytest.raises(
            BadInput, match=r"my_module:policy\.act gave torch\.float32 actions from 1\.5 to 1\.5; want what is allowed in Box"
        ):
            rollout.play(begun, 1)


@dataclass(frozen=True)
class Strict(Sorting):
    """Takes no illegal move."""

    def step(self, state: Any, actions: Any) -> Any:
        shown = self.observe(state)[self.roles[0].name][ACTION_MASK]
        assert bool(shown.gather(-1, actions[self.roles[0].name][..., None]).all()), "an illegal move"
        return super().step(state, actions)


@dataclass(frozen=True)
class Short(IteratedDilemma):
    """Over after one round, though it may last three steps; nobody may go on."""

    @property
    def max_steps(self) -> int:
        return 3

    def step(self, state: Any, actions: Any) -> Any:
        assert not bool((state.step >= 1).any()), "stepped after the end"
        after, turn = super().step(state, actions)
        return after, turn._replace(over=torch.ones_like(turn.over))


@pytest.mark.parametrize("game", [Strict(), Short()])
def test_a_game_of_somebodys_is_tried_with_what_it_allows_and_not_after_its_end(game: Any) -> None:
    _check_game(game)
