"""The donor game, worked by hand: who meets whom, gifts, harm, traces, two games, the notebook's ways, and its scripted villagers.

Villagers are named by their place in the schedule, `seat(state, place)`, because who stands where is drawn by lot.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch

from agents.co_players.luck import Luck
from envs.donor_game import DonorGame, DonorState, donor_game_in_quarters, gini
from envs.face import make_game
from envs.game import Turn
from launch import main
from tests.games import AnyLegal, cut_off, overlapping
from tests.test_golden import assert_golden
from training import tree
from training.evaluation.suites import FOCAL, SUITES
from training.experiment import Experiment
from training.occupants import check, check_fits
from training.plain import PlainTrainer
from training.population import co_player
from training.presets import donor_game_quick
from training.rollout import Rollout
from training.schemes.self_play import self_play
from training.seating import one_table
from training.settings import BadInput, load, override


def seats_at(state: DonorState, *places: int) -> list[int]:
    return [int(state.order[0, place]) for place in places]


def by_place(state: DonorState, values: torch.Tensor) -> list[float]:
    """Values [1, P] of the seats, in the order of the schedule."""
    return values[0][state.order[0]].tolist()


def play(game: DonorGame, *rounds: list[float], seed: int = 0) -> tuple[DonorState, list[Turn]]:
    """Rounds in which the villager at place p chooses rounds[r][p]."""
    state, turns = game.start(torch.tensor([seed])), []
    for chosen in rounds:
        actions = torch.empty(1, game.villagers).scatter_(1, state.order, torch.tensor([chosen], dtype=torch.float32))
        state, turn = game.step(state, {"villager": actions.long() if game.levels else actions})
        turns.append(turn)
    return state, turns


def everyone_gives(share: float, game: DonorGame) -> torch.Tensor:
    """Mean final resources of every game of a batch."""
    state = game.start(torch.arange(3))
    for _ in range(game.max_steps):
        state, _ = game.step(state, {"villager": torch.full((3, game.villagers), share)})
    return state.resources.mean(1)


def meetings(game: DonorGame, seed: int, rounds: int) -> list[list[tuple[int, int]]]:
    """[(donor, recipient)] of every round, as the game shows them."""
    state = game.start(torch.tensor([seed]))
    every = []
    for _ in range(rounds):
        seen = game.observe(state)["villager"]
        every.append([(seat, int(to) - 1) for seat, to in enumerate(seen["recipient"][0]) if seen["is_donor"][0, seat]])
        state, _ = game.step(state, {"villager": torch.zeros(1, game.villagers)})
    return every


# Who meets whom.


@pytest.mark.parametrize("villagers", [4, 6, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_everyone_alternates_and_no_meeting_comes_back_too_soon(villagers: int, seed: int) -> None:
    rounds = 3 * villagers
    every = meetings(DonorGame(villagers=villagers, rounds=rounds, trace_depth=0), seed, rounds)
    half = villagers // 2
    for now, then in pairwise(every):
        assert {donor for donor, _ in then} == {recipient for _, recipient in now}
    for pairs in every:
        assert sorted(seat for pair in pairs for seat in pair) == list(range(villagers))
    # As unordered pairs: never twice within the first P/2 rounds, and all that alternation allows by then.
    first = [frozenset(pair) for pairs in every[:half] for pair in pairs]
    assert len(set(first)) == len(first) == half * half
    # As ordered pairs: no donor has a recipient twice within any P rounds that begin with a multiple of P.
    for begin in range(0, rounds, villagers):
        gifts = [pair for pairs in every[begin : begin + villagers] for pair in pairs]
        assert len(set(gifts)) == len(gifts) == villagers * half
    last: dict[frozenset[int], int] = {}
    for number, pairs in enumerate(every):
        for pair in map(frozenset, pairs):
            assert number - last.get(pair, -villagers) >= half - 1
            last[pair] = number


def test_six_villagers_meet_in_this_order() -> None:
    game = DonorGame(villagers=6, rounds=6)
    a, b, c, x, y, z = seats_at(game.start(torch.tensor([4])), 0, 1, 2, 3, 4, 5)
    every = meetings(game, 4, 6)
    assert [set(pairs) for pairs in every] == [
        {(a, x), (b, y), (c, z)},
        {(y, a), (z, b), (x, c)},
        {(a, z), (b, x), (c, y)},
        {(x, a), (y, b), (z, c)},
        {(a, y), (b, z), (c, x)},
        {(z, a), (x, b), (y, c)},
    ]


def test_eight_villagers_swap_neighbouring_rounds_the_second_time() -> None:
    game = DonorGame(villagers=8, rounds=8)
    state = game.start(torch.tensor([0]))
    place = {seat: number for number, seat in enumerate(state.order[0].tolist())}
    first = [(place[donor], place[to]) for pairs in meetings(game, 0, 8) for donor, to in pairs if 0 in (place[donor], place[to])]
    assert first == [(0, 4), (5, 0), (0, 6), (7, 0), (0, 5), (4, 0), (0, 7), (6, 0)]


def test_the_order_is_drawn_from_the_seed() -> None:
    state = DonorGame().start(torch.arange(100))
    assert len({tuple(order) for order in state.order.tolist()}) == 100
    assert (state.order.sort(1).values == torch.arange(12)).all()


def test_the_notebook_lets_the_same_half_give_twice_in_the_middle() -> None:
    game = DonorGame(notebook=True)
    every = meetings(game, 3, 12)
    first_half = set(seats_at(game.start(torch.tensor([3])), 0, 1, 2, 3, 4, 5))
    assert "".join("A" if {donor for donor, _ in pairs} == first_half else "B" for pairs in every) == "ABABABBABABA"
    pairs = [frozenset(pair) for pairs in every for pair in pairs]
    assert sorted(pairs.count(pair) for pair in set(pairs)) == [2] * 36


# Gifts and harm.


@pytest.mark.parametrize(
    ("share", "mean"),
    [
        *((0.0, 10), (0.05, 13.6), (0.1, 18.75), (0.2, 37.2), (0.3, 78.0), (0.4, 171.7)),
        *((0.5, 393.9), (0.6, 931), (0.7, 2240), (0.8, 5413), (0.9, 12996), (1.0, 30720)),
    ],
)
def test_where_everyone_gives_the_same_share_the_oracle_says_what_they_have(share: float, mean: float) -> None:
    assert everyone_gives(share, DonorGame()).tolist() == pytest.approx([mean] * 3, rel=7e-4)


def test_in_the_notebooks_order_giving_everything_makes_half_as_much() -> None:
    assert everyone_gives(1.0, DonorGame(notebook=True)).tolist() == [15360.0] * 3


def test_four_villagers_give_for_three_rounds() -> None:
    # Places 0, 1 give to 2, 3; then 3 gives to 0 and 2 to 1; then, the second time with neighbours swapped, 0 to 3 and 1 to 2.
    game = DonorGame(villagers=4, rounds=3)
    state, turns = play(game, [0.5, 0.1, 0.9, 0.9], [0.7, 0.7, 0.25, 1.0], [0.5, 0.0, 1.0, 1.0])
    rewards = [by_place(state, turn.rewards["villager"]) for turn in turns]
    assert rewards[0] == pytest.approx([-5, -1, 10, 2])
    assert rewards[1] == pytest.approx([24, 10, -5, -12])
    assert rewards[2] == pytest.approx([-14.5, 0, 0, 29])
    assert by_place(state, state.resources) == pytest.approx([14.5, 19, 15, 29])
    gifts = torch.tensor([by_place(state, turn.measures["gift"]) for turn in turns])
    torch.testing.assert_close(
        gifts,
        torch.tensor([[0.5, 0.1, torch.nan, torch.nan], [torch.nan, torch.nan, 0.25, 1.0], [0.5, 0.0, torch.nan, torch.nan]]),
        equal_nan=True,
    )
    assert [turn.over.item() for turn in turns] == [False, False, True]
    assert "punishes" not in turns[0].measures


def test_what_the_end_measures() -> None:
    _, turns = play(DonorGame(villagers=4, rounds=2, trace_depth=0), [0.5, 0.1, 0, 0], [0, 0, 0.25, 1.0])
    assert all(turns[0].measures[name].isnan().all() for name in ("resources", "gini", "fitness", "survives"))
    state, _ = play(DonorGame(villagers=4, rounds=2, trace_depth=0), [0.5, 0.1, 0, 0], [0, 0, 0.25, 1.0])
    end = turns[1].measures
    assert by_place(state, end["resources"]) == pytest.approx([29, 19, 15, 0])
    assert by_place(state, end["fitness"]) == pytest.approx([29, 19, 15, 0])
    assert by_place(state, end["survives"]) == [1, 1, 0, 0]
    # Differences 10, 14, 29, 4, 19, 15 add up to 91, each counted twice; over 2 * 4 * 63.
    assert end["gini"].item() == pytest.approx(182 / 504)


def test_gini_is_nothing_among_equals_and_most_where_one_has_all() -> None:
    assert gini(torch.tensor([[3.0, 3, 3, 3], [0, 8, 0, 0], [0, 0, 0, 0]])).tolist() == pytest.approx([0.0, 0.75, 0.0])


def test_a_multiplier_other_than_two() -> None:
    state, _ = play(DonorGame(villagers=4, rounds=1, multiplier=1.5, trace_depth=1), [1.0, 0.2, 0, 0])
    assert by_place(state, state.resources) == pytest.approx([0, 8, 25, 13])


def test_punishment_costs_what_it_costs_and_takes_twice_as_much_but_not_more_than_there_is() -> None:
    game = DonorGame(villagers=4, rounds=3, punishment=2.0)
    state, turns = play(game, [-0.25, -0.8, 1, -1])
    assert by_place(state, state.resources) == pytest.approx([7.5, 2, 5, 0])
    assert by_place(state, turns[0].rewards["villager"]) == pytest.approx([-2.5, -8, -5, -10])
    assert by_place(state, turns[0].measures["punishes"])[:2] == [1, 1]
    assert turns[0].measures["punishes"].isnan().sum() == 2
    assert by_place(state, turns[0].measures["gift"])[:2] == [0, 0]
    seen = game.observe(state)["villager"]
    assert by_place(state, seen["punished"]) == [0, 0, 1, 1]
    assert not game.observe(game.start(torch.tensor([0])))["villager"]["punished"].any()


def test_nobody_feels_punished_by_its_own_punishing() -> None:
    game = DonorGame(villagers=4, rounds=3, punishment=2.0)
    state, turns = play(game, [-0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5])
    assert by_place(state, turns[1].measures["punishes"])[2:] == [0, 0]
    assert not game.observe(state)["villager"]["punished"].any()


def test_discrete_choices_are_shares_and_then_shares_spent_on_harm() -> None:
    state, _ = play(DonorGame(villagers=4, rounds=1, levels=4, trace_depth=0), [3, 4, 0, 0])
    assert by_place(state, state.resources) == pytest.approx([2.5, 0, 25, 30])
    game = DonorGame(villagers=4, rounds=1, levels=4, trace_depth=0, punishment=2.0)
    state, _ = play(game, [5, 1, 0, 0])
    assert by_place(state, state.resources) == pytest.approx([7.5, 7.5, 5, 15])
    assert game.roles[0].action_space.n == 9


def test_in_the_discrete_game_recipients_can_only_wait() -> None:
    game = donor_game_in_quarters()
    state = game.start(torch.tensor([5]))
    mask = game.observe(state)["villager"]["action_mask"][0]
    assert mask[state.order[0, :6]].tolist() == [[1, 1, 1, 1, 1]] * 6
    assert mask[state.order[0, 6:]].tolist() == [[1, 0, 0, 0, 0]] * 6


# What a donor sees.


def test_a_donor_sees_the_recipients_past_and_a_recipient_sees_nothing() -> None:
    game = DonorGame(villagers=6, rounds=6)
    state, _ = play(game, [0.5, 0.6, 0.7, 0, 0, 0], [0, 0, 0, 0.1, 0.2, 0.3])
    a, b, _c, x, _y, z = seats_at(state, 0, 1, 2, 3, 4, 5)
    # Now 0 gives to 5, who in round 2 gave 0.3 to 1, who in round 1 gave 0.6 to 4, of whom nothing was known.
    seen = {field: values[0, a] for field, values in game.observe(state)["villager"].items()}
    assert (seen["is_donor"].item(), seen["round"].item(), seen["recipient"].item()) == (1, 2, 1 + z)
    torch.testing.assert_close(seen["trace"], torch.tensor([[1, 0.3], [1, 0.6], [0, 0]]))
    assert seen["trace_to"].tolist() == [1 + b, 1 + seats_at(state, 4)[0], 0]
    # 0 has 5 + 2 * 2.2 * ... : place 4 gave 0.2 of 22 to it. Place 5 had 24 and gave 7.2.
    assert seen["resources"].tolist() == pytest.approx([1.25096, 1.42223], abs=1e-4)
    blind = {field: values[0, x] for field, values in game.observe(state)["villager"].items()}
    assert (blind["is_donor"].item(), blind["recipient"].item(), blind["trace"].any().item(), blind["trace_to"].any().item()) == (
        0,
        0,
        False,
        False,
    )
    assert blind["resources"][1] == 0


def test_resources_are_seen_in_doublings_of_the_endowment() -> None:
    game = DonorGame(villagers=4, rounds=1, endowment=8.0, trace_depth=0)
    state = game.start(torch.tensor([0]))
    state = state._replace(resources=torch.tensor([[0.0, 8.0, 24.0, 56.0]]))
    assert game.observe(state)["villager"]["resources"][0, :, 0].tolist() == [0, 1, 2, 3]


def test_the_trace_grows_by_a_link_a_round_up_to_its_depth_and_forgets_the_oldest() -> None:
    shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    for depth, expected in ((3, [0, 1, 2, 3, 3, 3]), (1, [0, 1, 1, 1, 1, 1]), (6, [0, 1, 2, 3, 4, 5])):
        game = DonorGame(rounds=6, trace_depth=depth)
        state = game.start(torch.tensor([9]))
        for number, share in enumerate(shares):
            seen = game.observe(state)["villager"]
            gives = seen["is_donor"][0].bool()
            assert seen["trace"][0, gives, :, 0].sum(1).tolist() == [expected[number]] * 6
            # The newest first: in round r everyone who gave gave shares[r].
            known = shares[:number][::-1][:depth]
            torch.testing.assert_close(seen["trace"][0, gives, : len(known), 1], torch.tensor([known] * 6).reshape(6, len(known)))
            state, _ = game.step(state, {"villager": torch.full((1, 12), share)})


def test_without_a_trace_there_is_none_to_see() -> None:
    assert set(DonorGame(trace_depth=0).roles[0].observation_space) == {"is_donor", "round", "resources", "recipient"}


def test_who_had_nothing_gave_everything_says_the_notebook_alone() -> None:
    # Place 0 gives all and gets nothing back in round 2; in round 3 it chooses to give nothing of nothing.
    for notebook, recorded in ((False, 0.0), (True, 1.0)):
        game = DonorGame(villagers=8, rounds=8, notebook=notebook)
        state, turns = play(game, [1.0] + [0.0] * 7, [0.0] * 8, [0.0] * 8)
        seat = seats_at(state, 0)[0]
        assert state.resources[0, seat] == 0
        assert state.links[0, seat, 0] == recorded
        assert turns[2].measures["gift"][0, seat] == 0


# Two games.


def test_a_second_game_starts_afresh_with_roles_swapped_and_both_count() -> None:
    game = DonorGame(villagers=4, rounds=1, games=2, trace_depth=1)
    state, turns = play(game, [0.5, 0.1, 0, 0])
    assert by_place(state, state.resources) == pytest.approx([5, 9, 20, 12])
    assert by_place(state, turns[0].measures["resources"]) == pytest.approx([5, 9, 20, 12])
    assert turns[0].measures["fitness"].isnan().all()
    seen = game.observe(state)["villager"]
    assert by_place(state, seen["is_donor"]) == [0, 0, 1, 1]
    assert by_place(state, seen["round"]) == [0, 0, 0, 0]
    assert seen["resources"][0, :, 0].tolist() == [1, 1, 1, 1]
    assert not seen["trace"].any()
    state, turns = play(game, [0.5, 0.1, 0, 0], [0, 0, 1.0, 0.25])
    assert by_place(state, state.resources) == pytest.approx([30, 15, 0, 7.5])
    assert by_place(state, turns[1].rewards["villager"]) == pytest.approx([20, 5, -10, -2.5])
    assert by_place(state, turns[1].measures["fitness"]) == pytest.approx([17.5, 12, 10, 9.75])
    assert by_place(state, turns[1].measures["survives"]) == [1, 1, 0, 0]
    assert [turn.over.item() for turn in turns] == [False, True]
    _, turns = play(DonorGame(villagers=4, rounds=1, games=2, trace_depth=1, notebook=True), [0.5, 0.1, 0, 0], [0, 0, 1.0, 0.25])
    assert by_place(state, turns[1].measures["fitness"]) == pytest.approx([60, 30, 0, 15])


def test_everyone_receives_in_the_last_round_of_one_of_the_two_games() -> None:
    game = DonorGame(games=2)
    every = meetings(game, 6, 24)
    receive = [{recipient for _, recipient in every[last]} for last in (11, 23)]
    assert receive[0] | receive[1] == set(range(12))
    assert {frozenset(pair) for pair in every[0]} == {frozenset(pair) for pair in every[12]}
    assert every[0] != every[12]


def test_half_survives_and_equals_by_lot() -> None:
    game = DonorGame(rounds=1, trace_depth=0)
    state = game.start(torch.arange(400))
    _, turn = game.step(state, {"villager": torch.zeros(400, 12)})
    survives = turn.measures["survives"]
    assert (survives.sum(1) == 6).all()
    # Nobody gave, so all are equal, and no seat is luckier: 400 coins have a deviation of 0.025.
    assert ((survives.mean(0) - 0.5).abs() < 0.1).all()


@pytest.mark.parametrize("game", [DonorGame(), DonorGame(games=2, levels=4, punishment=2.0), DonorGame(trace_depth=0, notebook=True)])
def test_nothing_waits_for_the_device(game: DonorGame) -> None:
    # On the meta device there are no numbers: whoever asks for one fails.
    state = game.start(torch.zeros(3, dtype=torch.int64, device="meta"))
    seen = game.observe(state)["villager"]
    occupants = ["standing_villager", "random_villager", *(["punishing_villager"] if game.punishment else [])]
    flat = {field: values.flatten(0, 1) for field, values in seen.items()}
    for villager in map(co_player, occupants):
        begin = villager.start(torch.zeros(36, dtype=torch.int64, device="meta"))
        action = villager.act(flat, begin, torch.zeros(36, device="meta"))[0].action
    after, turn = game.step(state, {"villager": action.unflatten(0, (3, 12))})
    for old, new in zip(state, after, strict=True):
        assert (old.shape, old.dtype, old.device) == (new.shape, new.dtype, new.device)
    assert turn.rewards["villager"].device.type == "meta"


# Words.


def test_the_game_tells_itself_in_words() -> None:
    game = DonorGame(villagers=4, rounds=3, punishment=2.0, trace_depth=2)
    state, _ = play(game)
    a, b, c, d = seats_at(state, 0, 1, 2, 3)
    opening = game.describe(state, 0).text
    assert opening.startswith(
        "before round 1 of 3: 4 villagers have 10 each; a gift is multiplied by 2 on its way, who is punished loses 2 times what was spent"
    )
    assert f"{a} may give to {c}" in opening
    state, _ = play(game, [0.5, 0.0, 0, 0])
    text = game.describe(state, 0).text
    assert text.startswith("round 1 of 3: ")
    assert f"{a} gives 5.0 (50%) to {c}" in text
    assert f"{b} gives nothing to {d}" in text
    assert f"{c}: 20.0" in text
    assert "heard" not in text
    state, _ = play(game, [0.5, 0.0, 0, 0], [0, 0, 0.25, -0.1])
    text = game.describe(state, 0).text
    assert f"{c} gives 5.0 (25%) to {b} (heard: {b} gave 0% to {d})" in text
    assert f"{d} spends 1.0 (10%) to punish {a} (heard: {a} gave 50% to {c})" in text
    state, _ = play(game, [0.5, 0.0, 0, 0], [0, 0, 0.25, -0.1], [1, 1, 0, 0])
    assert f"(heard: {d} punished {a} with 10%, who before gave 50% to {c})" in game.describe(state, 0).text
    assert "game 2 of 2" in game_text(DonorGame(villagers=4, rounds=1, games=2, trace_depth=0), 2)


def game_text(game: DonorGame, rounds: int) -> str:
    state, _ = play(game, *[[0.5] * game.villagers] * rounds)
    return game.describe(state, 0).text


@pytest.mark.parametrize(
    "game",
    [
        DonorGame(),
        DonorGame(villagers=4, rounds=24),
        DonorGame(villagers=30),
        DonorGame(punishment=2.0),
        DonorGame(multiplier=100.0, rounds=12),
        DonorGame(endowment=1e-30),
    ],
)
def test_no_text_of_a_picture_is_cut_off_or_lies_over_another(game: DonorGame) -> None:
    rollout = Rollout(game, one_table(("anybody",) * game.villagers, 1), {"anybody": AnyLegal(game.roles[0])}, keeps_states=True)
    table = rollout.start(torch.tensor([1]))
    _, log = rollout.play(table, game.rounds)
    scenes = [game.describe(table.game, 0), *(game.describe(tree.rows_of(log.game, step), 0) for step in range(game.rounds))]
    assert [(cut_off(scene), overlapping(scene)) for scene in scenes] == [([], [])] * len(scenes)


def test_amounts_have_room_beside_the_discs() -> None:
    game = DonorGame(villagers=4, rounds=3, trace_depth=0)
    state, _ = play(game, [0.5, 0.5, 0, 0])
    told = [mark.text for mark in game.describe(state._replace(resources=torch.tensor([[0.00664, 999.96, 30720.0, 2e12]])), 0).marks]
    assert {"0.0", "1000.0", "30720", "2e+12"} < set(told)


def test_before_the_first_round_no_gift_is_drawn() -> None:
    game = DonorGame()
    state, _ = play(game)
    assert not [mark.text for mark in game.describe(state, 0).marks if "%" in mark.text]
    state, _ = play(game, [0.0] * 12)
    assert [mark.text for mark in game.describe(state, 0).marks if "%" in mark.text] == ["0%"] * 6


def test_a_readable_playthrough() -> None:
    names = (
        "punishing_villager",
        "image_scoring_villager",
        "standing_villager",
        "matching_villager",
        "free_riding_villager",
        "random_villager",
    )
    game = DonorGame(villagers=6, rounds=5, punishment=2.0)
    rollout = Rollout(game, one_table(names, 1), {name: co_player(name) for name in names}, keeps_states=True)
    table = rollout.start(torch.tensor([2]))
    _, log = rollout.play(table, 5)
    lines = [*(f"{seat}: {name}" for seat, name in enumerate(names)), game.describe(table.game, 0).text]
    lines += [game.describe(tree.rows_of(log.game, step), 0).text for step in range(5)]
    assert_golden("donor_game_villagers.txt", "\n".join(lines) + "\n")


# Settings.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"villagers": 11}, "villagers is 11; want an even number from 4"),
        ({"villagers": 2}, "villagers is 2; want an even number from 4"),
        ({"rounds": 0}, "rounds is 0; want from 1"),
        ({"rounds": 500}, "rounds is 500: with multiplier 2.0 resources could pass 1e30"),
        ({"endowment": 0.0}, "endowment is 0.0; want a finite number, from 1e-30 to 1e30"),
        ({"endowment": 1e-46}, "endowment is 1e-46; want a finite number, from 1e-30 to 1e30"),
        ({"multiplier": math.nan}, "multiplier is nan; want a finite number"),
        ({"multiplier": math.inf}, "multiplier is inf; want a finite number"),
        ({"multiplier": -1.0}, "multiplier is -1.0; want a finite number, from 1e-30 to 1e30"),
        ({"multiplier": 1e35, "endowment": 1e-30, "rounds": 1}, "multiplier is 1e+35; want a finite number, from 1e-30 to 1e30"),
        ({"levels": -1}, "levels is -1; want 0"),
        ({"trace_depth": 13}, "trace_depth is 13; want from 0 to 12, the number of rounds"),
        ({"trace_depth": -1}, "trace_depth is -1; want from 0"),
        ({"punishment": -2.0}, "punishment is -2.0; want 0"),
        ({"punishment": 1e39}, "punishment is 1e+39; want 0 (nobody may punish) or a number above, up to 1e30"),
        ({"games": 3}, "games is 3; want 1, or 2"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        DonorGame(**wrong)


def test_the_command_line_says_what_would_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "donor_game_quick", "game.villagers=11"]) == 2
    assert "villagers is 11; want an even number" in capsys.readouterr().err
    assert main(["train", "donor_game_quick", "game.trace_depth=99"]) == 2
    assert "trace_depth is 99; want from 0 to 12" in capsys.readouterr().err


# Scripted villagers. A trace is written as shares, newest first; None where nothing is known.


def answers(name: str, *traces: list[float] | None, punished: bool = False, levels: int = 0) -> list[float]:
    """What a villager does as a donor in the first step of its life, one row for each trace."""
    villager = co_player(name)
    depth = 3
    trace = torch.zeros(len(traces), depth, 2)
    for row, shares in enumerate(traces):
        for link, share in enumerate(shares or []):
            trace[row, link] = torch.tensor([1.0, share])
    seen = {"is_donor": torch.ones(len(traces), dtype=torch.int64), "trace": trace}
    if punished:
        seen["punished"] = torch.zeros(len(traces), dtype=torch.int64)
    if levels:
        seen["action_mask"] = torch.ones(len(traces), 1 + levels * (1 + punished), dtype=torch.int8)
    decision, _ = villager.act(seen, villager.start(torch.arange(len(traces))), torch.zeros(len(traces)))
    return pytest.approx(decision.action.tolist())


def test_constant_villagers_do_not_care() -> None:
    assert answers("constant_villager", None, [0.0], [1.0]) == [0.5, 0.5, 0.5]
    assert answers("constant_villager:gives=0.2", None, [0.0]) == [0.2, 0.2]
    assert answers("free_riding_villager", None, [1.0]) == [0, 0]


def test_matching_villagers_give_as_was_given() -> None:
    assert answers("matching_villager", None, [0.0], [0.3, 0.9], [1.0], [-0.5]) == [0.5, 0, 0.3, 1, 0]
    assert answers("matching_villager:first=1", None) == [1]


def test_image_scorers_look_at_the_last_gift_alone() -> None:
    assert answers("image_scoring_villager", None, [0.25], [0.24, 1.0], [1.0, 0.0], [-0.5]) == [0.5, 0.5, 0, 0.5, 0]
    assert answers("image_scoring_villager:gives=0.8,threshold=0.6,first=0.1", None, [0.5], [0.6]) == [0.1, 0, 0.8]


def test_standing_forgives_who_refused_a_refuser_but_not_who_refused_a_giver() -> None:
    assert answers("standing_villager", None, [0.5], [0.0]) == [0.5, 0.5, 0]
    # It refused one who had refused; it refused one who had given.
    assert answers("standing_villager", [0.0, 0.0], [0.0, 0.5], [0.5, 0.0]) == [0.5, 0, 0.5]
    # It refused one who had been right to refuse a refuser; it refused one who had wronged a giver.
    assert answers("standing_villager", [0.0, 0.0, 0.0], [0.0, 0.0, 0.5]) == [0, 0.5]


def test_punishers_punish_who_gave_too_little() -> None:
    assert answers("punishing_villager", None, [0.2], [0.25], [-0.5], punished=True) == [0.5, -0.2, 0.5, -0.2]


def test_in_a_discrete_game_villagers_take_the_nearest_choice() -> None:
    assert answers("constant_villager:gives=0.7", None, levels=4) == [3]
    assert answers("punishing_villager:gives=1,spends=0.6", [0.0], [0.5], punished=True, levels=4) == [6, 4]
    # Too little to be spent in these steps is nothing.
    assert answers("punishing_villager:spends=0.1", [0.0], punished=True, levels=4) == [0]


def test_random_villagers_give_any_share_and_recipients_none() -> None:
    villager = co_player("random_villager:up_to=0.5")
    seen = {"is_donor": torch.ones(4000, dtype=torch.int64)}
    state = villager.start(torch.arange(4000))
    first, state = villager.act(seen, state, torch.zeros(4000))
    second, state = villager.act(seen, state, torch.zeros(4000))
    assert not torch.equal(first.action, second.action)
    # A mean of 4000 even draws has a deviation of 0.0023.
    assert abs(first.action.mean().item() - 0.25) < 0.01
    assert 0 <= first.action.min() < 0.01 < 0.49 < first.action.max() < 0.5
    idle, after = villager.act({"is_donor": torch.zeros(4000, dtype=torch.int64)}, state, torch.zeros(4000))
    assert not idle.action.any()
    assert isinstance(after, Luck)
    assert after.clock[0] == 3


@pytest.mark.parametrize("name", ["image_scoring_villager", "standing_villager", "matching_villager"])
def test_where_nobody_hears_anything_villagers_act_as_with_strangers(name: str) -> None:
    villager = co_player(f"{name}:first=0.3")
    decision, _ = villager.act({"is_donor": torch.ones(2, dtype=torch.int64)}, villager.start(torch.arange(2)), torch.zeros(2))
    assert decision.action.tolist() == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("constant_villager:gives=1.5", "gives is 1.5; want a share from 0 to 1"),
        ("random_villager:up_to=-1", "up_to is -1.0; want a share"),
        ("matching_villager:first=2", "first is 2.0; want a share"),
        ("image_scoring_villager:threshold=2", "threshold is 2.0; want a share"),
        ("standing_villager:gives=2", "gives is 2.0; want a share"),
        ("punishing_villager:spends=-0.1", "spends is -0.1; want a share"),
    ],
)
def test_a_wrong_share_is_named(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        co_player(name)


def test_punishers_sit_only_where_one_may_punish() -> None:
    punisher = co_player("punishing_villager")
    check_fits("punishing_villager", punisher, make_game("donor_game_with_punishment").roles[0])
    with pytest.raises(BadInput, match="'punishing_villager' cannot play this game: it reads punished as 2 symbols"):
        check_fits("punishing_villager", punisher, make_game("donor_game").roles[0])
    with pytest.raises(BadInput, match="it reads is_donor as 2 symbols"):
        check_fits("constant_villager", co_player("constant_villager"), make_game("prisoners_dilemma").roles[0])


def test_image_scorers_keep_one_another_giving_and_leave_a_free_rider_alone() -> None:
    names = ("free_riding_villager", *["image_scoring_villager"] * 11)
    rollout = Rollout(DonorGame(), one_table(names, 64), {name: co_player(name) for name in names})
    _, log = rollout.play(rollout.start(torch.arange(64)), 12)
    # From its second turn as a recipient on it gets nothing: at most one gift of 5 arrives, doubled, before it has refused anybody.
    assert log.measures["resources"][-1][:, 0].max().item() == 20
    assert log.measures["gift"][:, :, 1:].nanmean().item() > 0.3


@pytest.mark.parametrize("settings", [{"endowment": 1e-30}, {"multiplier": 1e-30}, {"punishment": 1e30}])
def test_at_the_ends_of_what_is_allowed_everything_stays_a_number(settings: dict[str, float]) -> None:
    game = DonorGame(villagers=4, **settings)
    before = game.start(torch.tensor([0]))
    state, turns = play(game, [1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, -1.0 if game.punishment else 1.0])
    assert all(turn.rewards["villager"].isfinite().all() for turn in turns)
    assert game.observe(before)["villager"]["resources"][0, :, 0].tolist() == [1, 1, 1, 1]
    assert game.observe(state)["villager"]["resources"].isfinite().all()


# The suite and the preset.


def test_the_suite_seats_a_third_of_the_village_among_others() -> None:
    experiment = Experiment(game=DonorGame(), scheme=donor_game_quick().scheme, suite="donor_game")
    suite = load(SUITES["donor_game"])(experiment)
    suite.check_fits(experiment.game)
    assert {scenario.name: scenario.seats.count(FOCAL) for scenario in suite.scenarios} == {
        "themselves": 12,
        "village": 4,
        "image_scorers": 4,
        "standing": 4,
        "matchers": 4,
        "misers": 4,
        "random": 4,
    }
    check(donor_game_quick(), evaluates=True)
    (pairing,) = donor_game_quick().scheme.pairings
    assert suite.scenarios[1].seats == tuple(FOCAL if name == "learner_0" else name for name in pairing.seats)
    with pytest.raises(BadInput, match="suite 'donor_game' is for the donor game; try --suite together"):
        load(SUITES["donor_game"])(Experiment())


@pytest.mark.parametrize("villagers", [4, 6, 8, 10, 14])
def test_the_suite_fits_a_village_of_any_size(villagers: int) -> None:
    game = DonorGame(villagers=villagers)
    suite = load(SUITES["donor_game"])(Experiment(game=game, scheme=self_play()))
    suite.check_fits(game)
    assert suite.scenarios[1].seats.count("free_riding_villager") >= 1


def test_a_scheme_of_more_seats_says_what_would_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "donor_game_quick", "game.villagers=8"]) == 2
    assert capsys.readouterr().err == (
        "error: the scheme seats 12 (village), DonorGame has 8 seats; want a game of 12 seats or another scheme, such as scheme=self_play\n"
    )
    check(override(donor_game_quick(), "game.villagers=8", "scheme=self_play"), evaluates=True)


@pytest.mark.parametrize("depth", [0, 3])
def test_the_preset_learns_with_and_without_a_trace(depth: int) -> None:
    experiment = override(override(donor_game_quick(), f"game.trace_depth={depth}"), "trials=12")
    trainer = PlainTrainer(experiment, {name: co_player(name) for name in experiment.scheme.co_players(experiment.game)})
    before = [parameter.clone() for parameter in trainer.agents["learner_0"].parameters()]
    trainer.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.agents["learner_0"].parameters(), strict=True))
