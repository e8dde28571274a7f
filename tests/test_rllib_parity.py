"""RLlib's own runner and our rollout play the same trials: same observations, actions, rewards, memories, log-probabilities, values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from agents.agent import Agent, AgentConfig, AgentState
from envs.game import Game
from envs.iterated_dilemma import IteratedDilemma, battle_of_the_sexes
from memory.gru import GRUConfig
from training import tree
from training.experiment import Experiment
from training.rllib.env import GameEnv
from training.rllib.module import BEGAN, EPISODE_SEED, REWARD, SEED, AgentModule
from training.rollout import Rollout, Step
from training.seating import one_table

# Every runner registers its environment under the same name.
pytestmark = pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-multi-agent-env-v0:UserWarning")

TRIALS = 3
GAMES = {
    "prisoners_dilemma": IteratedDilemma(rounds=10),
    "slips_and_random_ends": IteratedDilemma(rounds=10, noise=0.2, continuation=0.8),
    "two_fields": replace(battle_of_the_sexes(), rounds=10),
}


class Remembering:
    """An agent whose state after every step is kept."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.states: list[AgentState] = []

    @property
    def forgets_episodes(self) -> bool:
        return self.agent.forgets_episodes

    def start(self, seeds: torch.Tensor) -> AgentState:
        return self.agent.start(seeds)

    def act(self, observation: Any, state: AgentState, reward: torch.Tensor) -> Any:
        decision, state = self.agent.act(observation, state, reward)
        self.states.append(state)
        return decision, state


def build(game: Game, episodes: int, remembers: str = "trial") -> dict[str, Agent]:
    """The default experiment's learners, with weights large enough that what they remember decides what they do."""
    experiment = Experiment(game=game, agent=AgentConfig(memory=GRUConfig(width=16), remembers=remembers), episodes=episodes)
    agents = experiment.build_learners()
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for agent in agents.values():
            for parameter in agent.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=chance))
    return agents


def play_here(
    game: Game, episodes: int, agents: dict[str, Agent], seats: tuple[str, ...], seed: int
) -> tuple[Step, dict[str, Remembering]]:
    """One row that goes on for TRIALS trials."""
    occupants = {name: Remembering(agent) for name, agent in agents.items()}
    rollout = Rollout(game, one_table(seats, 1), occupants, episodes=episodes, watched=None)
    _, log = rollout.play(rollout.start(torch.tensor([seed])), TRIALS * rollout.trial_steps)
    return log, occupants


def play_in_rllib(game: Game, episodes: int, agents: dict[str, Agent], seats: tuple[str, ...], seed: int) -> list[MultiAgentEpisode]:
    """TRIALS trials by `MultiAgentEnvRunner`."""
    names = GameEnv({"game": game}).possible_agents
    role = game.roles[0]
    spec = RLModuleSpec(
        module_class=AgentModule,
        observation_space=role.observation_space,
        action_space=role.action_space,
        model_config={"agent": next(iter(agents.values())).config, "seed": 0},
    )
    config = (
        PPOConfig()
        .environment(GameEnv, env_config={"game": game, "episodes": episodes, "full": True})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .multi_agent(policies=set(seats), policy_mapping_fn=lambda agent, episode, **kwargs: seats[names.index(agent)])
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=dict.fromkeys(seats, spec)))
    )
    runner = MultiAgentEnvRunner(config=config)
    # What `.debugging(seed=...)` sets; but that would also seed and constrain torch for all tests to come.
    runner._seed = seed
    weights = {name: {f"agent.{key}": value for key, value in agents[name].state_dict().items()} for name in set(seats)}
    runner.set_state({COMPONENT_RL_MODULE: weights})
    return runner.sample(num_episodes=TRIALS)


def compare(log: Step, occupants: dict[str, Remembering], seats: tuple[str, ...], trials: list[MultiAgentEpisode]) -> None:
    """Fails where the row's log and RLlib's episodes differ."""
    names = list(dict.fromkeys(seats))
    for number, trial in enumerate(trials):
        steps = (log.trial[:, 0] == number).nonzero()[:, 0]
        assert len(trial) == len(steps)
        for seat, occupant in enumerate(seats):
            there = trial.agent_episodes[f"player_{seat}"]
            group, row = names.index(occupant), seats[:seat].count(occupant)
            decision = tree.map_leaves(lambda leaf, steps=steps, row=row: leaf[steps, row].numpy(), log.decisions[group])
            seen = {field: value[steps, row].numpy() for field, value in log.observations[group].items()}
            seen[REWARD] = log.perceived[group][steps, row].numpy()
            seen[BEGAN] = log.began[steps, 0].numpy().astype(np.int8)
            given = there.get_observations(slice(0, len(steps)))
            of_trial, of_episode = given.pop(SEED), given.pop(EPISODE_SEED)
            seeds = of_episode if occupants[occupant].forgets_episodes else of_trial
            if occupants[occupant].forgets_episodes:
                # What it earned in the episode before it is not told here, and leaves out there.
                given[REWARD] = np.where(given[BEGAN] == 1, np.float32(0), given[REWARD])
            assert given.keys() == seen.keys()
            for field, value in seen.items():
                assert given[field].dtype == value.dtype
                np.testing.assert_array_equal(given[field], value, field)
            np.testing.assert_array_equal(there.get_actions(), decision.action)
            np.testing.assert_array_equal(there.get_rewards(), log.rewards["player"][steps, 0, seat].numpy())
            outputs = {key: there.get_extra_model_outputs(key) for key in (Columns.ACTION_LOGP, Columns.VF_PREDS, Columns.STATE_OUT)}
            np.testing.assert_allclose(outputs[Columns.ACTION_LOGP], decision.log_prob, rtol=0, atol=1e-5)
            np.testing.assert_allclose(outputs[Columns.VF_PREDS], decision.value, rtol=0, atol=1e-5)
            states = [tree.named_leaves(occupants[occupant].states[step]) for step in steps]
            carried = {name: np.stack([state[name][row].numpy() for state in states]) for name in states[0]}
            np.testing.assert_array_equal(seeds, carried.pop("seed"))
            assert outputs[Columns.STATE_OUT].keys() == carried.keys()
            for name, value in carried.items():
                np.testing.assert_allclose(outputs[Columns.STATE_OUT][name], value, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("seed", [3, -(2**62) - 5])
@pytest.mark.parametrize(("seats", "episodes"), [(("learner_0", "learner_1"), 1), (("learner_1", "learner_1"), 2)], ids=["two", "itself"])
@pytest.mark.parametrize("name", GAMES)
def test_stock_rllib_plays_what_our_rollout_plays(name: str, seats: tuple[str, ...], episodes: int, seed: int) -> None:
    game = GAMES[name]
    agents = build(game, episodes)
    log, occupants = play_here(game, episodes, agents, seats, seed)
    trials = play_in_rllib(game, episodes, agents, seats, seed)
    compare(log, occupants, seats, trials)
    # Nobody always does the same, or equal actions would say little.
    assert {action for trial in trials for action in trial.agent_episodes["player_0"].get_actions().tolist()} == {0, 1}


@pytest.mark.parametrize("name", ["prisoners_dilemma", "slips_and_random_ends"])
def test_who_forgets_episodes_does_so_in_stock_rllib_too(name: str) -> None:
    game, seats = GAMES[name], ("learner_0", "learner_1")
    agents = build(game, 3, "episode")
    log, occupants = play_here(game, 3, agents, seats, 3)
    compare(log, occupants, seats, play_in_rllib(game, 3, agents, seats, 3))


@pytest.mark.parametrize("what", ["weight", "seed"])
def test_parity_is_lost_with_another_weight_or_seed(what: str) -> None:
    game, seats = GAMES["prisoners_dilemma"], ("learner_0", "learner_1")
    agents = build(game, 1)
    trials = play_in_rllib(game, 1, agents, seats, 3)
    if what == "weight":
        with torch.no_grad():
            agents["learner_1"].memory.candidate_bias[0] += 1e-3
    log, occupants = play_here(game, 1, agents, seats, 4 if what == "seed" else 3)
    with pytest.raises(AssertionError):
        compare(log, occupants, seats, trials)
