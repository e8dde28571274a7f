"""One saw, one did not, in 3D and first person: who did not see where something was hidden can only learn it from where the other goes.

The rooms are a hall with boxes and, behind a wall, a waiting room. An object is hidden in a box before the witness, while the watcher is in
the waiting room. Then the watcher stands at the back of the hall and watches the witness walk to a box, which stays closed. After a delay,
in which both wait, the watcher is alone in the hall and walks to a box itself. Each is put where it has to be.

Actions: one of `moves`, "stay", "forward", "left", "right" and more of `MOVES`, while it is one's turn; at other times only staying.
Observations: `pixels`, what the agent sees; `turn`, 1 if it is its turn; `action_mask`; `depth` and `segmentation` as for hidden objects.
Reward: the watcher gets 1 on coming to the right box. The witness gets `own` on coming to the right box and `shared` when the watcher does.
End: when the watcher's turn ends. A turn ends within one stride of a box (of the nearest, if of two), or after `limit` steps of it.
Chance: the object, its box and the delay.
Measures: `accuracy`, per seat, 1 for the right box, and `chose`, 1 for any, in the step that ends its turn; `followed`, per game at the
    end, 1 if both came to the same box, NaN if one of them came to none. NaN in other steps.
Answers: in one's turn, the move towards the right box, first aside and then ahead; the watcher is told what it cannot know.
Source: hidden objects (`envs.rooms3d.hidden_object`) made social, in the spirit of tests of who knows and who guesses (Povinelli, Nelson
    and Boysen 1990, "Inferences about guessing and knowing by chimpanzees"). Rules, lengths, looks and sizes are ours.
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

from envs.chance import Purpose, integers
from envs.game import ACTION_MASK, Answer, Observation, Role, Scene, Turn
from envs.rooms3d.camera import Camera
from envs.rooms3d.hidden_object import ABOVE, HALF, OBJECT, ROUND, TALL, WOOD
from envs.rooms3d.primitives import Kind, Slots, constant
from envs.rooms3d.tasks import (
    BROWN,
    DOWN,
    KINDS,
    NAMES,
    PAINTS,
    TARGET,
    Spot,
    check_limit,
    check_moves,
    check_row,
    check_stride,
    one_game,
    picture_fields,
    picture_spaces,
    row,
    scene,
    taken,
    towards,
)
from envs.rooms3d.world import World, WorldState, one_room

ROLES = ("witness", "watcher")
WALKS = ("stay", "forward", "left", "right")
# What happens, in this order: the object is hidden, the witness walks, it stays where it is, both wait, the watcher walks, all is over.
HIDING, WITNESS, LINGER, DELAY, WATCHER, OVER = range(6)
# The waiting room's depth, and the wall before it; how far into the hall the watcher stands, at its back, and the witness, before it.
DEPTH, WALL, BACK, FRONT = 1.4, 0.2, 0.35, 1.2
# Metres of a hall in which the witness does not begin at a box.
WITNESS_ROOM = 2.8
WAITING = ((-0.4, -0.9), (0.4, -0.9))


class OneSawState(NamedTuple):
    """look: number of `NAMES`. box: where it is. delay: steps. phase: one of `HIDING` to `OVER`. since: steps in it.

    chosen: the box to which each seat came in its turn, or -1.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    world: WorldState
    look: Int64[Tensor, "B"]
    box: Int64[Tensor, "B"]
    delay: Int64[Tensor, "B"]
    phase: Int64[Tensor, "B"]
    since: Int64[Tensor, "B"]
    chosen: Int64[Tensor, "B 2"]


@dataclass(frozen=True)
class OneSaw:
    """boxes: how many. names: of how many objects one is drawn. show: steps that it is seen before its box is closed, and one more. limit:
    steps of a turn. linger: steps that the witness stays at its box. delay: steps that both wait, from least to most. own, shared: what
    the witness gets. room: metres, of a side of the hall. size: pixels, of a side. moves: what one can do. stride: metres. turn: degrees.

    depth, segmentation: whether pictures of distances, and of which thing is where, are shown beside the one in colour.
    """

    boxes: int = 3
    names: int = 10
    show: int = 3
    limit: int = 12
    linger: int = 2
    delay: tuple[int, int] = (3, 8)
    own: float = 1.0
    shared: float = 1.0
    room: float = 4.0
    size: int = 64
    depth: bool = False
    segmentation: bool = False
    moves: tuple[str, ...] = WALKS
    stride: float = 0.3
    turn: float = 15.0

    def __post_init__(self) -> None:
        check_row("boxes", self.boxes, self.room, WITNESS_ROOM)
        if not 2 <= self.boxes <= 20:
            raise ValueError(f"boxes is {self.boxes}; want from 2 to 20")
        if not 1 <= self.names <= len(NAMES):
            raise ValueError(f"names is {self.names}; want from 1 to {len(NAMES)}")
        if not 1 <= self.show <= 1000:
            raise ValueError(f"show is {self.show}; want from 1 to 1000 steps")
        if not 1 <= self.limit <= 10_000:
            raise ValueError(f"limit is {self.limit}; want from 1 to 10,000 steps")
        if not 1 <= self.linger <= 1000:
            raise ValueError(f"linger is {self.linger}; want from 1 to 1000 steps, so that it is seen where the witness went")
        if not 1 <= self.delay[0] <= self.delay[1] <= 100_000:
            raise ValueError(f"delay is {self.delay}; want (least, most) steps, from 1 to 100,000")
        for name in ("own", "shared"):
            if not abs(getattr(self, name)) <= 1000:
                raise ValueError(f"{name} is {getattr(self, name)}; want a reward from -1000 to 1000")
        check_moves(self.moves, WALKS)
        check_stride(self.stride)
        # Raises what is wrong with their settings.
        world, _ = self.world, self.camera
        check_limit("limit", self.limit, world, self.moves, BACK, self._box_places(), ROUND, "of the watcher to the farthest box")

    @cached_property
    def world(self) -> World:
        waiting = tuple(
            (left, near - DEPTH - WALL, right, far - DEPTH - WALL) for left, near, right, far in one_room(self.room, DEPTH, WALL)
        )
        return World(one_room(self.room, self.room, WALL) + waiting, agents=2, crates=self.boxes, step=self.stride, turn=self.turn)

    @cached_property
    def camera(self) -> Camera:
        return Camera(self.size)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                **picture_spaces(self.size, self.depth, self.segmentation, self.world.slot_count(self.boxes + 1)),
                "turn": gym.spaces.Discrete(2),
                ACTION_MASK: gym.spaces.MultiBinary(len(self.moves)),
            }
        )
        return tuple(Role(name, 1, sees, gym.spaces.Discrete(len(self.moves))) for name in ROLES)

    @property
    def max_steps(self) -> int:
        return self.show + 1 + 2 * self.limit + self.linger + self.delay[1]

    def start(self, seeds: Int64[Tensor, "B"]) -> OneSawState:
        least, most = self.delay
        look = integers(seeds, self.names, Purpose.GAME, 0)
        box = integers(seeds, self.boxes, Purpose.GAME, 1)
        delay = least + integers(seeds, most - least + 1, Purpose.GAME, 2)
        zero = torch.zeros_like(seeds)
        place = torch.zeros(len(seeds), 2, 2, device=seeds.device)
        world = self.world.start(place, zero[:, None].expand(-1, 2), self._things(look, box))
        inside = torch.cat([(zero - 1)[:, None].expand(-1, self.boxes), box[:, None]], 1)
        nowhere = (zero - 1)[:, None].expand(-1, 2)
        return self._staged(OneSawState(seeds, zero, world._replace(inside=inside), look, box, delay, zero, zero, nowhere))

    def observe(self, state: OneSawState) -> dict[str, Observation]:
        seen = picture_fields(self.world.look(state.world, self.camera), self.depth, self.segmentation)
        has_turn = self._has_turn(state)
        stays = torch.arange(len(self.moves), device=state.step.device) == 0
        mask = (has_turn[..., None] | stays).to(torch.int8)
        return {
            name: {
                **{field: value[:, seat : seat + 1] for field, value in seen.items()},
                "turn": has_turn[:, seat : seat + 1].long(),
                ACTION_MASK: mask[:, seat : seat + 1],
            }
            for seat, name in enumerate(ROLES)
        }

    def step(self, state: OneSawState, actions: Mapping[str, Tensor]) -> tuple[OneSawState, Turn]:
        """actions: {"witness": [B, 1], "watcher": [B, 1]}."""
        has_turn = self._has_turn(state)
        action = torch.cat([taken(self.moves, actions[name]) for name in ROLES], 1)
        world = self.world.move(state.world, torch.where(has_turn, action, 0))
        gaps = self.world.gaps(world)[..., : self.boxes]
        came = (gaps <= self.stride).any(2) & has_turn
        chosen = torch.where(came, gaps.argmin(2), state.chosen)
        since = state.since + 1
        # Of the phases that have a fixed length; a turn lasts its limit at most.
        fixed = (self.show + 1, self.limit, self.linger, 0, self.limit, 1)
        lasts = torch.where(state.phase == DELAY, state.delay, constant(fixed, since.device)[state.phase])
        ends = came.any(1) | (since >= lasts)
        phase = (state.phase + ends.long()).clamp(max=OVER)
        after = state._replace(step=state.step + 1, world=world, phase=phase, since=torch.where(ends, 0, since), chosen=chosen)

        over = phase == OVER
        turn_ends = has_turn & ends[:, None]
        right = (came & (chosen == state.box[:, None])).float()
        rewards = {"witness": self.own * right[:, :1] + self.shared * right[:, 1:], "watcher": right[:, 1:]}
        both = over & turn_ends[:, 1] & (chosen >= 0).all(1)
        measures = {
            "accuracy": right.masked_fill(~turn_ends, torch.nan),
            "chose": came.float().masked_fill(~turn_ends, torch.nan),
            "followed": (chosen[:, 0] == chosen[:, 1]).float().masked_fill(~both, torch.nan),
        }
        return self._staged(after), Turn(rewards, over, measures)

    def answers(self, state: OneSawState) -> dict[str, Answer]:
        target = constant(self._box_places(), state.step.device)[state.box][:, None, ::2].expand(-1, 2, -1)
        action, has_turn = towards(self.world, state.world, self.moves, target), self._has_turn(state)
        return {name: Answer(action[:, seat : seat + 1], has_turn[:, seat : seat + 1]) for seat, name in enumerate(ROLES)}

    def _has_turn(self, state: OneSawState) -> Bool[Tensor, "B 2"]:
        return torch.stack([state.phase == WITNESS, state.phase == WATCHER], 1)

    def _box_places(self) -> tuple[tuple[float, float, float], ...]:
        return row(self.boxes, self.room, TALL)

    def _things(self, look: Int64[Tensor, "B"], box: Int64[Tensor, "B"]) -> Slots:
        """The boxes, then the object over the middle of its own; `_staged` says how high."""
        batch, device = len(look), look.device
        places = constant(self._box_places(), device)
        crates = torch.full((batch, self.boxes), int(Kind.CRATE), device=device)
        kind = torch.cat([crates, constant(KINDS, device)[look][:, None]], 1)
        position = torch.cat([places.expand(batch, -1, -1), places[box][:, None]], 1)
        size = constant(((HALF, TALL, HALF),) * self.boxes + ((OBJECT,) * 3,), device).expand(batch, -1, -1)
        colour = torch.cat([constant(WOOD, device).expand(batch, self.boxes, 3), constant(PAINTS, device)[look][:, None]], 1)
        flat = torch.zeros_like(size[..., 0])
        return Slots(kind, position, size, flat, colour, kind * 0, flat + 1, kind >= 0)

    def _staged(self, state: OneSawState) -> OneSawState:
        """The state with box and object as the schedule has them; at a phase's beginning, everyone where it has to be."""
        device = state.step.device
        showing = (state.phase == HIDING) & (state.since < self.show)
        # It floats, is on its way down in the last of several steps, and then at the bottom of its box.
        lowers = (state.since == self.show - 1) & (self.show > 1)
        height = torch.where(showing, torch.where(lowers, (ABOVE + OBJECT) / 2, ABOVE), OBJECT)
        position, boxes = state.world.things.position, torch.arange(self.boxes, device=device)
        thing = torch.stack([position[:, -1, 0], height, position[:, -1, 2]], -1)
        things = state.world.things._replace(position=torch.cat([position[:, :-1], thing[:, None]], 1))
        last = torch.where(state.phase == OVER, state.chosen[:, 1], -1)
        opened = ((state.box[:, None] == boxes) & showing[:, None]) | (last[:, None] == boxes)
        hall = ((0.0, FRONT), (0.0, BACK))
        where = ((hall[0], WAITING[1]), hall, hall, WAITING, (WAITING[0], hall[1]), (WAITING[0], hall[1]))
        # The witness stays at its box while it lingers, and so does the watcher at the end.
        moves = (state.since == 0) & (state.phase != LINGER) & (state.phase != OVER)
        world = state.world._replace(
            place=torch.where(moves[:, None, None], constant(where, device)[state.phase], state.world.place),
            heading=torch.where(moves[:, None], 0, state.world.heading),
            tilt=torch.where(moves[:, None], DOWN, state.world.tilt),
            things=things,
            opened=opened,
        )
        return state._replace(world=world)

    def describe(self, state: OneSawState, index: int) -> Scene:
        phase, box = int(state.phase[index]), int(state.box[index])
        target = f"the {NAMES[int(state.look[index])]} in box {box + 1}"
        came = [f"came to box {number + 1}, {'right' if number == box else 'wrong'}" if number >= 0 else "came to no box"
                for number in state.chosen[index].tolist()]  # fmt: skip
        if phase == HIDING:
            words = f"the witness sees {target} of {self.boxes}; the watcher is outside"
        elif phase in (WITNESS, WATCHER):
            seat = 0 if phase == WITNESS else 1
            gap = float(self.world.gaps(state.world)[index, seat, box])
            others = self._sight(state, index) if phase == WITNESS else f"the witness {came[0]}, and is outside"
            words = f"the {ROLES[seat]} may walk, {target} is {gap:.2f} m away; {others}"
        elif phase == LINGER:
            words = f"the witness {came[0]}; {self._sight(state, index)}; {target}"
        elif phase == DELAY:
            words = f"both wait outside; {target}; the witness {came[0]}"
        else:
            words = f"{target}; the witness {came[0]}; the watcher {came[1]}"
        spots = [
            Spot(x, z, 2.4 * HALF, TARGET if number == box else BROWN, str(number + 1))
            for number, (x, _, z) in enumerate(self._box_places())
        ]
        return scene(self.world, state.world, index, spots, f"step {int(state.step[index])}", words)

    def _sight(self, state: OneSawState, index: int) -> str:
        """Whether anything of the witness is in the watcher's picture."""
        world = one_game(state.world, index)
        last = self.world.slot_count(self.boxes + 1)
        # Of all slots the last six are both bodies, both heads, both noses; segments count slots from 1.
        parts = torch.tensor([last - 5, last - 3, last - 1])
        sees = torch.isin(self.world.look(world, self.camera).segmentation[0, 1], parts).any()
        return "the watcher sees the witness" if sees else "the watcher does not see the witness"


def one_saw() -> OneSaw:
    """One saw, one did not, in 3D rooms: a watcher learns where an object is hidden from where a witness walks, and recalls it later."""
    return OneSaw()


def one_saw_small() -> OneSaw:
    """One saw, one did not, in a small 3D hall: two boxes, a red ball or a green cube, 16 x 16 pixels, short delays."""
    return OneSaw(boxes=2, names=2, show=2, limit=10, linger=2, delay=(2, 4), room=2.8, size=16, stride=0.25)
