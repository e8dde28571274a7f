"""Path integration: told every step of a walk, where are you?

Actions: the place, in each dimension from -1 to 1 (the walls of the room).
Observations: `velocity`, the step just taken in each dimension, in units of `speed`. The walk starts in the middle of the room; its heading
    turns by up to `turn` radians a step, its steps are up to `speed` long, and walls reflect it.
Reward: minus the squared distance from the true place, at every step.
End: after `steps` steps.
Measure: `squared_error`, the squared distance.
Source: Banino et al. 2018 (Nature 557) and Cueva and Wei 2018 (arXiv 1803.07770) for a room; a third dimension is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from envs.chance import Purpose, uniform
from envs.diagnostics.sequence import GREEN, GREY, INK, RED, Script, SequenceTask
from envs.game import Mark, Observation


@dataclass(frozen=True)
class PathIntegration(SequenceTask):
    """dimensions: 2 or 3. speed: the longest step; the room is 2 wide. turn: the most that the heading changes per step, in radians."""

    dimensions: int = 2
    speed: float = 0.15
    turn: float = 0.5
    steps: int = 50

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise ValueError(f"dimensions is {self.dimensions}; want 2 or 3")
        if not 0.0 < self.speed <= 1.0:
            raise ValueError(f"speed is {self.speed}; want a number above 0, up to 1 (the room is 2 wide)")
        if not 0.0 <= self.turn <= math.pi:
            raise ValueError(f"turn is {self.turn}; want radians from 0 to pi")
        if not 1 <= self.steps <= 100_000:
            raise ValueError(f"steps is {self.steps}; want from 1 to 100,000")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        return {"velocity": gym.spaces.Box(-1, 1, (self.dimensions,), np.float32)}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.Box(-1, 1, (self.dimensions,), np.float32)

    @property
    def max_steps(self) -> int:
        return self.steps

    @property
    def task(self) -> str:
        return f"walk {self.steps} steps from the middle of a room; say at every step where you are"

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        time = torch.arange(self.steps, device=seeds.device)
        # In double precision, so that single precision holds the same numbers on every device.
        luck = [uniform(seeds[:, None], Purpose.GAME, part, time).double() for part in range(3)]
        first = uniform(seeds[:, None], Purpose.GAME, 3, torch.arange(2, device=seeds.device)).double()
        azimuth = 2 * math.pi * first[:, :1] + self.turn * (2 * luck[0] - 1).cumsum(1)
        axes = [torch.cos(azimuth), torch.sin(azimuth)]
        if self.dimensions == 3:
            elevation = torch.asin(2 * first[:, 1:] - 1) + self.turn * (2 * luck[2] - 1).cumsum(1)
            axes = [torch.cos(elevation) * axes[0], torch.cos(elevation) * axes[1], torch.sin(elevation)]
        place = _reflected((self.speed * luck[1][..., None] * torch.stack(axes, 2)).cumsum(1))
        velocity = place.diff(dim=1, prepend=torch.zeros_like(place[:, :1])) / self.speed
        asked = torch.ones(len(seeds), self.steps, dtype=torch.bool, device=seeds.device)
        return Script({"velocity": velocity.float().clamp(-1, 1)}, place.float(), asked, torch.full_like(seeds, self.steps))

    def sees(self, shown: Observation) -> str:
        return "a step of " + _vector((shown["velocity"] * self.speed).tolist())

    def names(self, action: Tensor) -> str:
        return _vector(action.tolist())

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        """The first two dimensions, seen from above: the walk so far, where it is (green) and where the player thinks it is (red)."""
        marks = [Mark("box", 0.5, 0.5, 0.66, GREY, height=0.66)]
        places = script.right[:step].tolist()
        marks += [_disc(place, 0.016, INK) for place in places[:-1]]
        return [*marks, _disc(places[-1], 0.05, GREEN), _disc(said.tolist(), 0.035, RED)]


def _reflected(free: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Where a straight walk on an endless line is, folded back at -1 and 1."""
    return 1 - ((free + 1) % 4 - 2).abs()


def _vector(numbers: list[float]) -> str:
    return "(" + ", ".join(f"{number:+.2f}" for number in numbers) + ")"


def _disc(place: list[float], size: float, colour: tuple[int, int, int]) -> Mark:
    return Mark("disc", 0.5 + 0.32 * place[0], 0.5 - 0.32 * place[1], size, colour)


def path_integration() -> PathIntegration:
    """Walk fifty steps through a room, told each step, and say where you are (after Cueva and Wei 2018)."""
    return PathIntegration()
