"""Transformer-XL for reinforcement learning, plain and gated (Dai et al. 2019; TrXL-I and GTrXL of Parisotto et al. 2020, section 3).

Each layer, with attention to the W steps before as in `memory.attention` and MLP(x) = W_2 relu(W_1 x):

    x <- g(x, relu(Attention(LayerNorm(x))))
    x <- g(x, relu(MLP(LayerNorm(x))))

The identity map reordering: normalisation sits on the branch, so that a stack of layers begins near the identity. Plain, g(x, y) = x + y.
Gated, g is a GRU's step from x to the submodule's y, with b_g = 2 at first, so that the gate is nearly shut:

    r = sigmoid(W_r y + U_r x)
    z = sigmoid(W_z y + U_z x - b_g)
    h = tanh(W_g y + U_g (r * x))
    g(x, y) = (1 - z) * x + z * h

State per row: layers (2 W D + 1) numbers; a layer reaches W steps back, all of them layers W. Gradients flow through
the window, by the law of memories; the published ones stop at segments' ends. The last LayerNorm is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from memory.attention import WindowAttention, WindowState
from memory.memory import Memory, require_divisor, require_positive
from memory.stack import Layers


@dataclass(frozen=True)
class TransformerXLConfig:
    """Transformer-XL for reinforcement learning (Dai et al. 2019; TrXL-I of Parisotto et al. 2020, section 3).

    width: D. layers. heads: H, which divide D. window: W, the steps that a step attends to besides
    itself. expansion: the perceptrons' hidden width in units of D.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    window: int = 64
    expansion: int = 4

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_positive(f"{name}.width", self.width)
        require_positive(f"{name}.layers", self.layers)
        require_divisor(f"{name}.heads", self.heads, f"{name}.width", self.width)
        require_positive(f"{name}.window", self.window)
        require_positive(f"{name}.expansion", self.expansion)

    def build(self, inputs: int) -> Layers:
        return Layers(inputs, self.width, [self._layer() for _ in range(self.layers)])

    def _layer(self) -> TransformerXLLayer:
        return TransformerXLLayer(self, Sum(), Sum())


@dataclass(frozen=True)
class GatedTransformerXLConfig(TransformerXLConfig):
    """Gated Transformer-XL (GTrXL of Parisotto et al. 2020, section 3). Settings: those of `TransformerXLConfig`."""

    def _layer(self) -> TransformerXLLayer:
        return TransformerXLLayer(self, Gate(self.width), Gate(self.width))


class TransformerXLLayer(Memory):
    def __init__(self, config: TransformerXLConfig, join_attention: nn.Module, join_perceptron: nn.Module) -> None:
        width, hidden = config.width, config.expansion * config.width
        super().__init__(width, width)
        self.before_attention = nn.LayerNorm(width)
        self.attention = WindowAttention(width, config.heads, config.window)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.join_attention = join_attention
        self.join_perceptron = join_perceptron

    @property
    def state_size(self) -> int:
        return self.attention.state_size

    def start(self, batch_size: int) -> WindowState:
        return self.attention.start(batch_size)

    def forward(
        self, x: Float[Tensor, "B T D"], state: WindowState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], WindowState]:
        attended, state = self.attention(self.before_attention(x), state, reset)
        x = self.join_attention(x, F.relu(attended))
        return self.join_perceptron(x, F.relu(self.perceptron(x))), state

    def inspect(self, x: Float[Tensor, "B T D"], state: WindowState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        return self.attention.inspect(self.before_attention(x), state, reset)


class Sum(nn.Module):
    def forward(self, x: Float[Tensor, "*shape D"], y: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        return x + y


class Gate(nn.Module):
    """A GRU's step from x to y, nearly shut at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_branch = nn.Linear(width, 3 * width, bias=False)
        self.from_stream = nn.Linear(width, 2 * width, bias=False)
        self.candidate = nn.Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.full((width,), 2.0))

    def forward(self, x: Float[Tensor, "*shape D"], y: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        branch_r, branch_z, branch_h = self.from_branch(y).chunk(3, -1)
        stream_r, stream_z = self.from_stream(x).chunk(2, -1)
        r = torch.sigmoid(branch_r + stream_r)
        z = torch.sigmoid(branch_z + stream_z - self.bias)
        h = torch.tanh(branch_h + self.candidate(r * x))
        return (1 - z) * x + z * h
