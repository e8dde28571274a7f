"""The town of streets: one drawn by hand, walked by letters; drawn ones against searches of their own; the walkers."""

from collections import deque

import numpy as np
import pytest
import torch
from scipy import stats

from agents.co_players.street_graph import Guided, Wanderer
from envs.chance import Purpose, seeds_of
from envs.street_graph import StreetGraph, TownState, _corners
from tests.games import told
from tests.test_golden import assert_golden
from training.occupants import check_fits
from training.population import co_player
from training.settings import BadInput

LEFT, RIGHT, WALK, COLLECT = range(4)
# Who is joined to whom, clockwise: places 0 to 4 stand in a ring.
TOWN = {0: [1, 2, 4], 1: [2, 3, 4, 0], 2: [3, 0, 1], 3: [4, 1, 2], 4: [0, 1, 3]}


def seeds(count, first=0):
    return seeds_of(20251123, Purpose.TRIAL, count, first=first)


def town(corner, goal, step=0):
    joined = torch.zeros(1, 5, 5, dtype=torch.bool)
    for place, others in TOWN.items():
        joined[0, place, others] = True
    after, streets = _corners(joined)
    assert streets.tolist() == [[3, 4, 3, 3, 3]]
    views = torch.arange(20)[None] + 30
    return TownState(
        torch.tensor([7]), torch.tensor([step]), after, views, *(torch.tensor([n]) for n in (corner, goal, -1)), torch.tensor([False])
    )


def act(game, state, action):
    after, turn = game.step(state, {"walker": torch.tensor([[action]])})
    return after, turn.rewards["walker"].item(), turn


def facing(state):
    """(place, the place ahead)."""
    corner = state.corner.item()
    return corner // 4, TOWN[corner // 4][corner % 4]


@pytest.mark.parametrize(
    ("corner", "action", "place", "ahead"),
    [
        # At 0 the streets go, clockwise, to 1, 2 and 4.
        (0, RIGHT, 0, 2),
        (1, RIGHT, 0, 4),
        (2, RIGHT, 0, 1),
        (0, LEFT, 0, 4),
        (2, LEFT, 0, 2),
        # From 0 one comes to 1 by its fourth street of four; across is the second, to 3.
        (0, WALK, 1, 3),
        # From 0 one comes to 2 by its second street of three; one further is the third, to 1.
        (1, WALK, 2, 1),
        # From 1 one comes to 4 by its second street of three.
        (6, WALK, 4, 3),
        # From 4 one comes to 0 by its third street of three; one further is the first.
        (16, WALK, 0, 1),
    ],
)
def test_turns_and_walks(corner, action, place, ahead):
    state, _, _ = act(StreetGraph(), town(corner, 12 if place != 3 else 4), action)
    assert facing(state) == (place, ahead)


def test_a_corner_and_the_goal_are_seen_as_views():
    assert StreetGraph().observe(town(6, 17)) == {"walker": {"view": torch.tensor([[36]]), "goal": torch.tensor([[47]])}}


def test_arriving_at_the_goal_pays_and_gives_another():
    game = StreetGraph()
    for goal, pays in ((4, True), (7, True), (8, False), (12, False)):
        state, reward, turn = act(game, town(0, goal), WALK)
        assert (reward, turn.measures["reached"].item()) == ((1.0, 1.0) if pays else (0.0, 0.0))
        assert (state.goal.item() == goal) is not pays
        assert state.goal.item() // 4 != 1


def test_turning_pays_nothing():
    for action in (LEFT, RIGHT):
        assert act(StreetGraph(), town(0, 4), action)[1] == 0.0


def test_where_goals_are_collected_arriving_does_not_pay():
    game = StreetGraph(collects=True)
    state, reward, _ = act(game, town(0, 4), WALK)
    assert (reward, state.goal.item()) == (0.0, 4)
    again, reward, _ = act(game, state, COLLECT)
    assert (reward, facing(again)) == (1.0, (1, 3))
    assert again.goal.item() // 4 != 1
    _, reward, _ = act(game, again, COLLECT)
    assert reward == 0.0


def test_the_end():
    assert [act(StreetGraph(steps=3), town(0, 12, step), LEFT)[2].over.item() for step in (1, 2)] == [False, True]


@pytest.mark.parametrize(
    ("corner", "goal", "way"),
    [
        (0, 4, WALK),
        # From 0 to 3 lead 1 and 4, after whichever one faces: 0-1 arrives facing 3.
        (0, 12, WALK),
        # Facing 4 of 1, 2, 4: one turn right, to the first street.
        (2, 4, RIGHT),
        (1, 4, LEFT),
        # At 1, facing 2 of 2, 3, 4, 0, to 4: two turns, left counts first.
        (4, 16, LEFT),
        (5, 16, RIGHT),
    ],
)
def test_the_way_by_hand(corner, goal, way):
    game = StreetGraph(guided=True)
    assert game.answers(town(corner, goal))["walker"].action.item() == way
    assert game.observe(town(corner, goal))["walker"]["way"].item() == way


def test_whoever_is_at_the_goal_is_told_to_collect():
    assert StreetGraph(collects=True).answers(town(5, 4))["walker"].action.item() == COLLECT
    assert StreetGraph(collects=True).answers(town(0, 4))["walker"].action.item() == WALK


def search(after, start, goal):
    """The length of a shortest way, breadth first. after: [corners][3]."""
    far, queue = {start: 0}, deque([start])
    while queue:
        corner = queue.popleft()
        if corner // 4 == goal // 4:
            return far[corner]
        for to in after[corner]:
            if to not in far:
                far[to] = far[corner] + 1
                queue.append(to)
    raise AssertionError("no way leads there")


@pytest.mark.parametrize("places", [5, 8])
def test_the_way_is_a_shortest_one_in_every_town(places):
    game = StreetGraph(places=places)
    state = game.start(seeds(150))
    tables = state.next.tolist()
    left = [search(tables[row], state.corner[row].item(), state.goal[row].item()) for row in range(150)]
    assert max(left) >= 3
    for _ in range(max(left)):
        ends = torch.tensor(left) == 1
        before = state
        state, turn = game.step(state, {"walker": game.answers(state)["walker"].action})
        running = torch.tensor(left) > 0
        assert torch.equal(turn.rewards["walker"][:, 0][running] == 1, ends[running])
        # Those that arrived stay where they are.
        state = TownState(
            *(torch.where(running.reshape(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(state, before, strict=True))
        )
        left = [n - 1 if n else 0 for n in left]


@pytest.mark.parametrize("places", [5, 6, 8, 16])
def test_towns_are_connected_and_every_place_has_three_streets_or_four(places):
    state = StreetGraph(places=places, views=64).start(seeds(300))
    walks = state.next[..., WALK].numpy()
    for row in walks:
        joined = np.zeros((places, places), dtype=int)
        for corner, to in enumerate(row):
            if to >= 0:
                joined[corner // 4, to // 4] += 1
        assert (joined == joined.T).all()
        assert (joined.max(), joined.trace()) == (1, 0)
        counts = joined.sum(0)
        assert set(counts) <= {3, 4}
        assert (counts == 4).sum() == 1 if places % 2 else (counts == 4).sum() in (0, 2)
        assert (np.linalg.matrix_power(joined + np.eye(places, dtype=int), places) > 0).all()
    # Of five places all but two pairs of different places are joined: 5 * 3 * 1 towns.
    towns = len({tuple(row) for row in walks})
    assert towns == 15 if places == 5 else towns > 100


def test_one_stays_on_streets_that_exist():
    game = StreetGraph(steps=50)
    state = game.start(seeds(200))
    for step in range(50):
        assert (state.next[torch.arange(200), state.corner, WALK] >= 0).all()
        assert (state.next[torch.arange(200), state.goal, WALK] >= 0).all()
        state, _ = game.step(state, {"walker": (seeds(200, first=200 * step) % 3)[:, None]})


def test_starts_goals_and_views_are_drawn_evenly():
    state = StreetGraph().start(seeds(4000))
    for places in (state.corner // 4, state.goal // 4, (state.goal // 4 - state.corner // 4) % 5 - 1):
        assert stats.chisquare(places.bincount().numpy()).pvalue > 0.001
    assert (state.goal // 4 != state.corner // 4).all()
    assert stats.chisquare(state.views.flatten().bincount(minlength=60).numpy()).pvalue > 0.001
    assert all(len(set(row)) == 20 for row in state.views[:50].tolist())


def goals_per_episode(game, walker, count):
    state, own, total = game.start(seeds(count)), walker.start(seeds(count, first=count)), 0.0
    for _ in range(game.steps):
        observation = {field: value[:, 0] for field, value in game.observe(state)["walker"].items()}
        decision, own = walker.act(observation, own, torch.zeros(count))
        state, turn = game.step(state, {"walker": decision.action[:, None]})
        total += turn.rewards["walker"].mean().item()
    return total


def test_who_is_shown_the_way_reaches_far_more_goals_than_who_wanders():
    # Ways take about two actions.
    assert 95 < goals_per_episode(StreetGraph(guided=True), Guided(), 32) < 115
    assert 5 < goals_per_episode(StreetGraph(), Wanderer(), 32) < 20


def test_playthrough_of_the_guided_walker():
    lines = told(StreetGraph(guided=True), ("guide",), {"guide": Guided()}, torch.tensor([1]), 12)
    assert_golden("street_graph_guided.txt", "\n".join(lines) + "\n")


def test_the_wanderer_does_everything_as_often():
    game = StreetGraph(collects=True)
    wanderer = Wanderer(collects=True)
    check_fits("random_walker", wanderer, game.roles[0])
    own, actions = wanderer.start(seeds(500)), []
    for _ in range(4):
        decision, own = wanderer.act({}, own, torch.zeros(500))
        actions.append(decision.action)
    assert stats.chisquare(torch.cat(actions).bincount(minlength=4).numpy()).pvalue > 0.001
    assert not torch.equal(actions[0], actions[1])


def test_the_guided_walker_wants_to_be_guided():
    check_fits("guided_walker", co_player("guided_walker"), StreetGraph(guided=True).roles[0])
    with pytest.raises(BadInput, match="reads way as 3 symbols"):
        check_fits("guided_walker", co_player("guided_walker"), StreetGraph().roles[0])


def test_words():
    game = StreetGraph()
    streets = "streets A-BCE B-CDEA C-DAB D-EBC E-ABD"
    assert game.describe(town(0, 12), 0).text == f"before step 1 of 200: {streets}; at A facing B, goal D"
    state, _, _ = act(game, town(0, 12), LEFT)
    assert game.describe(state, 0).text == "step 1: turns left; at A facing E, goal D"
    state, _, _ = act(game, town(0, 12), WALK)
    assert game.describe(state, 0).text == "step 1: walks to B; at B facing D, goal D"
    state, _, _ = act(game, state, WALK)
    assert game.describe(state, 0).text.startswith("step 2: walks to D, goal reached +1; at D facing ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"places": 4}, "places is 4; want from 5 to 16"),
        ({"steps": 0}, "steps is 0; want from 1"),
        ({"views": 19}, "views is 19; want at least 20"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        StreetGraph(**settings)
