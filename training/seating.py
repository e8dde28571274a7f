"""Who sits in which seat of which game of a batch, for one trial."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from envs.game import Game, Role, seat_count, seats_of


class Seating(NamedTuple):
    """occupants: their names. seats: [B, P], which of them sits in each seat. kinds: names of groups of games (for metrics, and for
    advantages centred per kind). kind: [B], which group a game belongs to.
    """

    occupants: tuple[str, ...]
    seats: Int64[Tensor, "B P"]
    kinds: tuple[str, ...]
    kind: Int64[Tensor, "B"]

    def part(self, first: int, last: int) -> Seating:
        """Games first .. last-1."""
        return self._replace(seats=self.seats[first:last], kind=self.kind[first:last])


class Group(NamedTuple):
    """All seats of one role that one occupant holds: one gather, one forward, one scatter per step.

    rows: [N] into the role's [B * seats]. games: [N]. seats: [N], numbers among all P.
    """

    occupant: str
    role: Role
    rows: Int64[Tensor, "N"]
    games: Int64[Tensor, "N"]
    seats: Int64[Tensor, "N"]


def group_seats(game: Game, seating: Seating, device: torch.device) -> tuple[Group, ...]:
    """The groups of a seating, ordered by occupant, then role; rows ordered by game.

    Raises ValueError where the seating does not fit the game or a seat is empty.
    """
    seats = seating.seats
    if seats.shape[1] != seat_count(game):
        raise ValueError(f"the seating has {seats.shape[1]} seats, {type(game).__name__} has {seat_count(game)}; want an occupant for each")
    if int(seats.min()) < 0 or int(seats.max()) >= len(seating.occupants):
        raise ValueError(f"a seat holds occupant number {int(seats.min())} to {int(seats.max())}; want 0 to {len(seating.occupants) - 1}")
    groups = []
    first_seat: dict[str, int] = {}
    for number, (_, role, _) in enumerate(seats_of(game)):
        first_seat.setdefault(role.name, number)
    for index, occupant in enumerate(seating.occupants):
        for role in game.roles:
            first = first_seat[role.name]
            games, within = (seats[:, first : first + role.seats] == index).nonzero(as_tuple=True)
            if len(games):
                rows = games * role.seats + within
                groups.append(Group(occupant, role, rows.to(device), games.to(device), (first + within).to(device)))
    return tuple(groups)


def one_table(names: tuple[str, ...], trials: int, kind: str = "all") -> Seating:
    """The same occupants at every game: names[p] in seat p."""
    occupants = tuple(dict.fromkeys(names))
    seats = torch.tensor([[occupants.index(name) for name in names]]).expand(trials, -1)
    return Seating(occupants, seats, (kind,), torch.zeros(trials, dtype=torch.int64))
