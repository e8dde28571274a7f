"""Public goods: everyone gives to a pot that grows and is shared by all; giving pays the group and costs the giver.

Actions: how much of the endowment to give, one of `levels` from nothing to all of it (or any share from 0 to 1 where `levels` is 0). Where
    members may punish or exclude, a round has a second step, and an action says everything at once: what to give, then the points for each
    of the others, then for each a vote to exclude (1) or not (0). Only what belongs to the step counts. The others are counted from
    the own seat on: of seat 2 of 4 they are seats 3, 0 and 1.
Observations: own first, then the others, counted likewise. `stage`, 0 the first giving of a game, 1 giving, 2 punishing and voting;
    `contributions`, everyone's last share given. Where members may punish, `lost`, the share of its income that the last punishment took;
    where they may exclude, `members`, 1 for who is one.
Reward: giving: what is kept, and the pot's yield, `multiplier` times the pot over the number of players, for every member. Punishing:
    minus what the own points cost, minus `point_harm` of this round's income for every point received, all of it at most.
Exclusion: a member against whom more than half of the other members vote is out for the rest of the game. It keeps its endowment every
    round, gives and gets nothing, and neither punishes nor votes nor is punished.
End: after `rounds` rounds.
Measures: `contribution`, the share given by each member; `punishment`, the points that each member gave; `members`, the share left.
Source: Fehr and Gaechter 2000 (American Economic Review 90): four players, 20 tokens, 0.4 for each token given, ten rounds; up to ten
    points at a convex cost, a tenth of the income each. Expelling by vote: Cinyabuguma, Page and Putterman 2005 (Journal of Public
    Economics 89), whose expelled play on among themselves; here they play no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from envs.game import Mark, Observation, Role, Scene, Turn

GREEN, RED, GREY, INK = (64, 145, 108), (200, 80, 72), (205, 208, 212), (40, 44, 52)
# Fehr and Gaechter 2000, table 2: what 0 to 10 points cost.
FEHR_GAECHTER_COSTS = (0.0, 1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 16.0, 20.0, 25.0, 30.0)


class GoodsState(NamedTuple):
    """contributions: shares given in the last giving. income: earned by it. points: [giver, receiver] of the last punishment. votes:
    against each in the last vote. members: who may take part.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    contributions: Float[Tensor, "B P"]
    income: Float[Tensor, "B P"]
    points: Int64[Tensor, "B P P"]
    votes: Int64[Tensor, "B P"]
    members: Bool[Tensor, "B P"]


class _Tables(NamedTuple):
    """own_first: [P, P] the seats as each seat counts them. place: [P, P] where each seat's row of the others has each seat, itself at the
    end. costs: of 0, 1, ... points.
    """

    own_first: Int64[Tensor, "P P"]
    place: Int64[Tensor, "P P"]
    costs: Float[Tensor, "points"]


@dataclass(frozen=True)
class PublicGoods:
    """players: P. endowment: tokens of each, every round. multiplier: by which the pot grows, between 1 and P in a dilemma. levels: amounts
    that can be given; 0: any.

    point_costs: of giving one player 0, 1, ... points; one number or none is no punishment. point_harm: the share of its income that a
    point takes from who receives it. exclusion: whether members vote. rounds: of the game.
    """

    players: int = 4
    endowment: float = 20.0
    multiplier: float = 1.6
    levels: int = 21
    point_costs: tuple[float, ...] = ()
    point_harm: float = 0.1
    exclusion: bool = False
    rounds: int = 10

    def __post_init__(self) -> None:
        if not 2 <= self.players <= 100:
            raise ValueError(f"players is {self.players}; want from 2 to 100")
        for name in ("endowment", "multiplier"):
            if not 1e-30 <= getattr(self, name) <= 1e30:
                raise ValueError(f"{name} is {getattr(self, name)}; want a finite number, from 1e-30 to 1e30")
        if self.multiplier * self.endowment > 1e30:
            raise ValueError(f"endowment is {self.endowment}: with multiplier {self.multiplier} incomes could pass 1e30; want less")
        if self.levels != 0 and not 2 <= self.levels <= 1000:
            raise ValueError(f"levels is {self.levels}; want from 2 to 1000, or 0 for any share")
        if self.levels == 0 and self.has_sanctions:
            raise ValueError("levels is 0; with punishment or exclusion want from 2 to 1000")
        if any(not 0.0 <= cost <= 1e30 for cost in self.point_costs) or self.point_costs[:1] not in ((), (0.0,)):
            raise ValueError(f"point_costs is {self.point_costs}; want costs from 0 to 1e30, the first 0, for no point")
        if not 0.0 <= self.point_harm <= 1.0:
            raise ValueError(f"point_harm is {self.point_harm}; want a share from 0 to 1")
        if not 1 <= self.rounds <= 1_000_000:
            raise ValueError(f"rounds is {self.rounds}; want from 1 to 1,000,000")

    @property
    def punishes(self) -> bool:
        return len(self.point_costs) > 1

    @property
    def has_sanctions(self) -> bool:
        """Whether a round has a second step."""
        return self.punishes or self.exclusion

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        fields: dict[str, gym.Space] = {
            "stage": gym.spaces.Discrete(3 if self.has_sanctions else 2),
            "contributions": gym.spaces.Box(0, 1, (self.players,), np.float32),
        }
        if self.punishes:
            fields["lost"] = gym.spaces.Box(0, 1, (), np.float32)
        if self.exclusion:
            fields["members"] = gym.spaces.MultiBinary(self.players)
        return (Role("player", self.players, gym.spaces.Dict(fields), self._action_space),)

    @property
    def _action_space(self) -> gym.Space:
        if self.levels == 0:
            return gym.spaces.Box(0, 1, (), np.float32)
        if not self.has_sanctions:
            return gym.spaces.Discrete(self.levels)
        others = self.players - 1
        points = [len(self.point_costs)] * others if self.punishes else []
        return gym.spaces.MultiDiscrete([self.levels, *points, *([2] * others if self.exclusion else [])])

    @property
    def max_steps(self) -> int:
        return self.rounds * (2 if self.has_sanctions else 1)

    def start(self, seeds: Int64[Tensor, "B"]) -> GoodsState:
        shape = (len(seeds), self.players)
        zeros = torch.zeros(shape, device=seeds.device)
        points = torch.zeros(*shape, self.players, dtype=torch.int64, device=seeds.device)
        members = torch.ones(shape, dtype=torch.bool, device=seeds.device)
        return GoodsState(seeds, torch.zeros_like(seeds), zeros, zeros, points, points[:, 0], members)

    def observe(self, state: GoodsState) -> dict[str, Observation]:
        own_first = self._tables(state.seed.device).own_first
        stage = (state.step > 0).long() + self._is_sanction(state)
        seen = {"stage": stage[:, None].expand(-1, self.players), "contributions": state.contributions[:, own_first]}
        if self.punishes:
            seen["lost"] = self._lost(state.points)
        if self.exclusion:
            seen["members"] = state.members[:, own_first].to(torch.int8)
        return {"player": seen}

    def step(self, state: GoodsState, actions: Mapping[str, Tensor]) -> tuple[GoodsState, Turn]:
        """actions: {"player": [B, P]}, or [B, P, numbers] where there are sanctions."""
        action = actions["player"]
        given = action[..., 0] if self.has_sanctions else action
        share = given.float() if self.levels == 0 else given / (self.levels - 1)
        contributions = share * state.members
        yielded = contributions.sum(1, keepdim=True) * (self.multiplier / self.players) * state.members
        income = (1 - contributions + yielded) * self.endowment
        step = state.step + 1
        over = step >= self.max_steps
        measured = {"contribution": share.masked_fill(~state.members, math.nan)}
        after = GoodsState(state.seed, step, contributions, income, state.points, state.votes, state.members)
        if not self.has_sanctions:
            return after, Turn({"player": income}, over, measured)
        sanctioned, change, sanctions = self._sanction(state._replace(step=step), action)
        is_sanction = self._is_sanction(state)
        whole = is_sanction[:, None]
        merged = (torch.where(is_sanction.reshape(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(sanctioned, after, strict=True))
        measures = {name: value.masked_fill(whole, math.nan) for name, value in measured.items()}
        for name, value in sanctions.items():
            measures[name] = value.masked_fill(~(whole if value.ndim == 2 else is_sanction), math.nan)
        return GoodsState(*merged), Turn({"player": torch.where(whole, change, income)}, over, measures)

    def describe(self, state: GoodsState, index: int) -> Scene:
        step = int(state.step[index])
        per_round = 2 if self.has_sanctions else 1
        number = (step + per_round - 1) // per_round
        title = Mark("text", 0.5, 0.07, 0.07, INK, f"round {number} of {self.rounds}" if step else "before round 1")
        given, members = state.contributions[index].tolist(), state.members[index].tolist()
        notes = [""] * self.players
        if step == 0:
            words = f"before round 1 of {self.rounds}: {self.players} players have {self.endowment:g} each"
            words += f"; the pot grows {self.multiplier:g} times and is shared by all"
        elif step % per_round == 1 or per_round == 1:
            pot = sum(given) * self.endowment
            notes = [f"{income:+.3g}" for income in state.income[index].tolist()]
            told = (
                f"player_{seat} gives {given[seat] * self.endowment:.3g} and gets {notes[seat]}"
                if members[seat]
                else f"player_{seat} is out and gets {notes[seat]}"
                for seat in range(self.players)
            )
            words = f"round {number}: " + ", ".join(told) + f"; the pot of {pot:.3g} becomes {pot * self.multiplier:.3g}"
        else:
            notes = [f"{change:+.3g}" for change in self._change(state.points, state.income)[index].tolist()]
            title = title._replace(text=f"round {number} of {self.rounds}, then")
            words = f"round {number}, then: " + ("; ".join(self._told_sanctions(state, index, notes)) or "nobody punishes")
        return Scene(words, (title, *self._marks(given, members, notes)))

    def _told_sanctions(self, state: GoodsState, index: int, notes: list[str]) -> list[str]:
        told = []
        if self.punishes:
            points = state.points[index].tolist()
            seats = range(self.players)
            told = [
                f"player_{giver} gives player_{to} {points[giver][to]} points" for giver in seats for to in seats if points[giver][to] > 0
            ]
            told += [f"player_{seat} loses {notes[seat][1:]}" for seat in seats if float(notes[seat]) < 0]
            told = told or ["nobody punishes"]
        if self.exclusion:
            votes, members = state.votes[index].tolist(), state.members[index].tolist()
            for seat, against in enumerate(votes):
                if against:
                    told.append(f"votes against player_{seat}: {against}" + ("" if members[seat] else ", who is out"))
            if not any(votes):
                told.append("nobody votes against anybody")
        return told

    def _marks(self, given: list[float], members: list[bool], notes: list[str]) -> list[Mark]:
        marks = []
        pitch = 0.92 / self.players
        for seat in range(self.players):
            x = 0.04 + pitch * (seat + 0.5)
            # The column is what a player has; the green part of it is given.
            marks.append(Mark("box", x, 0.45, 0.7 * pitch, GREY, height=0.6))
            height = 0.6 * given[seat]
            if height > 0:
                marks.append(Mark("box", x, 0.75 - height / 2, 0.7 * pitch, GREEN, height=height))
            if not members[seat]:
                marks.append(Mark("text", x, 0.45, 0.6 * pitch, RED, "X"))
            # Without a note nobody has given yet.
            if notes[seat]:
                gift = f"{given[seat] * self.endowment:.3g}"
                marks.append(Mark("text", x, 0.8, min(0.05, 1.6 * pitch / len(gift)), INK, gift))
                colour = RED if notes[seat].startswith("-") else INK
                marks.append(Mark("text", x, 0.88, min(0.06, 1.5 * pitch / len(notes[seat])), colour, notes[seat]))
            marks.append(Mark("text", x, 0.95, min(0.05, 0.2 * pitch), INK, f"player_{seat}"))
        return marks

    def _is_sanction(self, state: GoodsState) -> Bool[Tensor, "B"]:
        return (state.step % 2 == 1) if self.has_sanctions else torch.zeros_like(state.step, dtype=torch.bool)

    def _sanction(self, state: GoodsState, action: Int64[Tensor, "B P N"]) -> tuple[GoodsState, Tensor, dict[str, Tensor]]:
        """The state after punishing and voting, what it changes in each player's purse [B, P], and measures."""
        both = state.members[:, :, None] & state.members[:, None, :]
        others = self.players - 1
        points, votes, members, measures = state.points, state.votes, state.members, {}
        if self.punishes:
            points = self._by_seat(action[..., 1 : 1 + others]) * both
            measures["punishment"] = points.sum(2).float().masked_fill(~members, math.nan)
        if self.exclusion:
            votes = (self._by_seat(action[..., -others:]) * both).sum(1)
            members = members & (2 * votes <= members.sum(1, keepdim=True) - 1)
            measures["members"] = members.float().mean(1)
        return state._replace(points=points, votes=votes, members=members), self._change(points, state.income), measures

    def _by_seat(self, of_others: Int64[Tensor, "B P others"]) -> Int64[Tensor, "B P P"]:
        """[who, to whom], by seats, with nothing to oneself."""
        place = self._tables(of_others.device).place
        return torch.nn.functional.pad(of_others, (0, 1)).gather(2, place.expand(len(of_others), -1, -1))

    def _lost(self, points: Int64[Tensor, "B P P"]) -> Float[Tensor, "B P"]:
        return (points.sum(1) * self.point_harm).clamp(max=1.0)

    def _change(self, points: Int64[Tensor, "B P P"], income: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """What punishment does to each player's purse."""
        if not self.punishes:
            return torch.zeros_like(income)
        return 0.0 - self._tables(points.device).costs[points].sum(2) - self._lost(points) * income

    @cached_property
    def _tables_by_device(self) -> dict[torch.device, _Tables]:
        return {}

    def _tables(self, device: torch.device) -> _Tables:
        tables = self._tables_by_device.get(device)
        if tables is None:
            seats = torch.arange(self.players)
            own_first = (seats[:, None] + seats) % self.players
            place = (seats - seats[:, None] - 1) % self.players
            tables = _Tables(own_first.to(device), place.to(device), torch.tensor(self.point_costs, device=device))
            self._tables_by_device[device] = tables
        return tables


def public_goods() -> PublicGoods:
    """Four players give to a pot that grows 1.6 times, for 10 rounds (Fehr and Gaechter 2000)."""
    return PublicGoods()


def public_goods_with_punishment() -> PublicGoods:
    """Public goods in which, after each giving, members may punish one another at a cost (Fehr and Gaechter 2000)."""
    return PublicGoods(point_costs=FEHR_GAECHTER_COSTS)


def public_goods_with_exclusion() -> PublicGoods:
    """Public goods in which, after each giving, members may vote others out (after Cinyabuguma, Page and Putterman 2005)."""
    return PublicGoods(exclusion=True)
