"""Small games of every shape that real ones will have. They prove the Game protocol; nobody trains on them for their own sake."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from PIL import ImageFont
from torch import Tensor

from agents.occupant import Decision, Occupant
from envs.chance import Purpose, categorical, integers, permutation, uniform
from envs.game import ACTION_MASK, Game, Mark, Observation, Role, Scene, Turn
from training import tree
from training.rollout import Rollout
from training.seating import one_table


class GiftState(NamedTuple):
    seed: Tensor
    step: Tensor
    resources: Tensor
    partner: Tensor


@dataclass(frozen=True)
class GiftCircle:
    """Twelve seats of one role: half give a fraction of what they have to a partner that changes every round; the gift doubles."""

    seats: int = 12
    rounds: int = 4

    @property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                "gives": gym.spaces.Discrete(2),
                "own": gym.spaces.Box(0, np.inf, (), np.float32),
                "partner": gym.spaces.Box(0, np.inf, (), np.float32),
            }
        )
        return (Role("villager", self.seats, sees, gym.spaces.Box(0, 1, (), np.float32)),)

    @property
    def max_steps(self) -> int:
        return self.rounds

    def start(self, seeds: Tensor) -> GiftState:
        step = torch.zeros_like(seeds)
        resources = torch.full((len(seeds), self.seats), 10.0, device=seeds.device)
        return GiftState(seeds, step, resources, self._pairs(seeds, step))

    def _pairs(self, seeds: Tensor, step: Tensor) -> Tensor:
        """[B, P]: everyone's partner this round, mutual."""
        order = permutation(seeds, self.seats, Purpose.GAME, step)
        partner = torch.empty_like(order)
        partner.scatter_(1, order[:, 0::2], order[:, 1::2])
        partner.scatter_(1, order[:, 1::2], order[:, 0::2])
        return partner

    def _gives(self, state: GiftState) -> Tensor:
        """The lower number of a pair gives in even rounds, the higher in odd ones."""
        lower = torch.arange(self.seats, device=state.seed.device) < state.partner
        return lower ^ (state.step % 2 == 1)[:, None]

    def observe(self, state: GiftState) -> dict[str, Observation]:
        partners = state.resources.gather(1, state.partner)
        return {"villager": {"gives": self._gives(state).long(), "own": state.resources, "partner": partners}}

    def step(self, state: GiftState, actions: Mapping[str, Tensor]) -> tuple[GiftState, Turn]:
        gives = self._gives(state)
        gift = torch.where(gives, actions["villager"] * state.resources, 0.0)
        change = 2 * gift.gather(1, state.partner) - gift
        step = state.step + 1
        after = GiftState(state.seed, step, state.resources + change, self._pairs(state.seed, step))
        share = torch.where(gives, actions["villager"], torch.nan)
        return after, Turn({"villager": change}, step >= self.rounds, {"gift": share, "wealth": after.resources.sum(1)})

    def describe(self, state: GiftState, index: int) -> Scene:
        have = ", ".join(f"{value:.1f}" for value in state.resources[index].tolist())
        return Scene(f"round {int(state.step[index])}: {have}", (Mark("text", 0.5, 0.5, 0.1, (0, 0, 0), have[:12]),))


class WordState(NamedTuple):
    seed: Tensor
    step: Tensor
    candidates: Tensor
    target: Tensor
    words: Tensor


@dataclass(frozen=True)
class TellMe:
    """A speaker sees candidates and a target and says words; then a listener with other spaces hears them and picks."""

    candidates: int = 3
    vocabulary: int = 5
    length: int = 4

    @property
    def roles(self) -> tuple[Role, ...]:
        items = gym.spaces.Box(0, 1, (self.candidates, 2), np.float32)
        words = gym.spaces.MultiDiscrete([self.vocabulary] * self.length)
        return (
            Role("speaker", 1, gym.spaces.Dict({"items": items, "target": gym.spaces.Discrete(self.candidates)}), words),
            Role("listener", 1, gym.spaces.Dict({"items": items, "words": words}), gym.spaces.Discrete(self.candidates)),
        )

    @property
    def max_steps(self) -> int:
        return 2

    def start(self, seeds: Tensor) -> WordState:
        count = torch.arange(self.candidates * 2, device=seeds.device)
        items = uniform(seeds[:, None], Purpose.GAME, count).unflatten(1, (self.candidates, 2))
        target = integers(seeds, self.candidates, Purpose.GAME, 1000)
        words = torch.zeros(len(seeds), self.length, dtype=torch.int64, device=seeds.device)
        return WordState(seeds, torch.zeros_like(seeds), items, target, words)

    def observe(self, state: WordState) -> dict[str, Observation]:
        items = state.candidates[:, None]
        return {
            "speaker": {"items": items, "target": state.target[:, None]},
            "listener": {"items": items.flip(2), "words": state.words[:, None]},
        }

    def step(self, state: WordState, actions: Mapping[str, Tensor]) -> tuple[WordState, Turn]:
        picks = state.step == 1
        right = (self.candidates - 1 - actions["listener"][:, 0] == state.target) & picks
        words = torch.where(picks[:, None], state.words, actions["speaker"][:, 0])
        reward = right.float()[:, None]
        after = WordState(state.seed, state.step + 1, state.candidates, state.target, words)
        accuracy = torch.where(picks, right.float(), torch.nan)
        return after, Turn({"speaker": reward, "listener": reward}, picks, {"accuracy": accuracy})

    def describe(self, state: WordState, index: int) -> Scene:
        return Scene(f"words {state.words[index].tolist()} for item {int(state.target[index])}")


class RoomState(NamedTuple):
    seed: Tensor
    step: Tensor
    place: Tensor
    facing: Tensor
    goal: Tensor


@dataclass(frozen=True)
class Rooms:
    """First-person pixels and a word; agents walk in a corridor that ends when one stands on the goal, or after `limit` steps.

    With one agent it is the single-seat room; with several each sees the others, and nobody walks into anybody.
    """

    agents: int = 1
    limit: int = 6
    size: int = 8

    @property
    def roles(self) -> tuple[Role, ...]:
        sees = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Box(0, 255, (self.size, self.size, 3), np.uint8),
                "word": gym.spaces.Discrete(3),
                "action_mask": gym.spaces.MultiBinary(3),
            }
        )
        return (Role("walker", self.agents, sees, gym.spaces.Discrete(3)),)

    @property
    def max_steps(self) -> int:
        return self.limit

    def start(self, seeds: Tensor) -> RoomState:
        place = permutation(seeds, 10, Purpose.GAME)[:, : self.agents]
        goal = integers(seeds, 10, Purpose.GAME, 7)
        return RoomState(seeds, torch.zeros_like(seeds), place, torch.ones_like(place), goal)

    def _ahead(self, state: RoomState) -> Tensor:
        return (state.place + state.facing).clamp(0, 9)

    def _blocked(self, state: RoomState) -> Tensor:
        return (self._ahead(state)[:, :, None] == state.place[:, None, :]).any(2)

    def observe(self, state: RoomState) -> dict[str, Observation]:
        batch, size = len(state.seed), self.size
        near = (state.goal[:, None] - state.place) * state.facing
        shade = (255 - 20 * near.abs()).clamp(0, 255).to(torch.uint8)
        pixels = torch.zeros(batch, self.agents, size, size, 3, dtype=torch.uint8, device=state.seed.device)
        pixels[..., 1] = torch.where(near >= 0, shade, 0)[:, :, None, None]
        pixels[..., 0] = (self._blocked(state) * 255).to(torch.uint8)[:, :, None, None]
        word = (state.step % 3)[:, None].expand(-1, self.agents)
        mask = torch.ones(batch, self.agents, 3, dtype=torch.int8, device=state.seed.device)
        mask[..., 2] = (~self._blocked(state)).to(torch.int8)
        return {"walker": {"pixels": pixels, "word": word, "action_mask": mask}}

    def step(self, state: RoomState, actions: Mapping[str, Tensor]) -> tuple[RoomState, Turn]:
        """0 waits, 1 turns, 2 walks."""
        action = actions["walker"]
        facing = torch.where(action == 1, -state.facing, state.facing)
        wants = torch.where((action == 2) & ~self._blocked(state), self._ahead(state), state.place)
        # Of two who want the same place neither moves.
        same = (wants[:, :, None] == wants[:, None, :]).sum(2) > 1
        place = torch.where(same, state.place, wants)
        there = place == state.goal[:, None]
        step = state.step + 1
        after = RoomState(state.seed, step, place, facing, state.goal)
        return after, Turn({"walker": there.float()}, there.any(1) | (step >= self.limit), {})

    def describe(self, state: RoomState, index: int) -> Scene:
        row = ["."] * 10
        row[int(state.goal[index])] = "x"
        for number, place in enumerate(state.place[index].tolist()):
            row[place] = str(number)
        marks = tuple(Mark("box", 0.05 + 0.1 * place, 0.5, 0.08, (60, 90, 160)) for place in state.place[index].tolist())
        return Scene("".join(row), marks)


SHAPES: dict[str, Any] = {
    "twelve seats, real-valued gifts, changing pairs": GiftCircle(),
    "speaker and listener with word sequences": TellMe(),
    "one seat, pixels and a word, unequal lengths": Rooms(),
    "several agents in first person": Rooms(agents=3),
}


@dataclass(frozen=True)
class Breaks(GiftCircle):
    """A game with a bug in its third step."""

    seats: int = 2

    @property
    def roles(self) -> tuple[Role, ...]:
        role = super().roles[0]
        sees = gym.spaces.Dict({**role.observation_space.spaces, "outcome": gym.spaces.Discrete(5)})
        return (role._replace(observation_space=sees, action_space=gym.spaces.Discrete(2)),)

    def observe(self, state: GiftState) -> dict[str, Observation]:
        seen = super().observe(state)
        return {"villager": {**seen["villager"], "outcome": seen["villager"]["gives"]}}

    def step(self, state: GiftState, actions: Mapping[str, Tensor]) -> tuple[GiftState, Turn]:
        if int(state.step[0]) == 2:
            raise ArithmeticError("the third step always fails")
        return super().step(state, {"villager": actions["villager"].float()})


class LegalState(NamedTuple):
    luck: Tensor
    clock: Tensor


class AnyLegal:
    """An occupant that acts at random within the mask, in the spaces of a role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def start(self, seeds: Tensor) -> LegalState:
        return LegalState(seeds, torch.zeros_like(seeds))

    def act(self, observation: Observation, state: LegalState, reward: Tensor | None = None) -> tuple[Decision, LegalState]:
        space, draw = self.role.action_space, uniform(state.luck, 3, state.clock)
        if isinstance(space, gym.spaces.Discrete):
            mask = observation.get(ACTION_MASK, torch.ones(len(draw), int(space.n)))
            action = categorical(mask.float(), draw)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            draws = uniform(state.luck[:, None], 3, state.clock[:, None], torch.arange(len(space.nvec)))
            action = (draws * torch.as_tensor(space.nvec)).long()
        else:
            low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (space.low, space.high))
            action = low + draw.reshape(-1, *[1] * len(space.shape)) * (high - low)
        return Decision(action), state._replace(clock=state.clock + 1)


def told(game: Game, names: Sequence[str], occupants: Mapping[str, Occupant], seeds: Tensor, steps: int) -> list[str]:
    """What people read of one game. names: who sits in each seat."""
    rollout = Rollout(game, one_table(tuple(names), 1), occupants, keeps_states=True)
    table = rollout.start(seeds)
    _, log = rollout.play(table, steps)
    return [game.describe(table.game, 0).text, *(game.describe(tree.rows_of(log.game, step), 0).text for step in range(steps))]


def _place(mark: Mark) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text, as `envs.face.draw` draws it."""
    # Letters are measured in whole pixels: in a picture of 1,000.
    left, top, right, bottom = ImageFont.load_default(size=mark.size * 1000).getbbox(mark.text, anchor="mm")
    return mark.x + left / 1000, mark.y + top / 1000, mark.x + right / 1000, mark.y + bottom / 1000


def cut_off(scene: Scene) -> list[str]:
    """The texts of a scene of which a part lies outside its picture."""
    texts = [mark for mark in scene.marks if mark.shape == "text"]
    return [mark.text for mark in texts if min(_place(mark)) < 0 or max(_place(mark)) > 1]


def overlapping(scene: Scene) -> list[tuple[str, str]]:
    """The pairs of texts of a scene that lie over each other."""
    places = [(mark.text, *_place(mark)) for mark in scene.marks if mark.shape == "text"]
    return [
        (one[0], other[0])
        for one, other in itertools.combinations(places, 2)
        if max(one[1], other[1]) < min(one[3], other[3]) and max(one[2], other[2]) < min(one[4], other[4])
    ]
