"""The Coin Game by hand: moves, coins, rewards, what is seen; its scripts by letters; a golden playthrough."""

import math

import pytest
import torch
from scipy import stats

from agents.co_players.coin_game import Conditional, Greedy, Prosocial, Wanderer
from envs.chance import Purpose, seeds_of
from envs.coin_game import CoinGame, CoinState
from envs.iterated_dilemma import IteratedDilemma
from tests.games import told
from tests.test_golden import assert_golden
from training import tree
from training.evaluation.suites import coin_game as suite_of
from training.experiment import Experiment
from training.occupants import check_fits
from training.population import co_player
from training.rollout import Rollout
from training.schemes.self_play import independent
from training.seating import one_table
from training.settings import BadInput

UP, DOWN, LEFT, RIGHT, STAY = range(5)
NONE = math.nan


def seeds(count, first=0):
    return seeds_of(20251123, Purpose.TRIAL, count, first=first)


def position(first, second, coin, owner, step=0):
    """A state of one game: cells of both players and of the coin, and whose it is. The cells of 3 by 3 are 0 1 2 / 3 4 5 / 6 7 8."""
    return CoinState(
        torch.tensor([7]), torch.tensor([step]), torch.tensor([[first, second]]), *(torch.tensor([n]) for n in (coin, owner, 0))
    )


def move(game, state, first, second):
    return game.step(state, {"player": torch.tensor([[first, second]])})


def measured(turn):
    return [turn.measures[name][0].tolist() for name in ("own_coins", "others_coins")]


@pytest.mark.parametrize(
    ("from_cell", "action", "to_cell"),
    [
        (4, UP, 1),
        (4, DOWN, 7),
        (4, LEFT, 3),
        (4, RIGHT, 5),
        (1, UP, 7),
        (7, DOWN, 1),
        (3, LEFT, 5),
        (5, RIGHT, 3),
        (0, LEFT, 2),
        (8, DOWN, 2),
    ],
)
def test_moves_go_round_the_torus(from_cell, action, to_cell):
    state, _ = move(CoinGame(), position(from_cell, 8 - from_cell, 4 if from_cell != 4 else 0, 0), action, action)
    assert int(state.cells[0, 0]) == to_cell


def test_staying_is_a_fifth_move_where_it_is_allowed():
    game = CoinGame(can_stay=True)
    assert (game.roles[0].action_space.n, CoinGame().roles[0].action_space.n) == (5, 4)
    state, _ = move(game, position(4, 2, 8, 0), STAY, LEFT)
    assert state.cells.tolist() == [[4, 1]]


# (owner, player_0 takes, player_1 takes): rewards, own coins, others' coins, own share.
OUTCOMES = [
    (0, True, False, [1, 0], [[1, 0], [0, 0]], [1, NONE]),
    (0, False, True, [-2, 1], [[0, 0], [0, 1]], [NONE, 0]),
    (0, True, True, [-1, 1], [[1, 0], [0, 1]], [1, 0]),
    (1, True, False, [1, -2], [[0, 0], [1, 0]], [0, NONE]),
    (1, False, True, [0, 1], [[0, 1], [0, 0]], [NONE, 1]),
    (1, True, True, [1, -1], [[0, 1], [1, 0]], [0, 1]),
    (0, False, False, [0, 0], [[0, 0], [0, 0]], [NONE, NONE]),
]


@pytest.mark.parametrize(("owner", "first", "second", "rewards", "coins", "share"), OUTCOMES)
def test_who_takes_whose_coin_earns_what(owner, first, second, rewards, coins, share):
    # Player_0 stands left of the coin in the middle, player_1 right of it.
    _, turn = move(CoinGame(), position(3, 5, 4, owner), RIGHT if first else UP, LEFT if second else UP)
    assert turn.rewards["player"].tolist() == [rewards]
    assert measured(turn) == coins
    torch.testing.assert_close(turn.measures["own_share"], torch.tensor([share], dtype=torch.float32), equal_nan=True)


def test_the_penalty_is_a_setting():
    _, turn = move(CoinGame(penalty=0.5), position(3, 5, 4, 0), UP, LEFT)
    assert turn.rewards["player"].tolist() == [[-0.5, 1]]


def test_a_coin_that_nobody_takes_stays_with_its_owner():
    state, _ = move(CoinGame(), position(3, 5, 4, 1), UP, UP)
    assert (state.coin.tolist(), state.owner.tolist()) == ([4], [1])


def test_owners_take_turns_or_are_drawn():
    state, _ = move(CoinGame(), position(3, 5, 4, 1), RIGHT, UP)
    assert state.owner.tolist() == [0]
    count = 4000
    many = tree.map_leaves(lambda leaf: leaf.expand(count, *leaf.shape[1:]), position(3, 5, 4, 1))._replace(seed=seeds(count))
    state, _ = CoinGame(alternates=False).step(many, {"player": torch.tensor([RIGHT, UP]).expand(count, 2)})
    assert stats.binomtest(int(state.owner.sum()), count).pvalue > 1e-3


@pytest.mark.parametrize(("second_moves", "cells", "free"), [(UP, (4, 2), 7), (LEFT, (4, 4), 8)])
def test_the_next_coin_lies_in_any_cell_without_a_player(second_moves, cells, free):
    count = 8000
    many = tree.map_leaves(lambda leaf: leaf.expand(count, *leaf.shape[1:]), position(3, 5, 4, 0))._replace(seed=seeds(count))
    state, _ = CoinGame().step(many, {"player": torch.tensor([RIGHT, second_moves]).expand(count, 2)})
    found = state.coin.bincount(minlength=9)
    assert [int(found[cell]) for cell in cells] == [0] * len(cells)
    assert stats.chisquare(found[found > 0].numpy()).pvalue > 1e-3
    assert (found > 0).sum() == free


def test_at_the_start_players_and_coin_are_apart_and_either_owns_it():
    state = CoinGame().start(seeds(9000))
    places = torch.cat([state.cells, state.coin[:, None]], 1)
    assert all(len(set(row)) == 3 for row in places.tolist())
    assert all(stats.chisquare(column.bincount(minlength=9).numpy()).pvalue > 1e-3 for column in places.T)
    assert stats.binomtest(int(state.owner.sum()), 9000).pvalue > 1e-3


def test_each_player_sees_the_board_from_its_own_cell():
    # Player_0 at 0, player_1 at 5, blue's coin at 7: from 0 they are (1, 2) and (2, 1) away; from 5 it is (2, 1) and (1, 2).
    seen = CoinGame().observe(position(0, 5, 7, 1))["player"]
    assert seen["other"].tolist() == [[5, 7]]
    assert seen["coin"].tolist() == [[7 + 9, 5]]


def test_a_shifted_board_looks_the_same():
    # All three one row down and one column right, round the edges.
    one, shifted = (CoinGame().observe(position(*cells, 0))["player"] for cells in ((0, 5, 7), (4, 6, 2)))
    assert all(torch.equal(one[field], shifted[field]) for field in one)


def test_the_seats_are_symmetric():
    one, swapped = (CoinGame().observe(position(*cells))["player"] for cells in ((0, 5, 7, 0), (5, 0, 7, 1)))
    assert all(torch.equal(one[field], swapped[field].flip(1)) for field in one)


def test_the_game_ends_after_its_rounds_and_not_before():
    game = CoinGame(rounds=3)
    over = [bool(move(game, position(3, 5, 4, 0, step), UP, UP)[1].over[0]) for step in range(3)]
    assert (over, game.max_steps) == ([False, False, True], 3)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_on_a_board_of_any_size_coins_lie_apart_from_players_and_views_lie_in_their_spaces(size):
    game = CoinGame(size=size, rounds=60, alternates=False)
    state = game.start(seeds(200))
    for step in range(60):
        state, _ = game.step(state, {"player": torch.randint(4, (200, 2), generator=torch.Generator().manual_seed(step))})
        assert not (state.cells == state.coin[:, None]).any()
        seen = game.observe(state)["player"]
        assert (seen["other"].min(), seen["coin"].min()) >= (0, 1)
        assert (seen["other"].max(), seen["coin"].max()) < (size**2, 2 * size**2)
        assert state.coin.max() < size**2


def test_people_read_who_took_what():
    game = CoinGame()
    before = position(3, 5, 4, 0)
    assert game.describe(before, 0).text.startswith(".../RrB/...  before step 1 of 150: red player_0 is R, blue player_1 is B")
    texts = {
        (RIGHT, UP): "step 1: player_0 takes its own red coin +1",
        (UP, LEFT): "step 1: player_0 loses its red coin -2, player_1 takes the other's red coin +1",
        (RIGHT, LEFT): "step 1: player_0 takes its own red coin -1, player_1 takes the other's red coin +1",
        (UP, UP): "step 1: nobody takes the coin",
    }
    for actions, text in texts.items():
        assert game.describe(move(game, before, *actions)[0], 0).text.endswith(f"  {text}")
    together, _ = move(game, before, RIGHT, LEFT)
    assert game.describe(together, 0).text[:11].count("&") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 1}, "size is 1; want from 2 to 16"),
        ({"rounds": 0}, "rounds is 0; want from 1 to 1,000,000"),
        ({"penalty": -1.0}, "penalty is -1.0; want from 0 to 1e30"),
        ({"penalty": math.nan}, "penalty is nan; want from 0 to 1e30"),
        ({"penalty": 1e300}, r"penalty is 1e\+300; want from 0 to 1e30"),
    ],
)
def test_settings_that_make_no_game_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        CoinGame(**settings)


# Scripts. Coins by the place at which they are seen: own ones 1 to 8, the other's 10 to 17.


def moves_of(player, coins, rewards=None, count=1):
    """Actions [steps, count] while these coins are seen, one a step, and these rewards felt."""
    state, played = player.start(seeds(count)), []
    for coin, reward in zip(coins, rewards or [0.0] * len(coins), strict=True):
        seen = {"other": torch.ones(count, dtype=torch.int64), "coin": torch.full((count,), coin)}
        decision, state = player.act(seen, state, torch.full((count,), reward))
        played.append(decision.action)
    return torch.stack(played)


# From the place of a coin to the first step of the shortest way, rows first.
WAYS = "?RLDDDUUU"


@pytest.mark.parametrize("player", [Greedy(), Prosocial(), Conditional()])
def test_own_coins_are_walked_to_by_the_shortest_way(player):
    assert "".join("UDLR"[move] for move in moves_of(player, range(1, 9))[:, 0]) == WAYS[1:]


def test_the_greedy_one_walks_to_the_others_coins_too():
    assert "".join("UDLR"[move] for move in moves_of(Greedy(), range(10, 18))[:, 0]) == WAYS[1:]


@pytest.mark.parametrize("player", [Prosocial(), Conditional()])
def test_who_leaves_the_others_coins_alone_wanders_elsewhere(player):
    # The coin is one to the right: every move but that one, each as often.
    found = moves_of(player, [10], count=9000)[0].bincount(minlength=4)
    assert found[RIGHT] == 0
    assert stats.chisquare(found[[UP, DOWN, LEFT]].numpy()).pvalue > 1e-3


def test_on_a_board_of_two_a_wanderer_has_two_ways_round_the_coin():
    player = Prosocial(size=2)
    # Up and down are the same row there.
    seen = {"other": torch.tensor([1]), "coin": torch.tensor([4 + 2])}
    decision, _ = player.act(seen, player.start(seeds(1)), torch.zeros(1))
    assert decision.policy.tolist() == [[0, 0, 0.5, 0.5]]


def test_the_conditional_one_steals_for_as_long_as_its_grudge_lasts():
    player = Conditional(grudge=2)
    rewards = [0.0, -2.0, 0.0, 0.0, -1.0, 1.0]
    steals = []
    state = player.start(seeds(1))
    for reward in rewards:
        seen = {"other": torch.tensor([1]), "coin": torch.tensor([10])}
        decision, state = player.act(seen, state, torch.tensor([reward]))
        steals.append(decision.policy[0, RIGHT].item() == 1)
    assert steals == [False, True, True, False, True, True]


def test_the_wanderer_goes_anywhere_alike():
    found = moves_of(Wanderer(), [1], count=8000)[0].bincount(minlength=4)
    assert stats.chisquare(found.numpy()).pvalue > 1e-3


def play(names, trials=64, game=None):
    game = game or CoinGame(rounds=60)
    rollout = Rollout(game, one_table(names, trials), {name: co_player(name) for name in names})
    _, log = rollout.play(rollout.start(seeds(trials)), game.max_steps)
    return log


def test_greedy_ones_take_half_of_their_coins_from_each_other_and_prosocial_ones_none():
    assert play(("coin_greedy", "coin_greedy")).measures["own_share"].nanmean().item() == pytest.approx(0.5, abs=0.02)
    assert play(("coin_prosocial", "coin_prosocial")).measures["own_share"].nanmean().item() == 1
    assert play(("coin_conditional", "coin_prosocial")).measures["others_coins"].sum().item() == 0


def test_the_conditional_one_pays_a_thief_back():
    stolen = play(("coin_conditional", "coin_greedy")).measures["others_coins"].mean((0, 1))
    assert stolen[0] > 0.5 * stolen[1]


@pytest.mark.parametrize("name", ["coin_greedy", "coin_prosocial", "coin_conditional", "coin_wanderer"])
def test_a_script_plays_the_size_that_it_was_made_for(name):
    check_fits(name, co_player(f"{name}:size=5"), CoinGame(size=5).roles[0])
    check_fits(name, co_player(name), CoinGame(can_stay=True).roles[0])
    game = CoinGame(size=5)
    with pytest.raises(BadInput, match=r"reads other as 9 symbols.*; want size=5$"):
        check_fits(name, co_player(name), game.roles[0], game)


@pytest.mark.parametrize(("name", "message"), [("coin_greedy:size=1", "size is 1"), ("coin_conditional:grudge=0", "grudge is 0")])
def test_a_scripts_bad_setting_is_refused_by_name(name, message):
    with pytest.raises(BadInput, match=message):
        co_player(name)


def test_the_suite_is_for_the_coin_game_of_any_size():
    experiment = Experiment(game=CoinGame(size=4), scheme=independent())
    suite = suite_of(experiment)
    suite.check_fits(experiment.game)
    for scenario in suite.scenarios:
        for name in scenario.seats:
            if not name.startswith("<"):
                check_fits(name, co_player(name), experiment.game.roles[0])
    with pytest.raises(BadInput, match="suite 'coin_game' is for the Coin Game"):
        suite_of(Experiment(game=IteratedDilemma()))


@pytest.mark.parametrize(
    ("file", "game", "names"),
    [
        ("coin_game_scripts.txt", CoinGame(), ("coin_conditional", "coin_greedy")),
    ],
)
def test_a_golden_playthrough(file, game, names):
    """Written anew, on purpose, with COTERIE_WRITE_GOLDEN=1."""
    lines = told(game, names, {name: co_player(name) for name in names}, seeds(1), 12)
    assert_golden(file, "\n".join(lines) + "\n")
