"""A third-party PettingZoo ParallelEnv as a game: a Python loop over copies, slow but welcome.

Actions, observations, reward, end: the environment's own; agents with equal spaces share a role. An agent that has left the game sees
zeros and earns nothing until all have left. An observation that is no Dict becomes the field "observation".
Source: any module with a `parallel_env` function, for example `pettingzoo.classic.rps_v2`.

The copies are live objects, so a state can be stepped once: stepping an older one is refused. Everything that `observe` gives is in the
state itself. The copies live in this process and on a CPU.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from envs.game import ACTION_MASK, Mark, Observation, Role, Scene, Turn


class ThirdPartyState(NamedTuple):
    """copy: which live environment plays this game. use: how often that one was reset before. observation: {role: {field: [B, seats,
    ...]}}. alive: {role: [B, seats]}.
    """

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    copy: Int64[Tensor, "B"]
    use: Int64[Tensor, "B"]
    observation: dict[str, Observation]
    alive: dict[str, Bool[Tensor, "B seats"]]


@dataclass(frozen=True)
class ThirdPartyGame:
    """module: where `parallel_env` is. limit: an episode that lasts longer is ended."""

    module: str
    limit: int = 100

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit is {self.limit}; want at least 1")
        # Building one now tells about a wrong name or a broken environment before anything starts.
        assert self.roles

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        environment = self._make()
        self._call("checking it", _check, self.module, environment)
        spaces: list[tuple[gym.spaces.Dict, gym.Space[Any], list[str]]] = []
        for agent in environment.possible_agents:
            observation, action = _as_fields(environment.observation_space(agent)), environment.action_space(agent)
            for known in spaces:
                if (known[0], known[1]) == (observation, action):
                    known[2].append(agent)
                    break
            else:
                spaces.append((observation, action, [agent]))
        return tuple(
            Role("agents" if len(spaces) == 1 else agents[0], len(agents), observation, action) for observation, action, agents in spaces
        )

    @property
    def max_steps(self) -> int:
        return self.limit

    def start(self, seeds: Int64[Tensor, "B"]) -> ThirdPartyState:
        copies, uses, observations = [], [], []
        for seed in seeds.tolist():
            number = self._idle.pop() if self._idle else len(self._live)
            if number == len(self._live):
                self._live.append(_Live(self._make()))
            live = self._live[number]
            # PettingZoo takes 32-bit seeds.
            live.observation, _ = self._call("reset", live.environment.reset, seed=seed % 2**31)
            live.step = 0
            live.use += 1
            copies.append(number)
            uses.append(live.use)
            observations.append(live.observation)
        step = torch.zeros_like(seeds)
        which, use = (torch.tensor(numbers, dtype=torch.int64) for numbers in (copies, uses))
        return ThirdPartyState(seeds, step, which, use, *self._gather(observations))

    def observe(self, state: ThirdPartyState) -> dict[str, Observation]:
        return state.observation

    def step(self, state: ThirdPartyState, actions: Mapping[str, Tensor]) -> tuple[ThirdPartyState, Turn]:
        arrays = {role: action.numpy() for role, action in actions.items()}
        rewards = {role.name: torch.zeros(len(state.seed), role.seats) for role in self.roles}
        observations, over = [], []
        for game, (number, use, step) in enumerate(zip(state.copy.tolist(), state.use.tolist(), state.step.tolist(), strict=True)):
            live = self._live[number]
            if (live.use, live.step) != (use, step):
                where = f"step {step} of {live.step}" if live.use == use else f"step {step} of an episode that is over"
                raise ValueError(f"{self.module}: a third-party environment cannot go back to an earlier state ({where})")
            chosen = {
                agent: _action(arrays[role][game, seat], live.environment.action_space(agent))
                for agent, (role, seat) in self._places.items()
                if agent in live.environment.agents
            }
            live.observation, earned, terminated, truncated, _ = self._call("step", live.environment.step, chosen)
            live.step += 1
            _check_step(self.module, live, chosen, earned, self._places)
            for agent in live.environment.agents:
                if terminated.get(agent) or truncated.get(agent):
                    raise BrokenRule(self.module, f"agents lists who still plays; {agent!r} has ended at step {live.step} and is in it")
            for agent, reward in earned.items():
                role, seat = self._places[agent]
                rewards[role][game, seat] = float(reward)
            observations.append({agent: live.observation[agent] for agent in live.environment.agents})
            ended = not live.environment.agents or live.step >= self.limit
            over.append(ended)
            if ended:
                self._idle.append(number)
        after = ThirdPartyState(state.seed, state.step + 1, state.copy, state.use, *self._gather(observations))
        return after, Turn(rewards, torch.tensor(over), {})

    def release(self, state: ThirdPartyState) -> None:
        """Nobody will step this state any more: its copies may be used again."""
        of_this_state = zip(state.copy.tolist(), state.use.tolist(), strict=True)
        self._idle.extend(number for number, use in of_this_state if number not in self._idle and self._live[number].use == use)

    def describe(self, state: ThirdPartyState, index: int) -> Scene:
        lines = [f"step {int(state.step[index])}"]
        for role, fields in state.observation.items():
            for name, value in fields.items():
                shown = value[index]
                lines.append(f"{role}.{name}: {shown.tolist() if shown.numel() <= 16 else f'{tuple(shown.shape)} numbers'}")
        text = "\n".join(lines)
        return Scene(text, (Mark("text", 0.5, 0.5, 0.09, (40, 44, 52), lines[0]),))

    def _call(self, name: str, method: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except BrokenRule:
            raise
        # An environment that exits would take the whole run along.
        except (Exception, SystemExit) as error:
            raise ValueError(f"{self.module}: {name} raised {type(error).__name__}: {error}") from error

    @cached_property
    def _live(self) -> list[_Live]:
        return []

    @cached_property
    def _idle(self) -> list[int]:
        """Copies whose episode is over."""
        return []

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        """{agent: (role, seat within it)}."""
        environment = self._make()
        places, counts = {}, dict.fromkeys((role.name for role in self.roles), 0)
        for agent in environment.possible_agents:
            spaces = _as_fields(environment.observation_space(agent)), environment.action_space(agent)
            name = next(role.name for role in self.roles if (role.observation_space, role.action_space) == spaces)
            places[agent] = (name, counts[name])
            counts[name] += 1
        return places

    def _make(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                make = importlib.import_module(self.module).parallel_env
        except AttributeError as error:
            raise ValueError(f"module {self.module!r} has no parallel_env; want a PettingZoo module that has one") from error
        except Exception as error:
            raise ValueError(f"module {self.module!r} cannot be imported: {type(error).__name__}: {error}") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._call("parallel_env", make)

    def _gather(self, observations: list[dict[str, Any]]) -> tuple[dict[str, Observation], dict[str, Bool[Tensor, "B seats"]]]:
        """Observations of all games as tensors; zeros for who has left."""
        gathered: dict[str, Observation] = {}
        alive = {}
        for role in self.roles:
            agents = [agent for agent, (name, _) in self._places.items() if name == role.name]
            present = [[agent in observation for agent in agents] for observation in observations]
            alive[role.name] = torch.tensor(present, dtype=torch.bool).reshape(len(observations), len(agents))
            gathered[role.name] = {
                field: torch.as_tensor(
                    np.stack([[_field(observation.get(agent), field, space) for agent in agents] for observation in observations])
                )
                for field, space in role.observation_space.items()
            }
        return gathered, alive


class BrokenRule(ValueError):
    """The environment does what PettingZoo's ParallelEnv must not; the message names the rule."""

    def __init__(self, module: str, rule: str) -> None:
        super().__init__(f"{module} breaks a rule of PettingZoo's ParallelEnv: {rule}")


class _Live:
    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.observation: dict[str, Any] = {}
        self.step = self.use = 0


def _as_fields(space: gym.Space[Any]) -> gym.spaces.Dict:
    """The space as a Dict of named fields. An action mask (int8 0 or 1) becomes MultiBinary."""
    if not isinstance(space, gym.spaces.Dict):
        return gym.spaces.Dict({"observation": space})
    fields = {name: gym.spaces.MultiBinary(field.shape) if name == ACTION_MASK and field.shape else field for name, field in space.items()}
    return gym.spaces.Dict(fields)


def _field(observation: Any, field: str, space: gym.Space[Any]) -> NDArray[Any]:
    if observation is None:
        # Whoever has left may do anything: it makes no difference.
        fill = 1 if field == ACTION_MASK else getattr(space, "start", 0) if isinstance(space, gym.spaces.Discrete) else 0
        return np.full(space.shape or (), fill, dtype=space.dtype)
    value = observation[field] if isinstance(observation, Mapping) else observation
    return np.asarray(value, dtype=space.dtype)


def _action(value: Any, space: gym.Space[Any]) -> Any:
    return int(value) if isinstance(space, gym.spaces.Discrete) else np.array(value, dtype=space.dtype)


def _check(module: str, environment: Any) -> None:
    """Raises ValueError naming the rule of PettingZoo's ParallelEnv that an environment breaks."""

    def breaks(rule: str) -> BrokenRule:
        return BrokenRule(module, rule)

    agents = getattr(environment, "possible_agents", None)
    if not agents:
        raise breaks("possible_agents lists all agents")
    for agent in agents:
        for kind in ("observation_space", "action_space"):
            if not isinstance(getattr(environment, kind)(agent), gym.Space):
                raise breaks(f"{kind}({agent!r}) is a Gymnasium space; got {getattr(environment, kind)(agent)!r}")
    reset = environment.reset(seed=0)
    if not (isinstance(reset, tuple) and len(reset) == 2 and all(isinstance(part, Mapping) for part in reset)):
        raise breaks(f"reset(seed) returns (observations, infos), two dicts; got {type(reset).__name__}")
    _check_observations(reset[0], environment, "reset", breaks)
    actions = {}
    for agent in environment.agents:
        mask = reset[0][agent].get(ACTION_MASK) if isinstance(reset[0][agent], Mapping) else None
        space = environment.action_space(agent)
        space.seed(0)
        actions[agent] = space.sample(None if mask is None else np.asarray(mask, dtype=np.int8))
    alive = list(environment.agents)
    step = environment.step(actions)
    if not (isinstance(step, tuple) and len(step) == 5 and all(isinstance(part, Mapping) for part in step)):
        raise breaks("step(actions) returns (observations, rewards, terminations, truncations, infos), five dicts")
    for name, part in zip(("rewards", "terminations", "truncations"), step[1:4], strict=True):
        if set(part) != set(alive):
            raise breaks(f"step returns {name} for every live agent; want {sorted(alive)}, got {sorted(part)}")
    for agent, reward in step[1].items():
        if not math.isfinite(float(reward)):
            raise breaks(f"rewards are finite; {agent} got {reward}")
    _check_observations(step[0], environment, "step", breaks)


def _check_step(module: str, live: _Live, acted: Mapping[str, Any], earned: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """What every later step must keep to, as far as it costs little to see."""
    strangers = sorted(set(live.environment.agents) - set(known))
    if strangers:
        raise BrokenRule(module, f"possible_agents lists all agents; {strangers[0]!r} came later")
    for agent in acted:
        if agent not in earned:
            raise BrokenRule(module, f"step returns rewards for every live agent; {agent!r} has none at step {live.step}")
        if not math.isfinite(float(earned[agent])):
            raise BrokenRule(module, f"rewards are finite; {agent} got {earned[agent]} at step {live.step}")
    for agent in live.environment.agents:
        if agent not in live.observation:
            raise BrokenRule(module, f"step returns an observation for every live agent; {agent!r} has none at step {live.step}")


def _check_observations(observations: Mapping[str, Any], environment: Any, call: str, breaks: Any) -> None:
    for agent in environment.agents:
        if agent not in observations:
            raise breaks(f"{call} returns an observation for every live agent; {agent!r} has none")
        if not environment.observation_space(agent).contains(observations[agent]):
            raise breaks(f"observations lie in their space; {call} gave {agent!r} one outside {environment.observation_space(agent)}")
