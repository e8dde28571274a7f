"""One saw, one did not: who sees what, who may walk when, and who is paid for what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.rooms3d.one_saw import LINGER, OneSaw, OneSawState, one_saw, one_saw_small
from envs.rooms3d.tasks import NAMES

SMALL = OneSaw(boxes=2, names=4, show=2, limit=8, linger=2, delay=(3, 3), room=3.0, size=16)
STAY, FORWARD, LEFT, RIGHT = range(4)
# Boxes are 0.55 metres to either side, 2.3 into the hall; the witness begins at 1.2, the watcher at 0.35.
WITNESS = {0: [LEFT, LEFT, FORWARD], 1: [RIGHT, RIGHT, FORWARD]}
WATCHER = {0: [LEFT, LEFT, FORWARD, FORWARD, FORWARD, FORWARD], 1: [RIGHT, RIGHT, FORWARD, FORWARD, FORWARD, FORWARD]}
# Three steps of hiding, three of the witness, two at its box, three of waiting, six of the watcher.
BEGINS = {"witness": 3, "lingering": 6, "delay": 8, "watcher": 11, "over": 17}


def play(game: OneSaw, seeds: Tensor, witness: list[int], watcher: list[int]) -> tuple[list[OneSawState], list[Any]]:
    """All states, and all turns; all games alike."""
    states, turns = [game.start(seeds)], []
    for first, second in zip(witness, watcher, strict=True):
        actions = {"witness": torch.full((len(seeds), 1), first), "watcher": torch.full((len(seeds), 1), second)}
        state, turn = game.step(states[-1], actions)
        states.append(state)
        turns.append(turn)
    return states, turns


def visits(game: OneSaw, seeds: Tensor, first: int, second: int) -> tuple[list[OneSawState], list[Any]]:
    """The witness goes to one box, the watcher to one."""
    witness = [STAY] * 3 + WITNESS[first] + [STAY] * 11
    return play(game, seeds, witness, [STAY] * 11 + WATCHER[second])


def segments(game: OneSaw, state: OneSawState, seat: int, row: int = 0) -> set[int]:
    """What a seat sees: floor and ceiling are 1 and 2, eight walls 3 to 10, boxes 11 and 12, the object 13, lids 14 and 15, then of each
    part of a body the witness's and the watcher's: 16 and 17, 18 and 19, 20 and 21."""
    return set(game.world.look(state.world, replace(game.camera, size=48)).segmentation[row, seat].unique().tolist())


BOXES, OBJECT, WITNESSS_BODY, WATCHERS_BODY = {11, 12}, 13, 16, 17


def test_only_the_witness_sees_where_the_object_goes() -> None:
    states, _ = visits(SMALL, torch.arange(4), 0, 1)
    for step, state in enumerate(states[:-1]):
        assert (OBJECT in segments(SMALL, state, 0)) == (step < 2), step
        assert OBJECT not in segments(SMALL, state, 1), step
    assert segments(SMALL, states[0], 0) >= BOXES
    for step in range(3):
        assert not segments(SMALL, states[step], 1) & (BOXES | {WITNESSS_BODY}), step


def test_the_watcher_sees_the_witness_walk_and_later_has_to_remember_it() -> None:
    states, _ = visits(SMALL, torch.arange(4), 0, 1)
    for step in range(BEGINS["witness"], BEGINS["delay"]):
        assert segments(SMALL, states[step], 1) & {WITNESSS_BODY}, step
    for step in range(BEGINS["delay"], BEGINS["over"]):
        assert not segments(SMALL, states[step], 1) & {WITNESSS_BODY}, step
    # The same boxes are chosen, so only where the object is differs, and neither the watcher nor its picture tells.
    assert len(set(states[0].box.tolist())) == 2
    for state in states[: BEGINS["over"]]:
        assert len(SMALL.observe(state)["watcher"]["pixels"].flatten(1).unique(dim=0)) == 1


def test_the_watchers_pictures_differ_by_where_the_witness_went() -> None:
    left, right = (visits(SMALL, torch.arange(1), box, 0)[0] for box in (0, 1))
    differ = [
        not torch.equal(*(SMALL.observe(states[step])["watcher"]["pixels"] for states in (left, right)))
        for step in range(BEGINS["watcher"])
    ]
    assert differ == [False] * 4 + [True] * 4 + [False] * 3


def test_in_the_small_hall_too_the_witness_is_seen_at_its_box() -> None:
    """Of both boxes, in 16 x 16 pixels."""
    game = one_saw_small()
    assert (game.size, game.max_steps) == (16, 29)
    state, seen = game.start(torch.arange(8)), torch.zeros(8, dtype=torch.bool)
    body = torch.tensor([192, 68, 65])
    for _ in range(game.max_steps):
        lingers = state.phase == LINGER
        red = (game.observe(state)["watcher"]["pixels"][:, 0].int() - body).abs().sum(-1) < 60
        seen |= lingers & red.flatten(1).any(1)
        state, _ = game.step(state, {name: answer.action for name, answer in game.answers(state).items()})
    assert sorted(set(state.box.tolist())) == [0, 1]
    assert seen.all()


def test_each_walks_in_its_turn_alone() -> None:
    """Both walk on all the time, and are put where they have to be."""
    states, _ = play(SMALL, torch.arange(2), [FORWARD] * 3 + WITNESS[0] + [FORWARD] * 11, [FORWARD] * 11 + WATCHER[1])
    witness = {3: (0.0, 1.2), 4: (-0.3, 1.2), 5: (-0.6, 1.2), 6: (-0.6, 1.5), 7: (-0.6, 1.5)}
    watcher = {11: (0.0, 0.35), 12: (0.3, 0.35), 13: (0.6, 0.35), 14: (0.6, 0.65), 15: (0.6, 0.95), 16: (0.6, 1.25), 17: (0.6, 1.55)}
    for step, state in enumerate(states):
        places = [
            witness.get(step, (0.0, 1.2) if step < 3 else (-0.4, -0.9)),
            watcher.get(step, (0.0, 0.35) if 3 <= step < 8 else (0.4, -0.9)),
        ]
        for seat, place in enumerate(places):
            assert state.world.place[0, seat].tolist() == pytest.approx(place, abs=1e-5), step
        seen = SMALL.observe(state)
        for name, steps in (("witness", range(3, 6)), ("watcher", range(11, 17))):
            assert seen[name]["turn"][0, 0].item() == (step in steps)
            assert seen[name]["action_mask"][0, 0].tolist() == ([1, 1, 1, 1] if step in steps else [1, 0, 0, 0])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_who_is_paid_for_what(first: int, second: int) -> None:
    game = replace(SMALL, own=0.5, shared=-2.0)
    states, turns = visits(game, torch.arange(12), first, second)
    box = states[0].box.tolist()
    assert set(box) == {0, 1}
    for step, turn in enumerate(turns):
        assert turn.over.tolist() == [step == 16] * 12
        if step not in (5, 16):
            assert (turn.rewards["witness"] == 0).all()
            assert (turn.rewards["watcher"] == 0).all()
            assert turn.measures["accuracy"].isnan().all()
            assert turn.measures["followed"].isnan().all()
    assert turns[5].rewards["witness"][:, 0].tolist() == [0.5 if at == first else 0.0 for at in box]
    assert turns[5].measures["accuracy"][:, 0].tolist() == [float(at == first) for at in box]
    assert turns[5].measures["accuracy"][:, 1].isnan().all()
    assert turns[16].rewards["witness"][:, 0].tolist() == [-2.0 if at == second else 0.0 for at in box]
    assert turns[16].rewards["watcher"][:, 0].tolist() == [float(at == second) for at in box]
    assert turns[16].measures["accuracy"][:, 1].tolist() == [float(at == second) for at in box]
    assert turns[16].measures["accuracy"][:, 0].isnan().all()
    assert turns[16].measures["chose"][:, 1].tolist() == [1.0] * 12
    assert turns[16].measures["followed"].tolist() == [float(first == second)] * 12
    assert states[-1].world.opened.tolist() == [[second == 0, second == 1]] * 12
    assert states[-2].world.opened.any().item() is False


def test_time_runs_out_in_both_turns() -> None:
    """Three steps of hiding, eight, two, three, eight."""
    states, turns = play(SMALL, torch.arange(3), [STAY] * 24, [STAY] * 24)
    assert [bool(turn.over.any()) for turn in turns] == [False] * 23 + [True]
    assert SMALL.max_steps == 24
    assert states[-1].chosen.tolist() == [[-1, -1]] * 3
    assert turns[10].measures["chose"][:, 0].tolist() == turns[23].measures["chose"][:, 1].tolist() == [0.0] * 3
    assert turns[23].measures["followed"].isnan().all()


def test_who_follows_the_answers_is_always_right() -> None:
    game = replace(one_saw(), boxes=3)
    state, rewards, over = game.start(torch.arange(12)), torch.zeros(12, 2), torch.zeros(12, dtype=torch.bool)
    for _ in range(game.max_steps):
        state, turn = game.step(state, {name: answer.action for name, answer in game.answers(state).items()})
        rewards += torch.cat([turn.rewards["witness"], turn.rewards["watcher"]], 1) * ~over[:, None]
        over |= turn.over
    assert over.all()
    assert rewards.tolist() == [[2.0, 1.0]] * 12


def test_objects_boxes_and_delays_are_drawn_evenly() -> None:
    game = replace(one_saw(), delay=(2, 6))
    state = game.start(torch.arange(2000))
    for draws, count in ((state.look, 10), (state.box, 3), (state.delay - 2, 5)):
        assert (torch.bincount(draws, minlength=count) / 2000 - 1 / count).abs().max() < 0.04


def test_words_for_people_tell_the_story() -> None:
    states, _ = visits(SMALL, torch.tensor([3]), 0, 1)
    texts = [SMALL.describe(state, 0).text for state in states]
    box = int(states[0].box[0])
    target = f"the {NAMES[int(states[0].look[0])]} in box {box + 1}"
    first, second = ("right", "wrong") if box == 0 else ("wrong", "right")
    assert texts[0] == f"step 0: the witness sees {target} of 2; the watcher is outside"
    # 0.55 aside and 1.1 ahead is 1.230; a body of 0.2 and half a box's diagonal of 0.311.
    assert texts[3] == f"step 3: the witness may walk, {target} is 0.72 m away; the watcher sees the witness"
    assert texts[6] == f"step 6: the witness came to box 1, {first}; the watcher sees the witness; {target}"
    assert texts[8] == f"step 8: both wait outside; {target}; the witness came to box 1, {first}"
    # 0.55 aside and 1.95 ahead is 2.0261, less 0.5111.
    assert texts[11] == f"step 11: the watcher may walk, {target} is 1.51 m away; the witness came to box 1, {first}, and is outside"
    assert texts[17] == f"step 17: {target}; the witness came to box 1, {first}; the watcher came to box 2, {second}"


def test_people_are_told_when_the_witness_is_out_of_the_watchers_view() -> None:
    """0.85 metres before the watcher, whose view is 37.5 degrees to either side: 0.9 aside some of a body is still in it, 1.2 none."""
    states, _ = play(SMALL, torch.tensor([3]), [STAY] * 3 + [LEFT] * 11, [STAY] * 14)
    said = [SMALL.describe(state, 0).text for state in states]
    for step in range(BEGINS["witness"], 13):
        is_seen = bool(segments(SMALL, states[step], 1) & {WITNESSS_BODY, 18, 20})
        assert is_seen == (step < 7)
        assert ("the watcher sees the witness" in said[step], "the watcher does not see the witness" in said[step]) == (
            is_seen,
            not is_seen,
        ), step
    target = f"the {NAMES[int(states[0].look[0])]} in box {int(states[0].box[0]) + 1}"
    assert said[11] == f"step 11: the witness came to no box; the watcher does not see the witness; {target}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": 1}, "boxes is 1; want from 2 to 20"),
        ({"names": 41}, "names is 41; want from 1 to 40"),
        ({"show": 0}, "show is 0; want from 1 to 1000 steps"),
        ({"limit": 0}, "limit is 0; want from 1 to 10,000 steps"),
        ({"linger": 0}, "linger is 0; want from 1 to 1000 steps, so that it is seen where the witness went"),
        ({"delay": (0, 4)}, r"delay is \(0, 4\); want \(least, most\) steps, from 1"),
        ({"own": float("nan")}, "own is nan; want a reward from -1000 to 1000"),
        ({"shared": 2000.0}, "shared is 2000.0; want a reward from -1000 to 1000"),
        ({"boxes": 4}, "boxes is 4; want at most 3 in a room of 4.0 metres, or a larger room"),
        ({"boxes": 2, "room": 2.5}, "room is 2.5; want from 2.8 to 50 metres, so that nobody begins at what stands before"),
        ({"moves": ("stay", "left")}, "moves is .*; want stay, forward, left, right first"),
        ({"stride": 1.0}, "stride is 1.0; want from 0.05 to 0.4 metres"),
        ({"size": 0}, "size is 0; want from 1 to 2048 pixels"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneSaw(**settings)
