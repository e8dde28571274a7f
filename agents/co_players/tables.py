"""Memory-one strategies for two-action dilemmas: a probability to cooperate for each of five situations.

The situations are the symbols of `envs.iterated_dilemma`: start, CC, CD, DC, DD, own action first. Action 0 is cooperate, 1 is defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from agents.occupant import Decision
from envs.chance import Purpose, fold, uniform
from envs.game import Observation

SITUATIONS = ("start", "CC", "CD", "DC", "DD")


class TableState(NamedTuple):
    """cooperates: [N, 5] probabilities, fixed for the trial. seed, clock: luck, and steps taken."""

    cooperates: Float[Tensor, "N 5"]
    seed: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


@cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Float[Tensor, "5"]:
    """Copied once: a copy to a GPU would make every later start wait."""
    return torch.tensor(values, device=device)


class _PlaysATable:
    reads: ClassVar[dict[str, int]] = {"outcome": 5}

    def act(self, observation: Observation, state: TableState, reward: Tensor | None = None) -> tuple[Decision, TableState]:
        cooperates = state.cooperates.gather(1, observation["outcome"][:, None])[:, 0]
        action = (uniform(state.seed, Purpose.ACTION, state.clock) >= cooperates).long()
        policy = torch.stack([cooperates, 1 - cooperates], -1)
        return Decision(action, policy=policy), TableState(state.cooperates, state.seed, state.clock + 1)


@dataclass(frozen=True)
class Table(_PlaysATable):
    """The same five probabilities in every trial."""

    cooperates: tuple[float, float, float, float, float]

    def __post_init__(self) -> None:
        if len(self.cooperates) != 5 or not all(0 <= p <= 1 for p in self.cooperates):
            raise ValueError(f"cooperates is {self.cooperates}; want five probabilities, for {', '.join(SITUATIONS)}")

    def start(self, seeds: Int64[Tensor, "N"]) -> TableState:
        cooperates = _on_device(self.cooperates, seeds.device).expand(len(seeds), 5)
        return TableState(cooperates, seeds, torch.zeros_like(seeds))


@dataclass(frozen=True)
class RandomTable(_PlaysATable):
    """Five probabilities drawn anew for every trial, each from U(0, 1) (Weis et al. 2026, A.3.3)."""

    def start(self, seeds: Int64[Tensor, "N"]) -> TableState:
        cooperates = uniform(fold(seeds, Purpose.PARAMETERS)[:, None], torch.arange(5, device=seeds.device))
        return TableState(cooperates, seeds, torch.zeros_like(seeds))


def always_cooperate() -> Table:
    """Cooperates whatever happens."""
    return Table((1.0, 1.0, 1.0, 1.0, 1.0))


def always_defect() -> Table:
    """Defects whatever happens."""
    return Table((0.0, 0.0, 0.0, 0.0, 0.0))


def tit_for_tat() -> Table:
    """Opens with cooperation, then repeats the other's last action (Rapoport, in Axelrod 1980)."""
    return Table((1.0, 1.0, 0.0, 1.0, 0.0))


def generous_tit_for_tat(generosity: float = 1 / 3) -> Table:
    """Tit-for-tat that forgives a defection with the given probability (Nowak and Sigmund 1992)."""
    return Table((1.0, 1.0, generosity, 1.0, generosity))


def win_stay_lose_shift() -> Table:
    """Repeats its action after the other cooperated, changes it after the other defected (Nowak and Sigmund 1993)."""
    return Table((1.0, 1.0, 0.0, 0.0, 1.0))


def random() -> Table:
    """Cooperates half the time."""
    return Table((0.5, 0.5, 0.5, 0.5, 0.5))


def extortion(slope: float = 2.0, temptation: float = 2.0, mutual: float = 1.0, punishment: float = 0.0, sucker: float = -1.0) -> Table:
    """Zero-determinant extortion: its surplus over mutual defection is `slope` times the other's (Press and Dyson 2012, eq. 14).

    The payoffs default to those of `envs.iterated_dilemma`. The strategy's free scale is set to its largest value; it opens with defection.
    """
    if slope < 1:
        raise ValueError(f"slope is {slope}; want at least 1 (1 is tit-for-tat's)")
    loss, gain = punishment - sucker, temptation - punishment
    scale = min(loss / (loss + slope * gain), loss / (loss * slope + gain))
    after_cc = 1 - scale * (slope - 1) * (mutual - punishment) / loss
    after_cd = 1 - scale * (1 + slope * gain / loss)
    after_dc = scale * (slope + gain / loss)
    return Table((0.0, after_cc, max(0.0, after_cd), min(1.0, after_dc), 0.0))
