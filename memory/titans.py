"""Memories that learn while they act: Titans (arXiv 2501.00663) and the Miras family (arXiv 2504.13173).

What is remembered are the weights of a small network M per head, and each step is one step of gradient descent on how badly it recalls
the value v_t for the key k_t. In Titans' symbols (alpha forgets, eta carries momentum, theta is the inner learning rate; all three depend
on x_t), with the gradient at the weights W_c that M had when the current chunk of C steps began:

    S_t = eta_t S_{t-1} - theta_t grad l(M(k_t; W_c), v_t)       surprise
    A_t = (1 - alpha_t) A_{t-1} + S_t,  W_t = retention(A_t)     memory
    y_t = M(q_t; W_t)                                            recall

The chunks make the gradients of a chunk independent of one another, so they are part of the function: they are counted from the row's last
reset, and the state holds W_c. Miras' four choices, and who makes which:

    network     linear  M(k) = W k                                   titans_linear
                mlp     M(k) = k + LayerNorm(W_2 gelu(W_1 k))        all others
    loss        squared l = |e|^2 / 2, e = M(k) - v                  titans, titans_linear, memora
                power   l = (|e_1|^3 + ... + |e_d|^3) / 3            moneta
                huber   grad e if |e| <= delta_t, else of
                        delta_t (|e_1| + ... + |e_d|)                yaad
    retention   decay   W = A                                        titans, titans_linear, yaad
                norm    W = A / sqrt(1 + |A|_4^4), by matrix         moneta
                softmax W = sqrt(C) softmax(A), row of C by row      memora
    momentum    with it (without, S_t is the last term alone)        titans, titans_linear

Memora's published form, W_t = c softmax(keep log W_{t-1} - theta grad), is this one: the softmax forgets what the logarithm adds to a row.
Its c is 1; but then what a wide row recalls is an average in which everything drowns, and match to sample is not learned (docs/log.md).
Departures, all so that neither the inner nor the outer descent breaks out: the 1 in Moneta's norm (without it W grows as A is forgotten),
the smoothed sign sgn(e) = tanh(10 e), constants in the denominators of the normalisations, of which LayerNorm's is large (0.1: over a
narrow head it would else be a sign, and the inner descent chaotic), a largest theta of 0.02 where W = A is an mlp, and 1 - eta in the theta
of `titans_linear` (which nothing bounds: what is seen again and again would be learned 1 / (1 - eta) times over). The gradients of a
chunk are all taken at W_c and add up: with 16 of them and theta up to 0.1, keys that are alike make it overshoot, and as initialised two
ways of computing 257 steps in single precision part by 0.02 (Titans) and 0.005 (Yaad). With theta up to 0.02, or chunks of 4, they part by
1e-6. So a longer chunk wants a smaller rate: where the descent is chaotic the law holds in exact arithmetic alone. Gates are one number per
head (Miras has one per channel). q, k and v come from a causal convolution over 4 steps and SiLU, q and k of length 1; what is recalled is
normalised and gated.

Every gradient is a sum of outer products, so that y_t with the retention `decay` is attention within the chunk and the weights of single
steps are never made. The other retentions make them: C copies of the weights per row while learning. On a CPU, in single precision, steps
are compiled and taken one after another instead (`memory.kernels.miras_numba`), with each one's own weights; learning keeps a sixteenth.

State per row and layer: H P (2 + momentum) + 9 D + 1 numbers (W_c, A, S, the convolution's last three inputs, steps in the chunk), where
d = D / H and P = d^2 (linear) or 2 d^2 times the expansion (mlp). So the open chunk is carried as the weights that it has made so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from memory.convolution import CausalConvolution
from memory.kernels.choice import numba_version, triton_version
from memory.memory import Memory, require_divisor, require_positive
from memory.resets import may_be_true
from memory.stack import Stack

NETWORKS = ("linear", "mlp")
LOSSES = ("squared", "power", "huber")
RETENTIONS = ("decay", "norm", "softmax")

TAPS = 4
# The largest sum of a linear chunk's rates: above, with one key again and again, W grows from chunk to chunk, whatever is kept or carried.
STABLE = 1.65
# How steep the smoothed sign is.
STEEPNESS = 10.0
LAYER_NORM_EPS = 0.1
# Of the keys', queries' and recalled values' squared lengths.
LENGTH_EPS = 0.01


class MirasState(NamedTuple):
    """anchor: the weights when the chunk began. weights: A. momentum: S, if there is any. recent: the convolution's last inputs."""

    anchor: Float[Tensor, "B H P"]
    weights: Float[Tensor, "B H P"]
    momentum: Float[Tensor, "B H P"] | None
    recent: Float[Tensor, "B 3 E"]
    phase: Int[Tensor, "B"]


@dataclass(frozen=True)
class MirasConfig:
    """width: D. layers: residual blocks. heads: H, which divides D. chunk_length: C. network, loss, retention and momentum: as in the table
    above. expansion: hidden width of the mlp, in units of d. rate: the largest inner learning rate; a chunk's steps add up, so longer
    chunks want smaller ones: where the network is linear, at most 1.65 / C.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    chunk_length: int = 16
    network: str = "mlp"
    loss: str = "squared"
    retention: str = "decay"
    momentum: bool = True
    expansion: int = 4
    rate: float = 0.1

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_positive(f"{name}.width", self.width)
        require_positive(f"{name}.layers", self.layers)
        require_divisor(f"{name}.heads", self.heads, "width", self.width)
        require_positive(f"{name}.chunk_length", self.chunk_length)
        require_positive(f"{name}.expansion", self.expansion)
        for field, value, choices in (
            ("network", self.network, NETWORKS),
            ("loss", self.loss, LOSSES),
            ("retention", self.retention, RETENTIONS),
        ):
            if value not in choices:
                raise ValueError(f"{name}.{field} is {value!r}; want one of {', '.join(map(repr, choices))}")
        most = min(1.0, STABLE / self.chunk_length) if self.network == "linear" else 1.0
        if not 0 < self.rate <= most:
            chunks = f" for linear chunks of {self.chunk_length}" if most < 1 else ""
            raise ValueError(f"{name}.rate is {self.rate}; want a number above 0 and at most {most:.3g}{chunks}")

    @property
    def damped(self) -> bool:
        """Whether theta is a share of 1 - eta."""
        return self.network == "linear" and self.momentum

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [Miras(self) for _ in range(self.layers)])


@dataclass(frozen=True)
class TitansConfig(MirasConfig):
    """Titans: a perceptron per head learns while it acts, by gradient descent with momentum and forgetting (arXiv 2501.00663).

    Settings: those of `MirasConfig`.
    """

    rate: float = 0.02


@dataclass(frozen=True)
class TitansLinearConfig(MirasConfig):
    """Titans with a matrix instead of the perceptron (arXiv 2501.00663).

    Settings: those of `MirasConfig`.
    """

    network: str = "linear"


@dataclass(frozen=True)
class MonetaConfig(MirasConfig):
    """Moneta: Titans' perceptron under a cubic loss, its weights divided by their norm, without momentum (Miras, arXiv 2504.13173).

    Settings: those of `MirasConfig`.
    """

    loss: str = "power"
    retention: str = "norm"
    momentum: bool = False


@dataclass(frozen=True)
class YaadConfig(MirasConfig):
    """Yaad: Titans' perceptron under Huber's loss, which outliers move little, without momentum (Miras, arXiv 2504.13173).

    Settings: those of `MirasConfig`.
    """

    loss: str = "huber"
    momentum: bool = False
    rate: float = 0.02


@dataclass(frozen=True)
class MemoraConfig(MirasConfig):
    """Memora: Titans' perceptron with weights that are a softmax, and so stay bounded, without momentum (Miras, arXiv 2504.13173).

    Settings: those of `MirasConfig`.
    """

    retention: str = "softmax"
    momentum: bool = False


class _Inputs(NamedTuple):
    """Of some steps: queries, keys, values, logarithms of 1 - alpha and of eta, theta, and Huber's threshold delta."""

    q: Float[Tensor, "B H T d"]
    k: Float[Tensor, "B H T d"]
    v: Float[Tensor, "B H T d"]
    log_keep: Float[Tensor, "B H T"]
    log_momentum: Float[Tensor, "B H T"]
    rate: Float[Tensor, "B H T"]
    threshold: Float[Tensor, "B H T"]


class _Outer(NamedTuple):
    """A matrix's gradient at each step, as an outer product."""

    left: Float[Tensor, "B H T R"]
    right: Float[Tensor, "B H T C"]

    def squares(self) -> Float[Tensor, "B H T"]:
        """Of the gradient's length."""
        return self.left.square().sum(-1) * self.right.square().sum(-1)


# What a matrix makes of vectors, step by step: [B, H, T, C] to [B, H, T, R].
_Map = Callable[[Tensor], Tensor]


class Miras(Memory):
    """A mixer: one layer."""

    def __init__(self, config: MirasConfig) -> None:
        super().__init__(config.width, config.width)
        self.config = config
        heads, width = config.heads, config.width
        d, hidden = width // heads, config.expansion * (width // heads)
        self.shapes = [(d, d)] if config.network == "linear" else [(hidden, d), (d, hidden)]
        self.parameters_per_head = sum(rows * columns for rows, columns in self.shapes)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.convolution = CausalConvolution(3 * width, TAPS)
        self.gates = nn.Linear(width, 4 * heads)
        self.first_weights = nn.ParameterList(torch.empty(heads, *shape) for shape in self.shapes)
        self.norm = nn.RMSNorm(d, eps=LENGTH_EPS)
        self.output_gate = nn.Linear(width, width, bias=False)
        self.to_output = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            for matrix in self.first_weights:
                for head in matrix:
                    nn.init.xavier_uniform_(head)
            # Ours, as nothing is published: 2 % forgotten per step, momentum over 4 steps, half the largest rate, a threshold of 1.
            self.gates.bias.copy_(torch.tensor([4.0, 1.0, 0.0, 0.54]).repeat_interleave(heads))

    @property
    def state_size(self) -> int:
        return self.config.heads * self.parameters_per_head * (2 + self.config.momentum) + self.convolution.state_size + 1

    def start(self, batch_size: int) -> MirasState:
        zeros = self.to_output.weight.new_zeros
        shape = (batch_size, self.config.heads, self.parameters_per_head)
        momentum = zeros(shape) if self.config.momentum else None
        return MirasState(zeros(shape), zeros(shape), momentum, self.convolution.start(batch_size), zeros(batch_size, dtype=torch.long))

    def forward(
        self, x: Float[Tensor, "B T D"], state: MirasState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MirasState]:
        if x.shape[1] == 0:
            return x, state
        inputs, recent = self._inputs(x, state, reset)
        recalled, after = self._recall_and_learn(inputs, self._first(), state, reset)
        return self.to_output(self.norm(recalled).flatten(2) * functional.silu(self.output_gate(x))), after._replace(recent=recent)

    def inspect(self, x: Float[Tensor, "B T D"], state: MirasState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """surprise [B, T, H]: the length of the inner loss's gradient. kept [B, T, H]: 1 - alpha. rate [B, T, H]: theta."""
        inputs, _ = self._inputs(x, state, reset)
        gradients = self._learn(inputs, self._first(), state, reset)[1] if x.shape[1] else []
        squares = [torch.stack([outer.squares() for outer in window]).sum(0) for window in gradients]
        seen = {"surprise": torch.cat(squares or [inputs.rate], 2).sqrt(), "kept": inputs.log_keep.exp(), "rate": inputs.rate}
        return {name: value.transpose(1, 2) for name, value in seen.items()}

    def _first(self) -> Float[Tensor, "H P"]:
        return torch.cat([matrix.flatten(1) for matrix in self.first_weights], 1)

    def _recall_and_learn(
        self, inputs: _Inputs, first: Float[Tensor, "H P"], state: MirasState, reset: Tensor
    ) -> tuple[Tensor, MirasState]:
        """What is recalled [B, T, H, d] and the state after, from the weights of a row's first step on."""
        config = self.config
        q, k, v, log_keep, log_momentum, rate, threshold = inputs
        if (config.network, config.loss, config.retention) == ("linear", "squared", "decay"):
            fast = triton_version("titans_linear", state.weights)
            if fast:
                gates = log_keep, log_momentum if config.momentum else None, rate
                learned = fast.learn(q, k, v, *gates, first, *state[:3], state.phase, reset, config.chunk_length)
                recalled, anchor, weights, momentum, phase = learned
                return recalled, MirasState(anchor, weights, momentum, state.recent, phase)
        compiled = numba_version("miras", state.weights)
        if compiled:
            kept, carried = log_keep.exp(), log_momentum.exp() if config.momentum else None
            kind = NETWORKS.index(config.network), LOSSES.index(config.loss), RETENTIONS.index(config.retention)
            before = first, *state[:3], state.phase, reset
            learned = compiled.learn(
                q, k, v, kept, carried, rate, threshold, *before, kind, config.chunk_length, (LAYER_NORM_EPS, STEEPNESS)
            )
            recalled, anchor, weights, momentum, phase = learned
            return recalled.transpose(1, 2), MirasState(anchor, weights, momentum, state.recent, phase)
        recalled, _, after = self._learn(inputs, first, state, reset)
        return recalled, after

    def _learn(self, inputs: _Inputs, first: Tensor, state: MirasState, reset: Tensor) -> tuple[Tensor, list[list[_Outer]], MirasState]:
        """What is recalled [B, T, H, d], each chunk length's gradients and the state after."""
        recalled, gradients = [], []
        # What is learned keeps its precision under autocast.
        with torch.autocast(reset.device.type, enabled=False):
            for start in range(0, reset.shape[1], self.config.chunk_length):
                window = slice(start, start + self.config.chunk_length)
                part = _Inputs(*(value[:, :, window] for value in inputs))
                y, outer, state = self._window(part, first, state, reset[:, window])
                recalled.append(y)
                gradients.append(outer)
        return torch.cat(recalled, 2).transpose(1, 2), gradients, state

    def _inputs(self, x: Tensor, state: MirasState, reset: Tensor) -> tuple[_Inputs, Float[Tensor, "B 3 E"]]:
        """What the steps bring, in the state's type, and the convolution's last inputs after them."""
        dtype = state.recent.dtype
        mixed, recent = self.convolution(self.project(x), state.recent, reset)
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for part in functional.silu(mixed).chunk(3, -1))
        keep, momentum, rate, threshold = self.gates(x).to(dtype).transpose(1, 2).chunk(4, 1)
        inputs = _Inputs(
            _unit(q),
            _unit(k),
            v,
            functional.logsigmoid(keep),
            functional.logsigmoid(momentum),
            self.config.rate * torch.sigmoid(rate) * (torch.sigmoid(-momentum) if self.config.damped else 1.0),
            functional.softplus(threshold),
        )
        return inputs, recent

    def _window(
        self, inputs: _Inputs, first: Float[Tensor, "H P"], state: MirasState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Tensor, list[_Outer], MirasState]:
        """At most C steps. So a row's gradients are taken at its anchor and then, if its chunk ends on the way, at the weights it has
        there; or, after a reset later than the first step, at the first weights: no chunk that begins there ends within the window."""
        length, steps = self.config.chunk_length, reset.shape[1]
        fresh = reset[:, 0]
        source, anchor, phase = _Source(state.weights, state.momentum, first), state.anchor, state.phase
        if may_be_true(fresh):
            momentum = None if state.momentum is None else state.momentum.masked_fill(fresh[:, None, None], 0.0)
            source = _Source(_rows(fresh, first, state.weights), momentum, first)
            anchor, phase = _rows(fresh, first, anchor), phase.masked_fill(fresh, 0)
        step = torch.arange(steps, device=reset.device)
        later = reset & (step > 0)
        restarted = later.cumsum(1) > 0
        restarts = steps > 1 and may_be_true(restarted)
        carry = _carry(inputs, later, restarts, self.config.momentum)
        advanced = ~restarted & (step >= length - phase[:, None])

        gradients = self._gradients(self._retained(anchor), inputs)
        if steps > 1 and may_be_true(advanced):
            ended = _weights_at((length - 1 - phase).clamp(max=steps - 1), carry, source, gradients)
            gradients = _choose(advanced, self._gradients(self._retained(ended), inputs), gradients)
            anchor = _rows(advanced[:, -1], ended, anchor)
        if restarts:
            gradients = _choose(restarted, self._gradients(self._retained(first), inputs), gradients)
            anchor = _rows(restarted[:, -1], first, anchor)

        weights = _weights_at(torch.full_like(phase, steps - 1), carry, source, gradients)
        age = steps - (step * later).amax(1)
        phase = age.where(restarted[:, -1], (phase + steps) % length)
        after = state._replace(
            anchor=_rows(phase == 0, weights, anchor) if may_be_true(phase == 0) else anchor,
            weights=weights,
            momentum=None if source.momentum is None else _momentum_after(inputs, later, source.momentum, gradients),
            phase=phase,
        )
        # A single step's weights are there already.
        if steps == 1:
            return self._recall([partial(_apply, matrix) for matrix in self._retained(weights)], inputs.q), gradients, after
        return self._recall(self._maps(carry, source, gradients), inputs.q), gradients, after

    def _gradients(self, matrices: list[Tensor], inputs: _Inputs) -> list[_Outer]:
        """The inner loss's gradient in each matrix, the matrices being the same for all steps."""
        k = inputs.k
        if self.config.network == "linear":
            return [_Outer(self._slope(k @ matrices[0].mT - inputs.v, inputs.threshold), k)]
        hidden = k @ matrices[0].mT
        active = functional.gelu(hidden)
        raw = active @ matrices[1].mT
        normal = functional.layer_norm(raw, raw.shape[-1:], eps=LAYER_NORM_EPS)
        slope = self._slope(k + normal - inputs.v, inputs.threshold)
        scale = ((raw - raw.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + LAYER_NORM_EPS).rsqrt()
        to_raw = scale * (slope - slope.mean(-1, keepdim=True) - normal * (slope * normal).mean(-1, keepdim=True))
        density = torch.exp(-0.5 * hidden.square()) * (2 * torch.pi) ** -0.5
        gelu_slope = 0.5 * (1 + torch.erf(hidden * 0.5**0.5)) + hidden * density
        return [_Outer((to_raw @ matrices[1]) * gelu_slope, k), _Outer(to_raw, active)]

    def _slope(self, error: Float[Tensor, "B H T d"], threshold: Float[Tensor, "B H T"]) -> Float[Tensor, "B H T d"]:
        """The loss's gradient in what is recalled."""
        if self.config.loss == "squared":
            return error
        sign = torch.tanh(STEEPNESS * error)
        if self.config.loss == "power":
            return sign * error.square()
        within = error.square().sum(-1) <= threshold.square()
        return error.where(within[..., None], threshold[..., None] * sign)

    def _recall(self, maps: list[_Map], q: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H T d"]:
        if self.config.network == "linear":
            return maps[0](q)
        return q + functional.layer_norm(maps[1](functional.gelu(maps[0](q))), q.shape[-1:], eps=LAYER_NORM_EPS)

    def _maps(self, carry: _Carry, source: _Source, gradients: list[_Outer]) -> list[_Map]:
        """What each step's own weights do to vectors."""
        if self.config.retention == "decay":
            weights, first = self._split(source.weights), self._split(source.first)
            momenta = [None] * len(first) if source.momentum is None else self._split(source.momentum)
            return [partial(_attend, carry, *matrices) for matrices in zip(weights, first, momenta, gradients, strict=True)]
        written = torch.cat([(outer.left[..., None] * outer.right[..., None, :]).flatten(-2) for outer in gradients], -1)
        every = carry.weights[..., None] * source.weights[:, :, None] + carry.gradients @ written
        if carry.first is not None:
            every = every + carry.first[..., None] * source.first[:, None]
        if carry.momentum is not None and source.momentum is not None:
            every = every + carry.momentum[..., None] * source.momentum[:, :, None]
        return [partial(_times, matrix) for matrix in self._retained(every)]

    def _split(self, weights: Float[Tensor, "*B P"]) -> list[Tensor]:
        parts = weights.split([rows * columns for rows, columns in self.shapes], -1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _retained(self, weights: Float[Tensor, "*B P"]) -> list[Tensor]:
        """W of A, matrix by matrix."""
        matrices = self._split(weights)
        if self.config.retention == "norm":
            return [matrix / (1 + matrix.pow(4).sum((-2, -1), keepdim=True)).sqrt() for matrix in matrices]
        if self.config.retention == "softmax":
            return [matrix.shape[-1] ** 0.5 * matrix.softmax(-1) for matrix in matrices]
        return matrices


class _Source(NamedTuple):
    """What the weights of a window's steps are made of, beside its gradients: A and S before it, and the first weights of all."""

    weights: Float[Tensor, "B H P"]
    momentum: Float[Tensor, "B H P"] | None
    first: Float[Tensor, "H P"]


class _Carry(NamedTuple):
    """How much of each source is in A after each step; `gradients[..., t, i]` of step i's in step t's. None where there can be nothing."""

    weights: Float[Tensor, "B H T"]
    momentum: Float[Tensor, "B H T"] | None
    first: Float[Tensor, "B H T"] | None
    gradients: Float[Tensor, "B H T T"]


def _carry(inputs: _Inputs, later: Bool[Tensor, "B T"], restarts: bool, with_momentum: bool) -> _Carry:
    """`later`: resets after the first step; `restarts`: whether there may be any."""
    trial = later.cumsum(1)
    before = (trial == 0)[:, None]
    apart = ~(trial[:, :, None] == trial[:, None]).tril()[:, None]
    kept = inputs.log_keep.cumsum(-1)
    gradients = (kept[..., None] - kept[..., None, :]).masked_fill(apart, -torch.inf).exp()
    first = _times(gradients, inputs.log_keep.exp().masked_fill(~later[:, None], 0.0)) if restarts else None
    momentum = None
    if with_momentum:
        passed = inputs.log_momentum.cumsum(-1)
        momentum = _times(gradients, passed.exp().masked_fill(~before, 0.0))
        gradients = gradients @ (passed[..., None] - passed[..., None, :]).masked_fill(apart, -torch.inf).exp()
    return _Carry(kept.exp().masked_fill(~before, 0.0), momentum, first, -gradients * inputs.rate[..., None, :])


def _weights_at(step: Int[Tensor, "B"], carry: _Carry, source: _Source, gradients: list[_Outer]) -> Float[Tensor, "B H P"]:
    """A after the given step of each row."""
    row = step[:, None, None].expand(-1, carry.weights.shape[1], 1)
    taken = carry.gradients.gather(2, row[..., None].expand(-1, -1, 1, carry.gradients.shape[3]))[:, :, 0]
    weights = carry.weights.gather(2, row) * source.weights + _summed(taken, gradients)
    if carry.first is not None:
        weights = weights + carry.first.gather(2, row) * source.first
    if carry.momentum is not None and source.momentum is not None:
        weights = weights + carry.momentum.gather(2, row) * source.momentum
    return weights


def _momentum_after(
    inputs: _Inputs, later: Bool[Tensor, "B T"], momentum: Float[Tensor, "B H P"], gradients: list[_Outer]
) -> Float[Tensor, "B H P"]:
    """S after the last step."""
    trial = later.cumsum(1)
    passed = inputs.log_momentum.cumsum(-1)
    taken = (passed[..., -1:] - passed).masked_fill((trial != trial[:, -1:])[:, None], -torch.inf).exp()
    kept = passed[..., -1:].exp().masked_fill((trial[:, -1:] > 0)[:, None], 0.0)
    return kept * momentum + _summed(-taken * inputs.rate, gradients)


def _summed(share: Float[Tensor, "B H T"], gradients: list[_Outer]) -> Float[Tensor, "B H P"]:
    """The gradients' sum over the steps, each with its share."""
    return torch.cat([((share[..., None] * outer.left).mT @ outer.right).flatten(-2) for outer in gradients], -1)


def _attend(carry: _Carry, weights: Tensor, first: Tensor, momentum: Tensor | None, outer: _Outer, x: Tensor) -> Float[Tensor, "B H T R"]:
    """Each step's own A times its x, of which gradients take part as in attention: left_i (right_i . x_t)."""
    y = carry.weights[..., None] * _apply(weights, x) + (carry.gradients * _apply(outer.right, x)) @ outer.left
    if carry.first is not None:
        y = y + carry.first[..., None] * _apply(first, x)
    return y if carry.momentum is None or momentum is None else y + carry.momentum[..., None] * _apply(momentum, x)


def _apply(matrix: Float[Tensor, "*B R C"], x: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T R"]:
    return x @ matrix.mT


def _times(matrices: Float[Tensor, "*B R C"], vectors: Float[Tensor, "*B C"]) -> Float[Tensor, "*B R"]:
    return (matrices @ vectors[..., None])[..., 0]


def _unit(x: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H T d"]:
    return x * (x.square().sum(-1, keepdim=True) + LENGTH_EPS).rsqrt()


def _choose(rows: Bool[Tensor, "B T"], new: list[_Outer], old: list[_Outer]) -> list[_Outer]:
    where = rows[:, None, :, None]
    return [_Outer(a.left.where(where, b.left), a.right.where(where, b.right)) for a, b in zip(new, old, strict=True)]


def _rows(rows: Bool[Tensor, "B"], new: Float[Tensor, "*B H P"], old: Float[Tensor, "B H P"]) -> Float[Tensor, "B H P"]:
    return new.where(rows[:, None, None], old)
