"""Ballet: dancers dance one after another, then a word names one of the dances, and the spectator walks up to whoever danced it.

The floor is 9 by 9 cells with a wall around it. The spectator stands in the middle, up to eight dancers in the middles of the squares of 3
by 3 around. Each in turn makes the 16 moves of its dance, which bring it back, and nobody moves for `delay` - 1 steps; then the word comes.

Actions: 0 N, 1 NE, 2 E, 3 SE, 4 S, 5 SW, 6 W, 7 NW, one cell each; nobody walks into the wall. While the word is "watch" they do nothing.
Observations: what lies within 5 cells of the spectator, who is always in the middle, and `word`, one of 14: 0 is "watch", k is dance k - 1
    of `DANCES`. With `pixels` as a picture, `pixels`, 99 by 99 of 3 bytes, 9 by 9 per cell; else `board`, 11 by 11 pairs (shape, colour):
    shape 0 nothing, 1 wall, 2 the spectator, 3 + k shape k of `SHAPES`; colour 0 for what is no dancer, 1 + k colour k of `COLOURS`.
Reward: 1 for stepping on the dancer that the word means, otherwise 0.
End: when a dancer is stepped on, or after `limit` steps.
Chance: the word's dancer evenly; places, dances, shapes and colours without replacement, so no two dancers share any.
Measures, in the last step: `success`, whether the right dancer was found, and `touched`, whether any was; NaN before.
Answers, once the word has come: the move that brings the spectator nearest to the word's dancer; from the middle it meets nobody else.
Source: Lampinen et al. 2021 (HCAM, arXiv 2105.14039) and their released code, of which words, rewards, ends and pixels are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from envs.ballet_data import COLOURS, DANCES, SHAPES
from envs.chance import Purpose, integers, permutation
from envs.game import Answer, Mark, Observation, Role, Scene, Turn

Colour = tuple[int, int, int]
# (rows down, columns right).
COMPASS = {"N": (-1, 0), "NE": (-1, 1), "E": (0, 1), "SE": (1, 1), "S": (1, 0), "SW": (1, -1), "W": (0, -1), "NW": (-1, -1)}
# In cells: the floor's side, all of it, how far the spectator sees, and the side of what it sees.
FLOOR, CELLS, SIGHT, VIEW = 9, 81, 5, 11
# The spectator's first cell, how many moves away every dancer is, and the dancers' cells around it: every third of every third row.
MIDDLE, NEAREST = 40, 3
HOMES = (10, 13, 16, 37, 43, 64, 67, 70)
MOVES = 16
WORDS = ("watch", *DANCES)
# What a cell can look like, by number: nothing, wall, the spectator, then the dancers, shape after shape, each in every colour.
NOTHING, WALL, SPECTATOR, DANCER = range(4)
TILE = 9
WHITE, GREY, BLACK = (255, 255, 255), (40, 40, 40), (0, 0, 0)
INK, STAGE, RIGHT, WRONG = (40, 44, 52), (52, 56, 84), (24, 92, 48), (120, 30, 30)


class BalletState(NamedTuple):
    """place: the spectator's cell, row * 9 + column on the floor. Per dancer, in the order in which they dance: homes, their cells; dances;
    looks, `DANCER` + shape * 19 + colour. target: the dancer that the word will mean.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    place: Int64[Tensor, "B"]
    homes: Int64[Tensor, "B N"]
    dances: Int64[Tensor, "B N"]
    looks: Int64[Tensor, "B N"]
    target: Int64[Tensor, "B"]


class _Tables(NamedTuple):
    """What rules and pictures need, looked up instead of worked out. A view is W bytes, a cell of it V, scattered as `pattern` says.

    walked: [cell * 9 + action] the cell after a move; action 8 stays. strayed: [dance * 16 + moves made] from home, in cells.
    towards: [dancer's cell * 81 + spectator's] the spectator's move to the dancer, as kings walk.
    views: what is seen from each cell of an empty floor. tiles: what each look is like. corner, shown: [dancer's cell * 81 + spectator's]
    the first byte of a dancer in the view, and 1; for one out of sight 0, which makes it nothing, and a place where there is nothing.
    """

    homes: Int64[Tensor, "8"]
    numbers: Int64[Tensor, "N"]
    walked: Int64[Tensor, "moves"]
    strayed: Int64[Tensor, "steps"]
    views: UInt8[Tensor, "81 W"]
    tiles: UInt8[Tensor, "L V"]
    pattern: Int64[Tensor, "V"]
    towards: Int64[Tensor, "pairs"]
    corner: Int64[Tensor, "pairs"]
    shown: Int64[Tensor, "pairs"]


@dataclass(frozen=True)
class Ballet:
    """dancers: 1 to 8. delay: steps from a dance's last move to the next one's first, or to the word. limit: steps of an episode, at most.

    pixels: whether the spectator sees a picture, else symbols. The paper's levels are 2, 4 and 8 dancers with a delay of 16 and a limit of
    320, and with 48 and 1,024.
    """

    dancers: int = 2
    delay: int = 16
    limit: int = 320
    pixels: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.dancers <= len(HOMES):
            raise ValueError(f"dancers is {self.dancers}; want from 1 to {len(HOMES)}")
        if not 1 <= self.delay <= 100_000:
            raise ValueError(f"delay is {self.delay}; want from 1 to 100,000")
        least = self.watching + NEAREST
        if not least <= self.limit <= 1_000_000:
            steps = f"the {self.watching} steps until the word and {NEAREST} to a dancer"
            raise ValueError(f"limit is {self.limit}; want from {least}, {steps}, to 1,000,000")

    @property
    def watching(self) -> int:
        """Steps until the word comes."""
        return self.dancers * (MOVES - 1 + self.delay)

    @property
    def max_steps(self) -> int:
        return self.limit

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        if self.pixels:
            field = {"pixels": gym.spaces.Box(0, 255, (VIEW * TILE, VIEW * TILE, 3), np.uint8)}
        else:
            symbols = [DANCER + len(SHAPES), 1 + len(COLOURS)]
            field = {"board": gym.spaces.MultiDiscrete(np.broadcast_to(symbols, (VIEW, VIEW, 2)))}
        sees = gym.spaces.Dict({**field, "word": gym.spaces.Discrete(len(WORDS))})
        return (Role("spectator", 1, sees, gym.spaces.Discrete(len(COMPASS))),)

    def start(self, seeds: Int64[Tensor, "B"]) -> BalletState:
        tables, count = self._tables(seeds.device), self.dancers
        zero = torch.zeros_like(seeds)
        homes = tables.homes[permutation(seeds, len(HOMES), Purpose.GAME, 0)[:, :count]]
        dances = permutation(seeds, len(DANCES), Purpose.GAME, 1)[:, :count]
        shapes = permutation(seeds, len(SHAPES), Purpose.GAME, 2)[:, :count]
        colours = permutation(seeds, len(COLOURS), Purpose.GAME, 3)[:, :count]
        looks = DANCER + shapes * len(COLOURS) + colours
        return BalletState(seeds, zero, zero + MIDDLE, homes, dances, looks, integers(seeds, count, Purpose.GAME, 4))

    def observe(self, state: BalletState) -> dict[str, Observation]:
        tables = self._tables(state.seed.device)
        pairs = (self._cells(state, tables) * CELLS).add_(state.place[:, None]).flatten()
        tiles = tables.tiles.index_select(0, tables.shown.index_select(0, pairs).mul_(state.looks.flatten()))
        where = tables.corner.index_select(0, pairs)[:, None] + tables.pattern
        batch = len(state.seed)
        view = tables.views.index_select(0, state.place).scatter_(1, where.view(batch, -1), tiles.view(batch, -1))
        word = state.dances.gather(1, state.target[:, None]).add_(1).mul_((state.step >= self.watching)[:, None])
        if self.pixels:
            return {"spectator": {"pixels": view.view(-1, 1, VIEW * TILE, VIEW * TILE, 3), "word": word}}
        return {"spectator": {"board": view.view(-1, 1, VIEW, VIEW, 2), "word": word}}

    def answers(self, state: BalletState) -> dict[str, Answer]:
        target = state.homes.gather(1, state.target[:, None])[:, 0]
        move = self._tables(state.seed.device).towards.index_select(0, target * CELLS + state.place)
        return {"spectator": Answer(move[:, None], (state.step >= self.watching)[:, None])}

    def step(self, state: BalletState, actions: Mapping[str, Int[Tensor, "B 1"]]) -> tuple[BalletState, Turn]:
        tables = self._tables(state.seed.device)
        action = actions["spectator"][:, 0].masked_fill(state.step < self.watching, len(COMPASS))
        place = tables.walked.index_select(0, action.add_(state.place, alpha=len(COMPASS) + 1))
        # While there are dances the spectator stands in the middle, where nobody comes by.
        touches = state.homes == place[:, None]
        touched = touches.any(1)
        right = touches.gather(1, state.target[:, None]).float()
        step = state.step + 1
        over = touched | (step >= self.limit)
        measures = {"success": right[:, 0].masked_fill(~over, math.nan), "touched": touched.float().masked_fill_(~over, math.nan)}
        return state._replace(step=step, place=place), Turn({"spectator": right}, over, measures)

    def describe(self, state: BalletState, index: int) -> Scene:
        step, place = int(state.step[index]), int(state.place[index])
        cells = self._cells(state, self._tables(state.seed.device))[index].tolist()
        cast = [_Dancer(*numbers) for numbers in zip(*(part[index].tolist() for part in state[3:6]), cells, strict=True)]
        target = cast[int(state.target[index])]
        title, told, stages = self._dance(step, cast) if step < self.watching else self._choice(step, place, cast, target)
        intent = f"watch {self.dancers}, then find the one that the word means"
        begins = f"before step 1 of {self.limit}, {intent}" if step == 0 else f"step {step}"
        top = Mark("text", 0.5, 0.05, 0.06, INK, title)
        bottom = Mark("text", 0.5, 0.95, 0.05, INK, f"step {step} of {self.limit}")
        return Scene(f"{begins}: {told}", (top, *_board(stages, place, cast), bottom))

    def _dance(self, step: int, cast: list[_Dancer]) -> tuple[str, str, dict[int, Colour]]:
        """While the spectator watches: a title, what happens, and the stages to light, {home: colour}."""
        period = MOVES - 1 + self.delay
        number, move = divmod(step, period)
        if move >= MOVES:
            what = "the word comes" if number + 1 == self.dancers else "the next dance begins"
            return "watch", f"nobody dances; {what} in {period - move}", {}
        dancer = cast[number]
        told = f"{dancer.name} dances {dancer.dance}, move {move + 1} of {MOVES}: {dancer.moves[move]}"
        return f"watch: {dancer.dance}", told, {dancer.home: STAGE}

    def _choice(self, step: int, place: int, cast: list[_Dancer], target: _Dancer) -> tuple[str, str, dict[int, Colour]]:
        """The same once there is a word."""
        title = f"who danced {target.dance}?"
        told, stages = f"{title} {target.name}; the spectator is {_where(place)}", {target.home: RIGHT}
        if place == target.home:
            return f"{target.dance}: found, +1", f"{told}, found it, +1", stages
        for dancer in cast:
            if dancer.home == place:
                return f"{target.dance}: wrong", f"{told}, wrongly: {dancer.name} danced {dancer.dance}", {**stages, place: WRONG}
        return title, f"{told}; time is up" if step >= self.limit else told, stages

    def _cells(self, state: BalletState, tables: _Tables) -> Int64[Tensor, "B N"]:
        """Where the dancers are. The first move of a dance is already made when it is first seen."""
        period = MOVES - 1 + self.delay
        made = (state.step % period).clamp_(max=MOVES - 1)
        dances_now = torch.div(state.step, period, rounding_mode="floor")[:, None] == tables.numbers
        strayed = tables.strayed.index_select(0, (state.dances * MOVES).add_(made[:, None]).flatten()).view_as(state.homes)
        return state.homes + strayed * dances_now

    @cached_property
    def _tables_by_device(self) -> dict[torch.device, _Tables]:
        return {}

    def _tables(self, device: torch.device) -> _Tables:
        tables = self._tables_by_device.get(device)
        if tables is None:
            tables = self._tables_by_device[device] = self._make_tables(device)
        return tables

    def _make_tables(self, device: torch.device) -> _Tables:
        steps = [[COMPASS[move] for move in dance.split()] for dance in DANCES.values()]
        strayed = (np.cumsum(steps, 1) @ [FLOOR, 1]).ravel()
        tiles = _pixels() if self.pixels else _symbols()
        side, channels = tiles.shape[2:]
        # The number of each byte of a view, by the cell's row and column and the byte's place within the cell.
        numbers = np.arange(VIEW * side * VIEW * side * channels).reshape(VIEW, side, VIEW, side, channels).transpose(0, 2, 1, 3, 4)
        views = tiles[_empty_views()].transpose(0, 1, 3, 2, 4, 5).reshape(CELLS, -1)
        row, column = np.divmod(np.arange(CELLS), FLOOR)
        down, right = row[:, None] - row, column[:, None] - column
        towards = _moves()[np.sign(down) + 1, np.sign(right) + 1]
        is_shown = (abs(down) <= SIGHT) & (abs(right) <= SIGHT)
        # Whoever is out of sight on one side has, on the other, a corner of the view that lies beyond the wall.
        down, right = (np.where(is_shown, offset, np.where(offset > 0, -SIGHT, SIGHT)) for offset in (down, right))
        corner = numbers[down + SIGHT, right + SIGHT, 0, 0, 0]
        arrays = (
            np.array(HOMES),
            np.arange(self.dancers),
            _walked(),
            strayed,
            views,
            tiles.reshape(len(tiles), -1),
            numbers[0, 0].ravel(),
            towards.ravel(),
            corner.ravel(),
            is_shown.ravel().astype(np.int64),
        )
        return _Tables(*(torch.from_numpy(array.copy()).to(device) for array in arrays))


class _Dancer(NamedTuple):
    """One of the cast, for people: its row in the state, and its cell now."""

    home: int
    dance_number: int
    look: int
    cell: int

    @property
    def dance(self) -> str:
        return list(DANCES)[self.dance_number]

    @property
    def moves(self) -> list[str]:
        return DANCES[self.dance].split()

    @property
    def shape(self) -> str:
        return list(SHAPES)[(self.look - DANCER) // len(COLOURS)]

    @property
    def colour(self) -> str:
        return list(COLOURS)[(self.look - DANCER) % len(COLOURS)]

    @property
    def name(self) -> str:
        return f"the {self.colour} {self.shape} {_where(self.home)}".replace("_", " ")


def _where(cell: int) -> str:
    return f"at row {cell // FLOOR + 1}, column {cell % FLOOR + 1}"


def _walked() -> NDArray[np.int64]:
    """[81 * 9] the cell after each move, or none, from each cell."""
    walked = []
    for cell in range(CELLS):
        for down, right in [*COMPASS.values(), (0, 0)]:
            row, column = cell // FLOOR + down, cell % FLOOR + right
            walked.append(row * FLOOR + column if 0 <= row < FLOOR and 0 <= column < FLOOR else cell)
    return np.array(walked)


def _moves() -> NDArray[np.int64]:
    """[3, 3] the move by how far down and right it goes, each from -1 to 1; for no way at all, any."""
    moves = np.zeros((3, 3), dtype=np.int64)
    for number, (down, right) in enumerate(COMPASS.values()):
        moves[down + 1, right + 1] = number
    return moves


def _empty_views() -> NDArray[np.int64]:
    """[81, 11, 11] what is seen from each cell where nobody dances."""
    world = np.full((VIEW + 2 * SIGHT, VIEW + 2 * SIGHT), NOTHING)
    world[SIGHT:-SIGHT, SIGHT:-SIGHT] = WALL
    world[SIGHT + 1 : -SIGHT - 1, SIGHT + 1 : -SIGHT - 1] = NOTHING
    views = []
    for cell in range(CELLS):
        row, column = cell // FLOOR + 1, cell % FLOOR + 1
        views.append(world[row : row + VIEW, column : column + VIEW].copy())
        views[-1][SIGHT, SIGHT] = SPECTATOR
    return np.stack(views)


def _pixels() -> NDArray[np.uint8]:
    """[L, 9, 9, 3] every look as pixels."""
    plain = [np.broadcast_to(colour, (TILE, TILE, 3)) for colour in (BLACK, GREY, WHITE)]
    drawn = [
        (np.array([list(row) for row in shape.split("/")]) == "#")[..., None] * colour for shape in SHAPES.values() for colour in _colours()
    ]
    return np.array([*plain, *drawn], dtype=np.uint8)


def _symbols() -> NDArray[np.uint8]:
    """[L, 1, 1, 2] every look as (shape, colour)."""
    plain = [(look, 0) for look in (NOTHING, WALL, SPECTATOR)]
    dancers = [(DANCER + shape, 1 + colour) for shape in range(len(SHAPES)) for colour in range(len(COLOURS))]
    return np.array([*plain, *dancers], dtype=np.uint8)[:, None, None]


def _colours() -> NDArray[np.int64]:
    return np.array(list(COLOURS.values()))


def _board(stages: dict[int, Colour], place: int, cast: list[_Dancer]) -> list[Mark]:
    """The whole floor from above: lit stages, the spectator, the dancers."""
    pitch = 0.8 / VIEW

    def centre(cell: int) -> tuple[float, float]:
        return 0.1 + pitch * (cell % FLOOR + 1.5), 0.1 + pitch * (cell // FLOOR + 1.5)

    marks = [Mark("box", 0.5, 0.5, 0.8, GREY), Mark("box", 0.5, 0.5, pitch * FLOOR, BLACK)]
    marks += [Mark("box", *centre(home), 3 * pitch, colour) for home, colour in stages.items()]
    marks.append(Mark("box", *centre(place), pitch, WHITE))
    dot = pitch / TILE
    for dancer in cast:
        x, y = centre(dancer.cell)
        # The spectator shines through whom it has reached.
        if dancer.cell != place:
            marks.append(Mark("box", x, y, pitch, BLACK))
        for row, pixels in enumerate(SHAPES[dancer.shape].split("/")):
            for run in re.finditer("#+", pixels):
                middle, width = (run.start() + run.end()) / 2, run.end() - run.start()
                x_run, y_run = x + dot * (middle - TILE / 2), y + dot * (row + 0.5 - TILE / 2)
                marks.append(Mark("box", x_run, y_run, dot * width, COLOURS[dancer.colour], height=dot))
    return marks


def ballet() -> Ballet:
    """Ballet: watch two dancers, then find the one who danced what a word says; pictures of 99 x 99 (Lampinen et al. 2021)."""
    return Ballet()


def ballet_symbols() -> Ballet:
    """Ballet seen as a board of 11 x 11 symbols instead of a picture."""
    return Ballet(pixels=False)
