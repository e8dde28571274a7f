"""Errands, in 3D and first person: each agent is asked for objects, one by one; they lie about, are in closed crates, or others hold them.

Actions: one of `ACTIONS`: walk, turn, look up and down, lift or put down, open or close.
Observations: `pixels`, what the agent sees; `word`, 1 + the number of the name of the object that it is asked for, 0 once its errands are
    done; where `depth`, metres ahead of every pixel; where `segmentation`, 1 + the slot that it sees.
Reward: 1 whenever an agent holds the object that it is asked for at the end of a step; then it is asked for its next.
End: when everyone has done all `errands`, or after `limit` steps.
Chance: which objects, who and what is where, who looks where, which objects are in crates, and who is asked for what. What is asked of
    one agent is never asked of it again, but of others it may be, at the same time even.
Measures: `fetched`, the share of an agent's errands that are done, in the step that ends the episode.
Source: ours, as one of the tasks in which agents act on what they saw and on what others do with it.
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
from envs.game import Observation, Role, Scene, Turn
from envs.rooms3d.camera import Camera
from envs.rooms3d.primitives import Kind, Slots, constant
from envs.rooms3d.tasks import APART, BROWN, DOWN, KINDS, NAMES, PAINTS, TARGET, Spot, check_stride, picture_fields, picture_spaces, scene
from envs.rooms3d.world import ACTIONS, LID, SEAT_COLOURS, World, WorldState, one_room

# Half the width and height of a crate, its colour; half an object's height, which with its corners fits in.
CRATE, WOOD, OBJECT = 0.22, (0.55, 0.40, 0.25), 0.15


class ErrandsState(NamedTuple):
    """objects: numbers of `NAMES`. order: which of the objects each agent is asked for, in turn. done: how many errands each has done."""

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    world: WorldState
    objects: Int64[Tensor, "B O"]
    order: Int64[Tensor, "B P E"]
    done: Int64[Tensor, "B P"]


@dataclass(frozen=True)
class Errands:
    """agents, crates, objects: how many. hidden: of the objects, each in a crate of its own. names: of how many objects those of an episode
    are drawn. errands: of each agent. limit: steps. room: metres, of a side. size: pixels, of a side. stride, reach: metres. turn: degrees.

    depth, segmentation: whether pictures of distances, and of which thing is where, are shown beside the one in colour.
    """

    agents: int = 2
    crates: int = 2
    objects: int = 5
    hidden: int = 2
    names: int = 10
    errands: int = 3
    limit: int = 300
    room: float = 5.0
    size: int = 64
    depth: bool = False
    segmentation: bool = False
    stride: float = 0.3
    turn: float = 15.0
    reach: float = 0.8

    def __post_init__(self) -> None:
        if not 1 <= self.agents <= len(SEAT_COLOURS):
            raise ValueError(f"agents is {self.agents}; want from 1 to {len(SEAT_COLOURS)}")
        if not 0 <= self.crates <= 100:
            raise ValueError(f"crates is {self.crates}; want from 0 to 100")
        if not 1 <= self.objects <= len(NAMES):
            raise ValueError(f"objects is {self.objects}; want from 1 to {len(NAMES)}")
        if not 0 <= self.hidden <= min(self.crates, self.objects):
            most = min(self.crates, self.objects)
            raise ValueError(f"hidden is {self.hidden}; want from 0 to {most}, a crate for each, and no more than there are objects")
        if not self.objects <= self.names <= len(NAMES):
            raise ValueError(f"names is {self.names}; want from {self.objects}, so that all differ, to {len(NAMES)}")
        if not 1 <= self.errands <= self.objects:
            raise ValueError(f"errands is {self.errands}; want from 1 to the number of objects, {self.objects}")
        if not 1 <= self.limit <= 100_000:
            raise ValueError(f"limit is {self.limit}; want from 1 to 100,000 steps")
        if not 2.2 <= self.room <= 50.0:
            raise ValueError(f"room is {self.room}; want from 2.2 to 50 metres")
        check_stride(self.stride)
        # Raises what is wrong with their settings.
        world, _ = self.world, self.camera
        places = len(world.spots(APART))
        if places < self._placed:
            raise ValueError(
                f"room is {self.room}; want it larger: it has {places} places, {APART} metres apart, and agents, crates and the objects "
                f"that are in none take {self._placed}"
            )

    @property
    def _placed(self) -> int:
        return self.agents + self.crates + self.objects - self.hidden

    @cached_property
    def world(self) -> World:
        walls = one_room(self.room, self.room)
        return World(walls, agents=self.agents, crates=self.crates, step=self.stride, turn=self.turn, reach=self.reach)

    @cached_property
    def camera(self) -> Camera:
        return Camera(self.size)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                **picture_spaces(self.size, self.depth, self.segmentation, self.world.slot_count(self.crates + self.objects)),
                "word": gym.spaces.Discrete(1 + self.names),
            }
        )
        return (Role("fetcher", self.agents, sees, gym.spaces.Discrete(len(ACTIONS))),)

    @property
    def max_steps(self) -> int:
        return self.limit

    def start(self, seeds: Int64[Tensor, "B"]) -> ErrandsState:
        objects = permutation(seeds, self.names, Purpose.GAME, 0)[:, : self.objects]
        spots = self.world.scatter(seeds, self._placed, APART, 1)
        headings = round(360 / self.turn)
        heading = torch.stack([integers(seeds, headings, Purpose.GAME, 2, seat) for seat in range(self.agents)], 1)
        order = torch.stack([permutation(seeds, self.objects, Purpose.GAME, 3, seat)[:, : self.errands] for seat in range(self.agents)], 1)
        # The first of the objects are in the first of the crates: both are drawn by chance.
        things = self._things(objects, spots[:, self.agents :])
        world = self.world.start(spots[:, : self.agents], heading, things)
        nowhere = torch.full_like(world.inside, -1)
        nowhere[:, self.crates : self.crates + self.hidden] = torch.arange(self.hidden, device=seeds.device)
        # They look down a little, so that what lies near stays in view.
        world = world._replace(tilt=torch.full_like(world.tilt, DOWN), inside=nowhere)
        return ErrandsState(seeds, torch.zeros_like(seeds), world, objects, order, torch.zeros_like(heading))

    def observe(self, state: ErrandsState) -> dict[str, Observation]:
        name = state.objects.gather(1, self._asked(state))
        word = torch.where(state.done < self.errands, 1 + name, 0)
        return {"fetcher": {**picture_fields(self.world.look(state.world, self.camera), self.depth, self.segmentation), "word": word}}

    def step(self, state: ErrandsState, actions: Mapping[str, Tensor]) -> tuple[ErrandsState, Turn]:
        """actions: {"fetcher": [B, P]}."""
        world = self.world.move(state.world, actions["fetcher"].long())
        seats = torch.arange(self.agents, device=world.holder.device)
        holder = world.holder[:, self.crates :].gather(1, self._asked(state))
        fetched = (holder == seats) & (state.done < self.errands)
        after = state._replace(step=state.step + 1, world=world, done=state.done + fetched.long())
        over = (after.done == self.errands).all(1) | (after.step >= self.limit)
        share = after.done / self.errands
        return after, Turn({"fetcher": fetched.float()}, over, {"fetched": share.masked_fill(~over[:, None], torch.nan)})

    def _asked(self, state: ErrandsState) -> Int64[Tensor, "B P"]:
        """Which object each agent is asked for; of who has done all, the last."""
        return state.order.gather(2, state.done.clamp(max=self.errands - 1)[..., None])[..., 0]

    def _things(self, objects: Int64[Tensor, "B O"], spots: Tensor) -> Slots:
        """The crates, then the objects. spots: places (x, z) of the crates, then of the objects that are in none."""
        batch, device = len(objects), objects.device
        crates = torch.full((batch, self.crates), int(Kind.CRATE), device=device)
        kind = torch.cat([crates, constant(KINDS, device)[objects]], 1)
        places = torch.cat([spots[:, : self.crates], spots[:, : self.hidden], spots[:, self.crates :]], 1)
        sizes = constant(((CRATE,) * 3,) * self.crates + ((OBJECT,) * 3,) * self.objects, device)
        lifted = torch.zeros(kind.shape[1], device=device)
        # As thick as a lid above their crates' bottoms, as when they are put in.
        lifted[self.crates : self.crates + self.hidden] = LID
        height = (sizes[:, 1] + lifted).expand(batch, -1)
        position = torch.stack([places[..., 0], height, places[..., 1]], -1)
        wood = constant(WOOD, device).expand(batch, self.crates, 3)
        flat = torch.zeros_like(height)
        colour = torch.cat([wood, constant(PAINTS, device)[objects]], 1)
        return Slots(kind, position, sizes.expand(batch, -1, -1), flat, colour, kind * 0, flat + 1, kind >= 0)

    def describe(self, state: ErrandsState, index: int) -> Scene:
        world, done, asked = state.world, state.done[index].tolist(), self._asked(state)[index].tolist()
        told = []
        for seat, number in enumerate(asked):
            name, who = NAMES[int(state.objects[index, number])], f"fetcher {seat}"
            if done[seat] == self.errands:
                told.append(f"{who} has done all its errands")
            else:
                told.append(f"{who} wants the {name}, {self._whereabouts(world, index, number)} ({done[seat]} of {self.errands} done)")
        places = world.things.position[index, :, ::2].tolist()
        on_floor = self._on_floor(world)[index].tolist()
        wanted = {self.crates + number for seat, number in enumerate(asked) if done[seat] < self.errands}
        spots = [Spot(x, z, 2.4 * CRATE, BROWN, str(number + 1)) for number, (x, z) in enumerate(places[: self.crates])]
        spots += [
            Spot(x, z, 2 * OBJECT, TARGET if number in wanted else BROWN)
            for number, (x, z) in enumerate(places)
            if number >= self.crates and on_floor[number]
        ]
        return scene(self.world, world, index, spots, f"step {int(state.step[index])} of {self.limit}", "; ".join(told))

    def _whereabouts(self, world: WorldState, index: int, number: int) -> str:
        holder, inside = int(world.holder[index, self.crates + number]), int(world.inside[index, self.crates + number])
        if holder >= 0:
            return f"which fetcher {holder} holds"
        if inside >= 0:
            return f"in crate {inside + 1}, {'open' if world.opened[index, inside] else 'closed'}"
        return "on the floor"

    def _on_floor(self, world: WorldState) -> Bool[Tensor, "B N"]:
        return (world.holder < 0) & (world.inside < 0)


def errands() -> Errands:
    """Errands in a 3D room: two agents with hands fetch what each is asked for, off the floor, out of crates, or after the other."""
    return Errands()
