"""Speakers and listeners for referential games: simulated people, people's real captions, and those who name and understand exactly.

Everyone here is told by settings what world it lives in: `values` as the game has them, `shows` for attributes or pictures, `vocabulary`
and for listeners `candidates`. Who looks at pictures knows every picture of the world and recognises it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from agents.occupant import Decision
from envs.captions import END, MOST_VALUES, CaptionSet, Person, all_pictures, check_values, lexicon, load_captions, misfits, plain_names
from envs.chance import Purpose, categorical, fold, integers, mix, uniform
from envs.game import Game, Observation
from envs.referential import Referential, atlas

Shape = int | tuple[int, ...]


def _world_in(game: Game, *names: str) -> dict[str, Any]:
    """What somebody's settings of these names must be: words mean something else in a world with other values."""
    if not isinstance(game, Referential):
        return {}
    pictures = ("pixels",) if game.shows == "pictures" else ()
    return {name: getattr(game, name) for name in (*names, *pictures)}


class SpeakerState(NamedTuple):
    """luck: what its chance depends on. place: words said since the message began. messages: messages ended."""

    luck: Int64[Tensor, "N"]
    place: Int64[Tensor, "N"]
    messages: Int64[Tensor, "N"]


@dataclass(frozen=True)
class _Speaker(ABC):
    """Says a sentence word by word, and another one if it is asked. length: most words of a sentence, its end excluded."""

    vocabulary: int = 100
    length: int = 15

    def __post_init__(self) -> None:
        if not 1 <= self.length <= 1000:
            raise ValueError(f"length is {self.length}; want from 1 to 1000")

    @abstractmethod
    def word(self, target: Tensor, state: SpeakerState) -> Int64[Tensor, "N"]:
        """Word number state.place of what it says of a target, 0 after the last; chance may depend on state.luck and state.messages."""

    def start(self, seeds: Int64[Tensor, "N"]) -> SpeakerState:
        return SpeakerState(fold(seeds, Purpose.ACTION), torch.zeros_like(seeds), torch.zeros_like(seeds))

    def act(self, observation: Observation, state: SpeakerState, reward: Tensor | None = None) -> tuple[Decision, SpeakerState]:
        has_turn = observation["turn"] == 1
        word = self.word(observation["target"], state) * has_turn
        # Whose turn has passed has ended: the game cut the sentence off.
        ended = (has_turn & (word == END)) | (~has_turn & (state.place > 0))
        place = (state.place + has_turn).clamp(max=self.length).masked_fill(ended, 0)
        return Decision(word), SpeakerState(state.luck, place, state.messages + ended)

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """What `_made` made, copied to a device once."""
        if device not in self._copies:
            self._copies[device] = tuple(table.to(device) for table in self._made())
        return self._copies[device]

    @abstractmethod
    def _made(self) -> tuple[Tensor, ...]:
        """Its tables; sentences are filled up with zeros to length + 1."""

    @cached_property
    def _copies(self) -> dict[torch.device, tuple[Tensor, ...]]:
        return {}


@dataclass(frozen=True)
class _Describer(_Speaker):
    """values, shows, vocabulary: the game's. pixels: of a picture, where those are shown."""

    values: tuple[int, ...] = MOST_VALUES
    shows: str = "attributes"
    pixels: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_world(self.values, self.shows, self.vocabulary)

    @cached_property
    def reads(self) -> dict[str, Shape]:
        return {"target": _shape_of(self.values, self.shows, self.pixels), "turn": 2, "action_mask": (self.vocabulary,)}

    def settings_in(self, game: Game) -> dict[str, Any]:
        return _world_in(game, "values", "shows", "vocabulary")

    @cached_property
    def eye(self) -> Eye:
        return eye_for(self.values, self.shows, self.pixels)


@dataclass(frozen=True)
class SimulatedPerson(_Describer):
    """Says what it sees in English, with the habits of simulated person number `number`.

    people: with more than one, every trial has one of as many, drawn evenly from `number` on.
    """

    number: int = 0
    people: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_people(self.number, self.people)

    def word(self, target: Tensor, state: SpeakerState) -> Int64[Tensor, "N"]:
        mentions, sentences = self._on(target.device)
        who = integers(state.luck, self.people, 0)
        each = torch.arange(len(self.values), device=target.device)
        mentioned = uniform(state.luck[:, None], 1, state.messages[:, None], each) < mentions[who]
        subset = (mentioned * (1 << each)).sum(1)
        return sentences[who, self.eye(target), subset, state.place].long()

    def _made(self) -> tuple[Tensor, ...]:
        """mentions [people, A], and what each says of every picture with every subset of attributes: [people, W, 2^A, L + 1]."""
        count = len(self.values)
        subsets = (torch.arange(1 << count)[:, None] >> torch.arange(count)) & 1 == 1
        pictures = torch.as_tensor(all_pictures(self.values))
        both = pictures.repeat_interleave(len(subsets), 0), subsets.repeat(len(pictures), 1)
        people = [Person(self.number + k, self.values) for k in range(self.people)]
        said = torch.stack([person.say(*both, self.length) for person in people]).to(torch.int16)
        sentences = torch.nn.functional.pad(said, (0, 1)).unflatten(1, (len(pictures), len(subsets)))
        return torch.tensor([person.habits.mentions for person in people]), sentences


@dataclass(frozen=True)
class ExactSpeaker(_Describer):
    """Says the plain word for every attribute of the target, and nothing else."""

    def word(self, target: Tensor, state: SpeakerState) -> Int64[Tensor, "N"]:
        (sentences,) = self._on(target.device)
        return sentences[self.eye(target), state.place]

    def _made(self) -> tuple[Tensor, ...]:
        said = plain_names(torch.as_tensor(all_pictures(self.values)), self.values, self.length)
        return (torch.nn.functional.pad(said, (0, 1)),)


@dataclass(frozen=True)
class Captioner(_Speaker):
    """Says one of the captions that people gave to the target's image, known by its features.

    captions, features: the game's files; vocabulary and length: the game's. held_out: says those that are held out for evaluation (see
    `_counted`) instead of the others.
    """

    captions: str = ""
    features: str = ""
    held_out: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _counted(self._set, self.held_out)

    @cached_property
    def reads(self) -> dict[str, Shape]:
        return {"target": (self._set.features.shape[1],), "turn": 2, "action_mask": (self.vocabulary,)}

    @property
    def _set(self) -> CaptionSet:
        return load_captions(self.captions, self.features, self.vocabulary, self.length)

    @cached_property
    def eye(self) -> Eye:
        return Eye(self._set.features, self._set.rows)

    def word(self, target: Tensor, state: SpeakerState) -> Int64[Tensor, "N"]:
        exists, sentences = self._on(target.device)
        image = self.eye(target)
        which = categorical(exists[image], uniform(state.luck, state.messages))
        return sentences[image, which, state.place]

    def _made(self) -> tuple[Tensor, ...]:
        exists = torch.as_tensor(_counted(self._set, self.held_out))
        return exists.float(), torch.nn.functional.pad(torch.as_tensor(self._set.captions), (0, 1))


class ListenerState(NamedTuple):
    """misfits: [N, C], how much of what was heard speaks against each candidate. luck: what its chance depends on. clock: steps taken."""

    misfits: Int64[Tensor, "N C"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@dataclass(frozen=True)
class _Listener(ABC):
    """Adds up what speaks against each candidate, word by word, and picks the one with the least; between equals it draws. It never asks.

    candidates, vocabulary: the game's.
    """

    candidates: int = 10
    vocabulary: int = 100

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise ValueError(f"candidates is {self.candidates}; want at least 2")

    @abstractmethod
    def misfits(self, candidates: Tensor, word: Int64[Tensor, "N"], luck: Int64[Tensor, "N"]) -> Int64[Tensor, "N C"]:
        """How much a word speaks against each candidate. luck: of each trial; it may decide who listens."""

    def start(self, seeds: Int64[Tensor, "N"]) -> ListenerState:
        zero = torch.zeros_like(seeds)
        return ListenerState(zero[:, None].expand(-1, self.candidates), fold(seeds, Purpose.ACTION), zero)

    def act(self, observation: Observation, state: ListenerState, reward: Tensor | None = None) -> tuple[Decision, ListenerState]:
        misfits = state.misfits + self.misfits(observation["candidates"], observation["word"], state.luck)
        draws = fold(state.luck[:, None], 1, state.clock[:, None], torch.arange(self.candidates, device=misfits.device))
        # Twenty bits of luck below the sum decide between equals.
        best = ((misfits << 20) + (draws & (2**20 - 1))).argmin(1)
        picks = observation["turn"] == 1
        return Decision(best * picks), ListenerState(misfits.masked_fill(picks[:, None], 0), state.luck, state.clock + 1)


@dataclass(frozen=True)
class LiteralListener(_Listener):
    """Understands English word by word, and picks the candidate of which the fewest words are false.

    Between equals it draws. number: understands only the words about attributes that this simulated person does; -1: all of them.
    people: with more than one, every trial has one of as many, from `number` on. values, shows, pixels: the game's. It never asks.
    """

    number: int = -1
    people: int = 1
    values: tuple[int, ...] = MOST_VALUES
    shows: str = "attributes"
    pixels: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_world(self.values, self.shows, self.vocabulary)
        if self.number != -1:
            _check_people(self.number, self.people)
        elif self.people != 1:
            raise ValueError(f"people is {self.people}, number -1; want the number of the first of them")

    @cached_property
    def reads(self) -> dict[str, Shape]:
        return {"candidates": _shape_of(self.values, self.shows, self.pixels, self.candidates), "word": self.vocabulary, "turn": 2}

    def settings_in(self, game: Game) -> dict[str, Any]:
        return _world_in(game, "values", "shows", "vocabulary", "candidates")

    @cached_property
    def eye(self) -> Eye:
        return eye_for(self.values, self.shows, self.pixels)

    def misfits(self, candidates: Tensor, word: Int64[Tensor, "N"], luck: Int64[Tensor, "N"]) -> Int64[Tensor, "N C"]:
        if self.shows == "attributes":
            candidates = candidates.unflatten(1, (self.candidates, len(self.values)))
        pictures = self.eye(candidates.flatten(0, 1)).unflatten(0, (-1, self.candidates))
        who = integers(luck, self.people, 0)[:, None]
        return self._false(candidates.device)[who, word[:, None], pictures]

    def _false(self, device: torch.device) -> Int64[Tensor, "K V W"]:
        """Of how many attributes of a picture a word is false, to each of the people."""
        if device not in self._copies:
            pictures, names = all_pictures(self.values), lexicon(self.values)
            meanings = misfits(self.values)[:, np.arange(len(self.values)), pictures].sum(2)
            table = np.zeros((self.people, self.vocabulary, len(pictures)), dtype=np.int64)
            table[:, : len(names)] = meanings
            for each in range(self.people if self.number != -1 else 0):
                known = Person(self.number + each, self.values).understands
                table[each, [number for number, word in enumerate(names) if word not in known]] = 0
            self._copies[device] = torch.as_tensor(table).to(device)
        return self._copies[device]

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}


@dataclass(frozen=True)
class CaptionListener(_Listener):
    """Knows images' captions, and picks the candidate whose captions lack the least of what it hears.

    A word counts for as much as it tells: the logarithm of how many images there are to each that has it in its captions. Between equals it
    draws. length, captions, features: the game's. held_out: it knows those that are held out for evaluation (see `_counted`) instead of
    the others. It never asks.
    """

    length: int = 15
    captions: str = ""
    features: str = ""
    held_out: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _counted(self._set, self.held_out)

    @cached_property
    def reads(self) -> dict[str, Shape]:
        return {"candidates": (self.candidates, self._set.features.shape[1]), "word": self.vocabulary, "turn": 2}

    @property
    def _set(self) -> CaptionSet:
        return load_captions(self.captions, self.features, self.vocabulary, self.length)

    @cached_property
    def eye(self) -> Eye:
        return Eye(self._set.features, self._set.rows)

    def misfits(self, candidates: Tensor, word: Int64[Tensor, "N"], luck: Int64[Tensor, "N"]) -> Int64[Tensor, "N C"]:
        captions, tells = self._on(candidates.device)
        images = self.eye(candidates.flatten(0, 1)).unflatten(0, (-1, self.candidates))
        return (captions[images] != word[:, None, None]).all(2) * tells[word][:, None]

    def _on(self, device: torch.device) -> tuple[Int64[Tensor, "I KL"], Int64[Tensor, "V"]]:
        """The words of each image's captions, and how much each word tells, in thousandths: whole numbers add up alike on every device."""
        if device not in self._copies:
            known = _counted(self._set, self.held_out)
            captions = (self._set.captions * known[..., None]).reshape(len(known), -1)
            images = np.zeros(self.vocabulary, dtype=np.int64)
            for words in captions:
                images[np.unique(words)] += 1
            # What no caption has tells nothing, nor does the end of a message.
            tells = np.where(images > 0, np.round(1000 * np.log(len(captions) / images.clip(1))), 0).astype(np.int64)
            tells[END] = 0
            self._copies[device] = torch.as_tensor(captions).to(device), torch.as_tensor(tells).to(device)
        return self._copies[device]

    @cached_property
    def _copies(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}


def _counted(images: CaptionSet, held_out: bool) -> Bool[NDArray[Any], "I K"]:
    """Which captions count. Of every image that has several, the last one is held out for evaluation; an only one counts either way.

    Raises ValueError where no image has several, so that nothing is held out.
    """
    if held_out and images.counts.max() < 2:
        raise ValueError("held_out is True; no image has two captions, of which one could be held out; want False, or more captions")
    which, counts = np.arange(images.captions.shape[1]), images.counts[:, None]
    is_last = which == counts - 1
    return is_last if held_out else (which < counts) & (~is_last | (counts == 1))


def captioners(game: Referential, held_out: bool) -> tuple[str, str]:
    """Names of those who know the held-out captions of a game's images, or the others: one who says them and one who listens."""
    files = f"captions={_quoted(game.captions)},features={_quoted(game.features)},held_out={json.dumps(held_out)}"
    world = f"vocabulary={game.vocabulary},length={game.length},{files}"
    return f"captioner:{world}", f"caption_listener:{world},candidates={game.candidates}"


def _quoted(text: str) -> str:
    """As JSON in which none of the signs is left at which names are split."""
    return re.sub(r"[][(),+*:=]", lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(text))


def people(game: Referential, first: int, count: int = 8) -> tuple[str, str]:
    """Names of those who live in a game's world: one who speaks and one who listens, of `count` simulated people from number `first`."""
    values = str(list(game.values)).replace(" ", "")
    world = f"number={first},people={count},vocabulary={game.vocabulary},values={values},shows={game.shows},pixels={game.pixels}"
    return f"simulated_person:{world},length={game.length}", f"literal_listener:{world},candidates={game.candidates}"


class Eye:
    """Recognises what it has seen before by a fingerprint of its bits.

    appearances: [M, ...] of whole numbers or float32. rows: [W], the appearance of every object; without them, one after another. Of
    equal ones it takes the first.
    """

    def __init__(self, appearances: NDArray[Any], rows: NDArray[Any] | None = None) -> None:
        rows = np.arange(len(appearances)) if rows is None else rows
        # In parts: a file's features need not be in memory all at once.
        parts = np.array_split(rows, -(-len(rows) // 512))
        known = torch.cat([_fingerprint(torch.as_tensor(appearances[part])) for part in parts]).sort(stable=True)
        self._known: dict[torch.device, tuple[Tensor, ...]] = {torch.device("cpu"): (known.values, known.indices)}

    def __call__(self, seen: Tensor) -> Int64[Tensor, "N"]:
        """The numbers of the objects that are seen, [N, ...]; any number for what it has never seen."""
        if seen.device not in self._known:
            self._known[seen.device] = tuple(part.to(seen.device) for part in self._known[torch.device("cpu")])
        prints, numbers = self._known[seen.device]
        return numbers[torch.searchsorted(prints, _fingerprint(seen)).clamp(max=len(prints) - 1)]


@cache
def eye_for(values: tuple[int, ...], shows: str, pixels: int) -> Eye:
    """That of somebody who lives in this world: tells the number of a picture, or of its attributes."""
    return Eye(atlas(values, pixels) if shows == "pictures" else all_pictures(values))


def _fingerprint(seen: Tensor) -> Int64[Tensor, "N"]:
    """64 bits of what is seen, [N, ...]: its numbers' bits, each times an odd number of its own, added up."""
    bits = seen.view(torch.int32) if seen.dtype == torch.float32 else seen
    flat = bits.flatten(1).long()
    return (flat * (mix(torch.arange(1, flat.shape[1] + 1, device=flat.device)) | 1)).sum(1)


def _shape_of(values: tuple[int, ...], shows: str, pixels: int, count: int | None = None) -> tuple[int, ...]:
    if shows == "attributes":
        return (len(values) * (count or 1),)
    return (*(() if count is None else (count,)), pixels, pixels, 3)


def _check_world(values: tuple[int, ...], shows: str, vocabulary: int) -> None:
    check_values(values)
    if shows not in ("attributes", "pictures"):
        raise ValueError(f"shows is {shows!r}; want attributes or pictures")
    if vocabulary < len(lexicon(values)):
        raise ValueError(f"vocabulary is {vocabulary}; English about values {values} has {len(lexicon(values))} words; want at least that")


def _check_people(number: int, people: int) -> None:
    Person(number)
    if not 1 <= people <= 1000:
        raise ValueError(f"people is {people}; want from 1 to 1000")
