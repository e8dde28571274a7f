"""The flip-flop: several channels are pulsed up or down now and then; which way was each pulsed last?

Actions: for each channel 0 down, 1 up.
Observations: `pulses`, -1, 0 or 1 for each channel. At the first step all channels are pulsed, then each with `probability`, independently.
Reward: the share of the channels that are right, at every step; a pulse counts at once.
End: after `steps` steps.
Measure: `correct`, the share of the channels that are right.
Source: Sussillo and Barak 2013 (Neural Computation 25), three channels. There the outputs are numbers, -1 and 1; here they are choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.chance import Purpose, integers, uniform
from envs.diagnostics.sequence import GREEN, GREY, INK, RED, SAND, Script, SequenceTask
from envs.game import Mark, Observation


@dataclass(frozen=True)
class FlipFlop(SequenceTask):
    """channels: bits to keep. probability: of a pulse, per channel and step. steps: of an episode."""

    channels: int = 3
    probability: float = 0.1
    steps: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 100:
            raise ValueError(f"channels is {self.channels}; want from 1 to 100")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability is {self.probability}; want from 0 to 1")
        if not 1 <= self.steps <= 100_000:
            raise ValueError(f"steps is {self.steps}; want from 1 to 100,000")

    @property
    def fields(self) -> dict[str, gym.Space[Any]]:
        return {"pulses": gym.spaces.Box(-1, 1, (self.channels,), np.float32)}

    @property
    def action_space(self) -> gym.Space[Any]:
        return gym.spaces.MultiDiscrete([2] * self.channels)

    @property
    def max_steps(self) -> int:
        return self.steps

    @property
    def task(self) -> str:
        return f"say at every step which way each of {self.channels} channels was pulsed last"

    def script(self, seeds: Int64[Tensor, "B"]) -> Script:
        time = torch.arange(self.steps, device=seeds.device)[:, None]
        channel = torch.arange(self.channels, device=seeds.device)
        key = (seeds[:, None, None], Purpose.GAME)
        pulsed = (uniform(*key, 0, time, channel) < self.probability) | (time == 0)
        up = integers(key[0], 2, Purpose.GAME, 1, time, channel)
        latest = (pulsed * time).cummax(1).values
        pulses = (2 * up - 1) * pulsed
        asked = torch.ones_like(pulsed[..., 0])
        return Script({"pulses": pulses.float()}, up.gather(1, latest), asked, torch.full_like(seeds, self.steps))

    def sees(self, shown: Observation) -> str:
        return "".join("-.+"[int(pulse) + 1] for pulse in shown["pulses"].tolist())

    def names(self, action: Tensor) -> str:
        return "".join("-+"[bit] for bit in action.tolist())

    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        """A lane per channel: what it holds as a line, pulses as discs, what was said at the right."""
        first = max(0, step - 40)
        pitch, lane = 0.84 / 40, 0.64 / self.channels
        marks = []
        for channel in range(self.channels):
            middle = 0.17 + lane * (channel + 0.5)
            heights = [middle - 0.3 * lane * (2 * bit - 1) for bit in script.right[first:step, channel].tolist()]
            marks.append(Mark("box", 0.46, middle, 0.88, GREY, height=0.92 * lane))
            for number, (y, pulse) in enumerate(zip(heights, script.shown["pulses"][first:step, channel].tolist(), strict=True)):
                x = 0.04 + pitch * (number + 0.5)
                marks.append(Mark("box", x, y, pitch, INK, height=0.012))
                if pulse:
                    marks.append(Mark("disc", x, y, min(0.045, 0.3 * lane), SAND))
            bit, right = int(said[channel]), int(script.right[step - 1, channel])
            marks.append(Mark("text", 0.95, middle, min(0.1, 0.8 * lane), GREEN if bit == right else RED, "-+"[bit]))
        return marks


def flip_flop() -> FlipFlop:
    """Say at every step which way each of three channels was pulsed last (Sussillo and Barak 2013)."""
    return FlipFlop()
