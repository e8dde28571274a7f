"""What tasks in 3D rooms share: what cannot be solved is refused, pictures have the fields that are wanted, answers lead to the target."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from envs.rooms3d.errands import Errands
from envs.rooms3d.hidden_object import HiddenObject, hidden_object, hidden_object_small
from envs.rooms3d.one_saw import OneSaw, one_saw
from envs.rooms3d.rapid_words import RapidWords, rapid_words
from envs.rooms3d.tasks import check_row, moves_towards
from envs.rooms3d.visual_match import VisualMatch, visual_match
from envs.rooms3d.world import World, one_room

GAMES = {
    "hidden_object": hidden_object(),
    "rapid_words": rapid_words(),
    "one_saw": one_saw(),
    "visual_match": visual_match(),
    "errands": Errands(agents=1),
}
every_game: Any = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())
WALKS, TURNS = ("stay", "forward", "left", "right"), ("stay", "forward", "turn_left", "turn_right")


@every_game
def test_depth_and_segmentation_are_fields_if_wanted(game: Any) -> None:
    game = replace(game, size=16)
    with_both = replace(game, depth=True, segmentation=True)
    names = {role.name: set(role.observation_space) for role in game.roles}
    for role in with_both.roles:
        assert set(role.observation_space) == names[role.name] | {"depth", "segmentation"}
        seen = with_both.observe(with_both.start(torch.arange(3)))[role.name]
        assert set(seen) == set(role.observation_space)
        assert seen["depth"].shape == seen["segmentation"].shape == (3, 1, 16, 16)
        assert 0 < seen["depth"].min() < seen["depth"].max() < 12
        for name in ("depth", "segmentation"):
            assert role.observation_space[name].contains(seen[name][0, 0].numpy())
        assert {name: set(values) for name, values in game.observe(game.start(torch.arange(3))).items()} == names


@every_game
def test_the_largest_segment_is_in_its_space(game: Any) -> None:
    game = replace(game, segmentation=True)
    state = game.start(torch.arange(2))
    for role in game.roles:
        assert role.observation_space["segmentation"].high.max() == game.world.slots(state.world).kind.shape[1]


@every_game
@pytest.mark.parametrize("turn", [15.0, 20.0, 30.0, 90.0])
def test_agents_look_fifteen_degrees_down_at_first_whatever_their_turns(game: Any, turn: float) -> None:
    game = replace(game, turn=turn)
    pitch = game.world.eyes(game.start(torch.arange(1)).world).pitch
    assert pitch.flatten().tolist() == pytest.approx([math.radians(-15)] * pitch.numel())


def test_things_of_one_metre_ten_fit_three_into_three_metres_thirty() -> None:
    for count in range(2, 21):
        check_row("boxes", count, room=count * 1.1)
    assert HiddenObject(boxes=3, objects=2, room=3 * 1.1).room == 3 * 1.1
    with pytest.raises(ValueError, match=r"boxes is 3; want at most 2 in a room of 3.29 metres"):
        HiddenObject(boxes=3, room=3.29)


@pytest.mark.parametrize(
    ("moves", "turn", "x", "z", "needed"),
    [
        # To within 0.5 metres, with steps of 0.3.
        (WALKS, 15.0, 0.0, 1.9, 5),
        # Three aside leave 0.1 of 1.0, and six ahead 0.2 of 2.0; a way of two aside would do as well.
        (WALKS, 15.0, 1.0, 2.0, 9),
        (WALKS, 15.0, -1.0, 2.0, 9),
        # Three turns to 45 degrees, and four ahead, for 1.2 of 1.41 leave 0.21.
        (TURNS, 15.0, 1.0, 1.0, 7),
        # A turn, three ahead, a turn back, and two ahead leave 0.1 and 0.4.
        (TURNS, 90.0, 1.0, 1.0, 7),
        # Already there: it takes a move for that to count.
        (WALKS, 15.0, 0.0, 0.4, 1),
    ],
)
def test_the_moves_to_somewhere(moves: tuple[str, ...], turn: float, x: float, z: float, needed: int) -> None:
    world = World(one_room(9.0, 9.0), turn=turn)
    assert moves_towards(world, moves, 1.0, ((x, 1.0 + z),), 0.5 - world.step - world.radius) == (needed,)


def test_a_way_that_ends_at_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride is 0.4; want less, or other moves: on the way to what stands at x = 0.2 is another"):
        moves_towards(World(one_room(9.0, 9.0), step=0.4), WALKS, 1.0, ((0.2, 4.0), (0.0, 3.0)), 0.1)


@pytest.mark.parametrize(
    ("game", "settings", "message"),
    [
        (
            HiddenObject,
            {"moves": ("stay", "left", "right")},
            "moves is .*; want forward, and left and right or turn_left and turn_right, so that all boxes",
        ),
        (HiddenObject, {"moves": ("stay", "forward", "left", "back")}, "moves is .*; want forward, and left and right or turn_left and"),
        (HiddenObject, {"moves": ("stay", "forward", "turn_left")}, "moves is .*; want forward, and left and right or turn_left and"),
        # 1.65 metres aside and 3.8 ahead, to within 0.3 + 0.2 + 0.311: 5 aside leave 0.15, and then 11 ahead 0.5.
        (HiddenObject, {"limit": 15, "moves": WALKS}, "limit is 15; want at least 16, the moves to the farthest box"),
        (HiddenObject, {"limit": 40, "stride": 0.05, "moves": WALKS}, "limit is 40; want at least .*, the moves to the farthest box"),
        # 1.1 metres aside and 2.8 ahead, to within 0.3 + 0.2 + 0.2.
        (RapidWords, {"limit": 11}, "limit is 11; want at least 12, the moves to the farthest object"),
        # 1.1 metres aside and 2.95 ahead, to within 0.811.
        (OneSaw, {"limit": 11}, "limit is 11; want at least 12, the moves of the watcher to the farthest box"),
        # 1.1 metres aside and 2.8 ahead, to within 0.3 + 0.2 + 0.283.
        (VisualMatch, {"reward": 10}, "reward is 10; want at least 11, the moves to the farthest cube"),
        (VisualMatch, {"moves": ("stay", "forward")}, "moves is .*; want stay, forward, left, right first"),
    ],
)
def test_what_cannot_be_solved_is_refused_with_what_would_work(game: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        game(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "field", "settings"),
    [
        ("hidden_object", "limit", {}),
        ("hidden_object", "limit", {"moves": TURNS}),
        ("hidden_object", "limit", {"moves": TURNS, "boxes": 3, "room": 3.5, "stride": 0.4, "turn": 90.0}),
        ("hidden_object", "limit", {"moves": TURNS, "boxes": 2, "room": 2.2}),
        ("hidden_object", "limit", {"moves": WALKS, "boxes": 2, "room": 2.2, "stride": 0.4}),
        ("rapid_words", "limit", {}),
        ("one_saw", "limit", {}),
        ("visual_match", "reward", {}),
    ],
)
def test_with_the_limit_that_a_message_asks_for_whoever_follows_the_answers_gets_there(
    name: str, field: str, settings: dict[str, Any]
) -> None:
    short = {"size": 8, **({"objects": 2, "names": 4} if name == "hidden_object" else {}), **settings}
    with pytest.raises(ValueError, match="want at least") as caught:
        replace(GAMES[name], **short, **{field: 1})
    wanted = int(str(caught.value).split("want at least ")[1].split(",")[0])
    with pytest.raises(ValueError, match=f"want at least {wanted}"):
        replace(GAMES[name], **short, **{field: wanted - 1})
    game = replace(GAMES[name], **short, **{field: wanted})
    state, reward = game.start(torch.arange(24)), torch.zeros(24)
    for _ in range(game.max_steps):
        answers = game.answers(state)
        state, turn = game.step(state, {role: torch.where(answer.asked, answer.action, 0) for role, answer in answers.items()})
        if name == "rapid_words":
            # The questions, of which the last ends the trial.
            reward += turn.rewards["learner"][:, 0]
        else:
            right = turn.measures["accuracy"]
            reward = reward.maximum((right if right.ndim == 1 else right[:, -1]).nan_to_num())
    assert (reward >= 1).all()


@pytest.mark.parametrize("turn", [3.6, 15.0, 20.0, 40.0, 45.0, 60.0, 72.0, 90.0])
@pytest.mark.parametrize("moves", [WALKS, TURNS, ("stay", "forward", "right", "turn_left", "turn_right")])
def test_who_follows_the_answers_finds_what_is_hidden(moves: tuple[str, ...], turn: float) -> None:
    for game in (hidden_object_small(), replace(hidden_object(), delay=(0, 1), show=1)):
        game = replace(game, moves=moves, turn=turn, limit=700, size=16)
        state, right = game.start(torch.arange(24)), torch.full((24,), torch.nan)
        for _ in range(game.max_steps):
            answer = game.answers(state)["seeker"]
            seen_word = state.step >= state.ready[:, -1]
            assert (answer.asked[:, 0] == seen_word).all()
            state, turn_taken = game.step(state, {"seeker": torch.where(answer.asked, answer.action, 0)})
            right = torch.where(right.isnan(), turn_taken.measures["accuracy"], right)
            if not right.isnan().any():
                break
        assert right.tolist() == [1.0] * 24
