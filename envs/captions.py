"""English about pictures: what simulated people say of coloured shapes, and captions that real people gave to photographs.

A picture of the simulated kind is a few small whole numbers, one per attribute of `ATTRIBUTES`: which shape, which colour and so on. Every
`Person` has habits of its own: which attributes it mentions and how often, which of several words it prefers, in what order it speaks
and how it begins. All habits follow from the person's number, so there are as many people as one likes, and some can be held out.

Words are numbers: 0 ends a message, the others index a lexicon. Real captions come in COCO's format (Lin et al. 2014, arXiv 1405.0312).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from envs.chance import Purpose, integers, uniform

END = 0
UNKNOWN = "unknown"

# {attribute: for each value the words for it; the first is the plain one}.
ATTRIBUTES: dict[str, tuple[tuple[str, ...], ...]] = {
    "shape": (
        ("circle", "disc", "ball"),
        ("square", "box", "block"),
        ("triangle", "wedge", "pyramid"),
        ("cross", "plus", "sword"),
        ("diamond", "lozenge", "kite"),
        ("ring", "hoop", "loop"),
    ),
    "colour": (
        ("red", "crimson", "scarlet"),
        ("green", "lime", "jade"),
        ("blue", "navy", "cobalt"),
        ("yellow", "golden", "lemon"),
        ("purple", "violet", "mauve"),
        ("black", "dark", "sooty"),
    ),
    "size": (("small", "little", "tiny"), ("large", "big", "huge")),
    "number": (("one",), ("two",), ("three",)),
    "position": (("left",), ("right",), ("top",), ("bottom",), ("middle", "centre")),
}
NAMES = tuple(ATTRIBUTES)
MOST_VALUES = tuple(len(words) for words in ATTRIBUTES.values())
SHAPE, COLOUR, SIZE, NUMBER, POSITION = range(5)
_PREPOSITIONS = ("on", "on", "at", "at", "in")
_THING = "thing"

# How often somebody mentions an attribute: habits are drawn from these. What a picture shows is named by nearly everyone, details are not.
_MENTIONS = ((1.0, 1.0, 0.8), (1.0, 1.0, 0.8), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0))
_OPENINGS = (("",), ("a",), ("the",), ("there", "is", "a"), ("i", "see", "a"))
_ORDERS = ("plain", "place_first", "predicate", "telegraphic")


def check_values(values: tuple[int, ...]) -> None:
    """Raises ValueError unless values says how many values of the first attributes are in use."""
    fits = 1 <= len(values) <= len(MOST_VALUES) and all(1 <= n <= most for n, most in zip(values, MOST_VALUES, strict=False))
    if not fits:
        most = ", ".join(f"{name} {count}" for name, count in zip(NAMES, MOST_VALUES, strict=True))
        raise ValueError(f"values is {values}; want from 1 to 5 whole numbers, each from 1 to at most: {most}")


def all_pictures(values: tuple[int, ...]) -> NDArray[Any]:
    """[W, A] int64: every combination of values, W of them, the last attribute changing fastest."""
    return np.indices(values).reshape(len(values), -1).T.copy()


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


@cache
def lexicon(values: tuple[int, ...]) -> tuple[str, ...]:
    """The words that people need for pictures with these values; word number n is lexicon[n], number 0 ends a message."""
    check_values(values)
    counts = values[NUMBER] if len(values) > NUMBER else 1
    words = ["", "a", "the", "there", "is", "i", "see", _THING]
    for several in ATTRIBUTES["shape"][: values[SHAPE]]:
        words += several
    for name, count in list(zip(NAMES, values, strict=False))[1:]:
        # What never varies is never mentioned.
        words += [word for several in ATTRIBUTES[name][:count] for word in several] if count > 1 else []
    if counts > 1:
        nouns = [word for several in ATTRIBUTES["shape"][: values[SHAPE]] for word in several]
        words += ["are", *(plural(noun) for noun in (*nouns, _THING))]
    if len(values) > POSITION and values[POSITION] > 1:
        words += list(dict.fromkeys(_PREPOSITIONS[: values[POSITION]]))
    return tuple(words)


def text_of(words: list[int], names: tuple[str, ...]) -> str:
    """A message up to its end, to be read. Words beyond the lexicon are called after their numbers."""
    spoken = words[: words.index(END)] if END in words else words
    return " ".join(names[word] if word < len(names) else f"w{word}" for word in spoken)


def name_of(picture: list[int], values: tuple[int, ...]) -> str:
    """A picture for people who read: "two small red circles, left"; without what never varies."""
    plain = [ATTRIBUTES[name][value][0] if count > 1 else "" for name, value, count in zip(NAMES, picture, values, strict=False)] + [""] * (
        5 - len(values)
    )
    noun = plain[SHAPE] or _THING
    noun = plural(noun) if len(picture) > NUMBER and picture[NUMBER] > 0 else noun
    words = " ".join(word for word in (plain[NUMBER], plain[SIZE], plain[COLOUR], noun) if word)
    return words + (f", {plain[POSITION]}" if plain[POSITION] else "")


@cache
def misfits(values: tuple[int, ...]) -> NDArray[Any]:
    """[V, A, most values] bool: whether a word is false of a picture with that value of that attribute."""
    words = {word: number for number, word in enumerate(lexicon(values))}
    table = np.zeros((len(words), len(values), max(values)), dtype=bool)
    for attribute, count in enumerate(values):
        for value, several in enumerate(ATTRIBUTES[NAMES[attribute]][:count]):
            for form in (*several, *(plural(word) for word in several if attribute == SHAPE)):
                if form in words:
                    table[words[form], attribute] = True
                    table[words[form], attribute, value] = False
    if len(values) > NUMBER and values[NUMBER] > 1:
        nouns = [word for several in ATTRIBUTES["shape"][: values[SHAPE]] for word in several] + [_THING]
        for noun in nouns:
            table[words[noun], NUMBER, 1:] = True
            table[words[plural(noun)], NUMBER, 0] = True
    return table


class Habits(NamedTuple):
    """How a person speaks. mentions: per attribute, with what probability. prefers: per attribute and value, which of its words.
    opening: how it begins. order: of the parts. says_the_place_briefly: "left" rather than "on the left".
    """

    mentions: tuple[float, ...]
    prefers: tuple[tuple[int, ...], ...]
    opening: tuple[str, ...]
    order: str
    says_the_place_briefly: bool


@dataclass(frozen=True)
class Person:
    """Simulated person number `number`, in a world whose pictures have these values (see `check_values`)."""

    number: int
    values: tuple[int, ...] = MOST_VALUES

    def __post_init__(self) -> None:
        check_values(self.values)
        if not 0 <= self.number < 2**31:
            raise ValueError(f"number is {self.number}; want from 0 to {2**31 - 1}")

    @cached_property
    def habits(self) -> Habits:
        seed = torch.tensor(self.number)

        def pick(below: int, *what: int) -> int:
            return int(integers(seed, below, Purpose.PARAMETERS, *what))

        return Habits(
            mentions=tuple(_MENTIONS[attribute][pick(3, 0, attribute)] for attribute in range(len(self.values))),
            prefers=tuple(
                tuple(pick(len(ATTRIBUTES[NAMES[attribute]][value]), 1, attribute, value) for value in range(count))
                for attribute, count in enumerate(self.values)
            ),
            opening=_OPENINGS[pick(len(_OPENINGS), 2)],
            order=_ORDERS[pick(len(_ORDERS), 3)],
            says_the_place_briefly=bool(pick(2, 4)),
        )

    @cached_property
    def understands(self) -> frozenset[str]:
        """The words for attributes that this person knows: those it uses, and most others (three in four); nouns in both numbers."""
        seed, known = torch.tensor(self.number), set()
        for attribute, preferred in enumerate(self.habits.prefers):
            for value, own in enumerate(preferred):
                for which, word in enumerate(ATTRIBUTES[NAMES[attribute]][value]):
                    if which == own or int(integers(seed, 4, Purpose.PARAMETERS, 5, attribute, value, which)) > 0:
                        known |= {word, plural(word)} if attribute == SHAPE else {word}
        return frozenset(known)

    def describe(self, pictures: Int64[Tensor, "N A"], luck: Int64[Tensor, "N"], length: int) -> Int64[Tensor, "N L"]:
        """What it says of each picture: words, then zeros. luck: decides what is mentioned this time. A longer sentence is cut off."""
        draws = uniform(luck[:, None], torch.arange(len(self.values)))
        return self.say(pictures, draws < torch.tensor(self.habits.mentions), length)

    def say(self, pictures: Int64[Tensor, "N A"], mentioned: Bool[Tensor, "N A"], length: int) -> Int64[Tensor, "N L"]:
        """The same with these attributes mentioned."""
        tables = {name: torch.tensor(values) for name, values in self._numbers.items()}
        zero = torch.zeros_like(pictures[:, 0])

        def named(attribute: int) -> Tensor:
            if attribute >= len(self.values) or self.values[attribute] < 2:
                return zero
            return torch.where(mentioned[:, attribute], tables[NAMES[attribute]][pictures[:, attribute]], 0)

        many = pictures[:, NUMBER] > 0 if len(self.values) > NUMBER else zero.bool()
        is_named = mentioned[:, SHAPE] if self.values[SHAPE] > 1 else zero.bool()
        noun = torch.where(is_named, tables["nouns"][many.long(), pictures[:, SHAPE]], tables["thing"][many.long()])
        count, place = named(NUMBER), named(POSITION)
        # The first words in the singular and in the plural; "a" gives way to a number.
        opening: list[Tensor] = []
        for singular, several in self._numbers["opening"]:
            word = torch.where(many, several, singular)
            opening.append(torch.where((word == self._words["a"]) & (count > 0), 0, word))
        where = [place]
        if not self.habits.says_the_place_briefly and len(self.values) > POSITION:
            there = place > 0
            where = [
                torch.where(there, tables["prepositions"][pictures[:, POSITION]], 0),
                torch.where(there, self._words["the"], 0),
                place,
            ]
        match self.habits.order:
            case "plain":
                parts = [*opening, count, named(SIZE), named(COLOUR), noun, *where]
            case "place_first":
                parts = [*where, *opening, count, named(SIZE), named(COLOUR), noun]
            case "predicate":
                quality = [named(SIZE), named(COLOUR)]
                has_quality = (quality[0] > 0) | (quality[1] > 0)
                verb = torch.where(has_quality, tables["is"][many.long()], 0)
                parts = [torch.full_like(zero, self._words["the"]), count, noun, *where, verb, *quality]
            case _:
                parts = [noun, named(COLOUR), named(SIZE), count, *where]
        return _closed_up(torch.stack(parts, 1), length)

    @cached_property
    def _words(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(lexicon(self.values))}

    @cached_property
    def _numbers(self) -> dict[str, Any]:
        words, habits = self._words, self.habits
        chosen = [
            [ATTRIBUTES[NAMES[attribute]][value][which] for value, which in enumerate(several)]
            for attribute, several in enumerate(habits.prefers)
        ]
        nouns = chosen[SHAPE]
        numbers: dict[str, Any] = {
            NAMES[attribute]: [words.get(word, END) for word in several] for attribute, several in enumerate(chosen) if attribute != SHAPE
        }
        # Where there is never more than one, the plural is never asked for.
        numbers["nouns"] = [[words[noun] for noun in nouns], [words.get(plural(noun), END) for noun in nouns]]
        numbers["thing"] = [words[_THING], words.get(plural(_THING), END)]
        numbers["is"] = [words["is"], words.get("are", END)]
        several = {"is": words.get("are", END), "a": END}
        numbers["opening"] = [[words.get(word, END), several.get(word, words.get(word, END))] for word in habits.opening]
        numbers["prepositions"] = [words.get(word, END) for word in _PREPOSITIONS]
        return numbers


def plain_names(pictures: Int64[Tensor, "N A"], values: tuple[int, ...], length: int) -> Int64[Tensor, "N L"]:
    """The plain word for every attribute that varies, nothing else: names a picture exactly. A longer message is cut off."""
    words = {word: number for number, word in enumerate(lexicon(values))}
    counts = len(values) > NUMBER and values[NUMBER] > 1
    columns = [torch.zeros_like(pictures[:, :1])]
    for attribute, count in enumerate(values):
        if count > 1:
            plain = [several[0] for several in ATTRIBUTES[NAMES[attribute]][:count]]
            forms = [plain, [plural(word) for word in plain]] if attribute == SHAPE and counts else [plain]
            many = pictures[:, NUMBER] > 0 if len(forms) > 1 else torch.zeros(len(pictures), dtype=torch.bool)
            numbers = torch.tensor([[words[word] for word in several] for several in forms])
            columns.append(numbers[many.long(), pictures[:, attribute]][:, None])
    return _closed_up(torch.cat(columns, 1), length)


def _closed_up(words: Int64[Tensor, "N M"], length: int) -> Int64[Tensor, "N L"]:
    """Without the gaps: words in their order, then zeros, cut off or filled up to a length."""
    order = (words == END).to(torch.int8).argsort(stable=True, dim=1)
    return torch.nn.functional.pad(words.gather(1, order), (0, max(0, length - words.shape[1])))[:, :length]


class CaptionSet(NamedTuple):
    """Images with captions.

    features: [M, D], memory-mapped: a file's numbers are never all in memory. rows: [I], the images that have captions left, as rows of
    features. captions: [I, K, L] words, then zeros. counts: [I], how many of the K captions there are. names: words by number, the most
    frequent first after the end of a message and "unknown". texts: per image the captions as people wrote them.
    """

    features: NDArray[Any]
    rows: NDArray[Any]
    captions: NDArray[Any]
    counts: NDArray[Any]
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


@cache
def load_captions(captions: str, features: str, vocabulary: int, length: int, unknown: float = 0.3) -> CaptionSet:
    """Captions (JSON as COCO has them: `images` with `id`, `annotations` with `image_id` and `caption`) and the images' features (npy,
    [M, D], row after row in the order of `images`). Without both files, a small set that simulated people describe.

    The most frequent words get numbers below `vocabulary`, all others are "unknown"; captions of which a share `unknown` or more is, and
    those without a word, are left out, with images that have none left (Lowe et al. 2020, arXiv 2002.01093). Longer captions are cut off
    after `length` words. Raises ValueError naming the file, what is wrong with it and what would work.
    """
    if bool(captions) != bool(features):
        raise ValueError(f"captions is {captions!r}, features {features!r}; want two files or none")
    images, annotations = _read_captions(Path(captions)) if captions else _simulated_captions()
    array = _read_features(Path(features)) if features else _simulated_features()
    if len(array) != len(images):
        raise ValueError(f"features {features} has {len(array)} rows; captions {captions} has {len(images)} images; want as many")
    place = {image: row for row, image in enumerate(images)}
    spoken: list[list[tuple[str, list[str]]]] = [[] for _ in images]
    for image, text in annotations:
        if image not in place:
            what = f"captions {captions}: {text[:40]!r} is of image {image!r}, which is not among its {len(images)} images"
            raise ValueError(f"{what}; want the id of one, such as {images[0]!r}")
        spoken[place[image]].append((text, words_of(text)))
    tally = Counter(word for several in spoken for _, words in several for word in words)
    # Equally frequent words in the order of the alphabet.
    common = sorted(tally, key=lambda word: (-tally[word], word))[: max(0, vocabulary - 2)]
    names = ("", UNKNOWN, *common)
    number = {word: index for index, word in enumerate(names) if index > 1}
    kept: dict[int, list[tuple[str, list[int]]]] = {}
    for row, several in enumerate(spoken):
        for text, words in several:
            codes = [number.get(word, 1) for word in words]
            if codes and codes.count(1) < unknown * len(codes):
                kept.setdefault(row, []).append((text, codes[:length]))
    if not tally:
        raise ValueError(f"captions {captions} has {len(annotations)} captions without a word; want words of the letters a to z or digits")
    if not kept:
        raise ValueError(
            f"vocabulary is {vocabulary}; every caption in {captions or 'the small set'} then has {unknown:.0%} or more of unknown "
            f"words; want up to {len(tally) + 2}, which names them all"
        )
    table = np.zeros((len(kept), max(map(len, kept.values())), length), dtype=np.int64)
    for index, several_codes in enumerate(kept.values()):
        for which, (_, codes) in enumerate(several_codes):
            table[index, which, : len(codes)] = codes
    counts = np.array([len(several_codes) for several_codes in kept.values()])
    texts = tuple(tuple(text for text, _ in several_codes) for several_codes in kept.values())
    return CaptionSet(array, np.array(list(kept)), table, counts, names, texts)


# The world of the set that comes without files: shapes, colours and sizes.
_SAMPLE = (6, 6, 2)


def _simulated_captions() -> tuple[list[Any], list[tuple[Any, str]]]:
    """As `_read_captions`: all pictures of a small world, each described by five people."""
    pictures = torch.as_tensor(all_pictures(_SAMPLE))
    numbers = torch.arange(len(pictures))
    said = [Person(person, _SAMPLE).describe(pictures, numbers, 15).tolist() for person in range(5)]
    return numbers.tolist(), [(image, text_of(words, lexicon(_SAMPLE))) for several in said for image, words in enumerate(several)]


def _simulated_features() -> NDArray[Any]:
    """[M, 14]: their attributes, one-hot."""
    pictures = all_pictures(_SAMPLE)
    return np.concatenate([np.eye(count, dtype=np.float32)[pictures[:, which]] for which, count in enumerate(_SAMPLE)], 1)


def _read_captions(path: Path) -> tuple[list[Any], list[tuple[Any, str]]]:
    """(ids of images, (image's id, caption) of annotations)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"captions {path} cannot be read ({error.strerror}); want a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"captions {path} is damaged or no JSON ({error}); want COCO's captions format") from error
    images = [image for (image,) in _entries(path, data, "images", {"id": (int, str)})]
    annotations = [(image, text) for image, text in _entries(path, data, "annotations", {"image_id": (int, str), "caption": (str,)})]
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if not images or not annotations:
        raise ValueError(f"captions {path} has {len(images)} images and {len(annotations)} captions; want some of both")
    if repeated:
        raise ValueError(f"captions {path} has image {repeated[0]!r} twice; want every id once")
    return images, annotations


_KINDS: dict[type, str] = {int: "a whole number", str: "text"}


def _entries(path: Path, data: Any, name: str, fields: dict[str, tuple[type, ...]]) -> list[list[Any]]:
    """Of every entry of a list in a file's data, the values of these fields, each of one of these kinds."""
    want = "want images with id, and annotations with image_id and caption"
    if not isinstance(data, dict) or not isinstance(data.get(name), list):
        raise ValueError(f"captions {path} lacks a list of {name}; {want}")
    for number, entry in enumerate(data[name]):
        for field, kinds in fields.items():
            if not isinstance(entry, dict) or field not in entry:
                raise ValueError(f"captions {path} lacks {field!r} in {name}[{number}]; {want}")
            if not isinstance(entry[field], kinds):
                kind = " or ".join(_KINDS[kind] for kind in kinds)
                raise ValueError(f"captions {path} has {field} {repr(entry[field])[:40]} in {name}[{number}]; want {kind}")
    return [[entry[field] for field in fields] for entry in data[name]]


def _read_features(path: Path) -> NDArray[Any]:
    try:
        # Copied on writing: torch wants arrays that it could write to.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"features {path} cannot be read ({error}); want a .npy file of real numbers, [images, D]") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"features {path} is an archive of several arrays; want a .npy file of one")
    if array.ndim != 2 or array.dtype != np.float32 or 0 in array.shape:
        raise ValueError(f"features {path} holds {array.dtype} of shape {array.shape}; want float32 [images, D]")
    # In parts, as the file may be larger than the memory.
    for first in range(0, len(array), 512):
        wrong = ~np.isfinite(array[first : first + 512])
        if wrong.any():
            row = first + int(wrong.any(1).argmax())
            raise ValueError(f"features {path} has {array[row][wrong[row - first]][0]} in row {row}; want finite numbers")
    return array
