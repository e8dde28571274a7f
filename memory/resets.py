"""Where a row's trials begin within the steps of a call, and what may be asked about that without making a GPU wait."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def steps_before(clock: Int[Tensor, "B"], reset: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """How many steps of its own trial come before each step. clock: how many there were before the first."""
    step = torch.arange(reset.shape[1], device=reset.device)
    began = torch.where(reset, step, -1).cummax(1).values
    return torch.where(began < 0, clock[:, None] + step, step - began)


def may_be_true(flags: Bool[Tensor, "..."]) -> bool:
    """Whether any flag is true. On a GPU asking would stall the queue, so there one may be."""
    return flags.device.type != "cpu" or bool(flags.any())


def steps_with_a_reset(reset: Bool[Tensor, "T B"]) -> list[bool]:
    """Per step, whether any row resets. On a GPU asking would stall the queue, so there every step may."""
    if reset.device.type != "cpu":
        return [True] * reset.shape[0]
    answers: list[bool] = reset.any(1).tolist()
    return answers
