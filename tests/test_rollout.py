"""Seatings, the one rollout, the trajectories that learners get from it, and the schemes that say who meets whom."""

from dataclasses import dataclass
from typing import NamedTuple

import gymnasium as gym
import pytest
import torch

from agents.agent import AgentConfig
from agents.occupant import Decision
from envs.chance import Purpose, fold, seeds_of
from envs.game import Role, Turn
from envs.iterated_dilemma import IteratedDilemma
from memory import MEMORIES
from training.metrics import means, merge, tally
from training.population import co_player
from training.rollout import Rollout, trajectories
from training.schemes.mixture import Mixture, Pairing, mixed_pool
from training.schemes.self_play import independent, self_play
from training.seating import Seating, group_seats, one_table
from training.settings import BadInput, load
from training.tree import map_leaves, named_leaves, rows_of

CPU = torch.device("cpu")
# A game in which everything that chance can do is done.
LUCKY = IteratedDilemma(rounds=12, continuation=0.85, noise=0.15)


def seeds(count, first=0):
    return seeds_of(20251123, Purpose.TRIAL, count, first=first)


class ScriptState(NamedTuple):
    memory: torch.Tensor
    action: torch.Tensor


class Script:
    """A learner that plays the letters it is given, one after another, as long as a trial lasts.

    Its memory counts the steps of the trial; its value is 10 + that, its log-probability minus that.
    """

    def __init__(self, letters):
        self.actions = torch.tensor(["CD".index(letter) for letter in letters])

    def start(self, seeds):
        return ScriptState(torch.zeros_like(seeds), torch.full_like(seeds, 1))

    def act(self, observation, state, reward=None):
        action = self.actions[state.memory]
        return Decision(action, -state.memory.float(), 10.0 + state.memory), ScriptState(state.memory + 1, action)


def play(game, seating, occupants, luck, steps, **settings):
    rollout = Rollout(game, seating, occupants, **settings)
    before = rollout.start(luck)
    after, log = rollout.play(before, steps)
    return rollout, before, log, after


def lived_by(game, names, occupants, steps, trials=1, **settings):
    """{learner: Trajectories} when the same occupants sit at every game."""
    rollout, before, log, after = play(game, one_table(names, trials), occupants, seeds(trials), steps, watched=None, **settings)
    return trajectories(rollout, before, log, after)


def assert_equal(found, wanted):
    found, wanted = named_leaves(found), named_leaves(wanted)
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        assert torch.equal(found[name], leaf), name


def test_groups_hold_all_seats_of_an_occupant_row_by_row():
    seats = torch.tensor([[0, 1], [1, 0], [1, 1]])
    first, second = group_seats(IteratedDilemma(), Seating(("a", "b"), seats, ("all",), torch.zeros(3, dtype=torch.int64)), CPU)
    assert (first.occupant, second.occupant) == ("a", "b")
    assert [values.tolist() for values in (first.rows, first.games, first.seats)] == [[0, 3], [0, 1], [0, 1]]
    assert [values.tolist() for values in (second.rows, second.games, second.seats)] == [[1, 2, 4, 5], [0, 1, 2, 2], [1, 0, 0, 1]]


def test_one_occupant_may_hold_every_seat_and_an_absent_one_has_no_group():
    (group,) = group_seats(IteratedDilemma(), Seating(("absent", "a"), torch.ones(2, 2).long(), ("all",), torch.zeros(2).long()), CPU)
    assert group.occupant == "a"
    assert group.rows.tolist() == [0, 1, 2, 3]


def test_a_seating_with_too_many_seats_is_refused():
    with pytest.raises(ValueError, match="the seating has 3 seats, IteratedDilemma has 2; want an occupant for each"):
        group_seats(IteratedDilemma(), one_table(("a", "b", "c"), 4), CPU)


@pytest.mark.parametrize("occupant", [-1, 2])
def test_an_empty_seat_is_refused(occupant):
    seats = torch.tensor([[0, 1], [0, occupant]])
    with pytest.raises(ValueError, match=r"a seat holds occupant number .*; want 0 to 1"):
        group_seats(IteratedDilemma(), Seating(("a", "b"), seats, ("all",), torch.zeros(2, dtype=torch.int64)), CPU)


def test_a_name_without_an_occupant_is_refused():
    with pytest.raises(ValueError, match="the seating names stranger; the occupants are friend"):
        Rollout(IteratedDilemma(), one_table(("friend", "stranger"), 2), {"friend": Script("C")})


def test_a_part_of_a_seating_is_those_games():
    seating = Seating(("a", "b"), torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), ("k", "l"), torch.tensor([0, 0, 1, 1]))
    part = seating.part(1, 3)
    assert (part.seats.tolist(), part.kind.tolist(), part.occupants, part.kinds) == ([[0, 1], [1, 0]], [0, 1], ("a", "b"), ("k", "l"))


def test_actions_reach_the_seat_of_whoever_chose_them():
    seating = Seating(("x", "y"), torch.tensor([[0, 1], [1, 0], [1, 1]]), ("all",), torch.zeros(3, dtype=torch.int64))
    _, _, log, _ = play(IteratedDilemma(rounds=2), seating, {"x": Script("CD"), "y": Script("DD")}, seeds(3), 2)
    assert log.rewards["player"].tolist() == [[[-1, 2], [2, -1], [0, 0]], [[0, 0], [0, 0], [0, 0]]]


def test_a_trajectory_tells_what_was_perceived_done_and_earned_at_each_step():
    # Trials of three rounds: CDD against DDC earns -1, 0, 2; seven steps hold two of them and the first step of a third.
    game = IteratedDilemma(rounds=3)
    lived = lived_by(game, ("me", "you"), {"me": Script("CDD"), "you": Script("DDC")}, 7)["me"]
    assert lived.action.tolist() == [[0, 1, 1, 0, 1, 1, 0]]
    assert lived.reward.tolist() == [[-1, 0, 2, -1, 0, 2, -1]]
    assert lived.reward_before.tolist() == [[0, -1, 0, 0, -1, 0, 0]]
    assert lived.action_before[:, 1:].tolist() == [[0, 1, 1, 0, 1, 1]]
    assert lived.reset.tolist() == [[True, False, False, True, False, False, True]]
    assert lived.ended.tolist() == [[False, False, True, False, False, True, False]]
    # start, CD, DD, start, CD, DD, start.
    assert lived.observation["outcome"].tolist() == [[0, 2, 4, 0, 2, 4, 0]]
    assert lived.log_prob.tolist() == [[0, -1, -2, 0, -1, -2, 0]]
    assert lived.value.tolist() == [[10, 11, 12, 10, 11, 12, 10]]
    assert lived.last_value.tolist() == [11]
    assert lived.memory.tolist() == [0]


@pytest.mark.parametrize(("steps", "value"), [(1, 11.0), (2, 12.0), (3, 0.0), (4, 11.0), (6, 0.0)])
def test_nothing_is_ahead_where_a_fresh_trial_begins(steps, value):
    lived = lived_by(IteratedDilemma(rounds=3), ("me", "you"), {"me": Script("CDD"), "you": Script("DDC")}, steps)
    assert lived["me"].last_value.tolist() == [value]


def test_asking_for_the_value_ahead_leaves_the_table_as_it_was():
    rollout = Rollout(IteratedDilemma(), one_table(("me", "me"), 3), {"me": Script("CDCDCD")}, watched=None)
    table, _ = rollout.play(rollout.start(seeds(3)), 2)
    before = map_leaves(torch.clone, table)
    rollout.value_ahead(table, 0)
    assert_equal(table, before)


def test_a_rollout_goes_on_where_it_stopped():
    occupants = {"me": Script("CDDCCDCDDDCC"), "random_table": co_player("random_table")}
    names = ("me", "random_table")
    rollout, _, log, after = play(LUCKY, one_table(names, 20), occupants, seeds(20), 15, watched=None)
    table, first = rollout.play(rollout.start(seeds(20)), 6)
    last_table, second = rollout.play(table, 9)
    assert_equal(map_leaves(lambda one, other: torch.cat([one, other]), first, second), log)
    assert_equal(last_table, after)
    lived = trajectories(rollout, table, second, last_table)["me"]
    assert torch.equal(lived.memory, table.states[0].memory)
    assert torch.equal(lived.action_before[:, 0], first.decisions[0].action[-1])
    assert torch.equal(lived.reward_before[:, 0], first.rewards["player"][-1, :, 0] * ~lived.reset[:, 0])


def test_a_learner_in_both_seats_has_a_row_for_each():
    seating = Seating(("me", "you"), torch.tensor([[0, 0], [0, 1], [1, 0]]), ("self", "mixed"), torch.tensor([0, 1, 1]))
    rollout, before, log, after = play(
        IteratedDilemma(rounds=3), seating, {"me": Script("CCD"), "you": Script("DCC")}, seeds(3), 3, watched=["me"]
    )
    lived = trajectories(rollout, before, log, after)
    assert list(lived) == ["me"]
    # Both seats of game 0 (CC, CC, DD), then the row seat of game 1 and the column seat of game 2 (CD, CC, DC).
    assert lived["me"].reward.tolist() == [[1, 1, 0], [1, 1, 0], [-1, 1, 2], [-1, 1, 2]]
    assert lived["me"].kind.tolist() == [0, 0, 1, 1]


def test_only_those_who_are_watched_are_recorded_in_full():
    names = ("me", "you")
    occupants = {"me": Script("CDD"), "you": Script("DDC")}
    rollout, _, log, _ = play(IteratedDilemma(rounds=3), one_table(names, 2), occupants, seeds(2), 3, watched=["you"])
    assert [group.occupant for group in rollout.groups] == ["me", "you"]
    assert (log.observations[0], log.perceived[0], log.decisions[0].value) == (None, None, None)
    assert log.decisions[0].action.tolist() == [[0, 0], [1, 1], [1, 1]]
    assert log.decisions[1].value.tolist() == [[10, 10], [11, 11], [12, 12]]


def test_the_games_states_are_kept_when_asked_for_as_each_step_left_them():
    names = ("me", "you")
    occupants = {"me": Script("CDD"), "you": Script("DDC")}
    _, _, log, _ = play(IteratedDilemma(rounds=3), one_table(names, 1), occupants, seeds(1), 4, keeps_states=True)
    # CD, DD, DC, and CD of the next trial; the last state of a trial is not its successor's first.
    assert log.game.outcome[:, 0].tolist() == [[2, 3], [4, 4], [3, 2], [2, 3]]
    assert log.game.step[:, 0].tolist() == [1, 2, 3, 1]
    assert play(IteratedDilemma(rounds=3), one_table(names, 1), occupants, seeds(1), 4)[2].game is None


POOL = ("me", "random_table", "extortion", "grim_trigger")


def pool():
    return {"me": Script("CDDCCDCDDDCC")} | {name: co_player(name) for name in POOL[1:]}


def mixed_seating(games=24):
    seats = torch.randint(len(POOL), (games, 2), generator=torch.Generator().manual_seed(2))
    return Seating(POOL, seats, ("all",), torch.zeros(games, dtype=torch.int64))


def by_game(log):
    """What a rollout leaves per game: [T, B, ...] leaves."""
    return {"rewards": log.rewards["player"], "measures": log.measures, "trial": log.trial, "fresh": log.fresh, "ended": log.ended}


def games_of(log, games):
    return map_leaves(lambda leaf: leaf[:, games], by_game(log))


def test_shuffling_a_batch_shuffles_its_trials_and_changes_nothing_else():
    seating = mixed_seating()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    shuffled = seating._replace(seats=seating.seats[order])
    _, _, log, _ = play(LUCKY, seating, pool(), seeds(24), 30)
    _, _, shuffled_log, _ = play(LUCKY, shuffled, pool(), seeds(24)[order], 30)
    assert_equal(by_game(shuffled_log), games_of(log, order))


@pytest.mark.parametrize(("first", "last"), [(0, 1), (5, 6), (3, 17), (20, 24)])
def test_a_slice_of_a_batch_plays_the_same_trials(first, last):
    _, _, log, _ = play(LUCKY, mixed_seating(), pool(), seeds(24), 30)
    _, _, part, _ = play(LUCKY, mixed_seating().part(first, last), pool(), seeds(24)[first:last], 30)
    assert_equal(by_game(part), games_of(log, slice(first, last)))


def test_the_order_of_occupants_in_a_seating_changes_nothing():
    seating = mixed_seating()
    renamed = seating._replace(occupants=POOL[::-1], seats=len(POOL) - 1 - seating.seats)
    logs = [play(LUCKY, each, pool(), seeds(24), 30)[2] for each in (seating, renamed)]
    assert_equal(by_game(logs[0]), by_game(logs[1]))


def test_a_rows_later_trials_are_those_of_seeds_that_follow_from_its_own():
    seating = mixed_seating()
    _, _, log, _ = play(LUCKY, seating, pool(), seeds(24), 30)
    assert log.trial[-1].min() >= 2
    for number in (1, 2):
        _, _, fresh, _ = play(LUCKY, seating, pool(), fold(seeds(24), Purpose.TRIAL, number), 12)
        for game in range(24):
            steps = (log.trial[:, game] == number).nonzero()[:, 0]
            length = len(steps)
            assert torch.equal(log.rewards["player"][steps, game], fresh.rewards["player"][:length, game])
            assert torch.equal(log.ended[steps, game], fresh.ended[:length, game])


def test_trials_of_unequal_length_go_on_with_fresh_ones_and_the_flags_say_so():
    _, _, log, after = play(LUCKY, mixed_seating(200), pool(), seeds(200), 40)
    assert log.fresh[0].all()
    assert torch.equal(log.fresh[1:], log.ended[:-1])
    assert torch.equal(after.fresh, log.ended[-1])
    assert torch.equal(log.trial, torch.cat([torch.zeros(1, 200).long(), log.ended.cumsum(0)[:-1]]))
    assert torch.equal(after.trial, log.ended.sum(0))
    # The lengths of first trials are all there are, from 1 to 12 rounds.
    assert (log.ended.int().argmax(0) + 1).unique().tolist() == list(range(1, 13))


def test_whoever_sits_down_at_a_fresh_trial_has_forgotten_everything():
    lived = lived_by(LUCKY, ("me", "random_table"), pool(), 40, trials=100)["me"]
    assert lived.reset[:, 1:].sum() > 100
    assert lived.observation["outcome"][lived.reset].eq(0).all()
    assert lived.reward_before[lived.reset].eq(0).all()
    assert lived.value[lived.reset].eq(10).all()
    assert lived.value[~lived.reset].gt(10).all()
    inner = ~lived.reset[:, 1:]
    assert torch.equal(lived.reward_before[:, 1:][inner], lived.reward[:, :-1][inner])
    assert torch.equal(lived.action_before[:, 1:], lived.action[:, :-1])


def test_random_tables_are_drawn_anew_for_every_trial_of_a_row():
    rollout = Rollout(IteratedDilemma(rounds=2), one_table(("me", "random_table"), 3), pool())
    table, tables = rollout.start(seeds(3)), []
    for _ in range(6):
        tables.append(table.states[1].cooperates)
        table, _ = rollout.step(table)
    assert all(torch.equal(tables[t], tables[t + 1]) for t in (0, 2, 4))
    assert len(torch.stack(tables[::2]).unique()) == 3 * 3 * 5


def test_between_the_episodes_of_a_trial_memory_is_kept_and_the_game_starts_again():
    # Two episodes of two rounds: CD-DC against CC-CC earns 1, 2, 2, 1.
    game = IteratedDilemma(rounds=2)
    lived = lived_by(game, ("me", "you"), {"me": Script("CDDC"), "you": Script("CCCC")}, 9, episodes=2)["me"]
    assert lived.value.tolist() == [[10, 11, 12, 13, 10, 11, 12, 13, 10]]
    assert lived.observation["outcome"].tolist() == [[0, 1, 0, 3, 0, 1, 0, 3, 0]]
    assert lived.reward.tolist() == [[1, 2, 2, 1, 1, 2, 2, 1, 1]]
    # What the first episode's last action earned is perceived in the second; after the trial it is forgotten.
    assert lived.reward_before.tolist() == [[0, 1, 2, 2, 0, 1, 2, 2, 0]]
    assert lived.reset[0].nonzero()[:, 0].tolist() == [0, 4, 8]
    assert lived.ended[0].nonzero()[:, 0].tolist() == [3, 7]


def test_a_trial_lasts_as_many_steps_as_its_episodes_together():
    rollout = Rollout(IteratedDilemma(rounds=5), one_table(("me", "me"), 1), {"me": Script("C")}, episodes=3)
    assert rollout.trial_steps == 15


def test_a_random_table_stays_through_the_episodes_of_a_trial_but_luck_differs():
    rollout = Rollout(LUCKY, one_table(("me", "random_table"), 50), pool() | {"me": co_player("always_cooperate")}, episodes=3)
    table = rollout.start(seeds(50))
    episodes, tables, slips = [], [], []
    for _ in range(36):
        episodes.append((table.trial, table.episode, table.game.step))
        tables.append(table.states[1].cooperates)
        table, step = rollout.step(table)
        slips.append(step.measures["cooperation"][:, 0] == 0)
    trial, episode, clock = (torch.stack(values) for values in zip(*episodes, strict=True))
    assert episode[trial == 0].unique().tolist() == [0, 1, 2]
    for row in range(50):
        assert len(torch.stack(tables)[:, row][trial[:, row] == 0].unique(dim=0)) == 1
    # Slips of the first rounds of the first three episodes: were luck repeated, they would agree in every row.
    first_rounds = [torch.stack(slips)[(trial == 0) & (episode == number) & (clock == 0)] for number in range(3)]
    assert not torch.equal(first_rounds[0], first_rounds[1])
    assert not torch.equal(first_rounds[1], first_rounds[2])


def agents(memory, game, count=2):
    """Learners whose policies and values are anything but flat."""
    role = game.roles[0]
    made = {}
    for number in range(count):
        agent = AgentConfig(memory=load(MEMORIES[memory])(width=8), embedding=6).build(role.observation_space, role.action_space, number)
        luck = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in agent.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=luck)
        made[f"learner_{number}"] = agent
    return made


@pytest.mark.long
@pytest.mark.parametrize("episodes", [1, 2])
@pytest.mark.parametrize("memory", MEMORIES)
def test_forward_on_trajectories_reproduces_what_was_played(memory, episodes):
    # In double precision: in single, a value here or there is so sensitive that half a unit in the weights' last place moves it by 1e-5.
    learners = {name: agent.double() for name, agent in agents(memory, LUCKY).items()}
    occupants = learners | {"random_table": co_player("random_table")}
    seating = mixed_pool().seat(LUCKY, 30, 0)
    rollout = Rollout(LUCKY, seating, occupants, episodes=episodes, watched=["learner_0", "learner_1"])
    table = rollout.start(seeds(30))
    # The second stretch starts in the middle of trials, with memories in use.
    for _ in range(2):
        after, log = rollout.play(table, 17)
        for name, lived in trajectories(rollout, table, log, after).items():
            agent = occupants[name]
            outlook = agent(lived.observation, lived.action_before, lived.reward_before, lived.memory, lived.reset)
            assert lived.value.dtype == torch.float64
            torch.testing.assert_close(outlook.value, lived.value, rtol=0, atol=1e-9)
            log_prob = agent.policy_head.log_prob(outlook.policy, lived.action)
            torch.testing.assert_close(log_prob, lived.log_prob, rtol=0, atol=1e-9)
            # Millions of times what is tolerated above, so that agreement says something.
            assert lived.value.std() > 0.005
            assert lived.reset[:, 1:].any()
        table = after


def test_learners_play_one_another_the_same_in_any_batch():
    occupants = agents("gru", LUCKY)
    seating = one_table(("learner_0", "learner_1"), 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    _, _, log, _ = play(LUCKY, seating, occupants, seeds(20), 15)
    _, _, shuffled, _ = play(LUCKY, seating, occupants, seeds(20)[order], 15)
    _, _, part, _ = play(LUCKY, seating.part(0, 3), occupants, seeds(3), 15)
    assert_equal(by_game(shuffled), games_of(log, order))
    assert_equal(by_game(part), games_of(log, slice(0, 3)))


def test_two_seats_of_one_learner_have_luck_of_their_own():
    occupants = agents("none", IteratedDilemma(), 1)
    _, _, log, _ = play(IteratedDilemma(rounds=5), one_table(("learner_0", "learner_0"), 200), occupants, seeds(200), 1)
    first, second = log.measures["cooperation"][0].T
    assert 20 < (first != second).sum() < 180


class RelayState(NamedTuple):
    clock: torch.Tensor
    told: torch.Tensor


@dataclass(frozen=True)
class Relay:
    """One caller names a number, two hearers name numbers: a hearer earns what it named plus ten times what the caller named before."""

    max_steps: int = 2

    @property
    def roles(self):
        fields = gym.spaces.Dict({"told": gym.spaces.Discrete(10)})
        return Role("caller", 1, fields, gym.spaces.Discrete(10)), Role("hearer", 2, fields, gym.spaces.Discrete(10))

    def start(self, seeds):
        return RelayState(torch.zeros_like(seeds), torch.zeros_like(seeds))

    def observe(self, state):
        return {"caller": {"told": torch.zeros_like(state.told)[:, None]}, "hearer": {"told": state.told[:, None].expand(-1, 2)}}

    def step(self, state, actions):
        earned = actions["hearer"] + 10 * state.told[:, None]
        rewards = {"caller": -actions["caller"].float(), "hearer": earned.float()}
        after = RelayState(state.clock + 1, actions["caller"][:, 0])
        return after, Turn(rewards, after.clock >= self.max_steps, {"told": after.told.float()})

    def describe(self, state, index):
        raise NotImplementedError


class Names:
    """Names its number plus its clock."""

    def __init__(self, number):
        self.number = number

    def start(self, seeds):
        return ScriptState(torch.zeros_like(seeds), torch.zeros_like(seeds))

    def act(self, observation, state, reward=None):
        action = self.number + state.memory
        return Decision(action, torch.zeros(len(action)), torch.zeros(len(action))), ScriptState(state.memory + 1, action)


def test_roles_have_actions_observations_and_rewards_of_their_own():
    # Game 0: a calls, b and c hear. Game 1: c calls, a and b hear.
    seating = Seating(("a", "b", "c"), torch.tensor([[0, 1, 2], [2, 0, 1]]), ("all",), torch.zeros(2, dtype=torch.int64))
    rollout, before, log, after = play(Relay(), seating, {"a": Names(1), "b": Names(3), "c": Names(5)}, seeds(2), 2, watched=None)
    assert [(group.occupant, group.role.name, group.rows.tolist(), group.seats.tolist()) for group in rollout.groups] == [
        ("a", "caller", [0], [0]),
        ("a", "hearer", [2], [1]),
        ("b", "hearer", [0, 3], [1, 2]),
        ("c", "caller", [1], [0]),
        ("c", "hearer", [1], [2]),
    ]
    assert log.rewards["caller"].tolist() == [[[-1], [-5]], [[-2], [-6]]]
    # At the second step hearers have been told 1 in game 0 and 5 in game 1.
    assert log.rewards["hearer"].tolist() == [[[3, 5], [1, 3]], [[14, 16], [52, 54]]]
    lived = trajectories(rollout, before, log, after)
    # A learner's rows: as a caller, then as a hearer.
    assert lived["a"].reward.tolist() == [[-1, -2], [1, 52]]
    assert lived["a"].observation["told"].tolist() == [[0, 0], [0, 5]]
    assert lived["b"].reward.tolist() == [[3, 14], [3, 54]]
    assert lived["c"].reward.tolist() == [[-5, -6], [5, 16]]


def seats_by_name(seating):
    return [tuple(seating.occupants[seat] for seat in row) for row in seating.seats.tolist()]


def test_a_mixture_gives_shares_by_weight_and_turns_the_seats():
    mixture = Mixture(("a",), (Pairing(("a", "x"), "easy", 3.0), Pairing(("a", "y"), "hard", 1.0)))
    seating = mixture.seat(IteratedDilemma(), 8, 0)
    assert seats_by_name(seating) == [("a", "x"), ("x", "a")] * 3 + [("a", "y"), ("y", "a")]
    assert [seating.kinds[kind] for kind in seating.kind.tolist()] == ["easy"] * 6 + ["hard"] * 2
    assert mixture.co_players(IteratedDilemma()) == ("x", "y")
    assert mixture.learners(IteratedDilemma()) == ("a",)


@pytest.mark.parametrize(
    ("weights", "trials", "shares"),
    [
        ((1, 1, 1), 9, [3, 3, 3]),
        ((1, 1, 1), 10, [4, 3, 3]),
        ((2, 3, 5), 7, [1, 2, 4]),
        ((1, 2, 4), 2, [0, 1, 1]),
        ((1, 1, 2), 0, [0, 0, 0]),
    ],
)
def test_what_is_left_over_goes_to_the_largest_remainders(weights, trials, shares):
    mixture = Mixture(("a",), tuple(Pairing(("a", "a"), str(number), float(weight)) for number, weight in enumerate(weights)))
    seating = mixture.seat(IteratedDilemma(), trials, 0)
    assert seating.kind.bincount(minlength=3).tolist() == shares
    assert seating.seats.shape == (trials, 2)


def test_the_mixed_pool_gives_each_learner_half_of_its_trials_against_the_other():
    seating = mixed_pool().seat(IteratedDilemma(), 1200, 0)
    games = seats_by_name(seating)
    for learner in ("learner_0", "learner_1"):
        mine = [set(game) for game in games if learner in game]
        assert len(mine) == 800
        assert mine.count({"learner_0", "learner_1"}) == 400
        assert mine.count({learner, "random_table"}) == 400
        # As often in one seat as in the other.
        assert sum(game[0] == learner for game in games) == 400
    assert [seating.kinds[kind] for kind in seating.kind[[0, -1]].tolist()] == ["learner", "random_table"]


@pytest.mark.parametrize(("share", "games"), [(0.0, 0), (1.0, 300), (0.25, 42.857)])
def test_the_mixed_pools_share_of_learners_can_be_set(share, games):
    found = seats_by_name(mixed_pool(share).seat(IteratedDilemma(), 300, 0))
    # Weights s, 1-s, 1-s: of 300 games s / (2 - s) are among learners.
    assert abs(found.count(("learner_0", "learner_1")) + found.count(("learner_1", "learner_0")) - games) < 1


def test_every_role_turns_by_itself():
    mixture = Mixture(("a",), (Pairing(("a", "b", "c"), "all"),))
    assert seats_by_name(mixture.seat(Relay(), 3, 0)) == [("a", "b", "c"), ("a", "c", "b"), ("a", "b", "c")]


def test_self_play_shares_weights_within_a_role_and_independent_learners_do_not():
    assert seats_by_name(self_play().seat(Relay(), 2, 0)) == [("learner_0", "learner_1", "learner_1")] * 2
    assert seats_by_name(independent().seat(Relay(), 2, 0)) == [("learner_0", "learner_1", "learner_2")] * 2
    assert seats_by_name(self_play().seat(IteratedDilemma(), 1, 0)) == [("learner_0", "learner_0")]


@pytest.mark.parametrize(
    ("names", "pairings", "message"),
    [
        ((), (Pairing(("x", "y"), "all"),), "names is empty; want at least one learner"),
        (("a",), (), "pairings: want at least one, each with a weight above 0"),
        (("a",), (Pairing(("a", "x"), "all", 0.0),), "pairings: want at least one, each with a weight above 0"),
        (("a", "b"), (Pairing(("a", "x"), "all"),), "names has b, who sits in no pairing"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(names, pairings, message):
    with pytest.raises(ValueError, match=message):
        Mixture(names, pairings)


def test_a_pairing_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"the scheme seats 3 \(all\), IteratedDilemma has 2 seats; want a game of 3 seats"):
        Mixture(("a",), (Pairing(("a", "b", "c"), "all"),)).seat(IteratedDilemma(), 4, 0)


def test_rows_of_trajectories_are_rows_of_all_their_leaves():
    lived = lived_by(IteratedDilemma(rounds=3), ("me", "me"), {"me": Script("CDD")}, 3, trials=4)["me"]
    part = rows_of(lived, torch.tensor([5, 0]))
    assert all(len(leaf) == 2 for leaf in named_leaves(part).values())
    assert torch.equal(part.reward[1], lived.reward[0])


def scripts():
    return {"me": Script("CCDC"), "you": Script("DDCD")}


def test_figures_are_means_over_a_learners_steps_for_each_kind_of_game():
    seating = Seating(("me", "you"), torch.tensor([[0, 1], [1, 0], [0, 0]]), ("other", "self"), torch.tensor([0, 0, 1]))
    rollout, _, log, _ = play(IteratedDilemma(rounds=3), seating, scripts(), seeds(3), 3, watched=["me"])
    # CCD against DDC earns -1, -1, 2 and the other 2, 2, -1; against itself it earns 1, 1, 0 in both seats.
    assert means(tally(rollout, log)) == pytest.approx(
        {
            "return/player": (0 + 3 + 3 + 0 + 2 + 2) / 6,
            "reward/me/vs_other": 0.0,
            "reward/me/vs_self": 2 / 3,
            "cooperation/me/vs_other": 2 / 3,
            "cooperation/me/vs_self": 2 / 3,
        }
    )


def test_figures_of_several_runners_are_weighed_by_their_steps():
    tallies = [{"reward": (6.0, 2.0), "only_here": (1.0, 1.0)}, {"reward": (0.0, 4.0), "never_applies": (0.0, 0.0)}]
    assert means(merge(tallies)) == {"reward": 1.0, "only_here": 1.0}


def test_figures_are_of_first_trials_so_that_short_ones_do_not_count_for_more():
    """Cooperators in games of random length: the mean length of first trials is twice what a round earns both."""
    game = IteratedDilemma(rounds=40, continuation=0.9)
    occupants = {"me": Script("C" * 40), "you": Script("C" * 40)}
    rollout, _, log, _ = play(game, one_table(("me", "you"), 64), occupants, seeds(64), 40, watched=["me"])
    lengths = [int(log.ended[:, row].nonzero()[0]) + 1 for row in range(64)]
    assert min(lengths) < 5
    assert int(log.trial.max()) > 2
    figures = tally(rollout, log)
    each = log.rewards["player"][0, 0, 0].item()
    assert figures["return/player"] == pytest.approx((each * sum(lengths), 64))
    assert figures["cooperation/me/vs_all"] == (sum(lengths), sum(lengths))


def test_a_trial_that_has_not_ended_does_not_count_in_the_return():
    # The finished trial earned 0 and 3; the first step of the next, -1 and 2, is left out.
    rollout, _, log, _ = play(IteratedDilemma(rounds=3), one_table(("me", "you"), 1), scripts(), seeds(1), 4)
    assert means(tally(rollout, log))["return/player"] == 1.5


class Overflowing(Script):
    """Plays on undisturbed when what it makes of things is no longer a number. after: this many steps of the trial."""

    def __init__(self, leaf, after):
        super().__init__("CCCCCCCC")
        self.leaf, self.after = leaf, after

    def act(self, observation, state, reward=None):
        decision, state = super().act(observation, state, reward)
        value = decision.value.masked_fill((state.memory > self.after) & (self.leaf == "value"), float("nan"))
        memory = state.memory if self.leaf == "value" else {"cell": state.memory.float().masked_fill(state.memory > self.after, -torch.inf)}
        return decision._replace(value=value), Remembering(state.memory, state.action, memory)

    def start(self, seeds):
        state = super().start(seeds)
        return Remembering(state.memory, state.action, state.memory if self.leaf == "value" else {"cell": state.memory.float()})


class Remembering(NamedTuple):
    memory: torch.Tensor
    action: torch.Tensor
    more: torch.Tensor | dict


@pytest.mark.parametrize("watched", [(), None])
@pytest.mark.parametrize(("leaf", "after", "said"), [("value", 4, "its value holds nan"), ("more.cell", 7, "its more.cell holds -inf")])
def test_what_is_not_finite_is_refused_by_name_even_in_a_trials_last_step(leaf, after, said, watched):
    game, people = IteratedDilemma(rounds=8), {"a": Overflowing(leaf, after), "b": co_player("tit_for_tat")}
    rollout = Rollout(game, one_table(("a", "b"), 3), people, watched=watched)
    table, _ = rollout.play(rollout.start(seeds(3)), after)
    with pytest.raises(BadInput, match=f"^a: {said}"):
        rollout.play(table, 8 - after)
