"""The only rollout: B games in lockstep for T steps. Training, evaluation, replay and benchmarks all use it.

Every occupant acts once per step for all its seats. A trial is one or more episodes in a row against the same co-players; when one ends,
the row goes on with a fresh trial, whose seed follows from the row's, and everyone there has forgotten everything. So rows never idle, and
whoever wants whole trials only keeps those numbered 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from agents.agent import Agent
from agents.occupant import Decision, Occupant
from envs.chance import luck_of_episode, luck_of_seat, luck_of_trial
from envs.game import Answer, Game, KnowsAnswers, Observation, release
from training import identity, tree
from training.foreign import in_role
from training.seating import Group, Seating, group_seats
from training.settings import BadInput


class Table(NamedTuple):
    """Where B games stand between two steps. All leaves are tensors, so that a step can be captured in a CUDA graph.

    game: the game's state. seeds: [B], of the rows. trial: [B], how many trials have ended in the row. episode: [B], how many episodes of
    this one. fresh, began: [B], nothing has happened in this trial, in this episode yet. reward: {role: [B, seats]}, earned by the last
    actions and not yet perceived. states: one per group of seats.
    """

    game: Any
    seeds: Int64[Tensor, "B"]
    trial: Int64[Tensor, "B"]
    episode: Int64[Tensor, "B"]
    fresh: Bool[Tensor, "B"]
    began: Bool[Tensor, "B"]
    reward: dict[str, Float[Tensor, "B seats"]]
    states: tuple[Any, ...]


class Step(NamedTuple):
    """What a step leaves behind (after `play`, every leaf is [T, ...]).

    Per group of seats: observations, perceived (rewards before acting), answers (if kept) and decisions; for those who are not watched
    only the action.
    rewards: {role: [B, seats]}. measures: the game's. trial, fresh, began: as they were before the step. ended: [B], the trial's last step.
    game: the state after the step (before a new episode starts), if kept.
    """

    observations: tuple[Observation | None, ...]
    perceived: tuple[Float[Tensor, "..."] | None, ...]
    answers: tuple[Answer | None, ...]
    decisions: tuple[Decision, ...]
    rewards: dict[str, Float[Tensor, "..."]]
    measures: dict[str, Float[Tensor, "..."]]
    trial: Int64[Tensor, "..."]
    fresh: Bool[Tensor, "..."]
    began: Bool[Tensor, "..."]
    ended: Bool[Tensor, "..."]
    game: Any


class Rollout:
    """A game, a seating and its occupants, ready to be played.

    watched: the occupants whose observations, values and log-probabilities are kept (None: everyone's). keeps_states: whether the game's
    states are kept, for recordings. keeps_answers: whether the right actions of those who are watched are kept; ValueError where the game
    does not know them. shows_answers: whether a teacher leads those agents who are watched (`Agent.follow`): they play what is right and
    remember nothing of it. episodes: of a trial.
    """

    def __init__(
        self,
        game: Game,
        seating: Seating,
        occupants: Mapping[str, Occupant],
        *,
        episodes: int = 1,
        watched: Iterable[str] | None = (),
        keeps_states: bool = False,
        keeps_answers: bool = False,
        shows_answers: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.game = game
        self.episodes = episodes
        self.device = torch.device(device)
        self.seating = seating
        self.groups = group_seats(game, seating, self.device)
        missing = sorted({group.occupant for group in self.groups} - set(occupants))
        if missing:
            raise ValueError(f"the seating names {', '.join(missing)}; the occupants are {', '.join(occupants)}")
        self.occupants = [in_role(occupants[group.occupant], group.role) for group in self.groups]
        names = None if watched is None else set(watched)
        self.watched = [names is None or group.occupant in names for group in self.groups]
        self.keeps_states = keeps_states
        self.teacher = knowing(game) if keeps_answers or shows_answers else None
        self.shows_answers = shows_answers
        # Who starts anew with every episode of a trial.
        self.forgets = [episodes > 1 and getattr(occupant, "forgets_episodes", False) for occupant in self.occupants]
        self.told = [identity.asks(occupant, group.role) for group, occupant in zip(self.groups, self.occupants, strict=True)]

    @property
    def trial_steps(self) -> int:
        """The longest that a trial can last."""
        return self.episodes * self.game.max_steps

    def start(self, seeds: Int64[Tensor, "B"]) -> Table:
        """The tables set, before the first step. seeds: each trial's luck, all of it."""
        seeds = seeds.to(self.device)
        zero = torch.zeros_like(seeds)
        reward = {role.name: torch.zeros(len(seeds), role.seats, device=self.device) for role in self.game.roles}
        game = self.game.start(luck_of_episode(seeds, zero))
        return Table(game, seeds, zero, zero, zero == 0, zero == 0, reward, self._seat_everyone(seeds, zero))

    def play(self, table: Table, steps: int) -> tuple[Table, Step]:
        """Plays on for T steps. Raises BadInput where what somebody expects, or remembers after the last step, is not finite: nothing
        that was decided then means anything.
        """
        log: Any = None
        values: list[list[Tensor]] = [[] for _ in self.groups]
        acted: list[tuple[Decision, Any]] = []
        for t in range(steps):
            table, step, acted = self._step(table)
            if log is None:
                log = tree.map_leaves(lambda leaf: leaf.new_empty((steps, *leaf.shape)), step)
            tree.map_leaves(lambda kept, leaf, t=t: kept[t].copy_(leaf), log, step)
            for expected, (decision, _) in zip(values, acted, strict=True):
                expected += [] if decision.value is None else [decision.value]
        # Nobody has acted where there were no steps.
        for group, expected, (_, state) in zip(self.groups, values, acted, strict=False):
            if expected:
                _check_finite(group.occupant, {"value": torch.stack(expected), **tree.named_leaves(state)})
        return table, log

    def step(self, table: Table) -> tuple[Table, Step]:
        """One step of all games. On a GPU nothing in it waits for the device."""
        table, step, _ = self._step(table)
        return table, step

    def _step(self, table: Table) -> tuple[Table, Step, list[tuple[Decision, Any]]]:
        """The table after the step, the step, and what each group decided with the state it was in then, before trials start anew."""
        views = self._views(table)
        right = self.teacher.answers(table.game) if self.teacher is not None else {}
        actions: dict[str, Tensor] = {}
        observations, perceived, answers, decisions, acted = [], [], [], [], []
        for (seen, reward), group, occupant, before, watched in zip(
            views, self.groups, self.occupants, table.states, self.watched, strict=True
        ):
            answer = _of_group(right[group.role.name], group) if watched and right else None
            if self.shows_answers and answer is not None and isinstance(occupant, Agent):
                decision, state = occupant.follow(seen, before, answer)
            else:
                decision, state = occupant.act(seen, before, reward)
            if group.role.name not in actions:
                shape = (len(table.seeds) * group.role.seats, *decision.action.shape[1:])
                actions[group.role.name] = decision.action.new_empty(shape)
            actions[group.role.name].index_copy_(0, group.rows, decision.action)
            observations.append(seen if watched else None)
            perceived.append(reward if watched else None)
            answers.append(answer)
            decisions.append(decision if watched else Decision(decision.action))
            acted.append((decision, state))
        placed = {role.name: actions[role.name].unflatten(0, (-1, role.seats)) for role in self.game.roles}
        game, turn = self.game.step(table.game, placed)
        ended = turn.over & (table.episode + 1 >= self.episodes)
        kept = game if self.keeps_states else None
        step = Step(
            tuple(observations),
            tuple(perceived),
            tuple(answers),
            tuple(decisions),
            turn.rewards,
            turn.measures,
            table.trial,
            table.fresh,
            table.began,
            ended,
            kept,
        )
        states = tuple(state for _, state in acted)
        after = table._replace(game=game, fresh=ended, began=turn.over, reward=turn.rewards, states=states)
        return self._go_on(after, turn.over, ended), step, acted

    def look(self, table: Table) -> list[dict[str, Tensor]]:
        """What each group's memories look at in the step that comes next: {name: [N, ...]}, {} for whoever is no agent. The table stays
        as it is.
        """
        return [
            occupant.inspect(seen, state, reward) if isinstance(occupant, Agent) else {}
            for (seen, reward), occupant, state in zip(self._views(table), self.occupants, table.states, strict=True)
        ]

    def finish(self, table: Table) -> None:
        """Nobody will play on from this table."""
        release(self.game, table.game)

    def value_ahead(self, table: Table, group: int) -> Float[Tensor, "N"]:
        """What a group's occupant expects from here on, [N]; 0 where a fresh trial begins. The table stays as it is."""
        seen, reward = self._views(table)[group]
        decision, _ = self.occupants[group].act(seen, table.states[group], reward)
        assert decision.value is not None
        return decision.value.masked_fill(table.fresh[self.groups[group].games], 0.0)

    def _views(self, table: Table) -> list[tuple[Observation, Float[Tensor, "N"]]]:
        """What each group of seats perceives: its observation, and the reward of its last action."""
        observation = self.game.observe(table.game)
        known = None
        if any(self.told):
            known = identity.identities(self.groups, self.occupants, table.states, *self.seating.seats.shape)
        views = []
        for group, occupant, told, forgets in zip(self.groups, self.occupants, self.told, self.forgets, strict=True):
            role = group.role.name
            seen = {name: value.flatten(0, 1).index_select(0, group.rows) for name, value in observation[role].items()}
            if told and known is not None:
                seen[identity.FIELD] = identity.of_others(known, group)
            reward = table.reward[role].flatten().index_select(0, group.rows)
            # Agents leave it out themselves.
            is_new = forgets and not isinstance(occupant, Agent)
            views.append((seen, reward.masked_fill(table.began[group.games], 0.0) if is_new else reward))
        return views

    def _go_on(self, table: Table, over: Bool[Tensor, "B"], ended: Bool[Tensor, "B"]) -> Table:
        """The next episode where one is over, the next trial where it was the last."""
        # Asking is free on a CPU; on a GPU it would stall, so there every step prepares a fresh start and keeps the rows that need it.
        rows = over.nonzero()[:, 0] if self.device.type == "cpu" else None
        if rows is not None and len(rows) == 0:
            return table
        trial = table.trial + ended
        episode = (table.episode + over).masked_fill(ended, 0)
        luck = luck_of_episode(luck_of_trial(table.seeds, trial), episode)
        if rows is not None:
            game = tree.with_rows(table.game, rows, self.game.start(luck[rows]))
        else:
            game = tree.where(over, self.game.start(luck), table.game)
        states = table.states
        if rows is None or bool(ended.any()):
            fresh = self._seat_everyone(table.seeds, trial)
            states = tuple(
                tree.where(ended[group.games], new, old) for group, new, old in zip(self.groups, fresh, table.states, strict=True)
            )
        if any(self.forgets):
            states = tuple(
                tree.where((over & ~ended)[group.games], occupant.start(luck_of_seat(luck[group.games], group.seats)), state)
                if forgets
                else state
                for group, occupant, state, forgets in zip(self.groups, self.occupants, states, self.forgets, strict=True)
            )
        reward = {name: value.masked_fill(ended[:, None], 0.0) for name, value in table.reward.items()}
        return table._replace(game=game, trial=trial, episode=episode, reward=reward, states=states)

    def _seat_everyone(self, seeds: Tensor, trial: Tensor) -> tuple[Any, ...]:
        luck = luck_of_trial(seeds, trial)
        return tuple(
            occupant.start(luck_of_seat(luck[group.games], group.seats))
            for group, occupant in zip(self.groups, self.occupants, strict=True)
        )


def _check_finite(name: str, leaves: Mapping[str, Tensor]) -> None:
    for leaf, numbers in leaves.items():
        # In one pass; NaN wins both ways.
        if numbers.is_floating_point() and numbers.numel() and not bool(torch.stack(numbers.aminmax()).isfinite().all()):
            found = numbers[~numbers.isfinite()][0].item()
            raise BadInput(
                f"{name}: its {leaf} holds {found} as it plays; want finite numbers, of weights that are neither damaged nor huge"
            )


def knowing(game: Game) -> KnowsAnswers:
    """The game, which knows its right actions. Raises ValueError where it does not."""
    if not isinstance(game, KnowsAnswers):
        raise ValueError(f"{type(game).__name__} does not know the right actions; want a game that has `answers`, such as match_to_sample")
    return game


def _of_group(answer: Answer, group: Group) -> Answer:
    rows: Answer = tree.map_leaves(lambda leaf: leaf.flatten(0, 1).index_select(0, group.rows), answer)
    return rows


class Relaxation(NamedTuple):
    """What a speaker's words did, for straight-through Gumbel-softmax (`training.messages`).

    gradient: of the listener's loss, in the word as a one-hot vector. noise: Gumbel noise under which the word was the largest.
    """

    gradient: Float[Tensor, "N T V"]
    noise: Float[Tensor, "N T V"]


class Trajectories(NamedTuple):
    """What one learner lived through, one row per seat: N rows of T steps. It is what a loss wants.

    observation: {field: [N, T, ...]}. action, log_prob, value, reward: at, and earned by, each step. action_before, reward_before: what
    was perceived. reset: the step begins a trial. ended: it ends one. kind: [N], the seating's. last_value: [N], of what follows.
    memory: the memory's state at the head. answer: what would have been right at each step, [N, T, ...], if kept.
    relaxation: where its words are to be differentiated. others: [N, T, A], shares of the other seats that took each action, if kept.
    """

    observation: Observation
    action: Tensor
    log_prob: Float[Tensor, "N T"]
    value: Float[Tensor, "N T"]
    reward: Float[Tensor, "N T"]
    action_before: Tensor
    reward_before: Float[Tensor, "N T"]
    reset: Bool[Tensor, "N T"]
    ended: Bool[Tensor, "N T"]
    kind: Int64[Tensor, "N"]
    last_value: Float[Tensor, "N"]
    memory: Any
    answer: Answer | None = None
    relaxation: Relaxation | None = None
    others: Float[Tensor, "N T A"] | None = None


def trajectories(rollout: Rollout, before: Table, log: Step, after: Table, keeps_others: bool = False) -> dict[str, Trajectories]:
    """{learner: Trajectories} from a rollout in which the learners were watched. before, after: the tables around it."""
    parts: dict[str, list[Trajectories]] = {}
    shares = _shares_of_actions(rollout, log) if keeps_others else None
    for number, group in enumerate(rollout.groups):
        observation, perceived, decision = log.observations[number], log.perceived[number], log.decisions[number]
        if observation is None or perceived is None or decision.log_prob is None or decision.value is None:
            continue
        action = decision.action
        head = before.states[number]
        earned = log.rewards[group.role.name].flatten(1, 2).index_select(1, group.rows)
        parts.setdefault(group.occupant, []).append(
            Trajectories(
                observation={name: value.transpose(0, 1) for name, value in observation.items()},
                action=action.transpose(0, 1),
                log_prob=decision.log_prob.T,
                value=decision.value.T,
                reward=earned.T,
                action_before=torch.cat([head.action[None], action[:-1]]).transpose(0, 1),
                reward_before=perceived.T,
                reset=(log.began if rollout.forgets[number] else log.fresh)[:, group.games].T,
                ended=log.ended[:, group.games].T,
                kind=rollout.seating.kind.to(rollout.device)[group.games],
                last_value=rollout.value_ahead(after, number),
                memory=head.memory,
                answer=tree.map_leaves(lambda leaf: leaf.transpose(0, 1), log.answers[number]),
                others=None if shares is None else _without(shares, action, group).transpose(0, 1),
            )
        )
    return {name: join(several) for name, several in parts.items()}


def check_has_others(game: Game) -> None:
    """Raises ValueError where no seat can be asked what the others choose."""
    if len(game.roles) != 1 or game.roles[0].seats < 2 or not isinstance(game.roles[0].action_space, gym.spaces.Discrete):
        raise ValueError(
            f"auxiliary.co_player wants a game of two or more seats of one role with Discrete actions; {type(game).__name__} has none"
        )


def _shares_of_actions(rollout: Rollout, log: Step) -> Float[Tensor, "T B A"]:
    """How many seats took each action, in a game that `check_has_others` lets pass."""
    space = rollout.game.roles[0].action_space
    counts = torch.zeros(*log.ended.shape, int(space.n), device=rollout.device)
    for group, decision in zip(rollout.groups, log.decisions, strict=True):
        taken = torch.nn.functional.one_hot(decision.action - int(space.start), int(space.n)).to(counts.dtype)
        counts.index_add_(1, group.games, taken)
    return counts


def _without(counts: Float[Tensor, "T B A"], action: Int64[Tensor, "T N"], group: Group) -> Float[Tensor, "T N A"]:
    """What the other seats of each row's game did, as shares."""
    space = group.role.action_space
    own = torch.nn.functional.one_hot(action - int(space.start), int(space.n))
    return (counts[:, group.games] - own) / (group.role.seats - 1)


def join(parts: list[Trajectories]) -> Trajectories:
    """Rows of several under one another."""
    if len(parts) == 1:
        return parts[0]
    return tree.map_leaves(lambda *leaf: torch.cat(leaf), *parts)
