"""One-shot navigation: a town drawn anew for each episode, in which one is sent to place after place and had better remember the streets.

Actions: 0 turn left, to the next street of the place; 1 turn right; 2 walk along the street ahead; with `collects` also 3, collect.
    Whoever arrives somewhere faces the street across from the one it came by: that many streets further, half of all, rounded down.
Observations: `view`, one of `views` symbols, a different one for every street of every place; `goal`, the view along one of the goal's
    streets; where `guided`, also `way`, an action that leads to the goal as soon as possible.
Reward: 1 for arriving at the goal's place, however one faces; with `collects`, for collecting there. Then the next goal is given.
End: after `steps` actions.
Chance: places stand in a ring. Streets make a round trip through all of them in a random order; then each place that still has but two
    gets a third, to one of those with the fewest that it has no street to. So all have three, save at most two with four. Views, start and
    goals (never the place where one is) are drawn evenly.
Measure: `reached`, 1 where a goal was reached.
Source: One-Shot StreetLearn (Ritter et al. 2021, arXiv 2006.03662): neighbourhoods of five intersections, 200 steps, one-hot views of 60,
    and collecting in its released version. There, towns are cut from real street maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.chance import Purpose, integers, permutation, uniform
from envs.game import Answer, Mark, Observation, Role, Scene, Turn

LEFT, RIGHT, WALK, COLLECT = range(4)
ACTIONS = ("turns left", "turns right", "walks", "collects")
# Streets at a place, at most.
STREETS = 4
GREEN, ORANGE, BLUE, GREY, INK = (64, 145, 108), (214, 140, 40), (66, 108, 186), (205, 208, 212), (40, 44, 52)


class TownState(NamedTuple):
    """A corner is a place and one of its streets, place * STREETS + street; streets are counted clockwise, those that are not there last.

    next: [B, corners, 3], the corner after each action. views: [B, corners], what is seen there. corner, goal: where one is and goes.
    action: the last, -1 if there was none. reached: whether it reached the goal that was.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    next: Int64[Tensor, "B corners 3"]
    views: Int64[Tensor, "B corners"]
    corner: Int64[Tensor, "B"]
    goal: Int64[Tensor, "B"]
    action: Int64[Tensor, "B"]
    reached: Bool[Tensor, "B"]


@dataclass(frozen=True)
class StreetGraph:
    """places: in the town. steps: actions. views: symbols to draw from. collects: a goal must be collected. guided: shows the way."""

    places: int = 5
    steps: int = 200
    views: int = 60
    collects: bool = False
    guided: bool = False

    def __post_init__(self) -> None:
        if not 5 <= self.places <= 16:
            raise ValueError(f"places is {self.places}; want from 5 to 16")
        if not 1 <= self.steps <= 1_000_000:
            raise ValueError(f"steps is {self.steps}; want from 1 to 1,000,000")
        if not self.corners <= self.views <= 100_000:
            raise ValueError(f"views is {self.views}; want at least {self.corners}, {STREETS} for each place, at most 100,000")

    @property
    def corners(self) -> int:
        return self.places * STREETS

    @property
    def actions(self) -> int:
        return 4 if self.collects else 3

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        view = gym.spaces.Discrete(self.views)
        fields: dict[str, gym.Space] = {"view": view, "goal": view}
        if self.guided:
            fields["way"] = gym.spaces.Discrete(self.actions)
        return (Role("walker", 1, gym.spaces.Dict(fields), gym.spaces.Discrete(self.actions)),)

    @property
    def max_steps(self) -> int:
        return self.steps

    def start(self, seeds: Int64[Tensor, "B"]) -> TownState:
        after, streets = _corners(self._streets(seeds))
        views = permutation(seeds, self.views, Purpose.GAME, 1)[:, : self.corners]
        place = integers(seeds, self.places, Purpose.GAME, 2, 0)
        step = torch.zeros_like(seeds)
        corner = self._corner_at(place, streets, uniform(seeds, Purpose.GAME, 2, 1))
        goal = self._goal(seeds, step, corner, streets)
        return TownState(seeds, step, after, views, corner, goal, torch.full_like(seeds, -1), torch.zeros_like(seeds, dtype=torch.bool))

    def observe(self, state: TownState) -> dict[str, Observation]:
        seen = {"view": state.views.gather(1, state.corner[:, None]), "goal": state.views.gather(1, state.goal[:, None])}
        if self.guided:
            seen["way"] = self.way(state)[:, None]
        return {"walker": seen}

    def answers(self, state: TownState) -> dict[str, Answer]:
        """A shortest way, also in a town not yet seen: what would be right for whoever knew it."""
        action = self.way(state)[:, None]
        return {"walker": Answer(action, torch.ones_like(action, dtype=torch.bool))}

    def step(self, state: TownState, actions: Mapping[str, Tensor]) -> tuple[TownState, Turn]:
        action, step = actions["walker"][:, 0], state.step + 1
        ahead = state.next[torch.arange(len(action), device=action.device), state.corner, action.clamp(max=WALK)]
        corner = torch.where(action == COLLECT, state.corner, ahead)
        reached = (corner // STREETS == state.goal // STREETS) & (action == (COLLECT if self.collects else WALK))
        streets = (state.next[..., WALK] >= 0).unflatten(1, (self.places, STREETS)).sum(2)
        goal = torch.where(reached, self._goal(state.seed, step, corner, streets), state.goal)
        after = TownState(state.seed, step, state.next, state.views, corner, goal, action, reached)
        return after, Turn({"walker": reached.float()[:, None]}, step >= self.steps, {"reached": reached.float()})

    def way(self, state: TownState) -> Int64[Tensor, "B"]:
        """The first action of a shortest way to the goal: of several, the one that comes first in the list of actions."""
        far = 4 * self.corners
        is_goal = torch.arange(self.corners, device=state.goal.device) // STREETS == (state.goal // STREETS)[:, None]
        distance = torch.full_like(state.views, far).masked_fill(is_goal, 0)
        after = state.next.clamp(min=0).flatten(1)
        # From place to place takes at most two turns and a walk, and a shortest way visits no place twice.
        for _ in range(3 * (self.places - 1)):
            distance = torch.minimum(distance, 1 + distance.gather(1, after).unflatten(1, (self.corners, 3)).amin(2))
        ahead = state.next[torch.arange(len(state.goal), device=state.goal.device), state.corner]
        action = distance.gather(1, ahead).argmin(1)
        return torch.where(state.corner // STREETS == state.goal // STREETS, COLLECT, action) if self.collects else action

    def describe(self, state: TownState, index: int) -> Scene:
        step, corner, goal, action = (int(part[index]) for part in (state.step, state.corner, state.goal, state.action))
        walks = state.next[index, :, WALK].tolist()
        here, ahead = _name(corner), _name(walks[corner])
        stands = f"at {here} facing {ahead}, goal {_name(goal)}"
        if step == 0:
            places = (
                f"{_name(place * STREETS)}-{''.join(_name(to) for to in walks[place * STREETS : (place + 1) * STREETS] if to >= 0)}"
                for place in range(self.places)
            )
            return Scene(f"before step 1 of {self.steps}: streets {' '.join(places)}; {stands}", self._marks(walks, corner, goal, "start"))
        did = ACTIONS[action] + (f" to {here}" if action == WALK else "")
        if bool(state.reached[index]):
            did += ", goal reached +1"
        title = f"step {step} of {self.steps}: {did}"
        return Scene(f"step {step}: {did}; {stands}", self._marks(walks, corner, goal, title))

    def _marks(self, walks: list[int], corner: int, goal: int, title: str) -> tuple[Mark, ...]:
        """Places in a ring, streets as dots between them, the walker as a disc with its nose in the street ahead."""

        def at(place: int) -> tuple[float, float]:
            angle = 2 * math.pi * place / self.places
            return 0.5 + 0.36 * math.sin(angle), 0.52 - 0.36 * math.cos(angle)

        def between(one: int, other: int, share: float) -> tuple[float, float]:
            (x, y), (to_x, to_y) = at(one), at(other)
            return x + share * (to_x - x), y + share * (to_y - y)

        marks = [Mark("text", 0.5, 0.05, 0.048, INK, title)]
        for start, to in enumerate(walks):
            if to // STREETS > start // STREETS:
                marks += [Mark("disc", *between(start // STREETS, to // STREETS, dot / 24), 0.012, GREY) for dot in range(1, 24)]
        here, there = corner // STREETS, walks[corner] // STREETS
        marks += [Mark("disc", *between(here, there, share), 0.03, BLUE) for share in (0.22, 0.28)]
        for place in range(self.places):
            colour = BLUE if place == here else ORANGE if place == goal // STREETS else GREY
            marks.append(Mark("disc", *at(place), 0.11, colour))
            marks.append(Mark("text", *at(place), 0.06, INK if colour == GREY else (255, 255, 255), _name(place * STREETS)))
        legend = "blue: the walker and where it looks; orange: the goal"
        return (*marks, Mark("text", 0.5, 0.97, 0.035, INK, legend))

    def _goal(
        self, seed: Int64[Tensor, "B"], step: Int64[Tensor, "B"], corner: Int64[Tensor, "B"], streets: Int64[Tensor, "B N"]
    ) -> Int64[Tensor, "B"]:
        """A corner of another place, places and their streets with the same probability."""
        ahead = 1 + integers(seed, self.places - 1, Purpose.GAME, 3, step, 0)
        return self._corner_at((corner // STREETS + ahead) % self.places, streets, uniform(seed, Purpose.GAME, 3, step, 1))

    def _corner_at(self, place: Int64[Tensor, "B"], streets: Int64[Tensor, "B N"], draw: Tensor) -> Int64[Tensor, "B"]:
        """One of a place's corners, by a uniform draw. streets: how many each place has."""
        return place * STREETS + (draw * streets.gather(1, place[:, None])[:, 0]).long()

    def _streets(self, seeds: Int64[Tensor, "B"]) -> Bool[Tensor, "B N N"]:
        """Who is joined to whom. A connected graph in which every place has three streets or four."""
        n, rows = self.places, torch.arange(len(seeds), device=seeds.device)
        tour = permutation(seeds, n, Purpose.GAME, 0, 0)
        joined = torch.zeros(len(seeds), n, n, dtype=torch.bool, device=seeds.device)
        joined[rows[:, None], tour, tour.roll(1, 1)] = True
        joined = joined | joined.mT
        own = torch.eye(n, dtype=torch.bool, device=seeds.device)
        luck = uniform(seeds[:, None, None], Purpose.GAME, 0, 1, torch.arange(n * n, device=seeds.device).view(n, n))
        for place in range(n):
            count = joined.sum(2)
            # Fewest streets first, luck among equals.
            wish = (count + luck[:, place]).masked_fill(joined[:, place] | own[place], n)
            to = (torch.arange(n, device=wish.device) == wish.argmin(1)[:, None]) & (count[:, place] < 3)[:, None]
            new = to[:, None, :] & own[place][:, None]
            joined = joined | new | new.mT
        return joined


def _corners(joined: Bool[Tensor, "B N N"]) -> tuple[Int64[Tensor, "B corners 3"], Int64[Tensor, "B N"]]:
    """(the corner after each action from each corner, -1 from corners that do not exist; how many streets each place has)."""
    n = joined.shape[-1]
    places, slots = torch.arange(n, device=joined.device), torch.arange(STREETS, device=joined.device)
    streets = joined.sum(2)
    # Clockwise from a place of a ring, places come in the order of the ring.
    offset = (places - places[:, None]) % n
    order = offset.masked_fill(~joined, n).argsort(2)
    # rank[b, i, j]: which of i's streets leads to j.
    rank = order.argsort(2)
    to = order[..., :STREETS]
    exists = slots < streets[..., None]
    back = rank.mT.gather(2, to)
    count = streets[:, None, :].expand(-1, n, -1).gather(2, to)
    walk = to * STREETS + (back + count // 2) % count
    turned = [(slots + by) % streets[..., None] + places[:, None] * STREETS for by in (-1, 1)]
    after = torch.stack([*turned, walk], -1).masked_fill(~exists[..., None], -1)
    return after.flatten(1, 2), streets


def _name(corner: int) -> str:
    """A place's letter."""
    return chr(ord("A") + corner // STREETS)


def street_graph() -> StreetGraph:
    """One-shot navigation in a town of five places drawn anew each episode (after One-Shot StreetLearn)."""
    return StreetGraph()


def guided_street_graph() -> StreetGraph:
    """The same town with the way to the goal shown: what a perfect memory would have."""
    return StreetGraph(guided=True)
