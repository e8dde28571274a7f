"""Layers that mix over time, one after the other, and residual blocks around whatever mixes (Vaswani et al. 2017, with the normalisation
first, Xiong et al. 2020).

    x <- x + Mixer(LayerNorm(x))
    x <- x + MLP(LayerNorm(x)),  MLP(x) = W_2 gelu(W_1 x)

A mixer, and a layer, is a memory from width D to width D. State: the layers', one after the other; what stands around them does its work on
each step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.memory import Memory


class Layers(Memory):
    """Layers (memories from width D to width D) one after the other, between a projection to D and a last LayerNorm."""

    def __init__(self, inputs: int, width: int, layers: Sequence[Memory]) -> None:
        super().__init__(inputs, width)
        assert all(layer.inputs == layer.outputs == width for layer in layers)
        self.embed = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(layers)
        self.last = nn.LayerNorm(width)

    @property
    def state_size(self) -> int:
        return sum(layer.state_size for layer in self._memories())

    def start(self, batch_size: int) -> tuple[Any, ...]:
        return tuple(layer.start(batch_size) for layer in self._memories())

    def forward(
        self, x: Float[Tensor, "B T E"], state: tuple[Any, ...], reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], tuple[Any, ...]]:
        x = self.embed(x)
        after = []
        for layer, before in zip(self._memories(), state, strict=True):
            x, then = layer(x, before, reset)
            after.append(then)
        return self.last(x), tuple(after)

    def inspect(self, x: Float[Tensor, "B T E"], state: tuple[Any, ...], reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """Each layer's own, as "layer_0.name"."""
        x = self.embed(x)
        seen: dict[str, Tensor] = {}
        for number, (layer, before) in enumerate(zip(self._memories(), state, strict=True)):
            seen |= {f"layer_{number}.{name}": value for name, value in layer.inspect(x, before, reset).items()}
            x, _ = layer(x, before, reset)
        return seen

    def _memories(self) -> list[Memory]:
        return list(self.layers)  # type: ignore[arg-type]


class Block(Memory):
    """A mixer, and a perceptron where `expansion` is not 0, each on the normalised input and added to it."""

    def __init__(self, mixer: Memory, expansion: int) -> None:
        super().__init__(mixer.inputs, mixer.outputs)
        self.before = nn.LayerNorm(mixer.inputs)
        self.mixer = mixer
        self.perceptron = perceptron(mixer.outputs, expansion) if expansion else None

    @property
    def state_size(self) -> int:
        return self.mixer.state_size

    def start(self, batch_size: int) -> Any:
        return self.mixer.start(batch_size)

    def forward(self, x: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], Any]:
        mixed, after = self.mixer(self.before(x), state, reset)
        x = x + mixed
        return (x if self.perceptron is None else x + self.perceptron(x)), after

    def inspect(self, x: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        return self.mixer.inspect(self.before(x), state, reset)


class Stack(Layers):
    """A block per mixer. expansion: hidden width of the perceptrons, in units of D; 0 leaves them out."""

    def __init__(self, inputs: int, width: int, mixers: Sequence[Memory], expansion: int = 4) -> None:
        super().__init__(inputs, width, mixers)
        self.layers = nn.ModuleList(Block(mixer, expansion) for mixer in mixers)


def perceptron(width: int, expansion: int) -> nn.Sequential:
    """With one hidden layer, and a norm before it."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
