"""Rapid word learning: when objects are named, what stands in the room, and what is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.face import draw
from envs.rooms3d.rapid_words import WORDS, RapidWords, WordsState, rapid_words, rapid_words_small
from envs.rooms3d.tasks import NAMES

SMALL = RapidWords(objects=2, distractors=(0, 0), words=6, names=10, show=2, pause=1, limit=8, room=3.0, size=16)
STAY, FORWARD, LEFT, RIGHT = range(4)
# Two objects stand 0.55 metres to either side, 2.3 metres into the room: one comes near enough after two steps aside and four ahead.
TO_PLACE = {-0.55: [LEFT, LEFT, FORWARD, FORWARD, FORWARD, FORWARD], 0.55: [RIGHT, RIGHT, FORWARD, FORWARD, FORWARD, FORWARD]}


def play(game: RapidWords, seeds: Tensor, actions: list[int] | None = None) -> tuple[list[WordsState], list[Any]]:
    """All states, and all turns. Everyone acts the same, or, without actions, as the answers say until the first game's end."""
    states, turns = [game.start(seeds)], []
    while actions is None or len(turns) < len(actions):
        right = game.answers(states[-1])["learner"].action
        action = right if actions is None else torch.full_like(right, actions[len(turns)])
        state, turn = game.step(states[-1], {"learner": action})
        states.append(state)
        turns.append(turn)
        if actions is None and turn.over[0]:
            break
    return states, turns


def heard(game: RapidWords, state: WordsState) -> tuple[int, int]:
    """By the first game: (says, word)."""
    seen = game.observe(state)["learner"]
    return int(seen["says"][0, 0]), int(seen["word"][0, 0])


def seed_where(game: RapidWords, **wanted: int) -> Tensor:
    """The first seed whose game starts with these settings of chance."""
    for seed in range(200):
        state = game.start(torch.tensor([seed]))
        if all(int(getattr(state, name)[0, 0]) == value for name, value in wanted.items()):
            return torch.tensor([seed])
    raise AssertionError(wanted)


def test_objects_are_named_one_after_another_and_then_one_is_asked_for() -> None:
    """Each is seen and named for two steps and gone for one; at step 6 both stand in the room."""
    states, _ = play(SMALL, torch.tensor([3]), [STAY] * 6)
    first, second = (1 + states[0].words[0]).tolist()
    assert [heard(SMALL, state) for state in states[:6]] == [(1, first), (1, first), (0, 0), (1, second), (1, second), (0, 0)]
    says, word = heard(SMALL, states[6])
    assert says == 2
    assert word in (first, second)
    visible = [state.world.things.visible[0].tolist() for state in states]
    assert visible == [[True, False]] * 2 + [[False, False]] + [[False, True]] * 2 + [[False, False]] + [[True, True]]
    assert all(state.objects[0].tolist() == states[0].looks[0, :2].tolist() for state in states)
    assert (word == first) == (int(states[6].asked[0]) == 0)


def test_the_one_that_is_named_is_the_one_that_is_seen() -> None:
    """With a red ball and a green cube: what colour there is more of."""
    game = replace(SMALL, names=2, words=2)
    states, _ = play(game, torch.arange(16), [STAY] * 3)
    for step, slot in ((0, 0), (3, 1)):
        pixels = game.observe(states[step])["learner"]["pixels"][:, 0].int()
        red = (pixels[..., 0] - pixels[..., 1] > 60).sum((1, 2))
        green = (pixels[..., 1] - pixels[..., 0] > 60).sum((1, 2))
        assert ((red > 4) == (states[step].looks[:, slot] == 0)).all()
        assert ((green > 4) == (states[step].looks[:, slot] == 1)).all()
    nothing = game.observe(states[2])["learner"]["pixels"].flatten(1).unique(dim=0)
    assert len(nothing) == 1


def test_segments_do_not_tell_which_object_was_named_when() -> None:
    game = replace(SMALL, segmentation=True, size=48)
    states, _ = play(game, torch.arange(32))
    first = game.world.slot_count(0) + 1
    for state in states[:4]:
        things = game.observe(state)["learner"]["segmentation"]
        assert set(things[things >= first].tolist()) <= {first}
    seen = game.observe(states[6])["learner"]["segmentation"][:, 0]
    columns = torch.arange(48.0)
    left, right = ((seen == number).float().sum(1) for number in (first, first + 1))
    assert ((left * columns).sum(1) / left.sum(1) + 5 < (right * columns).sum(1) / right.sum(1)).all()
    # Though in half of the games the one that was named first is on the right.
    is_right = states[6].world.things.position[:, 0, 0] > 0
    assert is_right.any()
    assert not is_right.all()


def test_the_agent_is_held_still_while_objects_are_named() -> None:
    states, _ = play(SMALL, torch.arange(3), [FORWARD] * 7)
    for step, state in enumerate(states[:7]):
        assert state.world.place[0, 0].tolist() == [0.0, 0.5]
        mask = SMALL.observe(state)["learner"]["action_mask"][0, 0].tolist()
        assert mask == ([1, 1, 1, 1] if step == 6 else [1, 0, 0, 0])
        assert SMALL.answers(state)["learner"].asked[0, 0].item() == (step == 6)
    assert states[7].world.place[0, 0].tolist() == pytest.approx([0.0, 0.8])


@pytest.mark.parametrize("place", TO_PLACE)
def test_the_right_object_pays_one_and_the_other_nothing(place: float) -> None:
    states, turns = play(SMALL, torch.arange(20), [STAY] * 6 + TO_PLACE[place])
    asked = states[6].asked
    at = states[6].world.things.position[torch.arange(20), asked, 0]
    wanted = [x == pytest.approx(place) for x in at.tolist()]
    assert 0 < sum(wanted) < 20
    for turn in turns[:-1]:
        assert not turn.over.any()
        assert (turn.rewards["learner"] == 0).all()
        assert turn.measures["accuracy"].isnan().all()
    assert turns[-1].over.all()
    assert (
        turns[-1].rewards["learner"][:, 0].tolist() == turns[-1].measures["accuracy"].tolist() == [float(is_right) for is_right in wanted]
    )
    assert set(turns[-1].measures) == {"accuracy"}


def test_time_runs_out_after_the_limit() -> None:
    states, turns = play(SMALL, torch.arange(4), [STAY] * 14)
    assert [bool(turn.over.any()) for turn in turns] == [False] * 13 + [True]
    assert SMALL.max_steps == 14
    assert turns[-1].measures["accuracy"].tolist() == [0.0] * 4
    assert states[-1].fetched.tolist() == [-1] * 4


def test_who_follows_the_answers_is_always_right() -> None:
    """In every arrangement, also from behind other objects' columns and with a body that is turned."""
    moves = ("stay", "forward", "left", "right", "back", "turn_left", "turn_right")
    for game in (rapid_words(), replace(SMALL, objects=5, room=5.5, limit=30, stride=0.4), replace(rapid_words(), moves=moves)):
        state = game.start(torch.arange(12))
        fetched, is_on = torch.zeros(12), torch.ones(12, dtype=torch.bool)
        for _ in range(game.max_steps):
            state, turn = game.step(state, {"learner": game.answers(state)["learner"].action})
            fetched += turn.measures["accuracy"].nan_to_num(0) * is_on
            is_on &= ~turn.over
        assert fetched.tolist() == [1.0] * 12
    turned = rapid_words().start(torch.arange(2))
    for _ in range(18):
        turned, _ = replace(rapid_words(), distractors=(0, 0)).step(turned, {"learner": torch.zeros(2, 1, dtype=torch.int64)})
    # Turned by 90 degrees to the right, what was ahead is to the left.
    turned = turned._replace(asked=torch.tensor([0, 0]), world=turned.world._replace(heading=torch.tensor([[6], [0]])))
    position = turned.world.things.position.clone()
    position[:, 0, 0] = 0.0
    turned = turned._replace(world=turned.world._replace(things=turned.world.things._replace(position=position)))
    assert rapid_words().answers(turned)["learner"].action[:, 0].tolist() == [LEFT, FORWARD]


def test_errands_are_after_other_objects_by_their_common_names() -> None:
    """After six steps of naming an errand; its word is the object's own name, beyond silence and six made-up words."""
    game = replace(SMALL, distractors=(2, 2), limit=10)
    states, turns = play(game, torch.tensor([1]))
    errands = [state for state in states if bool(game._is_errand(state)[0])]
    learned = set(states[0].looks[0, :2].tolist())
    assert {int(state.stage[0]) for state in errands} == {2, 3}
    for state in errands:
        assert not learned & set(state.objects[0].tolist())
        assert len(set(state.objects[0].tolist())) == 2
        assert heard(game, state) == (2, 7 + int(state.objects[0, int(state.asked[0])]))
    # Two errands and a question, each done right, each from the beginning.
    assert sum(float(turn.rewards["learner"]) for turn in turns) == 3.0
    assert [float(turn.measures["distraction"]) for turn in turns if not turn.measures["distraction"].isnan()] == [1.0, 1.0]
    assert [float(turn.measures["accuracy"]) for turn in turns if not turn.measures["accuracy"].isnan()] == [1.0]
    begins = [state.world.place[0, 0].tolist() for state in states if int(state.since[0]) == 0]
    assert begins == [[0.0, 0.5]] * 6


def test_the_number_of_errands_varies_within_its_range() -> None:
    state = replace(SMALL, distractors=(0, 3), episodes=2).start(torch.arange(400))
    assert state.errands.shape == (400, 2)
    assert state.errands.unique().tolist() == [0, 1, 2, 3]
    assert len(state.errands.unique(dim=0)) == 16
    assert replace(SMALL, distractors=(20, 20)).start(torch.arange(3)).errands.tolist() == [[20]] * 3
    # Six steps of naming, then 21 times 8.
    assert replace(SMALL, distractors=(20, 20)).max_steps == 174


def test_a_word_of_the_first_part_is_asked_for_at_the_end() -> None:
    game = replace(SMALL, episodes=3)
    states, turns = play(game, torch.tensor([2]))
    words = (1 + states[0].words[0]).tolist()
    assert len(set(words)) == 6
    assert len(set(states[0].looks[0, :6].tolist())) == 6
    assert [int(state.part[0]) for state in states if int(state.since[0]) == 0 and int(state.stage[0]) == 0] == [0, 1, 2, 3, 4]
    for state in states[:-1]:
        part, (says, word) = int(state.part[0]), heard(game, state)
        own = words[0:2] if part == 3 else words[2 * part : 2 * part + 2]
        assert says == 0 or word in own
        assert set(state.objects[0].tolist()) == set(states[0].looks[0, (part % 3) * 2 : (part % 3) * 2 + 2].tolist())
    assert [float(turn.measures["accuracy"]) for turn in turns if not turn.measures["accuracy"].isnan()] == [1.0] * 4
    assert [turn.measures["recalled"].isnan().item() for turn in turns] == [True] * (len(turns) - 1) + [False]
    assert [bool(turn.over) for turn in turns] == [False] * (len(turns) - 1) + [True]
    assert game.max_steps == 3 * (6 + 8) + 8


def test_words_looks_places_and_questions_are_drawn_evenly() -> None:
    game = replace(SMALL, pause=0, show=1)
    state = game.start(torch.arange(2000))
    for draws, count in ((state.words[:, 0], 6), (state.looks[:, 0], 10), (state.words[:, 1], 6)):
        assert (torch.bincount(draws, minlength=count) / 2000 - 1 / count).abs().max() < 0.04
    for _ in range(2):
        state, _ = game.step(state, {"learner": torch.zeros(2000, 1, dtype=torch.int64)})
    is_left = state.world.things.position[:, 0, 0] < 0
    assert abs(is_left.float().mean() - 0.5) < 0.04
    assert abs(state.asked.float().mean() - 0.5) < 0.04
    # Neither tells of the other, nor of the word.
    for other in (is_left.float(), (state.words[:, 0] == 0).float()):
        assert abs(torch.corrcoef(torch.stack([state.asked.float(), other]))[0, 1]) < 0.07


def test_words_for_people_tell_the_story() -> None:
    game = replace(SMALL, distractors=(1, 1))
    states, _ = play(game, torch.tensor([4]))
    texts = [game.describe(state, 0).text for state in states]
    name, word = NAMES[int(states[0].looks[0, 0])], WORDS[int(states[0].words[0, 0])]
    assert texts[0] == f'step 0, part 1 of 1: sees the {name} and hears "this is a {word}"'
    assert texts[2] == "step 2, part 1 of 1: waits"
    errand = NAMES[int(states[6].objects[0, int(states[6].asked[0])])]
    # 0.55 aside and 1.8 ahead is 1.882; a body of 0.2, and a ball, cone or cylinder of 0.2 or a cube or pyramid of 0.283.
    gap = "1.40" if errand.split()[1] in ("cube", "pyramid") else "1.48"
    assert texts[6] == f'step 6, part 1 of 1, errand 1 of 1: hears "fetch the {errand}": {gap} m away'
    asked = next(step for step, state in enumerate(states) if int(state.stage[0]) == 3)
    assert f"wanted the {errand}, came to the {errand}: right; hears" in texts[asked]
    target = int(states[asked].asked[0])
    name, word = NAMES[int(states[0].looks[0, target])], WORDS[int(states[0].words[0, target])]
    assert f'hears "fetch the {word}", which is the {name}' in texts[asked]
    assert texts[-1] == f"step {len(states) - 1}, the end: wanted the {name}, came to the {name}: right"
    late = play(SMALL, torch.tensor([4]), [STAY] * 14)[0][-1]
    assert SMALL.describe(late, 0).text.endswith("came to nothing in time")


def test_people_see_what_the_agent_sees() -> None:
    game = replace(SMALL, names=2, words=2)
    states, _ = play(game, seed_where(game, looks=0), [STAY] * 3)

    def redness(state: WordsState) -> int:
        picture = torch.tensor(draw(game.describe(state, 0), 200)).int()
        # The red ball, and not the disc for the agent.
        return int(((picture[..., 0] > 120) & (picture[..., 1] < 50) & (picture[..., 2] < 50)).sum())

    assert redness(states[0]) > 50
    assert redness(states[2]) == redness(states[3]) == 0


def test_the_games_that_are_listed() -> None:
    assert (rapid_words().objects, rapid_words().distractors) == (3, (0, 2))
    assert (rapid_words_small().size, rapid_words_small().max_steps) == (16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objects": 1}, "objects is 1; want from 2 to 20"),
        ({"episodes": 0}, "episodes is 0; want from 1 to 20"),
        ({"distractors": (0, 21)}, r"distractors is \(0, 21\); want \(least, most\) errands, from 0 to 20"),
        ({"distractors": (2, 1)}, r"distractors is \(2, 1\); want \(least, most\)"),
        ({"words": 2}, "words is 2; want from 3, one for every object that is named, to 40"),
        ({"episodes": 7}, "words is 20; want from 21, one for every object"),
        ({"names": 5}, "names is 5; want from 6, so that what is fetched between is new, to 40"),
        ({"show": 0}, "show is 0; want from 1 to 1000 steps"),
        ({"pause": -1}, "pause is -1; want from 0 to 1000 steps"),
        ({"limit": 0}, "limit is 0; want from 1 to 10,000 steps"),
        ({"room": 2.0}, "room is 2.0; want from 3.3 to 50 metres"),
        ({"objects": 4}, "objects is 4; want at most 3 in a room of 4.0 metres, or a larger room"),
        ({"moves": ("stay", "forward")}, "moves is .*; want stay, forward, left, right first, then different ones of back"),
        ({"stride": 0.01}, "stride is 0.01; want from 0.05 to 0.4 metres"),
        ({"size": 0}, "size is 0; want from 1 to 2048 pixels"),
        ({"turn": 50.0}, "turn is 50.0; want degrees from 1 to 90 that divide 360"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RapidWords(**settings)
