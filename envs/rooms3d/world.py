"""A world of rooms in which agents walk, turn, look up and down, lift things and put them down, and open and close crates.

Actions: one of `ACTIONS`. "left" and "right" step sideways; "lift" takes the nearest thing in front, or puts down what is held, into an
    open and empty crate if one is in front, else on the floor; "open" opens the nearest crate in front, or closes it.
Bodies are upright cylinders of the same `radius` on the plane (x, z). Nobody walks through walls, things or each other: who is blocked
    slides along one of the axes if that way is free, and stays otherwise. Whoever would come too near to where another one is, or to where
    it wants to go, stays, so no seat has precedence. Of several who lift the same thing, the nearest gets it.
Things: the first `crates` of them are crates with lids, which hold one thing each; the others can be lifted if they are small enough.
Chance: none, but for `scatter`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from envs.chance import Purpose, permutation
from envs.rooms3d.camera import Camera, Eyes, Picture
from envs.rooms3d.primitives import TINY, Kind, Slots, Texture, constant, join

ACTIONS = ("stay", "forward", "back", "left", "right", "turn_left", "turn_right", "look_up", "look_down", "lift", "open")
FORWARD, BACK, LEFT, RIGHT, TURN_LEFT, TURN_RIGHT, LOOK_UP, LOOK_DOWN, LIFT, OPEN = range(1, len(ACTIONS))
# Left, near, right, far, in metres.
Rectangle = tuple[float, float, float, float]
# How much one looks up or down at a time, and how steeply one can, in degrees.
LOOK, STEEPEST = 15.0, 60.0
# "In front" is within some 37 degrees of straight ahead: the square of the cosine.
AHEAD = 0.64
# The radius of the largest thing that can be lifted, and the gaps between it, who puts it down and who carries it.
LIFTABLE, GAP = 0.3, 0.05
LID = 0.03
# Metres between surfaces that would else lie in one plane: a crate's bottom and the floor, an open lid and the crate's wall.
SLIT = 0.005
SEAT_COLOURS = (
    (0.85, 0.33, 0.31), (0.30, 0.55, 0.85), (0.95, 0.78, 0.25), (0.45, 0.72, 0.40),
    (0.65, 0.45, 0.75), (0.95, 0.58, 0.25), (0.40, 0.75, 0.75), (0.90, 0.60, 0.70),
)  # fmt: skip
HAIR = (0.2, 0.17, 0.15)


class WorldState(NamedTuple):
    """place: (x, z). heading: yaw, in turns of the world. tilt: pitch, in steps of `LOOK` degrees. holder: who holds each thing, or -1.

    inside: which crate, or -1. things: as slots; of what is held, where it was lifted from. opened: of each of the C crates.
    """

    place: Float[Tensor, "B P 2"]
    heading: Int64[Tensor, "B P"]
    tilt: Int64[Tensor, "B P"]
    things: Slots
    holder: Int64[Tensor, "B N"]
    inside: Int64[Tensor, "B N"]
    opened: Bool[Tensor, "B C"]


def one_room(width: float, depth: float, thickness: float = 0.2) -> tuple[Rectangle, ...]:
    """Walls around the floor from (-width / 2, 0) to (width / 2, depth)."""
    half, t = width / 2, thickness
    return (
        (-half - t, -t, half + t, 0.0),
        (-half - t, depth, half + t, depth + t),
        (-half - t, 0.0, -half, depth),
        (half, 0.0, half + t, depth),
    )


def four_rooms(side: float = 5.0, door: float = 1.4, thickness: float = 0.2) -> tuple[Rectangle, ...]:
    """Two by two rooms of `side` metres, a door in the middle of each wall between two."""
    t, half, jamb = thickness, thickness / 2, (side - door) / 2
    outer = one_room(2 * side + t, 2 * side + t, t)
    middle = side + half
    inner: list[Rectangle] = []
    for start in (0.0, side + t):
        for low, high in ((start, start + jamb), (start + side - jamb, start + side)):
            inner += [(low - middle, middle - half, high - middle, middle + half), (-half, low, half, high)]
    return *outer, (-half, side, half, side + t), *inner


@dataclass(frozen=True)
class World:
    """walls: what they cover of the floor. height: of the rooms. agents: P. crates: C. radius: of a body. eye: its height. step: metres.

    turn: degrees. reach: how far from one's body what one lifts or opens may be. floor, ceiling, paint: colours, the last one of the walls.
    """

    walls: tuple[Rectangle, ...]
    height: float = 2.5
    agents: int = 1
    crates: int = 0
    radius: float = 0.2
    eye: float = 1.2
    step: float = 0.3
    turn: float = 15.0
    reach: float = 0.8
    floor: tuple[float, float, float] = (0.52, 0.48, 0.44)
    ceiling: tuple[float, float, float] = (1.0, 1.0, 0.97)
    paint: tuple[float, float, float] = (0.72, 0.68, 0.60)

    def __post_init__(self) -> None:
        if not self.walls or any(not (left < right and near < far) for left, near, right, far in self.walls):
            raise ValueError(f"walls is {self.walls}; want rectangles (left, near, right, far) with left < right and near < far")
        if not 1 <= self.agents <= len(SEAT_COLOURS):
            raise ValueError(f"agents is {self.agents}; want from 1 to {len(SEAT_COLOURS)}")
        if self.crates < 0:
            raise ValueError(f"crates is {self.crates}; want 0 or more")
        if not 0.05 <= self.radius <= 1.0:
            raise ValueError(f"radius is {self.radius}; want from 0.05 to 1 metre")
        if not 0.0 < self.eye < self.height:
            raise ValueError(f"eye is {self.eye}; want a height above 0 and below the ceiling's {self.height}")
        if not 0.0 < self.step <= 2 * self.radius:
            raise ValueError(f"step is {self.step}; want above 0, at most twice the radius of {self.radius}, lest it lead through a wall")
        # With a tolerance, for 360 is not 150 times what a computer takes for 2.4.
        if not 1.0 <= self.turn <= 90.0 or abs(360 / self.turn - round(360 / self.turn)) > 1e-6:
            raise ValueError(f"turn is {self.turn}; want degrees from 1 to 90 that divide 360")
        if not 0.0 < self.reach <= 10.0:
            raise ValueError(f"reach is {self.reach}; want above 0, up to 10 metres")
        for name in ("floor", "ceiling", "paint"):
            if not all(0.0 <= part <= 1.0 for part in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; want red, green, blue from 0 to 1")
        places = len(self.spots(2 * self.radius))
        if places < self.agents:
            raise ValueError(f"agents is {self.agents}; want at most {places}, for which the rooms have space, or larger rooms")

    def spots(self, spacing: float) -> tuple[tuple[float, float], ...]:
        """Places (x, z) on a grid, `spacing` metres from each other and half as far from any wall."""
        left, near = (min(wall[n] for wall in self.walls) for n in (0, 1))
        right, far = (max(wall[n] for wall in self.walls) for n in (2, 3))

        def line(low: float, high: float, shift: float) -> list[float]:
            """Around the middle, which is a place itself or between two of them."""
            count = int((high - low) / spacing / 2)
            return [(low + high) / 2 + (number + shift) * spacing for number in range(-count, count + 1)]

        def free(x_shift: float, z_shift: float) -> list[tuple[float, float]]:
            places = [(x, z) for z in line(near, far, z_shift) for x in line(left, right, x_shift) if left < x < right and near < z < far]
            return [place for place in places if self._distance(*place) >= spacing / 2 - 1e-6]

        grids = [free(x_shift, z_shift) for x_shift in (0.0, 0.5) for z_shift in (0.0, 0.5)]
        return tuple(max((len(grid), grid) for grid in grids)[1])

    def _distance(self, x: float, z: float) -> float:
        """Metres to the nearest wall."""
        return min(math.hypot(x - min(max(x, a), c), z - min(max(z, b), d)) for a, b, c, d in self.walls)

    def scatter(self, seeds: Int64[Tensor, "B"], count: int, spacing: float, *counters: int) -> Float[Tensor, "B count 2"]:
        """Different places by chance. Raises ValueError where the rooms do not have as many."""
        spots = self.spots(spacing)
        if len(spots) < count:
            raise ValueError(f"count is {count}; want at most {len(spots)} places, {spacing} metres apart, or larger rooms")
        chosen = permutation(seeds, len(spots), Purpose.GAME, *counters)[:, :count]
        return constant(spots, seeds.device)[chosen]

    def start(self, place: Float[Tensor, "B P 2"], heading: Int64[Tensor, "B P"], things: Slots) -> WorldState:
        """Agents at places that are free, looking straight ahead; things where they are, crates first, all of them closed."""
        nobody = torch.full_like(things.kind, -1)
        opened = torch.zeros_like(things.visible[:, : self.crates])
        return WorldState(place, heading, torch.zeros_like(heading), things, nobody, nobody, opened)

    def move(self, state: WorldState, action: Int64[Tensor, "B P"]) -> WorldState:
        """What comes of everyone's action: first all walk and turn, then those lift, put down and open who do so where they stand."""
        turns = (action == TURN_RIGHT).long() - (action == TURN_LEFT).long()
        looks = (action == LOOK_UP).long() - (action == LOOK_DOWN).long()
        steepest = int(STEEPEST / LOOK)
        state = state._replace(
            place=self._walk(state, action),
            heading=(state.heading + turns) % round(360 / self.turn),
            tilt=(state.tilt + looks).clamp(-steepest, steepest),
        )
        if state.holder.shape[1] == 0:
            return state
        wants, has_hands_full = action == LIFT, _held(state, self.agents).any(2)
        costs = self._costs(state)
        crate = _lowest(torch.where(self._is_crate(state), costs, torch.inf), 2)
        opens = (action == OPEN)[..., None] & crate[..., : self.crates]
        after = self._put(self._lift(state, wants & ~has_hands_full, costs), wants & has_hands_full, crate)
        return after._replace(opened=state.opened ^ opens.any(1))

    def gaps(self, state: WorldState) -> Float[Tensor, "B P N"]:
        """Metres between each agent's body and each thing, as circles on the floor."""
        return _square(_away(state)).sqrt() - self.radius - _radius(state.things)[:, None]

    def look(self, state: WorldState, camera: Camera) -> Picture:
        """What every agent sees: all but its own body."""
        slots, shown = self.slots(state), None
        if self.agents > 1:
            seats = torch.arange(self.agents, device=state.place.device)
            owner = torch.cat([seats.new_full((slots.kind.shape[1] - 3 * self.agents,), -1), seats.repeat(3)])
            shown = (owner != seats[:, None]).expand(len(state.place), -1, -1)
        return camera.see(slots, self.eyes(state), shown)

    def eyes(self, state: WorldState) -> Eyes:
        x, z = state.place.unbind(-1)
        yaw, pitch = state.heading * math.radians(self.turn), state.tilt * math.radians(LOOK)
        return Eyes(torch.stack([x, torch.full_like(x, self.eye), z], -1), yaw, pitch)

    def has_in_view(self, state: WorldState, camera: Camera, points: Float[Tensor, "B P Q 3"]) -> Bool[Tensor, "B P Q"]:
        """Whether points are in each agent's picture and behind no wall. Things do not count: they may be in the way."""
        ahead, pitch = self._ahead(state)[:, :, None], state.tilt[..., None] * math.radians(LOOK)
        away = points[..., ::2] - state.place[:, :, None]
        level = away[..., 0] * ahead[..., 0] + away[..., 1] * ahead[..., 1]
        aside = away[..., 0] * ahead[..., 1] - away[..., 1] * ahead[..., 0]
        up = points[..., 1] - self.eye
        depth, high = level * pitch.cos() + up * pitch.sin(), up * pitch.cos() - level * pitch.sin()
        edge = depth * camera.spread
        return (depth > 0) & (aside.abs() <= edge) & (high.abs() <= edge) & self._no_wall_before(state, away)

    def slot_count(self, things: int) -> int:
        """Of all that there is to see, where there are so many things: the largest number in a segmentation."""
        return 2 + len(self.walls) + things + self.crates + (3 * self.agents if self.agents > 1 else 0)

    def slots(self, state: WorldState) -> Slots:
        """Everything there is to see: floor, ceiling, walls; things, the lids of the crates; the bodies, where there are several agents."""
        batch, device = len(state.place), state.place.device
        kind, position, size, colour, texture, grain = (
            column.expand(batch, *column.shape) for column in (constant(column, device) for column in self._rooms)
        )
        rooms = Slots(kind, position, size, torch.zeros_like(grain), colour, texture, grain, torch.ones_like(kind, dtype=torch.bool))
        parts = [rooms, self._things_as_they_are(state)]
        if self.crates:
            parts.append(self._lids(state))
        if self.agents > 1:
            parts.append(self._bodies(state))
        return join(*parts)

    def _is_crate(self, state: WorldState) -> Bool[Tensor, "N"]:
        return torch.arange(state.holder.shape[1], device=state.holder.device) < self.crates

    def _ahead(self, state: WorldState) -> Float[Tensor, "B P 2"]:
        """Unit vectors: where everyone is turned to."""
        return constant(self._directions, state.place.device)[state.heading]

    def _walk(self, state: WorldState, action: Int64[Tensor, "B P"]) -> Float[Tensor, "B P 2"]:
        along = ((action == FORWARD).float() - (action == BACK).float())[..., None]
        across = ((action == RIGHT).float() - (action == LEFT).float())[..., None]
        ahead = self._ahead(state)
        aside = torch.stack([ahead[..., 1], -ahead[..., 0]], -1)
        change = (along * ahead + across * aside) * self.step
        # All of the step, or else its share of one axis.
        ways = constant(((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)), change.device)
        places = state.place[:, :, None] + change[:, :, None] * ways
        radius = torch.full_like(places[..., 0], self.radius)
        is_free = self._is_clear(state, places, radius)
        first = is_free & (is_free.cumsum(2) == 1)
        wanted = torch.where(is_free.any(2, keepdim=True), (places * first[..., None]).sum(2), state.place)
        # Clear of where the others are and of where they want to go: then whoever of them stays or goes is out of the way.
        others = ~torch.eye(self.agents, dtype=torch.bool, device=action.device)
        apart = (2 * self.radius) ** 2
        near = _square(wanted[:, :, None] - state.place[:, None]) < apart
        near = (near | (_square(wanted[:, :, None] - wanted[:, None]) < apart)) & others
        return torch.where(near.any(2, keepdim=True), state.place, wanted)

    def _is_clear(
        self, state: WorldState, places: Float[Tensor, "B P Q 2"], radius: Float[Tensor, "B P Q"], but: Bool[Tensor, "B P N"] | None = None
    ) -> Bool[Tensor, "B P Q"]:
        """Whether circles touch no wall and no thing that stands in the way. but: things that do not count."""
        corners = constant(self.walls, places.device)
        nearest = torch.minimum(torch.maximum(places[..., None, :], corners[:, :2]), corners[:, 2:])
        clear = (_square(places[..., None, :] - nearest) >= (radius * radius)[..., None]).all(-1)
        things = state.things
        stands = (things.visible & (state.holder < 0) & (state.inside < 0))[:, None, None]
        if but is not None:
            stands = stands & ~but[:, :, None]
        apart = radius[..., None] + _radius(things)[:, None, None]
        away = places[..., None, :] - _flat(things.position)[:, None, None]
        return clear & ~(stands & (_square(away) < apart * apart)).any(-1)

    def _no_wall_before(self, state: WorldState, away: Float[Tensor, "B P Q 2"]) -> Bool[Tensor, "B P Q"]:
        """Whether the straight line from each agent to places that are so far away meets no wall."""
        enters, leaves = self._crossings(state, away)
        return ~((enters <= leaves) & (leaves >= 0) & (enters <= 1)).any(-1)

    def _crossings(
        self, state: WorldState, away: Float[Tensor, "B P Q 2"]
    ) -> tuple[Float[Tensor, "B P Q walls"], Float[Tensor, "B P Q walls"]]:
        """How many times `away` from each agent a straight line comes into each wall, and out of it: in after out, where it misses."""
        corners, place = constant(self.walls, away.device), state.place[:, :, None, None]
        over = 1 / torch.where(away.abs() > TINY, away, TINY)[..., None, :]
        low, high = (corners[:, :2] - place) * over, (corners[:, 2:] - place) * over
        return torch.minimum(low, high).amax(-1), torch.maximum(low, high).amin(-1)

    def _costs(self, state: WorldState) -> Float[Tensor, "B P N"]:
        """The square of the distance of each thing; infinity for what is not in front, in reach, in sight and nobody's."""
        away, ahead = _away(state), self._ahead(state)[:, :, None]
        square = _square(away)
        forwards = away[..., 0] * ahead[..., 0] + away[..., 1] * ahead[..., 1]
        can = (state.things.visible & (state.holder < 0))[:, None] & self._no_wall_before(state, away)
        can = can & (forwards > 0) & (forwards * forwards >= AHEAD * square) & (self.gaps(state) <= self.reach)
        return torch.where(can, square, torch.inf)

    def _lift(self, state: WorldState, wants: Bool[Tensor, "B P"], costs: Float[Tensor, "B P N"]) -> WorldState:
        is_open = _chosen(state.opened, state.inside) if self.crates else torch.zeros_like(state.things.visible)
        light = (_radius(state.things) <= LIFTABLE) & ~self._is_crate(state) & ((state.inside < 0) | is_open)
        takes = _lowest(torch.where(light[:, None], costs, torch.inf), 2) & wants[..., None]
        takes = _lowest(torch.where(takes, costs, torch.inf), 1)
        seats = torch.arange(self.agents, device=wants.device)[:, None]
        taken = takes.any(1)
        return state._replace(holder=torch.where(taken, (takes * seats).sum(1), state.holder), inside=torch.where(taken, -1, state.inside))

    def _put(self, state: WorldState, wants: Bool[Tensor, "B P"], crate: Bool[Tensor, "B P N"]) -> WorldState:
        """crate: the nearest one before each agent."""
        things, held = state.things, _held(state, self.agents) & wants[..., None]
        radius = (_radius(things)[:, None] * held).sum(2)
        spot = state.place + self._ahead(state) * (self.radius + radius + GAP)[..., None]
        numbers = torch.arange(things.kind.shape[1], device=wants.device)
        is_empty = ~(state.inside[:, :, None] == numbers).any(1)
        is_open = torch.nn.functional.pad(state.opened, (0, len(numbers) - self.crates))
        tall = (things.size[..., 1][:, None] * held).sum(2)
        has_room = radius[..., None] <= _flat(things.size).amin(-1)[:, None]
        # It stands as thick as a lid above the crate's bottom, and has to end below the lid.
        has_room &= 2 * tall[..., None] <= (2 * things.size[..., 1] - LID)[:, None]
        into = crate & wants[..., None] & (is_empty & is_open)[:, None] & has_room
        # Of several who put something into the same crate, the first seat does.
        into = into & (into.cumsum(1) == 1)

        others = ~torch.eye(self.agents, dtype=torch.bool, device=wants.device)
        on_floor = wants & self._is_clear(state, spot[:, :, None], radius[..., None], held)[..., 0]
        on_floor &= self._no_wall_before(state, (spot - state.place)[:, :, None])[..., 0]
        apart = (radius + self.radius)[..., None]
        on_floor &= ~((_square(spot[:, :, None] - state.place[:, None]) < apart * apart) & others).any(2)
        apart = radius[:, :, None] + radius[:, None]
        on_floor &= ~((_square(spot[:, :, None] - spot[:, None]) < apart * apart) & others & wants[:, None]).any(2)
        is_in, is_on = held & into.any(2, keepdim=True), held & (on_floor & ~into.any(2))[..., None]

        # Of the crate that each agent fills: its number, where it is, and how high its bottom is.
        position, size = things.position, things.size
        which = (into * numbers).sum(2)
        inside_of = position.gather(1, which[..., None].expand(-1, -1, 3))
        bottom = inside_of[..., 1] - size[..., 1].gather(1, which)
        where = torch.where(into.any(2, keepdim=True), _flat(inside_of), spot)
        height = torch.where(into.any(2), bottom + LID, 0.0)
        moved = torch.stack([where[..., 0], height, where[..., 1]], -1)[:, :, None] * (is_in | is_on)[..., None]
        lies = (is_in | is_on).any(1)
        position = torch.where(lies[..., None], moved.sum(1) + _upright(size), position)
        inside = torch.where(is_in.any(1), (is_in * which[..., None]).sum(1), state.inside)
        return state._replace(things=things._replace(position=position), holder=torch.where(lies, -1, state.holder), inside=inside)

    def _things_as_they_are(self, state: WorldState) -> Slots:
        """What is held is before its holder's chest, but on its holder's side of walls and bodies; crates stand a slit above the floor."""
        things, held = state.things, _held(state, self.agents)
        # [B, P], since nobody holds two.
        radius = (_radius(things)[:, None] * held).sum(2)
        reach = torch.minimum(self.radius + radius + 3 * GAP, self._gap_ahead(state, radius))
        centre = state.place + self._ahead(state) * reach[..., None]
        # Where it would be in walls it is moved out of them.
        corners = constant(self.walls, centre.device)
        out = centre[..., None, :] - torch.minimum(torch.maximum(centre[..., None, :], corners[:, :2]), corners[:, 2:])
        gap = _square(out).sqrt().clamp(min=TINY)
        push = out * ((radius[..., None] - gap).clamp(min=0) / gap)[..., None]
        x, z = (centre + push.clamp(min=0).amax(2) + push.clamp(max=0).amin(2)).unbind(-1)
        before = torch.stack([x, torch.full_like(x, 0.75 * self.eye), z], -1)[:, :, None] * held[..., None]
        up = torch.where(self._is_crate(state), SLIT / 2, 0.0)[:, None] * constant((0.0, 1.0, 0.0), x.device)
        return things._replace(position=torch.where(held.any(1)[..., None], before.sum(1), things.position + up), size=things.size - up)

    def _gap_ahead(self, state: WorldState, radius: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """How many metres ahead of each agent what is carried can be: its middle just before a wall, all of it clear of bodies."""
        ahead = self._ahead(state)
        enters, leaves = self._crossings(state, ahead[:, :, None])
        meets = (enters <= leaves) & (leaves >= 0)
        walls = torch.where(meets, enters, torch.inf).amin(-1)[..., 0] - 1e-3
        away = state.place[:, None] - state.place[:, :, None]
        along = (away * ahead[:, :, None]).sum(-1)
        inside = (self.radius + radius)[..., None] ** 2 - (_square(away) - along * along)
        bodies = torch.where((inside > 0) & (along > 0), along - inside.clamp(min=0).sqrt(), torch.inf).amin(-1)
        return torch.minimum(walls, bodies.clamp(min=0))

    def _lids(self, state: WorldState) -> Slots:
        """A closed lid lies on its crate; an open one stands behind it, on the side of the crate's own z axis."""
        crates = Slots(*(field[:, : self.crates] for field in state.things))
        wide, high, deep = crates.size.unbind(-1)
        opened = state.opened
        back = torch.where(opened, deep + LID + SLIT, 0.0)
        up = high + torch.where(opened, deep, LID)
        shift = torch.stack([back * crates.yaw.sin(), up, back * crates.yaw.cos()], -1)
        size = torch.stack([wide + LID, torch.where(opened, deep + LID, LID), torch.where(opened, LID, deep + LID)], -1)
        return crates._replace(
            kind=torch.full_like(crates.kind, Kind.BOX), position=crates.position + shift, size=size, colour=crates.colour * 0.8
        )

    def _bodies(self, state: WorldState) -> Slots:
        """A cylinder, a head and a nose for every seat: all cylinders, all heads, all noses."""
        (x, z), ahead = state.place.unbind(-1), self._ahead(state)
        r, like = self.radius, torch.ones_like(x)
        chest = (self.eye - 0.6 * r) / 2
        nose = torch.stack([x + ahead[..., 0] * 0.7 * r, like * self.eye, z + ahead[..., 1] * 0.7 * r], -1)
        position = torch.cat([torch.stack([x, like * chest, z], -1), torch.stack([x, like * self.eye, z], -1), nose], 1)
        kinds = constant((int(Kind.CYLINDER), int(Kind.BALL), int(Kind.BALL)), x.device)
        sizes = constant(((r, chest, r), (0.7 * r,) * 3, (0.25 * r,) * 3), x.device)
        shirts = constant(SEAT_COLOURS[: self.agents], x.device)
        colour = torch.cat([shirts, 0.5 + 0.5 * shirts, constant(HAIR, x.device).expand_as(shirts)])
        kind = kinds.repeat_interleave(self.agents).expand(len(x), -1)
        size = sizes.repeat_interleave(self.agents, 0).expand(len(x), -1, -1)
        yaw = torch.zeros_like(size[..., 0])
        return Slots(kind, position, size, yaw, colour.expand_as(size), kind * 0, yaw + 1, torch.ones_like(kind, dtype=torch.bool))

    @cached_property
    def _rooms(self) -> tuple[tuple[Any, ...], ...]:
        """Floor, ceiling and walls: columns of kinds, positions, sizes, colours, textures, grains."""
        half = self.height / 2
        rows: list[tuple[Any, ...]] = [
            (int(Kind.PLANE), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), self.floor, int(Texture.CHECKS), 0.5),
            (int(Kind.PLANE), (0.0, self.height, 0.0), (1.0, 1.0, 1.0), self.ceiling, int(Texture.PLAIN), 1.0),
        ]
        for left, near, right, far in self.walls:
            centre, size = ((left + right) / 2, half, (near + far) / 2), ((right - left) / 2, half, (far - near) / 2)
            rows.append((int(Kind.BOX), centre, size, self.paint, int(Texture.BRICKS), 0.5))
        return tuple(zip(*rows, strict=True))

    @cached_property
    def _directions(self) -> tuple[tuple[float, float], ...]:
        """The sine and cosine of each heading: a table, so that a batch and its games alone walk the same to the last bit."""
        angles = [math.radians(self.turn * number) for number in range(round(360 / self.turn))]
        return tuple((round(math.sin(angle), 9), round(math.cos(angle), 9)) for angle in angles)


def _flat(position: Float[Tensor, "... 3"]) -> Float[Tensor, "... 2"]:
    """Seen from above: x and z."""
    return position[..., 0::2]


def _upright(size: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """From where something stands to its middle."""
    return torch.stack([torch.zeros_like(size[..., 1]), size[..., 1], torch.zeros_like(size[..., 1])], -1)


def _square(away: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
    return away[..., 0] * away[..., 0] + away[..., 1] * away[..., 1]


def _away(state: WorldState) -> Float[Tensor, "B P N 2"]:
    """From every agent to every thing."""
    return _flat(state.things.position)[:, None] - state.place[:, :, None]


def _radius(things: Slots) -> Float[Tensor, "B N"]:
    """Of the circle on the floor that each thing fills, or, with corners, that goes round it."""
    wide, deep = things.size[..., 0], things.size[..., 2]
    has_corners = (things.kind == Kind.BOX) | (things.kind == Kind.CRATE) | (things.kind == Kind.PYRAMID)
    return torch.where(has_corners, (wide * wide + deep * deep).sqrt(), torch.maximum(wide, deep))


def _held(state: WorldState, agents: int) -> Bool[Tensor, "B P N"]:
    return state.holder[:, None] == torch.arange(agents, device=state.holder.device)[:, None]


def _chosen(values: Bool[Tensor, "B C"], which: Int64[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
    """values[which], false where it is -1."""
    return values.gather(1, which.clamp(min=0)) & (which >= 0)


def _lowest(cost: Float[Tensor, "B P N"], axis: int) -> Bool[Tensor, "B P N"]:
    """Where the first of the lowest costs along an axis is; nowhere if none is finite."""
    best = torch.zeros_like(cost, dtype=torch.bool).scatter(axis, cost.argmin(axis, keepdim=True), True)
    return best & cost.isfinite()
