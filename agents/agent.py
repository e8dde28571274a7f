"""The agent that learns: encoders -> memory -> heads.

It perceives observations and, where its settings say so, its own last action and reward. `forward` serves learning on whole trajectories,
`act` serves play, one step at a time; by the law of memories both see the same. All that is carried from step to step is `AgentState`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from agents.auxiliary import Auxiliary, AuxiliaryHeads
from agents.encoders import centre, encoder_of
from agents.heads import head_of
from agents.occupant import Decision
from agents.pointer import ItemsEncoder, item_features
from envs.chance import Purpose, fold
from envs.game import Answer, Observation
from memory.budget import check_size
from memory.gru import GRUConfig
from memory.memory import MemoryConfig


class AgentState(NamedTuple):
    """memory: the memory's own state. action: [N, ...], the last one. seed, clock: [N], luck, and steps taken in this trial."""

    memory: Any
    action: Tensor
    seed: Int64[Tensor, "N"]
    clock: Int64[Tensor, "N"]


class Outlook(NamedTuple):
    """What the agent makes of a trajectory.

    policy: [B, T, Q], to be read by its head. value: [B, T]. memory: its state after the last step. x, y: what entered the memory, and what
    it put out, for auxiliary losses.
    """

    policy: Float[Tensor, "B T Q"]
    value: Float[Tensor, "B T"]
    memory: Any
    x: Float[Tensor, "B T E"] | None = None
    y: Float[Tensor, "B T D"] | None = None


@dataclass(frozen=True)
class AgentConfig:
    """memory: by name or settings. embedding: E, width of what enters the memory. sees_action, sees_reward: its own last ones.

    sees_co_player: is told whom it plays with (`training.identity`); an ablation, for then it need not infer them. activation: on the
    memory's output, "silu" (swish, as in Weis et al. 2026) or "none". acts: "sample", from its policy, or "best", the policy's best guess.
    remembers: "trial", or "episode": forgets everything, and its last action and reward, when an episode of the trial begins. points: where
    an action is the place of one of the `items` that it sees, it chooses by what they are and not by where they stand (`agents.pointer`).
    auxiliary: what else it learns to predict.
    """

    memory: MemoryConfig = field(default_factory=GRUConfig)
    embedding: int = 32
    sees_action: bool = True
    sees_reward: bool = True
    sees_co_player: bool = False
    activation: str = "silu"
    acts: str = "sample"
    remembers: str = "trial"
    points: bool = True
    auxiliary: Auxiliary = field(default_factory=Auxiliary)

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise ValueError(f"embedding is {self.embedding}; want at least 1")
        if self.activation not in ("silu", "none"):
            raise ValueError(f"activation is {self.activation!r}; want 'silu' or 'none'")
        if self.acts not in ("sample", "best"):
            raise ValueError(f"acts is {self.acts!r}; want 'sample' or 'best'")
        if self.remembers not in ("trial", "episode"):
            raise ValueError(f"remembers is {self.remembers!r}; want 'trial' or 'episode'")
        check_size(self.memory, self.embedding)

    def build(self, observation_space: gym.spaces.Dict, action_space: gym.Space[Any], seed: int, first: Observation | None = None) -> Agent:
        """A new agent whose first weights are a function of `seed` and of `first`, [N, ...]: what is seen before anything happens."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            agent = Agent(self, observation_space, action_space)
        if first is not None:
            centre(agent.observation_encoder, first)
        return agent


class Agent(nn.Module):
    _no_action: Tensor

    def __init__(self, config: AgentConfig, observation_space: gym.spaces.Dict, action_space: gym.Space[Any]) -> None:
        super().__init__()
        self.config = config
        self.observation_space = observation_space
        self.action_space = action_space
        self.register_buffer("_no_action", _some_action(action_space), persistent=False)
        features = item_features(observation_space, action_space) if config.points else None
        encode = encoder_of if features is None else ItemsEncoder
        self.observation_encoder = encode(observation_space, config.embedding)
        self.action_encoder = encoder_of(action_space, config.embedding) if config.sees_action else None
        self.reward_encoder = nn.Linear(1, config.embedding) if config.sees_reward else None
        self.memory = config.memory.build(config.embedding)
        self.policy_head = head_of(action_space, self.memory.outputs, features)
        self.value_head = nn.Linear(self.memory.outputs, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.auxiliary = None
        if config.auxiliary.wanted:
            self.auxiliary = AuxiliaryHeads(config.auxiliary, observation_space, action_space, config.embedding, self.memory.outputs)

    def forward(
        self,
        observation: Observation,
        action: Tensor,
        reward: Float[Tensor, "B T"],
        memory: Any,
        reset: Bool[Tensor, "B T"],
    ) -> Outlook:
        """observation: {field: [B, T, ...]}. action [B, T, ...], reward: the ones BEFORE each step, ignored where reset.

        memory: the memory's state at the head.
        """
        x = self._perceive(observation, action, reward, reset)
        y, memory = self.memory(x, memory, reset)
        if self.config.activation == "silu":
            y = nn.functional.silu(y)
        return Outlook(self.policy_head(y, observation), self.value_head(y)[..., 0], memory, x, y)

    def _perceive(self, observation: Observation, action: Tensor, reward: Tensor, reset: Bool[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """What enters the memory."""
        x: Tensor = self.observation_encoder(observation)
        known = ~reset[..., None]
        if self.action_encoder is not None:
            x = x + self.action_encoder(action) * known
        if self.reward_encoder is not None:
            x = x + self.reward_encoder(reward[..., None].to(x.dtype)) * known
        return x

    @property
    def forgets_episodes(self) -> bool:
        """Whether it is to start anew with every episode of a trial."""
        return self.config.remembers == "episode"

    def start(self, seeds: Int64[Tensor, "N"]) -> AgentState:
        """The state of N seats that have seen nothing; their luck is a function of `seeds`. Raises ValueError where those are no seeds."""
        if not isinstance(seeds, Tensor) or seeds.dim() != 1 or seeds.dtype != torch.int64:
            raise ValueError(f"seeds is {seeds!r}; want a tensor of whole numbers, one per seat, such as torch.tensor([7])")
        action = self._no_action.expand(len(seeds), *self._no_action.shape)
        return AgentState(self.memory.start(len(seeds)), action, seeds, torch.zeros_like(seeds))

    @torch.no_grad()
    def act(self, observation: Observation, state: AgentState, reward: Float[Tensor, "N"] | None = None) -> tuple[Decision, AgentState]:
        """One step of N seats. observation: {field: [N, ...]}. reward: since the last act; 0 where None."""
        one_step, action_before, reward_before, fresh = _one_step(self.observation_space, observation, state, reward)
        outlook = self(one_step, action_before, reward_before, state.memory, fresh)
        policy = outlook.policy[:, 0]
        if self.config.acts == "best":
            action = self.policy_head.best(policy)
        else:
            action = self.policy_head.sample(policy, fold(state.seed, Purpose.ACTION, state.clock))
        decision = Decision(action, self.policy_head.log_prob(policy, action), outlook.value[:, 0], self.policy_head.parameters_of(policy))
        return decision, AgentState(outlook.memory, action, state.seed, state.clock + 1)

    @torch.no_grad()
    def follow(self, observation: Observation, state: AgentState, answer: Answer) -> tuple[Decision, AgentState]:
        """One step of N seats whom a teacher leads: the right action where one is wanted, elsewhere any that is allowed. answer: [N, ...].

        Nothing is perceived, expected (values are 0) or put into the memory, which makes it quick.
        """
        policy = self.policy_head.even(observation, len(state.seed))
        free = self.policy_head.sample(policy, fold(state.seed, Purpose.ACTION, state.clock))
        action = torch.where(answer.asked.view(-1, *[1] * (free.ndim - 1)), answer.action.to(free.dtype), free)
        decision = Decision(action, self.policy_head.log_prob(policy, action), torch.zeros_like(policy[:, 0]))
        return decision, AgentState(state.memory, action, state.seed, state.clock + 1)

    @torch.no_grad()
    def inspect(self, observation: Observation, state: AgentState, reward: Float[Tensor, "N"] | None = None) -> dict[str, Tensor]:
        """What the memory looks at when `act` is given the same, for people: {name: [N, ...]}, empty where it has nothing to show.

        It changes nothing, and neither playing nor learning asks for it.
        """
        one_step, action_before, reward_before, fresh = _one_step(self.observation_space, observation, state, reward)
        x = self._perceive(one_step, action_before, reward_before, fresh)
        return {name: value[:, 0] for name, value in self.memory.inspect(x, state.memory, fresh).items()}


def _one_step(
    space: gym.spaces.Dict, observation: Observation, state: AgentState, reward: Float[Tensor, "N"] | None
) -> tuple[Observation, Tensor, Float[Tensor, "N 1"], Bool[Tensor, "N 1"]]:
    """A step as a trajectory of one: what is observed, the action and the reward before it, and whether it begins a trial.

    Raises ValueError where a field is missing, or has not a row for each of the state's.
    """
    for name in space.spaces:
        if name not in observation:
            raise ValueError(f"observation has {', '.join(observation) or 'nothing'}; want {', '.join(space.spaces)}")
        _check_rows(f"observation.{name}", observation[name], state)
    if reward is None:
        reward = torch.zeros(len(state.clock), device=state.clock.device)
    _check_rows("reward", reward, state)
    one_step = {name: value[:, None] for name, value in observation.items()}
    return one_step, state.action[:, None], reward[:, None], (state.clock == 0)[:, None]


def _check_rows(name: str, value: Tensor, state: AgentState) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is {value!r}; want a tensor with one row per seat, such as torch.tensor([{value!r}])")
    if value.shape[:1] != state.clock.shape:
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, and the state {len(state.clock)} rows; want one for each, first")


def _some_action(space: gym.Space[Any]) -> Tensor:
    """An action of the right shape and type, to stand for "none yet"; it is never perceived."""
    if isinstance(space, gym.spaces.Discrete):
        return torch.tensor(int(space.start))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return torch.as_tensor(space.start).long().reshape(space.shape)
    return torch.zeros(space.shape or (), dtype=torch.float32)
