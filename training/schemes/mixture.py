"""A fixed mixture of pairings: each has a weight, and gets that share of the games of every iteration."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from agents.co_players import CO_PLAYERS
from envs.game import Game, seat_count
from training.population import members
from training.seating import Seating
from training.settings import BadInput, split_outside_brackets


@dataclass(frozen=True)
class Pairing:
    """seats: one name per seat of the game, in its order. kind: what metrics call these games. weight: relative share of the games."""

    seats: tuple[str, ...]
    kind: str
    weight: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """names: who learns; every other name in a pairing is a co-player's.

    Within a role the names move one seat further from game to game, so that everyone sits everywhere equally often.
    """

    names: tuple[str, ...]
    pairings: tuple[Pairing, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("names is empty; want at least one learner")
        wrong = [name for name in self.names if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in CO_PLAYERS]
        if wrong:
            raise ValueError(f"names has {wrong[0]!r}; want letters, digits, _ and - (a directory is named so), and no co-player's name")
        if not self.pairings or any(not 0 < pairing.weight < math.inf for pairing in self.pairings):
            raise ValueError("pairings: want at least one, each with a weight above 0")
        idle = sorted(set(self.names) - {name for pairing in self.pairings for name in pairing.seats})
        if idle:
            raise ValueError(f"names has {', '.join(idle)}, who sits in no pairing")

    def learners(self, game: Game) -> tuple[str, ...]:
        return self.names

    def co_players(self, game: Game) -> tuple[str, ...]:
        names = dict.fromkeys(name for pairing in self.pairings for name in pairing.seats)
        return tuple(name for name in names if name not in self.names)

    def seat(self, game: Game, trials: int, iteration: int) -> Seating:
        """Whole shares in proportion to the weights; what is left over goes to the largest remainders."""
        occupants = self.names + self.co_players(game)
        kinds = tuple(dict.fromkeys(pairing.kind for pairing in self.pairings))
        total = sum(pairing.weight for pairing in self.pairings)
        exact = [pairing.weight / total * trials for pairing in self.pairings]
        shares = [int(share) for share in exact]
        for index in sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])[: trials - sum(shares)]:
            shares[index] += 1
        seats, kind = [], []
        for pairing, share in zip(self.pairings, shares, strict=True):
            if len(pairing.seats) != seat_count(game):
                raise ValueError(
                    f"the scheme seats {len(pairing.seats)} ({pairing.kind}), {type(game).__name__} has {seat_count(game)} seats; "
                    f"want a game of {len(pairing.seats)} seats or another scheme, such as scheme=self_play"
                )
            row = torch.tensor([occupants.index(name) for name in pairing.seats])
            seats.append(row[_rotations(game, share, iteration)])
            kind.append(torch.full((share,), kinds.index(pairing.kind)))
        return Seating(occupants, torch.cat(seats), kinds, torch.cat(kind))


def _rotations(game: Game, games: int, first_turn: int) -> torch.Tensor:
    """[games, P]: from which place of the pairing each seat takes its name; every role turns by itself."""
    columns = []
    first = 0
    turn = torch.arange(first_turn, first_turn + games)[:, None]
    for role in game.roles:
        columns.append(first + (torch.arange(role.seats) + turn) % role.seats)
        first += role.seats
    return torch.cat(columns, 1)


def mixed_pool(share_of_learners: float = 0.5, co_players: str = "random_table") -> Mixture:
    """Two learners, each meeting the other in half of its trials and a fresh random table in the rest (Weis et al. 2026, section 2).

    `scheme=mixed_pool:tit_for_tat` puts someone else in the tables' place; see `weighted` for what can stand there.
    """
    # Of a learner's trials a share s is against the other. A learner-learner game is a trial of both, hence the weights s, 1-s, 1-s.
    learners = ("learner_0", "learner_1")
    pairings = [Pairing(learners, "learner", share_of_learners)]
    for learner in learners:
        pairings += [Pairing((learner, name), kind, (1 - share_of_learners) * share) for name, kind, share in weighted(co_players)]
    return Mixture(learners, tuple(pairing for pairing in pairings if pairing.weight > 0))


def best_response(co_players: str = "random_table") -> Mixture:
    """One learner against co-players who do not learn: it comes to play a best response to who they are (Weis et al. 2026, step 1).

    `scheme=best_response:tit_for_tat+2*runs/NAME` says against whom; see `weighted`.
    """
    return Mixture(("learner_0",), tuple(Pairing(("learner_0", name), kind, share) for name, kind, share in weighted(co_players)))


def weighted(text: str) -> list[tuple[str, str, float]]:
    """[(name, kind, share)] of a mixture such as `random_table+2*tit_for_tat+0.5*runs/NAME`; shares sum to 1.

    A term is a co-player's name, with settings if need be, or the path of an agent, of a directory of agents or of a run, all of whose
    agents then share its weight and are of one kind. Raises BadInput naming the term.
    """
    terms = []
    for term in split_outside_brackets(text, "+"):
        found = re.fullmatch(r"(?:([0-9.]+)\*)?(.+)", term.strip())
        try:
            weight = float(found[1] or 1) if found else 0.0
        except ValueError:
            weight = 0.0
        if found is None or not 0 < weight < math.inf:
            raise BadInput(f"{term!r} in {text!r} is no co-player with a weight above 0; write for example random_table+2*tit_for_tat")
        name = found[2]
        is_path = ":" not in name and name not in CO_PLAYERS and ("/" in name or Path(name).is_dir())
        names = members(name) if is_path else [name]
        kind = _short_name(name)
        terms += [(each, kind, weight / len(names)) for each in names]
    total = sum(weight for _, _, weight in terms)
    return [(name, kind, weight / total) for name, kind, weight in terms]


def _short_name(name: str) -> str:
    """What metrics call those behind a name: of a path the last part that says something."""
    parts = [part for part in name.split("/") if part not in ("", "population")]
    return parts[-1] if parts else name
