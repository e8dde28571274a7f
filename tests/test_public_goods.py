"""Public goods by hand: giving, punishing, voting; its scripts by literal views; golden playthroughs."""

import math
import re

import pytest
import torch

from agents.co_players.public_goods import Conditional, Contributor, Punisher, Random, free_rider
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma
from envs.public_goods import FEHR_GAECHTER_COSTS, PublicGoods, public_goods_with_exclusion, public_goods_with_punishment
from tests.games import cut_off, overlapping, told
from tests.test_golden import assert_golden
from training.evaluation.suites import public_goods as suite_of
from training.experiment import Experiment
from training.occupants import check, check_fits
from training.population import co_player
from training.presets import public_goods_quick
from training.rollout import Rollout
from training.schemes.self_play import self_play
from training.seating import one_table
from training.settings import BadInput, override

NONE = math.nan
# Amounts of 0, 5, 10, 15 and 20; up to three points.
THREE = PublicGoods(players=3, multiplier=1.5, levels=5, rounds=2)
PUNISHING = PublicGoods(players=3, multiplier=1.5, levels=5, point_costs=(0.0, 1.0, 2.0, 4.0), point_harm=0.2, rounds=2)
EXCLUDING = PublicGoods(players=3, multiplier=1.5, levels=5, exclusion=True, rounds=3)


def seeds(count):
    return seeds_of(20251123, Purpose.TRIAL, count)


def play(game, *actions):
    """States and turns of one game; an action is a number for each player, or a row of numbers."""
    state, turns = game.start(seeds(1)), []
    states = [state]
    for action in actions:
        state, turn = game.step(state, {"player": torch.tensor([action])})
        states.append(state)
        turns.append(turn)
    return states, turns


def rewards(turns):
    return [turn.rewards["player"][0].tolist() for turn in turns]


def test_everyone_keeps_what_it_does_not_give_and_shares_the_grown_pot():
    _, turns = play(THREE, (0, 2, 4), (4, 4, 4))
    # A pot of 0 + 10 + 20 becomes 45, 15 for each; one of 60 becomes 90, 30 for each.
    assert rewards(turns) == [[35, 25, 15], [30, 30, 30]]
    assert [turn.measures["contribution"].tolist() for turn in turns] == [[[0, 0.5, 1]], [[1, 1, 1]]]
    assert [bool(turn.over) for turn in turns] == [False, True]


def test_the_defaults_are_those_of_fehr_and_gaechter():
    game = PublicGoods()
    # A token given returns 0.4 to each of four: 20 of one cost it 12, and bring the others 8.
    _, (turn,) = play(game, (20, 0, 0, 0))
    torch.testing.assert_close(turn.rewards["player"], torch.tensor([[8.0, 28.0, 28.0, 28.0]]))
    assert (game.max_steps, game.roles[0].action_space.n, game.roles[0].seats) == (10, 21, 4)


def test_any_share_may_be_given_where_there_are_no_levels():
    game = PublicGoods(players=2, multiplier=1.5, levels=0)
    assert game.roles[0].action_space.shape == ()
    _, (turn,) = play(game, (0.25, 1.0))
    # A pot of 25 becomes 37.5, 18.75 for each.
    assert rewards([turn]) == [[33.75, 18.75]]


def test_everyone_sees_the_last_giving_own_first():
    states, _ = play(THREE, (0, 2, 4))
    before, after = (THREE.observe(state)["player"] for state in states)
    assert (before["stage"].tolist(), before["contributions"].sum().item()) == ([[0, 0, 0]], 0)
    assert after["stage"].tolist() == [[1, 1, 1]]
    assert after["contributions"].tolist() == [[[0, 0.5, 1], [0.5, 1, 0], [1, 0, 0.5]]]
    assert set(after) == {"stage", "contributions"}


def test_points_cost_the_giver_and_take_a_share_of_the_receivers_income():
    # After the giving incomes are 35, 25 and 15. Of player_1 the others are 2 and 0, of player_2 they are 0 and 1.
    states, turns = play(PUNISHING, (((0, 3, 3)), (2, 0, 0), (4, 1, 1)), ((0, 0, 0), (0, 0, 3), (0, 2, 0)))
    assert rewards(turns[:1]) == [[35, 25, 15]]
    # Player_0 receives 3 + 2 points: 5 times 0.2 of 35 is all of it. They cost player_1 4 and player_2 2.
    assert rewards(turns[1:]) == [[-35, -4, -2]]
    assert turns[1].measures["punishment"].tolist() == [[0, 3, 2]]
    assert states[2].points.tolist() == [[[0, 0, 0], [3, 0, 0], [2, 0, 0]]]
    assert PUNISHING.observe(states[2])["player"]["lost"].tolist() == [[1, 0, 0]]


def test_punishment_takes_no_more_than_the_income():
    _, turns = play(PUNISHING, ((0, 0, 0), (0, 0, 0), (0, 0, 0)), ((0, 0, 0), (0, 0, 3), (0, 3, 0)))
    assert rewards(turns[1:]) == [[-20, -4, -4]]


def test_in_each_step_only_what_belongs_to_it_counts():
    _, turns = play(PUNISHING, ((4, 3, 3), (4, 3, 3), (4, 3, 3)), ((0, 0, 0), (0, 0, 0), (0, 0, 0)))
    assert rewards(turns) == [[30, 30, 30], [0, 0, 0]]
    torch.testing.assert_close(turns[0].measures["punishment"], torch.full((1, 3), NONE), equal_nan=True)
    torch.testing.assert_close(turns[1].measures["contribution"], torch.full((1, 3), NONE), equal_nan=True)


def test_stages_alternate_where_there_is_punishment():
    nothing = ((0, 0, 0),) * 3
    states, turns = play(PUNISHING, *[nothing] * 4)
    assert [PUNISHING.observe(state)["player"]["stage"][0, 0].item() for state in states[:4]] == [0, 2, 1, 2]
    assert [bool(turn.over) for turn in turns] == [False, False, False, True]


def test_fehr_and_gaechters_ten_points_cost_thirty_and_take_all():
    game = public_goods_with_punishment()
    none = [20, 0, 0, 0]
    _, turns = play(game, ([0] * 4, none, none, none), ([0] * 4, [0, 0, 0, 10], [0] * 4, [0] * 4))
    # A pot of 60 becomes 96, 24 for each. Player_1's third other is player_0.
    torch.testing.assert_close(turns[0].rewards["player"], torch.tensor([[44.0, 24.0, 24.0, 24.0]]))
    torch.testing.assert_close(turns[1].rewards["player"], torch.tensor([[-44.0, -30.0, 0.0, 0.0]]))
    assert (len(FEHR_GAECHTER_COSTS), FEHR_GAECHTER_COSTS[5]) == (11, 9)


def test_who_is_voted_out_keeps_its_endowment_and_takes_no_part():
    give = ((4, 0, 0), (4, 0, 0), (0, 0, 0))
    # Players 0 and 1 vote against player_2, who votes against both.
    vote = ((4, 0, 1), (4, 1, 0), (0, 1, 1))
    states, turns = play(EXCLUDING, give, vote, ((4, 0, 0), (2, 0, 0), (4, 0, 0)))
    assert states[2].members.tolist() == [[True, True, False]]
    assert rewards(turns[1:2]) == [[0, 0, 0]]
    # A pot of 30, without player_2's, becomes 45: 15 for each of three, of whom one gets nothing.
    assert rewards(turns[2:]) == [[15, 25, 20]]
    torch.testing.assert_close(turns[2].measures["contribution"], torch.tensor([[1.0, 0.5, NONE]]), equal_nan=True)
    assert turns[1].measures["members"].item() == pytest.approx(2 / 3)
    assert math.isnan(turns[2].measures["members"].item())
    assert EXCLUDING.observe(states[3])["player"]["members"].tolist() == [[[1, 1, 0], [1, 0, 1], [0, 1, 1]]]


def test_half_of_the_others_votes_are_not_enough():
    states, _ = play(EXCLUDING, ((4, 0, 0),) * 3, ((4, 0, 1), (4, 0, 0), (0, 0, 0)))
    assert states[2].members.tolist() == [[True, True, True]]


def test_who_is_out_no_longer_votes():
    game = PublicGoods(players=4, levels=5, exclusion=True, rounds=3)
    give = ((4, 0, 0, 0),) * 4
    # Players 0, 1 and 2 vote player_3 out; then player_3 and player_2 vote against player_0, of which one vote counts.
    out = ((4, 0, 0, 1), (4, 0, 1, 0), (4, 1, 0, 0), (4, 0, 0, 0))
    then = ((4, 0, 0, 0), (4, 0, 0, 0), (4, 0, 1, 0), (4, 1, 0, 0))
    states, _ = play(game, give, out, give, then)
    assert states[2].members.tolist() == [[True, True, True, False]]
    assert states[4].votes.tolist() == [[1, 0, 0, 0]]
    assert states[4].members.tolist() == [[True, True, True, False]]


def test_who_is_out_neither_punishes_nor_is_punished():
    game = PublicGoods(players=3, multiplier=1.5, levels=5, point_costs=(0.0, 1.0, 2.0), exclusion=True, rounds=3)
    give = ((4, 0, 0, 0, 0),) * 3
    out = ((0, 0, 0, 0, 1), (0, 0, 0, 1, 0), (0, 0, 0, 0, 0))
    # Everyone gives everyone two points.
    rage = ((0, 2, 2, 0, 0),) * 3
    _, turns = play(game, give, out, give, rage)
    # A pot of 40 becomes 60, 20 for each member; player_2 keeps 20.
    assert rewards(turns[2:3]) == [[20, 20, 20]]
    torch.testing.assert_close(turns[3].rewards["player"], torch.tensor([[-2 - 4.0, -2 - 4.0, 0.0]]))


def test_people_read_who_gave_punished_and_was_voted_out():
    states, _ = play(PUNISHING, ((0, 0, 0), (2, 0, 0), (4, 0, 0)), ((0, 0, 0), (0, 0, 3), (0, 0, 0)), ((4, 0, 0),) * 3)
    assert [PUNISHING.describe(state, 0).text for state in states] == [
        "before round 1 of 2: 3 players have 20 each; the pot grows 1.5 times and is shared by all",
        "round 1: player_0 gives 0 and gets +35, player_1 gives 10 and gets +25, player_2 gives 20 and gets +15; the pot of 30 becomes 45",
        "round 1, then: player_1 gives player_0 3 points; player_0 loses 21; player_1 loses 4",
        "round 2: player_0 gives 20 and gets +30, player_1 gives 20 and gets +30, player_2 gives 20 and gets +30; the pot of 60 becomes 90",
    ]
    give = ((4, 0, 0), (4, 0, 0), (0, 0, 0))
    states, _ = play(EXCLUDING, give, ((4, 0, 1), (4, 1, 0), (0, 1, 0)), give)
    assert EXCLUDING.describe(states[2], 0).text == "round 1, then: votes against player_0: 1; votes against player_2: 2, who is out"
    assert "player_2 is out and gets +20" in EXCLUDING.describe(states[3], 0).text


@pytest.mark.parametrize("game", [PublicGoods(), PublicGoods(players=2, endowment=123456.0), PublicGoods(players=30)])
def test_no_text_of_a_picture_is_cut_off_and_none_tells_of_gifts_before_the_first(game):
    states, _ = play(game, (5,) * game.players)
    scenes = [game.describe(state, 0) for state in states]
    assert [(cut_off(scene), overlapping(scene)) for scene in scenes] == [([], []), ([], [])]
    assert [mark.text for mark in scenes[0].marks if mark.shape == "text"] == [
        "before round 1",
        *(f"player_{seat}" for seat in range(game.players)),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"players": 1}, "players is 1; want from 2 to 100"),
        ({"endowment": 0.0}, "endowment is 0.0; want a finite number, from 1e-30 to 1e30"),
        ({"endowment": 1e39}, r"endowment is 1e\+39; want a finite number, from 1e-30 to 1e30"),
        ({"endowment": 1e20, "multiplier": 1e11}, r"endowment is 1e\+20: with multiplier 100000000000.0 incomes could pass 1e30"),
        ({"multiplier": math.nan}, "multiplier is nan; want a finite number, from 1e-30 to 1e30"),
        ({"multiplier": 1e39}, r"multiplier is 1e\+39; want a finite number, from 1e-30 to 1e30"),
        ({"levels": 1}, "levels is 1; want from 2 to 1000, or 0 for any share"),
        ({"levels": 0, "exclusion": True}, "levels is 0; with punishment or exclusion want from 2 to 1000"),
        ({"point_costs": (1.0, 2.0)}, r"point_costs is \(1.0, 2.0\); want costs from 0 to 1e30, the first 0, for no point"),
        ({"point_costs": (0.0, -2.0)}, "point_costs is .*; want costs from 0 to 1e30"),
        ({"point_costs": (0.0, 1e39)}, "point_costs is .*; want costs from 0 to 1e30"),
        ({"point_harm": 1.5}, "point_harm is 1.5; want a share from 0 to 1"),
        ({"rounds": 0}, "rounds is 0; want from 1 to 1,000,000"),
    ],
)
def test_settings_that_make_no_game_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        PublicGoods(**settings)


def sees(contributions, stage=1, **more):
    fields = {"stage": torch.tensor([stage]), "contributions": torch.tensor([contributions])}
    return fields | {name: torch.tensor([value]) for name, value in more.items()}


def does(player, *views):
    """Actions, one view a step."""
    state, done = player.start(seeds(1)), []
    for view in views:
        decision, state = player.act(view, state, torch.zeros(1))
        done.append(decision.action[0].tolist())
    return done


def test_contributors_give_their_share_and_free_riders_nothing():
    views = (sees([0.0] * 4, 0), sees([0.2, 1.0, 1.0, 1.0]))
    assert does(Contributor(), *views) == [20, 20]
    assert does(Contributor(share=0.3, levels=11), *views) == [3, 3]
    assert does(free_rider(), *views) == [0, 0]
    assert does(Contributor(share=0.3, levels=0), *views) == [pytest.approx(0.3)] * 2


def test_the_conditional_one_gives_what_the_others_gave():
    views = (sees([0.0] * 4, 0), sees([1.0, 0.0, 0.5, 1.0]), sees([1.0, 0.0, 0.0, 0.0]))
    assert does(Conditional(), *views) == [20, 10, 0]
    assert does(Conditional(first=0.5, matches=0.5), *views) == [10, 5, 0]


def test_the_conditional_one_does_not_count_who_is_out():
    view = sees([1.0, 0.0, 0.5, 1.0], members=[1, 0, 1, 1])
    assert does(Conditional(exclusion=True), view) == [[15, 0, 0, 0]]


def test_the_punisher_punishes_and_votes_against_who_gave_little():
    view = sees([1.0, 0.45, 0.5, 0.0], 2)
    assert does(Punisher(), view) == [[20, 3, 0, 3]]
    assert does(Punisher(points_each=5, demands=0.4), view) == [[20, 0, 0, 5]]
    assert does(Punisher(punishment=False, exclusion=True), view) == [[20, 1, 0, 1]]
    assert does(Punisher(exclusion=True), view) == [[20, 3, 0, 3, 1, 0, 1]]


def test_the_random_one_gives_any_share():
    count = 10_000
    player = Random(levels=0)
    view = {"stage": torch.ones(count, dtype=torch.int64), "contributions": torch.zeros(count, 4)}
    decision, _ = player.act(view, player.start(seeds(count)), torch.zeros(count))
    # The mean and the deviation of a uniform number, within four standard errors.
    assert decision.action.mean().item() == pytest.approx(0.5, abs=4 * 0.0029)
    assert decision.action.std().item() == pytest.approx(0.2887, abs=0.005)


def contribution(game, *names):
    rollout = Rollout(game, one_table(names, 2), {name: co_player(name) for name in names})
    _, log = rollout.play(rollout.start(seeds(2)), game.max_steps)
    return log.rewards["player"].mean((0, 1)).tolist()


def test_a_free_rider_does_best_and_all_would_do_better_by_giving():
    alone = contribution(PublicGoods(), "free_rider", *["contributor"] * 3)
    torch.testing.assert_close(torch.tensor(alone), torch.tensor([44.0, 24.0, 24.0, 24.0]))
    assert contribution(PublicGoods(), *["contributor"] * 4) == pytest.approx([32.0] * 4)
    assert contribution(PublicGoods(), *["free_rider"] * 4) == pytest.approx([20.0] * 4)


def test_among_punishers_a_free_rider_does_worst():
    game = public_goods_with_punishment()
    mine, *theirs = contribution(game, "free_rider:punishment=True", *["punisher"] * 3)
    # Each round 44, of which nine points take nine tenths; the punishers' 24 cost them 4 each. A round is two steps.
    assert mine == pytest.approx(2.2, abs=1e-4)
    assert theirs == pytest.approx([10.0] * 3, abs=1e-4)


def test_punishers_vote_a_free_rider_out():
    game = public_goods_with_exclusion()
    rider = "free_rider:exclusion=True"
    mine, *theirs = contribution(game, rider, *["punisher:punishment=False,exclusion=True"] * 3)
    # 44 once, then nine times 20; the others 24 every time.
    assert mine == pytest.approx((44 + 9 * 20) / 20, abs=1e-4)
    assert theirs == pytest.approx([12.0] * 3, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("contributor:players=1", "players is 1"),
        ("contributor:players=101", "players is 101; want from 2 to 100"),
        ("contributor:levels=1", "levels is 1"),
        ("contributor:levels=1001", "levels is 1001; want from 2 to 1000"),
        ("contributor:levels=0,exclusion=True", "levels is 0; with punishment or exclusion want from 2 to 1000"),
        ("contributor:share=2", "share is 2"),
        ("conditional_contributor:matches=-1", "matches is -1"),
        ("punisher:demands=3", "demands is 3"),
        ("punisher:points_each=-3", "points_each is -3; want from 0 to 1000"),
    ],
)
def test_a_scripts_bad_setting_is_refused_by_name(name, message):
    with pytest.raises(BadInput, match=message):
        co_player(name)


def test_a_script_that_knows_of_no_punishment_is_refused_where_there_is_one():
    with pytest.raises(BadInput, match="reads stage as 2 symbols"):
        check_fits("contributor", co_player("contributor"), public_goods_with_punishment().roles[0])


@pytest.mark.parametrize("settings", [{"endowment": 1e-30}, {"endowment": 1e30, "multiplier": 1.0}, {"point_costs": (0.0, 1e30)}])
def test_at_the_ends_of_what_is_allowed_everything_stays_a_number(settings):
    game = PublicGoods(players=2, levels=2, **settings)
    _, turns = play(game, *[[[1, 1], [1, 1]]] * 2 if game.punishes else [(1, 1), (0, 1)])
    assert all(turn.rewards["player"].isfinite().all() for turn in turns)
    assert turns[0].rewards["player"].min() > 0


@pytest.mark.parametrize(
    ("game", "name", "wants"),
    [
        (PublicGoods(levels=6), "contributor", "it acts in Discrete(21); player acts in Discrete(6); want levels=6"),
        (PublicGoods(levels=0), "free_rider", "it acts in Discrete(21); player acts in Box(0.0, 1.0, (), float32); want levels=0"),
        (PublicGoods(levels=6), "random_contributor:levels=5", "its levels is 5; want levels=6"),
        (PUNISHING, "contributor:levels=5,punishment=True", "it reads contributions as numbers of shape (4,); the game shows "),
        (PUNISHING, "contributor:levels=5,punishment=True", "; want players=3"),
        (PUNISHING, "conditional_contributor:players=3,levels=5", "; want punishment=True"),
        (PUNISHING, "punisher:players=3,levels=5,points_each=4", "acts in MultiDiscrete([5 4 4]); want points_each=3"),
        (EXCLUDING, "punisher:players=3,levels=5", "; want punishment=False,exclusion=True"),
    ],
)
def test_a_script_made_for_another_game_is_refused_with_the_setting_to_give(game, name, wants):
    with pytest.raises(BadInput, match=f"^'{re.escape(name)}' cannot play this game: .*{re.escape(wants)}"):
        check_fits(name, co_player(name), game.roles[0], game)


def test_a_punisher_sits_where_it_may_give_its_points_and_more():
    name = "punisher:players=3,levels=5,points_each=2"
    check_fits(name, co_player(name), PUNISHING.roles[0], PUNISHING)


def test_points_that_the_game_does_not_know_are_refused_before_training():
    with pytest.raises(BadInput, match=r"^'punisher:levels=6,points_each=2' cannot play this game: it acts in .*; want points_each=1$"):
        check(override(public_goods_quick(), "game.point_costs=[0,1]"))


@pytest.mark.parametrize("game", [PublicGoods(players=3, levels=0), PUNISHING, EXCLUDING])
def test_the_suite_fits_public_goods_of_any_kind(game):
    experiment = Experiment(game=game, scheme=self_play())
    suite = suite_of(experiment)
    suite.check_fits(game)
    names = {name for scenario in suite.scenarios for name in scenario.seats if not name.startswith("<")}
    for name in names:
        player, (role,) = co_player(name), game.roles
        check_fits(name, player, role, game)
        seen = {field: value[:, 0] for field, value in game.observe(game.start(seeds(3)))["player"].items()}
        decision, _ = player.act(seen, player.start(seeds(3)), torch.zeros(3))
        assert role.action_space.contains(decision.action[0].numpy().astype(role.action_space.dtype))
    assert any(name.startswith("punisher") for name in names) == game.has_sanctions


def test_the_suite_is_for_public_goods():
    with pytest.raises(BadInput, match="suite 'public_goods' is for public goods"):
        suite_of(Experiment(game=IteratedDilemma()))


@pytest.mark.parametrize(
    ("file", "game", "names"),
    [
        (
            "public_goods_scripts.txt",
            PublicGoods(),
            ("free_rider", "contributor", "conditional_contributor", "random_contributor"),
        ),
        (
            "public_goods_with_punishment_scripts.txt",
            public_goods_with_punishment(),
            ("free_rider:punishment=True", "punisher", "conditional_contributor:punishment=True", "random_contributor:punishment=True"),
        ),
        (
            "public_goods_with_exclusion_scripts.txt",
            public_goods_with_exclusion(),
            (
                "free_rider:exclusion=True",
                "punisher:punishment=False,exclusion=True",
                "punisher:punishment=False,exclusion=True",
                "random_contributor:exclusion=True",
            ),
        ),
    ],
)
def test_a_golden_playthrough(file, game, names):
    """Written anew, on purpose, with COTERIE_WRITE_GOLDEN=1."""
    lines = told(game, names, {name: co_player(name) for name in names}, seeds(1), 10)
    assert_golden(file, "\n".join(lines) + "\n")
