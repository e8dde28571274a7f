"""Words as differentiable actions: straight-through Gumbel-softmax (Jang et al. 2017; Maddison et al. 2017) between two learners.

A word that was said, one-hot, is what the listener hears. Backwards it counts as softmax((log p + g) / temperature), g being Gumbel noise
under which it was the largest. So the speaker's gradient is the gradient of the listener's loss in what it heard, times that softmax's
Jacobian. The first factor is computed where trials are collected, with the networks that played them, the second in the speaker's own
update: no graph spans two learners, and minibatches and learner processes stay as they are.

The noise is drawn given the word that was said (Paulus et al. 2021), so that sampling needs no change. What a word does to the next ones of
the speaker itself is left out of its gradient.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from agents.agent import Agent
from agents.encoders import DictEncoder, SymbolEncoder
from envs.chance import Purpose, fold, uniform
from envs.game import Channel, Game, HasChannels, KnowsAnswers
from training import tree
from training.rollout import Relaxation, Rollout, Table, Trajectories

# Words less probable than exp(-80) are as good as forbidden.
_LEAST = -80.0


def channels_of(game: Game) -> tuple[Channel, ...]:
    """Who hears whom. Raises ValueError where no role hears another's words, or nobody knows what it should have understood."""
    if not isinstance(game, HasChannels) or not game.channels or not isinstance(game, KnowsAnswers):
        raise ValueError(f"in {type(game).__name__} no learner hears the words of another; want 'referential', with turns=1")
    return game.channels


def relaxed(lived: dict[str, Trajectories], rollout: Rollout, before: Table) -> dict[str, Trajectories]:
    """Trajectories whose speakers know what their words did to their listeners. before: the table at the trajectories' head."""
    found = dict(lived)
    for channel in channels_of(rollout.game):
        heard: Tensor | None = None
        for number, rows in _rows_of(rollout, lived, channel.receiver):
            group, agent = rollout.groups[number], cast(Agent, rollout.occupants[number])
            gradient = gradient_in_heard(agent, tree.rows_of(lived[group.occupant], rows), channel.field)
            if heard is None:
                heard = gradient.new_zeros(len(before.seeds), *gradient.shape[1:])
            heard.index_copy_(0, group.games, gradient)
        for number, rows in _rows_of(rollout, lived, channel.sender):
            group, agent = rollout.groups[number], cast(Agent, rollout.occupants[number])
            own = tree.rows_of(lived[group.occupant], rows)
            log_prob = _policy(agent, own)
            gradient = torch.zeros_like(log_prob)
            if heard is not None:
                # A word arrives a step later, unless the trial has ended.
                gradient[:, :-1] = heard[group.games, 1:].masked_fill(own.ended[:, :-1, None], 0.0)
            steps = torch.arange(own.action.shape[1], device=own.action.device)
            luck = fold(before.states[number].seed[:, None], Purpose.ACTION, steps, 1)
            found[group.occupant] = own._replace(relaxation=Relaxation(gradient, gumbel_given(log_prob, own.action, luck)))
    return found


def gradient_in_heard(agent: Agent, lived: Trajectories, field: str) -> Float[Tensor, "N T V"]:
    """The gradient of each row's loss, the errors at all steps that ask for an answer, in the symbols of a field as one-hot vectors."""
    assert lived.answer is not None
    encoder = _encoder_of(agent, field)
    embedded: list[Tensor] = []
    handle = encoder.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    try:
        with torch.enable_grad():
            policy = agent(lived.observation, lived.action_before, lived.reward_before, lived.memory, lived.reset).policy
            error = agent.policy_head.loss(policy, lived.answer.action).masked_fill(~lived.answer.asked, 0.0)
            (gradient,) = torch.autograd.grad(error.sum(), embedded)
    finally:
        handle.remove()
    return gradient @ encoder.table.weight.detach().T


def gumbel_given(log_prob: Float[Tensor, "... V"], word: Int64[Tensor, "..."], seed: Int64[Tensor, "..."]) -> Float[Tensor, "... V"]:
    """Gumbel noise, distributed as it is where `word` has the largest sum of log-probability and noise.

    That sum is -log E, E exponential; any other is -log(E + E_v / p_v), E_v exponential too (Maddison et al. 2014).
    """
    draws = uniform(seed[..., None], torch.arange(log_prob.shape[-1], device=seed.device))
    exponential = (-torch.log1p(-draws.double())).clamp(min=1e-12)
    known = log_prob.double().clamp(min=_LEAST)
    largest = exponential.gather(-1, word[..., None])
    others = -torch.log(largest + exponential * (-known).exp())
    sums = others.scatter(-1, word[..., None], -largest.log())
    return (sums - known).to(log_prob.dtype)


def straight_through_loss(
    log_prob: Float[Tensor, "N T V"], relaxation: Relaxation, temperature: float, applies: Bool[Tensor, "N T"]
) -> Float[Tensor, ""]:
    """Its gradient is the straight-through estimate of the gradient of the listeners' loss, a mean over rows; its value means nothing.

    applies: which words count.
    """
    soft = ((log_prob.clamp(min=_LEAST) + relaxation.noise) / temperature).softmax(-1)
    return (relaxation.gradient * soft).sum(2).masked_fill(~applies, 0.0).sum(1).mean()


def _rows_of(rollout: Rollout, lived: dict[str, Trajectories], role: str) -> list[tuple[int, slice]]:
    """For every group of learners in a role, its number, and which rows of its learner's trajectories are its own."""
    first = dict.fromkeys(lived, 0)
    found = []
    for number, group in enumerate(rollout.groups):
        if group.occupant in lived:
            rows = slice(first[group.occupant], first[group.occupant] + len(group.games))
            first[group.occupant] = rows.stop
            if group.role.name == role:
                found.append((number, rows))
    return found


def _policy(agent: Agent, lived: Trajectories) -> Float[Tensor, "N T V"]:
    policy: Tensor = agent(lived.observation, lived.action_before, lived.reward_before, lived.memory, lived.reset).policy
    return policy


def _encoder_of(agent: Agent, field: str) -> SymbolEncoder:
    perceives: Any = agent.observation_encoder
    assert isinstance(perceives, DictEncoder)
    encoder = perceives.encoders[perceives.names.index(field)]
    assert isinstance(encoder, SymbolEncoder)
    return encoder
