"""What the diagnostics share: one player is shown a sequence and asked for what follows from it.

All of an episode is written at its start, as a function of the seed; a step only turns the page. Symbols earn the share of them that is
right, numbers lose their squared distance; a step at which nothing is asked earns nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from envs.game import Answer, Mark, Observation, Role, Scene, Turn

GREEN, RED, BLUE, SAND, GREY, INK = (64, 145, 108), (200, 80, 72), (140, 178, 214), (222, 200, 150), (225, 227, 228), (40, 44, 52)
PER_ROW, ROWS = 8, 4


class Script(NamedTuple):
    """A batch of episodes. shown: {field: [B, T, ...]}. right: [B, T, ...], actions. asked: [B, T]. length: [B], steps, up to T."""

    shown: Observation
    right: Tensor
    asked: Bool[Tensor, "B T"]
    length: Int64[Tensor, "B"]


class SequenceState(NamedTuple):
    """said: [B, ...], the last action; zeros before the first."""

    seed: Int64[Tensor, "B"]
    step: Int64[Tensor, "B"]
    script: Script
    said: Tensor


class SequenceTask(ABC):
    """Base of frozen dataclasses that are games of one seat, "player"."""

    @property
    @abstractmethod
    def fields(self) -> dict[str, gym.Space[Any]]:
        """The observation's."""

    @property
    @abstractmethod
    def action_space(self) -> gym.Space[Any]: ...

    @property
    @abstractmethod
    def max_steps(self) -> int: ...

    @property
    @abstractmethod
    def task(self) -> str:
        """What the player has to do, for people."""

    @abstractmethod
    def script(self, seeds: Int64[Tensor, "B"]) -> Script: ...

    @abstractmethod
    def sees(self, shown: Observation) -> str:
        """What one step shows, for people. shown: {field: [...]}, without batch and time."""

    @abstractmethod
    def names(self, action: Tensor) -> str:
        """An action, for people. action: [...]."""

    @abstractmethod
    def picture(self, script: Script, step: int, said: Tensor) -> list[Mark]:
        """The first `step` steps of one episode (leaves of the script without their batch axis), and what was said last. y: 0.2 to 0.8."""

    def hardest(self, seeds: Int64[Tensor, "B"]) -> Bool[Tensor, "B"] | None:
        """Which episodes ask for as much as the settings allow; None where all do. They have a measure of their own."""
        return None

    @property
    def roles(self) -> tuple[Role, ...]:
        return (Role("player", 1, gym.spaces.Dict(self.fields), self.action_space),)

    def start(self, seeds: Int64[Tensor, "B"]) -> SequenceState:
        script = self.script(seeds)
        return SequenceState(seeds, torch.zeros_like(seeds), script, torch.zeros_like(script.right[:, 0]))

    def observe(self, state: SequenceState) -> dict[str, Observation]:
        return {"player": {name: self._now(state, values)[:, None] for name, values in state.script.shown.items()}}

    def answers(self, state: SequenceState) -> dict[str, Answer]:
        return {"player": Answer(self._now(state, state.script.right)[:, None], self._now(state, state.script.asked)[:, None])}

    def step(self, state: SequenceState, actions: Mapping[str, Tensor]) -> tuple[SequenceState, Turn]:
        """actions: {"player": [B, 1, ...]}."""
        said = actions["player"][:, 0]
        asked = self._now(state, state.script.asked)
        error = _error(said, self._now(state, state.script.right))
        is_number = said.is_floating_point()
        reward = (-error if is_number else 1 - error).masked_fill(~asked, 0.0)
        name, measure = ("squared_error", error) if is_number else ("correct", 1 - error)
        measures = {name: measure.masked_fill(~asked, torch.nan)}
        hardest = self.hardest(state.seed)
        if hardest is not None:
            measures[f"hardest_{name}"] = measures[name].masked_fill(~hardest, torch.nan)
        step = state.step + 1
        turn = Turn({"player": reward[:, None]}, step >= state.script.length, measures)
        return SequenceState(state.seed, step, state.script, said), turn

    def describe(self, state: SequenceState, index: int) -> Scene:
        step, said = int(state.step[index]), state.said[index]
        shown = {name: values[index] for name, values in state.script.shown.items()}
        script = Script(shown, state.script.right[index], state.script.asked[index], state.script.length[index])
        title = Mark("text", 0.5, 0.07, 0.06, INK, f"step {step} of {int(script.length)}")
        if step == 0:
            return Scene(f"before step 1 of {int(script.length)}: {self.task}", (title,))
        last = step - 1
        words = f"step {step}: sees {self.sees({name: values[last] for name, values in shown.items()})}; "
        colour = INK
        if bool(script.asked[last]):
            error = float(_error(said[None], script.right[last][None]))
            is_right = error < 0.01 if said.is_floating_point() else error == 0
            colour = GREEN if is_right else RED
            verdict = "right" if error == 0 else f"it is {self.names(script.right[last])}"
            below = f"says {self.names(said)}: {verdict}"
            words += f"asked, {below}"
        else:
            below = f"says {self.names(said)}, not asked"
            words += below
        marks = (title, *self.picture(script, step, said), Mark("text", 0.5, 0.92, min(0.06, 1.8 / len(below)), colour, below))
        return Scene(words, marks)

    @staticmethod
    def _now(state: SequenceState, values: Tensor) -> Tensor:
        """values: [B, T, ...]. What they are in this step: [B, ...]."""
        rows = torch.arange(len(values), device=values.device)
        return values[rows, state.step.clamp(max=values.shape[1] - 1)]


def _error(said: Tensor, right: Tensor) -> Float[Tensor, "B"]:
    """said, right: [B, ...]. The squared distance of numbers, the share of symbols that are wrong."""
    if said.is_floating_point():
        return (said - right)[..., None].flatten(1).square().sum(1)
    return (said != right)[..., None].flatten(1).float().mean(1)


def tape(letters: list[str], colours: list[tuple[int, int, int]]) -> list[Mark]:
    """The last symbols of a sequence in rows of eight, read like a text; the newest has a dark edge."""
    skipped = max(0, -(-len(letters) // PER_ROW) - ROWS) * PER_ROW
    pitch = 0.115
    size = 0.16 / max(2, *map(len, letters))
    marks = []
    for number, (letter, colour) in enumerate(zip(letters[skipped:], colours[skipped:], strict=True)):
        x, y = 0.5 + pitch * (number % PER_ROW - (PER_ROW - 1) / 2), 0.22 + 0.155 * (number // PER_ROW)
        if skipped + number == len(letters) - 1:
            marks.append(Mark("box", x, y, 0.112, INK, height=0.142))
        marks.append(Mark("box", x, y, 0.1, colour, height=0.13))
        marks.append(Mark("text", x, y, size, INK, letter))
    return marks
