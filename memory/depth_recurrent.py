"""Thinking longer with the same weights: one block, shared by K iterations in depth at every step (arXiv 2603.21676).

    u_k = h_{k-1} + e_k
    u_k <- u_k + gamma_1 * W_o Core_k(LayerNorm(u_k))
    u_k <- u_k + gamma_2 * W_2 gelu(W_1 LayerNorm(u_k))
    z_k = sigmoid(W_z [u_k; h_{k-1}] + b)
    h_k = z_k * u_k + (1 - z_k) * h_{k-1}

from h_0 = W x_t; y_t = LayerNorm(h_K). Core is any other memory. Its weights are shared by the iterations, its states are not: Core_k
remembers what the k-th iteration showed it. The block begins close to the identity, so that depth does no harm before it is of use: gamma
(LayerScale, Touvron et al. 2021) at 1e-4, b at -2. Only the last iteration is read, so it alone is in any loss. State per row: K times
Core's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.gru import GRUConfig
from memory.memory import Memory, MemoryConfig, for_trials, require_positive
from memory.stack import perceptron


@dataclass(frozen=True)
class DepthRecurrentConfig:
    """width: D, of the block and of its core. core: another memory's settings, but for its width. iterations: K."""

    width: int = 128
    core: MemoryConfig = field(default_factory=GRUConfig)
    iterations: int = 3

    def __post_init__(self) -> None:
        require_positive("DepthRecurrentConfig.width", self.width)
        require_positive("DepthRecurrentConfig.iterations", self.iterations)
        self.core_as_wide()

    def core_as_wide(self) -> MemoryConfig:
        """The core with the block's width. Raises ValueError if the core cannot have it or was given one of its own."""
        core: Any = self.core
        unset = next(setting.default for setting in dataclasses.fields(core) if setting.name == "width")
        if core.width not in (unset, self.width):
            raise ValueError(f"DepthRecurrentConfig.core.width is {core.width}; want the block's own width, {self.width}")
        return dataclasses.replace(core, width=self.width)

    def for_trials(self, steps: int) -> DepthRecurrentConfig:
        return dataclasses.replace(self, core=for_trials(self.core, steps))

    def build(self, inputs: int) -> DepthRecurrent:
        return DepthRecurrent(inputs, self.width, self.core_as_wide().build(self.width), self.iterations)


class DepthRecurrent(Memory):
    def __init__(self, inputs: int, width: int, core: Memory, iterations: int) -> None:
        super().__init__(inputs, width)
        self.core = core
        self.iterations = iterations
        self.embed = nn.Linear(inputs, width)
        self.iteration_embedding = nn.Parameter(0.02 * torch.randn(iterations, width))
        self.before_core = nn.LayerNorm(width)
        self.from_core = nn.Linear(core.outputs, width)
        self.core_scale = nn.Parameter(torch.full((width,), 1e-4))
        self.perceptron = perceptron(width, 4)
        self.perceptron_scale = nn.Parameter(torch.full((width,), 1e-4))
        self.gate = nn.Linear(2 * width, width)
        nn.init.constant_(self.gate.bias, -2.0)
        self.last = nn.LayerNorm(width)

    @property
    def state_size(self) -> int:
        return self.iterations * self.core.state_size

    def start(self, batch_size: int) -> tuple[Any, ...]:
        return tuple(self.core.start(batch_size) for _ in range(self.iterations))

    def forward(
        self, x: Float[Tensor, "B T E"], state: tuple[Any, ...], reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], tuple[Any, ...]]:
        thought = self.embed(x)
        after = []
        for number, before in enumerate(state):
            thought, _, then = self._think(number, thought, before, reset)
            after.append(then)
        return self.last(thought), tuple(after)

    def inspect(self, x: Float[Tensor, "B T E"], state: tuple[Any, ...], reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """gate: [B, T, K], how far each iteration moves, the mean of z_k over D; and the core's own, as "iteration_0.name"."""
        thought = self.embed(x)
        gates: list[Tensor] = []
        seen: dict[str, Tensor] = {}
        for number, before in enumerate(state):
            shown = self.before_core(thought + self.iteration_embedding[number])
            seen |= {f"iteration_{number}.{name}": value for name, value in self.core.inspect(shown, before, reset).items()}
            thought, gate, _ = self._think(number, thought, before, reset)
            gates.append(gate.mean(-1))
        return {"gate": torch.stack(gates, -1), **seen}

    def _think(
        self, number: int, thought: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"], Any]:
        """h_k, z_k and the core's state, from h_{k-1}; number is k - 1."""
        new = thought + self.iteration_embedding[number]
        recalled, after = self.core(self.before_core(new), state, reset)
        new = new + self.core_scale * self.from_core(recalled)
        new = new + self.perceptron_scale * self.perceptron(new)
        gate = torch.sigmoid(self.gate(torch.cat([new, thought], -1)))
        return thought + gate * (new - thought), gate, after
