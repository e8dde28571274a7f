"""Sine generation: told a frequency and a phase, draw the wave.

Actions: the wave's height now, from -1 to 1.
Observations: `frequency`, from 0 for the longest period to 1 for the shortest; `phase`, the cosine and the sine of the phase at the first
    step. Both stay the same all through the episode: only the player's own clock says how far the wave has come.
Reward: minus the squared error, at every step.
End: after `steps` steps.
Measure: `squared_error`.
Source: the static-cue task of Sussillo and Barak 2013 (Neural Computation 25), with a phase. Frequencies are drawn evenly between those of
    the two periods, phases evenly from the circle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.chance import Purpose, uniform
from envs.diagnostics.sequence import GREY, INK, RED, Script, SequenceTask
from envs.game import Mark, Observation


@dataclass(frozen=True)
class Sine(SequenceTask):
    """shortest, longest: periods, in steps."""

    shortest: float = 10.0
    longest: float = 40.0
    steps: int = 50

    def __post_init__(self) -> None:
        if not 2.0 <= self.shortest < math.inf:
            raise ValueError(f"shortest is {self.shortest}; want a period of at least 2 steps")
        if not self.shortest < self.longest < math.inf:
            raise ValueError(f"longest is {self.longest}; want a period above the shortest, {self.shortest}")
        if not 1 <= self.steps <= 100_000:
            raise ValueError(f"steps is {self.steps}; want from 1 to 100,000")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        return {"frequency": gym.spaces.Box(0, 1, (), np.float32), "phase": gym.spaces.Box(-1, 1, (2,), np.float32)}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.Box(-1, 1, (), np.float32)

    @property
    def max_steps(self) -> int:
        return self.steps

    @property
    def task(self) -> str:
        return f"draw {self.steps} steps of a sine wave of this frequency and phase"

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        time = torch.arange(self.steps, device=seeds.device)
        place = uniform(seeds, Purpose.GAME, 0)
        # In double precision, so that single precision holds the same numbers on every device.
        turns = uniform(seeds, Purpose.GAME, 1).double()
        phase = 2 * math.pi * torch.stack([turns + 0.25, turns], 1)
        frequency = 1 / self.longest + place.double() * (1 / self.shortest - 1 / self.longest)
        wave = torch.sin(2 * math.pi * (frequency[:, None] * time + turns[:, None])).float()
        shown = {
            "frequency": place[:, None].expand(-1, self.steps),
            "phase": torch.sin(phase).float()[:, None].expand(-1, self.steps, -1),
        }
        return Script(shown, wave, torch.ones_like(wave, dtype=torch.bool), torch.full_like(seeds, self.steps))

    def sees(self, shown: Observation) -> str:
        frequency = 1 / self.longest + float(shown["frequency"]) * (1 / self.shortest - 1 / self.longest)
        cosine, sine = shown["phase"].tolist()
        return f"a period of {1 / frequency:.1f} steps and a phase of {math.degrees(math.atan2(sine, cosine)) % 360:.0f} degrees"

    def names(self, action: Tensor) -> str:
        return f"{float(action):+.2f}"

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        first = max(0, step - 50)
        marks = [Mark("box", 0.5, 0.5, 0.94, GREY, height=0.005)]
        for number, height in enumerate(script.right[first:step].tolist()):
            marks.append(Mark("disc", 0.05 + 0.9 * (number + 0.5) / 50, 0.5 - 0.3 * height, 0.02, INK))
        marks.append(Mark("disc", 0.05 + 0.9 * (step - first - 0.5) / 50, 0.5 - 0.3 * float(said), 0.04, RED))
        return marks


def sine() -> Sine:
    """Draw fifty steps of a sine wave from its frequency and phase (after Sussillo and Barak 2013)."""
    return Sine()
