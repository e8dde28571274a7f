"""What tasks in 3D rooms share: objects that have names, moves, the way to somewhere, and pictures for people."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from envs.game import Mark, Observation, Scene
from envs.rooms3d.camera import Camera, Picture
from envs.rooms3d.primitives import FAR, Kind, Slots, constant
from envs.rooms3d.world import ACTIONS, SEAT_COLOURS, World, WorldState

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.10, 0.20, 0.95),
    "yellow": (1.00, 0.90, 0.05),
    "purple": (0.60, 0.10, 0.75),
    "cyan": (0.05, 0.85, 0.90),
    "orange": (1.00, 0.50, 0.00),
    "white": (1.00, 1.00, 1.00),
}
SHAPES = {"ball": Kind.BALL, "cube": Kind.BOX, "cone": Kind.CONE, "cylinder": Kind.CYLINDER, "pyramid": Kind.PYRAMID}
# The first have different colours and shapes; every colour comes with every shape before any of both comes again.
NAMES = tuple(f"{list(COLOURS)[number % 8]} {list(SHAPES)[(number + number // 8) % 5]}" for number in range(len(COLOURS) * len(SHAPES)))
# Kinds and colours of the objects of `NAMES`.
KINDS = tuple(int(SHAPES[name.split()[1]]) for name in NAMES)
PAINTS = tuple(COLOURS[name.split()[0]] for name in NAMES)
# Of moves to anything, more than any room and stride take.
_LONGEST = 3000
# Tasks leave lifting, opening and closing to their schedules.
MOVES = ACTIONS[: ACTIONS.index("lift")]
# Things in a row: from one's middle to the next one's; from the wall behind to the agent, and from the row to the wall behind it.
APART, START, BEHIND = 1.1, 0.5, 0.7
# The tilt of agents at first: 15 degrees down, so that what is near stays in view.
DOWN = -1
# In pictures for people: pixels of a side.
VIEW = 40
INK, PAPER, BROWN, TARGET = (40, 44, 52), (226, 222, 214), (140, 102, 64), (64, 145, 108)


class Spot(NamedTuple):
    """Something to draw on a plan. x, z: its middle. width: metres. colour: from 0 to 255. label: a letter or two."""

    x: float
    z: float
    width: float
    colour: tuple[int, int, int]
    label: str = ""


def check_moves(moves: tuple[str, ...], needed: tuple[str, ...] = ("stay",)) -> None:
    """Raises ValueError unless moves are different ones of `MOVES` that begin with those `needed`."""
    if moves[: len(needed)] != needed or not set(moves) <= set(MOVES) or len(set(moves)) < len(moves):
        others = ", ".join(name for name in MOVES if name not in needed)
        raise ValueError(f"moves is {moves}; want {', '.join(needed)} first, then different ones of {others}")


def check_stride(stride: float) -> None:
    if not 0.05 <= stride <= 0.4:
        raise ValueError(f"stride is {stride}; want from 0.05 to 0.4 metres")


def check_ways(moves: tuple[str, ...], targets: str) -> None:
    """Raises ValueError unless moves lead ahead and to both sides."""
    if "forward" not in moves or not ({"left", "right"} <= set(moves) or {"turn_left", "turn_right"} <= set(moves)):
        raise ValueError(
            f"moves is {moves}; want forward, and left and right or turn_left and turn_right, so that all {targets} can be reached"
        )


def check_limit(
    name: str,
    limit: int,
    world: World,
    moves: tuple[str, ...],
    start: float,
    places: Sequence[tuple[float, float, float]],
    radius: float,
    way: str = "to the farthest box",
) -> None:
    """Raises ValueError unless so many moves of `towards` lead to any of the places, from `start` metres before the near wall."""
    most = max(moves_towards(world, moves, start, tuple((x, z) for x, _, z in places), radius))
    if limit < most:
        raise ValueError(f"{name} is {limit}; want at least {most}, the moves {way}")


@lru_cache(maxsize=1000)
def moves_towards(
    world: World, moves: tuple[str, ...], start: float, places: tuple[tuple[float, float], ...], radius: float
) -> tuple[int, ...]:
    """How many moves of `towards` end within one stride of each of these circles (x, z), from x = 0, z = start, looking ahead.

    Raises ValueError where they come to another circle first, or to none.
    """
    count, targets, alone = len(places), torch.tensor(places), replace(world, agents=1, crates=0)
    nothing = Slots(*(torch.zeros(count, 0, *rest) for rest in ((), (3,), (3,), (), (3,), (), (), ())))
    place = torch.tensor([[0.0, start]]).expand(count, 1, 2)
    state = alone.start(place, torch.zeros(count, 1, dtype=torch.int64), nothing._replace(visible=nothing.kind > 0))
    needed = [0] * count
    for number in range(1, _LONGEST):
        action = towards(alone, state, moves, targets[:, None])
        state = alone.move(state, taken(moves, action))
        gaps = torch.cdist(state.place[:, 0], targets) - world.radius - radius
        # A hair less, for rounding decides where a stride ends exactly one stride away.
        for came in (gaps <= world.step - 1e-5).any(1).nonzero()[:, 0].tolist():
            if not needed[came] and int(gaps[came].argmin()) != came:
                raise ValueError(
                    f"stride is {world.step}; want less, or other moves: on the way to what stands at x = {places[came][0]:.3g} is another"
                )
            needed[came] = needed[came] or number
        if all(needed):
            return tuple(needed)
    raise ValueError(f"moves is {moves}; want some that lead everywhere")


def check_row(name: str, count: int, room: float, least: float = 2.2) -> None:
    """Raises ValueError unless so many things stand in a row in a room of so many metres, and at least as many as `least`."""
    # What a computer takes for 3.3 is not quite three times 1.1.
    least = max(least, round(count * APART, 6))
    if not 2.2 <= room <= 50.0:
        raise ValueError(f"room is {room}; want from {min(least, 50.0)} to 50 metres, room for the agent before the {name}")
    fit = int(room / APART + 1e-6)
    if count > fit:
        raise ValueError(f"{name} is {count}; want at most {fit} in a room of {room} metres, or a larger room")
    if room < least:
        raise ValueError(f"room is {room}; want from {least} to 50 metres, so that nobody begins at what stands before the far wall")


def row(count: int, room: float, height: float) -> tuple[tuple[float, float, float], ...]:
    """Places of things side by side before the far wall."""
    return tuple(((number - (count - 1) / 2) * APART, height, room - BEHIND) for number in range(count))


def picture_spaces(size: int, depth: bool, segmentation: bool, slots: int) -> dict[str, gym.Space[Any]]:
    """The fields of `picture_fields`. slots: the largest number in a segmentation (`World.slot_count`)."""
    square = (size, size)
    spaces: dict[str, gym.Space[Any]] = {"pixels": gym.spaces.Box(0, 255, (*square, 3), np.uint8)}
    if depth:
        spaces["depth"] = gym.spaces.Box(0.0, FAR, square, np.float32)
    if segmentation:
        spaces["segmentation"] = gym.spaces.Box(0, slots, square, np.int32)
    return spaces


def picture_fields(picture: Picture, depth: bool, segmentation: bool) -> Observation:
    """What every seat sees: `pixels`; `depth` and `segmentation` where wanted."""
    wanted = {"pixels": True, "depth": depth, "segmentation": segmentation}
    return {name: getattr(picture, name) for name, is_wanted in wanted.items() if is_wanted}


def taken(moves: tuple[str, ...], action: Int64[Tensor, "B P"]) -> Int64[Tensor, "B P"]:
    """The world's numbers of actions that are numbered as in `moves`."""
    return constant(tuple(ACTIONS.index(name) for name in moves), action.device)[action.long()]


def towards(
    world: World, state: WorldState, moves: tuple[str, ...], target: Float[Tensor, "B P 2"], aside_first: bool = True
) -> Int64[Tensor, "B P"]:
    """The move of each agent, of those of `moves` that walk, that leads to its target: first along x, then along z, or else z first.

    Who cannot step to both sides turns to where it has to go (`_turning`), for which it must be able to turn both ways.
    """
    away = target - state.place
    first, last = (0, 1) if aside_first else (1, 0)
    # A little more than half a step: at exactly half, rounding would send it to and fro.
    is_far = away[..., first].abs() > 0.55 * world.step
    along = torch.arange(2, device=away.device) == torch.where(is_far, first, last)[..., None]
    want = away * along
    angle = state.heading * math.radians(world.turn)
    ahead, aside = torch.stack([angle.sin(), angle.cos()], -1), torch.stack([angle.cos(), -angle.sin()], -1)
    if not {"left", "right"} <= set(moves):
        # Straight there, but along the axes where turns are coarse: zigzags could come too near to what stands beside the target.
        want = want if world.turn > 45 else away
        return _turning(world, moves, (want * ahead).sum(-1), (want * aside).sum(-1))
    ways = {"forward": ahead, "back": -ahead, "right": aside, "left": -aside}
    gains = [(ways[name] * want).sum(-1) if name in ways else torch.full_like(want[..., 0], -torch.inf) for name in moves]
    return torch.stack(gains, -1).argmax(-1)


def _turning(world: World, moves: tuple[str, ...], ahead: Float[Tensor, "B P"], aside: Float[Tensor, "B P"]) -> Int64[Tensor, "B P"]:
    """Forward, for those whose way is ahead as nearly as turns can make it; for the others the shorter turn."""
    angle = torch.atan2(aside, ahead)
    turn = torch.where(angle < 0, moves.index("turn_left"), moves.index("turn_right"))
    # A little more than half a turn: at exactly half, rounding would send it to and fro.
    enough = math.radians(0.505 * world.turn)
    return torch.where(angle.abs() <= enough, moves.index("forward"), turn)


def scene(world: World, state: WorldState, index: int, spots: Sequence[Spot], when: str, words: str) -> Scene:
    """What every agent sees, as boxes, one for every run of a colour in a row; the rooms from above with the spots; what happens."""
    state = one_game(state, index)
    columns = 1 if world.agents == 1 else 2 if world.agents <= 4 else 3
    side, marks = 0.6 / columns, []
    for seat, view in enumerate(world.look(state, Camera(VIEW)).pixels[0].numpy()):
        down, across = divmod(seat, columns)
        marks += _picture(view, 0.02 + across * (side + 0.02), 0.05 + down * (side + 0.02), side)
    marks += _plan(world, state, spots)
    # Large letters if all fits in four lines.
    size, width, most = (0.042, 44, 4) if len(textwrap.wrap(words, 44)) <= 4 else (0.026, 76, 9)
    lines = [when, *textwrap.wrap(words, width)[:most]]
    marks += [Mark("text", 0.5, 0.72 + 1.3 * size * number, size, INK, line) for number, line in enumerate(lines)]
    return Scene(f"{when}: {words}", tuple(marks))


def _picture(view: NDArray[np.uint8], left: float, top: float, side: float) -> list[Mark]:
    """view: [S, S, 3], bytes."""
    pixel, marks = side / len(view), []
    for number, line in enumerate(view):
        edges = [0, *(np.flatnonzero((line[1:] != line[:-1]).any(1)) + 1).tolist(), len(line)]
        for first, last in pairwise(edges):
            red, green, blue = line[first].tolist()
            x, y = left + pixel * (first + last) / 2, top + pixel * (number + 0.5)
            marks.append(Mark("box", x, y, pixel * (last - first) * 1.02, (red, green, blue), height=pixel * 1.1))
    return marks


def _plan(world: World, state: WorldState, spots: Sequence[Spot]) -> list[Mark]:
    left, near = (min(wall[n] for wall in world.walls) for n in (0, 1))
    right, far = (max(wall[n] for wall in world.walls) for n in (2, 3))
    metre = 0.31 / max(right - left, far - near)
    middle_x, middle_z = (left + right) / 2, (near + far) / 2

    def at(x: float, z: float) -> tuple[float, float]:
        return 0.82 + (x - middle_x) * metre, 0.26 - (z - middle_z) * metre

    marks = [Mark("box", 0.82, 0.26, (right - left) * metre, PAPER, height=(far - near) * metre)]
    for x, z, x_end, z_end in world.walls:
        marks.append(Mark("box", *at((x + x_end) / 2, (z + z_end) / 2), (x_end - x) * metre, BROWN, height=(z_end - z) * metre))
    for spot in spots:
        marks.append(Mark("box", *at(spot.x, spot.z), spot.width * metre, spot.colour))
        if spot.label:
            marks.append(Mark("text", *at(spot.x, spot.z), 0.75 * spot.width * metre, PAPER, spot.label))
    for seat, (x, z) in enumerate(state.place[0].tolist()):
        red, green, blue = (int(255 * part) for part in SEAT_COLOURS[seat])
        angle = int(state.heading[0, seat]) * math.radians(world.turn)
        marks.append(Mark("disc", *at(x, z), 2 * world.radius * metre, (red, green, blue)))
        marks.append(Mark("disc", *at(x + 0.25 * math.sin(angle), z + 0.25 * math.cos(angle)), world.radius * metre, INK))
    return marks


def one_game(state: WorldState, index: int) -> WorldState:
    """One game of a batch, on the CPU."""
    return WorldState(*(_row(field, index) for field in state))


def _row(field: Any, index: int) -> Any:
    if isinstance(field, Slots):
        return Slots(*(_row(part, index) for part in field))
    return field[index : index + 1].cpu()
