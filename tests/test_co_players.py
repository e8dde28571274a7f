"""Co-players, by letters: C cooperates, D defects. What the other does is given, what they answer is expected."""

import numpy as np
import pytest
import torch
from scipy import stats

from agents.co_players import CO_PLAYERS
from agents.co_players.grim import GrimTrigger
from agents.co_players.tables import RandomTable, Table, extortion, generous_tit_for_tat
from agents.occupant import Decision, Occupant
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma
from training.population import co_player
from training.rollout import Rollout
from training.seating import one_table
from training.settings import load

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
    ],
)
def test_a_strategy_answers_these_moves_with_those(name, others, expected):
    assert letters(answers(name, others)[:, 0]) == expected


def test_grim_is_provoked_by_the_others_defection_alone():
    player = GrimTrigger()
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
    player = GrimTrigger()
    _, state = player.act({"outcome": torch.tensor([1, 2, 3, 4])}, player.start(seeds(4)))
    decision, _ = player.act({"outcome": torch.tensor([1, 1, 1, 1])}, state)
    assert letters(decision.action) == "CDCD"


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


def test_extortion_with_slope_1_is_tit_for_tat_after_a_defection():
    assert extortion(1.0).cooperates == pytest.approx((0, 1, 0, 1, 0))


def test_an_extortioner_opens_with_defection_and_never_forgives_twice():
    assert (answers("extortion", "CCC", 500)[0] == 1).all()
    assert [cooperation_in(extortion(), situation) for situation in ("", "DD")] == [0.0, 0.0]


def test_extortion_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match=r"slope is 0.5; want at least 1"):
        extortion(0.5)


each_co_player = pytest.mark.parametrize("name", CO_PLAYERS)


@each_co_player
def test_the_same_seeds_give_the_same_play(name):
    first, again = (play((name, "random_table"), 40, rounds=20)[0] for _ in range(2))
    for one, other in zip(first.decisions, again.decisions, strict=True):
        assert torch.equal(one.action, other.action)


@pytest.mark.parametrize("name", ["random_table", "generous_tit_for_tat", "extortion", "random"])
def test_other_seeds_give_other_play(name):
    luck = torch.zeros(20, 40, dtype=torch.int64) + SYMBOL["CD"] if name == "generous_tit_for_tat" else torch.full((20, 40), SYMBOL["DC"])

    def actions(first):
        player = co_player(name)
        state, played = player.start(seeds(40, first)), []
        for outcome in luck:
            decision, state = player.act({"outcome": outcome}, state, torch.zeros(40))
            played.append(decision.action)
        return torch.stack(played)

    assert torch.equal(actions(0), actions(0))
    assert not torch.equal(actions(0), actions(40))


@each_co_player
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


@each_co_player
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
