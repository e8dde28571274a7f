"""A speaker sees a target among candidates and says words; a listener sees the candidates in another order, hears, and picks one.

Actions: one word per step. The speaker's action is a word, 0 to `vocabulary` - 1; 0 ends its message, and so does word number `length`.
    The listener's action is a candidate, 0 to `candidates` - 1. With several `turns` it may ask: action `candidates` + w says word w, and a
    question ends as a message does; the speaker then speaks again, `turns` times at most. The listener picks after the last message, or
    at the beginning of a question instead of it. `action_mask` allows only action 0 to whoever has no say in a step, and it is ignored.
    What the mask forbids counts as action 0: ending the message, or picking the first candidate.
Observations: the speaker's `target` and `distractors`; the listener's `candidates`, in an order of its own. An object is shown as its
    attributes (symbols), as a picture (uint8, [size, size, 3]), or as a row of a file of features. `word` is the one that has just arrived,
    0 if none has or the message has ended (the speaker sees it where the listener may ask). `turn` is 1 if the seat has a say.
Noise: with probability `noise` a word arrives as another one, evenly from the rest; the end of a message always arrives as it is.
Reward: both get 1 for the right candidate, less `cost` for every word said by either, when it is said.
End: with the pick.
Measures: at the pick `accuracy`, and `message_length`, the number of words that the speaker has said.
Source: Lewis 1969 (signalling games); Lazaridou et al. 2017 (arXiv 1612.07182); Lowe et al. 2020 (arXiv 2002.01093) for sentences of up to
    15 of 100 words and nine distractors.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from envs import captions
from envs.captions import END, MOST_VALUES, CaptionSet, load_captions
from envs.chance import Purpose, integers, permutation, uniform
from envs.game import ACTION_MASK, Answer, Channel, Mark, Observation, Role, Scene, Turn

SHOWS = ("attributes", "pictures", "features")
COLOURS = ((214, 60, 52), (56, 150, 72), (52, 98, 206), (236, 196, 52), (142, 76, 168), (38, 38, 44))
# Pixels of a picture that is drawn for people.
_DRAWN = 32
PAPER, INK, GREEN, RED = (244, 243, 238), (40, 44, 52), (64, 145, 108), (200, 80, 72)


class ReferentialState(NamedTuple):
    """objects: [B, C], the target first. order: [B, C], which of them stands in each of the listener's places. message: [B], how many
    messages and questions have ended; place: words said since. said, heard: [B, messages and questions, L], before and after the noise.
    arrived: [B, 2], the words that have just reached the speaker and the listener. picked: the listener's place, -1 before.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    objects: Int64[Tensor, "B C"]
    order: Int64[Tensor, "B C"]
    message: Int64[Tensor, "B"]
    place: Int64[Tensor, "B"]
    said: Int64[Tensor, "B M L"]
    heard: Int64[Tensor, "B M L"]
    arrived: Int64[Tensor, "B 2"]
    picked: Int64[Tensor, "B"]


@dataclass(frozen=True)
class Referential:
    """candidates: C, the target and its distractors. length: L, most words of a message. vocabulary: V, words and the end of a message.
    turns: messages of the speaker, with a question between two. noise, cost: see above. shows: "attributes", "pictures" or "features".
    values: of the attributes shape, colour, size, number and position that are in use, how many values. pixels: a picture's size; sizes
    at which two of the pictures would look the same are refused.
    captions, features: files where features are shown; without them, a small set of ours (see `envs.captions.load_captions`).
    """

    candidates: int = 10
    length: int = 15
    vocabulary: int = 100
    turns: int = 1
    noise: float = 0.0
    cost: float = 0.0
    shows: str = "attributes"
    values: tuple[int, ...] = MOST_VALUES
    pixels: int = 32
    captions: str = ""
    features: str = ""

    def __post_init__(self) -> None:
        for name, least, most in (("length", 1, 1000), ("turns", 1, 100), ("pixels", 12, 256)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; want from {least} to {most}")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise is {self.noise}; want a probability from 0 to 1")
        if not 0.0 <= self.cost < 1.0:
            raise ValueError(f"cost is {self.cost}; want from 0 to less than 1, what a right pick earns")
        least = 3 if self.noise > 0 or self.shows == "features" else 2
        if not least <= self.vocabulary < 2**31:
            raise ValueError(f"vocabulary is {self.vocabulary}; want at least {least}, the end of a message being one of the words")
        if self.shows not in SHOWS:
            raise ValueError(f"shows is {self.shows!r}; want one of {', '.join(SHOWS)}")
        if self.shows != "features" and (self.captions or self.features):
            raise ValueError(f"shows is {self.shows!r}; with captions {self.captions!r} and features {self.features!r} want 'features'")
        captions.check_values(self.values)
        most = min(self.world, 1000)
        if not 2 <= self.candidates <= most:
            whose = f"values {self.values} make"
            if self.shows == "features":
                whose = f"{self.captions or 'the small set'} has captions for"
            want = f"from 2 to {most}" if most > 1 else "a world of at least two"
            raise ValueError(f"candidates is {self.candidates}; {whose} {self.world} pictures; want {want}")
        if self.shows == "pictures" and (different := _different(self.values, self.pixels)) < self.world:
            enough = next(size for size in range(12, 257) if _different(self.values, size) == self.world)
            raise ValueError(
                f"pixels is {self.pixels}; only {different} of {self.world} pictures then differ; want {enough}, or fewer values"
            )

    @property
    def messages(self) -> int:
        """M, messages and questions at most; even ones are the speaker's."""
        return 2 * self.turns - 1

    @property
    def max_steps(self) -> int:
        return self.messages * self.length + 1

    @cached_property
    def world(self) -> int:
        """W, how many objects there are."""
        return len(self.caption_set.rows) if self.shows == "features" else int(np.prod(self.values))

    @property
    def caption_set(self) -> CaptionSet:
        return load_captions(self.captions, self.features, self.vocabulary, self.length)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What people call the words."""
        return self.caption_set.names if self.shows == "features" else captions.lexicon(self.values)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        word, turn = gym.spaces.Discrete(self.vocabulary), gym.spaces.Discrete(2)
        choices = self.candidates + (self.vocabulary if self.turns > 1 else 0)
        speaker = {"target": self._space(None), "distractors": self._space(self.candidates - 1), "turn": turn}
        if self.turns > 1:
            speaker["word"] = word
        speaker[ACTION_MASK] = gym.spaces.MultiBinary(self.vocabulary)
        listener = {
            "candidates": self._space(self.candidates),
            "word": word,
            "turn": turn,
            ACTION_MASK: gym.spaces.MultiBinary(choices),
        }
        return (
            Role("speaker", 1, gym.spaces.Dict(speaker), gym.spaces.Discrete(self.vocabulary)),
            Role("listener", 1, gym.spaces.Dict(listener), gym.spaces.Discrete(choices)),
        )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The speaker's words, where nobody asks back."""
        return (Channel("speaker", "listener", "word"),) if self.turns == 1 else ()

    def start(self, seeds: Int64[Tensor, "B"]) -> ReferentialState:
        zero = torch.zeros_like(seeds)
        nothing = torch.zeros(len(seeds), self.messages, self.length, dtype=torch.int64, device=seeds.device)
        order = permutation(seeds, self.candidates, Purpose.GAME, 1)
        return ReferentialState(seeds, zero, self._draw_objects(seeds), order, zero, zero, nothing, nothing, order[:, :2] * 0, zero - 1)

    def observe(self, state: ReferentialState) -> dict[str, Observation]:
        speaks, asks, picks = self._say_of(state)
        speaker = {
            "target": self._look(state.objects[:, 0]),
            "distractors": self._look_at_several(state.objects[:, 1:]),
            "turn": speaks.long(),
            ACTION_MASK: _allowed(speaks, ~speaks, self.vocabulary),
        }
        mask = _allowed(picks, ~(picks | asks), self.candidates)
        if self.turns > 1:
            speaker["word"] = state.arrived[:, 0]
            mask = torch.cat([mask, _allowed(asks, torch.zeros_like(asks), self.vocabulary)], 1)
        listener = {
            "candidates": self._look_at_several(state.objects.gather(1, state.order)),
            "word": state.arrived[:, 1],
            "turn": (asks | picks).long(),
            ACTION_MASK: mask,
        }
        return {
            role: {name: value[:, None] for name, value in seen.items()} for role, seen in (("speaker", speaker), ("listener", listener))
        }

    def step(self, state: ReferentialState, actions: Mapping[str, Int64[Tensor, "B 1"]]) -> tuple[ReferentialState, Turn]:
        speaks, asks, may_pick = self._say_of(state)
        spoken, chosen = actions["speaker"][:, 0], actions["listener"][:, 0]
        is_place = chosen < self.candidates
        picks = may_pick & (is_place | ~asks)
        asks = asks & ~picks
        talks = speaks | asks
        said = torch.where(speaks, spoken, torch.where(asks & ~is_place, chosen - self.candidates, END)).masked_fill(~talks, END)
        heard = self._through_channel(state, said)
        # Where this word stands in the record; at the pick nothing is written.
        places = torch.arange(self.messages * self.length, device=said.device)
        here = (places == (state.message * self.length + state.place)[:, None]) & talks[:, None]
        here = here.unflatten(1, (self.messages, self.length))
        ends = talks & ((said == END) | (state.place + 1 >= self.length))
        place = torch.where(picks, torch.where(is_place, chosen, 0), -1)
        right = picks & (state.order.gather(1, place.clamp(min=0)[:, None])[:, 0] == 0)
        after = ReferentialState(
            state.seed,
            state.step + 1,
            state.objects,
            state.order,
            state.message + ends,
            (state.place + talks).masked_fill(ends, 0),
            torch.where(here, said[:, None, None], state.said),
            torch.where(here, heard[:, None, None], state.heard),
            torch.stack([heard * asks, heard * speaks], 1),
            place,
        )
        reward = (right.float() - self.cost * (said != END))[:, None]
        length = (state.said[:, 0::2] != END).sum((1, 2))
        measures = {
            "accuracy": right.float().masked_fill(~picks, torch.nan),
            "message_length": length.float().masked_fill(~picks, torch.nan),
        }
        return after, Turn({"speaker": reward, "listener": reward}, picks, measures)

    def answers(self, state: ReferentialState) -> dict[str, Answer]:
        """Where the target stands in the listener's order, at the pick. What to say is for the speaker to find."""
        over = (state.message >= self.messages)[:, None]
        target = (state.order == 0).long().argmax(1)[:, None]
        return {"speaker": Answer(torch.zeros_like(target), torch.zeros_like(over)), "listener": Answer(target, over)}

    def describe(self, state: ReferentialState, index: int) -> Scene:
        objects, order = state.objects[index].tolist(), state.order[index].tolist()
        picked, message = int(state.picked[index]), int(state.message[index])
        target = order.index(0)
        if int(state.step[index]) == 0:
            shown = "; ".join(f"{place + 1} {self._name(objects[which])}" for place, which in enumerate(order))
            lines = [f"the listener sees {shown}; the target is number {target + 1}"]
        else:
            lines = [f"target: number {target + 1}, {self._name(objects[0])}"]
        for number in range(min(message, self.messages - 1) + 1):
            said, heard = (captions.text_of(words[index, number].tolist(), self.names) for words in (state.said, state.heard))
            if not said and number == message:
                continue
            who, other = ("speaker", "listener") if number % 2 == 0 else ("listener", "speaker")
            goes_on = " ..." if number == message else ""
            lines.append(f'{who} says "{said}{goes_on}"' + (f', {other} hears "{heard}{goes_on}"' if heard != said else ""))
        if picked >= 0:
            outcome = "right" if picked == target else "wrong"
            lines.append(f"listener picks number {picked + 1}, {self._name(objects[order[picked]])}: {outcome}")
        return Scene("; ".join(lines), tuple(self._marks([objects[place] for place in order], target, picked, lines[1:])))

    def meanings(self, objects: Int64[Tensor, "N"]) -> Shaped[Tensor, "N K"]:
        """What there is to say: attributes, however they are shown, or features."""
        if self.shows == "features":
            return self._look(objects)
        return torch.as_tensor(captions.all_pictures(self.values))[objects]

    def _say_of(self, state: ReferentialState) -> tuple[Bool[Tensor, "B"], Bool[Tensor, "B"], Bool[Tensor, "B"]]:
        """Whether the speaker may speak, the listener ask, the listener pick."""
        over = state.message >= self.messages
        listens = state.message % 2 == 0
        asks = ~listens & ~over
        return listens & ~over, asks, over | (asks & (state.place == 0))

    def _draw_objects(self, seeds: Int64[Tensor, "B"]) -> Int64[Tensor, "B C"]:
        """Different objects in an even draw (Floyd's algorithm, Bentley and Floyd 1987), then shuffled."""
        drawn: list[Tensor] = []
        for number, last in enumerate(range(self.world - self.candidates, self.world)):
            one = integers(seeds, last + 1, Purpose.GAME, 0, number)
            taken = torch.stack(drawn, 1).eq(one[:, None]).any(1) if drawn else torch.zeros_like(one, dtype=torch.bool)
            drawn.append(torch.where(taken, last, one))
        return torch.stack(drawn, 1).gather(1, permutation(seeds, self.candidates, Purpose.GAME, 2))

    def _through_channel(self, state: ReferentialState, said: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        if self.noise == 0.0:
            return said
        slips = (uniform(state.seed, Purpose.NOISE, state.step, 0) < self.noise) & (said != END)
        # One to V - 2 further round the circle of words, which leaves out the end of a message.
        further = 1 + integers(state.seed, self.vocabulary - 2, Purpose.NOISE, state.step, 1)
        return torch.where(slips, 1 + (said - 1 + further) % (self.vocabulary - 1), said)

    def _space(self, count: int | None) -> gym.Space[Any]:
        """Of one object, or of several."""
        several = () if count is None else (count,)
        if self.shows == "attributes":
            return gym.spaces.MultiDiscrete(list(self.values) * (count or 1))
        if self.shows == "pictures":
            return gym.spaces.Box(0, 255, (*several, self.pixels, self.pixels, 3), np.uint8)
        return gym.spaces.Box(-np.inf, np.inf, (*several, self.caption_set.features.shape[1]), np.float32)

    def _look(self, objects: Int64[Tensor, "..."]) -> Tensor:
        """[..., *what an object looks like]."""
        table = self._tables.get(objects.device)
        if table is None:
            table = self._tables[objects.device] = torch.as_tensor(self._appearances).to(objects.device)
        if self.shows == "features":
            rows = self._rows.get(objects.device)
            if rows is None:
                rows = self._rows[objects.device] = torch.as_tensor(self.caption_set.rows).to(objects.device)
            objects = rows[objects]
        return table[objects]

    def _look_at_several(self, objects: Int64[Tensor, "B n"]) -> Tensor:
        seen = self._look(objects)
        return seen.flatten(1) if self.shows == "attributes" else seen

    @cached_property
    def _appearances(self) -> NDArray[Any]:
        if self.shows == "features":
            return self.caption_set.features
        return captions.all_pictures(self.values) if self.shows == "attributes" else atlas(self.values, self.pixels)

    @cached_property
    def _tables(self) -> dict[torch.device, Tensor]:
        return {}

    @cached_property
    def _rows(self) -> dict[torch.device, Tensor]:
        return {}

    def _name(self, which: int) -> str:
        if self.shows == "features":
            return f'"{self.caption_set.texts[which][0]}"'
        return captions.name_of(captions.all_pictures(self.values)[which].tolist(), self.values)

    def _marks(self, shown: list[int], target: int, picked: int, lines: list[str]) -> list[Mark]:
        """The candidates as the listener has them, what was said below."""
        columns = int(np.ceil(np.sqrt(self.candidates)))
        side = 0.98 / columns
        rows = -(-self.candidates // columns)
        tall = min(side, 0.7 / rows)
        marks = []
        for number, which in enumerate(shown):
            x, y = 0.01 + side * (number % columns + 0.5), 0.02 + tall * (number // columns + 0.5)
            width = 0.94 * min(side, tall)
            if number in (target, picked):
                colour = GREEN if number == target else RED
                marks.append(Mark("box", x, y, min(side, width + 0.04), colour, height=min(tall, width + 0.04)))
            marks += self._marks_of(which, x, y, width * 0.94)
            name = str(number + 1)
            marks.append(Mark("text", x - width * (0.44 - 0.05 * len(name)), y - width * 0.39, min(0.045, 0.2 * width), INK, name))
        below = [part for line in lines for part in textwrap.wrap(line, 40)] or ["nothing said yet"]
        # Of a long talk the end.
        below = below if len(below) <= 5 else ["...", *below[-4:]]
        return marks + [Mark("text", 0.5, 0.765 + 0.048 * number, 0.042, INK, line) for number, line in enumerate(below)]

    def _marks_of(self, which: int, x: float, y: float, side: float) -> list[Mark]:
        """An object as boxes, one for every run of a colour in a row of its picture; photographs by their captions."""
        marks = [Mark("box", x, y, side, PAPER)]
        if self.shows == "features":
            lines = textwrap.wrap(self.caption_set.texts[which][0], 14, max_lines=4, placeholder=" ...")
            first = 0.5 - (len(lines) - 1) / 2
            return marks + [Mark("text", x, y + side * (first + n) / 5, side / 8, INK, line) for n, line in enumerate(lines)]
        picture = atlas(self.values, _DRAWN)[which]
        for row, line in enumerate(picture):
            edges = [0, *(np.flatnonzero((line[1:] != line[:-1]).any(1)) + 1).tolist(), len(line)]
            for left, right in pairwise(edges):
                colour = tuple(line[left].tolist())
                if colour != PAPER:
                    width = (right - left) / _DRAWN * side
                    centre = x + ((left + right) / (2 * _DRAWN) - 0.5) * side
                    marks.append(Mark("box", centre, y + ((row + 0.5) / _DRAWN - 0.5) * side, width, colour, height=side / _DRAWN * 1.1))
        return marks


def _allowed(every: Bool[Tensor, "B"], first: Bool[Tensor, "B"], count: int) -> Tensor:
    """[B, count] int8 mask: every choice, the first alone, or none."""
    return (every[:, None] | (first[:, None] & (torch.arange(count, device=every.device) == 0))).to(torch.int8)


@cache
def atlas(values: tuple[int, ...], size: int) -> NDArray[Any]:
    """[W, size, size, 3] uint8: a picture for every combination of values, in the order of `envs.captions.all_pictures`.

    Shapes stand side by side, `number` of them, in the middle unless the position says otherwise; small ones are two thirds as wide.
    """
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    pictures = []
    for chosen in captions.all_pictures(values).tolist():
        # What never varies has its first value, but a place in the middle; a lone size is large enough to be seen.
        shape, colour, scale, number, position = (*chosen, *(0,) * (5 - len(chosen)))
        radius = 0.08 if len(values) > captions.SIZE and values[captions.SIZE] > 1 and scale == 0 else 0.12
        middle = len(values) <= captions.POSITION or values[captions.POSITION] < 2 or position == 4
        across, down = (0, 0) if middle else ((-1, 0), (1, 0), (0, -1), (0, 1))[position]
        width = radius * (2.4 * (number + 1) - 0.4)
        left = 0.5 + across * (0.46 - width / 2) - width / 2 + radius
        picture = np.full((size, size, 3), PAPER, dtype=np.uint8)
        for each in range(number + 1):
            u = (x - left - 2.4 * radius * each) / radius
            v = (y - 0.5 - down * (0.46 - radius)) / radius
            picture[_inside(shape, u, v)] = COLOURS[colour]
        pictures.append(picture)
    return np.stack(pictures)


@cache
def _different(values: tuple[int, ...], size: int) -> int:
    """How many of the atlas's pictures differ: in few pixels shapes look alike, or fall between them."""
    return len({picture.tobytes() for picture in atlas(values, size)})


def _inside(shape: int, u: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """Where a shape is, u and v running from -1 to 1 over it."""
    distance = np.hypot(u, v)
    inside: NDArray[Any] = (
        distance <= 1,
        np.maximum(abs(u), abs(v)) <= 0.9,
        (v <= 0.9) & (2 * abs(u) <= v + 1.1),
        (np.minimum(abs(u), abs(v)) <= 0.34) & (np.maximum(abs(u), abs(v)) <= 1),
        abs(u) + abs(v) <= 1.1,
        (distance <= 1) & (distance >= 0.55),
    )[shape]
    return inside


def referential() -> Referential:
    """Referential game: ten coloured shapes as attributes, sentences of up to 15 of 100 words."""
    return Referential()


def referential_pictures() -> Referential:
    """Referential game whose ten coloured shapes are pictures of 32 x 32 pixels."""
    return Referential(shows="pictures")


def referential_captions() -> Referential:
    """Referential game with images' features and captions, of a small set of its own unless files are given."""
    return Referential(shows="features")
