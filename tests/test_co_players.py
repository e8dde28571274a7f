"""Co-players, by letters: C cooperates, D defects. What the other does is given, what they answer is expected."""

import contextlib
import inspect
import re
from typing import get_type_hints

import numpy as np
import pytest
import torch
from beartype.door import is_bearable
from scipy import stats

from agents.co_players import CO_PLAYERS
from agents.co_players.counters import Feld, Majority, Tullock
from agents.co_players.machines import contrite_tit_for_tat, cycler, davis, grim_trigger, nydegger, remorseful_prober
from agents.co_players.memory_two import MemoryTwo, RandomMemoryTwo
from agents.co_players.tables import (
    AmongTables,
    RandomReactive,
    RandomTable,
    Table,
    equalizer,
    extortion,
    firm_but_fair,
    generosity,
    generous_tit_for_tat,
    grofman,
    joss,
    random,
    reactive,
    zero_determinant,
)
from agents.occupant import Decision, Occupant
from envs import GAMES
from envs.chance import Purpose, seeds_of
from envs.face import make_game
from envs.game import ACTION_MASK, seats_of
from envs.iterated_dilemma import IteratedDilemma
from tests.games import AnyLegal
from training.occupants import check_fits
from training.population import co_player
from training.rollout import Rollout
from training.seating import one_table
from training.settings import BadInput, load

# What a player sees after (own action, the other's action).
SYMBOL = {"": 0, "CC": 1, "CD": 2, "DC": 3, "DD": 4}


def seeds(count, first=0):
    return seeds_of(20251123, Purpose.OCCUPANT, count, first=first)


def sees(situation, count):
    return {"outcome": torch.full((count,), SYMBOL[situation])}


def answers(name, others, count=1):
    """What `count` players of that name do while the other plays the letters `others`: [rounds, count] actions."""
    player = co_player(name)
    state, outcome, actions = player.start(seeds(count)), torch.zeros(count, dtype=torch.int64), []
    for letter in others:
        decision, state = player.act({"outcome": outcome}, state, torch.zeros(count))
        actions.append(decision.action)
        outcome = 1 + 2 * decision.action + "CD".index(letter)
    return torch.stack(actions)


def letters(actions):
    return "".join("CD"[action] for action in actions)


def cooperation_in(player, situation, count=20_000):
    """How often a player cooperates at first sight of a situation."""
    decision, _ = player.act(sees(situation, count), player.start(seeds(count)), torch.zeros(count))
    return (decision.action == 0).double().mean().item()


def cooperation_after(player, *situations):
    """With what probability a player cooperates after it saw these situations, one a round."""
    state = player.start(seeds(1))
    for situation in situations:
        decision, state = player.act(sees(situation, 1), state, torch.zeros(1))
    return decision.policy[0, 0].item()


def says(player, *situations):
    """What a player does, by letters, while it sees these situations."""
    state, played = player.start(seeds(1)), ""
    for situation in situations:
        decision, state = player.act(sees(situation, 1), state, torch.zeros(1))
        played += letters(decision.action)
    return played


def play(names, trials, rounds=100, first=0, game=None, **occupants):
    """The rollout's log of one trial each, and the rollout."""
    rollout = Rollout(
        game or IteratedDilemma(rounds=rounds), one_table(names, trials), {name: occupants.get(name) or co_player(name) for name in names}
    )
    _, log = rollout.play(rollout.start(seeds_of(7, Purpose.TRIAL, trials, first=first)), rounds)
    return log, rollout


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("always_cooperate", "DDCDC", "CCCCC"),
        ("always_defect", "DDCDC", "DDDDD"),
        ("tit_for_tat", "DDCDC", "CDDCD"),
        ("tit_for_tat", "CCCCC", "CCCCC"),
        ("win_stay_lose_shift", "DDCDC", "CDCCD"),
        ("win_stay_lose_shift", "CDDDD", "CCDCD"),
        ("win_stay_lose_shift", "DCCCD", "CDDDD"),
        ("grim_trigger", "CCDCC", "CCCDD"),
        ("grim_trigger", "DDCDC", "CDDDD"),
        ("grim_trigger", "CCCCC", "CCCCC"),
        ("alternator", "DDDCC", "CDCDC"),
        ("cycler", "DDDCCDD", "CCDCCDC"),
        ("suspicious_tit_for_tat", "CDC", "DCD"),
        ("reactive", "DDCDC", "CDDCD"),
        ("table", "DDCDC", "CDDCD"),
        ("contrite_tit_for_tat", "DDCDC", "CDDCD"),
        ("anti_tit_for_tat", "CCDD", "CDDC"),
        ("bully", "CCDD", "DDDC"),
        ("win_shift_lose_stay", "CCDDC", "DCDDD"),
        ("appeaser", "DDCDC", "CDCCD"),
        ("tit_for_two_tats", "DDCDDD", "CCDCCD"),
        ("memory_two", "DDCDDD", "CCDCCD"),
        ("two_tits_for_tat", "DCCCDDC", "CDDCCDD"),
        ("hard_tit_for_tat", "DCCCCDC", "CDDDCCD"),
        ("hard_tit_for_two_tats", "DDCCCDCD", "CCDDCCCC"),
        ("slow_tit_for_tat", "DDCDCCD", "CCDDDDC"),
        ("spiteful_tit_for_tat", "DCDDCC", "CDCDDD"),
        ("soft_grudger", "DCCCCCCDC", "CDDDDCCCD"),
        # A defection in the first round of making up is overlooked, in the second it is not.
        ("soft_grudger", "DCCCCDCCC", "CDDDDCCCC"),
        ("soft_grudger", "DCCCCCDCC", "CDDDDCCDD"),
        ("fool_me_once", "DCDCC", "CCCDD"),
        ("forgiver", "DCCCCCCCCCCC", "CDDDDDDDDDCC"),
        ("gradual", "DCCCDCCCCC", "CDCCCDDCCC"),
        ("gradual", "DDDDDDDDDDDDD", "CDCCDDCCDDDCC"),
        ("soft_majority", "DCCDDD", "CDCCCD"),
        ("hard_majority", "DCCDDD", "DDDCDD"),
        ("davis", "DCCCCCCCCCCC", "CCCCCCCCCCDD"),
        ("davis", "CCCCCCCCCCDCC", "CCCCCCCCCCCDD"),
        ("davis", "CCCCCCCCCDCCC", "CCCCCCCCCCDDD"),
        ("shubik", "DDCDDDC", "CDCCDDC"),
        ("nydegger", "CCCCC", "CCCCC"),
        # Sums 62, 47 and 43: it gives in. Then 22, on the list, and 21, not on it.
        ("nydegger", "DDDDDD", "CDDCCC"),
        ("nydegger", "DCCCC", "CDDDC"),
        ("handshake", "CDDD", "CDCC"),
        ("handshake", "CCDD", "CDDD"),
        ("handshake", "DDCC", "CDDD"),
        ("prober", "CCCDC", "DCCDD"),
        ("prober", "CDCDC", "DCCCD"),
        ("prober", "CCDCC", "DCCDC"),
        ("prober_2", "CDCDD", "DCCCC"),
        ("prober_2", "CCCDC", "DCCCD"),
        ("prober_2", "CDDCD", "DCCDC"),
        ("prober_3", "CCDCD", "DCDDD"),
        ("prober_3", "CDDCD", "DCDDC"),
        ("hard_prober", "CCCDCD", "DDCCDD"),
        ("hard_prober", "CDCDCD", "DDCCDC"),
        ("hard_prober", "CCDCCC", "DDCCCC"),
    ],
)
def test_a_strategy_answers_these_moves_with_those(name, others, expected):
    assert letters(answers(name, others)[:, 0]) == expected


def test_grim_is_provoked_by_the_others_defection_alone():
    player = grim_trigger()
    for situation, expected in (("", "C"), ("CC", "C"), ("DC", "C"), ("CD", "D"), ("DD", "D")):
        decision, _ = player.act(sees(situation, 1), player.start(seeds(1)))
        assert letters(decision.action) == expected
    # Its own slip, a DC that it did not mean, leaves it friendly; later cooperation does not soothe it.
    state, played = player.start(seeds(1)), ""
    for situation in ("", "DC", "CC", "CD", "DC", "DC", "CC"):
        decision, state = player.act(sees(situation, 1), state)
        played += letters(decision.action)
    assert played == "CCCDDDD"


def test_grim_bears_a_grudge_row_by_row():
    player = grim_trigger()
    _, state = player.act({"outcome": torch.tensor([1, 2, 3, 4])}, player.start(seeds(4)))
    decision, _ = player.act({"outcome": torch.tensor([1, 1, 1, 1])}, state)
    assert letters(decision.action) == "CDCD"


def test_contrite_tit_for_tat_takes_the_answer_to_its_own_slip():
    # It meant to cooperate in the second round and did not; the other's tit for tat in the third is not paid back.
    assert says(contrite_tit_for_tat(), "", "CC", "DC", "CD", "CC") == "CCCCC"
    # Contrite until it has cooperated: after two slips in a row too.
    assert says(contrite_tit_for_tat(), "", "DC", "DD", "CD", "CC") == "CCCCC"
    # Both in bad standing: its next slip is no just answer, so that the other's is one.
    assert says(contrite_tit_for_tat(), "", "DD", "DC", "CD") == "CCCC"
    # The other's slip, its answer, and the other's cooperation in spite of the answer.
    assert says(contrite_tit_for_tat(), "", "CD", "DC", "CC") == "CDCC"
    # The answer to an answer is an offence.
    assert says(contrite_tit_for_tat(), "", "CD", "DD", "DD", "DC") == "CDDDC"


def test_slow_tit_for_tat_repeats_what_it_really_did():
    # It saw CD after CC, and repeats its own last action, a slip.
    assert says(co_player("slow_tit_for_tat"), "", "CC", "DD") == "CCD"


def test_nydegger_punishes_an_exchange_of_defections_that_the_other_began():
    # The exception in the third round, where tit-for-tat would cooperate; had it not answered in the second, it would.
    assert says(nydegger(), "", "CD", "DC") == "CDD"
    assert says(nydegger(), "", "CD", "CC") == "CDC"


def test_remorseful_prober_takes_the_answer_to_a_defection_that_it_tried():
    player = remorseful_prober(0.25)
    assert [cooperation_after(player, *seen) for seen in ([""], ["", "CC"], ["", "CD"])] == [1.0, 0.75, 0.0]
    assert cooperation_after(player, "", "CC", "DC", "CD") == 1.0
    # Only the first answer, and none to a defection that was an answer itself.
    assert cooperation_after(player, "", "CC", "DC", "CD", "CD") == 0.0
    assert cooperation_after(player, "", "CD", "DC", "CD") == 0.0
    with pytest.raises(ValueError, match=r"defection is 2.0; want a probability from 0 to 1"):
        remorseful_prober(2.0)


def test_tullock_cooperates_a_tenth_less_than_the_other_in_its_last_ten_rounds():
    assert cooperation_after(Tullock(), "", *["CD"] * 10) == 1.0
    assert cooperation_after(Tullock(), "", *["CC"] * 11) == pytest.approx(0.9)
    assert cooperation_after(Tullock(), "", *["CC"] * 6, *["CD"] * 5) == pytest.approx(0.4)
    assert cooperation_after(Tullock(), "", *["CD"] * 3, *["CC"] * 8) == pytest.approx(0.7)
    assert cooperation_after(Tullock(), "", "CC", *["DD"] * 10) == 0.0


def test_feld_returns_cooperation_less_and_less():
    assert cooperation_after(Feld(), "") == 1.0
    assert cooperation_after(Feld(), "", *["CC"] * 100) == pytest.approx(0.75)
    assert cooperation_after(Feld(), "", *["CC"] * 200) == pytest.approx(0.5)
    assert cooperation_after(Feld(), "", *["CC"] * 300) == pytest.approx(0.5)
    assert cooperation_after(Feld(), "", *["CC"] * 100, "CD") == 0.0
    assert cooperation_after(Feld(end=0.0, rounds=4), "", "CC", "DC") == pytest.approx(0.5)


def test_a_game_that_starts_again_is_no_round_for_those_who_remember():
    assert says(grim_trigger(), "", "CD", "", "CC") == "CDDD"
    assert says(co_player("two_tits_for_tat"), "", "CD", "", "DC", "DC") == "CDDDC"
    assert says(co_player("soft_majority"), "", "CD", "", "", "DC") == "CDDDC"
    assert cooperation_after(Tullock(), "", *["CD"] * 10, *[""] * 5) == 0.0


def test_settings_change_what_the_classics_do():
    assert says(cycler("DDC"), "", *["CC"] * 6) == "DDCDDCD"
    assert says(davis(2), "", "CD", "CC", "CC") == "CCDD"
    assert says(davis(0), "", "CD", "CC") == "CDD"
    assert says(Majority(0.25), "", "CD", "CC", "CC", "CC", "CD") == "CDDDCD"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: cycler(""), r"pattern is ''; want letters C and D, such as 'CCD'"),
        (lambda: cycler("CXD"), r"pattern is 'CXD'; want letters C and D"),
        (lambda: davis(-1), r"rounds is -1; want from 0 to 1,000"),
        (lambda: Majority(1.5), r"share is 1.5; want a share from 0 to 1"),
        (lambda: Feld(end=-0.5), r"end is -0.5; want a probability from 0 to 1"),
        (lambda: Feld(rounds=0), r"rounds is 0; want at least 1"),
        (lambda: reactive(after_d=1.5), r"cooperates is .*1.5.*; want five probabilities"),
        (lambda: MemoryTwo((0.5,) * 5), r"cooperates is .*; want 21 probabilities, for start, CC, CD, DC, DD, CC CC, CC CD, "),
        (lambda: RandomTable(a=0.0), r"a is 0.0; want one number above 0, or 5 of them"),
        (lambda: RandomTable(b=(1.0, 2.0)), r"b is \(1.0, 2.0\); want one number above 0, or 5 of them"),
        (lambda: RandomReactive(a=float("inf")), r"a is inf; want one number above 0, or 3 of them"),
        (lambda: RandomMemoryTwo(levels=1), r"levels is 1; want 0 \(any probability\) or at least 2"),
        (lambda: AmongTables(()), r"tables is \(\); want one or more of five probabilities"),
        (lambda: AmongTables(weights=(1.0, 2.0)), r"weights is \(1.0, 2.0\); want 4 numbers from 0, not all 0"),
        (lambda: AmongTables(weights=(0.0,) * 4), r"weights is .*; want 4 numbers from 0, not all 0"),
        (
            lambda: zero_determinant(baseline=7.0),
            r"slope is 0.5 and baseline is 7.0; no such table, want a slope from 0 to 1 and a baseline",
        ),
        (lambda: zero_determinant(slope=1.5), r"slope is 1.5 and baseline is 0.5; no such table"),
        (lambda: zero_determinant(slope=-1.5), r"slope is -1.5 and baseline is 0.5; no such table"),
        (lambda: zero_determinant(slope=float("nan")), r"slope is nan and baseline is 0.5; no such table"),
        (lambda: equalizer(1.5), r"slope is 0.0 and baseline is 1.5; no such table, .* from 0.0 to 1.0"),
        (lambda: extortion(scale=0.0), r"scale is 0.0; want a share above 0, up to 1"),
        (lambda: generosity(0.5), r"slope is 0.5; want at least 1"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(make, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_generous_tit_for_tat_forgives_a_third_of_defections():
    player = generous_tit_for_tat()
    assert [cooperation_in(player, situation) for situation in ("", "CC", "DC")] == [1.0, 1.0, 1.0]
    # Four standard errors of a frequency in 20,000.
    assert abs(cooperation_in(player, "CD") - 1 / 3) < 0.0134
    assert abs(cooperation_in(player, "DD") - 1 / 3) < 0.0134
    assert abs(cooperation_in(generous_tit_for_tat(0.1), "DD") - 0.1) < 0.0085


def test_random_cooperates_half_the_time_whatever_happens():
    actions = answers("random", "CD" * 10, 2000)
    assert abs(actions.double().mean().item() - 0.5) < 0.01
    pairs = (actions[:-1] * 2 + actions[1:]).flatten().bincount(minlength=4)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("probs", [(0.9, 0.7, 0.5, 0.3, 0.1)])
def test_a_table_is_read_in_the_order_start_cc_cd_dc_dd_own_action_first(probs):
    for situation, probability in zip(SYMBOL, probs, strict=True):
        assert abs(cooperation_in(Table(probs), situation) - probability) < 0.0142


@pytest.mark.parametrize("cooperates", [(0.5, 0.5, 0.5, 0.5, 1.1), (-0.1, 0.5, 0.5, 0.5, 0.5), (float("nan"),) * 5])
def test_a_table_holds_probabilities(cooperates):
    with pytest.raises(ValueError, match=r"cooperates is .*; want five probabilities, for start, CC, CD, DC, DD"):
        Table(cooperates)


def test_a_random_table_is_five_independent_even_draws():
    tables = RandomTable().start(seeds(20_000)).cooperates.double()
    assert tables.shape == (20_000, 5)
    for situation in range(5):
        assert stats.kstest(tables[:, situation].numpy(), "uniform").pvalue > 1e-3
    off_diagonal = torch.corrcoef(tables.T) - torch.eye(5)
    assert off_diagonal.abs().max() < 4 / 20_000**0.5


def test_a_random_table_of_a_seed_stays_what_it_was():
    drawn = RandomTable().start(torch.tensor([1, 2])).cooperates * 2**24
    assert drawn.tolist() == [[14887452, 12698378, 2566865, 7963023, 7720733], [10349861, 14993159, 2894093, 5679441, 2376368]]


@pytest.mark.parametrize(
    ("a", "b", "below_half"),
    # The distribution function at 1/2: 1 - (1 - 1/2^a)^b.
    [(1.0, 1.0, 0.5), (2.0, 1.0, 0.25), (1.0, 2.0, 0.75), (0.5, 0.5, 0.4588)],
)
def test_a_shape_bends_every_probability(a, b, below_half):
    tables = RandomTable(a=a, b=b).start(seeds(20_000)).cooperates
    assert tables.dtype == torch.float32
    # Four standard errors of a frequency in 20,000.
    assert ((tables < 0.5).double().mean(0) - below_half).abs().max() < 0.0142


def test_every_situation_has_its_own_shape():
    tables = RandomTable(a=(1.0, 2.0, 1.0, 1.0, 1.0), b=(1.0, 1.0, 1.0, 1.0, 2.0)).start(seeds(20_000)).cooperates
    below_half = (tables < 0.5).double().mean(0)
    assert (below_half - torch.tensor([0.5, 0.25, 0.5, 0.5, 0.75])).abs().max() < 0.0142
    assert torch.equal(tables[:, [0, 2, 3]], RandomTable().start(seeds(20_000)).cooperates[:, [0, 2, 3]])


@pytest.mark.parametrize(("levels", "values"), [(2, [0.0, 1.0]), (3, [0.0, 0.5, 1.0]), (5, [0.0, 0.25, 0.5, 0.75, 1.0])])
def test_levels_are_evenly_spaced_and_equally_frequent(levels, values):
    found, counts = RandomTable(levels=levels).start(seeds(4_000)).cooperates.unique(return_counts=True)
    assert found.tolist() == values
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_pure_strategies_lean_as_their_shape_does():
    tables = RandomTable(a=2.0, levels=2).start(seeds(20_000)).cooperates
    assert (tables.double().mean(0) - 0.75).abs().max() < 0.0123


def test_a_random_reactive_strategy_looks_at_nothing_but_the_others_last_action():
    tables = RandomReactive().start(seeds(20_000)).cooperates.double()
    assert torch.equal(tables[:, 1], tables[:, 3])
    assert torch.equal(tables[:, 2], tables[:, 4])
    for situation in range(3):
        assert stats.kstest(tables[:, situation].numpy(), "uniform").pvalue > 1e-3
    assert (torch.corrcoef(tables[:, :3].T) - torch.eye(3)).abs().max() < 4 / 20_000**0.5


def test_one_of_several_tables_is_drawn_by_its_weight():
    tables = ((0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 0.0, 1.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0))
    drawn = AmongTables(tables, (3.0, 1.0, 0.0)).start(seeds(20_000)).cooperates
    first = (drawn == torch.tensor(tables[0])).all(1)
    second = (drawn == torch.tensor(tables[1])).all(1)
    assert (first | second).all()
    assert abs(first.double().mean().item() - 0.75) < 0.0123


def test_several_tables_without_weights_are_equally_frequent():
    drawn = AmongTables().start(seeds(4_000)).cooperates
    found, counts = drawn.unique(dim=0, return_counts=True)
    classics = [[0, 0, 0, 0, 0], [1, 1, 0, 0, 1], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]]
    assert found.tolist() == classics
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("seen", "situation"),
    [
        ([""], 0),
        (["", "CC"], 1),
        (["", "CD"], 2),
        (["", "DC"], 3),
        (["", "DD"], 4),
        (["", "CC", "CC"], 5),
        (["", "CC", "DD"], 8),
        (["", "CD", "CC"], 9),
        (["", "DC", "CD"], 14),
        (["", "DD", "DD"], 20),
        (["", "CC", "DC", "CD"], 14),
        # The game starts again.
        (["", "CC", "DC", ""], 0),
        (["", "CC", "DC", "", "CD"], 2),
        (["", "CC", "DC", "", "CD", "CC"], 9),
    ],
)
def test_a_memory_two_table_is_read_in_the_order_it_promises(seen, situation):
    player = MemoryTwo(tuple(place / 32 for place in range(21)))
    assert cooperation_after(player, *seen) == situation / 32


def test_a_random_memory_two_table_is_21_independent_even_draws():
    player = RandomMemoryTwo()
    state = player.start(seeds(20_000))
    tables = state.cooperates.double()
    assert tables.shape == (20_000, 21)
    # 21 tests at once.
    assert min(stats.kstest(tables[:, situation].numpy(), "uniform").pvalue for situation in range(21)) > 1e-4
    assert (torch.corrcoef(tables.T) - torch.eye(21)).abs().max() < 5 / 20_000**0.5
    decision, after = player.act(sees("", 20_000), state)
    assert torch.equal(decision.policy[:, 0], state.cooperates[:, 0])
    assert torch.equal(after.cooperates, state.cooperates)
    assert set(RandomMemoryTwo(levels=2).start(seeds(50)).cooperates.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("player", "cooperates"),
    [
        (random(0.25), (0.25, 0.25, 0.25, 0.25, 0.25)),
        (reactive(0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 0.2, 0.3)),
        (joss(), (1.0, 0.9, 0.0, 0.9, 0.0)),
        (firm_but_fair(), (1.0, 1.0, 0.0, 1.0, 0.6667)),
        (grofman(), (1.0, 1.0, 0.2857, 0.2857, 1.0)),
    ],
)
def test_a_table_by_name_holds_these_probabilities(player, cooperates):
    assert player.cooperates == pytest.approx(cooperates, abs=1e-4)


@pytest.mark.parametrize("player", [RandomTable(), RandomReactive(a=2.0), AmongTables(), joss()])
def test_a_memory_one_table_tells_its_five_probabilities(player):
    state = player.start(seeds(30))
    told = player.cooperates_in(state)
    assert told.shape == (30, 5)
    for situation, symbol in SYMBOL.items():
        decision, _ = player.act(sees(situation, 30), state)
        assert torch.equal(told[:, symbol], decision.policy[:, 0])


def test_a_random_table_stays_the_same_within_a_trial_and_is_drawn_anew_for_the_next():
    player = RandomTable()
    first = state = player.start(seeds(50))
    for situation in ("", "CD", "DD", "CC"):
        _, state = player.act(sees(situation, 50), state)
    assert torch.equal(state.cooperates, first.cooperates)
    assert not (player.start(seeds(50, first=50)).cooperates == first.cooperates).any()


def test_a_random_table_plays_by_its_own_numbers():
    player = RandomTable()
    state = player.start(seeds(10))
    probs, cooperations = state.cooperates[:, SYMBOL["DC"]], torch.zeros(10)
    for _ in range(4000):
        decision, state = player.act(sees("DC", 10), state)
        cooperations += decision.action == 0
    # A frequency in 4,000 has a standard error of at most 0.0079.
    assert (cooperations / 4000 - probs).abs().max() < 0.03


def test_what_a_random_table_does_first_is_independent_of_its_other_numbers():
    player = RandomTable()
    state = player.start(seeds(20_000))
    decision, _ = player.act(sees("", 20_000), state)
    cooperates = (decision.action == 0).double()
    correlations = torch.corrcoef(torch.cat([cooperates[:, None], state.cooperates.double()], 1).T)[0, 1:]
    # With its first number p it is sqrt(1/12) / sqrt(1/4) = 0.577.
    assert abs(correlations[0].item() - 0.577) < 0.02
    assert correlations[1:].abs().max() < 4 / 20_000**0.5


def long_run_payoffs(x, y, payoffs):
    """Mean payoffs of two memory-one players, from the stationary distribution over CC, CD, DC, DD (x's action first)."""
    temptation, mutual, punishment, sucker = payoffs
    # The column player sees CD as DC.
    pairs = list(zip(x, np.array(y)[[0, 2, 1, 3]], strict=True))
    transitions = np.array([[p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)] for p, q in pairs])
    equations = np.vstack([transitions.T - np.eye(4), np.ones(4)])
    stationary = np.linalg.lstsq(equations, np.array([0, 0, 0, 0, 1.0]), rcond=None)[0]
    return stationary @ [mutual, sucker, temptation, punishment], stationary @ [mutual, temptation, sucker, punishment]


@pytest.mark.parametrize("slope", [1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("payoffs", [(2.0, 1.0, 0.0, -1.0), (5.0, 3.0, 1.0, 0.0), (4.0, 3.0, 2.0, -2.0)])
def test_an_extortioner_surplus_is_slope_times_the_others(slope, payoffs):
    x = extortion(slope, *payoffs).cooperates[1:]
    surpluses = []
    for y in np.random.Generator(np.random.PCG64(1)).uniform(0.05, 0.95, (20, 4)):
        mine, others = np.array(long_run_payoffs(x, y, payoffs)) - payoffs[2]
        assert abs(mine - slope * others) < 1e-9
        surpluses.append(abs(others))
    assert max(surpluses) > 0.1


def test_extortion_takes_the_default_payoffs_of_our_game():
    assert extortion(2.0) == extortion(2.0, 2.0, 1.0, 0.0, -1.0)


def test_extortion_is_press_and_dysons_at_the_largest_scale():
    # For slope 3 and payoffs 5, 3, 1, 0 they print (11/13, 1/2, 7/26, 0) at half the largest scale.
    assert extortion(3.0, 5.0, 3.0, 1.0, 0.0).cooperates == pytest.approx((0, 9 / 13, 0, 7 / 13, 0))


def test_half_the_largest_scale_is_press_and_dysons_own_example():
    # Their phi = 1/26, where 1/13 is the largest.
    assert extortion(3.0, 5.0, 3.0, 1.0, 0.0, scale=0.5).cooperates == pytest.approx((0, 11 / 13, 1 / 2, 7 / 26, 0))


@pytest.mark.parametrize(
    ("player", "cooperates"),
    # Stewart and Plotkin 2012, ZDGTFT-2 and ZDSet-2, for payoffs 5, 3, 1, 0.
    [
        (generosity(2.0, 5.0, 3.0, 1.0, 0.0), (1, 1, 1 / 8, 1, 1 / 4)),
        (equalizer(2.0, 5.0, 3.0, 1.0, 0.0, scale=0.75), (1, 3 / 4, 1 / 4, 1 / 2, 1 / 4)),
    ],
)
def test_the_generous_and_the_setter_are_stewart_and_plotkins(player, cooperates):
    assert player.cooperates == pytest.approx(cooperates)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(("slope", "baseline"), [(0.5, 0.0), (0.25, 1.0), (0.8, 0.3), (0.0, 0.25), (-0.2, 0.5)])
def test_a_zero_determinant_table_holds_the_others_payoff_on_its_line(slope, baseline, scale):
    payoffs = (2.0, 1.0, 0.0, -1.0)
    x = zero_determinant(slope, baseline, scale).cooperates[1:]
    seen = []
    for y in np.random.Generator(np.random.PCG64(2)).uniform(0.05, 0.95, (20, 4)):
        mine, others = long_run_payoffs(x, y, payoffs)
        assert abs((others - baseline) - slope * (mine - baseline)) < 1e-9
        seen.append(mine)
    assert max(seen) - min(seen) > 0.05


def test_a_generous_table_loses_twice_what_the_other_lacks():
    x = generosity(2.0).cooperates[1:]
    for y in np.random.Generator(np.random.PCG64(3)).uniform(0.05, 0.95, (20, 4)):
        mine, others = long_run_payoffs(x, y, (2.0, 1.0, 0.0, -1.0))
        assert abs((1 - mine) - 2 * (1 - others)) < 1e-9
        assert mine < others


def test_an_equalizer_lets_nobody_earn_more_or_less():
    rewards = [mean_rewards(("equalizer", other), 400)[1] for other in ("always_cooperate", "always_defect", "tit_for_tat")]
    # The first round adds up to 0.015 to 0.5; a mean of 400 trials has an error of about 0.01.
    assert rewards == pytest.approx([0.5, 0.5, 0.5], abs=0.05)


def test_extortion_with_slope_1_is_tit_for_tat_after_a_defection():
    assert extortion(1.0).cooperates == pytest.approx((0, 1, 0, 1, 0))


def test_an_extortioner_opens_with_defection_and_never_forgives_twice():
    assert (answers("extortion", "CCC", 500)[0] == 1).all()
    assert [cooperation_in(extortion(), situation) for situation in ("", "DD")] == [0.0, 0.0]


def test_extortion_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match=r"slope is 0.5; want at least 1"):
        extortion(0.5)


SENTENCE = re.compile(r"[A-Z0-9](?!.*[.!?] [A-Z]).*\.")

OF_DILEMMAS = [name for name, path in CO_PLAYERS.items() if load(path)().reads == {"outcome": 5}]
each_of_dilemmas = pytest.mark.parametrize("name", OF_DILEMMAS)
each_co_player = pytest.mark.parametrize("name", CO_PLAYERS)


@each_of_dilemmas
def test_the_same_seeds_give_the_same_play(name):
    first, again = (play((name, "random_table"), 40, rounds=20)[0] for _ in range(2))
    for one, other in zip(first.decisions, again.decisions, strict=True):
        assert torch.equal(one.action, other.action)


@pytest.mark.parametrize(
    "name",
    [
        *("random_table", "random_reactive", "random_memory_two", "among_tables", "generous_tit_for_tat", "extortion", "random"),
        *("joss", "grofman", "feld", "remorseful_prober", "generosity", "equalizer", "naive_learner"),
    ],
)
def test_other_seeds_give_other_play(name):
    outcomes = torch.randint(5, (20, 40), generator=torch.Generator().manual_seed(4))

    def actions(first):
        player = co_player(name)
        state, played = player.start(seeds(40, first)), []
        for outcome in outcomes:
            decision, state = player.act({"outcome": outcome}, state, torch.zeros(40))
            played.append(decision.action)
        return torch.stack(played)

    assert torch.equal(actions(0), actions(0))
    assert not torch.equal(actions(0), actions(40))


@each_of_dilemmas
def test_rows_are_strangers_and_only_their_own_seeds_matter(name):
    player = load(CO_PLAYERS[name])()
    outcomes = torch.randint(5, (8, 12), generator=torch.Generator().manual_seed(3))

    def actions(rows):
        state, played = player.start(seeds(12)[rows]), []
        for outcome in outcomes[:, rows]:
            decision, state = player.act({"outcome": outcome}, state, torch.zeros(len(rows)))
            played.append(decision.action)
        return torch.stack(played)

    rows = torch.tensor([7, 0, 3])
    assert torch.equal(actions(rows), actions(torch.arange(12))[:, rows])


@each_of_dilemmas
def test_acting_leaves_the_old_state_and_says_with_what_probability(name):
    player = load(CO_PLAYERS[name])()
    assert isinstance(player, Occupant)
    state = player.start(seeds(30))
    before = [leaf.clone() for leaf in state]
    decision, _ = player.act({"outcome": torch.arange(30) % 5}, state, torch.zeros(30))
    assert all(torch.equal(old, new) for old, new in zip(before, state, strict=True))
    assert isinstance(decision, Decision)
    assert (decision.action.shape, decision.action.dtype) == ((30,), torch.int64)
    torch.testing.assert_close(decision.policy.sum(-1), torch.ones(30))
    assert decision.policy.gather(-1, decision.action[:, None]).gt(0).all()


@each_of_dilemmas
def test_nobody_leaves_the_device_or_waits_for_it(name):
    # On the meta device there are no numbers: whoever asks for one fails.
    player = load(CO_PLAYERS[name])()
    state = player.start(torch.zeros(3, dtype=torch.int64, device="meta"))
    observation = {"outcome": torch.zeros(3, dtype=torch.int64, device="meta")}
    decision, after = player.act(observation, state, torch.zeros(3, device="meta"))
    for old, new in zip(state, after, strict=True):
        assert (old.device.type, new.device.type) == ("meta", "meta")
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
        assert old.dtype in (torch.float32, torch.int64, torch.bool)
    assert (decision.action.device.type, decision.policy.device.type) == ("meta", "meta")
    assert decision.policy.dtype == torch.float32


@each_co_player
def test_every_setting_has_a_default_of_its_type(name):
    factory = load(CO_PLAYERS[name])
    hints = get_type_hints(factory)
    for setting in inspect.signature(factory).parameters.values():
        assert is_bearable(setting.default, hints[setting.name])


@each_co_player
def test_a_co_player_is_told_in_one_sentence(name):
    first = load(CO_PLAYERS[name]).__doc__.splitlines()[0]
    assert SENTENCE.fullmatch(first)
    assert len(first) <= 100


def test_the_policy_gives_the_probability_to_cooperate_first():
    decision, _ = Table((0.0, 0.0, 0.25, 0.0, 0.0)).act(sees("CD", 2), Table((0.0, 0.0, 0.25, 0.0, 0.0)).start(seeds(2)))
    assert decision.policy.tolist() == [[0.25, 0.75]] * 2


def mean_rewards(names, trials, **others):
    log, _ = play(names, trials, **others)
    return log.rewards["player"].double().mean((0, 1)).tolist()


def test_a_defector_earns_what_the_paper_says_from_random_tables():
    mine, theirs = mean_rewards(("always_defect", "random_table"), 10_000)
    # Weis et al. 2026: 1.003 per round in theirs, 1 in theory; the table's side gets -1 for every cooperation, half as much.
    assert abs(mine - 1.003) < 0.02
    assert abs(theirs + mine / 2) < 1e-9


def test_tit_for_tat_is_cheated_once_by_a_defector():
    assert mean_rewards(("tit_for_tat", "always_defect"), 3) == pytest.approx([-0.01, 0.02])


def test_grim_and_win_stay_lose_shift_stay_friends():
    assert mean_rewards(("grim_trigger", "win_stay_lose_shift"), 3) == [1.0, 1.0]


def test_win_stay_lose_shift_keeps_offering_to_a_defector():
    assert mean_rewards(("win_stay_lose_shift", "always_defect"), 3) == [-0.5, 1.0]


def test_slips_break_tit_for_tats_friendship_and_generosity_mends_it():
    game = IteratedDilemma(rounds=100, noise=0.05)
    strict = mean_rewards(("tit_for_tat", "tit_for_tat"), 200, game=game)
    generous = mean_rewards(("generous_tit_for_tat", "generous_tit_for_tat"), 200, game=game)
    # In the long run strict pairs cooperate half the time; generous ones most of it.
    assert 0.45 < np.mean(strict) < 0.65
    assert 0.75 < np.mean(generous) < 0.9


class BestResponses:
    """Plays, in every row, the best response to a table that is known: action[round][row][symbol]."""

    def __init__(self, action):
        self.action = action

    def start(self, seeds):
        return (torch.zeros_like(seeds),)

    def act(self, observation, state, reward=None):
        rows = torch.arange(len(state[0]))
        return Decision(self.action[state[0], rows, observation["outcome"]]), (state[0] + 1,)


def best_responses(tables, rounds):
    """Backward induction against known tables [N, 5]: (actions [rounds, N, 5], values [N]). Situations are the responder's own view."""
    # The table sees our CD as its DC.
    cooperates = tables.double()[:, [0, 1, 3, 2, 4]]
    ahead = torch.zeros(len(tables), 5, dtype=torch.float64)
    actions = []
    for _ in range(rounds):
        # Reward: 1, -1, 2, 0 after CC, CD, DC, DD.
        cooperate = cooperates * (1 + ahead[:, 1:2]) + (1 - cooperates) * (-1 + ahead[:, 2:3])
        defect = cooperates * (2 + ahead[:, 3:4]) + (1 - cooperates) * ahead[:, 4:5]
        actions.append((defect > cooperate).long())
        ahead = torch.maximum(cooperate, defect)
    return torch.stack(actions[::-1]), ahead[:, 0]


def test_the_best_response_to_known_random_tables_earns_what_the_paper_says():
    trials = 10_000
    names = ("responder", "random_table")
    _, rollout = play(names, trials, rounds=1, responder=BestResponses(torch.zeros(1, trials, 5, dtype=torch.int64)))
    table = rollout.start(seeds_of(7, Purpose.TRIAL, trials))
    cooperates = next(
        state.cooperates for group, state in zip(rollout.groups, table.states, strict=True) if group.occupant == "random_table"
    )
    actions, value = best_responses(cooperates, 100)
    log, _ = play(names, trials, responder=BestResponses(actions))
    earned = log.rewards["player"][:, :, 0].double().mean(0)
    # Weis et al. 2026: 1.049 with an error of 0.007; a mean of 10,000 has one of 0.005.
    assert abs(earned.mean().item() - 1.049) < 0.02
    assert abs((earned - value / 100).mean().item()) < 0.003
    assert not torch.equal(actions, torch.ones_like(actions))


def home_of(name):
    """The first listed game that the co-player can sit in, and the role."""
    for game in GAMES:
        made = make_game(game)
        for role in made.roles:
            with contextlib.suppress(BadInput):
                check_fits(name, co_player(name), role)
                return made, role
    raise AssertionError(f"{name} fits no game in GAMES")


def play_at_home(name, first, trials):
    """The co-player in the first seat of its role, anything legal in every other seat, 20 steps; actions [T, N, ...] of both."""
    game, role = home_of(name)
    everyone = [(seat_role.name, seat_role) for _, seat_role, _ in seats_of(game)]
    here = next(number for number, (role_name, _) in enumerate(everyone) if role_name == role.name)
    names = tuple(name if number == here else role_name for number, (role_name, _) in enumerate(everyone))
    occupants = {name: co_player(name), **{role_name: AnyLegal(seat_role) for role_name, seat_role in everyone}}
    rollout = Rollout(game, one_table(names, trials), occupants, watched=None)
    _, log = rollout.play(rollout.start(seeds(trials, first)), min(20, rollout.trial_steps))
    return role, [group.occupant for group in rollout.groups].index(name), log


@each_co_player
def test_at_home_the_same_seeds_give_the_same_legal_play(name):
    role, group, log = play_at_home(name, 0, 6)
    _, _, again = play_at_home(name, 0, 6)
    _, _, alone = play_at_home(name, 4, 1)
    action = log.decisions[group].action
    assert torch.equal(action, again.decisions[group].action)
    torch.testing.assert_close(action[:, 4:5], alone.decisions[group].action)
    for chosen in action.flatten(0, 1).numpy():
        assert role.action_space.contains(np.asarray(chosen, role.action_space.dtype))
    mask = log.observations[group].get(ACTION_MASK)
    if mask is not None:
        assert mask.gather(-1, action[..., None]).eq(1).all()
