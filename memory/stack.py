"""Residual blocks around whatever mixes over time (Vaswani et al. 2017, with the normalisation first, Xiong et al. 2020).

    x <- x + Mixer(LayerNorm(x))
    x <- x + MLP(LayerNorm(x)),  MLP(x) = W_2 gelu(W_1 x)

once per mixer, after a projection to width D and before a last LayerNorm. A mixer is a memory from width D to width D. State: the mixers',
layer by layer; what the stack itself does, it does to each step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.memory import Memory


class Stack(Memory):
    """expansion: hidden width of the perceptrons, in units of D; 0 leaves them out."""

    def __init__(self, inputs: int, width: int, mixers: Sequence[Memory], expansion: int = 4) -> None:
        super().__init__(inputs, width)
        assert all(mixer.inputs == mixer.outputs == width for mixer in mixers)
        self.embed = nn.Linear(inputs, width)
        self.mixers = nn.ModuleList(mixers)
        self.before_mixers = nn.ModuleList(nn.LayerNorm(width) for _ in mixers)
        self.perceptrons = nn.ModuleList(_perceptron(width, expansion) for _ in mixers if expansion)
        self.last = nn.LayerNorm(width)

    @property
    def state_size(self) -> int:
        return sum(mixer.state_size for mixer in self._memories())

    def start(self, batch_size: int) -> tuple[Any, ...]:
        return tuple(mixer.start(batch_size) for mixer in self._memories())

    def forward(
        self, x: Float[Tensor, "B T E"], state: tuple[Any, ...], reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], tuple[Any, ...]]:
        x = self.embed(x)
        after = []
        for number, mixer in enumerate(self._memories()):
            mixed, then = mixer(self.before_mixers[number](x), state[number], reset)
            after.append(then)
            x = self._perceive(number, x + mixed)
        return self.last(x), tuple(after)

    def inspect(self, x: Float[Tensor, "B T E"], state: tuple[Any, ...], reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """Each layer's own, as "layer_0.name"."""
        x = self.embed(x)
        seen: dict[str, Tensor] = {}
        for number, mixer in enumerate(self._memories()):
            normal = self.before_mixers[number](x)
            seen |= {f"layer_{number}.{name}": value for name, value in mixer.inspect(normal, state[number], reset).items()}
            mixed, _ = mixer(normal, state[number], reset)
            x = self._perceive(number, x + mixed)
        return seen

    def _memories(self) -> list[Memory]:
        return list(self.mixers)  # type: ignore[arg-type]

    def _perceive(self, number: int, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if len(self.perceptrons) == 0:
            return x
        deeper: Tensor = self.perceptrons[number](x)
        return x + deeper


def _perceptron(width: int, expansion: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
