"""Long short-term memory with resets anywhere (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i_t, f_t, o_t = sigmoid(W x_t + U h_{t-1} + b), a third each
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

State per row: 2 D numbers. A reset replaces h_{t-1} and c_{t-1} by zero. The forget gate's bias begins at 1 (Jozefowicz et al. 2015).

On a CPU, in single precision, what lies between steps with a reset is left to PyTorch's own LSTM (oneDNN's), where that is long enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.kernels.choice import triton_version
from memory.memory import Memory, require_positive
from memory.resets import steps_with_a_reset

# Steps without a reset from which on PyTorch's own LSTM is the faster.
LONG = 16


class LSTMState(NamedTuple):
    hidden: Float[Tensor, "B D"]
    cell: Float[Tensor, "B D"]


@dataclass(frozen=True)
class LSTMConfig:
    """width: D, the number of cells."""

    width: int = 128

    def __post_init__(self) -> None:
        require_positive("LSTMConfig.width", self.width)

    def build(self, inputs: int) -> LSTM:
        return LSTM(inputs, self.width)


class LSTM(Memory):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width)
        self.width = width
        self.from_input = nn.Linear(inputs, 4 * width)
        self.from_hidden = nn.Parameter(torch.empty(4 * width, width))
        nn.init.xavier_uniform_(self.from_input.weight)
        nn.init.zeros_(self.from_input.bias)
        nn.init.ones_(self.from_input.bias[width : 2 * width])
        for gate in self.from_hidden.chunk(4):
            nn.init.orthogonal_(gate)

    @property
    def state_size(self) -> int:
        return 2 * self.width

    def start(self, batch_size: int) -> LSTMState:
        zeros = self.from_hidden.new_zeros(batch_size, self.width)
        return LSTMState(zeros, zeros.clone())

    def forward(self, x: Float[Tensor, "B T E"], state: LSTMState, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], LSTMState]:
        if x.shape[1] == 0:
            return x.new_zeros(x.shape[0], 0, self.width), state
        pieces = self._pieces(x, state, reset)
        if pieces:
            return self._by_pytorch(x, state, reset, pieces)
        # The recurrence keeps its precision under autocast.
        gates = self.from_input(x.transpose(0, 1)).to(state.hidden.dtype)
        hidden, cell = lstm_sequence(gates, state.hidden, state.cell, reset.T, self.from_hidden)
        return hidden.transpose(0, 1), LSTMState(hidden[-1], cell)

    def _pieces(self, x: Tensor, state: LSTMState, reset: Tensor) -> list[int]:
        """Lengths of the pieces in which nobody forgets but at the first step, if PyTorch's LSTM is to take them; else none."""
        steps, types = x.shape[1], {x.dtype, state.hidden.dtype, state.cell.dtype, self.from_hidden.dtype}
        if x.device.type != "cpu" or types != {torch.float32} or torch.is_autocast_enabled("cpu") or steps < LONG:
            return []
        forgets = steps_with_a_reset(reset.T)
        first = [0, *(t for t in range(1, steps) if forgets[t])]
        return [after - before for before, after in pairwise([*first, steps])] if steps >= LONG * len(first) else []

    def _by_pytorch(self, x: Tensor, state: LSTMState, reset: Tensor, pieces: list[int]) -> tuple[Tensor, LSTMState]:
        # Its gates are i, f, g, o.
        inputs, biases, hiddens = (
            torch.cat([i, f, g, o])
            for i, f, o, g in (side.chunk(4) for side in (self.from_input.weight, self.from_input.bias, self.from_hidden))
        )
        weights = [inputs, hiddens, biases, torch.zeros_like(biases)]
        hidden, cell = state
        outputs = []
        for part, forgets in zip(x.split(pieces, 1), reset.split(pieces, 1), strict=True):
            hidden, cell = (side.masked_fill(forgets[:, :1], 0.0) for side in (hidden, cell))
            output, last, last_cell = torch.lstm(part, (hidden[None], cell[None]), weights, True, 1, 0.0, self.training, False, True)
            hidden, cell = last[0], last_cell[0]
            outputs.append(output)
        return torch.cat(outputs, 1), LSTMState(hidden, cell)


def lstm_sequence(
    gates: Float[Tensor, "T B G"],
    hidden: Float[Tensor, "B D"],
    cell: Float[Tensor, "B D"],
    reset: Bool[Tensor, "T B"],
    weight: Float[Tensor, "G D"],
) -> tuple[Float[Tensor, "T B D"], Float[Tensor, "B D"]]:
    """All hidden states h_1..h_T and c_T, from the inputs' share of the gates (i, f, o, g side by side: G = 4 D; biases included).

    Differentiable once, in gates, hidden, cell and weight. The backward pass is written out for the reason given at `gru_sequence`.
    """
    fast = triton_version("lstm", hidden)
    if fast:
        return fast.lstm_sequence(gates, hidden, cell, reset, weight)
    sequence: tuple[Tensor, Tensor] = _LSTMSequence.apply(gates, hidden, cell, reset, weight, torch.is_grad_enabled())
    return sequence


class _LSTMSequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, hidden: Tensor, cell: Tensor, reset: Tensor, weight: Tensor, grad_enabled: bool
    ) -> tuple[Tensor, Tensor]:
        steps, rows, width = gates.shape[0], gates.shape[1], hidden.shape[1]
        learns = grad_enabled and any(ctx.needs_input_grad)
        # When nothing is to be learned, one step's workspace serves all (two for cells: one is read while the other is written).
        gate = gates.new_empty(steps if learns else 1, rows, 4 * width)
        squashed = gates.new_empty(steps if learns else 1, rows, width)
        cells = gates.new_empty(steps if learns else 2, rows, width)
        output = gates.new_empty(steps, rows, width)
        before, cell_before = hidden, cell
        forgets = steps_with_a_reset(reset)
        for t in range(steps):
            k = t if learns else 0
            if forgets[t]:
                before = before.masked_fill(reset[t, :, None], 0.0)
                cell_before = cell_before.masked_fill(reset[t, :, None], 0.0)
            now, cell_now = gate[k], cells[t if learns else t % 2]
            torch.addmm(gates[t], before, weight.T, out=now)
            now[:, : 3 * width].sigmoid_()
            now[:, 3 * width :].tanh_()
            i, f, o, g = now.chunk(4, 1)
            torch.mul(f, cell_before, out=cell_now).addcmul_(i, g)
            torch.tanh(cell_now, out=squashed[k])
            torch.mul(o, squashed[k], out=output[t])
            before, cell_before = output[t], cell_now
        if learns:
            ctx.save_for_backward(gate, cells, squashed, weight, reset, hidden, cell, output)
            ctx.forgets = forgets
        return output, cell_before.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor, grad_cell: Tensor) -> tuple[Tensor | None, ...]:
        gate, cells, squashed, weight, reset, hidden, cell, output = ctx.saved_tensors
        steps, width = output.shape[0], output.shape[2]
        grad_gates = torch.empty_like(gate)
        before_all = torch.cat([hidden[None], output[:-1]])
        cells_before = torch.cat([cell[None], cells[:-1]])
        if any(ctx.forgets):
            before_all = before_all.masked_fill(reset[:, :, None], 0.0)
            cells_before = cells_before.masked_fill(reset[:, :, None], 0.0)
        grad_hidden = torch.zeros_like(hidden)
        for t in reversed(range(steps)):
            i, f, o, g = gate[t].chunk(4, 1)
            grad_i, grad_f, grad_o, grad_g = grad_gates[t].chunk(4, 1)
            grad_hidden = grad_hidden + grad_output[t]
            grad_cell = grad_cell + torch.ops.aten.tanh_backward(grad_hidden * o, squashed[t])
            torch.ops.aten.sigmoid_backward.grad_input(grad_cell * g, i, grad_input=grad_i)
            torch.ops.aten.sigmoid_backward.grad_input(grad_cell * cells_before[t], f, grad_input=grad_f)
            torch.ops.aten.sigmoid_backward.grad_input(grad_hidden * squashed[t], o, grad_input=grad_o)
            torch.ops.aten.tanh_backward.grad_input(grad_cell * i, g, grad_input=grad_g)
            grad_cell = grad_cell * f
            grad_hidden = grad_gates[t] @ weight
            if ctx.forgets[t]:
                grad_cell = grad_cell.masked_fill(reset[t, :, None], 0.0)
                grad_hidden = grad_hidden.masked_fill(reset[t, :, None], 0.0)
        grad_weight = grad_gates.reshape(-1, 4 * width).T @ before_all.reshape(-1, width)
        return grad_gates, grad_hidden, grad_cell, None, grad_weight, None
