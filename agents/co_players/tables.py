"""Memory-one strategies for two-action dilemmas: a probability to cooperate for each of five situations.

The situations are the symbols of `envs.iterated_dilemma`: start, CC, CD, DC, DD, own action first. Action 0 is cooperate, 1 is defect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from agents.co_players.luck import luck_of
from agents.occupant import Decision
from envs.chance import Purpose, categorical, fold, uniform
from envs.game import Observation

SITUATIONS = ("start", "CC", "CD", "DC", "DD")

Five = tuple[float, float, float, float, float]


class TableState(NamedTuple):
    """cooperates: [N, 5] probabilities, fixed for the trial. luck, clock: the stream of its actions, and steps taken."""

    cooperates: Float[Tensor, "N 5"]
    luck: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@cache
def on_device(values: tuple[float, ...] | tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers as a tensor [len(values)], copied once: a copy to a GPU would make every later step wait."""
    return torch.tensor(values, dtype=dtype, device=device)


def decide(cooperates: Float[Tensor, "N"], luck: Int64[Tensor, "N"], clock: Int64[Tensor, "N"]) -> Decision:
    """Cooperates with the given probabilities: 1 is sure to, 0 is sure not to. luck: `luck_of` the seeds. clock: steps taken."""
    action = (uniform(luck, clock) >= cooperates).long()
    return Decision(action, policy=torch.stack([cooperates, 1 - cooperates], -1))


def surely(cooperates: Float[Tensor, "N"]) -> Decision:
    """What `decide` makes of probabilities that are all 0 or 1, without a draw."""
    defects = 1 - cooperates
    return Decision(defects.long(), policy=torch.stack([cooperates, defects], -1))


class _PlaysATable:
    reads: ClassVar[dict[str, int]] = {"outcome": 5}
    # Whether all its probabilities are 0 or 1.
    is_sure = False

    def act(self, observation: Observation, state: TableState, reward: Tensor | None = None) -> tuple[Decision, TableState]:
        cooperates = state.cooperates.gather(1, observation["outcome"][:, None])[:, 0]
        decision = surely(cooperates) if self.is_sure else decide(cooperates, state.luck, state.clock)
        return decision, state._replace(clock=state.clock + 1)

    def cooperates_in(self, state: TableState) -> Float[Tensor, "N 5"]:
        """Its probabilities to cooperate in the five situations."""
        return state.cooperates


@dataclass(frozen=True)
class Table(_PlaysATable):
    """The same five probabilities in every trial, tit-for-tat's unless given.

    cooperates: at first, and after CC, CD, DC and DD, one's own action first.
    """

    cooperates: Five = (1.0, 1.0, 0.0, 1.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.cooperates) != 5 or not all(0 <= p <= 1 for p in self.cooperates):
            raise ValueError(f"cooperates is {self.cooperates}; want five probabilities, for {', '.join(SITUATIONS)}")

    @cached_property
    def is_sure(self) -> bool:  # type: ignore[override]
        return set(self.cooperates) <= {0.0, 1.0}

    def start(self, seeds: Int64[Tensor, "N"]) -> TableState:
        cooperates = on_device(self.cooperates, seeds.device).expand(len(seeds), 5)
        return TableState(cooperates, luck_of(seeds), torch.zeros_like(seeds))


@dataclass(frozen=True)
class Drawn:
    """Probabilities drawn anew for every trial, independently, from Kumaraswamy's distribution (1980).

    a, b: its two shapes, above 0, for all probabilities or one for each; 1 and 1 are uniform, a larger `a` cooperates more, a larger `b`
    less. levels: 0 leaves them as they are; n from 2 rounds them to n evenly spaced ones from 0 to 1, to each an n-th of a uniform
    distribution, so that 2 gives pure strategies.
    """

    a: float | tuple[float, ...] = 1.0
    b: float | tuple[float, ...] = 1.0
    levels: int = 0

    count: ClassVar[int]

    def __post_init__(self) -> None:
        for name, shape in (("a", self.a), ("b", self.b)):
            shapes = shape if isinstance(shape, tuple) else (shape,) * self.count
            if len(shapes) != self.count or not all(0 < value < math.inf for value in shapes):
                raise ValueError(f"{name} is {shape}; want one number above 0, or {self.count} of them")
        if self.levels < 0 or self.levels == 1:
            raise ValueError(f"levels is {self.levels}; want 0 (any probability) or at least 2")

    def draw(self, seeds: Int64[Tensor, "N"]) -> Float[Tensor, "N K"]:
        """K = count probabilities for each seed."""
        drawn = uniform(fold(seeds, Purpose.PARAMETERS)[:, None], torch.arange(self.count, device=seeds.device))
        if (self.a, self.b) != (1, 1):
            # In double precision, so that devices agree on what is left in single.
            a, b = (self._exponents(shape, seeds.device) for shape in (self.a, self.b))
            drawn = (1 - (1 - drawn.double()) ** b).pow(a).float()
        if self.levels:
            drawn = (drawn * self.levels).floor().clamp(max=self.levels - 1) / (self.levels - 1)
        return drawn

    def _exponents(self, shape: float | tuple[float, ...], device: torch.device) -> Float[Tensor, "K"]:
        shapes = shape if isinstance(shape, tuple) else (shape,) * self.count
        return on_device(tuple(1 / value for value in shapes), device, torch.float64)


@dataclass(frozen=True)
class RandomTable(Drawn, _PlaysATable):
    """Five probabilities drawn anew for every trial, each from U(0, 1) (Weis et al. 2026, A.3.3)."""

    count: ClassVar[int] = 5

    def start(self, seeds: Int64[Tensor, "N"]) -> TableState:
        return TableState(self.draw(seeds), luck_of(seeds), torch.zeros_like(seeds))


@dataclass(frozen=True)
class RandomReactive(Drawn, _PlaysATable):
    """A reactive strategy drawn anew for every trial: three probabilities (Nowak and Sigmund 1990)."""

    count: ClassVar[int] = 3

    def start(self, seeds: Int64[Tensor, "N"]) -> TableState:
        start, after_c, after_d = self.draw(seeds).unbind(1)
        cooperates = torch.stack([start, after_c, after_d, after_c, after_d], 1)
        return TableState(cooperates, luck_of(seeds), torch.zeros_like(seeds))


@dataclass(frozen=True)
class AmongTables(_PlaysATable):
    """One of several tables, drawn anew for every trial by their weights (all alike unless given).

    tables: unless given, always cooperate, always defect, tit-for-tat and win-stay-lose-shift.
    """

    tables: tuple[Five, ...] = (
        (1.0, 1.0, 1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (1.0, 1.0, 0.0, 1.0, 0.0),
        (1.0, 1.0, 0.0, 0.0, 1.0),
    )
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.tables or not all(len(table) == 5 and all(0 <= p <= 1 for p in table) for table in self.tables):
            raise ValueError(f"tables is {self.tables}; want one or more of five probabilities, for {', '.join(SITUATIONS)}")
        if self.weights and not (
            len(self.weights) == len(self.tables) and all(0 <= weight < math.inf for weight in self.weights) and sum(self.weights) > 0
        ):
            raise ValueError(f"weights is {self.weights}; want {len(self.tables)} numbers from 0, not all 0")

    def start(self, seeds: Int64[Tensor, "N"]) -> TableState:
        weights = on_device(self.weights or (1.0,) * len(self.tables), seeds.device)
        which = categorical(weights.expand(len(seeds), -1), uniform(seeds, Purpose.PARAMETERS))
        tables = on_device(tuple(p for table in self.tables for p in table), seeds.device).unflatten(0, (-1, 5))
        return TableState(tables[which], luck_of(seeds), torch.zeros_like(seeds))


def always_cooperate() -> Table:
    """Cooperates whatever happens."""
    return Table((1.0, 1.0, 1.0, 1.0, 1.0))


def always_defect() -> Table:
    """Defects whatever happens."""
    return Table((0.0, 0.0, 0.0, 0.0, 0.0))


def random(cooperation: float = 0.5) -> Table:
    """Cooperates half the time, or with the probability given.

    cooperation: that probability.
    """
    return Table((cooperation,) * 5)


def reactive(start: float = 1.0, after_c: float = 1.0, after_d: float = 0.0) -> Table:
    """Looks at nothing but the other's last action; tit-for-tat unless given (Nowak and Sigmund 1990).

    start, after_c, after_d: how probably it cooperates at first, and after the other did, or did not.
    """
    return Table((start, after_c, after_d, after_c, after_d))


def tit_for_tat() -> Table:
    """Opens with cooperation, then repeats the other's last action (Rapoport, in Axelrod 1980)."""
    return reactive(1.0, 1.0, 0.0)


def suspicious_tit_for_tat() -> Table:
    """Opens with defection, then repeats the other's last action (Boyd and Lorberbaum 1987)."""
    return reactive(0.0, 1.0, 0.0)


def generous_tit_for_tat(generosity: float = 1 / 3) -> Table:
    """Tit-for-tat that forgives a defection with the given probability (Nowak and Sigmund 1992).

    generosity: that probability.
    """
    return reactive(1.0, 1.0, generosity)


def anti_tit_for_tat() -> Table:
    """Opens with cooperation, then does the opposite of the other's last action (Hilbe et al. 2013)."""
    return reactive(1.0, 0.0, 1.0)


def bully() -> Table:
    """Opens with defection, then does the opposite of the other's last action (Nachbar 1992)."""
    return reactive(0.0, 0.0, 1.0)


def joss(cooperation: float = 0.9) -> Table:
    """Tit-for-tat that answers cooperation by a defection one time in ten (Axelrod 1980).

    cooperation: how probably it does not.
    """
    return reactive(1.0, cooperation, 0.0)


def win_stay_lose_shift() -> Table:
    """Repeats its action if the other cooperated, else changes it (Nowak and Sigmund 1993)."""
    return Table((1.0, 1.0, 0.0, 0.0, 1.0))


def appeaser() -> Table:
    """Changes its action whenever the other defects: win-stay-lose-shift by Axelrod's library's name."""
    return win_stay_lose_shift()


def win_shift_lose_stay() -> Table:
    """Opens with defection; changes its action if the other cooperated, else repeats it (Li et al. 2011)."""
    return Table((0.0, 0.0, 1.0, 1.0, 0.0))


def firm_but_fair(forgiveness: float = 2 / 3) -> Table:
    """Defects if it was cheated, mostly offers peace after mutual defection (Frean 1994).

    forgiveness: how probably it offers that.
    """
    return Table((1.0, 1.0, 0.0, 1.0, forgiveness))


def grofman(cooperation: float = 2 / 7) -> Table:
    """Cooperates if both did the same, else with probability 2/7 (Axelrod 1980).

    cooperation: that probability.
    """
    return Table((1.0, 1.0, cooperation, cooperation, 1.0))


def alternator() -> Table:
    """Opens with cooperation, then does the opposite of its own last action (Axelrod 1984)."""
    return Table((1.0, 0.0, 0.0, 1.0, 1.0))


def zero_determinant(
    slope: float = 0.5,
    baseline: float = 0.5,
    scale: float = 1.0,
    start: float = 1.0,
    temptation: float = 2.0,
    mutual: float = 1.0,
    punishment: float = 0.0,
    sucker: float = -1.0,
) -> Table:
    """Ties the other's surplus over a baseline to `slope` times its own (Press and Dyson 2012).

    slope: 1 / chi, as in Hilbe, Nowak and Sigmund 2013: 1 is tit-for-tat's, 0 sets the other's long-run payoff to the baseline whatever
    it does, and some below 0 exist. baseline: kappa, a payoff from mutual defection's (extortion) to mutual cooperation's (generosity).
    scale: phi, as a share of the largest that leaves probabilities; it says how fast, not what, is enforced. start: probability to open
    with cooperation. The payoffs (temptation, mutual, punishment, sucker)
    default to those of `envs.iterated_dilemma`. Raises ValueError where no such table exists.
    """
    # How far each situation lies from the line: CC, CD, DC, DD.
    gaps = (
        (1 - slope) * (mutual - baseline),
        (temptation - baseline) + slope * (baseline - sucker),
        (baseline - sucker) + slope * (temptation - baseline),
        (1 - slope) * (baseline - punishment),
    )
    if not all(0 <= gap < math.inf for gap in gaps) or max(gaps) == 0:
        raise ValueError(
            f"slope is {slope} and baseline is {baseline}; no such table, want a slope from 0 to 1 and a baseline from {punishment} "
            f"to {mutual} (mutual defection's and cooperation's payoffs)"
        )
    if not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}; want a share above 0, up to 1, of the largest feasible one")
    after_cc, after_cd, after_dc, after_dd = (scale * gap / max(gaps) for gap in gaps)
    return Table((start, 1 - after_cc, 1 - after_cd, after_dc, after_dd))


def extortion(
    slope: float = 2.0, temptation: float = 2.0, mutual: float = 1.0, punishment: float = 0.0, sucker: float = -1.0, scale: float = 1.0
) -> Table:
    """Its surplus over mutual defection is `slope` times the other's (Press and Dyson 2012, eq. 14).

    slope: their chi. It opens with defection. scale and the payoffs, temptation, mutual, punishment
    and sucker, are those of `zero_determinant`.
    """
    return zero_determinant(1 / _at_least_one(slope), punishment, scale, 0.0, temptation, mutual, punishment, sucker)


def generosity(
    slope: float = 2.0, temptation: float = 2.0, mutual: float = 1.0, punishment: float = 0.0, sucker: float = -1.0, scale: float = 1.0
) -> Table:
    """Lacks `slope` times as much to mutual cooperation as the other (Stewart and Plotkin 2013).

    slope: their chi. It opens with cooperation. scale and the payoffs, temptation, mutual, punishment
    and sucker, are those of `zero_determinant`.
    """
    return zero_determinant(1 / _at_least_one(slope), mutual, scale, 1.0, temptation, mutual, punishment, sucker)


def equalizer(
    baseline: float = 0.5, temptation: float = 2.0, mutual: float = 1.0, punishment: float = 0.0, sucker: float = -1.0, scale: float = 1.0
) -> Table:
    """Sets the other's long-run payoff, whatever the other does (Boerlijst, Nowak and Sigmund 1997).

    baseline: the payoff set. scale and the payoffs, temptation, mutual, punishment
    and sucker, are those of `zero_determinant`.
    """
    return zero_determinant(0.0, baseline, scale, 1.0, temptation, mutual, punishment, sucker)


def _at_least_one(slope: float) -> float:
    if not slope >= 1:
        raise ValueError(f"slope is {slope}; want at least 1 (1 is tit-for-tat's)")
    return slope
