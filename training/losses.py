"""Losses as plain functions on tensors, in the papers' symbols. Clocks are in the names: r_t is earned by a_t, v_t is the value before it.

Time is the last axis; everything else is batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def generalised_advantages(
    r_t: Float[Tensor, "N T"],
    v_t: Float[Tensor, "N T"],
    ended_t: Bool[Tensor, "N T"],
    v_last: Float[Tensor, "N"],
    discount: float,
    trace: float,
) -> Float[Tensor, "N T"]:
    """A_t = sum_l (discount * trace)^l delta_{t+l}, delta_t = r_t + discount * v_{t+1} - v_t (Schulman et al. 2016, eq. 16).

    ended_t: a_t was a trial's last action, nothing is worth anything after it. v_last: the value of what follows the last step.
    The value targets are A_t + v_t (the lambda-return).
    """
    v_tp1 = torch.cat([v_t[:, 1:], v_last[:, None]], 1)
    goes_on = (~ended_t).to(r_t.dtype)
    delta_t = r_t + discount * goes_on * v_tp1 - v_t
    carry = discount * trace * goes_on
    advantage = torch.zeros_like(v_last)
    backwards = []
    for t in reversed(range(r_t.shape[1])):
        advantage = delta_t[:, t] + carry[:, t] * advantage
        backwards.append(advantage)
    return torch.stack(backwards[::-1], 1)


def normalise(advantage: Float[Tensor, "N T"], kind: Int64[Tensor, "N"], how: str) -> Float[Tensor, "N T"]:
    """Advantages centred separately for each kind of co-player (Meulemans et al. 2024, appendix B), or also scaled to deviation 1.

    how: "none", "centre" or "standardise". The deviation is taken over all rows, so that kinds keep their relative size.
    """
    if how == "none":
        return advantage
    centred = advantage.clone()
    for value in kind.unique():
        rows = kind == value
        centred[rows] -= advantage[rows].mean()
    return centred / (centred.std(correction=0) + 1e-8) if how == "standardise" else centred


def ppo_policy_loss(
    log_prob: Float[Tensor, "..."], old_log_prob: Float[Tensor, "..."], advantage: Float[Tensor, "..."], clip: float
) -> Float[Tensor, ""]:
    """- mean min(rho A, clamp(rho, 1 - clip, 1 + clip) A), rho = pi / pi_old (Schulman et al. 2017, eq. 7)."""
    rho = (log_prob - old_log_prob).exp()
    return -torch.min(rho * advantage, rho.clamp(1 - clip, 1 + clip) * advantage).mean()


def a2c_policy_loss(log_prob: Float[Tensor, "..."], advantage: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """- mean log pi A (Mnih et al. 2016)."""
    return -(log_prob * advantage).mean()


def answer_loss(error: Float[Tensor, "..."], asked: Bool[Tensor, "..."]) -> Float[Tensor, ""]:
    """The mean error over the steps at which an answer was wanted; 0 where there was none."""
    return error.masked_fill(~asked, 0.0).sum() / asked.sum().clamp(min=1)


def value_loss(value: Float[Tensor, "..."], target: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """mean (v - target)^2."""
    return (value - target).square().mean()


def approximate_kl(log_prob: Float[Tensor, "..."], old_log_prob: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """KL(pi_old || pi) in nats, by the estimator rho - 1 - log rho on samples of pi_old (Schulman 2020); never negative."""
    difference = log_prob - old_log_prob
    return (difference.exp() - 1 - difference).mean()
