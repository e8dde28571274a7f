"""Visual match, in 3D and first person: a colour is seen, then apples are collected, and then the object of that colour is to be found.

First the agent is in a small room with a coloured cube: right before it, or, if the game is `active`, behind a screen that it has to look
round. Then it is in a hall with apples, which has nothing to do with the colour but pays. Last there are cubes in the hall, one of them of
the colour that was seen. It may walk all the time, and at the beginning of each phase it is put at the near wall, looking ahead.

Actions: one of `moves`, "stay", "forward", "left", "right" and more of `MOVES`, as "back", without which no apple behind is reached.
Observations: `pixels`, what the agent sees; `depth` and `segmentation` as for hidden objects.
Reward: the apple's worth for each that the agent walks onto; `match_reward` on coming to the cube of the colour that was seen, 0 on coming
    to another one.
End: when the agent is within one stride of a cube of the last phase (of the nearest, if of two), or after its `reward` steps.
Chance: the colour and those of the others, the places of cubes and apples, and what an apple is worth, for the whole episode.
Measures, in the step that ends the episode: `accuracy`, 1 for the right cube; `chose`, 1 for any; `apples`, how many were eaten; `seen`, 1
    if the middle of the first cube was in view in the first phase. NaN in other steps.
Answers: in the last phase the move towards the right cube, first aside and then ahead. Where the game is active also in the first phase:
    the move to the right until the cube is in view, then staying.
Source: the visual match tasks of Hung et al. 2019 ("Optimizing agent behavior over long time scales by transporting value", arXiv
    1810.06721), in their 3D form passive, in the released grid world active, also used by Lampinen et al. 2021 (arXiv 2105.14039). Lengths
    of the phases and rewards are the grid world's; looks, sizes, moves, and that the first choice ends the game are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from envs.chance import Purpose, integers, permutation
from envs.game import Answer, Observation, Role, Scene, Turn
from envs.rooms3d.camera import Camera
from envs.rooms3d.primitives import Kind, Slots, constant
from envs.rooms3d.tasks import (
    BEHIND,
    COLOURS,
    DOWN,
    START,
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
from envs.rooms3d.world import Rectangle, World, WorldState, one_room

WALKS = ("stay", "forward", "left", "right")
EXPLORE, DISTRACTOR, REWARD = range(3)
NAMES, PAINTS = tuple(COLOURS), tuple(COLOURS.values())
# Half a cube's width, and how far before the agent it is if nothing hides it; an apple's radius, its colour, and metres between two.
CUBE, NEAR, APPLE, SKIN, APART = 0.2, 1.2, 0.12, (0.80, 0.08, 0.10), 0.7
# The wall between the first room and the hall behind it; half the screen's width, at most and of the room's, and half its thickness.
WALL, SCREEN, SHARE, THIN = 0.2, 0.5, 0.1, 0.05


class MatchState(NamedTuple):
    """colour: the one to remember, a number of `NAMES`. choices: the colours of the last cubes, from left to right.

    worth: of an apple. back: the step at which each apple is there (again). seen: whether the first cube was. eaten: apples. chosen: the
    cube to which the agent came, or -1.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    world: WorldState
    colour: Int64[Tensor, "B"]
    choices: Int64[Tensor, "B K"]
    worth: Float[Tensor, "B"]
    back: Int64[Tensor, "B apples"]
    seen: Bool[Tensor, "B"]
    eaten: Int64[Tensor, "B"]
    chosen: Int64[Tensor, "B"]


@dataclass(frozen=True)
class VisualMatch:
    """active: whether a screen hides the colour at first. explore, distractor, reward: steps of the phases. choices: how many cubes there
    are at last. colours: of how many colours theirs are drawn. apples: how many there are. apple_rewards: what each is worth, one of these
    for a whole episode. respawn: steps after which one that was eaten is there again. match_reward: for the right cube. room: metres, of a
    side of both rooms. size: pixels, of a side. moves: what the agent can do, "stay", "forward", "left", "right" first. stride: metres.
    turn: degrees.

    depth, segmentation: whether pictures of distances, and of which thing is where, are shown beside the one in colour.
    """

    active: bool = False
    explore: int = 15
    distractor: int = 90
    reward: int = 15
    choices: int = 3
    colours: int = 8
    apples: int = 10
    apple_rewards: tuple[float, ...] = (1.0, 10.0)
    respawn: int = 20
    match_reward: float = 10.0
    room: float = 4.0
    size: int = 64
    depth: bool = False
    segmentation: bool = False
    moves: tuple[str, ...] = (*WALKS, "back")
    stride: float = 0.3
    turn: float = 15.0

    def __post_init__(self) -> None:
        for name, least in (("explore", 1), ("distractor", 0), ("reward", 1), ("respawn", 1)):
            if not least <= getattr(self, name) <= 100_000:
                raise ValueError(f"{name} is {getattr(self, name)}; want from {least} to 100,000 steps")
        if not 2 <= self.choices <= len(NAMES):
            raise ValueError(f"choices is {self.choices}; want from 2 to {len(NAMES)}")
        if not self.choices <= self.colours <= len(NAMES):
            raise ValueError(f"colours is {self.colours}; want from {self.choices}, so that all cubes differ, to {len(NAMES)}")
        check_row("choices", self.choices, self.room)
        if not 0 <= self.apples <= len(self._apple_places()):
            raise ValueError(f"apples is {self.apples}; want from 0 to {len(self._apple_places())} in a room of {self.room} metres")
        if not self.apple_rewards or not all(abs(worth) <= 1000 for worth in self.apple_rewards):
            raise ValueError(f"apple_rewards is {self.apple_rewards}; want one or more rewards from -1000 to 1000")
        if not abs(self.match_reward) <= 1000:
            raise ValueError(f"match_reward is {self.match_reward}; want a reward from -1000 to 1000")
        check_moves(self.moves, WALKS)
        check_stride(self.stride)
        # Raises what is wrong with their settings.
        world, _ = self.world, self.camera
        cubes = row(self.choices, self.room, CUBE)
        check_limit("reward", self.reward, world, self.moves, START, cubes, CUBE * 2**0.5, "to the farthest cube")
        if self.active and self.explore <= self._aside():
            raise ValueError(
                f"explore is {self.explore}; want at least {self._aside() + 1}, the moves to look round the screen and one more"
            )

    @cached_property
    def world(self) -> World:
        """The hall, from z = 0 on, and the first room on the near side of it."""
        hall = one_room(self.room, self.room, WALL)
        first = tuple((left, near - self._back, right, far - self._back) for left, near, right, far in hall)
        return World(hall + first + self._screen, step=self.stride, turn=self.turn)

    @cached_property
    def camera(self) -> Camera:
        return Camera(self.size)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        slots = self.world.slot_count(1 + self.choices + self.apples)
        sees = gym.spaces.Dict(picture_spaces(self.size, self.depth, self.segmentation, slots))
        return (Role("matcher", 1, sees, gym.spaces.Discrete(len(self.moves))),)

    @property
    def max_steps(self) -> int:
        return self.explore + self.distractor + self.reward

    def start(self, seeds: Int64[Tensor, "B"]) -> MatchState:
        device, zero = seeds.device, torch.zeros_like(seeds)
        choices = permutation(seeds, self.colours, Purpose.GAME, 0)[:, : self.choices]
        colour = choices.gather(1, integers(seeds, self.choices, Purpose.GAME, 1)[:, None])
        places = self._apple_places() or ((0.0, APPLE, 0.0),)
        apples = constant(places, device)[permutation(seeds, len(places), Purpose.GAME, 2)[:, : self.apples]]
        worth = constant(tuple(float(worth) for worth in self.apple_rewards), device)
        things = self._things(torch.cat([colour, choices], 1), apples)
        world = self.world.start(torch.zeros(len(seeds), 1, 2, device=device), zero[:, None], things)
        back, never = torch.zeros_like(apples[..., 0], dtype=torch.int64), zero > 0
        paid = worth[integers(seeds, len(worth), Purpose.GAME, 3)]
        return self._staged(MatchState(seeds, zero, world, colour[:, 0], choices, paid, back, never, zero, zero - 1))

    def observe(self, state: MatchState) -> dict[str, Observation]:
        return {"matcher": picture_fields(self.world.look(state.world, self.camera), self.depth, self.segmentation)}

    def step(self, state: MatchState, actions: Mapping[str, Tensor]) -> tuple[MatchState, Turn]:
        """actions: {"matcher": [B, 1]}."""
        phase = self._phase(state)
        things = state.world.things
        # Apples do not stand in the way.
        solid = things._replace(visible=things.visible & (torch.arange(things.kind.shape[1], device=phase.device) <= self.choices))
        world = self.world.move(state.world._replace(things=solid), taken(self.moves, actions["matcher"]))
        gaps = self.world.gaps(world)[:, 0]
        to_cubes, to_apples = gaps[:, 1 : 1 + self.choices], gaps[:, 1 + self.choices :]

        step = state.step + 1
        eats = (to_apples <= 0) & things.visible[:, 1 + self.choices :]
        came = (to_cubes <= self.stride).any(1) & (phase == REWARD)
        chosen = torch.where(came, to_cubes.argmin(1), -1)
        over = came | (step >= self.max_steps)
        right = chosen == self._right(state)
        eaten = state.eaten + eats.sum(1)
        back = torch.where(eats, step[:, None] + self.respawn, state.back)
        after = state._replace(step=step, world=world, back=back, eaten=eaten, chosen=chosen)
        reward = state.worth * eats.sum(1) + self.match_reward * right
        measures = {"accuracy": right.float(), "chose": came.float(), "apples": eaten.float(), "seen": state.seen.float()}
        return self._staged(after), Turn(
            {"matcher": reward[:, None]}, over, {name: value.masked_fill(~over, torch.nan) for name, value in measures.items()}
        )

    def answers(self, state: MatchState) -> dict[str, Answer]:
        phase = self._phase(state)
        right = constant(row(self.choices, self.room, CUBE), phase.device)[self._right(state)][:, ::2]
        looks_round = constant((self._aside() * self.stride, START - self._back), phase.device)
        target = torch.where((phase == EXPLORE)[:, None], looks_round, right)[:, None]
        move = towards(self.world, state.world, self.moves, target)
        rests = state.seen & (phase == EXPLORE)
        asked = (phase == REWARD) | ((phase == EXPLORE) & self.active)
        return {"matcher": Answer(torch.where(rests[:, None], self.moves.index("stay"), move), asked[:, None])}

    @property
    def _back(self) -> float:
        """How far behind the hall's near wall the first room's is."""
        return self.room + WALL

    @property
    def _first_cube(self) -> tuple[float, float, float]:
        return (0.0, CUBE, (self.room - BEHIND if self.active else START + NEAR) - self._back)

    @property
    def _screen(self) -> tuple[Rectangle, ...]:
        """Halfway between the agent and the first cube, so that it sees nothing of that before it has gone aside."""
        if not self.active:
            return ()
        half, middle = min(SCREEN, SHARE * self.room), (START + self.room - BEHIND) / 2 - self._back
        return ((-half, middle - THIN, half, middle + THIN),)

    def _aside(self) -> int:
        """Steps to one side until the straight line to the middle of the first cube passes the screen."""
        half, ahead = min(SCREEN, SHARE * self.room), self.room - BEHIND - START
        return math.floor(half * ahead / (ahead / 2 - THIN) / self.stride + 1e-6) + 1

    def _apple_places(self) -> tuple[tuple[float, float, float], ...]:
        """A grid in the hall, less what is at the agent's feet when it begins."""
        count = int((self.room - APART) / APART + 1e-6) + 1
        line = [(number - (count - 1) / 2) * APART for number in range(count)]
        places = [(x, APPLE, self.room / 2 + z) for z in line for x in line]
        return tuple(place for place in places if math.hypot(place[0], place[2] - START) > START)

    def _phase(self, state: MatchState) -> Int64[Tensor, "B"]:
        return (state.step >= self.explore).long() + (state.step >= self.explore + self.distractor).long()

    def _right(self, state: MatchState) -> Int64[Tensor, "B"]:
        """Which of the last cubes."""
        return (state.choices == state.colour[:, None]).long().argmax(1)

    def _things(self, colours: Int64[Tensor, "B cubes"], apples: Float[Tensor, "B apples 3"]) -> Slots:
        """The first cube, those of the last phase from left to right, and the apples."""
        device, (batch, count) = colours.device, colours.shape
        cubes = constant((self._first_cube, *row(self.choices, self.room, CUBE)), device).expand(batch, -1, -1)
        colour = torch.cat([constant(PAINTS, device)[colours], constant(SKIN, device).expand(batch, self.apples, 3)], 1)
        kind = constant((int(Kind.BOX),) * count + (int(Kind.BALL),) * self.apples, device).expand(batch, -1)
        size = constant(((CUBE,) * 3,) * count + ((APPLE,) * 3,) * self.apples, device).expand(batch, -1, -1)
        flat = torch.zeros_like(size[..., 0])
        return Slots(kind, torch.cat([cubes, apples], 1), size, flat, colour, kind * 0, flat + 1, kind >= 0)

    def _staged(self, state: MatchState) -> MatchState:
        """The state with what its phase has in the rooms; in a phase's first step the agent is where that begins."""
        device, phase = state.step.device, self._phase(state)
        is_first = phase == EXPLORE
        there = (phase == DISTRACTOR)[:, None] & (state.back <= state.step[:, None])
        cubes = (phase == REWARD)[:, None].expand(-1, self.choices)
        things = state.world.things._replace(visible=torch.cat([is_first[:, None], cubes, there], 1))
        begins = ((state.step == 0) | (state.step == self.explore) | (state.step == self.explore + self.distractor))[:, None]
        place = torch.where(is_first[:, None, None], constant((0.0, START - self._back), device), constant((0.0, START), device))
        world = state.world._replace(
            place=torch.where(begins[..., None], place, state.world.place),
            heading=torch.where(begins, 0, state.world.heading),
            tilt=torch.where(begins, DOWN, state.world.tilt),
            things=things,
        )
        in_view = self.world.has_in_view(world, self.camera, things.position[:, None, :1])[:, 0, 0]
        return state._replace(world=world, seen=state.seen | (in_view & is_first))

    def describe(self, state: MatchState, index: int) -> Scene:
        step, phase, chosen = int(state.step[index]), int(self._phase(state)[index]), int(state.chosen[index])
        name, names = NAMES[int(state.colour[index])], [NAMES[number] for number in state.choices[index].tolist()]
        gaps = self.world.gaps(state.world)[index, 0].tolist()
        visible, places = state.world.things.visible[index].tolist(), state.world.things.position[index].tolist()
        is_over = chosen >= 0 or step >= self.max_steps
        was_seen = f"the {name} cube was {'' if state.seen[index] else 'not '}seen"
        ate = f"apples eaten: {int(state.eaten[index])}, each worth {float(state.worth[index]):g}"
        if is_over:
            verdict = "right" if chosen == int(self._right(state)[index]) else "wrong"
            came = f"came to the {names[chosen]} one: {verdict}" if chosen >= 0 else "came to none in time"
            words = f"wanted the {name} cube, {came}; {was_seen}; {ate}"
        elif phase == EXPLORE:
            points = state.world.things.position[:, None, :1]
            is_seen = self.world.has_in_view(state.world, self.camera, points)[index].any()
            words = f"the {name} cube is in view" if is_seen else f"the {name} cube is out of view; {was_seen}"
        elif phase == DISTRACTOR:
            near = [gap for gap, is_there in zip(gaps, visible, strict=True) if is_there]
            words = f"{ate}; {len(near)} there" + (f", the nearest {min(near):.2f} m away" if near else "") + f"; {was_seen}"
        else:
            away = ", ".join(f"{other} {gap:.2f}" for other, gap in zip(names, gaps[1 : 1 + self.choices], strict=True))
            words = f"wants the {name} cube; metres away: {away}; {was_seen}; {ate}"
        part = "the end" if is_over else ("first room", "apples", "choice")[phase]
        colours = [tuple(int(255 * value) for value in paint) for paint in state.world.things.colour[index].tolist()]
        spots = [
            Spot(x, z, 2 * (CUBE if slot <= self.choices else APPLE), (red, green, blue))
            for slot, ((x, _, z), (red, green, blue)) in enumerate(zip(places, colours, strict=True))
            if visible[slot]
        ]
        return scene(self.world, state.world, index, spots, f"step {step} of {self.max_steps}, {part}", words)


def visual_match() -> VisualMatch:
    """Visual match in 3D rooms: a coloured cube is seen, apples are collected for 90 steps, and the cube of that colour is to be found."""
    return VisualMatch()


def visual_match_active() -> VisualMatch:
    """Active visual match in 3D rooms: as visual_match, but the coloured cube is behind a screen that has to be looked round."""
    return VisualMatch(active=True)


def visual_match_small() -> VisualMatch:
    """Visual match in small 3D rooms: a red or green cube is seen, three apples for 8 steps, two cubes to choose from, 16 x 16 pixels."""
    return VisualMatch(
        explore=3,
        distractor=8,
        reward=10,
        choices=2,
        colours=2,
        apples=3,
        respawn=4,
        room=2.2,
        size=16,
        stride=0.2,
    )
