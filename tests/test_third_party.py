"""Third-party PettingZoo environments as games, and those that break PettingZoo's rules."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from envs.third_party import ThirdPartyGame
from tests.games import AnyLegal
from training import recording
from training.experiment import Experiment
from training.schemes.self_play import self_play
from training.seating import one_table
from training.settings import override


class Countdown:
    """A well-behaved ParallelEnv: two agents, one of whom leaves a step earlier; rewards tell who acted and when."""

    def __init__(self) -> None:
        self.possible_agents = ["early", "late"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return gym.spaces.Box(0, 100, (2,), np.float32)

    def action_space(self, agent: str) -> gym.Space[Any]:
        return gym.spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time, self.seed = list(self.possible_agents), 0, float((seed or 0) % 10)
        return self._observe(), {agent: {} for agent in self.agents}

    def _observe(self) -> dict[str, Any]:
        return {agent: np.array([self.time, self.seed], np.float32) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        assert set(actions) == set(self.agents)
        self.time += 1
        rewards = {agent: 10.0 * self.time + actions[agent] for agent in self.agents}
        over = {agent: self.time >= (2 if agent == "early" else 3) for agent in self.agents}
        observations = self._observe()
        infos: dict[str, Any] = {agent: {} for agent in self.agents}
        truncated = dict.fromkeys(self.agents, False)
        self.agents = [agent for agent in self.agents if not over[agent]]
        return observations, rewards, over, truncated, infos


class Painted(Countdown):
    """The same as a picture."""

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)

    def _observe(self) -> dict[str, Any]:
        return {agent: np.full((32, 32, 3), self.time, np.uint8) for agent in self.agents}


def game_of(environment: type[Any], monkeypatch: pytest.MonkeyPatch, limit: int = 9) -> ThirdPartyGame:
    module = ModuleType("made_up_environment")
    module.parallel_env = environment  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_environment", module)
    return ThirdPartyGame("made_up_environment", limit)


def test_it_plays_as_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    game = game_of(Countdown, monkeypatch)
    assert [(role.name, role.seats) for role in game.roles] == [("agents", 2)]
    state = game.start(torch.tensor([3, 4]))
    assert game.observe(state)["agents"]["observation"].tolist() == [[[0, 3], [0, 3]], [[0, 4], [0, 4]]]
    actions = torch.tensor([[0, 1], [2, 0]])
    state, turn = game.step(state, {"agents": actions})
    assert turn.rewards["agents"].tolist() == [[10, 11], [12, 10]]
    state, turn = game.step(state, {"agents": actions})
    assert turn.rewards["agents"].tolist() == [[20, 21], [22, 20]]
    assert not turn.over.any()
    # "early" has left: it sees zeros and earns nothing.
    assert game.observe(state)["agents"]["observation"].tolist() == [[[0, 0], [2, 3]], [[0, 0], [2, 4]]]
    state, turn = game.step(state, {"agents": actions})
    assert turn.rewards["agents"].tolist() == [[0, 31], [0, 30]]
    assert turn.over.tolist() == [True, True]


def test_an_old_state_cannot_be_stepped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    game = game_of(Countdown, monkeypatch)
    first = game.start(torch.tensor([1]))
    game.step(first, {"agents": torch.zeros(1, 2, dtype=torch.int64)})
    with pytest.raises(ValueError, match="cannot go back to an earlier state"):
        game.step(first, {"agents": torch.zeros(1, 2, dtype=torch.int64)})


def test_an_old_state_cannot_be_stepped_when_its_environment_plays_another_game_either(monkeypatch: pytest.MonkeyPatch) -> None:
    game, actions = game_of(Countdown, monkeypatch), {"agents": torch.zeros(1, 2, dtype=torch.int64)}
    first = game.start(torch.tensor([1]))
    game.release(first)
    second = game.start(torch.tensor([2]))
    assert second.copy.tolist() == first.copy.tolist()
    with pytest.raises(ValueError, match=r"cannot go back to an earlier state \(step 0 of an episode that is over\)"):
        game.step(first, actions)
    # What nobody plays on from does not take the environment from who plays now.
    game.release(first)
    assert game.start(torch.tensor([3])).copy.tolist() != second.copy.tolist()
    game.step(second, actions)


def test_a_recording_is_the_same_whichever_environment_played_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    game = game_of(Countdown, monkeypatch)
    people = {"any": AnyLegal(game.roles[0])}
    for attempt in range(2):
        rollout, log = recording.play(game, one_table(("any", "any"), 3), people, torch.arange(3))
        recording.save(tmp_path / f"{attempt}.safetensors", rollout, torch.arange(3), log, "any", {})
    assert recording.compare(recording.load(tmp_path / "0.safetensors"), log).identical


def test_scenery_is_looked_at_without_keeping_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = override(Experiment(game=game_of(Painted, monkeypatch), scheme=self_play(), trials=4), "agent.memory.width=4")
    environments = []
    for _ in range(3):
        experiment.build_learners()
        environments.append((len(experiment.game._live), len(experiment.game._idle)))
    assert environments == [environments[0]] * 3
    assert environments[0][0] == environments[0][1] > 0


def test_rows_go_on_with_fresh_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.occupant import Decision
    from training.rollout import Rollout

    class Zero:
        def start(self, seeds: torch.Tensor) -> tuple[()]:
            return ()

        def act(self, observation: Any, state: tuple[()], reward: Any) -> tuple[Decision, tuple[()]]:
            return Decision(torch.zeros(len(observation["observation"]), dtype=torch.int64)), state

    rollout = Rollout(game_of(Countdown, monkeypatch), one_table(("zero", "zero"), 2), {"zero": Zero()})
    _, log = rollout.play(rollout.start(torch.arange(2)), 7)
    assert log.ended[:, 0].tolist() == [False, False, True, False, False, True, False]
    assert log.rewards["agents"][:, 0, 1].tolist() == [10, 20, 30, 10, 20, 30, 10]


def test_a_long_episode_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    game = game_of(Countdown, monkeypatch, limit=2)
    state = game.start(torch.tensor([1]))
    for over in (False, True):
        state, turn = game.step(state, {"agents": torch.zeros(1, 2, dtype=torch.int64)})
        assert turn.over.tolist() == [over]


class NoAgents(Countdown):
    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = []


class NoSpace(Countdown):
    def action_space(self, agent: str) -> Any:
        return 3


class BareReset(Countdown):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed)[0]


class SilentReset(Countdown):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        observations, infos = super().reset(seed)
        del observations["late"]
        return observations, infos


class OutOfSpace(Countdown):
    def _observe(self) -> dict[str, Any]:
        return {agent: np.array([-1, 0], np.float32) for agent in self.agents}


class FourParts(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        return super().step(actions)[:4]


class NoReward(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        observations, rewards, *rest = super().step(actions)
        del rewards["late"]
        return observations, rewards, *rest


class EndlessReward(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, dict.fromkeys(rewards, float("inf")), *rest


@pytest.mark.parametrize(
    ("environment", "rule"),
    [
        (NoAgents, "possible_agents lists all agents"),
        (NoSpace, r"action_space\('early'\) is a Gymnasium space; got 3"),
        (BareReset, r"reset\(seed\) returns \(observations, infos\), two dicts; got dict"),
        (SilentReset, "reset returns an observation for every live agent; 'late' has none"),
        (OutOfSpace, "observations lie in their space; reset gave 'early' one outside"),
        (FourParts, r"step\(actions\) returns \(observations, rewards, terminations, truncations, infos\), five dicts"),
        (NoReward, r"step returns rewards for every live agent; want \['early', 'late'\], got \['early'\]"),
        (EndlessReward, "rewards are finite; early got inf"),
    ],
)
def test_a_broken_rule_is_named(environment: type[Any], rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"made_up_environment breaks a rule of PettingZoo's ParallelEnv: {rule}"):
        game_of(environment, monkeypatch)


class LateStranger(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        parts = super().step(actions)
        if self.time == 2:
            self.agents.append("stranger")
        return parts


class LateNaN(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, {agent: float("nan") if self.time == 2 else 1.0 for agent in rewards}, *rest


class LateSilence(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        observations, *rest = super().step(actions)
        return ({} if self.time == 2 else observations), *rest


class LateCrash(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        if self.time == 1:
            raise KeyError("something of its own")
        return super().step(actions)


class LateGhost(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        parts = super().step(actions)
        self.agents = list(self.possible_agents)
        return parts


class LateExit(Countdown):
    def step(self, actions: dict[str, Any]) -> Any:
        if self.time == 1:
            raise SystemExit(3)
        return super().step(actions)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (LateGhost, "agents lists who still plays; 'early' has ended at step 2 and is in it"),
        (LateExit, "step raised SystemExit: 3"),
        (LateStranger, "possible_agents lists all agents; 'stranger' came later"),
        (LateNaN, "rewards are finite; early got nan at step 2"),
        (LateSilence, "an observation for every live agent; 'late' has none at step 2"),
        (LateCrash, "step raised KeyError: 'something of its own'"),
    ],
)
def test_what_breaks_later_is_named_too(environment: type[Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    game = game_of(environment, monkeypatch)
    actions = {"agents": torch.zeros(1, 2, dtype=torch.int64)}
    state, _ = game.step(game.start(torch.tensor([1])), actions)
    with pytest.raises(ValueError, match=message):
        game.step(state, actions)
