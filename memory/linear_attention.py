"""Memories that are a matrix per head, written by keys and read by queries, in residual blocks: four rules on one chunkwise core.

    linear_attention  S_t = S_{t-1} + f(k_t) v_t^T,  n_t = n_{t-1} + f(k_t),  o_t = S_t^T f(q_t) / n_t . f(q_t),  f = elu + 1
                                                                              Katharopoulos et al. 2020, equations 16 to 20
    gated_linear      S_t = diag(g_t) S_{t-1} + k_t v_t^T,  g_t = sigmoid(W_2 W_1 x_t + b)^(1/16)
                                                                              Yang et al. 2023, sections 4.1 and 4.4
    delta_rule        S_t = (I - beta_t k_t k_t^T) a_t S_{t-1} + beta_t k_t v_t^T,  beta_t = sigmoid(W x_t)
                      with q, k, v = silu(convolution over time of W x), q and k then of length one
                                                                              Yang et al. 2024, Parallelizing the Delta Rule (a_t = 1);
                      a_t = exp(-A softplus(W x_t + b)) where `decay` is set  Yang, Kautz and Hatamizadeh 2024, equation 10
    lightnet          z_t = log(exp z_{t-1} + exp k_t),  S_t = diag(exp(z_{t-1} - z_t)) S_{t-1} + exp(k_t - z_t) v_t^T,
                      so that each key channel is a softmax over time; q is silu(W x)      Qin et al. 2024, LightNet (its position codes
                      are for several dimensions and are left out)

with o_t = S_t^T q_t where nothing else is said, H heads of width d = D / H for keys and values alike, and y_t = W_o o_t; all but the first
have y_t = W_o (RMSNorm(o_t) * swish(gate)) with the norm over all heads at once. S is [keys, values], the transpose of some papers'.

q, k and v of all four come from a causal convolution over time where `taps` is above 1, as only the delta rule has it by default; gated
linear attention then has silu around them. With it one layer can write what comes now under the key that came before.

State per row: linear_attention and lightnet layers D (d + 1), gated_linear and delta_rule layers D d numbers, and layers 3 D (taps - 1) for
the convolution. A reset sets all to zero (z to the logarithm of nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import elu, logsigmoid, pad, silu, softplus

from memory.convolution import CausalConvolution
from memory.kernels.chunkwise import matrix_scan
from memory.kernels.scan import NOTHING, before, last, log_sum_scan, newest_weight
from memory.memory import Memory, State, require_divisor, require_positive
from memory.ssm import step_size_bias
from memory.stack import Stack

# The width of the bottleneck that gates are computed through (Yang et al. 2023, section 4.4).
_RANK = 16
# Below the square of any length that matters.
_TINY = 1e-6


@dataclass(frozen=True)
class _Config:
    """What the four are set by."""

    width: int = 128
    heads: int = 4
    layers: int = 2
    taps: int = 1

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_positive(f"{name}.width", self.width)
        require_divisor(f"{name}.heads", self.heads, "width", self.width)
        require_positive(f"{name}.layers", self.layers)
        require_positive(f"{name}.taps", self.taps)


@dataclass(frozen=True)
class LinearAttentionConfig(_Config):
    """Linear attention: every step adds to a matrix per head, which is read as a mean (Katharopoulos et al. 2020).

    width: D. heads: H, which divides D. layers: residual blocks. taps: of a convolution over time before q, k and v; 1 for none.
    """

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [LinearAttention(self) for _ in range(self.layers)])


@dataclass(frozen=True)
class GatedLinearConfig(_Config):
    """Gated linear attention: a matrix per head that fades by key channel as the input says (Yang et al. 2023).

    width: D. heads: H, which divides D. layers: residual blocks. taps: of a convolution over time before q, k and v; 1 for none.
    """

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [GatedLinear(self) for _ in range(self.layers)])


@dataclass(frozen=True)
class DeltaRuleConfig(_Config):
    """The delta rule: a key's value in a matrix per head is replaced and not added to (Yang et al. 2024).

    width: D. heads: H, which divides D. layers: residual blocks. taps: of the convolution over time before q, k and v; 1 for none.

    decay: whether the whole memory also fades, by a learned gate.
    """

    taps: int = 4
    decay: bool = False

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [DeltaRule(self) for _ in range(self.layers)])


@dataclass(frozen=True)
class LightNetConfig(_Config):
    """LightNet: a matrix per head in which each key channel is a softmax over time (Qin et al. 2024).

    width: D. heads: H, which divides D. layers: residual blocks. taps: of a convolution over time before q, k and v; 1 for none.
    """

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [LightNet(self) for _ in range(self.layers)])


class MatrixState(NamedTuple):
    """recent: the convolution's last inputs; None without one."""

    matrix: Float[Tensor, "B H K V"]
    recent: Float[Tensor, "B R Q"] | None


class _Layer(Memory):
    """What the four have in common: queries, keys and values by heads, and a matrix [K, V] for each of H heads."""

    def __init__(self, config: _Config, columns: int = 0) -> None:
        """columns: of the matrix, beside those of values."""
        width = config.width
        super().__init__(width, width)
        self.heads = config.heads
        self.head_width = width // config.heads
        self.columns = self.head_width + columns
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.convolution = CausalConvolution(3 * width, config.taps) if config.taps > 1 else None
        self.output = nn.Linear(width, width, bias=False)

    @property
    def state_size(self) -> int:
        return self.outputs * self.columns + (self.convolution.state_size if self.convolution else 0)

    def start(self, batch_size: int) -> State:
        matrix = self.output.weight.new_zeros(batch_size, self.heads, self.head_width, self.columns)
        return MatrixState(matrix, self.convolution.start(batch_size) if self.convolution else None)

    def _project(self, x: Float[Tensor, "B T E"], recent: Tensor | None, reset: Bool[Tensor, "B T"]) -> tuple[list[Tensor], Tensor | None]:
        """q, k and v, [B, T, H, K], in the parameters' type; and the convolution's last inputs."""
        mixed = self.query_key_value(x)
        if self.convolution:
            mixed, recent = self.convolution(mixed, recent, reset)
        return [self._by_heads(part) for part in mixed.chunk(3, -1)], recent

    def _by_heads(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H K"]:
        return x.to(self.output.weight.dtype).unflatten(-1, (self.heads, self.head_width))


class _GatedOutput(nn.Module):
    """RMSNorm(o) * silu(gate), over all heads at once: a single head may read next to nothing, which must not be blown up."""

    def __init__(self, width: int, gate: nn.Module) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.gate = gate

    def forward(self, o: Float[Tensor, "B T H V"], x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        gated: Tensor = self.norm(o.flatten(2)) * silu(self.gate(x))
        return gated


class LinearAttention(_Layer):
    """One layer, from width D to width D. A column of ones beside the values sums up the keys."""

    def __init__(self, config: LinearAttentionConfig) -> None:
        super().__init__(config, columns=1)

    def forward(
        self, x: Float[Tensor, "B T E"], state: MatrixState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MatrixState]:
        (q, k, v), recent = self._project(x, state.recent, reset)
        o, matrix = matrix_scan(elu(q) + 1, elu(k) + 1, pad(v, (0, 1), value=1.0), None, None, state.matrix, reset)
        mean = o[..., :-1] / (o[..., -1:] + _TINY)
        return self.output(mean.flatten(2)), MatrixState(matrix, recent)


class GatedLinear(_Layer):
    """One layer, from width D to width D."""

    def __init__(self, config: GatedLinearConfig) -> None:
        width = config.width
        super().__init__(config)
        self.decay = nn.Sequential(nn.Linear(width, _RANK, bias=False), nn.Linear(_RANK, width))
        self.normal = _GatedOutput(width, nn.Linear(width, width))

    def forward(
        self, x: Float[Tensor, "B T E"], state: MatrixState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MatrixState]:
        (q, k, v), recent = self._project(x, state.recent, reset)
        if self.convolution:
            q, k, v = silu(q), silu(k), silu(v)
        o, matrix = matrix_scan(q, k, v, None, self._log_decay(x), state.matrix, reset)
        return self.output(self.normal(o, x)), MatrixState(matrix, recent)

    def inspect(self, x: Float[Tensor, "B T E"], state: MatrixState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """decay: g_t, the share of each key channel that is kept, [B, T, H, K]."""
        return {"decay": self._log_decay(x).exp()}

    def _log_decay(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T H K"]:
        return logsigmoid(self._by_heads(self.decay(x))) / 16


class DeltaRule(_Layer):
    """One layer, from width D to width D."""

    def __init__(self, config: DeltaRuleConfig) -> None:
        width, heads = config.width, config.heads
        super().__init__(config)
        self.strength = nn.Linear(width, heads, bias=False)
        self.normal = _GatedOutput(width, nn.Linear(width, width))
        self.decay = _Decay(width, heads) if config.decay else None

    def forward(
        self, x: Float[Tensor, "B T E"], state: MatrixState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MatrixState]:
        (q, k, v), recent = self._project(x, state.recent, reset)
        log_decay = None if self.decay is None else self.decay(x)[..., None]
        o, matrix = matrix_scan(_unit(silu(q)), _unit(silu(k)), silu(v), self._strength(x), log_decay, state.matrix, reset)
        return self.output(self.normal(o, x)), MatrixState(matrix, recent)

    def inspect(self, x: Float[Tensor, "B T E"], state: MatrixState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """strength: beta_t, how much of what the key recalled is replaced; decay, where set: a_t. Both [B, T, H]."""
        seen = {"strength": self._strength(x)}
        return seen if self.decay is None else seen | {"decay": self.decay(x).exp()}

    def _strength(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T H"]:
        return torch.sigmoid(self.strength(x).to(self.output.weight.dtype))


class _Decay(nn.Module):
    """log a_t = -A softplus(W x_t + b), per head. As published: A uniform up to 16, b as in `memory.ssm`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.step_size = nn.Linear(width, heads, bias=False)
        self.bias = nn.Parameter(step_size_bias(heads))
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(_TINY, 16).log())

    def forward(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T H"]:
        log_decay: Tensor = -self.log_rate.exp() * softplus(self.step_size(x).to(self.bias.dtype) + self.bias)
        return log_decay


def _unit(x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H K"]:
    """Of length one, or less where there is next to nothing."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _TINY)


class LightNetState(NamedTuple):
    """log_weight: z. recent: the convolution's last inputs; None without one."""

    matrix: Float[Tensor, "B H K V"]
    log_weight: Float[Tensor, "B H K"]
    recent: Float[Tensor, "B R Q"] | None


class LightNet(_Layer):
    """One layer, from width D to width D."""

    def __init__(self, config: LightNetConfig) -> None:
        width = config.width
        super().__init__(config)
        self.normal = _GatedOutput(width, nn.Sequential(nn.Linear(width, _RANK, bias=False), nn.Linear(_RANK, width, bias=False)))

    @property
    def state_size(self) -> int:
        return super().state_size + self.outputs

    def start(self, batch_size: int) -> LightNetState:
        matrix, recent = super().start(batch_size)
        return LightNetState(matrix, torch.full_like(matrix[..., 0], NOTHING), recent)

    def forward(
        self, x: Float[Tensor, "B T E"], state: LightNetState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], LightNetState]:
        (q, k, v), recent = self._project(x, state.recent, reset)
        k, first = k.flatten(2), state.log_weight.flatten(1)
        z = log_sum_scan(k, first, reset)
        newest = self._by_heads(newest_weight(k, z, first, reset))
        # Where a trial begins nothing is kept, whatever there was.
        log_kept = self._by_heads(logsigmoid((before(z, first) - k).masked_fill(reset[..., None], 0.0)))
        o, matrix = matrix_scan(silu(q), newest, v, None, log_kept, state.matrix, reset)
        return self.output(self.normal(o, x)), LightNetState(matrix, last(z, first).view_as(state.log_weight), recent)

    def inspect(self, x: Float[Tensor, "B T E"], state: LightNetState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """newest: exp(k_t - z_t), the share of each key channel that step t gets when it comes, [B, T, H, K]."""
        (_, key, _), _ = self._project(x, state.recent, reset)
        k, first = key.flatten(2), state.log_weight.flatten(1)
        return {"newest": self._by_heads(newest_weight(k, log_sum_scan(k, first, reset), first, reset))}
