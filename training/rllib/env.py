"""A game as RLlib's own `MultiAgentEnv`, so that stock RLlib plays it too.

Our own sampling does not pass through here. An RLlib episode is our trial, and a parity test holds both to the same play.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.chance import luck_of_episode, luck_of_seat, luck_of_trial
from envs.game import Game, seats_of
from training.rllib.module import BEGAN, EPISODE_SEED, REWARD, SEED

_LUCK = gym.spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (), np.int64)
_ADDED_FIELDS = {
    SEED: _LUCK,
    EPISODE_SEED: _LUCK,
    BEGAN: gym.spaces.Box(0, 1, (), np.int8),
    REWARD: gym.spaces.Box(-np.inf, np.inf, (), np.float32),
}


class GameEnv(MultiAgentEnv):
    """config (RLlib's env_config): {"game": a Game, "episodes": of a trial (1), "full": bool (False)}.

    Actions: as the role's action space says, from every agent at every step. Agents whose actions are real numbers need RLlib's
        `normalize_actions=False`: theirs are within the bounds already.
    Observations: the role's Dict space. With `full`, also SEED, the luck of who sits there, in this trial; EPISODE_SEED, in this episode;
        BEGAN, 1 in an episode's first step; and REWARD, earned since the last action (0 at first): with them an `AgentModule` perceives,
        remembers and draws exactly what it would in `training.rollout`.
    Reward: the game's.
    End: of the trial's last episode, for all agents at once, as termination; nothing is ever truncated.
    Source: the seeds are those of one row of `training.rollout.Rollout`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, config: Mapping[str, Any]) -> None:
        game = config.get("game")
        if not isinstance(game, Game):
            raise ValueError(f"game is {game!r}; want a Game in the env_config")
        self.game = game
        self.episodes: int = config.get("episodes", 1)
        if self.episodes < 1:
            raise ValueError(f"episodes is {self.episodes}; want at least 1")
        self.full: bool = config.get("full", False)
        self._seats = tuple(seats_of(game))
        added = _ADDED_FIELDS if self.full else {}
        self.possible_agents = [name for name, _, _ in self._seats]
        self.agents = list(self.possible_agents)
        self.observation_spaces = {name: gym.spaces.Dict({**role.observation_space.spaces, **added}) for name, role, _ in self._seats}
        self.action_spaces = {name: role.action_space for name, role, _ in self._seats}
        self._row_seed: torch.Tensor | None = None
        self._state: Any = None
        super().__init__()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """A fresh trial. seed: its luck, all of it; without one the next trial of the row that the last seed began.

        Where no seed was ever given, the operating system draws the first, so that RLlib's copies of an environment differ.
        """
        if seed is not None or self._row_seed is None:
            self._row_seed = torch.tensor([secrets.randbits(63) if seed is None else seed])
            self._trial = 0
        else:
            self._trial += 1
        self._luck = luck_of_trial(self._row_seed, self._trial)
        self._luck_of_seats = self._luck_of_episode = luck_of_seat(self._luck, torch.arange(len(self._seats)))
        self._reward = dict.fromkeys(self.agents, 0.0)
        self._began = True
        self._start_episode(0)
        return self._observe(), {name: {} for name in self.agents}

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """{agent: action} -> observations, rewards, terminations, truncations, infos, each {agent: ...}."""
        chosen: dict[str, list[np.ndarray]] = {role.name: [] for role in self.game.roles}
        for name, role, _ in self._seats:
            chosen[role.name].append(np.asarray(action_dict[name], role.action_space.dtype))
        actions = {role: torch.from_numpy(np.stack(seats)[None]) for role, seats in chosen.items()}
        self._state, turn = self.game.step(self._state, actions)
        self._reward = {name: turn.rewards[role.name][0, seat].item() for name, role, seat in self._seats}
        over = bool(turn.over)
        ended = over and self._episode + 1 == self.episodes
        self._began = over
        if over and not ended:
            self._start_episode(self._episode + 1)
        everyone = [*self.agents, "__all__"]
        return (
            self._observe(),
            dict(self._reward),
            dict.fromkeys(everyone, ended),
            dict.fromkeys(everyone, False),
            {name: {} for name in self.agents},
        )

    def _start_episode(self, episode: int) -> None:
        self._episode = episode
        luck = luck_of_episode(self._luck, episode)
        self._state = self.game.start(luck)
        # Who forgets episodes sits down anew for each after the first.
        if episode:
            self._luck_of_episode = luck_of_seat(luck, torch.arange(len(self._seats)))

    def _observe(self) -> dict[str, dict[str, np.ndarray]]:
        """{agent: {field: [...]}}, one seat's share of the batch of one game."""
        observation = self.game.observe(self._state)
        seen = {
            name: {field: value[0, seat].numpy().copy() for field, value in observation[role.name].items()}
            for name, role, seat in self._seats
        }
        if self.full:
            for number, name in enumerate(self.agents):
                seen[name][SEED] = self._luck_of_seats[number].numpy().copy()
                seen[name][EPISODE_SEED] = self._luck_of_episode[number].numpy().copy()
                seen[name][BEGAN] = np.array(self._began, np.int8)
                seen[name][REWARD] = np.array(self._reward[name], np.float32)
        return seen
