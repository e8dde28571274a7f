"""Hidden objects: the schedule, what may be seen when, and what is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.face import draw
from envs.rooms3d.hidden_object import HiddenObject, HiddenState, hidden_object, hidden_object_small
from envs.rooms3d.tasks import NAMES

SMALL = HiddenObject(
    boxes=2, objects=2, names=4, show=2, delay=(3, 3), limit=8, room=3.0, size=16, moves=("stay", "forward", "left", "right")
)
STAY, FORWARD, LEFT, RIGHT = range(4)
# The left box is ahead of a step to the left.
TO_BOX = {0: [LEFT, FORWARD, FORWARD, FORWARD, FORWARD], 1: [RIGHT, FORWARD, FORWARD, FORWARD, FORWARD]}
# Floor, ceiling and four walls are slots 1 to 6; then boxes, objects and lids.
FIRST_BOX = 7


def play(game: HiddenObject, seeds: Tensor, actions: list[int]) -> tuple[list[HiddenState], list[Any]]:
    """All states, and all turns; everyone acts the same."""
    states, turns = [game.start(seeds)], []
    for action in actions:
        state, turn = game.step(states[-1], {"seeker": torch.full((len(seeds), 1), action)})
        states.append(state)
        turns.append(turn)
    return states, turns


def test_objects_are_shown_hidden_and_asked_for_on_time() -> None:
    """Two steps each with the lid open, three with all closed, then the word."""
    game = replace(SMALL, segmentation=True, size=48)
    states, _ = play(game, torch.arange(6), [STAY] * 10)
    for row in range(6):
        first, second = states[0].box[row].tolist()
        for step, state in enumerate(states):
            opened = state.world.opened[row].nonzero()[:, 0].tolist()
            assert opened == ([first] if step in (0, 1) else [second] if step in (5, 6) else []), step
            seen = set(game.observe(state)["seeker"]["segmentation"][row, 0].unique().tolist())
            objects = seen & {FIRST_BOX + 2, FIRST_BOX + 3}
            assert objects == ({FIRST_BOX + 2} if step in (0, 1) else {FIRST_BOX + 3} if step in (5, 6) else set()), step
            assert {FIRST_BOX, FIRST_BOX + 1} <= seen
    words = [game.observe(state)["seeker"]["word"][:, 0].tolist() for state in states]
    assert words[:10] == [[0] * 6] * 10
    named = [1 + state.objects[row, int(state.asked[row])].item() for row, state in enumerate([states[0]] * 6)]
    assert words[10] == named


def test_an_object_is_seen_over_its_box() -> None:
    game = replace(SMALL, segmentation=True, size=48)
    state = game.start(torch.arange(20))
    assert set(state.box[:, 0].tolist()) == {0, 1}
    seen = game.observe(state)["seeker"]["segmentation"][:, 0]
    for row in range(20):
        columns = (seen[row] == FIRST_BOX + 2).any(0).nonzero()[:, 0].float().mean()
        assert (columns > 24) == bool(state.box[row, 0] == 1)


def test_closed_boxes_do_not_betray_what_is_in_them() -> None:
    state = play(SMALL, torch.arange(30), [STAY] * 10)[0][-1]
    assert len(torch.cat([state.objects, state.box], 1).unique(dim=0)) > 10
    assert len(SMALL.observe(state)["seeker"]["pixels"].flatten(1).unique(dim=0)) == 1


def test_objects_look_different() -> None:
    game = replace(SMALL, names=40, objects=1, size=32)
    state = game.start(torch.arange(400))
    pixels = game.observe(state)["seeker"]["pixels"].flatten(1)
    names_seen = set(state.objects[:, 0].tolist())
    assert len(names_seen) == len(NAMES) == len(set(NAMES)) == 40
    assert len(pixels[state.box[:, 0] == 0].unique(dim=0)) == len(set(state.objects[state.box[:, 0] == 0].flatten().tolist()))


def test_the_agent_is_held_still_until_the_word() -> None:
    states, _ = play(SMALL, torch.arange(3), [FORWARD] * 12)
    for step, state in enumerate(states[:11]):
        assert state.world.place[0, 0].tolist() == [0.0, 0.5]
        mask = SMALL.observe(state)["seeker"]["action_mask"][0, 0].tolist()
        assert mask == ([1, 1, 1, 1] if step == 10 else [1, 0, 0, 0])
    assert states[11].world.place[0, 0].tolist() == pytest.approx([0.0, 0.8])


def test_the_right_box_pays_one_and_the_wrong_one_nothing() -> None:
    for box, way in TO_BOX.items():
        states, turns = play(SMALL, torch.arange(20), [STAY] * 10 + way)
        wanted = states[0].box.gather(1, states[0].asked[:, None])[:, 0]
        assert 0 < int((wanted == box).sum()) < 20
        for turn in turns[:-1]:
            assert not turn.over.any()
            assert (turn.rewards["seeker"] == 0).all()
            assert turn.measures["accuracy"].isnan().all()
        assert turns[-1].over.all()
        assert turns[-1].rewards["seeker"][:, 0].tolist() == (wanted == box).float().tolist()
        assert turns[-1].measures["accuracy"].tolist() == (wanted == box).float().tolist()
        assert turns[-1].measures["chose"].tolist() == [1.0] * 20
        assert states[-1].world.opened.tolist() == [[box == 0, box == 1]] * 20


def test_time_runs_out_after_the_limit() -> None:
    _, turns = play(SMALL, torch.arange(4), [STAY] * 18)
    assert [bool(turn.over.any()) for turn in turns] == [False] * 17 + [True]
    assert turns[-1].rewards["seeker"].tolist() == [[0.0]] * 4
    assert turns[-1].measures["accuracy"].tolist() == [0.0] * 4
    assert turns[-1].measures["chose"].tolist() == [0.0] * 4
    assert SMALL.max_steps == 18


def test_delays_are_fixed_or_vary_within_their_range() -> None:
    assert SMALL.start(torch.arange(50)).ready.unique(dim=0).tolist() == [[5, 10]]
    ready = replace(SMALL, delay=(0, 4)).start(torch.arange(500)).ready
    delays = torch.stack([ready[:, 0] - 2, ready[:, 1] - ready[:, 0] - 2])
    assert delays.unique().tolist() == [0, 1, 2, 3, 4]
    assert len(delays.unique(dim=1)[0]) == 25


def test_boxes_objects_and_questions_are_drawn_evenly() -> None:
    state = hidden_object().start(torch.arange(2000))
    for draws, count in ((state.objects[:, 0], 10), (state.box[:, 0], 4), (state.asked, 3)):
        shares = torch.bincount(draws, minlength=count) / 2000
        assert (shares - 1 / count).abs().max() < 0.04
    assert all(len(set(row)) == 3 for row in state.objects.tolist())
    assert all(len(set(row)) == 3 for row in state.box.tolist())


def test_depth_and_segmentation_are_fields_if_wanted() -> None:
    """Level eyes would see the far wall 2.5 metres ahead; they look 15 degrees down, so its upper part is nearer along the gaze."""
    game = replace(SMALL, depth=True, segmentation=True)
    seen = game.observe(game.start(torch.arange(2)))["seeker"]
    assert set(seen) == {"pixels", "word", "depth", "segmentation", "action_mask"}
    assert game.roles[0].observation_space["depth"].shape == (16, 16)
    middle = seen["depth"][0, 0, 6:8, 8].mean().item()
    assert 2.3 < middle < 2.7
    assert set(SMALL.observe(SMALL.start(torch.arange(2)))["seeker"]) == {"pixels", "word", "action_mask"}


def test_words_for_people_tell_the_story() -> None:
    seeds = torch.tensor([5])
    states, _ = play(SMALL, seeds, [STAY] * 10)
    names = [NAMES[number] for number in states[0].objects[0].tolist()]
    boxes = states[0].box[0].tolist()
    texts = [SMALL.describe(state, 0).text for state in states]
    assert texts[0] == f"step 0 of 18: the {names[0]} is put into box {boxes[0] + 1} of 2"
    assert texts[3] == f"step 3 of 18: waits; hidden: the {names[0]} in box {boxes[0] + 1}"
    assert texts[9] == f"step 9 of 18: waits; hidden: the {names[0]} in box {boxes[0] + 1}, the {names[1]} in box {boxes[1] + 1}"
    asked = int(states[0].asked[0])
    # 1.88 metres from the boxes' middles, less a body of 0.2 and half a box's diagonal, 0.311.
    target = f"the {names[asked]} in box {boxes[asked] + 1}"
    assert texts[10] == f'step 10 of 18: hears "{names[asked]}" and may walk: {target} is 1.37 m away'
    for box, way in TO_BOX.items():
        end = play(SMALL, seeds, [STAY] * 10 + way)[0][-1]
        holds, outcome = names[boxes.index(box)], "right" if box == boxes[asked] else "wrong"
        assert SMALL.describe(end, 0).text == f"step 15 of 18: wanted {target}; came to box {box + 1}, which holds the {holds}: {outcome}"
    late = play(SMALL, seeds, [STAY] * 18)[0][-1]
    assert SMALL.describe(late, 0).text == f"step 18 of 18: wanted {target}; came to no box in time"


def test_people_see_what_the_agent_sees() -> None:
    """A red ball over its box is in the picture for people, and gone from it when the box is closed."""

    def redness(state: HiddenState) -> int:
        picture = torch.tensor(draw(SMALL.describe(state, 0), 200)).int()
        return int(((picture[..., 0] > 120) & (picture[..., 1] < 50) & (picture[..., 2] < 50)).sum())

    seed = next(seed for seed in range(50) if NAMES[int(SMALL.start(torch.tensor([seed])).objects[0, 0])] == "red ball")
    states, _ = play(SMALL, torch.tensor([seed]), [STAY] * 3)
    assert redness(states[0]) > 50
    assert redness(states[3]) == 0


def test_the_games_that_are_listed() -> None:
    assert hidden_object().size == 64
    assert (hidden_object().boxes, hidden_object_small().boxes) == (4, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": 1}, "boxes is 1; want from 2 to 20"),
        ({"objects": 5}, "objects is 5; want from 1 to the number of boxes, 4"),
        ({"objects": 0}, "objects is 0; want from 1"),
        ({"names": 2}, "names is 2; want from 3, so that all differ, to 40"),
        ({"names": 41}, "names is 41; want from 3, so that all differ, to 40"),
        ({"show": 0}, "show is 0; want from 1 to 1000 steps"),
        ({"delay": (-1, 4)}, r"delay is \(-1, 4\); want \(least, most\) steps, from 0"),
        ({"delay": (5, 4)}, r"delay is \(5, 4\); want \(least, most\) steps"),
        ({"limit": 0}, "limit is 0; want from 1"),
        ({"room": 1.0, "boxes": 2, "objects": 2}, "room is 1.0; want from 2.2 to 50 metres"),
        ({"boxes": 9}, "boxes is 9; want at most 4 in a room of 5.0 metres, or a larger room"),
        ({"size": 0}, "size is 0; want from 1 to 2048 pixels"),
        ({"moves": ("forward", "stay")}, "moves is .*; want stay first, then different ones of forward, back"),
        ({"moves": ("stay", "lift")}, "moves is .*; want stay first"),
        ({"stride": 1.0}, "stride is 1.0; want from 0.05 to 0.4 metres"),
        ({"turn": 50.0}, "turn is 50.0; want degrees from 1 to 90 that divide 360"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HiddenObject(**settings)
