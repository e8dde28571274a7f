"""The commons by hand: harvests, growth, collapse; its scripts by literal views; a golden playthrough."""

import math
import re

import pytest
import torch

from agents.co_players.commons import Conditional, Greedy, Random, Sustainable
from envs.chance import Purpose, seeds_of
from envs.commons import Commons
from envs.iterated_dilemma import IteratedDilemma
from tests.games import cut_off, overlapping, told
from tests.test_golden import assert_golden
from training.evaluation.suites import commons as suite_of
from training.experiment import Experiment
from training.occupants import check_fits
from training.population import co_player
from training.rollout import Rollout
from training.schemes.self_play import self_play
from training.seating import one_table
from training.settings import BadInput

# Two players, a stock of 100 that grows by half of itself at first, nothing below 20; asks of 0, 10, 20, 30 or 40.
TWO = Commons(players=2, capacity=100.0, growth=0.5, threshold=0.2, limit=40.0, levels=5, rounds=6)


def seeds(count):
    return seeds_of(20251123, Purpose.TRIAL, count)


def play(game, *asks):
    """States and turns of one game."""
    state, turns = game.start(seeds(1)), []
    states = [state]
    for ask in asks:
        state, turn = game.step(state, {"harvester": torch.tensor([ask])})
        states.append(state)
        turns.append(turn)
    return states, turns


def test_the_stock_starts_full_and_grows_back_by_hand():
    states, turns = play(TWO, (1, 2), (0, 0), (4, 1))
    # 100 - 30 = 70, + 0.5 * 70 * 0.3 = 80.5; then + 0.5 * 80.5 * 0.195 = 88.34875; less 50 is 38.34875, + 0.5 * 38.34875 * 0.6165125.
    assert [state.stock.item() for state in states] == pytest.approx([100, 80.5, 88.34875, 50.16999], abs=1e-4)
    assert [turn.rewards["harvester"].tolist() for turn in turns] == [[[10, 20]], [[0, 0]], [[40, 10]]]
    assert [turn.measures["harvest"].tolist() for turn in turns] == [[[0.25, 0.5]], [[0, 0]], [[1, 0.25]]]
    assert [turn.measures["stock"].item() for turn in turns] == pytest.approx([0.805, 0.8834875, 0.5016999])


def test_a_full_stock_grows_no_further():
    states, _ = play(TWO, (0, 0), (0, 0))
    assert [state.stock.item() for state in states] == [100, 100, 100]


def test_below_the_threshold_nothing_grows_ever_again():
    # 100 - 70 = 30, + 0.5 * 30 * 0.7 = 40.5; less 30 is 10.5, and stays.
    states, turns = play(TWO, (3, 4), (3, 0), (0, 0), (0, 0))
    assert [state.stock.item() for state in states] == pytest.approx([100, 40.5, 10.5, 10.5, 10.5])
    assert [turn.measures["collapsed"].item() for turn in turns] == [0, 1, 1, 1]


def test_at_the_threshold_it_still_grows():
    # 100 - 80 = 20, + 0.5 * 20 * 0.8 = 28.
    states, turns = play(TWO, (4, 4))
    assert states[1].stock.item() == pytest.approx(28)
    assert turns[0].measures["collapsed"].item() == 0


def test_who_ask_for_more_than_there_is_get_the_same_share_of_it_and_leave_nothing():
    # 28 for asks of 40 and 30: four tenths of each.
    states, turns = play(TWO, (4, 4), (4, 3), (1, 1))
    torch.testing.assert_close(turns[1].rewards["harvester"], torch.tensor([[16.0, 12.0]]))
    assert [state.stock.item() for state in states[2:]] == [0, 0]
    assert turns[2].rewards["harvester"].tolist() == [[0, 0]]
    assert turns[2].measures["collapsed"].item() == 1


def test_a_game_lasts_for_its_rounds_even_if_nothing_is_left():
    _, turns = play(TWO, *[(4, 4)] * 6)
    assert [bool(turn.over) for turn in turns] == [False] * 5 + [True]
    assert TWO.max_steps == 6


def test_everyone_sees_the_stock_and_the_last_harvests_own_first():
    game = Commons(players=3, capacity=100.0, growth=0.0, limit=20.0, levels=5)
    states, _ = play(game, (1, 2, 4))
    before, after = (game.observe(state)["harvester"] for state in states)
    assert (before["begun"].tolist(), before["harvests"].sum().item(), before["stock"].tolist()) == ([[0, 0, 0]], 0, [[1, 1, 1]])
    assert after["begun"].tolist() == [[1, 1, 1]]
    assert after["harvests"].tolist() == [[[0.25, 0.5, 1], [0.5, 1, 0.25], [1, 0.25, 0.5]]]
    torch.testing.assert_close(after["stock"], torch.full((1, 3), 0.65))


def test_any_share_may_be_asked_for_where_there_are_no_levels():
    game = Commons(players=2, limit=40.0, levels=0)
    assert game.roles[0].action_space.shape == ()
    _, turn = game.step(game.start(seeds(1)), {"harvester": torch.tensor([[0.125, 0.5]])})
    assert turn.rewards["harvester"].tolist() == [[5, 20]]


def test_people_read_harvests_and_fate():
    states, _ = play(TWO, (3, 4), (3, 0), (4, 0))
    assert [TWO.describe(state, 0).text for state in states] == [
        "before round 1 of 6: a stock of 100 for 2, which does not grow below 20",
        "round 1: harvester_0 gets 30, harvester_1 gets 40; then the stock is 40.5 of 100",
        "round 2: harvester_0 gets 30, harvester_1 gets 0; then the stock is 10.5 of 100; it has collapsed",
        "round 3: harvester_0 gets 10.5, harvester_1 gets 0; then the stock is 0 of 100; nothing is left",
    ]


@pytest.mark.parametrize("game", [Commons(), Commons(players=100), Commons(players=2, capacity=1234567.0, limit=345678.0)])
def test_what_a_picture_says_can_be_read(game):
    states, _ = play(game, (5,) * game.players)
    for state in states:
        scene = game.describe(state, 0)
        assert (cut_off(scene), overlapping(scene)) == ([], [])
        (stock,) = (mark for mark in scene.marks if mark.text.startswith("stock"))
        # Dark on water nobody could read it.
        assert stock.y + stock.size / 2 < min(mark.y - mark.height / 2 for mark in scene.marks if mark.shape == "box")
    assert [mark.text for mark in game.describe(states[0], 0).marks if mark.text][2:] == [str(seat) for seat in range(game.players)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"players": 0}, "players is 0; want from 1 to 100"),
        ({"capacity": 0.0}, "capacity is 0.0; want a finite number, from 1e-15 to 1e15"),
        ({"capacity": 1e-46}, "capacity is 1e-46; want a finite number, from 1e-15 to 1e15"),
        ({"capacity": 1e39}, r"capacity is 1e\+39; want a finite number, from 1e-15 to 1e15"),
        ({"limit": math.inf}, "limit is inf; want a finite number, from 1e-15 to 1e15"),
        ({"limit": 1e39}, r"limit is 1e\+39; want a finite number, from 1e-15 to 1e15"),
        ({"growth": 1.5}, "growth is 1.5; want from 0 to 1"),
        ({"threshold": 1.0}, "threshold is 1.0; want a share from 0, below 1"),
        ({"levels": 1}, "levels is 1; want from 2 to 1000, or 0 for any share"),
        ({"rounds": 0}, "rounds is 0; want from 1 to 1,000,000"),
    ],
)
def test_settings_that_make_no_game_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Commons(**settings)


def sees(stock, harvests, begun=1):
    return {"stock": torch.tensor([stock]), "harvests": torch.tensor([harvests]), "begun": torch.tensor([begun])}


def asks(player, *views):
    """Levels asked for, one view a round."""
    state, asked = player.start(seeds(1)), []
    for view in views:
        decision, state = player.act(view, state, torch.zeros(1))
        asked.append(decision.action.item())
    return asked


def test_the_greedy_one_asks_for_all():
    assert asks(Greedy(), sees(1.0, [0.0] * 4, 0), sees(0.0, [1.0] * 4)) == [10, 10]


def test_the_sustainable_one_asks_for_its_part_of_what_is_above_half():
    # Above half of 100 there are 50, 20, 9 and less than nothing: for each of four 12.5, 5, 2.25 and none, in whole tens of the limit.
    nothing = [0.0] * 4
    assert asks(Sustainable(), *(sees(stock, nothing) for stock in (1.0, 0.7, 0.59, 0.4))) == [10, 5, 2, 0]
    assert asks(Sustainable(keeps=0.6), sees(0.7, nothing)) == [2]
    assert asks(Sustainable(levels=0), sees(0.59, nothing)) == [pytest.approx(0.225)]


@pytest.mark.parametrize("capacity", [1e-15, 1e15])
@pytest.mark.parametrize("limit", [1e-15, 1e15])
def test_at_the_ends_of_what_is_allowed_everything_stays_a_number(capacity, limit):
    game = Commons(players=2, capacity=capacity, limit=limit)
    states, turns = play(game, (10, 10), (0, 10), (0, 0))
    # Two who ask for all they can share what is there, or get their limit.
    assert turns[0].rewards["harvester"][0].tolist() == pytest.approx([min(limit, capacity / 2)] * 2, rel=1e-6, abs=0)
    for state, turn in zip(states[1:], turns, strict=True):
        assert all(value.isfinite().all() for value in (state.stock, state.harvests, *turn.measures.values()))
    player = Sustainable(players=2, capacity=capacity, limit=limit)
    assert asks(player, sees(0.5, [0.0, 0.0]), sees(0.4, [0.0, 0.0])) == [0, 0]


def test_the_conditional_one_takes_what_the_others_took_if_that_is_more():
    fair, greedy = [0.5, 0.5, 0.5, 0.5], [0.2, 0.9, 0.3, 0.9]
    # The others' mean of the greedy round is 0.7; what is above half would be 2.5 each.
    assert asks(Conditional(), sees(0.6, fair), sees(0.6, greedy), sees(0.6, fair)) == [2, 7, 2]
    # Where its own part is more than the others took, it takes that.
    assert asks(Conditional(), sees(0.9, greedy)) == [10]


def test_the_random_one_asks_for_every_level_alike():
    player = Random(levels=5)
    count = 10_000
    view = {"stock": torch.ones(count), "harvests": torch.zeros(count, 4), "begun": torch.ones(count, dtype=torch.int64)}
    decision, _ = player.act(view, player.start(seeds(count)), torch.zeros(count))
    assert (decision.action.bincount(minlength=5) - 2000).abs().max() < 4 * 40


def mean_rewards(*names):
    game = Commons()
    rollout = Rollout(game, one_table(names, 2), {name: co_player(name) for name in names})
    _, log = rollout.play(rollout.start(seeds(2)), game.rounds)
    return log.rewards["harvester"].mean((0, 1)).tolist(), log.measures["collapsed"][-1].tolist()


def test_restraint_pays_a_group_and_greed_a_single_one():
    greedy, collapsed = mean_rewards(*["greedy_harvester"] * 4)
    # Three rounds take the stock of 100 and what grew: 60 + 9.6, 29.6 + 8.3352; then nothing for 47 rounds.
    assert greedy == pytest.approx([(10 + 10 + 9.4838) / 50] * 4, abs=1e-3)
    assert collapsed == [1, 1]
    restrained, whole = mean_rewards(*["sustainable_harvester"] * 4)
    assert min(restrained) > 2
    assert whole == [0, 0]
    one, _ = mean_rewards("greedy_harvester", *["sustainable_harvester"] * 3)
    assert one[0] > 2 * restrained[0]


def test_greed_among_conditional_ones_ruins_all():
    one, collapsed = mean_rewards("greedy_harvester", *["conditional_harvester"] * 3)
    assert collapsed == [1, 1]
    assert max(one) < 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greedy_harvester:players=0", "players is 0"),
        ("random_harvester:levels=1", "levels is 1"),
        ("greedy_harvester:players=101", "players is 101; want from 1 to 100"),
        ("greedy_harvester:levels=1001", "levels is 1001; want from 2 to 1000"),
        ("greedy_harvester:limit=0", "limit is 0"),
        ("greedy_harvester:capacity=1e39", r"capacity is 1e\+39; want from 1e-15 to 1e15"),
        ("sustainable_harvester:keeps=2", "keeps is 2"),
    ],
)
def test_a_scripts_bad_setting_is_refused_by_name(name, message):
    with pytest.raises(BadInput, match=message):
        co_player(name)


@pytest.mark.parametrize(
    ("name", "wants"),
    [
        ("greedy_harvester", "it acts in Discrete(11); harvester acts in Discrete(6); want levels=6"),
        ("greedy_harvester:levels=0", "it acts in Box(0.0, 1.0, (), float32); harvester acts in Discrete(6); want levels=6"),
        ("greedy_harvester:levels=5", "its levels is 5; want levels=6"),
        ("random_harvester:levels=6,limit=5", "its limit is 5.0; want limit=10.0"),
        ("sustainable_harvester:capacity=50", "want levels=6,capacity=100.0"),
        ("conditional_harvester:players=3,levels=6", "it reads harvests as numbers of shape (3,); the game shows "),
        ("conditional_harvester:players=3,levels=6", "; want players=4"),
    ],
)
def test_a_script_made_for_another_commons_is_refused_with_the_setting_to_give(name, wants):
    game = Commons(levels=6)
    with pytest.raises(BadInput, match=f"^'{re.escape(name)}' cannot play this game: .*{re.escape(wants)}"):
        check_fits(name, co_player(name), game.roles[0], game)


def test_without_the_game_a_script_is_still_held_to_the_actions_there_are():
    with pytest.raises(BadInput, match=r"it acts in Discrete\(11\); harvester acts in Discrete\(6\)$"):
        check_fits("greedy_harvester", Greedy(), Commons(levels=6).roles[0])


def test_the_suite_fits_a_commons_of_any_size():
    experiment = Experiment(game=Commons(players=3, levels=0, limit=5.0), scheme=self_play())
    suite = suite_of(experiment)
    suite.check_fits(experiment.game)
    for scenario in suite.scenarios:
        for name in scenario.seats:
            if not name.startswith("<"):
                check_fits(name, co_player(name), experiment.game.roles[0], experiment.game)
    with pytest.raises(BadInput, match="suite 'commons' is for the commons"):
        suite_of(Experiment(game=IteratedDilemma()))


@pytest.mark.parametrize(
    ("file", "game", "names"),
    [
        ("commons_scripts.txt", Commons(), ("greedy_harvester", *["conditional_harvester"] * 3)),
    ],
)
def test_a_golden_playthrough(file, game, names):
    """Written anew, on purpose, with COTERIE_WRITE_GOLDEN=1."""
    lines = told(game, names, {name: co_player(name) for name in names}, seeds(1), 12)
    assert_golden(file, "\n".join(lines) + "\n")
