"""Gated recurrent unit with resets anywhere (Cho et al. 2014, in the form of `torch.nn.GRU`).

    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
    z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + c_n))
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

State per row: D numbers. A reset replaces h_{t-1} by zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.kernels.choice import triton_version
from memory.memory import Memory, require_positive
from memory.resets import steps_with_a_reset


class GRUState(NamedTuple):
    hidden: Float[Tensor, "B D"]


@dataclass(frozen=True)
class GRUConfig:
    """width: D, the number of hidden units."""

    width: int = 128

    def __post_init__(self) -> None:
        require_positive("GRUConfig.width", self.width)

    def build(self, inputs: int) -> GRU:
        return GRU(inputs, self.width)


class GRU(Memory):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width)
        self.width = width
        self.from_input = nn.Linear(inputs, 3 * width)
        self.from_hidden = nn.Parameter(torch.empty(3 * width, width))
        self.candidate_bias = nn.Parameter(torch.zeros(width))
        # As published for recurrent nets: orthogonal recurrence, Glorot input, biases at zero.
        nn.init.xavier_uniform_(self.from_input.weight)
        nn.init.zeros_(self.from_input.bias)
        for gate in self.from_hidden.chunk(3):
            nn.init.orthogonal_(gate)

    @property
    def state_size(self) -> int:
        return self.width

    def start(self, batch_size: int) -> GRUState:
        return GRUState(self.candidate_bias.new_zeros(batch_size, self.width))

    def forward(self, x: Float[Tensor, "B T E"], state: GRUState, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], GRUState]:
        if x.shape[1] == 0:
            return x.new_zeros(x.shape[0], 0, self.width), state
        # The recurrence keeps its precision under autocast.
        gates = self.from_input(x.transpose(0, 1)).to(state.hidden.dtype)
        hidden = gru_sequence(gates, state.hidden, reset.T, self.from_hidden, self.candidate_bias)
        return hidden.transpose(0, 1), GRUState(hidden[-1])


def gru_sequence(
    gates: Float[Tensor, "T B G"],
    hidden: Float[Tensor, "B D"],
    reset: Bool[Tensor, "T B"],
    weight: Float[Tensor, "G D"],
    candidate_bias: Float[Tensor, "D"],
) -> Float[Tensor, "T B D"]:
    """All hidden states h_1..h_T, from the inputs' share of the gates (r, z, n side by side: G = 3 D; biases included).

    Differentiable once, in gates, hidden, weight and candidate_bias. Autograd through a loop of small operations costs more than the
    operations; so the backward pass is written out, and the weights' gradient is one matrix product over all steps.
    """
    fast = triton_version("gru", hidden)
    if fast:
        return fast.gru_sequence(gates, hidden, reset, weight, candidate_bias)
    hidden_sequence: Tensor = _GRUSequence.apply(gates, hidden, reset, weight, candidate_bias, torch.is_grad_enabled())
    return hidden_sequence


class _GRUSequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, hidden: Tensor, reset: Tensor, weight: Tensor, candidate_bias: Tensor, grad_enabled: bool
    ) -> Tensor:
        steps, rows, width = gates.shape[0], gates.shape[1], hidden.shape[1]
        weight_rz, weight_n = weight[: 2 * width].T, weight[2 * width :].T
        learns = grad_enabled and any(ctx.needs_input_grad)
        # When nothing is to be learned, one step's workspace serves all.
        kept = steps if learns else 1
        gate_rz = gates.new_empty(kept, rows, 2 * width)
        candidate = gates.new_empty(kept, rows, width)
        recurrent_n = gates.new_empty(kept, rows, width)
        output = gates.new_empty(steps, rows, width)
        before = hidden
        forgets = steps_with_a_reset(reset)
        for t in range(steps):
            k = t if learns else 0
            if forgets[t]:
                before = before.masked_fill(reset[t, :, None], 0.0)
            rz, n, u = gate_rz[k], candidate[k], recurrent_n[k]
            torch.addmm(gates[t, :, : 2 * width], before, weight_rz, out=rz).sigmoid_()
            torch.addmm(candidate_bias, before, weight_n, out=u)
            torch.addcmul(gates[t, :, 2 * width :], rz[:, :width], u, out=n).tanh_()
            torch.lerp(n, before, rz[:, width:], out=output[t])
            before = output[t]
        if learns:
            ctx.save_for_backward(gate_rz, candidate, recurrent_n, weight, reset, hidden, output)
            ctx.forgets = forgets
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        gate_rz, candidate, recurrent_n, weight, reset, hidden, output = ctx.saved_tensors
        steps, rows, width = output.shape
        weight_rz, weight_n = weight[: 2 * width], weight[2 * width :]
        grad_gates = output.new_empty(steps, rows, 3 * width)
        grad_recurrent_n = torch.empty_like(candidate)
        before_all = torch.cat([hidden[None], output[:-1]])
        if any(ctx.forgets):
            before_all = before_all.masked_fill(reset[:, :, None], 0.0)
        grad_hidden = torch.zeros_like(hidden)
        for t in reversed(range(steps)):
            r, z, n, before = gate_rz[t, :, :width], gate_rz[t, :, width:], candidate[t], before_all[t]
            grad_rz, grad_n = grad_gates[t, :, : 2 * width], grad_gates[t, :, 2 * width :]
            grad_hidden = grad_hidden + grad_output[t]
            kept = grad_hidden * z
            # d h / d n = 1 - z and d h / d z = h_{t-1} - n, each through its tanh or sigmoid.
            torch.ops.aten.tanh_backward.grad_input(grad_hidden - kept, n, grad_input=grad_n)
            torch.mul(grad_n, r, out=grad_recurrent_n[t])
            torch.ops.aten.sigmoid_backward.grad_input(grad_n * recurrent_n[t], r, grad_input=grad_rz[:, :width])
            torch.ops.aten.sigmoid_backward.grad_input((before - n).mul_(grad_hidden), z, grad_input=grad_rz[:, width:])
            grad_hidden = torch.addmm(kept, grad_rz, weight_rz).addmm_(grad_recurrent_n[t], weight_n)
            if ctx.forgets[t]:
                grad_hidden = grad_hidden.masked_fill(reset[t, :, None], 0.0)
        flat_before = before_all.reshape(-1, width)
        flat_recurrent_n = grad_recurrent_n.reshape(-1, width)
        grad_weight = torch.empty_like(weight)
        torch.mm(grad_gates.reshape(-1, 3 * width)[:, : 2 * width].T, flat_before, out=grad_weight[: 2 * width])
        torch.mm(flat_recurrent_n.T, flat_before, out=grad_weight[2 * width :])
        return grad_gates, grad_hidden, None, grad_weight, flat_recurrent_n.sum(0), None
