"""Contracts that every game keeps: those of `GAMES`, and small ones of every shape that is to come."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test, seed_test

from agents.agent import AgentConfig
from envs import GAMES
from envs.chance import uniform
from envs.face import SingleSeatEnv, aec_env, draw, make_game, parallel_env, register_single_seat_games
from envs.game import ACTION_MASK, Game, seat_count, seats_of
from memory.gru import GRUConfig
from tests.games import SHAPES
from training import tree
from training.experiment import Experiment
from training.plain import PlainTrainer
from training.schemes.self_play import SelfPlay


def with_small_pictures(game: Any) -> Any:
    """What a room looks like takes long to compute; its rules are the same however large the picture."""
    return dataclasses.replace(game, size=16) if type(game).__module__.startswith("envs.rooms3d") else game


EVERY_GAME: dict[str, Any] = {name: with_small_pictures(make_game(name)) for name in GAMES} | SHAPES
every_game = pytest.mark.parametrize("game", EVERY_GAME.values(), ids=EVERY_GAME.keys())
quietly = [
    # PettingZoo's test would rather see arrays than Dict observations and symbols; both are allowed.
    pytest.mark.filterwarnings("ignore:Observation is not a NumPy array"),
    pytest.mark.filterwarnings("ignore:Observation space for each agent probably should be"),
    pytest.mark.filterwarnings("ignore:Action space for each agent probably should be"),
    pytest.mark.filterwarnings("ignore:Agents have different .* space sizes"),
    # A step at which a lone field shows nothing, as in the flip-flop.
    pytest.mark.filterwarnings("ignore:Observation numpy array is all zeros"),
    pytest.mark.filterwarnings("ignore:Agent's minimum observation space value is -infinity"),
    pytest.mark.filterwarnings("ignore:Agent's maximum observation space value is infinity"),
]


def some_actions(game: Game, state: Any, step: int) -> dict[str, torch.Tensor]:
    """Legal actions that differ between games, seats and steps."""
    actions = {}
    for role in game.roles:
        batch = len(state.seed)
        seats = torch.arange(role.seats)
        draws = uniform(state.seed[:, None], step, seats)
        space = role.action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            chosen = (draws * int(space.n)).long()
            mask = game.observe(state)[role.name].get(ACTION_MASK)
            if mask is not None:
                chosen = torch.where(mask.gather(-1, chosen[..., None])[..., 0] == 1, chosen, mask.argmax(-1))
        elif isinstance(space, gymnasium.spaces.MultiDiscrete):
            draws = uniform(state.seed[:, None, None], step, seats[:, None], torch.arange(len(space.nvec)))
            chosen = (draws * torch.as_tensor(space.nvec)).long()
        else:
            draws = uniform(state.seed[:, None, None], step, seats[:, None], torch.arange(math.prod(space.shape)))
            chosen = draws.reshape(batch, role.seats, *space.shape)
        actions[role.name] = chosen
    return actions


def play(game: Game, seeds: torch.Tensor) -> list[tuple[Any, Any, Any]]:
    """(state, observation, turn) of every step until max_steps, without regard to rows that are over."""
    state, steps = game.start(seeds), []
    for step in range(game.max_steps):
        observation = game.observe(state)
        after, turn = game.step(state, some_actions(game, state, step))
        steps.append((state, observation, turn))
        state = after
    return steps


@every_game
def test_is_a_game(game: Game) -> None:
    assert isinstance(game, Game)
    assert len({role.name for role in game.roles}) == len(game.roles)


@every_game
def test_a_batch_equals_its_games_alone(game: Game) -> None:
    seeds = torch.tensor([-7, 2**62])
    together = [tree.named_leaves(step) for step in play(game, seeds)]
    for row in range(len(seeds)):
        alone = play(game, seeds[row : row + 1])
        for whole, step in zip(together, alone, strict=True):
            single = tree.named_leaves(step)
            for name, leaf in whole.items():
                assert torch.equal(leaf[row : row + 1].nan_to_num(7), single[name].nan_to_num(7)), name


# Long enough for the ballet's question; rooms have shown everything by then.
STEPS_ON_A_GPU = 80
GPU = "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compares one with the CPU")
@every_game
def test_a_gpu_plays_what_a_cpu_plays(game: Game) -> None:
    seeds = torch.tensor([3, -7, 2**62, 5])
    here, there = game.start(seeds), game.start(seeds.to(GPU))
    for step in range(min(game.max_steps, STEPS_ON_A_GPU)):
        actions = some_actions(game, here, step)
        seen = tree.named_leaves(game.observe(there))
        for name, values in tree.named_leaves(game.observe(here)).items():
            assert_alike(seen[name], values, f"{name} before step {step + 1}")
        here, turn = game.step(here, actions)
        there, other = game.step(there, tree.map_leaves(lambda action: action.to(GPU), actions))
        played = tree.named_leaves(other)
        for name, values in tree.named_leaves(turn).items():
            assert_alike(played[name], values, f"{name} of step {step + 1}")


def assert_alike(there: torch.Tensor, here: torch.Tensor, what: str) -> None:
    """Symbols are the same, numbers up to rounding, and so are pictures save for a pixel here and there on an edge."""
    assert there.device.type == GPU, what
    if here.dtype == torch.uint8 and here.ndim > 3:
        far = (there.cpu().int() - here.int()).abs() > 2
        assert far.float().mean() < 0.01, what
    else:
        near = 1e-4 if here.is_floating_point() else 0.0
        torch.testing.assert_close(there.cpu(), here, rtol=near, atol=near, equal_nan=True, msg=lambda error: f"{what}: {error}")


@every_game
def test_old_states_stay_untouched(game: Game) -> None:
    state = game.start(torch.arange(4))
    before = copy.deepcopy(state)
    game.observe(state)
    game.step(state, some_actions(game, state, 0))
    for name, leaf in tree.named_leaves(before).items():
        assert torch.equal(leaf, tree.named_leaves(state)[name]), name


@every_game
def test_different_seeds_differ_or_the_game_has_no_chance(game: Game) -> None:
    first = play(game, torch.tensor([1]))
    again = play(game, torch.tensor([1]))
    for one, other in zip(first, again, strict=True):
        leaves = tree.named_leaves(other)
        for name, leaf in tree.named_leaves(one).items():
            assert torch.equal(leaf.nan_to_num(7), leaves[name].nan_to_num(7)), name


@every_game
def test_observations_lie_in_their_spaces(game: Game) -> None:
    for _, observation, _ in play(game, torch.arange(3)):
        for role in game.roles:
            assert set(observation[role.name]) == set(role.observation_space)
            for row in range(3):
                for seat in range(role.seats):
                    seen = {name: value[row, seat].numpy() for name, value in observation[role.name].items()}
                    seen = {
                        name: value[()] if isinstance(role.observation_space[name], gymnasium.spaces.Discrete) else value
                        for name, value in seen.items()
                    }
                    assert role.observation_space.contains(seen), (role.name, seen)


@every_game
def test_turns_have_the_right_shapes_and_end_in_time(game: Game) -> None:
    ever_over = torch.zeros(5, dtype=torch.bool)
    for _, _, turn in play(game, torch.arange(5)):
        for role in game.roles:
            assert turn.rewards[role.name].shape == (5, role.seats)
            assert turn.rewards[role.name].isfinite().all()
        for measure in turn.measures.values():
            assert measure.shape in ((5,), (5, seat_count(game)))
        ever_over |= turn.over
    assert ever_over.all()


@every_game
def test_people_can_read_and_see_it(game: Game) -> None:
    scene = game.describe(game.start(torch.arange(2)), 1)
    assert scene.text.strip()
    assert draw(scene, 64).shape == (64, 64, 3)


@pytest.mark.long
@every_game
def test_learners_train_on_it_as_it_is(game: Game) -> None:
    experiment = Experiment(
        game=game, scheme=SelfPlay(), trials=4, episodes=2, iterations=2, agent=AgentConfig(memory=GRUConfig(8), embedding=8)
    )
    trainer = PlainTrainer(experiment, {})
    before = {name: [p.clone() for p in agent.parameters()] for name, agent in trainer.agents.items()}
    trainer.train()
    for name, agent in trainer.agents.items():
        moved = [not torch.equal(old, new) for old, new in zip(before[name], agent.parameters(), strict=True)]
        assert any(moved), name
        assert all(p.isfinite().all() for p in agent.parameters())


class TestFace:
    pytestmark = quietly

    @every_game
    def test_parallel_env_passes_pettingzoos_tests(self, game: Game) -> None:
        parallel_api_test(parallel_env(game), num_cycles=30)
        parallel_seed_test(lambda: parallel_env(game), num_cycles=30)

    @every_game
    def test_aec_env_passes_pettingzoos_tests(self, game: Game) -> None:
        api_test(aec_env(game), num_cycles=30)
        seed_test(lambda: aec_env(game), num_cycles=30)

    @every_game
    def test_an_agents_info_is_what_the_game_measures_of_it(self, game: Game) -> None:
        environment = parallel_env(game)
        environment.reset(seed=5)
        seats = list(seats_of(game))
        for _ in range(12):
            actions = {seat: environment.action_space(seat).sample() for seat, _, _ in seats}
            batched: dict[str, list[Any]] = {}
            for seat, role, _ in seats:
                batched.setdefault(role.name, []).append(actions[seat])
            played = {name: torch.as_tensor(np.array([chosen])) for name, chosen in batched.items()}
            _, turn = game.step(environment._single.state, played)
            *_, infos = environment.step(actions)
            for place, (seat, _, _) in enumerate(seats):
                mine = {name: value[0] if value.dim() == 1 else value[0, place] for name, value in turn.measures.items()}
                assert infos[seat] == {name: value.item() for name, value in mine.items() if not value.isnan()}
            if turn.over[0]:
                break

    @every_game
    def test_rendering_passes_pettingzoos_test(self, game: Game, capsys: pytest.CaptureFixture[str]) -> None:
        render_test(lambda render_mode: aec_env(game, render_mode))
        assert capsys.readouterr().out.strip()


def test_single_seat_games_are_gymnasium_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = register_single_seat_games({"corridor_walk": "tests.games:Rooms", "several": "tests.games:TellMe"})
    assert ids == ["Coterie/CorridorWalk-v0"]
    environment = gymnasium.make(ids[0])
    observation, _ = environment.reset(seed=1)
    assert environment.observation_space.contains(observation)
    check_env(gymnasium.make(ids[0]).unwrapped)


SINGLE = {name: game for name, game in EVERY_GAME.items() if name in GAMES and seat_count(game) == 1}


@pytest.mark.parametrize("name", SINGLE)
def test_gymnasium_checks_every_listed_game_of_one_seat(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
    (environment,) = register_single_seat_games({name: GAMES[name]})
    settings = {"size": 16} if hasattr(SINGLE[name], "size") else {}
    with warnings.catch_warnings():
        # Of spaces without bounds, and observations that are all zeros.
        warnings.simplefilter("ignore")
        made = gymnasium.make(environment, **settings)
        check_env(made.unwrapped, skip_render_check=True)
    if settings:
        seen = made.observation_space
        pixels = seen["pixels"] if isinstance(seen, gymnasium.spaces.Dict) else seen
        assert pixels.shape[:2] == (16, 16)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hidden_object", {"delay": -1}, "delay is -1; want two whole numbers"),
        ("hidden_object", {"delay": [1, 2, 3]}, "delay is (1, 2, 3); want two whole numbers"),
        ("hidden_object", {"boxes": "4"}, "boxes is '4'; want a whole number"),
        ("hidden_object", {"size": True}, "size is True; want a whole number"),
        ("ballet_symbols", {"dancers": 2.5}, "dancers is 2.5; want a whole number"),
        ("visual_match", {"apple_rewards": 1.0}, "apple_rewards is 1.0; want a list of numbers"),
    ],
)
def test_settings_of_a_wrong_type_are_refused_by_name_on_every_way_in(name: str, settings: dict[str, Any], message: str) -> None:
    for way in (parallel_env, aec_env, make_game, lambda name, **settings: gymnasium.make(id_of(name), **settings)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            way(name, **settings)


def id_of(name: str) -> str:
    return f"envs.face:Coterie/{name.title().replace('_', '')}-v0"


def test_lists_and_numpys_numbers_are_settings() -> None:
    moves = ["stay", "forward", "left", "right"]
    made = gymnasium.make(id_of("hidden_object"), moves=moves, boxes=np.int64(3)).unwrapped
    assert made._single.game == dataclasses.replace(make_game("hidden_object"), moves=tuple(moves), boxes=3)
    assert len(parallel_env("donor_game", rounds=3).possible_agents) == seat_count(make_game("donor_game"))
    with pytest.raises(TypeError, match=r"^Ballet has no setting 'dances'; did you mean 'dancers'\?"):
        make_game("ballet_symbols", dances=3)
    with pytest.raises(ValueError, match=r"^no game is called 'prisoners_dilema'; did you mean 'prisoners_dilemma'\?"):
        parallel_env("prisoners_dilema")


def test_a_game_of_two_seats_is_no_gymnasium_environment() -> None:
    with pytest.raises(ValueError, match="has 2 seats; Gymnasium wants 1"):
        SingleSeatEnv(make_game("chicken"))


@pytest.mark.parametrize("seed", [2**63, -(2**64)])
def test_seeds_that_are_none_are_refused_by_name(seed: int) -> None:
    with pytest.raises(ValueError, match=r"^seed is .*; want a whole number of 64 bits$"):
        parallel_env("chicken").reset(seed=seed)


def test_nothing_is_drawn_before_the_first_reset() -> None:
    for environment in (parallel_env("chicken", "ansi"), SingleSeatEnv(make_game("n_parity"), "ansi")):
        with pytest.raises(ValueError, match=r"^render before reset; call reset first$"):
            environment.render()


def test_a_face_plays_the_same_trials_as_a_rollout() -> None:
    from agents.co_players.tables import always_defect, random
    from training.rollout import Rollout
    from training.seating import one_table

    game = make_game("prisoners_dilemma")
    rollout = Rollout(game, one_table(("a", "b"), 1), {"a": random(), "b": always_defect()})
    _, log = rollout.play(rollout.start(torch.tensor([11])), 2 * game.max_steps)
    environment = parallel_env(game)
    for trial in range(2):
        environment.reset(seed=11 if trial == 0 else None)
        for step in range(trial * 100, trial * 100 + 100):
            actions = {f"player_{seat}": int(log.decisions[seat].action[step, 0]) for seat in range(2)}
            _, rewards, over, _, _ = environment.step(actions)
            assert list(rewards.values()) == log.rewards["player"][step, 0].tolist()
        assert all(over.values())


def test_a_wrong_action_is_named() -> None:
    environment = parallel_env("prisoners_dilemma")
    environment.reset(seed=0)
    with pytest.raises(ValueError, match=r"the action of player_1 is 2; want one of Discrete\(2\)"):
        environment.step({"player_0": 0, "player_1": 2})
    with pytest.raises(ValueError, match="no action for player_1"):
        environment.step({"player_0": 0})


@pytest.mark.parametrize(
    ("name", "action", "wanted"), [("sorting", np.int32(1), [[1]]), ("flip_flop", np.array([0, 1, 1], np.int8), [[[0, 1, 1]]])]
)
def test_choices_reach_a_game_as_int64_whatever_holds_them_outside(
    name: str, action: Any, wanted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    game: Any = make_game(name)
    step, given = type(game).step, []

    def listening(self: Any, state: Any, actions: dict[str, torch.Tensor]) -> Any:
        given.extend(actions.values())
        return step(self, state, actions)

    monkeypatch.setattr(type(game), "step", listening)
    environment = SingleSeatEnv(game)
    environment.reset(seed=0)
    environment.step(action)
    assert [(actions.dtype, actions.tolist()) for actions in given] == [(torch.int64, wanted)]


def test_an_observation_cannot_reach_the_games_state() -> None:
    environment = parallel_env(SHAPES["one seat, pixels and a word, unequal lengths"])
    first, _ = environment.reset(seed=0)
    first["walker_0"]["pixels"][:] = 99
    again, _ = environment.reset(seed=0)
    assert not (again["walker_0"]["pixels"] == 99).any()
