"""What a game is: rules as a value, for a whole batch of games at once.

A game is a frozen dataclass: its own settings. Its state is a NamedTuple of tensors that lead with the batch axis B; `step` returns a new
state and never edits the old. Nothing loops over B and nothing inside a step waits for the device. All chance is a pure function of the
seeds given to `start` (see `envs.chance`), so a game of a batch equals the same game alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# A NamedTuple of tensors [B, ...].
State = Any
# {field: [B, seats, ...]}, as the role's observation_space says. The field "action_mask", where a role has one, is 1 for what is allowed.
Observation = dict[str, Tensor]
ACTION_MASK = "action_mask"


class Role(NamedTuple):
    """Seats that share spaces. The spaces are those of ONE seat; observation_space is a gym.spaces.Dict of named fields."""

    name: str
    seats: int
    observation_space: gym.spaces.Dict
    action_space: gym.Space[Any]


class Turn(NamedTuple):
    """What a step gave.

    rewards: {role: [B, seats]}, earned by this step's actions.
    over: [B], the episode has ended. A game ends itself after max_steps at the latest.
    measures: {name: [B] or [B, P]} worth logging (P: all seats, role after role); NaN where a seat has no say in this step.
    """

    rewards: dict[str, Float[Tensor, "B seats"]]
    over: Bool[Tensor, "B"]
    measures: dict[str, Float[Tensor, "..."]]


class Answer(NamedTuple):
    """The right actions of a role's seats at one moment. action: [B, seats, ...], as the role acts. asked: [B, seats], false where no
    answer is wanted; the action there means nothing.
    """

    action: Tensor
    asked: Bool[Tensor, "..."]


class Mark(NamedTuple):
    """Something to draw, on a square that is 1 wide and 1 high with (0, 0) at the top left.

    shape: "disc", "box" or "text". x, y: the centre. size: width (disc, box) or letter height (text). height: of a box, size if 0.
    colour: red, green, blue from 0 to 255.
    """

    shape: str
    x: float
    y: float
    size: float
    colour: tuple[int, int, int]
    text: str = ""
    height: float = 0.0


class Scene(NamedTuple):
    """One game at one moment, for people: a few words, and what to draw."""

    text: str
    marks: tuple[Mark, ...] = ()


@runtime_checkable
class Game(Protocol):
    @property
    def roles(self) -> tuple[Role, ...]: ...

    @property
    def max_steps(self) -> int:
        """The longest an episode can last, in steps."""

    def start(self, seeds: Int64[Tensor, "B"]) -> State: ...

    def observe(self, state: State) -> dict[str, Observation]: ...

    def step(self, state: State, actions: Mapping[str, Tensor]) -> tuple[State, Turn]:
        """actions: {role: [B, seats, ...]}."""

    def describe(self, state: State, index: int) -> Scene:
        """Game number `index` of the batch."""


def release(game: Game, state: Any) -> None:
    """Nobody will play on from this state. Games that hold on to more than their state let go of it."""
    lets_go = getattr(game, "release", None)
    if lets_go is not None:
        lets_go(state)


@runtime_checkable
class KnowsAnswers(Protocol):
    """What a game has beside the methods of `Game` if it knows what is right; then an agent can be taught (`algorithms.Supervised`)."""

    def answers(self, state: State) -> dict[str, Answer]:
        """{role: what its seats should do in this state}, for every role; nothing is asked of those for whom nothing is known."""


class Channel(NamedTuple):
    """The receiver's `field` shows at one step the action that the sender took at the step before, symbol for symbol, where it had a say.

    Both are roles of one seat.
    """

    sender: str
    receiver: str
    field: str


@runtime_checkable
class HasChannels(Protocol):
    """What a game has beside the methods of `Game` if its roles hear one another (`training.messages`)."""

    @property
    def channels(self) -> tuple[Channel, ...]: ...


def seat_count(game: Game) -> int:
    """P, the number of seats of all roles."""
    return sum(role.seats for role in game.roles)


def seats_of(game: Game) -> Iterator[tuple[str, Role, int]]:
    """(name, role, seat within the role) for all P seats, role after role. Names are `role_0`, `role_1`, as PettingZoo recommends."""
    for role in game.roles:
        for seat in range(role.seats):
            yield f"{role.name}_{seat}", role, seat


def role_of_seat(game: Game, seat: int) -> tuple[Role, int]:
    """The role of seat number `seat` of all P, and its number within the role."""
    for number, (_, role, within) in enumerate(seats_of(game)):
        if number == seat:
            return role, within
    raise ValueError(f"seat {seat}; this game has seats 0 to {seat_count(game) - 1}")
