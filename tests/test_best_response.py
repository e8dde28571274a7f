"""Exact values against known tables: by hand, by trying every policy, and by playing."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch

from agents.co_players.tables import RandomTable
from agents.occupant import Decision
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma, battle_of_the_sexes, chicken, matching_pennies
from training.evaluation.best_response import best_response_policy, best_response_value, normalised_score, value_against
from training.rollout import Rollout
from training.seating import one_table

# start, CC, CD, DC, DD, own action first.
COOPERATE, DEFECT = (1.0, 1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0)
TIT_FOR_TAT, WIN_STAY = (1.0, 1.0, 0.0, 1.0, 0.0), (1.0, 1.0, 0.0, 0.0, 1.0)
# Answers only two defections in a row: the other defected in CD and DD.
TIT_FOR_TWO_TATS = (1.0,) * 5 + tuple(0.0 if older in (1, 3) and newer in (1, 3) else 1.0 for older, newer in product(range(4), repeat=2))


def value(game, *tables, seat=0):
    return best_response_value(game, np.array(tables), seat).tolist()


def against(game, own, other, seat=0):
    return value_against(game, np.array([own]), np.array([other]), seat).item()


def test_the_best_response_to_scripts_earns_what_is_worked_out_by_hand():
    """Tit-for-tat is cooperated with for 99 rounds and betrayed in the last: 99 * 1 + 2 = 101."""
    assert value(IteratedDilemma(), TIT_FOR_TAT, COOPERATE, DEFECT) == pytest.approx([1.01, 2.0, 0.0])


def test_win_stay_lose_shift_is_worth_four_in_three_rounds():
    """Against C, C, D it plays C, C, C: 1 + 1 + 2. Against D, D, D it plays C, D, C: 2 + 0 + 2. All else earns less."""
    assert value(IteratedDilemma(rounds=3), WIN_STAY) == pytest.approx([4 / 3])


def test_a_game_that_may_end_is_worth_its_expected_sum_over_its_expected_rounds():
    """Two rounds, the second with probability 1/2. Tit-for-tat: C, D earns 1 + 2 / 2; D, D earns 2 + 0: 2 in 1.5 rounds either way."""
    game = IteratedDilemma(rounds=2, continuation=0.5)
    assert value(game, TIT_FOR_TAT, COOPERATE) == pytest.approx([4 / 3, 2.0])
    # Cooperation against always-defect loses 1 in every round that is played.
    assert against(game, COOPERATE, DEFECT) == pytest.approx(-1.0)
    # Win-stay-lose-shift against defection is C, D: -1 + 0 / 2.
    assert against(game, WIN_STAY, DEFECT) == pytest.approx(-2 / 3)


def test_both_players_slip():
    """One means to defect, the other to cooperate; each does the other thing in a tenth of the rounds: .81 * 2 + .09 * 1 - .01 * 1."""
    assert value(IteratedDilemma(rounds=1, noise=0.1), COOPERATE) == pytest.approx([1.70])
    # Who always slips means to cooperate to defect: the co-player, meaning to defect, cooperates.
    assert value(IteratedDilemma(rounds=5, noise=1.0), DEFECT) == pytest.approx([2.0])


def test_each_seat_earns_its_own_payoffs():
    opera, football = COOPERATE, DEFECT
    assert value(battle_of_the_sexes(), opera, football, seat=0) == pytest.approx([2.0, 1.0])
    assert value(battle_of_the_sexes(), opera, football, seat=1) == pytest.approx([1.0, 2.0])
    # The row player of the pennies wins on heads, heads, and the column player on tails.
    assert against(matching_pennies(), COOPERATE, COOPERATE, seat=0) == pytest.approx(1.0)
    assert against(matching_pennies(), COOPERATE, COOPERATE, seat=1) == pytest.approx(-1.0)


def test_tables_play_out_as_by_hand():
    """In three rounds, tit-for-tat against win-stay-lose-shift from a defection: D C, C D, D D."""
    suspicious = (0.0, 1.0, 0.0, 1.0, 0.0)
    game = IteratedDilemma(rounds=3)
    assert against(game, suspicious, WIN_STAY) == pytest.approx((2 - 1 + 0) / 3)
    assert against(game, WIN_STAY, suspicious) == pytest.approx((-1 + 2 + 0) / 3)
    assert against(chicken(), COOPERATE, DEFECT) == pytest.approx(1.0)
    assert against(chicken(), DEFECT, COOPERATE) == pytest.approx(4.0)


def test_memory_two_is_read_in_its_order():
    """Tit-for-two-tats takes D, C, D, D for 2 + 1 + 2 + 2, and nothing earns 8."""
    assert value(IteratedDilemma(rounds=4), TIT_FOR_TWO_TATS) == pytest.approx([7 / 4])
    # Against always-defect it plays C, C, D, D; against tit-for-tat's first defection it stays friendly.
    assert against(IteratedDilemma(rounds=4), TIT_FOR_TWO_TATS, DEFECT) == pytest.approx(-2 / 4)
    assert against(IteratedDilemma(rounds=4), DEFECT, TIT_FOR_TWO_TATS) == pytest.approx(4 / 4)
    assert against(IteratedDilemma(rounds=4), TIT_FOR_TWO_TATS, (0.0, 1.0, 0.0, 1.0, 0.0)) == pytest.approx((-1 + 1 + 1 + 1) / 4)


def test_memory_one_written_as_memory_two_is_the_same_player():
    generator = np.random.default_rng(3)
    own, tables = generator.random((2, 6, 5))
    written = np.concatenate([tables, np.tile(tables[:, 1:], 4)], 1)
    game = IteratedDilemma(rounds=6, noise=0.05)
    np.testing.assert_allclose(best_response_value(game, written), best_response_value(game, tables))
    np.testing.assert_allclose(value_against(game, own, written), value_against(game, own, tables))


def random_game(generator, rounds):
    payoffs = tuple(tuple(tuple(pair) for pair in row) for row in generator.normal(size=(2, 2, 2)).tolist())
    continuation, noise = generator.uniform(0.3, 1.0), generator.uniform(0.0, 0.4)
    return IteratedDilemma(payoffs, rounds=rounds, continuation=continuation, noise=noise)


def expected_reward(game, means_c, table, seat, history=()):
    """The expected sum from here on; means_c(history): one's probability to mean C, for any number of policies at once. By recursion over
    every history of (own, other) actions, letter by letter."""
    situation = 0 if not history else 1 + 2 * history[-1][1] + history[-1][0]
    own_c, other_c = ((1 - game.noise) * p + game.noise * (1 - p) for p in (means_c(history), table[situation]))
    total = 0.0
    for own, other in product((0, 1), repeat=2):
        likely = (own_c if own == 0 else 1 - own_c) * (other_c if other == 0 else 1 - other_c)
        row, column = (own, other) if seat == 0 else (other, own)
        worth = game.payoffs[row][column][seat]
        if len(history) + 1 < game.rounds:
            worth = worth + game.continuation * expected_reward(game, means_c, table, seat, (*history, (own, other)))
        total = total + likely * worth
    return total


@pytest.mark.parametrize("seed", range(6))
def test_no_deterministic_policy_of_two_rounds_does_better(seed):
    """All 32 policies that answer each history as they like."""
    generator = np.random.default_rng(seed)
    game, table, seat = random_game(generator, 2), generator.random(5), seed % 2
    histories = [(), *[(pair,) for pair in product((0, 1), repeat=2)]]
    policies = np.array(list(product((0.0, 1.0), repeat=5)))
    every = expected_reward(game, lambda history: policies[:, histories.index(history)], table, seat)
    assert value(game, table, seat=seat)[0] == pytest.approx(every.max() / (1 + game.continuation))


@pytest.mark.parametrize("seed", range(4))
def test_no_deterministic_policy_of_four_rounds_does_better(seed):
    """All 8,192 policies that answer the round and its last outcome as they like."""
    generator = np.random.default_rng(seed)
    game, table, seat = random_game(generator, 4), generator.random(5), seed % 2
    policies = np.array(list(product((0.0, 1.0), repeat=13)))

    def means_c(history):
        return policies[:, 0 if not history else 1 + 4 * (len(history) - 1) + 2 * history[-1][0] + history[-1][1]]

    every = expected_reward(game, means_c, table, seat)
    expected_rounds = 1 + game.continuation + game.continuation**2 + game.continuation**3
    assert value(game, table, seat=seat)[0] == pytest.approx(every.max() / expected_rounds)


@pytest.mark.parametrize("seat", [0, 1])
def test_one_table_against_another_is_worth_the_sum_over_all_histories(seat):
    generator = np.random.default_rng(10 + seat)
    game, own, table = random_game(generator, 4), generator.random(5), generator.random(5)
    summed = expected_reward(game, lambda history: own[0 if not history else 1 + 2 * history[-1][0] + history[-1][1]], table, seat)
    expected_rounds = 1 + game.continuation + game.continuation**2 + game.continuation**3
    assert against(game, own, table, seat) == pytest.approx(summed / expected_rounds)


@pytest.mark.parametrize("seed", range(5))
def test_no_sequence_of_moves_does_better_against_a_memory_two_that_draws_no_lots(seed):
    generator = np.random.default_rng(seed)
    table = generator.integers(2, size=21).astype(float)
    best = -np.inf
    for moves in product("CD", repeat=6):
        played, earned = [], 0
        for own in moves:
            # As the co-player sees them, its own letter first.
            older, newer = (["CC", "CD", "DC", "DD"].index(pair) for pair in (["CC", "CC", *played])[-2:])
            place = 0 if not played else 1 + newer if len(played) == 1 else 5 + 4 * older + newer
            other = "C" if table[place] else "D"
            earned += {"CC": 1, "CD": -1, "DC": 2, "DD": 0}[own + other]
            played.append(other + own)
        best = max(best, earned)
    assert value(IteratedDilemma(rounds=6), table) == pytest.approx([best / 6])


def test_the_best_policy_cooperates_with_tit_for_tat_until_the_last_round():
    """With two rounds left, to be met by C, C earns 1 + 2 and D 2 + 0; to be met by D, C earns -1 + 2 and D nothing. With three alike."""
    policy = best_response_policy(IteratedDilemma(rounds=3), np.array([TIT_FOR_TAT]))
    assert policy.all((1, 2)).tolist() == [True, True, False]
    assert not policy[2].any()


def test_the_best_policy_is_by_the_situation_that_it_sees_itself():
    """Who wins on a match repeats its own last action against one who copies it."""
    policy = best_response_policy(matching_pennies(), np.array([TIT_FOR_TAT]))
    assert policy[-1, 0].tolist() == [True, True, True, False, False]


class ScriptState(NamedTuple):
    row: torch.Tensor
    clock: torch.Tensor


class Script:
    """Plays its policy, [T, N, 5], row by row."""

    reads = {"outcome": 5}  # noqa: RUF012
    policy: torch.Tensor

    def start(self, seeds):
        return ScriptState(torch.arange(len(seeds)), torch.zeros_like(seeds))

    def act(self, observation, state, reward=None):
        cooperates = self.policy[state.clock, state.row, observation["outcome"]]
        return Decision((~cooperates).long()), ScriptState(state.row, state.clock + 1)


@pytest.mark.parametrize("seat", [0, 1])
def test_the_best_policy_earns_its_value_when_it_is_played(seat):
    """An asymmetric game with slips, 4,000 random tables, 10 rounds."""
    count, rounds = 4000, 10
    game = IteratedDilemma((((3.0, 1.0), (0.0, 5.0)), ((4.0, -1.0), (1.0, 0.0))), rounds=rounds, noise=0.05)
    seeds = seeds_of(20251123, Purpose.EVALUATION, count)
    names = ("script", "random") if seat == 0 else ("random", "script")
    script = Script()
    rollout = Rollout(game, one_table(names, count), {"script": script, "random": RandomTable()})
    start = rollout.start(seeds)
    (drawn,) = (state.cooperates.double().numpy() for state in start.states if hasattr(state, "cooperates"))
    script.policy = torch.as_tensor(best_response_policy(game, drawn, seat))
    assert script.policy.shape == (rounds, count, 5)
    _, log = rollout.play(start, rounds)
    luck = log.rewards["player"][:, :, seat].double().mean(0).numpy() - best_response_value(game, drawn, seat)
    assert abs(luck.mean()) < 4 * luck.std() / count**0.5 < 0.06


def test_always_defect_earns_exactly_one_against_random_tables():
    """A table and the one that cooperates where it defects, and sees the other's defections so too, are equally likely, and earn
    2 together: against always-defect only three numbers count, and c' = c * p_CD + (1 - c) * p_DD turns into the same law for 1 - c."""
    tables = np.random.default_rng(0).random((500, 5))
    turned = 1 - tables[:, [0, 1, 4, 3, 2]]
    nothing = np.zeros_like(tables)
    game = IteratedDilemma()
    np.testing.assert_allclose(value_against(game, nothing, tables) + value_against(game, nothing, turned), 2.0)


def test_the_best_response_to_random_tables_earns_little_more():
    """1.049 +- .007 by an independent program on tables of its own; 1.0504 +- .0014 by this one on 100,000."""
    values = best_response_value(IteratedDilemma(), np.random.default_rng(1).random((20_000, 5)))
    assert abs(values.mean() - 1.0504) < 0.01
    assert values.max() < 2.0


def test_scores_are_measured_between_two_references():
    scores = normalised_score(np.array([1.0, 2.0, 3.0]), 1.0, np.array([3.0, 3.0, 1.0]))
    np.testing.assert_array_equal(scores, [0.0, 0.5, np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seat": 2}, "seat is 2; want 0 or 1"),
        ({"tables": np.ones((2, 4))}, "tables has 4 probabilities; want 5"),
        ({"tables": np.array([[0, 0, 0, 0, 1.5]])}, "tables holds 1.5; want probabilities"),
        ({"tables": np.array([[0, 0, 0, 0, np.nan]])}, "tables holds nan; want probabilities"),
        ({"game": IteratedDilemma((((1.0, 1.0),) * 3,) * 3, ("rock", "paper", "scissors"))}, "game with two actions"),
    ],
)
def test_what_has_no_best_response_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        best_response_value(**{"game": IteratedDilemma(), "tables": np.ones((1, 5)), **change})


def test_ones_own_table_is_checked_as_well():
    with pytest.raises(ValueError, match="own holds 2"):
        value_against(IteratedDilemma(), np.full((1, 5), 2.0), np.ones((1, 5)))
