"""Visual match: what is there in each phase, which apples and cubes pay, and what has to be looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from envs.face import draw
from envs.rooms3d.visual_match import NAMES, MatchState, VisualMatch, visual_match, visual_match_active, visual_match_small

SMALL = VisualMatch(explore=2, distractor=6, reward=8, choices=2, colours=4, apples=2, respawn=3, room=3.0, size=16)
STAY, FORWARD, LEFT, RIGHT, BACK = range(5)
# Two cubes stand 0.55 metres to either side, 2.3 metres into the hall: one comes near enough after two steps aside and four ahead.
TO_PLACE = {-0.55: [LEFT, LEFT, FORWARD, FORWARD, FORWARD, FORWARD], 0.55: [RIGHT, RIGHT, FORWARD, FORWARD, FORWARD, FORWARD]}
# The first cube, two to choose from, two apples; slots that are seen are numbered from 1, after floor, ceiling and eight walls.
FIRST, CUBES, APPLES = 0, (1, 2), (3, 4)
SEEN = 11


def play(game: VisualMatch, state: MatchState, actions: Sequence[int]) -> tuple[list[MatchState], list[Any]]:
    """All states, and all turns; everyone acts the same."""
    states, turns = [state], []
    for action in actions:
        state, turn = game.step(states[-1], {"matcher": torch.full((len(state.seed), 1), action)})
        states.append(state)
        turns.append(turn)
    return states, turns


def right_x(game: VisualMatch, state: MatchState) -> list[float]:
    """Where in the row the right cube stands."""
    is_right = state.choices == state.colour[:, None]
    assert (is_right.sum(1) == 1).all()
    return (state.world.things.position[:, 1 : 1 + game.choices, 0] * is_right).sum(1).tolist()


def with_apples(state: MatchState, *places: tuple[float, float]) -> MatchState:
    """With its apples somewhere else (x, z)."""
    position = state.world.things.position.clone()
    position[:, -len(places) :] = torch.tensor([(x, 0.12, z) for x, z in places])
    return state._replace(world=state.world._replace(things=state.world.things._replace(position=position)))


def seen_slots(game: VisualMatch, state: MatchState, size: int = 64) -> set[int]:
    """Of the first game: things, numbered from 0."""
    segments = game.world.look(state.world, replace(game.camera, size=size)).segmentation[0, 0].unique().tolist()
    return {segment - 3 - len(game.world.walls) for segment in segments if segment >= 3 + len(game.world.walls)}


def test_a_cube_then_apples_then_cubes() -> None:
    states, _ = play(SMALL, SMALL.start(torch.arange(5)), [STAY] * 12)
    for step, state in enumerate(states):
        there = {FIRST} if step < 2 else set(APPLES) if step < 8 else set(CUBES)
        assert [slot in there for slot in range(5)] == state.world.things.visible[0].tolist(), step
        assert seen_slots(SMALL, state) <= there
    assert seen_slots(SMALL, states[0]) == {FIRST}
    assert seen_slots(SMALL, states[8]) == set(CUBES)


def test_the_agent_walks_all_the_time_and_is_put_back_when_a_phase_begins() -> None:
    """The first room is 3.2 metres behind the hall, and its cube stands in the way 1.2 metres ahead: 0.483 is its least distance."""
    apples = with_apples(SMALL.start(torch.arange(2)), (1.2, 2.8), (-1.2, 2.8))
    states, _ = play(replace(SMALL, explore=4), apples, [FORWARD] * 14)
    places = [round(z, 4) for z in (state.world.place[0, 0, 1].item() for state in states)]
    assert places == [-2.7, -2.4, -2.1, -2.1, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 0.5, 0.8, 1.1, 1.4, 1.7]
    assert (torch.stack([state.world.place[..., 0] for state in states]) == 0).all()
    turned = replace(SMALL, moves=("stay", "forward", "left", "right", "turn_right", "look_up"))
    states, _ = play(turned, turned.start(torch.arange(1)), [4, 5] * 5)
    assert [int(state.world.heading) for state in states] == [0, 1, 0, 1, 1, 2, 2, 3, 0, 1, 1]
    assert [int(state.world.tilt) for state in states] == [-1, -1, -1, -1, 0, 0, 1, 1, -1, -1, 0]


def test_the_colour_that_is_seen_is_the_first_cubes() -> None:
    """A red or a green one: what there is more of in the first pictures."""
    game = replace(SMALL, colours=2)
    states, _ = play(game, game.start(torch.arange(16)), [STAY] * 8)
    is_red = states[0].colour == 0
    assert 0 < is_red.sum() < 16
    for state, red_or_green in ((states[0], True), (states[8], False)):
        pixels = game.observe(state)["matcher"]["pixels"][:, 0].int()
        red = (pixels[..., 0] - pixels[..., 1] > 60).sum((1, 2)) > 4
        green = (pixels[..., 1] - pixels[..., 0] > 60).sum((1, 2)) > 4
        assert (red == (is_red if red_or_green else True)).all()
        assert (green == (~is_red if red_or_green else True)).all()


def test_the_last_pictures_do_not_tell_which_cube_is_the_right_one() -> None:
    """Games with the same cubes at the same places, of which another one is right, look the same in the hall."""
    game = replace(SMALL, apples=0)
    state = play(game, game.start(torch.arange(200)), [STAY] * 8)[0][-1]
    pictures = torch.cat([state.choices, game.observe(state)["matcher"]["pixels"].flatten(1)], 1)
    assert len(pictures.unique(dim=0)) == 12
    assert len(torch.cat([state.choices, state.colour[:, None]], 1).unique(dim=0)) == 24


@pytest.mark.parametrize("place", TO_PLACE)
def test_the_right_cube_pays_ten_and_the_other_nothing(place: float) -> None:
    states, turns = play(SMALL, with_apples(SMALL.start(torch.arange(20)), (1.2, 2.8), (-1.2, 2.8)), [STAY] * 8 + TO_PLACE[place])
    wanted = [x == pytest.approx(place) for x in right_x(SMALL, states[0])]
    assert 0 < sum(wanted) < 20
    for turn in turns[:-1]:
        assert not turn.over.any()
        assert (turn.rewards["matcher"] == 0).all()
        assert all(values.isnan().all() for values in turn.measures.values())
    assert turns[-1].over.all()
    assert turns[-1].rewards["matcher"][:, 0].tolist() == [10.0 if is_right else 0.0 for is_right in wanted]
    assert {name: values.tolist() for name, values in turns[-1].measures.items()} == {
        "accuracy": [float(is_right) for is_right in wanted],
        "chose": [1.0] * 20,
        "apples": [0.0] * 20,
        "seen": [1.0] * 20,
    }
    other = play(replace(SMALL, match_reward=-3.0), states[0], [STAY] * 8 + TO_PLACE[place])[1]
    assert other[-1].rewards["matcher"][:, 0].tolist() == [-3.0 if is_right else 0.0 for is_right in wanted]


def test_an_apple_pays_what_it_is_worth_and_comes_back() -> None:
    """From 0.5 ahead by 0.3 and 0.3 to 1.1, which is 0.3 from an apple at 1.4: bodies of 0.2 and 0.12 touch. It is gone for three steps."""
    state = with_apples(SMALL.start(torch.arange(20)), (0.0, 1.4), (1.2, 2.8))
    states, turns = play(SMALL, state, [STAY, STAY, FORWARD, FORWARD] + [STAY] * 12)
    worth = state.worth.tolist()
    assert set(worth) == {1.0, 10.0}
    paid = [turn.rewards["matcher"][:, 0].tolist() for turn in turns]
    assert [values == worth for values in paid] == [step in (3, 7) for step in range(16)]
    assert [values == [0.0] * 20 for values in paid] == [step not in (3, 7) for step in range(16)]
    there = [bool(state.world.things.visible[0, 3]) for state in states]
    assert there == [False] * 2 + [True] * 2 + [False] * 3 + [True] + [False] * 9
    assert turns[-1].measures["apples"].tolist() == [2.0] * 20
    assert turns[-1].over.all()
    assert turns[-1].measures["accuracy"].tolist() == turns[-1].measures["chose"].tolist() == [0.0] * 20


def test_two_apples_at_once_and_none_stands_in_the_way() -> None:
    state = with_apples(SMALL.start(torch.arange(2)), (0.15, 0.9), (-0.15, 0.9))
    states, turns = play(SMALL, state, [STAY, STAY] + [FORWARD] * 6)
    assert [turn.rewards["matcher"][:, 0].tolist() for turn in turns][2] == (2 * state.worth).tolist()
    assert [round(state.world.place[0, 0, 1].item(), 4) for state in states[2:8]] == [0.5, 0.8, 1.1, 1.4, 1.7, 2.0]


def test_apples_lie_at_different_places_in_the_hall_and_not_at_the_agents_feet() -> None:
    game = visual_match()
    position = game.start(torch.arange(50)).world.things.position[:, 4:]
    assert position.shape == (50, 10, 3)
    assert (torch.cdist(position, position) + 9 * torch.eye(10)).min() > 0.69
    assert (position[..., 0].abs() < 1.8).all()
    assert ((position[..., 2] > 0.2) & (position[..., 2] < 3.8)).all()
    assert (position - torch.tensor([0.0, 0.12, 0.5])).norm(dim=-1).min() > 0.5
    with pytest.raises(ValueError, match=r"apples is 25; want from 0 to 24 in a room of 4.0 metres"):
        replace(game, apples=25)
    assert replace(game, apples=24).start(torch.arange(2)).world.things.kind.shape == (2, 28)


@pytest.mark.parametrize("way", [LEFT, RIGHT])
@pytest.mark.parametrize(("room", "stride", "steps"), [(4.0, 0.3, 3), (2.2, 0.3, 2), (2.2, 0.2, 3), (8.0, 0.4, 3), (3.3, 0.05, 14)])
def test_an_active_agent_sees_the_cube_only_from_beside_the_screen(way: int, room: float, stride: float, steps: int) -> None:
    """In 4 metres: a screen of 0.4 to either side, its far face at 1.95, the cube at 3.3. From 0.5 its middle is seen past 0.83 aside."""
    game = replace(visual_match_active(), room=room, stride=stride, choices=2, apples=3, explore=steps + 1, reward=200, size=64)
    states, _ = play(game, game.start(torch.arange(1)), [way] * steps)
    assert [bool(state.seen) for state in states] == [False] * steps + [True]
    assert FIRST not in seen_slots(game, states[0])
    assert FIRST in seen_slots(game, states[-1])
    with pytest.raises(ValueError, match=f"explore is {steps}; want at least {steps + 1}, the moves to look round the screen and one more"):
        replace(game, explore=steps)


def test_whether_the_cube_was_seen_is_told_at_the_end() -> None:
    game = replace(SMALL, active=True, explore=5)
    for first, seen in (([STAY] * 5, 0.0), ([FORWARD] * 5, 0.0), ([RIGHT] * 3 + [LEFT] * 2, 1.0), ([STAY] * 4 + [RIGHT], 0.0)):
        _, turns = play(game, game.start(torch.arange(3)), first + [STAY] * 14)
        assert turns[-1].measures["seen"].tolist() == [seen] * 3
        assert turns[-1].over.all()


def test_who_follows_the_answers_is_always_right() -> None:
    """Where nothing is asked it goes wherever chance leads."""
    turning = ("stay", "forward", "left", "right", "back", "turn_left", "turn_right")
    for game in (
        visual_match(),
        visual_match_active(),
        visual_match_small(),
        replace(visual_match_active(), moves=turning, distractor=5),
        replace(visual_match(), choices=5, room=5.5, reward=30, stride=0.4, distractor=0),
    ):
        game = replace(game, size=16)
        state, right, seen = game.start(torch.arange(12)), torch.full((12,), torch.nan), torch.full((12,), torch.nan)
        for step in range(game.max_steps):
            answer = game.answers(state)["matcher"]
            assert answer.asked.all() == (step >= game.explore + game.distractor or (game.active and step < game.explore))
            elsewhere = (state.seed[:, None] + step) % 4
            state, turn = game.step(state, {"matcher": torch.where(answer.asked, answer.action, elsewhere)})
            right = torch.where(right.isnan(), turn.measures["accuracy"], right)
            seen = torch.where(seen.isnan(), turn.measures["seen"], seen)
        assert right.tolist() == seen.tolist() == [1.0] * 12


def test_time_runs_out_after_the_last_phase() -> None:
    _, turns = play(SMALL, SMALL.start(torch.arange(4)), [STAY] * 16)
    assert [bool(turn.over.any()) for turn in turns] == [False] * 15 + [True]
    assert SMALL.max_steps == 16
    assert turns[-1].measures["accuracy"].tolist() == turns[-1].measures["chose"].tolist() == [0.0] * 4


def test_colours_places_and_worth_are_drawn_evenly() -> None:
    state = visual_match().start(torch.arange(2000))
    assert all(len(set(row)) == 3 for row in state.choices.tolist())
    x = torch.tensor(right_x(visual_match(), state))
    for draws, count in (
        (state.colour, 8),
        (state.choices[:, 1], 8),
        ((x / 1.1).round().long() + 1, 3),
        ((state.worth > 1).long(), 2),
    ):
        assert (torch.bincount(draws, minlength=count) / 2000 - 1 / count).abs().max() < 0.04
    assert state.worth.unique().tolist() == [1.0, 10.0]
    assert replace(visual_match(), apple_rewards=(1.0,)).start(torch.arange(9)).worth.tolist() == [1.0] * 9
    # Neither the right place nor the worth tells of the colour, nor of each other.
    for one, other in ((state.colour, x), (state.colour, state.worth), (x, state.worth)):
        assert abs(torch.corrcoef(torch.stack([one.float(), other.float()]))[0, 1]) < 0.07


def test_words_for_people_tell_the_story() -> None:
    game = replace(SMALL, apple_rewards=(2.5,))
    state = with_apples(game.start(torch.tensor([3])), (0.0, 1.4), (1.2, 2.8))
    (place,) = right_x(game, state)
    right, names = NAMES[int(state.colour[0])], [NAMES[number] for number in state.choices[0].tolist()]
    states, _ = play(game, state, [STAY, STAY, FORWARD, FORWARD] + [STAY] * 4 + next(way for x, way in TO_PLACE.items() if x * place > 0))
    texts = [game.describe(state, 0).text for state in states]
    assert texts[0] == f"step 0 of 16, first room: the {right} cube is in view"
    # 0.9 metres to the nearer apple's middle, less bodies of 0.2 and 0.12.
    assert texts[2] == f"step 2 of 16, apples: apples eaten: 0, each worth 2.5; 2 there, the nearest 0.58 m away; the {right} cube was seen"
    # 1.2 aside and 1.7 ahead is 2.081.
    assert texts[4] == f"step 4 of 16, apples: apples eaten: 1, each worth 2.5; 1 there, the nearest 1.76 m away; the {right} cube was seen"
    # 0.55 aside and 1.8 ahead is 1.882; a body of 0.2 and half a cube's diagonal of 0.283.
    told = f"the {right} cube was seen; apples eaten: 2, each worth 2.5"
    assert texts[8] == f"step 8 of 16, choice: wants the {right} cube; metres away: {names[0]} 1.40, {names[1]} 1.40; {told}"
    assert texts[-1] == f"step 14 of 16, the end: wanted the {right} cube, came to the {right} one: right; {told}"
    late = play(game, state, [STAY] * 16)[0][-1]
    assert "came to none in time" in game.describe(late, 0).text
    active = replace(SMALL, active=True, explore=5)
    states, _ = play(active, active.start(torch.tensor([3])), [RIGHT, RIGHT, RIGHT, LEFT])
    texts = [active.describe(state, 0).text.split(": ")[1] for state in states]
    hidden, shown = f"the {right} cube is out of view; the {right} cube was ", f"the {right} cube is in view"
    assert texts == [hidden + "not seen"] * 2 + [hidden + "not seen", shown, hidden + "seen"]


def test_people_see_what_the_agent_sees() -> None:
    game = replace(SMALL, colours=2, apples=0)

    def redness(state: MatchState) -> int:
        picture = torch.tensor(draw(game.describe(state, 0), 200)).int()
        return int(((picture[..., 0] > 120) & (picture[..., 1] < 50) & (picture[..., 2] < 50)).sum())

    seed = next(seed for seed in range(50) if int(game.start(torch.tensor([seed])).colour) == 0)
    states, _ = play(game, game.start(torch.tensor([seed])), [STAY] * 8)
    assert redness(states[0]) > 50
    assert redness(states[2]) == 0
    assert redness(states[8]) > 20


def test_the_games_that_are_listed() -> None:
    """The grid world's phases and rewards."""
    game = visual_match()
    assert (game.explore, game.distractor, game.reward, game.max_steps) == (15, 90, 15, 120)
    assert (game.choices, game.apples, game.respawn, game.apple_rewards, game.match_reward) == (3, 10, 20, (1.0, 10.0), 10.0)
    assert visual_match_active() == replace(game, active=True)
    assert (visual_match_small().size, visual_match_small().max_steps) == (16, 21)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"explore": 0}, "explore is 0; want from 1 to 100,000 steps"),
        ({"distractor": -1}, "distractor is -1; want from 0 to 100,000 steps"),
        ({"reward": 0}, "reward is 0; want from 1 to 100,000 steps"),
        ({"reward": 9}, "reward is 9; want at least 11, the moves to the farthest cube"),
        ({"respawn": 0}, "respawn is 0; want from 1 to 100,000 steps"),
        ({"active": True, "explore": 3}, "explore is 3; want at least 4, the moves to look round the screen and one more"),
        ({"choices": 1}, "choices is 1; want from 2 to 8"),
        ({"choices": 4}, "choices is 4; want at most 3 in a room of 4.0 metres, or a larger room"),
        ({"colours": 2}, "colours is 2; want from 3, so that all cubes differ, to 8"),
        ({"colours": 9}, "colours is 9; want from 3, so that all cubes differ, to 8"),
        ({"apples": -1}, "apples is -1; want from 0 to 24 in a room of 4.0 metres"),
        ({"apple_rewards": ()}, r"apple_rewards is \(\); want one or more rewards from -1000 to 1000"),
        ({"apple_rewards": (1.0, float("nan"))}, r"apple_rewards is \(1.0, nan\); want one or more rewards from -1000 to 1000"),
        ({"match_reward": 2000.0}, "match_reward is 2000.0; want a reward from -1000 to 1000"),
        ({"room": 2.0}, "room is 2.0; want from 3.3 to 50 metres"),
        ({"moves": ("stay", "forward")}, "moves is .*; want stay, forward, left, right first, then different ones of back"),
        ({"stride": 0.01}, "stride is 0.01; want from 0.05 to 0.4 metres"),
        ({"size": 0}, "size is 0; want from 1 to 2048 pixels"),
        ({"turn": 50.0}, "turn is 50.0; want degrees from 1 to 90 that divide 360"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisualMatch(**settings)
