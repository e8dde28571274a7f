"""Referential games: rules by literal plays, worked by hand; who sits in them; and a playthrough to be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.co_players.referential import Captioner, CaptionListener, ExactSpeaker, Eye, LiteralListener, SimulatedPerson, captioners
from agents.occupant import Decision
from envs.captions import MOST_VALUES, Person, lexicon, load_captions
from envs.face import draw
from envs.game import Scene
from envs.referential import Referential, ReferentialState, atlas
from tests.games import AnyLegal, cut_off, overlapping
from tests.test_golden import assert_golden
from training import tree
from training.evaluation.suites import FOCAL, Suite
from training.evaluation.suites import referential as suite_of
from training.occupants import check_fits
from training.population import co_player
from training.presets import referential_quick
from training.rollout import Rollout
from training.schemes.mixture import Mixture, Pairing
from training.seating import one_table
from training.settings import BadInput

# Three candidates in a world of circles, squares and triangles in three colours, pictures number 0 to 8.
GAME = Referential(candidates=3, length=3, vocabulary=9, values=(3, 3))


def table(game: Referential, objects: list[int] | None = None, order: list[int] | None = None) -> ReferentialState:
    """A game's start with these objects, the target first, which the listener sees in this order."""
    state = game.start(torch.tensor([5]))
    return state._replace(objects=torch.tensor([objects or [8, 1, 3]]), order=torch.tensor([order or [2, 0, 1]]))


def step(game: Referential, state: ReferentialState, speaker: int, listener: int) -> tuple[ReferentialState, Any]:
    return game.step(state, {"speaker": torch.tensor([[speaker]]), "listener": torch.tensor([[listener]])})


def seen(game: Referential, state: ReferentialState, role: str) -> dict[str, Any]:
    return {name: value[0, 0].tolist() for name, value in game.observe(state)[role].items()}


def rewards(turn: Any) -> list[float]:
    return [round(turn.rewards[role].item(), 6) for role in ("speaker", "listener")]


# One message.


def test_a_message_arrives_word_by_word_and_then_the_listener_picks() -> None:
    state = table(GAME)
    assert seen(GAME, state, "speaker") == {"target": [2, 2], "distractors": [0, 1, 1, 0], "turn": 1, "action_mask": [1] * 9}
    # In the listener's order: object 3, then the target 8, then 1.
    waiting = {"candidates": [1, 0, 2, 2, 0, 1], "turn": 0, "action_mask": [1, 0, 0]}
    assert seen(GAME, state, "listener") == {**waiting, "word": 0}
    state, turn = step(GAME, state, 4, 0)
    assert (rewards(turn), turn.over.tolist()) == ([0, 0], [False])
    assert all(measure.isnan().all() for measure in turn.measures.values())
    assert seen(GAME, state, "listener") == {**waiting, "word": 4}
    state, _ = step(GAME, state, 7, 0)
    assert seen(GAME, state, "listener")["word"] == 7
    state, _ = step(GAME, state, 0, 0)
    assert seen(GAME, state, "listener") == {**waiting, "word": 0, "turn": 1, "action_mask": [1, 1, 1]}
    assert seen(GAME, state, "speaker")["action_mask"] == [1] + [0] * 8
    assert seen(GAME, state, "speaker")["turn"] == 0
    state, turn = step(GAME, state, 0, 1)
    assert (rewards(turn), turn.over.tolist()) == ([1, 1], [True])
    assert {name: value.tolist() for name, value in turn.measures.items()} == {"accuracy": [1.0], "message_length": [2.0]}


def test_a_message_ends_by_itself_after_its_last_word() -> None:
    state = table(GAME)
    for word in (1, 2, 3):
        assert seen(GAME, state, "listener")["turn"] == 0
        state, _ = step(GAME, state, word, 0)
    assert seen(GAME, state, "listener")["turn"] == 1
    assert seen(GAME, state, "listener")["word"] == 3
    _, turn = step(GAME, state, 0, 0)
    assert turn.measures["message_length"].item() == 3


def test_a_wrong_pick_earns_nothing() -> None:
    state, _ = step(GAME, table(GAME), 0, 0)
    for pick, reward in ((0, 0.0), (1, 1.0), (2, 0.0)):
        _, turn = step(GAME, state, 0, pick)
        assert rewards(turn) == [reward, reward]
        assert turn.measures["accuracy"].item() == reward
        assert turn.measures["message_length"].item() == 0


def test_what_counts_for_nothing_changes_nothing() -> None:
    """The listener while the speaker speaks, the speaker while the listener picks."""
    first, _ = step(GAME, table(GAME), 4, 0)
    second, turn = step(GAME, table(GAME), 4, 1)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not turn.over.item()
    quiet, _ = step(GAME, table(GAME), 0, 0)
    after, turn = step(GAME, quiet, 8, 2)
    assert after.said.sum() == 0
    assert turn.over.item()


def test_every_word_costs_both() -> None:
    game = Referential(candidates=3, length=3, vocabulary=9, values=(3, 3), cost=0.1)
    state, total = table(game), 0.0
    for speaker, listener, reward in ((4, 0, -0.1), (4, 0, -0.1), (0, 0, 0.0), (0, 1, 1.0)):
        state, turn = step(game, state, speaker, listener)
        assert rewards(turn) == [reward, reward]
        total += reward
    assert total == 0.8


# Questions.

ASKING = Referential(candidates=3, length=2, vocabulary=9, values=(3, 3), turns=2, cost=0.1)


def test_a_listener_may_ask_and_the_speaker_answers() -> None:
    state = table(ASKING)
    assert "word" in seen(ASKING, state, "speaker")
    assert seen(ASKING, state, "listener")["action_mask"] == [1, 0, 0] + [0] * 9
    state, _ = step(ASKING, state, 4, 0)
    state, _ = step(ASKING, state, 0, 0)
    # It may pick at once, or say a word: action 3 + w.
    assert seen(ASKING, state, "listener")["action_mask"] == [1, 1, 1] + [1] * 9
    asked, turn = step(ASKING, state, 0, 3 + 6)
    assert (rewards(turn), turn.over.item()) == ([-0.1, -0.1], False)
    assert seen(ASKING, asked, "speaker")["word"] == 6
    assert seen(ASKING, asked, "listener")["word"] == 0
    # In the middle of a question there is nothing to pick.
    assert seen(ASKING, asked, "listener")["action_mask"] == [0, 0, 0] + [1] * 9
    asked, _ = step(ASKING, asked, 0, 3 + 7)
    assert (seen(ASKING, asked, "speaker")["word"], seen(ASKING, asked, "speaker")["turn"]) == (7, 1)
    asked, _ = step(ASKING, asked, 8, 0)
    assert (seen(ASKING, asked, "speaker")["word"], seen(ASKING, asked, "listener")["word"]) == (0, 8)
    asked, _ = step(ASKING, asked, 8, 0)
    # After the last message there is no asking.
    assert seen(ASKING, asked, "listener")["action_mask"] == [1, 1, 1] + [0] * 9
    _, turn = step(ASKING, asked, 0, 1)
    assert rewards(turn) == [1.0, 1.0]
    # One word in the first message, two in the second; the listener's own do not count.
    assert turn.measures["message_length"].item() == 3
    _, turn = step(ASKING, state, 0, 1)
    assert (rewards(turn), turn.over.item()) == ([1.0, 1.0], True)


def test_an_empty_question_only_lets_the_speaker_go_on() -> None:
    state, _ = step(ASKING, table(ASKING), 0, 0)
    state, turn = step(ASKING, state, 0, 3 + 0)
    assert rewards(turn) == [0, 0]
    assert seen(ASKING, state, "speaker")["turn"] == 1


def test_what_the_mask_forbids_counts_as_action_0() -> None:
    state, _ = step(ASKING, table(ASKING), 0, 0)
    asking, _ = step(ASKING, state, 0, 3 + 6)
    ended, turn = step(ASKING, asking, 0, 1)
    assert not turn.over.item()
    assert seen(ASKING, ended, "speaker")["turn"] == 1
    last, _ = step(ASKING, ended, 0, 0)
    picked, turn = step(ASKING, last, 0, 3 + 5)
    assert turn.over.item()
    assert picked.picked.item() == 0


def test_a_game_is_over_after_its_longest_talk() -> None:
    state = table(ASKING)
    for number in range(ASKING.max_steps):
        state, turn = step(ASKING, state, 1, 3 + 1)
        assert turn.over.item() == (number == 6)
    assert ASKING.max_steps == 7


# The channel, and chance.


def test_noise_makes_words_other_words_and_never_an_end() -> None:
    game = Referential(candidates=3, length=1, vocabulary=5, values=(3, 3), noise=0.4)
    state = game.start(torch.arange(20_000))
    words = torch.full((20_000, 1), 3)
    after, _ = game.step(state, {"speaker": words, "listener": 0 * words})
    shares = after.heard[:, 0, 0].bincount(minlength=5) / 20_000
    # 0.4 over the three others; a share's deviation is below 0.0035.
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.4 / 3, 0.4 / 3, 0.6, 0.4 / 3]), atol=0.015, rtol=0)
    assert torch.equal(after.said[:, 0, 0], words[:, 0])
    assert torch.equal(game.observe(after)["listener"]["word"][:, 0], after.heard[:, 0, 0])
    silent, _ = game.step(state, {"speaker": 0 * words, "listener": 0 * words})
    assert silent.heard.sum() == 0


def test_candidates_differ_and_every_object_and_place_is_as_likely() -> None:
    state = GAME.start(torch.arange(18_000))
    assert all(len(set(row)) == 3 for row in state.objects[:500].tolist())
    for place in range(3):
        # Nine objects, 2,000 times each; the deviation is 42.
        assert (state.objects[:, place].bincount(minlength=9) - 2000).abs().max() < 200
        assert ((state.order == 0)[:, place].sum() - 6000).abs() < 300
    everything = Referential(candidates=9, vocabulary=9, values=(3, 3)).start(torch.arange(5)).objects
    assert everything.sort(1).values.tolist() == [list(range(9))] * 5


# What is shown.


def test_pictures_are_all_different_and_show_what_they_should() -> None:
    pictures = atlas(MOST_VALUES, 32)
    assert pictures.shape == (1080, 32, 32, 3)
    assert len(np.unique(pictures.reshape(1080, -1), axis=0)) == 1080

    def drawn(*chosen: int) -> np.ndarray:
        return (pictures[np.ravel_multi_index(chosen, MOST_VALUES)] != (244, 243, 238)).any(2)

    small, large = drawn(1, 0, 0, 0, 4), drawn(1, 0, 1, 0, 4)
    assert 0 < small.sum() < large.sum()
    for position, (rows, columns) in enumerate([((10, 22), (0, 16)), ((10, 22), (16, 32)), ((0, 16), (10, 22)), ((16, 32), (10, 22))]):
        found = drawn(0, 0, 0, 0, position)
        assert found.any()
        assert found[slice(*rows), slice(*columns)].sum() == found.sum()
    assert drawn(0, 0, 0, 2, 4).sum() > 2 * drawn(0, 0, 0, 0, 4).sum()
    # A ring has a hole, a circle none.
    assert drawn(0, 0, 1, 0, 4)[16, 16]
    assert not drawn(5, 0, 1, 0, 4)[16, 16]
    red = pictures[0][drawn(0, 0, 0, 0, 0)]
    assert (red == (214, 60, 52)).all()


def test_games_with_pictures_and_attributes_are_the_same_games() -> None:
    looks = Referential(candidates=3, vocabulary=9, values=(3, 3), shows="pictures", pixels=14)
    state = table(looks)
    shown = looks.observe(state)
    assert torch.equal(shown["speaker"]["target"][0, 0], torch.as_tensor(atlas((3, 3), 14))[8])
    assert torch.equal(shown["listener"]["candidates"][0, 0], torch.as_tensor(atlas((3, 3), 14))[[3, 8, 1]])
    assert torch.equal(looks.start(torch.arange(9)).objects, GAME.start(torch.arange(9)).objects)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Four images with two captions each; the words are those of the captions."""
    texts = [["a red bus", "one bus"], ["a dog", "the dog runs"], ["a cat", "two cats"], ["trees", "some green trees"]]
    data = {
        "images": [{"id": 10 * k} for k in range(4)],
        "annotations": [{"image_id": 10 * k, "caption": text} for k, several in enumerate(texts) for text in several],
    }
    (tmp_path / "captions.json").write_text(json.dumps(data))
    np.save(tmp_path / "features.npy", np.arange(20, dtype=np.float32).reshape(4, 5))
    return {"captions": str(tmp_path / "captions.json"), "features": str(tmp_path / "features.npy")}


def test_features_of_images_are_shown_and_their_captions_said(files: dict[str, str]) -> None:
    game = Referential(candidates=3, length=4, vocabulary=20, shows="features", **files)
    state = table(game, [2, 0, 3], [1, 0, 2])
    assert seen(game, state, "speaker")["target"] == [10, 11, 12, 13, 14]
    assert seen(game, state, "speaker")["distractors"] == [[0, 1, 2, 3, 4], [15, 16, 17, 18, 19]]
    assert [row[0] for row in seen(game, state, "listener")["candidates"]] == [0, 10, 15]
    assert game.describe(state, 0).text.endswith('2 "a cat"; 3 "trees"; the target is number 2')
    speaker = Captioner(vocabulary=20, length=4, **files)
    check_fits("captioner", speaker, game.roles[0])
    names = game.names
    said = spoken(speaker, torch.tensor([[10.0, 11, 12, 13, 14]]), 50)
    assert {" ".join(names[word] for word in row if word) for row in said.tolist()} == {"a cat"}
    said = spoken(Captioner(vocabulary=20, length=4, held_out=True, **files), torch.tensor([[10.0, 11, 12, 13, 14]]), 50)
    assert {" ".join(names[word] for word in row if word) for row in said.tolist()} == {"two cats"}
    # Playing on a batch takes targets from the file, and speaks of them.
    rollout = Rollout(game, one_table(("s", "l"), 30), {"s": speaker, "l": _First()}, keeps_states=True)
    _, log = rollout.play(rollout.start(torch.arange(30)), 2)
    firsts = {names[word] for word in log.game.said[0, :, 0, 0].tolist()}
    assert firsts == {"a", "trees"}


def test_of_three_captions_two_are_said_and_an_only_one_counts_either_way(tmp_path: Path) -> None:
    texts = [["a bus", "one bus", "buses"], ["a dog"]]
    files = written(tmp_path, texts)
    settings = {"vocabulary": 20, "length": 4}
    names = Referential(candidates=2, shows="features", **settings, **files).names

    def says(held_out: bool, image: int) -> set[str]:
        said = spoken(Captioner(held_out=held_out, **settings, **files), torch.tensor([[float(2 * image), 2 * image + 1]]), 50)
        return {" ".join(names[word] for word in row if word) for row in said.tolist()}

    assert (says(False, 0), says(True, 0)) == ({"a bus", "one bus"}, {"buses"})
    assert (says(False, 1), says(True, 1)) == ({"a dog"}, {"a dog"})


def written(folder: Path, texts: list[list[str]]) -> dict[str, str]:
    """Images with these captions and two features each, 0 1, 2 3, 4 5, ..."""
    folder.mkdir(exist_ok=True)
    data = {
        "images": [{"id": k} for k in range(len(texts))],
        "annotations": [{"image_id": k, "caption": text} for k, several in enumerate(texts) for text in several],
    }
    (folder / "c.json").write_text(json.dumps(data))
    np.save(folder / "f.npy", np.arange(2 * len(texts), dtype=np.float32).reshape(-1, 2))
    return {"captions": str(folder / "c.json"), "features": str(folder / "f.npy")}


def spoken(speaker: Any, target: torch.Tensor, count: int) -> torch.Tensor:
    """[count, 15]: what it says of one target in several trials."""
    state, words = speaker.start(torch.arange(count)), []
    for _ in range(15):
        seen_now = {"target": target.expand(count, *target.shape[1:]), "turn": torch.ones(count, dtype=torch.int64)}
        decision, state = speaker.act(seen_now, state)
        words.append(decision.action.where(state.messages == 0, 0))
    return torch.stack(words, 1)


class _First:
    """Picks the first candidate."""

    def start(self, seeds: torch.Tensor) -> tuple[torch.Tensor]:
        return (seeds,)

    def act(self, observation: Any, state: Any, reward: Any = None) -> tuple[Decision, Any]:
        return Decision(torch.zeros_like(state[0])), state


# Who sits in them.


def accuracy(game: Referential, speaker: Any, listener: Any, trials: int = 1000) -> float:
    rollout = Rollout(game, one_table(("s", "l"), trials), {"s": speaker, "l": listener})
    _, log = rollout.play(rollout.start(torch.arange(trials)), game.max_steps)
    return log.measures["accuracy"].nanmean().item()


@pytest.mark.parametrize("shows", ["attributes", "pictures"])
def test_who_names_exactly_is_always_understood(shows: str) -> None:
    game = Referential(shows=shows)
    speaker, listener = ExactSpeaker(shows=shows), LiteralListener(shows=shows)
    check_fits("exact_speaker", speaker, game.roles[0])
    check_fits("literal_listener", listener, game.roles[1])
    assert accuracy(game, speaker, listener, 400) == 1.0


def test_whoever_does_not_listen_is_right_by_chance() -> None:
    # A tenth of 4,000; the deviation of the share is 0.005.
    assert abs(accuracy(Referential(), ExactSpeaker(), _First(), 4000) - 0.1) < 0.02


def test_who_hears_no_words_draws_between_all() -> None:
    game = Referential(candidates=4, length=1, vocabulary=32, values=(4, 4))
    assert abs(accuracy(game, _First(), LiteralListener(candidates=4, vocabulary=32, values=(4, 4)), 4000) - 0.25) < 0.03


@pytest.mark.parametrize(("number", "least"), [(0, 0.95), (3, 0.9), (7, 0.9)])
def test_people_are_understood_as_well_as_they_speak(number: int, least: float) -> None:
    assert least < accuracy(Referential(), SimulatedPerson(number=number), LiteralListener()) <= 1.0


def test_a_person_speaks_word_by_word_as_it_would_at_once() -> None:
    game = Referential(length=15)
    rollout = Rollout(game, one_table(("s", "l"), 5), {"s": SimulatedPerson(number=4), "l": LiteralListener()}, keeps_states=True)
    start = rollout.start(torch.arange(5))
    _, log = rollout.play(start, game.max_steps)
    first_end = log.ended.int().argmax(0)
    said = log.game.said[first_end, torch.arange(5), 0]
    for row in range(5):
        picture = game.meanings(log.game.objects[0, row : row + 1, 0])
        # This one mentions everything every time, so that luck changes nothing.
        assert said[row].tolist() == Person(4).describe(picture, torch.tensor([99]), 15)[0].tolist()


def test_a_listener_weighs_what_it_hears_of_each_candidate() -> None:
    names = {word: number for number, word in enumerate(lexicon((3, 3)))}
    listener = LiteralListener(candidates=3, vocabulary=26, values=(3, 3))
    # A red circle, a green circle, a blue square.
    candidates = torch.tensor([[0, 0, 0, 1, 1, 2]])

    def picks(*words: str) -> int:
        state = listener.start(torch.tensor([0]))
        for number, word in enumerate(words):
            turn = torch.tensor([int(number == len(words) - 1)])
            decision, state = listener.act({"candidates": candidates, "word": torch.tensor([names[word]]), "turn": turn}, state)
        assert state.misfits.sum() == 0
        return int(decision.action)

    assert picks("the", "circle", "is", "lime") == 1
    assert picks("navy", "thing") == 2
    assert picks("crimson", "ball") == 0
    # Two words against one: neither the green circle nor the blue square is a red box, but the red circle is no box either.
    assert picks("blue", "block", "red") == 2


def test_somebody_who_does_not_know_a_word_does_not_understand_it() -> None:
    values = (3, 3)
    for number in range(20):
        unknown = set(lexicon(values)[8:]) - Person(number, values).understands
        own = {
            word for words in Person(number, values).describe(torch.tensor([[0, 1], [2, 2]]), torch.arange(2), 9).tolist() for word in words
        }
        assert not {lexicon(values)[word] for word in own} & unknown
    # In every world some word is unknown to some of them.
    assert any(set(lexicon(values)[8:]) - Person(number, values).understands for number in range(20))
    game = Referential(candidates=9, vocabulary=26, values=values)
    settings = {"candidates": 9, "vocabulary": 26, "values": values}
    speaker = SimulatedPerson(number=0, people=20, vocabulary=26, values=values)
    everything = accuracy(game, speaker, LiteralListener(**settings))
    assert accuracy(game, speaker, LiteralListener(number=40, people=20, **settings)) < everything - 0.05


def test_with_several_people_every_trial_has_one_of_them() -> None:
    target, count = torch.tensor([[3, 2, 1, 2, 3]]), 400
    said = spoken(SimulatedPerson(number=4, people=2), target, count)
    first = {tuple(row) for row in spoken(SimulatedPerson(number=4), target, count).tolist()}
    second = {tuple(row) for row in spoken(SimulatedPerson(number=5), target, count).tolist()}
    assert not first & second
    assert 150 < sum(tuple(row) in first for row in said.tolist()) < 250
    assert {tuple(row) for row in said.tolist()} == first | second


def test_an_answer_is_said_anew_and_from_its_beginning() -> None:
    speaker = SimulatedPerson(number=8, length=4)
    state = speaker.start(torch.tensor([3]))
    target, words = torch.tensor([[1, 1, 1, 1, 1]]), []
    for turn in (1, 1, 1, 1, 0, 1, 1, 1, 1):
        decision, state = speaker.act({"target": target, "turn": torch.tensor([turn])}, state)
        words.append(int(decision.action))
    assert words[4] == 0
    assert state.messages.item() == 1
    assert words[5] != 0


def test_an_eye_knows_what_it_has_seen() -> None:
    seen_before = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    numbers = torch.tensor([5, 999, 0, 17])
    assert Eye(seen_before)(torch.as_tensor(seen_before)[numbers]).tolist() == [5, 999, 0, 17]


def test_who_knows_captions_weighs_words_by_how_rare_they_are(files: dict[str, str]) -> None:
    game = Referential(candidates=3, length=4, vocabulary=20, shows="features", **files)
    names = {word: number for number, word in enumerate(game.names)}
    # The first captions are a red bus, a dog, a cat, trees; the held-out ones one bus, the dog runs, two cats, some green trees.
    candidates = torch.tensor([[[15.0, 16, 17, 18, 19], [5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]])

    def hears(held_out: bool, *words: str) -> tuple[list[int], int]:
        """What speaks against trees, dog and bus before the pick, and the pick."""
        listener = CaptionListener(candidates=3, vocabulary=20, length=4, held_out=held_out, **files)
        check_fits("caption_listener", listener, game.roles[1])
        state = listener.start(torch.tensor([0]))
        for word in words:
            seen_now = {"candidates": candidates, "word": torch.tensor([names[word]]), "turn": torch.tensor([0])}
            _, state = listener.act(seen_now, state)
        decision, _ = listener.act({**seen_now, "word": torch.tensor([0]), "turn": torch.tensor([1])}, state)
        return state.misfits[0].tolist(), int(decision.action)

    # Three of four images have "a": log 4/3 = 0.288. One has "red" and one has "bus": log 4 = 1.386.
    assert hears(False, "a", "red", "bus") == ([288 + 2 * 1386, 2 * 1386, 0], 2)
    assert hears(False, "a", "trees") == ([288, 1386, 1386], 0)
    assert hears(True, "dog", "runs", "a") == ([2 * 1386, 0, 2 * 1386], 1)
    # Nobody's caption is about a cat here, and "red" is in none that is held out.
    assert hears(False, "cat")[0] == [1386] * 3
    assert hears(True, "red")[0] == [0] * 3


def test_captions_tell_those_who_know_others_of_the_same_images() -> None:
    game = Referential(shows="features")
    # By chance 0.1.
    assert 0.7 < accuracy(game, Captioner(held_out=True), CaptionListener(), 300) < accuracy(game, Captioner(), CaptionListener(), 300)


def test_what_is_in_a_file_of_features_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path, [["a dog"]] * 1500)
    found = load_captions(**files, vocabulary=20, length=4)

    class Watched(np.ndarray):
        most = 0

        def __getitem__(self, key: Any) -> Any:
            part = np.asarray(super().__getitem__(key))
            Watched.most = max(Watched.most, len(part))
            return part

    watched = found._replace(features=np.asarray(found.features).view(Watched))
    monkeypatch.setattr("agents.co_players.referential.load_captions", lambda *settings: watched)
    for player in (Captioner(**files), CaptionListener(**files)):
        Watched.most = 0
        assert player.eye(torch.tensor([[2.0, 3.0], [2998.0, 2999.0]])).tolist() == [1, 1499]
        assert 0 < Watched.most <= 512


# Bad settings.


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"candidates": 1}, r"candidates is 1; values \(6, 6, 2, 3, 5\) make 1080 pictures; want from 2 to 1000"),
        ({"candidates": 2000}, r"candidates is 2000; values \(6, 6, 2, 3, 5\) make 1080 pictures; want from 2 to 1000"),
        ({"candidates": 2000, "values": (3, 3)}, r"candidates is 2000; values \(3, 3\) make 9 pictures; want from 2 to 9"),
        ({"candidates": 10, "values": (3, 3)}, r"candidates is 10; values \(3, 3\) make 9 pictures; want from 2 to 9"),
        ({"candidates": 2, "values": (1, 1)}, r"candidates is 2; values \(1, 1\) make 1 pictures; want a world of at least two"),
        ({"length": 0}, "length is 0; want from 1"),
        ({"turns": 0}, "turns is 0; want from 1"),
        ({"vocabulary": 1}, "vocabulary is 1; want at least 2, the end"),
        ({"vocabulary": 2, "noise": 0.1}, "vocabulary is 2; want at least 3, the end"),
        ({"noise": 1.5}, "noise is 1.5; want a probability"),
        ({"cost": 1.0}, "cost is 1.0; want from 0 to less than 1"),
        ({"shows": "smells"}, "shows is 'smells'; want one of attributes, pictures, features"),
        ({"shows": "features", "captions": "x"}, "captions is 'x', features ''; want two files or none"),
        ({"captions": "x", "features": "y"}, "shows is 'attributes'; with captions 'x' and features 'y' want 'features'"),
        ({"shows": "features", "candidates": 73}, "candidates is 73; the small set has captions for 72 pictures; want from 2 to 72"),
        (
            {"shows": "pictures", "candidates": 4, "values": (4, 4), "pixels": 12},
            "pixels is 12; only 5 of 16 pictures then differ; want 17, or fewer values",
        ),
        (
            {"shows": "pictures", "candidates": 4, "values": (4, 4), "pixels": 16},
            "pixels is 16; only 12 of 16 pictures then differ; want 17",
        ),
        ({"values": (9,)}, "values is .9,.; want from 1 to 5 whole numbers"),
        ({"shows": "features", "captions": "/none/x.json", "features": "/none/y.npy"}, "captions /none/x.json cannot be read"),
    ],
)
def test_settings_that_cannot_be_played_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Referential(**settings)


def test_fewer_images_than_candidates_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"candidates is 5; .*captions.json has captions for 4 pictures; want from 2 to 4"):
        Referential(candidates=5, vocabulary=20, shows="features", **files)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: SimulatedPerson(vocabulary=50),
            r"vocabulary is 50; English about values \(6, 6, 2, 3, 5\) has 82 words; want at least that",
        ),
        (lambda: LiteralListener(vocabulary=50), "vocabulary is 50; English"),
        (lambda: LiteralListener(candidates=1), "candidates is 1; want at least 2"),
        (lambda: ExactSpeaker(length=0), "length is 0; want from 1 to 1000"),
        (lambda: SimulatedPerson(people=0), "people is 0; want from 1 to 1000"),
        (lambda: LiteralListener(people=3), "people is 3, number -1; want the number of the first of them"),
        (lambda: ExactSpeaker(shows="features"), "shows is 'features'; want attributes or pictures"),
        (lambda: SimulatedPerson(number=-2), "number is -2; want from 0"),
        (lambda: Captioner(captions="x"), "captions is 'x', features ''; want two files or none"),
        (lambda: CaptionListener(captions="x"), "captions is 'x', features ''; want two files or none"),
        (lambda: CaptionListener(candidates=1), "candidates is 1; want at least 2"),
    ],
)
def test_people_who_cannot_live_in_a_world_are_refused(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize("settings", [{"values": (6, 6)}, {"vocabulary": 101}, {"shows": "pictures"}])
def test_people_do_not_sit_in_other_worlds(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="'someone' cannot play this game"):
        check_fits("someone", SimulatedPerson(), Referential(**settings).roles[0])
    with pytest.raises(BadInput, match="'someone' cannot play this game"):
        check_fits("someone", LiteralListener(), Referential(**settings).roles[1])


@pytest.mark.parametrize("values", [(2, 2), (6, 6)])
def test_people_do_not_sit_where_as_many_attributes_have_other_values(values: tuple[int, ...]) -> None:
    """Nothing that they read tells: the shapes are the same, and what the words mean is not."""
    game = Referential(candidates=4, vocabulary=44, values=values)
    speaker, listener = (someone(vocabulary=44, values=(4, 4)) for someone in (SimulatedPerson, LiteralListener))
    for occupant, role in ((speaker, game.roles[0]), (replace(listener, candidates=4), game.roles[1])):
        check_fits("someone", replace(occupant, values=values), role, game)
        with pytest.raises(BadInput, match=rf"'someone' cannot play this game: its values is \(4, 4\); want values=\[{values[0]}, "):
            check_fits("someone", occupant, role, game)


# What people see.


def test_a_stranger_can_follow_a_game() -> None:
    """The golden playthrough: one who names exactly to one who understands, then a simulated person over a bad line."""
    lines = []
    for game, speaker in ((Referential(candidates=4), ExactSpeaker()), (Referential(candidates=4, noise=0.3), SimulatedPerson(number=6))):
        people = {"speaker": speaker, "listener": LiteralListener(candidates=4)}
        rollout = Rollout(game, one_table(("speaker", "listener"), 1), people, keeps_states=True)
        before = rollout.start(torch.tensor([1]))
        _, log = rollout.play(before, game.max_steps)
        lines.append(game.describe(before.game, 0).text)
        lines += [game.describe(tree.rows_of(log.game, number), 0).text for number in range(int(log.ended.int().argmax()) + 1)]
    assert_golden("referential_with_people.txt", "\n".join(lines) + "\n")


def test_a_game_is_told_in_words() -> None:
    game = Referential(candidates=3, length=3, vocabulary=30, values=(3, 3), turns=2)
    state = table(game)
    assert game.describe(state, 0).text == ("the listener sees 1 red square; 2 blue triangle; 3 green circle; the target is number 2")
    words = {word: number for number, word in enumerate(game.names)}
    for speaker, listener in ((words["blue"], 0), (0, 0), (0, 3 + 29), (0, 3)):
        state, _ = step(game, state, speaker, listener)
    assert game.describe(state, 0).text == ('target: number 2, blue triangle; speaker says "blue"; listener says "w29"')
    for speaker, listener in ((words["triangle"], 0), (0, 0), (0, 0)):
        state, _ = step(game, state, speaker, listener)
    assert game.describe(state, 0).text.endswith('speaker says "triangle"; listener picks number 1, red square: wrong')


def test_what_arrived_is_told_where_it_differs() -> None:
    game = Referential(candidates=3, length=1, vocabulary=3, values=(3, 3), noise=1.0)
    state, _ = step(game, table(game), 1, 0)
    assert game.describe(state, 0).text.endswith('speaker says "a", listener hears "the"')


def scenes_of(game: Referential) -> list[Scene]:
    """Of a game whose players say anything."""
    rollout = Rollout(game, one_table(("speaker", "listener"), 1), {role.name: AnyLegal(role) for role in game.roles}, keeps_states=True)
    before = rollout.start(torch.tensor([1]))
    _, log = rollout.play(before, game.max_steps)
    states = [before.game, *(tree.rows_of(log.game, step) for step in range(int(log.ended.int().argmax()) + 1))]
    return [game.describe(state, 0) for state in states]


@pytest.mark.parametrize(
    "game",
    [
        Referential(),
        Referential(candidates=40),
        Referential(vocabulary=100_000),
        Referential(candidates=4, turns=3, length=6, noise=0.3),
        Referential(shows="features"),
    ],
)
def test_no_text_of_a_picture_is_cut_off_or_lies_over_another(game: Referential) -> None:
    for scene in scenes_of(game):
        assert cut_off(scene) == []
        assert overlapping(scene) == []


def test_of_a_long_talk_a_picture_shows_the_end_and_says_so() -> None:
    said = [[mark.text for mark in scene.marks if mark.y > 0.75] for scene in scenes_of(Referential(candidates=4, turns=3, length=6))]
    assert said[0] == ["nothing said yet"]
    assert said[1] == ['speaker says "large ..."']
    assert said[-1][0] == "..."
    assert len(said[-1]) == 5
    assert said[-1][-1].endswith("wrong")


def test_the_target_and_a_wrong_pick_are_marked() -> None:
    state, _ = step(GAME, table(GAME), 0, 0)
    state, _ = step(GAME, state, 0, 0)
    colours = [mark.colour for mark in GAME.describe(state, 0).marks]
    assert (colours.count((64, 145, 108)), colours.count((200, 80, 72))) == (1, 1)
    assert draw(GAME.describe(state, 0), 64).shape == (64, 64, 3)


# Suite and preset.


def test_the_suite_holds_people_whom_the_preset_never_meets() -> None:
    experiment = referential_quick()
    suite = suite_of(experiment)
    suite.check_fits(experiment.game)
    met = set(experiment.scheme.co_players(experiment.game))
    seats = [name for scenario in suite.scenarios for name in scenario.seats if name != FOCAL]
    assert not met & set(seats)
    assert any("simulated_person" in name for name in seats)
    assert any("literal_listener" in name for name in seats)


def suite_for(files: dict[str, str]) -> Suite:
    """Of two learners among themselves, who are shown the features of these files."""
    game = Referential(candidates=2, length=4, vocabulary=20, shows="features", **files)
    scheme = Mixture(("learner_0", "learner_1"), (Pairing(("learner_0", "learner_1"), "learner", 1.0),))
    experiment = replace(referential_quick(), game=game, scheme=scheme)
    suite = suite_of(experiment)
    suite.check_fits(game)
    for scenario in suite.scenarios:
        for name, role in zip(scenario.seats, game.roles, strict=True):
            if not name.startswith("learner"):
                check_fits(name, co_player(name), role)
    return suite


def test_the_suite_holds_captions_that_nobody_learns_from_and_files_of_any_name(tmp_path: Path) -> None:
    files = written(tmp_path / "a, [b](c)=d+e * 'f' é", [["a bus", "one bus"], ["a dog"]])
    suite = suite_for(files)
    assert [scenario.name for scenario in suite.scenarios] == ["learner_0 + learner_1", "captions + learner_1", "learner_0 + captions"]
    settings = {"vocabulary": 20, "length": 4, "held_out": True, **files}
    assert co_player(suite.scenarios[1].seats[0]) == Captioner(**settings)
    assert co_player(suite.scenarios[2].seats[1]) == CaptionListener(candidates=2, **settings)
    assert suite.version == 2


def test_where_every_image_has_one_caption_none_is_held_out(tmp_path: Path) -> None:
    files = written(tmp_path, [["a bus"], ["a dog"]])
    assert [scenario.name for scenario in suite_for(files).scenarios] == ["learner_0 + learner_1"]
    with pytest.raises(ValueError, match="held_out is True; no image has two captions, of which one could be held out; want False"):
        Captioner(vocabulary=20, length=4, held_out=True, **files)


def test_names_of_those_who_know_captions_say_which() -> None:
    game = Referential(candidates=3, length=7, vocabulary=50, shows="features")
    for held_out in (False, True):
        speaking, listening = captioners(game, held_out)
        assert co_player(speaking) == Captioner(vocabulary=50, length=7, held_out=held_out)
        assert co_player(listening) == CaptionListener(candidates=3, vocabulary=50, length=7, held_out=held_out)
