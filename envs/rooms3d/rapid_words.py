"""Rapid word learning, in 3D and first person: objects get made-up words, once each; after other errands one is to be fetched by its word.

An episode of the game has `episodes` parts, so that a word of the first can be asked for much later: the words of all differ and keep their
meaning to the end. In each part its objects are shown and named one after another, then there are distractors, which are errands after
other objects by their common names, and then one of the part's objects is to be fetched by its new word. If there are several parts, a
word of the first one is asked for once more at the end.

Actions: one of `moves`, "stay", "forward", "left", "right" and more of `MOVES`. While objects are named only staying is allowed.
Observations: `pixels`, what the agent sees; `word`, 0 for silence, then the made-up `words`, then the common names of all objects; `says`,
    what the word is for: 0 nothing, 1 "this is", 2 "fetch"; `action_mask`; `depth` and `segmentation` as for hidden objects.
Reward: 1 on coming to the object that is to be fetched, on errands as at questions, 0 on coming to another one.
End: after the last question. Each errand and question ends when the agent is within one stride of an object, or after `limit` steps; then
    it is back where it began.
Chance: which objects, their words, the number of distractors of each part and their objects, places, and what is to be fetched.
Measures: `accuracy`, in the step that ends a question, 1 for the right object; `distraction`, the same of errands; `recalled`, of the last
    question alone, if there are several parts. NaN in other steps; there only where the settings have such.
Answers: when something is to be fetched, the move towards it, first aside and then ahead.
Source: fast mapping of Hill et al. 2020 (arXiv 2009.01719) with the distractors of Lampinen et al. 2021 (arXiv 2105.14039), who train on 3
    objects with 0 to 2 distractors and test on 10 and on several parts. Both in Unity: lengths, looks, rewards and errands are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.chance import Purpose, integers, permutation
from envs.game import ACTION_MASK, Answer, Observation, Role, Scene, Turn
from envs.rooms3d.camera import Camera, Picture
from envs.rooms3d.primitives import Slots, constant
from envs.rooms3d.tasks import (
    BROWN,
    DOWN,
    KINDS,
    NAMES,
    PAINTS,
    START,
    TARGET,
    Spot,
    check_limit,
    check_moves,
    check_row,
    check_stride,
    picture_fields,
    picture_spaces,
    row,
    scene,
    taken,
    towards,
)
from envs.rooms3d.world import World, WorldState, one_room

# Made-up words, for people; agents see numbers.
WORDS = tuple(first + last for last in ("axu", "ilo", "ugga", "omi", "ebbo") for first in ("d", "bl", "w", "z", "tr", "k", "f", "n"))
WALKS = ("stay", "forward", "left", "right")
# Half an object's height, and where it floats while it is named: how high, and how far from the agent.
OBJECT, ABOVE, NEAR = 0.2, 0.9, 1.2


class WordsState(NamedTuple):
    """looks: all numbers of `NAMES` that the game uses, in the episode's order: first those that get words, part after part, O each.

    words: the words of those, from 0. errands: the number of each part's distractors. part, stage: where the episode is; stages below O
    name an object each, then come errands, then the question; part E is the last question. since: steps in this stage.
    objects: what is in the room. asked: which of them is named, or to be fetched. sought, fetched: looks, of what an errand or question
    that has ended with the last step was after and came to; -1 for none.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    world: WorldState
    looks: Int64[Tensor, "B L"]
    words: Int64[Tensor, "B N"]
    errands: Int64[Tensor, "B E"]
    part: Int64[Tensor, "B"]
    stage: Int64[Tensor, "B"]
    since: Int64[Tensor, "B"]
    objects: Int64[Tensor, "B O"]
    asked: Int64[Tensor, "B"]
    sought: Int64[Tensor, "B"]
    fetched: Int64[Tensor, "B"]


@dataclass(frozen=True)
class RapidWords:
    """objects: how many are named in each part, and are in the room later. episodes: parts. distractors: errands of each part, from least
    to most. words: how many made-up words there are. names: of how many objects all are drawn. show, pause: steps that each is seen with
    its word, and then not. limit: steps to fetch one. room: metres, of a side. size: pixels, of a side. moves: what the agent can do,
    "stay", "forward", "left", "right" first. stride: metres. turn: degrees.

    depth, segmentation: whether pictures of distances, and of which thing is where, are shown beside the one in colour.
    """

    objects: int = 3
    episodes: int = 1
    distractors: tuple[int, int] = (0, 2)
    words: int = 20
    names: int = 40
    show: int = 4
    pause: int = 2
    limit: int = 15
    room: float = 4.0
    size: int = 64
    depth: bool = False
    segmentation: bool = False
    moves: tuple[str, ...] = WALKS
    stride: float = 0.3
    turn: float = 15.0

    def __post_init__(self) -> None:
        check_row("objects", self.objects, self.room)
        if not 2 <= self.objects <= 20:
            raise ValueError(f"objects is {self.objects}; want from 2 to 20")
        if not 1 <= self.episodes <= 20:
            raise ValueError(f"episodes is {self.episodes}; want from 1 to 20")
        if not 0 <= self.distractors[0] <= self.distractors[1] <= 20:
            raise ValueError(f"distractors is {self.distractors}; want (least, most) errands, from 0 to 20")
        named = self.objects * self.episodes
        if not named <= self.words <= len(WORDS):
            raise ValueError(f"words is {self.words}; want from {named}, one for every object that is named, to {len(WORDS)}")
        needed = named + (self.objects if self.distractors[1] else 0)
        if not needed <= self.names <= len(NAMES):
            raise ValueError(f"names is {self.names}; want from {needed}, so that what is fetched between is new, to {len(NAMES)}")
        if not 1 <= self.show <= 1000:
            raise ValueError(f"show is {self.show}; want from 1 to 1000 steps")
        if not 0 <= self.pause <= 1000:
            raise ValueError(f"pause is {self.pause}; want from 0 to 1000 steps")
        if not 1 <= self.limit <= 10_000:
            raise ValueError(f"limit is {self.limit}; want from 1 to 10,000 steps")
        check_moves(self.moves, WALKS)
        check_stride(self.stride)
        # Raises what is wrong with their settings.
        world, _ = self.world, self.camera
        check_limit("limit", self.limit, world, self.moves, START, row(self.objects, self.room, OBJECT), OBJECT, "to the farthest object")

    @cached_property
    def world(self) -> World:
        return World(one_room(self.room, self.room), step=self.stride, turn=self.turn)

    @cached_property
    def camera(self) -> Camera:
        return Camera(self.size)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                **picture_spaces(self.size, self.depth, self.segmentation, self.world.slot_count(self.objects)),
                "word": gym.spaces.Discrete(1 + self.words + self.names),
                "says": gym.spaces.Discrete(3),
                ACTION_MASK: gym.spaces.MultiBinary(len(self.moves)),
            }
        )
        return (Role("learner", 1, sees, gym.spaces.Discrete(len(self.moves))),)

    @property
    def max_steps(self) -> int:
        part = self.objects * (self.show + self.pause) + (self.distractors[1] + 1) * self.limit
        return self.episodes * part + (self.limit if self.episodes > 1 else 0)

    def start(self, seeds: Int64[Tensor, "B"]) -> WordsState:
        least, most = self.distractors
        parts = torch.arange(self.episodes, device=seeds.device)
        zero = torch.zeros_like(seeds)
        nothing = torch.zeros(len(seeds), self.objects, device=seeds.device)
        objects = zero[:, None].expand(-1, self.objects)
        things = Slots(objects, nothing[..., None].expand(-1, -1, 3), nothing[..., None].expand(-1, -1, 3) + OBJECT, nothing,
                       nothing[..., None].expand(-1, -1, 3), objects, nothing + 1, objects > 0)  # fmt: skip
        state = WordsState(
            seeds,
            zero,
            self.world.start(nothing[:, :1, None].expand(-1, -1, 2), zero[:, None], things),
            permutation(seeds, self.names, Purpose.GAME, 0),
            permutation(seeds, self.words, Purpose.GAME, 1)[:, : self.objects * self.episodes],
            least + integers(seeds[:, None], most - least + 1, Purpose.GAME, 2, parts),
            *(zero, zero, zero, objects, zero, zero - 1, zero - 1),
        )
        return self._staged(state)

    def observe(self, state: WordsState) -> dict[str, Observation]:
        is_naming, is_errand = self._is_naming(state), self._is_errand(state)
        new = 1 + state.words.gather(1, (self._first(state) + state.asked)[:, None])[:, 0]
        common = 1 + self.words + _picked(state.objects, state.asked)
        says = torch.where(is_naming, (state.since < self.show).long(), 2)
        stays = torch.arange(len(self.moves), device=state.step.device) == 0
        seen = {
            **picture_fields(self._look(state), self.depth, self.segmentation),
            "word": torch.where(says == 0, 0, torch.where(is_errand, common, new))[:, None],
            "says": says[:, None],
            ACTION_MASK: (~is_naming[:, None] | stays).to(torch.int8)[:, None],
        }
        return {"learner": seen}

    def step(self, state: WordsState, actions: Mapping[str, Tensor]) -> tuple[WordsState, Turn]:
        """actions: {"learner": [B, 1]}."""
        is_naming, is_errand = self._is_naming(state), self._is_errand(state)
        world = self.world.move(state.world, torch.where(is_naming[:, None], 0, taken(self.moves, actions["learner"])))
        gaps = self.world.gaps(world)[:, 0]
        came = (gaps <= self.stride).any(1) & ~is_naming
        nearest = gaps.argmin(1)
        right = came & (nearest == state.asked)
        since = state.since + 1
        ends = torch.where(is_naming, since >= self.show + self.pause, came | (since >= self.limit))
        fetching = ends & ~is_naming
        leaves = ends & ~is_naming & ~is_errand
        part = state.part + leaves.long()
        after = state._replace(
            step=state.step + 1,
            world=world,
            part=part,
            stage=torch.where(leaves, 0, state.stage + ends.long()),
            since=torch.where(ends, 0, since),
            sought=torch.where(fetching, _picked(state.objects, state.asked), -1),
            fetched=torch.where(came, _picked(state.objects, nearest), -1),
        )
        measures = {"accuracy": right.float().masked_fill(~leaves, torch.nan)}
        if self.distractors[1]:
            measures["distraction"] = right.float().masked_fill(~(fetching & is_errand), torch.nan)
        if self.episodes > 1:
            measures["recalled"] = right.float().masked_fill(~(leaves & (state.part == self.episodes)), torch.nan)
        return self._staged(after), Turn({"learner": right.float()[:, None]}, part >= self._parts, measures)

    def answers(self, state: WordsState) -> dict[str, Answer]:
        position = state.world.things.position
        target = position.gather(1, state.asked[:, None, None].expand(-1, 1, 3))[..., ::2]
        return {"learner": Answer(towards(self.world, state.world, self.moves, target), ~self._is_naming(state)[:, None])}

    def _look(self, state: WordsState) -> Picture:
        """Segments number the objects from left to right: by their slots they would tell in which order they were named."""
        picture = self.world.look(state.world, self.camera)
        if not self.segmentation:
            return picture
        batch, rooms = len(state.step), self.world.slot_count(0)
        from_left = state.world.things.position[..., 0].argsort(1).argsort(1)
        from_left = torch.where(self._is_naming(state)[:, None], 0, from_left)
        numbers = torch.cat([torch.arange(rooms + 1, device=from_left.device).expand(batch, -1), rooms + 1 + from_left], 1)
        segments = numbers.gather(1, picture.segmentation.flatten(1).long()).view_as(picture.segmentation)
        return picture._replace(segmentation=segments.to(picture.segmentation.dtype))

    @property
    def _parts(self) -> int:
        """With the last question."""
        return self.episodes + (self.episodes > 1)

    def _is_naming(self, state: WordsState) -> Bool[Tensor, "B"]:
        return (state.part < self.episodes) & (state.stage < self.objects)

    def _is_errand(self, state: WordsState) -> Bool[Tensor, "B"]:
        errands = state.errands.gather(1, state.part.clamp(max=self.episodes - 1)[:, None])[:, 0]
        return (state.part < self.episodes) & (state.stage >= self.objects) & (state.stage < self.objects + errands)

    def _first(self, state: WordsState) -> Int64[Tensor, "B"]:
        """Where in `looks` and `words` the objects begin that are named now, or that the question is about."""
        return torch.where(state.part < self.episodes, state.part, 0) * self.objects

    def _staged(self, state: WordsState) -> WordsState:
        """The state with what its stage has in the room; in its first step the agent is back where it began."""
        device, each = state.step.device, torch.arange(self.objects, device=state.step.device)
        is_naming = self._is_naming(state)
        now = (Purpose.GAME, 3, state.part, state.stage)
        objects = state.looks.gather(1, self._first(state)[:, None] + each)
        if self.distractors[1]:
            others = state.looks[:, self.objects * self.episodes :]
            drawn = permutation(state.seed, others.shape[1], *now, 0)[:, : self.objects]
            objects = torch.where(self._is_errand(state)[:, None], others.gather(1, drawn), objects)
        asked = torch.where(is_naming, state.stage, integers(state.seed, self.objects, *now, 1))
        places = constant(row(self.objects, self.room, OBJECT), device)[permutation(state.seed, self.objects, *now, 2)]
        before = constant((0.0, ABOVE, START + NEAR), device)
        shown = (each == asked[:, None]) & (state.since < self.show)[:, None]
        things = state.world.things._replace(
            kind=constant(KINDS, device)[objects],
            position=torch.where(is_naming[:, None, None], before, places),
            colour=constant(PAINTS, device)[objects],
            visible=torch.where(is_naming[:, None], shown, True),
        )
        begins = (state.since == 0)[:, None]
        world = state.world._replace(
            place=torch.where(begins[..., None], constant((0.0, START), device), state.world.place),
            heading=torch.where(begins, 0, state.world.heading),
            tilt=torch.where(begins, DOWN, state.world.tilt),
            things=things,
        )
        return state._replace(world=world, objects=objects, asked=asked)

    def describe(self, state: WordsState, index: int) -> Scene:
        part, stage, asked = int(state.part[index]), int(state.stage[index]), int(state.asked[index])
        sought, fetched = int(state.sought[index]), int(state.fetched[index])
        is_naming, is_errand = bool(self._is_naming(state)[index]), bool(self._is_errand(state)[index])
        name = NAMES[int(state.objects[index, asked])]
        word = WORDS[int(state.words[index, int(self._first(state)[index]) + asked])]
        said = []
        if sought >= 0:
            came = (
                f"came to the {NAMES[fetched]}: {'right' if fetched == sought else 'wrong'}" if fetched >= 0 else "came to nothing in time"
            )
            said.append(f"wanted the {NAMES[sought]}, {came}")
        is_over = part >= self._parts
        if is_naming and int(state.since[index]) < self.show:
            said.append(f'sees the {name} and hears "this is a {word}"')
        elif is_naming:
            said.append("waits")
        elif not is_over:
            hears = f'hears "fetch the {name}"' if is_errand else f'hears "fetch the {word}", which is the {name}'
            gap = float(self.world.gaps(state.world)[index, 0, asked])
            said.append(f"{hears}: {gap:.2f} m away")
        where = "the end" if is_over else "the last question" if part == self.episodes else f"part {part + 1} of {self.episodes}"
        if not is_naming and is_errand:
            where += f", errand {stage - self.objects + 1} of {int(state.errands[index, part])}"
        things = state.world.things
        visible, places = things.visible[index].tolist(), things.position[index].tolist()
        spots = [
            Spot(x, z, 2 * OBJECT, TARGET if slot == asked else BROWN, str(slot + 1))
            for slot, (x, _, z) in enumerate(places)
            if visible[slot] and not is_over
        ]
        return scene(self.world, state.world, index, spots, f"step {int(state.step[index])}, {where}", "; ".join(said))


def _picked(values: Int64[Tensor, "B N"], which: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
    return values.gather(1, which[:, None])[:, 0]


def rapid_words() -> RapidWords:
    """Rapid word learning in a 3D room: three objects get made-up words once, and one is to be fetched after up to two errands."""
    return RapidWords()


def rapid_words_small() -> RapidWords:
    """Rapid word learning in a small 3D room: a red ball and a green cube get one of two words each, 16 x 16 pixels, no errands."""
    return RapidWords(
        objects=2,
        distractors=(0, 0),
        words=2,
        names=2,
        show=2,
        pause=1,
        limit=10,
        room=2.2,
        size=16,
        stride=0.2,
    )
