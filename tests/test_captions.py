"""What simulated people say, and captions from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.captions import (
    MOST_VALUES,
    NAMES,
    Habits,
    Person,
    all_pictures,
    lexicon,
    load_captions,
    misfits,
    name_of,
    plain_names,
    plural,
    text_of,
)

FULL = lexicon(MOST_VALUES)
SMALL = (3, 3)


class Someone(Person):
    """A person with given habits: mentions everything in the plain words unless told otherwise."""

    order, opening, brief = "plain", ("there", "is", "a"), False
    mentions = (1.0,) * 5

    @property
    def habits(self) -> Habits:  # type: ignore[override]
        prefers = tuple((0,) * count for count in self.values)
        return Habits(self.mentions[: len(self.values)], prefers, self.opening, self.order, self.brief)


def someone(order: str, opening: str, mentions: str = "shape colour size number position", brief: bool = False) -> Someone:
    kind = type(
        "Someone",
        (Someone,),
        {
            "order": order,
            "opening": tuple(opening.split(" ")),
            "brief": brief,
            "mentions": tuple(float(n in mentions.split()) for n in NAMES),
        },
    )
    made: Someone = kind(0)
    return made


def said(person: Person, picture: list[int], length: int = 15, luck: int = 0) -> str:
    words = person.describe(torch.tensor([picture]), torch.tensor([luck]), length)
    assert words.shape == (1, length)
    return text_of(words[0].tolist(), lexicon(person.values))


# Attributes: shape, colour, size, number, position.
ONE_SMALL_RED_CIRCLE_LEFT, THREE_LARGE_BLUE_CROSSES_BOTTOM = [0, 0, 0, 0, 0], [3, 2, 1, 2, 3]


@pytest.mark.parametrize(
    ("order", "opening", "one", "three"),
    [
        ("plain", "there is a", "there is one small red circle on the left", "there are three large blue crosses at the bottom"),
        ("plain", "i see a", "i see one small red circle on the left", "i see three large blue crosses at the bottom"),
        ("place_first", "the", "on the left the one small red circle", "at the bottom the three large blue crosses"),
        ("predicate", "", "the one circle on the left is small red", "the three crosses at the bottom are large blue"),
        ("telegraphic", "a", "circle red small one on the left", "crosses blue large three at the bottom"),
    ],
)
def test_sentences_follow_the_persons_order(order: str, opening: str, one: str, three: str) -> None:
    person = someone(order, opening)
    assert said(person, ONE_SMALL_RED_CIRCLE_LEFT) == one
    assert said(person, THREE_LARGE_BLUE_CROSSES_BOTTOM) == three


def test_what_is_not_mentioned_leaves_no_gap() -> None:
    assert said(someone("plain", "a", "shape"), ONE_SMALL_RED_CIRCLE_LEFT) == "a circle"
    assert said(someone("plain", "a", "shape"), THREE_LARGE_BLUE_CROSSES_BOTTOM) == "crosses"
    assert said(someone("plain", "there is a", "colour position", brief=True), ONE_SMALL_RED_CIRCLE_LEFT) == "there is a red thing left"
    assert said(someone("predicate", "", "shape"), THREE_LARGE_BLUE_CROSSES_BOTTOM) == "the crosses"


def test_a_long_sentence_is_cut_off() -> None:
    assert said(someone("plain", "there is a"), ONE_SMALL_RED_CIRCLE_LEFT, length=4) == "there is one small"


def test_what_never_varies_is_never_mentioned() -> None:
    words = "a the there is i see thing circle disc ball square box block red crimson scarlet green lime jade"
    assert " ".join(lexicon((2, 2))) == f" {words}"
    for number in range(20):
        assert set(said(Person(number, (2, 1, 1)), [1, 0, 0]).split()) <= {
            "a",
            "the",
            "there",
            "is",
            "i",
            "see",
            "thing",
            "square",
            "box",
            "block",
        }


def test_people_differ_and_each_is_always_the_same() -> None:
    people = [Person(number) for number in range(40)]
    assert len({person.habits for person in people}) == 40
    assert {person.habits.order for person in people} == {"plain", "place_first", "predicate", "telegraphic"}
    assert Person(3).habits == Person(3).habits
    # Its words are part of every recording: the habits of a number never change.
    assert said(Person(4), THREE_LARGE_BLUE_CROSSES_BOTTOM) == "the three swords at the bottom are huge navy"


def test_one_picture_has_many_descriptions() -> None:
    pictures = torch.tensor([ONE_SMALL_RED_CIRCLE_LEFT]).expand(64, -1)
    each = {number: {tuple(row) for row in Person(number).describe(pictures, torch.arange(64), 15).tolist()} for number in range(12)}
    assert len(set().union(*each.values())) > 24
    # Who mentions something only now and then has several.
    assert max(len(own) for own in each.values()) >= 4


def test_people_say_nothing_that_is_false() -> None:
    pictures = torch.as_tensor(all_pictures(MOST_VALUES))
    false = torch.as_tensor(misfits(MOST_VALUES))
    attributes = torch.arange(5)
    for number in range(12):
        words = Person(number).describe(pictures, torch.arange(len(pictures)), 15)
        assert not false[words[:, :, None], attributes, pictures[:, None]].any()


def test_words_are_false_of_what_they_are_not() -> None:
    table = misfits(MOST_VALUES)
    number = {word: index for index, word in enumerate(FULL)}
    false_of = {word: {NAMES[a]: table[number[word], a].nonzero()[0].tolist() for a in range(5) if table[number[word], a].any()}
                for word in ("crimson", "tiny", "two", "left", "discs", "wedge", "thing", "the")}  # fmt: skip
    assert false_of["crimson"] == {"colour": [1, 2, 3, 4, 5]}
    # Tables are as wide as the most values; there is no third size.
    assert false_of["tiny"] == {"size": [1, 2, 3, 4, 5]}
    assert false_of["two"]["number"][:2] == [0, 2]
    assert false_of["left"]["position"][:4] == [1, 2, 3, 4]
    assert false_of["discs"] == {"shape": [1, 2, 3, 4, 5], "number": [0]}
    assert false_of["wedge"] == {"shape": [0, 1, 3, 4, 5], "number": [1, 2, 3, 4, 5]}
    assert false_of["thing"] == {"number": [1, 2, 3, 4, 5]}
    assert false_of["the"] == {}


def test_plain_names_name_every_picture_apart() -> None:
    pictures = torch.as_tensor(all_pictures(MOST_VALUES))
    words = plain_names(pictures, MOST_VALUES, 5)
    assert text_of(words[0].tolist(), FULL) == "circle red small one left"
    assert text_of(words[-1].tolist(), FULL) == "rings black large three middle"
    assert len({tuple(row) for row in words.tolist()}) == 1080
    assert text_of(plain_names(torch.tensor([[1, 0, 1]]), (2, 1, 2), 5)[0].tolist(), lexicon((2, 1, 2))) == "square large"
    assert plain_names(torch.tensor([[0]]), (1,), 2).tolist() == [[0, 0]]


def test_pictures_have_names_for_people_who_read() -> None:
    assert name_of(THREE_LARGE_BLUE_CROSSES_BOTTOM, MOST_VALUES) == "three large blue crosses, bottom"
    assert name_of([1, 0], (2, 1)) == "square"
    assert name_of([0, 1], (1, 2)) == "green thing"


def test_words_beyond_the_lexicon_are_called_after_their_numbers() -> None:
    assert text_of([1, 90, 0, 5], ("", "a")) == "a w90"


def test_nouns_that_hiss_take_es() -> None:
    assert [plural(noun) for noun in ("cross", "box", "disc")] == ["crosses", "boxes", "discs"]


def test_all_pictures_count_the_last_attribute_fastest() -> None:
    assert all_pictures((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("values", [(), (7,), (6, 0), (6, 6, 2, 3, 5, 1)])
def test_values_that_no_attribute_has_are_refused(values: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"values is .*; want from 1 to 5 whole numbers, each from 1 to at most: shape 6, colour 6, size 2"
    ):
        Person(0, values)


def test_a_person_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"number is -1; want from 0"):
        Person(-1)


# Captions from files.

DOGS = {
    "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 3}, {"id": 9}],
    "annotations": [
        {"image_id": 3, "caption": "A dog runs."},
        {"image_id": 7, "caption": "a Dog and a cat"},
        {"image_id": 7, "caption": "two animals"},
        {"image_id": 9, "caption": "a zebra"},
    ],
}


def written(folder: Path, captions: Any = DOGS, features: Any = None) -> tuple[str, str]:
    (folder / "c.json").write_text(captions if isinstance(captions, str) else json.dumps(captions))
    if isinstance(features, bytes):
        (folder / "f.npy").write_bytes(features)
    else:
        np.save(folder / "f.npy", np.arange(12, dtype=np.float32).reshape(3, 4) if features is None else features)
    return str(folder / "c.json"), str(folder / "f.npy")


def test_captions_are_words_in_order_of_frequency(tmp_path: Path) -> None:
    found = load_captions(*written(tmp_path), vocabulary=20, length=4)
    # a: 4 times, dog: twice, then in the order of the alphabet.
    assert found.names == ("", "unknown", "a", "dog", "and", "animals", "cat", "runs", "two", "zebra")
    assert found.rows.tolist() == [0, 1, 2]
    assert found.counts.tolist() == [2, 1, 1]
    # The fifth word of "a Dog and a cat" is beyond the length.
    assert found.captions.tolist() == [[[2, 3, 4, 2], [8, 5, 0, 0]], [[2, 3, 7, 0], [0, 0, 0, 0]], [[2, 9, 0, 0], [0, 0, 0, 0]]]
    assert found.texts == (("a Dog and a cat", "two animals"), ("A dog runs.",), ("a zebra",))
    assert isinstance(found.features, np.memmap)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    captions, features = written(tmp_path)
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + Path(captions).read_bytes())
    assert load_captions(str(marked), features, vocabulary=100, length=5).texts == load_captions(captions, features, 100, 5).texts


def test_captions_of_rare_words_are_left_out_with_their_images(tmp_path: Path) -> None:
    files = written(tmp_path)
    found = load_captions(*files, vocabulary=5, length=5, unknown=0.4)
    # a, dog, and: "a dog and a ?" stays, "a dog ?" too, "two animals" and "a ?" do not.
    assert found.captions.tolist() == [[[2, 3, 4, 2, 1]], [[2, 3, 1, 0, 0]]]
    assert found.rows.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"vocabulary is 2; every caption in .*c.json then has 30% or more .*; want up to 10, which names"):
        load_captions(*files, vocabulary=2, length=5)


def test_a_caption_of_which_exactly_the_share_is_unknown_is_left_out(tmp_path: Path) -> None:
    # With ten words three unknown ones are 30 %; the first two captions make every other word frequent.
    known = "a b c d e f g"
    texts = (known, known, f"{known} x y z", f"{known} x y")
    annotations = [{"image_id": image, "caption": text} for image, text in zip((3, 3, 7, 9), texts, strict=True)]
    found = load_captions(*written(tmp_path, {**DOGS, "annotations": annotations}), vocabulary=9, length=10)
    assert found.names[2:] == tuple(known.split())
    assert found.texts == ((known, known), (f"{known} x y",))


@pytest.mark.parametrize(
    ("captions", "complaint"),
    [
        ("", r"captions .*c.json is damaged or no JSON"),
        ('{"images": [', r"captions .*c.json is damaged or no JSON"),
        ("[" * 100_000, r"captions .*c.json is damaged or no JSON"),
        ("[]", r"captions .*c.json lacks a list of images; want images with id, and annotations with image_id and caption"),
        ({"images": {"id": 1}, "annotations": []}, r"captions .*c.json lacks a list of images; want images with id"),
        ({"images": [{"id": 1}]}, r"captions .*c.json lacks a list of annotations; want images with id"),
        ({"images": [7], "annotations": []}, r"captions .*c.json lacks 'id' in images\[0\]; want images with id"),
        ({"images": [{"id": 1}], "annotations": [{"caption": "x"}]}, r"captions .*c.json lacks 'image_id' in annotations\[0\]"),
        (
            {**DOGS, "annotations": [*DOGS["annotations"], {"image_id": [9], "caption": "a zebra"}]},
            r"captions .*c.json has image_id \[9\] in annotations\[4\]; want a whole number or text",
        ),
        ({**DOGS, "annotations": [{"image_id": 9, "caption": None}]}, r"captions .*c.json has caption None in annotations\[0\]; want text"),
        (
            {**DOGS, "annotations": [{"image_id": 9, "caption": "..."}, {"image_id": 3, "caption": ""}]},
            r"captions .*c.json has 2 captions without a word; want words of the letters a to z or digits",
        ),
        ({"images": [], "annotations": []}, r"captions .*c.json has 0 images and 0 captions; want some of both"),
        ({**DOGS, "images": [{"id": 3}, {"id": 7}, {"id": 3}]}, r"captions .*c.json has image 3 twice"),
        (
            {**DOGS, "images": [{"id": 3}, {"id": 7}, {"id": 8}]},
            r"captions .*c.json: 'a zebra' is of image 9, which is not among its 3 images; want the id of one, such as 3",
        ),
        ({**DOGS, "images": DOGS["images"][:2]}, r"features .*f.npy has 3 rows; captions .*c.json has 2 images; want as many"),
    ],
)
def test_what_is_wrong_with_a_caption_file_is_said_in_one_line(tmp_path: Path, captions: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        load_captions(*written(tmp_path, captions), vocabulary=20, length=4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        (b"", r"features .*f.npy cannot be read"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", r"features .*f.npy cannot be read"),
        (np.zeros(3, np.float32), r"features .*f.npy holds float32 of shape \(3,\); want float32 \[images, D\]"),
        (np.zeros((3, 4)), r"features .*f.npy holds float64 of shape \(3, 4\); want float32"),
        (np.array([[0, 0], [0, np.nan], [0, 0]], np.float32), r"features .*f.npy has nan in row 1; want finite numbers"),
        (np.array([[0, 0]] * 700 + [[-np.inf, 0]], np.float32), r"features .*f.npy has -inf in row 700; want finite numbers"),
    ],
)
def test_what_is_wrong_with_a_feature_file_is_said_in_one_line(tmp_path: Path, features: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        load_captions(*written(tmp_path, features=features), vocabulary=20, length=4)
    assert "\n" not in str(caught.value)


def test_an_archive_of_features_is_refused(tmp_path: Path) -> None:
    captions, features = written(tmp_path)
    with open(features, "wb") as file:
        np.savez(file, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"features .*f.npy is an archive of several arrays; want a .npy file of one"):
        load_captions(captions, features, vocabulary=20, length=4)


def test_without_files_there_is_a_small_set_of_our_own() -> None:
    found = load_captions("", "", vocabulary=100, length=15)
    assert found.features.shape == (72, 14)
    assert found.features.dtype == np.float32
    # The last: the sixth shape in the sixth colour and the second size.
    assert found.features[71].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1]
    assert found.counts.tolist() == [5] * 72
    assert all("black" in text or "dark" in text or "sooty" in text for text in found.texts[71])
    with pytest.raises(ValueError, match=r"captions is 'x', features ''; want two files or none"):
        load_captions("x", "", vocabulary=100, length=15)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    here = written(tmp_path)
    with pytest.raises(ValueError, match=r"captions .*none.json cannot be read \(No such file or directory\)"):
        load_captions(str(tmp_path / "none.json"), here[1], vocabulary=20, length=4)
    with pytest.raises(ValueError, match=r"features .*none.npy cannot be read"):
        load_captions(here[0], str(tmp_path / "none.npy"), vocabulary=20, length=4)
