"""The Axelrod library (Knight et al., github.com/Axelrod-Python/Axelrod) at our tables, and our occupants at its tables.

`AxelrodCoPlayer` seats one of its strategies in `envs.iterated_dilemma`; `as_axelrod_player` enters an occupant in its matches and
tournaments. The library is an optional extra, `pip install -e '.[axelrod]'`, and is imported when first asked for: that takes seconds.
"""

from __future__ import annotations

import difflib
import math
import multiprocessing
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, NamedTuple, SupportsInt

import gymnasium as gym
import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from agents.occupant import Decision, Occupant
from envs.chance import Purpose, fold
from envs.game import Observation

# Earned after CC, CD, DC, DD, own action first.
Payoffs = tuple[float, float, float, float]
_CHEATS = {
    "inspects_source": "inspects its opponent's code",
    "manipulates_source": "alters its opponent's code",
    "manipulates_state": "alters what outlives a match",
}


@cache
def library() -> Any:
    """The package `axelrod`. Raises ModuleNotFoundError where it is not installed."""
    before = multiprocessing.get_start_method(allow_none=True)
    import axelrod

    # Importing it changes how every process of ours would start.
    multiprocessing.set_start_method(before, force=True)
    return axelrod


class AxelrodState(NamedTuple):
    """seed, clock: luck of this match, and steps taken. history: [N, longest], the outcomes seen in this match, 0 where none is yet."""

    seed: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]
    history: Int8[Tensor, "N longest"]


@dataclass(frozen=True)
class AxelrodCoPlayer:
    """A strategy of the Axelrod library, by its name ("Tit For Tat") or its class's ("TitForTat"); case and signs do not matter.

    payoffs: what it is told that the game pays it after CC, CD, DC, DD. longest: how many rounds of a match it can remember. It is not
    told how long a match lasts. Every episode is a match of its own: it meets each as a stranger, with other luck.

    A Python loop over live players, slow but welcome, and on a CPU: most take a twentieth of a millisecond for a round, teams of all the
    others and EvolvedAttention (51 MB a row) up to a second. The state is all that a player's future depends on: whoever steps an older
    one gets a player rebuilt from its history.
    Raises ValueError for a name that is unknown, a strategy that looks beyond the moves, and payoffs that a strategy cannot play.
    """

    reads: ClassVar[dict[str, int]] = {"outcome": 5}

    name: str
    payoffs: Payoffs = (3.0, 0.0, 5.0, 1.0)
    longest: int = 1000

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ValueError(f"longest is {self.longest}; want at least 1")
        _check_payoffs(self.payoffs)
        player = self._strategy()
        for cheat, words in _CHEATS.items():
            if library().Classifiers[cheat](player):
                raise ValueError(f"name is {self.name!r}, a strategy that {words}; want one that goes by the moves alone")
        try:
            self._seat(0)
        except (ValueError, ArithmeticError) as error:
            raise ValueError(f"payoffs is {self.payoffs}, which {self.name!r} cannot play; want other payoffs for it") from error

    def start(self, seeds: Int64[Tensor, "N"]) -> AxelrodState:
        return AxelrodState(seeds, torch.zeros_like(seeds), seeds.new_zeros(len(seeds), self.longest, dtype=torch.int8))

    def act(self, observation: Observation, state: AxelrodState, reward: Tensor | None = None) -> tuple[Decision, AxelrodState]:
        """Raises ValueError where a match goes on for more than `longest` rounds."""
        state = self._after(state, observation["outcome"])
        rounds = (state.history > 0).sum(1).tolist()
        histories = state.history.cpu().numpy()
        self._live.make_room(len(rounds))
        actions = [
            self._live.action(seed, history[:count].tobytes())
            for seed, history, count in zip(state.seed.tolist(), histories, rounds, strict=True)
        ]
        return Decision(torch.tensor(actions, device=state.seed.device)), state

    def _after(self, state: AxelrodState, outcome: Int64[Tensor, "N"]) -> AxelrodState:
        """The state with what has just been seen; nothing is, where a match begins."""
        begins = outcome == 0
        seed = torch.where(begins & (state.clock > 0), fold(state.seed, Purpose.EPISODE, state.clock), state.seed)
        history = state.history.masked_fill(begins[:, None], 0)
        rounds = (history > 0).sum(1)
        if bool((rounds >= self.longest).any()):
            raise ValueError(f"longest is {self.longest}; this match goes on for more rounds than that: want as many as it has")
        return AxelrodState(seed, state.clock + 1, history.scatter(1, rounds[:, None], outcome[:, None].to(torch.int8)))

    @cached_property
    def _strategy(self) -> Callable[[], Any]:
        strategies = _strategies()
        plain = _plain(self.name)
        if plain not in strategies:
            close = difflib.get_close_matches(plain, strategies, n=1, cutoff=0.5)
            meant = (
                f"did you mean {strategies[close[0]].name!r}?" if close else "there are 'Tit For Tat' and the rest of its all_strategies"
            )
            raise ValueError(f"the Axelrod library has no strategy {self.name!r}; {meant}")
        return strategies[plain]

    @cached_property
    def _live(self) -> _LivePlayers:
        return _LivePlayers(self._seat)

    def _seat(self, seed: int) -> Any:
        """A player who has seen nothing."""
        player = self._strategy()
        reward, sucker, temptation, punishment = self.payoffs
        player.set_match_attributes(length=math.inf, game=library().Game(reward, sucker, temptation, punishment), noise=0)
        # The library takes 32-bit seeds.
        player.set_seed(seed % 2**32)
        return player


class _LivePlayers:
    """Players between two rounds, by seed and outcomes seen. Those not asked for longest are let go; who is missed is rebuilt."""

    def __init__(self, seat: Callable[[int], Any]) -> None:
        self.seat = seat
        self.matches: OrderedDict[tuple[int, bytes], _Match] = OrderedDict()
        self.room = 1024

    def make_room(self, rows: int) -> None:
        """For as many rows at a time, their last matches, and another seat's."""
        self.room = max(self.room, 4 * rows)
        while len(self.matches) > self.room:
            self.matches.popitem(last=False)

    def action(self, seed: int, history: bytes) -> int:
        """history: the symbols of the outcomes seen, one after another."""
        match = self.matches.pop((seed, history), None)
        if match is None:
            match = self.matches.pop((seed, history[:-1]), None) if history else None
            if match is None:
                match = _Match(self.seat(seed))
                for outcome in history[:-1]:
                    match.go_on(outcome)
            if history:
                match.go_on(history[-1])
        self.matches[seed, history] = match
        return match.action


class _Match:
    """A live player and its opponent's moves. action: what it has chosen for the round to come."""

    def __init__(self, player: Any) -> None:
        self.player = player
        self.opponent = library().Player()
        self.action = self._ask()

    def go_on(self, outcome: int) -> None:
        """outcome: what was played, which is not what was chosen where an action slipped."""
        own, others = (library().Action(action) for action in divmod(outcome - 1, 2))
        self.player.update_history(own, others)
        self.opponent.update_history(others, own)
        self.action = self._ask()

    def _ask(self) -> int:
        return int(self.player.strategy(self.opponent).value)


def as_axelrod_player(occupant: Occupant, name: str, seed: int = 0, payoffs: Payoffs = (1.0, -1.0, 2.0, 0.0)) -> Any:
    """An `axelrod.Player` behind which an occupant plays, for `axelrod.Match` and `axelrod.Tournament` (in one process).

    seed: its luck until a match gives it another. payoffs: what it perceives to earn after CC, CD, DC, DD; the default is what
    `envs.iterated_dilemma` pays, which is what presets train on. The occupant must be on a CPU.
    Raises ValueError for an occupant that reads anything but the last outcome of two actions each.
    """
    _check_payoffs(payoffs)
    space = getattr(occupant, "observation_space", None)
    reads = getattr(occupant, "reads", {}) if space is None else {field: getattr(part, "n", part) for field, part in space.items()}
    actions = getattr(occupant, "action_space", gym.spaces.Discrete(2))
    if reads not in ({}, {"outcome": 5}) or actions != gym.spaces.Discrete(2):
        raise ValueError(f"occupant reads {reads} and acts in {actions}; want one that reads outcome as 5 symbols and has 2 actions")
    return _occupant_player()(occupant, name, seed, payoffs)


@cache
def _occupant_player() -> Any:
    """The class, which can only be made once the library is there."""
    axelrod = library()

    class OccupantPlayer(axelrod.Player):
        classifier: ClassVar[dict[str, Any]] = {
            "memory_depth": math.inf,
            # What decides whether a match gives it a seed.
            "stochastic": True,
            "makes_use_of": set(),
            "long_run_time": False,
            "inspects_source": False,
            "manipulates_source": False,
            "manipulates_state": False,
        }

        def __init__(self, occupant: Occupant, name: str, seed: int, payoffs: Payoffs) -> None:
            super().__init__()
            self.occupant, self.name, self.payoffs = occupant, name, payoffs
            self.set_seed(seed)

        def __repr__(self) -> str:
            return self.name

        def set_seed(self, seed: SupportsInt) -> None:
            super().set_seed(seed)
            # Before each round: an opponent may ask twice, or ask ahead and take it back.
            self._states = [self.occupant.start(torch.tensor([int(seed)]))]

        def strategy(self, opponent: Any) -> Any:
            rounds = len(self.history)
            del self._states[rounds + 1 :]
            action = 0
            for played in range(len(self._states) - 1, rounds + 1):
                outcome, reward = self._perceive(opponent, played)
                decision, state = self.occupant.act({"outcome": outcome}, self._states[played], reward)
                self._states.append(state)
                action = int(decision.action)
            return axelrod.Action(action)

        def _perceive(self, opponent: Any, played: int) -> tuple[Int64[Tensor, "1"], Float[Tensor, "1"]]:
            """The last outcome after that many rounds, and what it earned."""
            if played == 0:
                return torch.zeros(1, dtype=torch.int64), torch.zeros(1)
            pair = 2 * self.history[played - 1].value + opponent.history[played - 1].value
            return torch.tensor([1 + pair]), torch.tensor([self.payoffs[pair]])

    return OccupantPlayer


@cache
def _strategies() -> dict[str, Any]:
    """{plain name: class}, under the strategy's name and the class's."""
    return {_plain(name): kind for kind in library().all_strategies for name in (kind.name, kind.__name__)}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _check_payoffs(payoffs: Payoffs) -> None:
    if len(payoffs) != 4 or not all(math.isfinite(payoff) for payoff in payoffs):
        raise ValueError(f"payoffs is {payoffs}; want four finite numbers, for CC, CD, DC, DD")
