"""The iterated matrix game: payoffs as literals, what each seat sees, when it ends, and slips of the hand."""

import pytest
import torch
from scipy import stats

from envs import GAMES
from envs.chance import Purpose, seeds_of
from envs.game import ACTION_MASK
from envs.iterated_dilemma import IteratedDilemma
from training.settings import load
from training.tree import map_leaves, named_leaves, rows_of

# (row's action, column's action): (row's reward, column's reward).
PAYOFFS = {
    "prisoners_dilemma": {(0, 0): (1, 1), (0, 1): (-1, 2), (1, 0): (2, -1), (1, 1): (0, 0)},
    "classical_prisoners_dilemma": {(0, 0): (3, 3), (0, 1): (0, 5), (1, 0): (5, 0), (1, 1): (1, 1)},
    "chicken": {(0, 0): (3, 3), (0, 1): (1, 4), (1, 0): (4, 1), (1, 1): (0, 0)},
    "stag_hunt": {(0, 0): (4, 4), (0, 1): (0, 3), (1, 0): (3, 0), (1, 1): (1, 1)},
    "matching_pennies": {(0, 0): (1, -1), (0, 1): (-1, 1), (1, 0): (-1, 1), (1, 1): (1, -1)},
    "battle_of_the_sexes": {(0, 0): (2, 1), (0, 1): (0, 0), (1, 0): (0, 0), (1, 1): (1, 2)},
}
# Of three actions the row player's reward is 10 * own + other, the column player's 100 times as much and the other way round.
THREE = IteratedDilemma(
    tuple(tuple((10.0 * a + b, 1000.0 * b + 100.0 * a) for b in range(3)) for a in range(3)), ("rock", "paper", "scissors"), rounds=4
)
NOISY = IteratedDilemma(rounds=50, continuation=0.9, noise=0.3)


def seeds(count):
    return seeds_of(20251123, Purpose.GAME, count)


def random_actions(game, batch, steps):
    return torch.randint(len(game.actions), (steps, batch, 2), generator=torch.Generator().manual_seed(5))


def play(game, actions, luck):
    """All states, observed outcomes and turns of a game that goes on whatever its rules say."""
    state = game.start(luck)
    states, turns = [state], []
    for joint in actions:
        state, turn = game.step(state, {"player": joint})
        states.append(state)
        turns.append(turn)
    return states, turns


@pytest.mark.parametrize("name", [name for name, path in GAMES.items() if path.startswith("envs.iterated_dilemma:")])
def test_each_seat_earns_the_published_payoff(name):
    game = load(GAMES[name])()
    outcomes = PAYOFFS[name]
    _, turn = game.step(game.start(seeds(4)), {"player": torch.tensor(list(outcomes))})
    assert turn.rewards["player"].tolist() == [list(pair) for pair in outcomes.values()]
    assert game.rounds == 100


def test_three_actions_pay_each_seat_its_own_number():
    _, turn = THREE.step(THREE.start(seeds(3)), {"player": torch.tensor([[2, 1], [0, 2], [1, 1]])})
    assert turn.rewards["player"].tolist() == [[21, 1200], [2, 2000], [11, 1100]]


def test_the_default_reward_is_twice_the_others_cooperation_minus_ones_own():
    actions = random_actions(IteratedDilemma(), 32, 100)
    _, turns = play(IteratedDilemma(), actions, seeds(32))
    cooperates = (actions == 0).float()
    rewards = torch.stack([turn.rewards["player"] for turn in turns])
    assert torch.equal(rewards, 2 * cooperates.flip(-1) - cooperates)


def test_each_seat_sees_its_own_action_first():
    game = IteratedDilemma()
    state = game.start(seeds(4))
    assert game.observe(state)["player"]["outcome"].tolist() == [[0, 0]] * 4
    state, _ = game.step(state, {"player": torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])})
    # start, CC, CD, DC, DD are 0 to 4.
    assert game.observe(state)["player"]["outcome"].tolist() == [[1, 1], [2, 3], [3, 2], [4, 4]]


def test_three_actions_make_nine_outcomes_and_a_start():
    state, _ = THREE.step(THREE.start(seeds(3)), {"player": torch.tensor([[2, 1], [0, 2], [2, 2]])})
    assert THREE.observe(state)["player"]["outcome"].tolist() == [[8, 6], [3, 7], [9, 9]]
    assert THREE.roles[0].observation_space["outcome"].n == 10
    assert THREE.roles[0].action_space.n == 3


def test_only_the_last_round_is_seen():
    game = IteratedDilemma()
    states, _ = play(game, torch.tensor([[[1, 1]], [[0, 1]]]), seeds(1))
    assert game.observe(states[2])["player"]["outcome"].tolist() == [[2, 3]]


@pytest.mark.parametrize("name", ["matching_pennies", "battle_of_the_sexes"])
def test_a_lopsided_game_tells_each_player_its_seat(name):
    game = load(GAMES[name])()
    assert set(game.roles[0].observation_space) == {"outcome", "seat"}
    assert game.observe(game.start(seeds(3)))["player"]["seat"].tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("name", ["prisoners_dilemma", "classical_prisoners_dilemma", "chicken", "stag_hunt"])
def test_a_symmetric_game_does_not_tell_the_seat(name):
    game = load(GAMES[name])()
    assert set(game.roles[0].observation_space) == {"outcome"}
    assert set(game.observe(game.start(seeds(3)))["player"]) == {"outcome"}


def test_the_game_has_one_role_with_two_seats_and_everything_is_allowed():
    (role,) = IteratedDilemma().roles
    assert (role.name, role.seats, role.action_space.n) == ("player", 2, 2)
    assert ACTION_MASK not in role.observation_space.spaces


def test_the_game_ends_after_its_rounds_and_not_before():
    _, turns = play(IteratedDilemma(rounds=3), torch.zeros(3, 2, 2, dtype=torch.int64), seeds(2))
    assert [turn.over.tolist() for turn in turns] == [[False, False], [False, False], [True, True]]
    assert IteratedDilemma(rounds=3).max_steps == 3


def lengths(game, count):
    _, turns = play(game, torch.zeros(game.rounds, count, 2, dtype=torch.int64), seeds(count))
    over = torch.stack([turn.over for turn in turns])
    assert over.any(0).all()
    return over.int().argmax(0) + 1


def test_a_random_end_makes_lengths_geometric():
    found = lengths(IteratedDilemma(continuation=0.8, rounds=200), 10_000)
    # A mean of 1 / (1 - 0.8) rounds with deviation sqrt(0.8) / 0.2; four standard errors.
    assert abs(found.double().mean().item() - 5) < 4 * 4.4721 / 100
    counts = found.clamp(max=9).bincount(minlength=10)[1:]
    expected = [2000, 1600, 1280, 1024, 819.2, 655.36, 524.288, 419.4304, 1677.7216]
    assert stats.chisquare(counts.numpy(), expected).pvalue > 1e-3


def test_a_random_end_comes_after_the_given_rounds_at_the_latest():
    found = lengths(IteratedDilemma(continuation=0.9, rounds=5), 10_000)
    assert found.max() == 5
    # 1 + 0.9 + 0.81 + 0.729 + 0.6561 rounds on average, with a deviation of 1.39.
    assert abs(found.double().mean().item() - 4.0951) < 4 * 1.39 / 100


# The column player sees what the row player sees, the other way round; the rewards of CC, CD, DC and DD.
MIRRORED = torch.tensor([0, 1, 3, 2, 4])
REWARD_OF_OUTCOME = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.0])


def test_both_players_see_and_earn_what_was_executed():
    game = IteratedDilemma(noise=0.2)
    states, turns = play(game, torch.zeros(100, 50, 2, dtype=torch.int64), seeds(50))
    for state, turn in zip(states[1:], turns, strict=True):
        outcome = game.observe(state)["player"]["outcome"]
        assert torch.equal(outcome[:, 1], MIRRORED[outcome[:, 0]])
        assert torch.equal(turn.rewards["player"], REWARD_OF_OUTCOME[outcome])
        assert torch.equal(turn.measures["cooperation"], (outcome <= 2).float())


def test_slips_come_as_often_as_the_settings_say_and_independently():
    _, turns = play(IteratedDilemma(noise=0.2), torch.zeros(100, 500, 2, dtype=torch.int64), seeds(500))
    slipped = torch.stack([turn.measures["cooperation"] for turn in turns]) == 0
    cells = (slipped[..., 0] * 2 + slipped[..., 1]).flatten().bincount(minlength=4)
    assert stats.chisquare(cells.numpy(), [32_000, 8_000, 8_000, 2_000]).pvalue > 1e-3
    in_a_row = (slipped[:-1, :, 0] * 2 + slipped[1:, :, 0]).flatten().bincount(minlength=4)
    assert stats.chisquare(in_a_row.numpy(), [31_680, 7_920, 7_920, 1_980]).pvalue > 1e-3


def test_a_defector_slips_into_cooperation():
    _, turns = play(IteratedDilemma(noise=1.0), torch.ones(2, 5, 2, dtype=torch.int64), seeds(5))
    assert all(turn.measures["cooperation"].eq(1).all() for turn in turns)


def test_a_slip_among_three_actions_is_an_even_draw_from_the_other_two():
    game = IteratedDilemma(THREE.payoffs, THREE.actions, rounds=10, noise=0.3)
    chosen = torch.tensor([1, 2]).expand(10, 2000, 2)
    states, _ = play(game, chosen, seeds(2000))
    outcome = torch.stack([state.outcome for state in states[1:]])
    executed = (outcome - 1) // 3
    row, column = executed[..., 0].flatten().bincount(minlength=3), executed[..., 1].flatten().bincount(minlength=3)
    assert stats.chisquare(row.numpy(), [3_000, 14_000, 3_000]).pvalue > 1e-3
    assert stats.chisquare(column.numpy(), [3_000, 3_000, 14_000]).pvalue > 1e-3


def test_no_noise_means_no_slips():
    _, turns = play(IteratedDilemma(noise=0.0), torch.zeros(100, 50, 2, dtype=torch.int64), seeds(50))
    assert all(turn.measures["cooperation"].eq(1).all() for turn in turns)


def test_the_measure_is_the_share_of_action_0_per_seat_and_bears_its_name():
    _, turn = IteratedDilemma().step(IteratedDilemma().start(seeds(2)), {"player": torch.tensor([[0, 1], [1, 1]])})
    assert {name: value.tolist() for name, value in turn.measures.items()} == {"cooperation": [[1, 0], [0, 0]]}
    _, turn = THREE.step(THREE.start(seeds(1)), {"player": torch.tensor([[2, 0]])})
    assert {name: value.tolist() for name, value in turn.measures.items()} == {"rock": [[0, 1]]}


@pytest.mark.parametrize("game", [NOISY, IteratedDilemma(THREE.payoffs, THREE.actions, rounds=20, noise=0.5)])
def test_a_batch_equals_its_games_alone(game):
    actions = random_actions(game, 6, 20)
    states, turns = play(game, actions, seeds(6))
    for row in range(6):
        alone_states, alone_turns = play(game, actions[:, row : row + 1], seeds(6)[row : row + 1])
        for whole, alone in zip(states + turns, alone_states + alone_turns, strict=True):
            part = named_leaves(rows_of(whole, slice(row, row + 1)))
            assert all(torch.equal(leaf, part[name]) for name, leaf in named_leaves(alone).items())


def test_a_step_leaves_the_old_state_as_it_was():
    state = NOISY.start(seeds(6))
    for actions in random_actions(NOISY, 6, 10):
        before = map_leaves(torch.clone, state)
        chosen = actions.clone()
        after, _ = NOISY.step(state, {"player": actions})
        assert all(torch.equal(old, new) for old, new in zip(before, state, strict=True))
        assert torch.equal(chosen, actions)
        state = after


def test_the_same_seeds_and_actions_give_the_same_game_and_other_seeds_another():
    actions = random_actions(NOISY, 20, 10)
    first, second, other = (play(NOISY, actions, luck)[0][-1].outcome for luck in (seeds(20), seeds(20), seeds(40)[20:]))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("game", [IteratedDilemma(), THREE, load(GAMES["matching_pennies"])()])
def test_what_is_observed_lies_in_the_roles_space(game):
    (role,) = game.roles
    states, _ = play(game, random_actions(game, 5, 8), seeds(5))
    for state in states:
        seen = game.observe(state)["player"]
        for row in range(5):
            for seat in range(2):
                assert role.observation_space.contains({name: value[row, seat].numpy() for name, value in seen.items()})


def test_a_scene_says_who_did_what_and_earned_what():
    game = IteratedDilemma(rounds=7)
    states, _ = play(game, torch.tensor([[[1, 1], [0, 1]]]), seeds(2))
    assert game.describe(states[0], 1).text == "before round 1 of at most 7"
    assert game.describe(states[1], 1).text == "round 1: player_0 cooperate -1, player_1 defect +2"
    assert game.describe(states[1], 0).text == "round 1: player_0 defect +0, player_1 defect +0"


PAIR = (1.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds is 0; want from 1 to 1,000,000"),
        ({"noise": -0.1}, "noise is -0.1; want a probability from 0 to 1"),
        ({"noise": 1.5}, "noise is 1.5; want a probability from 0 to 1"),
        ({"noise": float("nan")}, "noise is nan; want a probability from 0 to 1"),
        ({"continuation": 0.0}, "continuation is 0.0; want a probability above 0, up to 1"),
        ({"continuation": 1.01}, "continuation is 1.01; want a probability above 0, up to 1"),
        ({"payoffs": ((PAIR, PAIR),)}, r"payoffs is .*; want 2 rows of 2 pairs, for the actions cooperate, defect"),
        ({"payoffs": ((PAIR, PAIR), (PAIR,))}, r"payoffs is .*; want 2 rows of 2 pairs"),
        ({"payoffs": ((PAIR,),), "actions": ("wait",)}, r"payoffs is .*; want"),
        ({"actions": ("a", "b", "c")}, r"payoffs is .*; want 3 rows of 3 pairs, for the actions a, b, c"),
    ],
)
def test_settings_that_make_no_game_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        IteratedDilemma(**settings)
