"""The Coin Game: two players on a small torus, one coin at a time; a coin is anybody's to take and hurts its owner if the other takes it.

Actions: both move at once: 0 up, 1 down, 2 left, 3 right, and where `can_stay` 4 stay. The board has no edges: whoever leaves it on one
    side comes back on the other. Players may share a cell.
Observations: places are seen from the player's own cell, so many rows down and columns right, round the torus: number row * size + column,
    0 is its own cell. `other`, the other player's place, one of size ** 2; `coin`, the coin's, plus size ** 2 if the coin is the other's.
Reward: 1 for taking a coin, whosever it is; -`penalty` to its owner if the other took it. Who steps on a coin takes it, both where both do.
End: after `rounds` steps.
Chance: at the start players and coin get different cells, and the coin an owner. A taken coin is followed by one in a cell without a
    player; its owner is the other of the two if `alternates`, else drawn.
Measures: `own_coins` and `others_coins`, 1 for each seat that took one; `own_share`, 1 for each that took its own, 0 the other's, NaN none.
Source: Lerer and Peysakhovich 2017 (arXiv 1707.01068) for the dilemma, with drawn owners; Foerster et al. 2018 (LOLA, arXiv 1709.04326)
    for the torus of 3 by 3, four moves, alternating owners and 150 steps. Staying is JaxMARL's fifth move (arXiv 2311.10090).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from envs.chance import Purpose, fold, integers, permutation
from envs.game import Mark, Observation, Role, Scene, Turn

# (rows down, columns right) of each action.
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "stay": (0, 0)}
COLOURS = ((200, 80, 72), (66, 108, 186))
CELL, INK = (232, 233, 230), (40, 44, 52)


class CoinState(NamedTuple):
    """cells: where the players are, row * size + column. coin, owner: its cell, and whose it is. taken: by whom the step before, as bits
    of what `step` calls an event; 0 by nobody.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    cells: Int64[Tensor, "B 2"]
    coin: Int64[Tensor, "B"]
    owner: Int64[Tensor, "B"]
    taken: Int64[Tensor, "B"]


class _Tables(NamedTuple):
    """What the rules need, looked up instead of worked out. moved: [size ** 2 * A] the cell after a move. offset: [size ** 4] from one cell
    to another, as it is observed. outcome: rewards and the three measures of 8 events. seats: 0 and 1.
    """

    moved: Int64[Tensor, "moves"]
    offset: Int64[Tensor, "pairs"]
    outcome: Float[Tensor, "4 8 2"]
    seats: Int64[Tensor, "2"]


@dataclass(frozen=True)
class CoinGame:
    """size: of the board, in cells. rounds: steps. can_stay: whether standing still is a move. alternates: whether owners take turns.

    penalty: what an owner loses when the other takes its coin.
    """

    size: int = 3
    rounds: int = 150
    can_stay: bool = False
    alternates: bool = True
    penalty: float = 2.0

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 16:
            raise ValueError(f"size is {self.size}; want from 2 to 16")
        if not 1 <= self.rounds <= 1_000_000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000,000")
        if not 0.0 <= self.penalty <= 1e30:
            raise ValueError(f"penalty is {self.penalty}; want from 0 to 1e30")

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        cells = self.size**2
        sees = gym.spaces.Dict({"other": gym.spaces.Discrete(cells), "coin": gym.spaces.Discrete(2 * cells)})
        return (Role("player", 2, sees, gym.spaces.Discrete(self.moves)),)

    @property
    def moves(self) -> int:
        return 5 if self.can_stay else 4

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Int64[Tensor, "B"]) -> CoinState:
        zero = torch.zeros_like(seeds)
        places = permutation(seeds, self.size**2, Purpose.GAME, 0)
        return CoinState(seeds, zero, places[:, :2], places[:, 2], integers(seeds, 2, Purpose.GAME, 0), zero)

    def observe(self, state: CoinState) -> dict[str, Observation]:
        tables, cells = self._tables(state.seed.device), self.size**2
        from_own = state.cells * cells
        other = tables.offset[from_own + state.cells.flip(1)]
        coin = tables.offset[from_own.add_(state.coin[:, None])]
        return {"player": {"other": other, "coin": coin.add_(state.owner[:, None] != tables.seats, alpha=cells)}}

    def step(self, state: CoinState, actions: Mapping[str, Int64[Tensor, "B 2"]]) -> tuple[CoinState, Turn]:
        tables = self._tables(state.seed.device)
        cells = tables.moved[torch.add(actions["player"], state.cells, alpha=self.moves)]
        takes = (cells == state.coin[:, None]).long()
        # Bit 0: player_0 took the coin, bit 1: player_1 did.
        taken = torch.add(takes[:, 0], takes[:, 1], alpha=2)
        event = torch.add(taken, state.owner, alpha=4)
        rewards, own, others, share = tables.outcome.index_select(1, event).unbind()
        step = state.step + 1
        draw = fold(state.seed, Purpose.GAME, step)
        is_taken = taken > 0
        coin = torch.where(is_taken, self._free_cell(cells, draw), state.coin)
        owner = state.owner ^ is_taken if self.alternates else torch.where(is_taken, draw & 1, state.owner)
        turn = Turn({"player": rewards}, step >= self.rounds, {"own_coins": own, "others_coins": others, "own_share": share})
        # What the players took, and as bit 2 whose it was.
        return CoinState(state.seed, step, cells, coin, owner, event.mul_(is_taken)), turn

    def describe(self, state: CoinState, index: int) -> Scene:
        step, event, owner = int(state.step[index]), int(state.taken[index]), int(state.owner[index])
        (first, second), coin = state.cells[index].tolist(), int(state.coin[index])
        letters = ["."] * self.size**2
        letters[coin] = "rb"[owner]
        letters[first], letters[second] = ("&", "&") if first == second else ("R", "B")
        board = "/".join("".join(letters[row * self.size : (row + 1) * self.size]) for row in range(self.size))
        words = f"before step 1 of {self.rounds}: red player_0 is R, blue player_1 is B, coins are r and b, & is both players"
        if step:
            words = f"step {step}: " + ", ".join(self._told(event))
        return Scene(f"{board}  {words}", (Mark("text", 0.5, 0.06, 0.07, INK, f"step {step} of {self.rounds}"), *self._marks(state, index)))

    def _told(self, event: int) -> list[str]:
        """Who took which coin, and what both got for it."""
        if event == 0:
            return ["nobody takes the coin"]
        rewards = self._tables(torch.device("cpu")).outcome[0, event].tolist()
        colour, owner = ("red", 0) if event < 4 else ("blue", 1)
        told = []
        for seat in range(2):
            did = "takes its own" if seat == owner else "takes the other's"
            if event >> seat & 1:
                told.append(f"player_{seat} {did} {colour} coin {rewards[seat]:+g}")
            elif rewards[seat]:
                told.append(f"player_{seat} loses its {colour} coin {rewards[seat]:+g}")
        return told

    def _marks(self, state: CoinState, index: int) -> list[Mark]:
        pitch, event = 0.8 / self.size, int(state.taken[index])

        def centre(cell: int) -> tuple[float, float]:
            return 0.1 + pitch * (cell % self.size + 0.5), 0.12 + pitch * (cell // self.size + 0.5)

        marks = [Mark("box", *centre(cell), 0.92 * pitch, CELL) for cell in range(self.size**2)]
        marks.append(Mark("disc", *centre(int(state.coin[index])), 0.4 * pitch, COLOURS[int(state.owner[index])]))
        cells = state.cells[index].tolist()
        for seat, cell in enumerate(cells):
            x, y = centre(cell)
            # Two in one cell stand side by side.
            x += (seat - 0.5) * 0.44 * pitch if cells[0] == cells[1] else 0.0
            marks += [Mark("box", x, y, 0.42 * pitch, COLOURS[seat]), Mark("text", x, y, 0.28 * pitch, (255, 255, 255), str(seat))]
        rewards = self._tables(torch.device("cpu")).outcome[0, event].tolist() if event else [0.0, 0.0]
        for seat, x in ((0, 0.3), (1, 0.7)):
            marks.append(Mark("text", x, 0.96, 0.06, COLOURS[seat], f"player_{seat} {rewards[seat]:+g}"))
        return marks

    def _free_cell(self, cells: Int64[Tensor, "B 2"], draw: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
        """A cell without a player, each with the same chance; draw: 64 random bits."""
        first, second = cells.unbind(1)
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        is_same = first == second
        # The upper half of the bits times the number of free cells, as in `integers`.
        place = (draw >> 32).bitwise_and_(0xFFFFFFFF).mul_(is_same + (self.size**2 - 2)).bitwise_right_shift_(32)
        place.add_(place >= low)
        return place.add_((place >= high).logical_and_(~is_same))

    @cached_property
    def _tables_by_device(self) -> dict[torch.device, _Tables]:
        return {}

    def _tables(self, device: torch.device) -> _Tables:
        tables = self._tables_by_device.get(device)
        if tables is None:
            tables = self._tables_by_device[device] = self._make_tables(device)
        return tables

    def _make_tables(self, device: torch.device) -> _Tables:
        n, cells = self.size, range(self.size**2)
        moves = list(MOVES.values())[: self.moves]
        moved = [(cell // n + down) % n * n + (cell + right) % n for cell in cells for down, right in moves]
        offset = [(to // n - cell // n) % n * n + (to - cell) % n for cell in cells for to in cells]
        outcome = [[self._outcome_of(event, seat) for seat in range(2)] for event in range(8)]
        return _Tables(
            torch.tensor(moved, device=device),
            torch.tensor(offset, device=device),
            torch.tensor(outcome, dtype=torch.float32, device=device).permute(2, 0, 1).contiguous(),
            torch.arange(2, device=device),
        )

    def _outcome_of(self, event: int, seat: int) -> tuple[float, float, float, float]:
        """(reward, own coins, the other's, own share) of a seat. event: bits for player_0 took, player_1 took, the coin is player_1's."""
        took, other_took, owns = event >> seat & 1, event >> (1 - seat) & 1, event >> 2 == seat
        reward = took - (self.penalty if owns and other_took else 0.0)
        return reward, float(took and owns), float(took and not owns), float(owns) if took else math.nan


def coin_game() -> CoinGame:
    """Coin Game on a torus of 3 by 3 for 150 steps (Lerer and Peysakhovich 2017, Foerster et al. 2018)."""
    return CoinGame()
