"""Finite-state strategies for two-action dilemmas: a small number of states, moved between by what is seen.

A state says with what probability to cooperate; the round that follows (CC, CD, DC, DD, own action first) says which state is next. Where a
game starts again within a trial, no round was seen and the state stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from agents.co_players.luck import luck_of
from agents.co_players.tables import decide, on_device, surely
from agents.occupant import Decision
from envs.game import Observation

ROUNDS = ("CC", "CD", "DC", "DD")


class MachineState(NamedTuple):
    """place: which of the machine's states. luck, clock: the stream of its actions, and steps taken."""

    place: Int64[Tensor, "N"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@dataclass(frozen=True)
class Machine:
    """cooperates: the probability in each of S states. follows: S times the state after CC, CD, DC and DD. The first state is number 0."""

    cooperates: tuple[float, ...]
    follows: tuple[tuple[int, ...], ...]

    reads: ClassVar[dict[str, int]] = {"outcome": 5}

    def start(self, seeds: Int64[Tensor, "N"]) -> MachineState:
        zero = torch.zeros_like(seeds)
        return MachineState(zero, luck_of(seeds), zero)

    def act(self, observation: Observation, state: MachineState, reward: Tensor | None = None) -> tuple[Decision, MachineState]:
        outcome = observation["outcome"]
        place = on_device(self._following, outcome.device, torch.int64)[5 * state.place + outcome]
        cooperates = on_device(self.cooperates, outcome.device)[place]
        decision = surely(cooperates) if self._is_sure else decide(cooperates, state.luck, state.clock)
        return decision, MachineState(place, state.luck, state.clock + 1)

    @cached_property
    def _is_sure(self) -> bool:
        return set(self.cooperates) <= {0.0, 1.0}

    @cached_property
    def _following(self) -> tuple[int, ...]:
        """For each state and each of the five symbols. The start, no round seen, stays."""
        return tuple(place for stay, row in enumerate(self.follows) for place in (stay, *row))


def machine(*states: tuple[str, int, int]) -> Machine:
    """A machine that watches the other alone: what it does in each state, the state after the other's C, and after the other's D."""
    cooperates = tuple(float(letter == "C") for letter, _, _ in states)
    return Machine(cooperates, tuple((after_c, after_d, after_c, after_d) for _, after_c, after_d in states))


def recalling(rounds: int, cooperates: Callable[[str, str], bool]) -> Machine:
    """A machine that recalls the last few rounds: cooperates(own letters, the other's letters), oldest first, fewer at the beginning."""
    histories = [history for length in range(rounds + 1) for history in product(ROUNDS, repeat=length)]
    number = {history: place for place, history in enumerate(histories)}
    answers = [cooperates("".join(seen[0] for seen in history), "".join(seen[1] for seen in history)) for history in histories]
    follows = [tuple(number[(*history, seen)[-rounds:]] for seen in ROUNDS) for history in histories]
    return Machine(tuple(map(float, answers)), tuple(follows))


def tit_for_two_tats() -> Machine:
    """Defects only after two defections in a row (Axelrod 1984)."""
    return recalling(2, lambda own, other: other != "DD")


def two_tits_for_tat() -> Machine:
    """Answers every defection by two (Axelrod 1984)."""
    return recalling(2, lambda own, other: "D" not in other)


def hard_tit_for_tat() -> Machine:
    """Defects if the other defected in any of the last three rounds (Axelrod library)."""
    return recalling(3, lambda own, other: "D" not in other)


def hard_tit_for_two_tats() -> Machine:
    """Defects if the other defected twice in a row in the last three rounds (Stewart and Plotkin 2012)."""
    return recalling(3, lambda own, other: "DD" not in other)


def slow_tit_for_tat() -> Machine:
    """Does what the other did twice in a row; until then it repeats itself (PRISON project 1998)."""
    return recalling(2, lambda own, other: len(other) < 2 or (other[1] if other[0] == other[1] else own[1]) == "C")


def nydegger() -> Machine:
    """Opens almost as tit-for-tat, then weighs the last three rounds (Nydegger, in Axelrod 1980).

    A defection of the other counts 2, an own one 1, and the three rounds, latest first, 16, 4 and 1 (so the Axelrod library reads the
    paper's "in chronological order"). It defects on the sums listed.
    """
    defects_on = {1, 6, 7, 17, 22, 23, 26, 29, 30, 31, 33, 38, 39, 45, 49, 54, 55, 58, 61}

    def cooperates(own: str, other: str) -> bool:
        if len(other) < 3:
            return not other.endswith("D") and (own, other) != ("CD", "DC")
        sums = (2 * (theirs == "D") + (mine == "D") for mine, theirs in zip(own, other, strict=True))
        return sum(weight * value for weight, value in zip((1, 4, 16), sums, strict=True)) not in defects_on

    return recalling(3, cooperates)


def grim_trigger() -> Machine:
    """Cooperates until the other defects once, then defects for ever (Friedman 1971)."""
    return machine(("C", 0, 1), ("D", 1, 1))


def soft_grudger() -> Machine:
    """Punishes a defection with four, then makes up with two cooperations (Li et al. 2011)."""
    return machine(("C", 0, 1), ("D", 2, 2), ("D", 3, 3), ("D", 4, 4), ("D", 5, 5), ("C", 6, 6), ("C", 0, 1))


def fool_me_once() -> Machine:
    """Forgives one defection; after the second it defects for ever (Harper, in the Axelrod library)."""
    return machine(("C", 0, 1), ("C", 1, 2), ("D", 2, 2))


def spiteful_tit_for_tat() -> Machine:
    """Tit-for-tat until the other defects twice in a row, then defects for ever (PRISON project 1998)."""
    return machine(("C", 0, 1), ("D", 0, 2), ("D", 2, 2))


def davis(rounds: int = 10) -> Machine:
    """Cooperates for ten rounds, then defects for ever if the other ever did (Davis, in Axelrod 1980)."""
    if not 0 <= rounds <= 1000:
        raise ValueError(f"rounds is {rounds}; want from 0 to 1,000")
    # Two states for every round: nothing has happened, or a defection has.
    opening = [("C", 2 * k + 2, 2 * k + 3) if not provoked else ("C", 2 * k + 3, 2 * k + 3) for k in range(rounds) for provoked in (0, 1)]
    return machine(*opening, ("C", 2 * rounds, 2 * rounds + 1), ("D", 2 * rounds + 1, 2 * rounds + 1))


def prober() -> Machine:
    """Opens DCC; defects for ever if C came in rounds 2 and 3, else tit-for-tat (Li et al. 2011)."""
    return machine(("D", 1, 1), ("C", 2, 3), ("C", 4, 6), ("C", 5, 6), ("D", 4, 4), ("C", 5, 6), ("D", 5, 6))


def prober_2() -> Machine:
    """Opens DCC; cooperates for ever if DC came in rounds 2 and 3, else tit-for-tat (PRISON 1998)."""
    return machine(("D", 1, 1), ("C", 3, 2), ("C", 4, 6), ("C", 5, 6), ("C", 4, 4), ("C", 5, 6), ("D", 5, 6))


def prober_3() -> Machine:
    """Opens DC; defects for ever if C came in round 2, else tit-for-tat (PRISON project 1998)."""
    return machine(("D", 1, 1), ("C", 2, 4), ("D", 2, 2), ("C", 3, 4), ("D", 3, 4))


def hard_prober() -> Machine:
    """Opens DDCC; defects for ever if C came in rounds 2 and 3, else tit-for-tat (PRISON project 1998)."""
    return machine(("D", 1, 1), ("D", 2, 3), ("C", 4, 5), ("C", 5, 5), ("C", 6, 6), ("C", 7, 8), ("D", 6, 6), ("C", 7, 8), ("D", 7, 8))


def handshake() -> Machine:
    """Opens CD; cooperates for ever with whoever opened the same way, else defects for ever (Robson 1990)."""
    return machine(("C", 1, 2), ("D", 4, 3), ("D", 4, 4), ("C", 3, 3), ("D", 4, 4))


def cycler(pattern: str = "CCD") -> Machine:
    """Repeats a pattern of letters for ever, CCD unless given (Mittal and Deb 2009)."""
    if not pattern or set(pattern) - set("CD"):
        raise ValueError(f"pattern is {pattern!r}; want letters C and D, such as 'CCD'")
    follows = [(place + 1) % len(pattern) for place in range(len(pattern))]
    return machine(*zip(pattern, follows, follows, strict=True))


def contrite_tit_for_tat() -> Machine:
    """Tit-for-tat that takes the answer to its own slip without paying it back (Boyd 1989).

    The rules of standing (see also Wu and Axelrod 1995): both begin in good standing. Whoever defects loses it, unless the other was in
    bad standing while they were in good; cooperation restores it. It defects if it is in good standing and the other is not.
    """
    standings = [(mine, theirs) for mine in (True, False) for theirs in (True, False)]

    def after(mine: bool, theirs: bool, seen: str) -> tuple[bool, bool]:
        return seen[0] == "C" or (mine and not theirs), seen[1] == "C" or (theirs and not mine)

    follows = [tuple(standings.index(after(*standing, seen)) for seen in ROUNDS) for standing in standings]
    return Machine(tuple(float(standing != (True, False)) for standing in standings), tuple(follows))


def remorseful_prober(defection: float = 0.1) -> Machine:
    """Tit-for-tat that tries a defection one time in ten, and takes the answer to it (Dawkins 1989).

    The answer is a defection in the round after the one it tried. In the Axelrod library it is one in the same round.
    """
    if not 0 <= defection <= 1:
        raise ValueError(f"defection is {defection}; want a probability from 0 to 1")
    opening, trusting, probed, answering, sorry = range(5)
    cooperates = {opening: 1.0, trusting: 1 - defection, probed: 1 - defection, answering: 0.0, sorry: 1.0}
    follows = dict.fromkeys((opening, answering, sorry), (trusting, answering, trusting, answering))
    follows |= {trusting: (trusting, answering, probed, answering), probed: (trusting, sorry, probed, sorry)}
    return Machine(tuple(cooperates.values()), tuple(follows[place] for place in cooperates))
