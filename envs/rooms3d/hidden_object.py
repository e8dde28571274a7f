"""Hidden objects, in 3D and first person: objects are hidden in boxes one after another, and later one is asked for by name.

Actions: one of `moves`, some or all of `MOVES`. Until all is hidden the agent is held still: only staying is allowed.
Observations: `pixels`, what the agent sees; `word`, 0 while it is held, then 1 + the number of the object's name; `action_mask`; where
    `depth`, metres ahead of every pixel; where `segmentation`, 1 + the slot that it sees.
Reward: 1 on coming to the box that the named object is in, 0 on coming to another one.
End: when the agent is within one stride of a box (of the nearest, if of two), or `limit` steps after the word is said.
Chance: which objects, in which boxes, in which order, after which delays, and which one is asked for.
Measures: `accuracy`, 1 for the right box and 0 otherwise, and `chose`, 1 if it was a box at all, both in the step that ends the episode.
Answers: once the word is said, the move towards the right box, first aside and then ahead, or turning where `moves` do not lead aside.
Source: the object permanence task of Lampinen et al. 2021 (arXiv 2105.14039), which was not released. Lengths, looks and sizes are ours.
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
from envs.rooms3d.camera import Camera
from envs.rooms3d.primitives import Kind, Slots, constant
from envs.rooms3d.tasks import (
    BROWN,
    DOWN,
    KINDS,
    MOVES,
    NAMES,
    PAINTS,
    START,
    TARGET,
    Spot,
    check_limit,
    check_moves,
    check_row,
    check_stride,
    check_ways,
    picture_fields,
    picture_spaces,
    row,
    scene,
    taken,
    towards,
)
from envs.rooms3d.world import World, WorldState, one_room

# Of a box: half its width and height, its radius as far as walkers are concerned, and its colour.
HALF, TALL, ROUND, WOOD = 0.22, 0.22, 0.22 * 2**0.5, (0.55, 0.40, 0.25)
# Half an object's height, and how high it floats before it is lowered into its box.
OBJECT, ABOVE = 0.17, 0.72


class HiddenState(NamedTuple):
    """objects: numbers of `NAMES`, in the order in which they are hidden. box: of each. ready: the step when the delay after each is over.

    asked: which of the objects. chosen: the box to which the agent came, or -1.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    world: WorldState
    objects: Int64[Tensor, "B O"]
    box: Int64[Tensor, "B O"]
    ready: Int64[Tensor, "B O"]
    asked: Int64[Tensor, "B"]
    chosen: Int64[Tensor, "B"]


@dataclass(frozen=True)
class HiddenObject:
    """boxes, objects: how many. names: of how many objects those of an episode are drawn. show: steps that each is seen. delay: steps after
    each, from least to most. limit: steps to choose. room: metres, of a side. size: pixels, of a side. moves: what the agent can do,
    "stay" first. stride: metres. turn: degrees.

    depth, segmentation: whether pictures of distances, and of which thing is where, are shown beside the one in colour.
    """

    boxes: int = 4
    objects: int = 3
    names: int = 10
    show: int = 4
    delay: tuple[int, int] = (5, 15)
    limit: int = 40
    room: float = 5.0
    size: int = 64
    depth: bool = False
    segmentation: bool = False
    moves: tuple[str, ...] = MOVES
    stride: float = 0.3
    turn: float = 15.0

    def __post_init__(self) -> None:
        check_row("boxes", self.boxes, self.room)
        if not 2 <= self.boxes <= 20:
            raise ValueError(f"boxes is {self.boxes}; want from 2 to 20")
        if not 1 <= self.objects <= self.boxes:
            raise ValueError(f"objects is {self.objects}; want from 1 to the number of boxes, {self.boxes}")
        if not max(2, self.objects) <= self.names <= len(NAMES):
            raise ValueError(f"names is {self.names}; want from {max(2, self.objects)}, so that all differ, to {len(NAMES)}")
        if not 1 <= self.show <= 1000:
            raise ValueError(f"show is {self.show}; want from 1 to 1000 steps")
        if not 0 <= self.delay[0] <= self.delay[1] <= 100_000:
            raise ValueError(f"delay is {self.delay}; want (least, most) steps, from 0 to 100,000")
        if not 1 <= self.limit <= 100_000:
            raise ValueError(f"limit is {self.limit}; want from 1 to 100,000 steps")
        check_moves(self.moves)
        check_ways(self.moves, "boxes")
        check_stride(self.stride)
        # Raises what is wrong with their settings.
        world, _ = self.world, self.camera
        check_limit("limit", self.limit, world, self.moves, START, self._box_places(), ROUND)

    @cached_property
    def world(self) -> World:
        return World(one_room(self.room, self.room), crates=self.boxes, step=self.stride, turn=self.turn)

    @cached_property
    def camera(self) -> Camera:
        return Camera(self.size)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                **picture_spaces(self.size, self.depth, self.segmentation, self.world.slot_count(self.boxes + self.objects)),
                "word": gym.spaces.Discrete(1 + self.names),
                ACTION_MASK: gym.spaces.MultiBinary(len(self.moves)),
            }
        )
        return (Role("seeker", 1, sees, gym.spaces.Discrete(len(self.moves))),)

    @property
    def max_steps(self) -> int:
        return self.objects * (self.show + self.delay[1]) + self.limit

    def start(self, seeds: Int64[Tensor, "B"]) -> HiddenState:
        objects = permutation(seeds, self.names, Purpose.GAME, 0)[:, : self.objects]
        box = permutation(seeds, self.boxes, Purpose.GAME, 1)[:, : self.objects]
        asked = integers(seeds, self.objects, Purpose.GAME, 2)
        least, most = self.delay
        each = torch.arange(self.objects, device=seeds.device)
        delays = least + integers(seeds[:, None], most - least + 1, Purpose.GAME, 3, each)
        zero = torch.zeros_like(seeds)
        place = torch.zeros(len(seeds), 1, 2, device=seeds.device)
        place[..., 1] = START
        world = self.world.start(place, zero[:, None], self._things(objects, box))
        # It looks down a little, so that boxes stay in view when they are near.
        world = world._replace(
            tilt=torch.full_like(world.tilt, DOWN),
            inside=torch.cat([(zero - 1)[:, None].expand(-1, self.boxes), box], 1),
        )
        state = HiddenState(seeds, zero, world, objects, box, (self.show + delays).cumsum(1), asked, zero - 1)
        return self._staged(state)

    def observe(self, state: HiddenState) -> dict[str, Observation]:
        is_free = self._is_free(state)
        name = state.objects.gather(1, state.asked[:, None])[:, 0]
        stays = torch.arange(len(self.moves), device=state.step.device) == 0
        seen = {
            **picture_fields(self.world.look(state.world, self.camera), self.depth, self.segmentation),
            "word": torch.where(is_free, 1 + name, 0)[:, None],
            ACTION_MASK: (is_free[:, None] | stays).to(torch.int8)[:, None],
        }
        return {"seeker": seen}

    def step(self, state: HiddenState, actions: Mapping[str, Tensor]) -> tuple[HiddenState, Turn]:
        """actions: {"seeker": [B, 1]}."""
        is_free = self._is_free(state)
        action = torch.where(is_free[:, None], taken(self.moves, actions["seeker"]), 0)
        world = self.world.move(state.world, action)
        gaps = self.world.gaps(world)[:, 0, : self.boxes]
        # Farther than that it could be, though the next step is blocked.
        chosen = torch.where((gaps <= self.stride).any(1), gaps.argmin(1), -1)
        step = state.step + 1
        over = (chosen >= 0) | (step >= state.ready[:, -1] + self.limit)
        right = (chosen == self._right_box(state)).float()
        after = self._staged(state._replace(step=step, world=world, chosen=chosen))
        measures = {"accuracy": right.masked_fill(~over, torch.nan), "chose": (chosen >= 0).float().masked_fill(~over, torch.nan)}
        return after, Turn({"seeker": right[:, None]}, over, measures)

    def answers(self, state: HiddenState) -> dict[str, Answer]:
        target = constant(self._box_places(), state.step.device)[self._right_box(state)][:, None, ::2]
        return {"seeker": Answer(towards(self.world, state.world, self.moves, target), self._is_free(state)[:, None])}

    def _is_free(self, state: HiddenState) -> Bool[Tensor, "B"]:
        """Whether the word is said, and the agent may walk."""
        return state.step >= state.ready[:, -1]

    def _right_box(self, state: HiddenState) -> Int64[Tensor, "B"]:
        return state.box.gather(1, state.asked[:, None])[:, 0]

    def _box_places(self) -> tuple[tuple[float, float, float], ...]:
        return row(self.boxes, self.room, TALL)

    def _things(self, objects: Int64[Tensor, "B O"], box: Int64[Tensor, "B O"]) -> Slots:
        """The boxes, then the objects over the middles of theirs; `_staged` says how high."""
        batch, device = len(objects), objects.device
        kinds, colours = constant(KINDS, device), constant(PAINTS, device)
        places = constant(self._box_places(), device)
        crates = torch.full((batch, self.boxes), int(Kind.CRATE), device=device)
        kind = torch.cat([crates, kinds[objects]], 1)
        position = torch.cat([places.expand(batch, -1, -1), places[box]], 1)
        sizes = constant(((HALF, TALL, HALF),) * self.boxes + ((OBJECT,) * 3,) * self.objects, device)
        wood = constant(WOOD, device).expand(batch, self.boxes, 3)
        yaw = torch.zeros(batch, kind.shape[1], device=device)
        return Slots(kind, position, sizes.expand(batch, -1, -1), yaw, torch.cat([wood, colours[objects]], 1), kind * 0, yaw + 1, kind >= 0)

    def _staged(self, state: HiddenState) -> HiddenState:
        """The state with the objects as high, and the boxes as open, as the schedule has them now; at the end the chosen box is open."""
        showing, last = self._showing(state)
        # It floats, is on its way down in the last of several steps, and then at the bottom of its box.
        high = ABOVE if self.show == 1 else torch.where(last, (ABOVE + OBJECT) / 2, ABOVE)[:, None]
        height = torch.where(showing, high, OBJECT)
        position, boxes = state.world.things.position, torch.arange(self.boxes, device=state.step.device)
        objects = position[:, self.boxes :]
        objects = torch.stack([objects[..., 0], height, objects[..., 2]], -1)
        things = state.world.things._replace(position=torch.cat([position[:, : self.boxes], objects], 1))
        opened = ((state.box[..., None] == boxes) & showing[..., None]).any(1) | (state.chosen[:, None] == boxes)
        return state._replace(world=state.world._replace(things=things, opened=opened))

    def _showing(self, state: HiddenState) -> tuple[Bool[Tensor, "B O"], Bool[Tensor, "B"]]:
        """Which object is being shown, if any, and whether for the last step."""
        begins = torch.cat([torch.zeros_like(state.ready[:, :1]), state.ready[:, :-1]], 1)
        since = state.step[:, None] - begins
        showing = (since >= 0) & (since < self.show)
        return showing, (showing & (since == self.show - 1)).any(1)

    def describe(self, state: HiddenState, index: int) -> Scene:
        step, chosen = int(state.step[index]), int(state.chosen[index])
        names = [NAMES[number] for number in state.objects[index].tolist()]
        boxes, ready, asked = state.box[index].tolist(), state.ready[index].tolist(), int(state.asked[index])
        showing, _ = self._showing(state)
        shown = [number for number, is_shown in enumerate(showing[index].tolist()) if is_shown]
        target = f"the {names[asked]} in box {boxes[asked] + 1}"
        if chosen >= 0:
            within = [name for name, box in zip(names, boxes, strict=True) if box == chosen]
            holds = f"the {within[0]}" if within else "nothing"
            words = f"wanted {target}; came to box {chosen + 1}, which holds {holds}: {'right' if chosen == boxes[asked] else 'wrong'}"
        elif step >= ready[-1] + self.limit:
            words = f"wanted {target}; came to no box in time"
        elif step >= ready[-1]:
            gap = float(self.world.gaps(state.world)[index, 0, boxes[asked]])
            words = f'hears "{names[asked]}" and may walk: {target} is {gap:.2f} m away'
        elif shown:
            words = f"the {names[shown[0]]} is put into box {boxes[shown[0]] + 1} of {self.boxes}"
        else:
            hidden = [f"the {name} in box {box + 1}" for name, box in zip(names, boxes, strict=True)][
                : 1 + sum(step >= end for end in ready)
            ]
            words = f"waits; hidden: {', '.join(hidden)}"
        when = f"step {step} of {ready[-1] + self.limit}"
        spots = [
            Spot(x, z, 2.4 * HALF, TARGET if number == boxes[asked] else BROWN, str(number + 1))
            for number, (x, _, z) in enumerate(self._box_places())
        ]
        return scene(self.world, state.world, index, spots, when, words)


def hidden_object() -> HiddenObject:
    """Hidden objects in a 3D room, in first person: three objects hidden in four boxes, one is asked for by name."""
    return HiddenObject()


def hidden_object_small() -> HiddenObject:
    """Hidden objects in a small 3D room: a red ball and a green cube in two boxes, 16 x 16 pixels, short delays, three ways to walk."""
    return HiddenObject(
        boxes=2,
        objects=2,
        names=2,
        show=2,
        delay=(1, 2),
        limit=10,
        room=2.2,
        size=16,
        moves=("stay", "forward", "left", "right"),
        stride=0.2,
    )
