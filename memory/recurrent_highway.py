"""Recurrent highway network (Zilly et al. 2017, equations 6 to 9) with the ablations of Heidenreich et al. 2024: its gates, and attention.

    s_0 = h_{t-1}
    c_l = tanh(W_C x_t [l = 1] + R_C^l s_{l-1} + b_C^l)
    g_l = sigmoid(W_G x_t [l = 1] + R_G^l s_{l-1} + b_G^l)
    s_l = g_l * c_l + (1 - g_l) * s_{l-1},  l = 1..L
    h_t = s_L

With a window of w steps, y_t = [h_t; sum_j a_tj h_j] over the last w steps, its own the last, a_t = softmax_j(h_t^T W h_j); without one,
y_t = h_t. Which gates the 2024 paper compared is not known to us in detail; ours differ in what g_l sees: all of the above ("full"), the
input alone, in every layer ("input"), nothing, being a learned rate per unit ("rate"); or s_l = c_l ("none"). b_G begins at -2: the carry
is open.

State per row: D numbers; with attention, (w - 1)(D + 1) more. A reset replaces h_{t-1} by zero and hides what came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from memory.memory import Memory, require_positive
from memory.resets import steps_with_a_reset

GATINGS = ("full", "input", "rate", "none")


class RecurrentHighwayState(NamedTuple):
    """hidden: h. past: the last w - 1 of them, oldest first, if there is attention. known: which of these there are."""

    hidden: Float[Tensor, "B D"]
    past: Float[Tensor, "B older D"]
    known: Bool[Tensor, "B older"]


@dataclass(frozen=True)
class RecurrentHighwayConfig:
    """width: D. layers: L, per step. gating: "full", "input", "rate" or "none". window: w, the steps attended to; 0 for no attention."""

    width: int = 128
    layers: int = 3
    gating: str = "full"
    window: int = 0

    def __post_init__(self) -> None:
        require_positive("RecurrentHighwayConfig.width", self.width)
        require_positive("RecurrentHighwayConfig.layers", self.layers)
        if self.gating not in GATINGS:
            raise ValueError(f"RecurrentHighwayConfig.gating is {self.gating!r}; want one of {', '.join(map(repr, GATINGS))}")
        if not 0 <= self.window <= 65_536:
            raise ValueError(f"RecurrentHighwayConfig.window is {self.window}; want a whole number from 0 to 65,536")

    def build(self, inputs: int) -> RecurrentHighway:
        return RecurrentHighway(inputs, self)


class RecurrentHighway(Memory):
    def __init__(self, inputs: int, config: RecurrentHighwayConfig) -> None:
        width, layers = config.width, config.layers
        super().__init__(inputs, 2 * width if config.window else width)
        self.config = config
        # Candidates, and where the gates see the state, gates behind them.
        rows = 2 * width if config.gating == "full" else width
        self.from_input = nn.Linear(inputs, rows)
        self.from_state = nn.Parameter(torch.empty(layers, rows, width))
        self.bias = nn.Parameter(torch.zeros(layers - 1, rows))
        nn.init.xavier_uniform_(self.from_input.weight)
        nn.init.zeros_(self.from_input.bias)
        for part in self.from_state.detach().view(-1, width, width):
            nn.init.orthogonal_(part)
        if config.gating == "full":
            nn.init.constant_(self.from_input.bias[width:], -2.0)
            nn.init.constant_(self.bias[:, width:], -2.0)
        elif config.gating == "input":
            self.gates = nn.Linear(inputs, layers * width)
            nn.init.xavier_uniform_(self.gates.weight)
            nn.init.constant_(self.gates.bias, -2.0)
        elif config.gating == "rate":
            self.rates = nn.Parameter(torch.full((layers, width), -2.0))
        if config.window:
            self.query = nn.Linear(width, width, bias=False)

    @property
    def state_size(self) -> int:
        return self.config.width + self._older * (self.config.width + 1)

    @property
    def _older(self) -> int:
        return max(self.config.window - 1, 0)

    def start(self, batch_size: int) -> RecurrentHighwayState:
        new, width = self.from_state.new_zeros, self.config.width
        return RecurrentHighwayState(
            new(batch_size, width), new(batch_size, self._older, width), new(batch_size, self._older, dtype=torch.bool)
        )

    def forward(
        self, x: Float[Tensor, "B T E"], state: RecurrentHighwayState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T Y"], RecurrentHighwayState]:
        if x.shape[1] == 0:
            return x.new_zeros(x.shape[0], 0, self.outputs), state
        hidden = self._recur(x, state.hidden, reset)
        if not self.config.window:
            return hidden, state._replace(hidden=hidden[:, -1])
        recallable, life = _with_lives(hidden, state, reset)
        known = life[:, x.shape[1] :] == life[:, -1:]
        past = recallable[:, x.shape[1] :].masked_fill(~known[..., None], 0.0)
        _, recalled = self._recall(hidden, recallable, life)
        return torch.cat([hidden, recalled], -1), RecurrentHighwayState(hidden[:, -1], past, known)

    def inspect(self, x: Float[Tensor, "B T E"], state: RecurrentHighwayState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """attention: [B, T, w], the weight of the step 0, 1, .. w - 1 steps ago."""
        if not self.config.window or x.shape[1] == 0:
            return {}
        hidden = self._recur(x, state.hidden, reset)
        attention, _ = self._recall(hidden, *_with_lives(hidden, state, reset))
        first = torch.arange(attention.shape[2], device=x.device)[:, None]
        within = first + torch.arange(self.config.window - 1, -1, -1, device=x.device)
        return {"attention": attention.take_along_dim(within[None, None], -1).flatten(1, 2)[:, : x.shape[1]]}

    def _recur(self, x: Float[Tensor, "B T E"], hidden: Float[Tensor, "B D"], reset: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        width, layers, gating = self.config.width, self.config.layers, self.config.gating
        x = x.transpose(0, 1)
        entering = self.from_input(x).to(hidden.dtype)
        gates: Tensor | None = None
        if gating == "input":
            gates = torch.sigmoid(self.gates(x).to(hidden.dtype)).unflatten(-1, (layers, width))
        elif gating == "rate":
            gates = torch.sigmoid(self.rates).expand(len(x), 1, layers, width)
        forgets = steps_with_a_reset(reset.T)
        sequence = []
        # The recurrence keeps its precision under autocast.
        with torch.autocast(x.device.type, enabled=False):
            for t, now in enumerate(entering):
                if forgets[t]:
                    hidden = hidden.masked_fill(reset[:, t, None], 0.0)
                for layer in range(layers):
                    inner = torch.addmm(now if layer == 0 else self.bias[layer - 1], hidden, self.from_state[layer].T)
                    candidate = torch.tanh(inner[:, :width])
                    if gating == "none":
                        hidden = candidate
                    else:
                        gate = torch.sigmoid(inner[:, width:]) if gates is None else gates[t, :, layer]
                        hidden = torch.lerp(hidden, candidate, gate)
                sequence.append(hidden)
        return torch.stack(sequence, 1)

    def _recall(
        self, hidden: Float[Tensor, "B T D"], recallable: Float[Tensor, "B older_and_T D"], life: Int64[Tensor, "B older_and_T"]
    ) -> tuple[Float[Tensor, "B blocks block seen"], Float[Tensor, "B T D"]]:
        """Attention over the window, and its sum, block by block: a block of queries sees w - 1 steps more than it has."""
        steps, older = hidden.shape[1], self.config.window - 1
        block = min(self.config.window, steps)
        missing = -steps % block
        with torch.autocast(hidden.device.type, enabled=False):
            query = nn.functional.pad(self.query(hidden), (0, 0, 0, missing)).unflatten(1, (-1, block))
            seen = nn.functional.pad(recallable, (0, 0, 0, missing)).unfold(1, block + older, block)
            # The steps that fill up the last block see themselves alone and are cut off again.
            life = nn.functional.pad(life, (0, missing), value=-2)
            same_life = life[:, older:].unflatten(1, (-1, block))[..., None] == life.unfold(1, block + older, block)[:, :, None]
            ago = torch.arange(block, device=life.device)[:, None] + older - torch.arange(block + older, device=life.device)
            visible = same_life & (ago >= 0) & (ago <= older)
            attention = (query @ seen).masked_fill(~visible, float("-inf")).softmax(-1)
            return attention, (attention @ seen.mT).flatten(1, 2)[:, :steps]


def _with_lives(
    hidden: Float[Tensor, "B T D"], state: RecurrentHighwayState, reset: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B older_and_T D"], Int64[Tensor, "B older_and_T"]]:
    """What may be recalled, and its life: 0 before the first reset here, 1 after it, and so on; -1 where there is nothing."""
    return torch.cat([state.past, hidden], 1), torch.cat([state.known.long() - 1, reset.cumsum(1)], 1)
