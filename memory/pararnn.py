"""Nonlinear recurrent cells that learn in parallel over time: ParaGRU and ParaLSTM (ParaRNN, arXiv 2510.21450).

The recurrence is diagonal: a unit sees its own past alone, through bounded weights a = b tanh(p); * is elementwise. ParaGRU:

    z_t = sigmoid(a_z * h_{t-1} + B_z x_t + b_z)
    r_t = sigmoid(a_r * h_{t-1} + B_r x_t + b_r)
    c_t = tanh(a_h * (h_{t-1} * r_t) + B_h x_t + b_h)
    h_t = z_t * c_t + (1 - z_t) * h_{t-1}

ParaLSTM, whose input gate is 1 - f and whose gates look at the cell s:

    f_t = sigmoid(a_f * h_{t-1} + p_f * s_{t-1} + B_f x_t + b_f)
    n_t = tanh(a_n * h_{t-1} + B_n x_t + b_n)
    s_t = f_t * s_{t-1} + (1 - f_t) * n_t
    o_t = sigmoid(a_o * h_{t-1} + p_o * s_t + B_o x_t + b_o)
    h_t = o_t * tanh(s_t)

Acting is a step of these. Learning takes all states of a trial as the unknowns of h_t = f(h_{t-1}, x_t) and solves by Newton's method: with
the residual r_t = f(h_{t-1}, x_t) - h_t and the Jacobian J_t (diagonal, or 2 x 2 blocks of diagonals), the correction is
d_t = J_t d_{t-1} + r_t, a linear scan. Gradients are one such scan backwards, whichever way the states were found. Newton's method
diverges when recurrent weights are large, hence their bound; what has not converged is played step by step, which is said once (see `guard`
for what it costs on a GPU). On a CPU steps are taken in order, which computes every number once and not once per iteration: compiled in
single precision (`memory.kernels.pararnn_numba`), in others where one step of all rows is work enough. B is block-diagonal. State per row:
D numbers (ParaGRU) or 2 D (ParaLSTM) per layer.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memory.kernels.choice import numba_version
from memory.kernels.scan import is_work_enough, linear_scan
from memory.memory import Memory, require_divisor, require_positive
from memory.resets import steps_with_a_reset
from memory.stack import Stack

# With these Newton's method was found to converge to rounding, with random weights up to their bound (tested).
SURE_BOUND, SURE_ITERATIONS = 1.0, 6


class ParaRNNState(NamedTuple):
    """The hidden units and, for ParaLSTM, the cell after them."""

    units: Float[Tensor, "B N D"]


@dataclass(frozen=True)
class _ParaRNNConfig:
    """width: D. layers: residual blocks. heads: blocks of B. bound: of the recurrent weights. iterations: of Newton's method, at most.

    guard: on a GPU too, look whether it has converged and play step by step the trials in which it has not. Looking empties the GPU's
    queue once per layer and call (never in acting), and a single row that has not converged costs as much as a loop over the steps of all.
    Without it nothing is looked at on a GPU, which is allowed only where Newton's method was found to converge: a bound of at most 1 and 6
    iterations or more.
    """

    width: int = 128
    layers: int = 2
    heads: int = 2
    bound: float = 1.0
    iterations: int = 6
    guard: bool = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_positive(f"{name}.width", self.width)
        require_positive(f"{name}.layers", self.layers)
        require_divisor(f"{name}.heads", self.heads, "width", self.width)
        require_positive(f"{name}.iterations", self.iterations)
        if not 0 < self.bound <= 4:
            raise ValueError(f"{name}.bound is {self.bound}; want a number above 0 and at most 4, beyond which Newton's method diverges")
        if not self.guard and (self.bound > SURE_BOUND or self.iterations < SURE_ITERATIONS):
            raise ValueError(
                f"{name}.guard is False with a bound of {self.bound} and {self.iterations} iterations; want True, or a bound of at most "
                f"{SURE_BOUND:g} and at least {SURE_ITERATIONS} iterations, with which Newton's method converges"
            )


@dataclass(frozen=True)
class ParaGRUConfig(_ParaRNNConfig):
    """ParaGRU: a diagonal GRU that learns in parallel over time by Newton's method (ParaRNN, arXiv 2510.21450).

    Settings: those of `_ParaRNNConfig`.
    """

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [ParaGRU(self) for _ in range(self.layers)])


@dataclass(frozen=True)
class ParaLSTMConfig(_ParaRNNConfig):
    """ParaLSTM: a diagonal LSTM that learns in parallel over time by Newton's method (ParaRNN, arXiv 2510.21450).

    Settings: those of `_ParaRNNConfig`.
    """

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [ParaLSTM(self) for _ in range(self.layers)])


class _ParaRNN(Memory):
    """A mixer with 3 gates and `carried` numbers per unit. `recurrence` holds p of every recurrent weight."""

    carried: int
    recurrent_weights: int

    def __init__(self, config: _ParaRNNConfig) -> None:
        super().__init__(config.width, config.width)
        self.config = config
        width, block = config.width, config.width // config.heads
        self.from_input = nn.Parameter(torch.empty(3, config.heads, block, block))
        self.bias = nn.Parameter(torch.zeros(3, width))
        self.recurrence = nn.Parameter(torch.empty(self.recurrent_weights, width))
        # As published: a ~ N(0, 4 / (5 D)), B Glorot, biases zero but the first gate's, which spreads the units' time scales.
        with torch.no_grad():
            for matrix in self.from_input.flatten(0, 1):
                nn.init.xavier_uniform_(matrix)
            self.bias[0] = -torch.linspace(0, 1, width)
            weights = torch.randn(self.recurrence.shape) * 2 / (5 * width) ** 0.5
            self.recurrence.copy_((weights / config.bound).clamp(-0.9, 0.9).atanh())

    @property
    def state_size(self) -> int:
        return self.carried * self.outputs

    def start(self, batch_size: int) -> ParaRNNState:
        return ParaRNNState(self.bias.new_zeros(batch_size, self.carried, self.outputs))

    def forward(
        self, x: Float[Tensor, "B T D"], state: ParaRNNState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], ParaRNNState]:
        if x.shape[1] == 0:
            return x, state
        units = self._units(self._gates(x, state), state, reset)
        return units[:, :, 0], ParaRNNState(units[:, -1])

    def inspect(self, x: Float[Tensor, "B T D"], state: ParaRNNState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """residual [B, T]: how far the largest unit is from obeying the recurrence, and the gate that decides what is kept [B, T, D]."""
        if x.shape[1] == 0:
            return {"residual": x[..., 0], "kept": x}
        gates = self._gates(x, state)
        units = self._units(gates, state, reset)
        before = _shift(units, state.units, reset)
        return {"residual": (self.step(gates, before) - units).abs().amax((2, 3)), "kept": self.kept(gates, before)}

    @abstractmethod
    def step(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        """The recurrence f, each step from its own `before`; gates are the inputs' share of the gates."""

    @abstractmethod
    def jacobian(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N N D"]:
        """J[i, j] = d step_i / d before_j, unit by unit."""

    @abstractmethod
    def kept(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        """How much of its past a unit keeps, from 0 to 1."""

    def weights(self) -> tuple[Tensor, ...]:
        return (self.config.bound * self.recurrence.tanh()).unbind()

    def _gates(self, x: Tensor, state: ParaRNNState) -> Float[Tensor, "B T 3 D"]:
        blocks = x.unflatten(-1, (self.config.heads, -1))
        mixed = torch.einsum("bthi,ghoi->btgho", blocks, self.from_input).flatten(-2)
        # The recurrence keeps its precision under autocast.
        return mixed.to(state.units.dtype) + self.bias

    def _units(self, gates: Tensor, state: ParaRNNState, reset: Tensor) -> Float[Tensor, "B T N D"]:
        first = state.units.masked_fill(reset[:, :1, None], 0.0)
        if gates.shape[1] == 1:
            return self.step(gates, first[:, None])
        fast = numba_version("pararnn", first, gates, self.recurrence)
        if fast:
            in_order: Tensor = fast.recur(gates, torch.stack(self.weights()), first, reset)
            return in_order
        before = _shift(self._solve(gates, first, reset), first, reset)
        # Autograd sees every step alone; what flows from step to step is the scan's.
        units = self.step(gates, torch.cat([first[:, None], before[:, 1:]], 1))
        if not units.requires_grad:
            return units
        with torch.no_grad():
            jacobian = _forgetting(self.jacobian(gates, before), reset)
        return _ThroughTime.apply(units, jacobian)

    @torch.no_grad()
    def _solve(self, gates: Tensor, first: Tensor, reset: Tensor) -> Float[Tensor, "B T N D"]:
        """All states, by Newton's method from f(0, x_t)."""
        if 0 in reset.shape or is_work_enough(first):
            return self._loop(gates, first, reset)
        asks = _may_ask(gates)
        rounding = torch.finfo(gates.dtype).eps
        # A state is a mean of numbers from -1 to 1 and of the state before it.
        bound = first.abs().clamp(min=1.0)[:, None]
        units = self.step(gates, _shift(first.new_zeros(*gates.shape[:2], *first.shape[1:]), first, reset))
        for _ in range(self.config.iterations):
            before = _shift(units, first, reset)
            residual = self.step(gates, before) - units
            if asks and bool(residual.abs().max() <= 4 * rounding):
                return units
            correction = _block_scan(_forgetting(self.jacobian(gates, before), reset), residual)
            units = (units + correction).clamp(-bound, bound)
        if not (asks or self.config.guard):
            return units
        residual = self.step(gates, _shift(units, first, reset)) - units
        # Said so that a residual that is no number has not converged either.
        converged = residual.abs().amax((1, 2, 3), keepdim=True) <= 64 * rounding
        if bool(converged.all()):
            return units
        if bool(residual.isfinite().all()):
            _say_that_it_diverged(type(self).__name__, self.config.bound, self.config.iterations)
        return units.where(converged, self._loop(gates, first, reset))

    def _loop(self, gates: Tensor, first: Tensor, reset: Tensor) -> Float[Tensor, "B T N D"]:
        units, before = torch.empty(*gates.shape[:2], *first.shape[1:], dtype=first.dtype, device=first.device), first[:, None]
        forgets = steps_with_a_reset(reset.T)
        for t in range(gates.shape[1]):
            if forgets[t]:
                before = before.masked_fill(reset[:, t, None, None, None], 0.0)
            before = units[:, t : t + 1].copy_(self.step(gates[:, t : t + 1], before))
        return units


class ParaGRU(_ParaRNN):
    carried, recurrent_weights = 1, 3

    def step(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        z, _, c = self._parts(gates, before)
        return torch.lerp(before, c[:, :, None], z[:, :, None])

    def jacobian(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N N D"]:
        a_z, a_r, a_h = self.weights()
        h = before[:, :, 0]
        z, r, c = self._parts(gates, before)
        through_candidate = z * (1 - c * c) * a_h * (r + h * a_r * r * (1 - r))
        return ((1 - z) + (c - h) * a_z * z * (1 - z) + through_candidate)[:, :, None, None]

    def kept(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return 1 - self._parts(gates, before)[0]

    def _parts(self, gates: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a_z, a_r, a_h = self.weights()
        x_z, x_r, x_h = gates.unbind(2)
        h = before[:, :, 0]
        r = torch.sigmoid(a_r * h + x_r)
        return torch.sigmoid(a_z * h + x_z), r, torch.tanh(a_h * (h * r) + x_h)


class ParaLSTM(_ParaRNN):
    carried, recurrent_weights = 2, 5

    def step(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        _, _, s, o = self._parts(gates, before)
        return torch.stack([o * s.tanh(), s], 2)

    def jacobian(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N N D"]:
        a_f, a_n, a_o, p_f, p_o = self.weights()
        s_tm1 = before[:, :, 1]
        f, n, s, o = self._parts(gates, before)
        from_f = (s_tm1 - n) * f * (1 - f)
        s_by_h = from_f * a_f + (1 - f) * (1 - n * n) * a_n
        s_by_s = f + from_f * p_f
        tanh = s.tanh()
        by_o, by_s = tanh * o * (1 - o), o * (1 - tanh * tanh)
        h_by_h = by_o * (a_o + p_o * s_by_h) + by_s * s_by_h
        h_by_s = by_o * p_o * s_by_s + by_s * s_by_s
        return torch.stack([torch.stack([h_by_h, h_by_s], 2), torch.stack([s_by_h, s_by_s], 2)], 2)

    def kept(self, gates: Float[Tensor, "B T 3 D"], before: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return self._parts(gates, before)[0]

    def _parts(self, gates: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a_f, a_n, a_o, p_f, p_o = self.weights()
        x_f, x_n, x_o = gates.unbind(2)
        h, s_tm1 = before.unbind(2)
        f = torch.sigmoid(a_f * h + p_f * s_tm1 + x_f)
        n = torch.tanh(a_n * h + x_n)
        s = torch.lerp(n, s_tm1, f)
        return f, n, s, torch.sigmoid(a_o * h + p_o * s + x_o)


class _ThroughTime(torch.autograd.Function):
    """Passes the states on; backwards, adds to each step's gradient what it does to the later ones: g_t <- g_t + J_{t+1}^T g_{t+1}."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, jacobian: Tensor) -> Tensor:
        ctx.save_for_backward(jacobian)
        return units.view_as(units)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (jacobian,) = ctx.saved_tensors
        later = torch.cat([jacobian[:, 1:], torch.zeros_like(jacobian[:, :1])], 1).transpose(2, 3)
        return _block_scan(later.flip(1), gradient.flip(1)).flip(1), None


def _may_ask(numbers: Tensor) -> bool:
    """Asking what is in a tensor stalls a GPU's queue: too dear after every iteration."""
    return numbers.device.type == "cpu"


@cache
def _say_that_it_diverged(name: str, bound: float, iterations: int) -> None:
    within = f"with a bound of {bound:g} within {iterations} iterations"
    text = f"{name}: Newton's method has not converged {within} in some trials; they are played step by step, which is slower"
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _shift(units: Float[Tensor, "B T N D"], first: Float[Tensor, "B N D"], reset: Bool[Tensor, "B T"]) -> Float[Tensor, "B T N D"]:
    """What each step starts from: `first`, then the step before; zero at a reset."""
    return torch.cat([first[:, None], units], 1)[:, :-1].masked_fill(reset[:, :, None, None], 0.0)


def _forgetting(jacobian: Float[Tensor, "B T N N D"], reset: Bool[Tensor, "B T"]) -> Float[Tensor, "B T N N D"]:
    return jacobian.masked_fill(reset[:, :, None, None, None], 0.0)


def _block_scan(a: Float[Tensor, "B T N N D"], b: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
    """h_t = a_t h_{t-1} + b_t from h = 0, unit by unit, N at most 2, by doubling: after k rounds every step knows of the 2^k before it."""
    if b.shape[2] == 1:
        never = torch.zeros(b.shape[:2], dtype=torch.bool, device=b.device)
        return linear_scan(a[:, :, 0, 0], b[:, :, 0], torch.zeros_like(b[:, 0, 0]), never)[:, :, None]
    if is_work_enough(b[:, 0]):
        out = torch.empty_like(b)
        out[:, 0] = b[:, 0]
        for t in range(1, b.shape[1]):
            torch.addcmul(b[:, t], a[:, t, :, 0], out[:, t - 1, :1], out=out[:, t]).addcmul_(a[:, t, :, 1], out[:, t - 1, 1:])
        return out
    reach = 1
    while reach < b.shape[1]:
        further = b[:, reach:] + (a[:, reach:] * b[:, :-reach, None]).sum(3)
        # (a_t a_s)[i, k] = sum_j a_t[i, j] a_s[j, k].
        product = (a[:, reach:, :, :, None] * a[:, :-reach, None]).sum(3)
        a, b = torch.cat([a[:, :reach], product], 1), torch.cat([b[:, :reach], further], 1)
        reach *= 2
    return b
