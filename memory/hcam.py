"""Hierarchical chunk attention memory, HCAM (Lampinen, Chan, Banino & Hill 2021, section 2 and figure 1).

The past of a trial is cut into chunks of C steps. A step first attends to their summaries, then inside the k most relevant of them:

    s_m = mean_c C_{m,c}                                                   a chunk's summary
    l_{t,m} = (W_q x_t) . (W_k s_m) / sqrt(D)                              relevance
    w_t = softmax of l_t over its k highest                                which chunks, and how much
    y_t = sum_m w_{t,m} MHA(x_t, C_m + P)                                  attention inside each, P the place in the chunk, newest 0

The layer around it: x <- x + WindowAttention(LN x); x <- x + HCAM(LN x); x <- x + MLP(LN x), with MLP(x) = W_2 gelu(W_1 x). The window
serves the newest steps, which are in no chunk yet.

As published, gradients reach the weights and the projections and never what is stored. The paper leaves writing open; here a chunk holds
the layer's own x_t (after its LayerNorm), is written when its C-th step has passed and is seen by the step after that; the store keeps the
newest M chunks of the trial, or with `grows` all of them; a place not yet written weighs nothing, and a step
with nothing to recall gets y_t = 0. Resets begin trials, so a store lasts over the episodes of one.

State per row: layers (M C D + M D + (C - 1) D + 1 + 2 W D + 1) numbers: contents, summaries, the open chunk and a clock, and the
window's.

Projections move: (q_h . W_k c) = (W_k^T q_h) . c and sum_c p_c W_v c = W_v sum_c p_c c, so that no stored step is projected, neither once
per step that looks at it nor as a second copy in the state. What is stored has P added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from memory.attention import WindowAttention, WindowState, sinusoids
from memory.kernels.hcam_recall import are_few, choose, recall
from memory.memory import Memory, require_divisor, require_positive
from memory.resets import may_be_true, steps_before
from memory.stack import Layers, perceptron


@dataclass(frozen=True)
class HCAMConfig:
    """width: D. layers. heads: H, which divide D, of both attentions. chunk_length: C. chunks: M, of the store; the oldest make way.

    grows: the store grows with the trial, to as many chunks as the longest trial of the experiment fills, whatever `chunks` says: nothing
    is forgotten. Its place is kept free from the start, for a state's shape may not change; on a CPU what is not filled yet is not attended
    to while few chunks are.
    recalled: k, the chunks that a step looks into. place_code: whether steps know their place in the chunk. window: W, the steps that the
    local attention sees besides the present one. expansion: the perceptrons' hidden width in units of D.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    chunk_length: int = 16
    chunks: int = 16
    grows: bool = False
    recalled: int = 4
    place_code: bool = True
    window: int = 16
    expansion: int = 4

    def __post_init__(self) -> None:
        require_positive("HCAMConfig.width", self.width)
        require_positive("HCAMConfig.layers", self.layers)
        require_divisor("HCAMConfig.heads", self.heads, "HCAMConfig.width", self.width)
        require_positive("HCAMConfig.chunk_length", self.chunk_length)
        require_positive("HCAMConfig.chunks", self.chunks)
        require_positive("HCAMConfig.recalled", self.recalled)
        if self.recalled > self.chunks and not self.grows:
            raise ValueError(f"HCAMConfig.recalled is {self.recalled}; want at most HCAMConfig.chunks, which is {self.chunks}")
        require_positive("HCAMConfig.window", self.window)
        require_positive("HCAMConfig.expansion", self.expansion)

    def for_trials(self, steps: int) -> HCAMConfig:
        return replace(self, chunks=max(self.recalled, steps // self.chunk_length)) if self.grows else self

    def build(self, inputs: int) -> Layers:
        config = replace(self, chunks=max(self.recalled, self.chunks))
        return Layers(inputs, self.width, [HCAMLayer(config) for _ in range(self.layers)])


class HCAMLayerState(NamedTuple):
    window: WindowState
    chunks: ChunkState


class HCAMLayer(Memory):
    def __init__(self, config: HCAMConfig) -> None:
        width = config.width
        super().__init__(width, width)
        self.window = WindowAttention(width, config.heads, config.window)
        self.chunks = ChunkAttention(width, config.heads, config.chunk_length, config.chunks, config.recalled, config.place_code)
        self.perceptron = perceptron(width, config.expansion)
        self.before_window = nn.LayerNorm(width)
        self.before_chunks = nn.LayerNorm(width)

    @property
    def state_size(self) -> int:
        return self.window.state_size + self.chunks.state_size

    def start(self, batch_size: int) -> HCAMLayerState:
        return HCAMLayerState(self.window.start(batch_size), self.chunks.start(batch_size))

    def forward(
        self, x: Float[Tensor, "B T D"], state: HCAMLayerState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], HCAMLayerState]:
        near, window = self.window(self.before_window(x), state.window, reset)
        x = x + near
        far, chunks = self.chunks(self.before_chunks(x), state.chunks, reset)
        x = x + far
        return x + self.perceptron(x), HCAMLayerState(window, chunks)

    def inspect(self, x: Float[Tensor, "B T D"], state: HCAMLayerState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        normal = self.before_window(x)
        near, _ = self.window(normal, state.window, reset)
        return self.window.inspect(normal, state.window, reset) | self.chunks.inspect(self.before_chunks(x + near), state.chunks, reset)


class ChunkState(NamedTuple):
    """contents, summaries: the trial's last M chunks, newest last, zero where there are fewer. open: the steps since, newest last, zero
    before them. clock: steps of the trial so far."""

    contents: Float[Tensor, "B M C D"]
    summaries: Float[Tensor, "B M D"]
    open: Float[Tensor, "B past D"]
    clock: Int[Tensor, "B"]


class Readable(NamedTuple):
    """L chunks to look into, as they are stored."""

    contents: Float[Tensor, "B L C D"]
    summaries: Float[Tensor, "B L D"]


class ChunkAttention(Memory):
    """A mixer from width D to width D: the two attentions and the store."""

    place: Tensor

    def __init__(self, width: int, heads: int, chunk_length: int, chunks: int, recalled: int, place_code: bool = True) -> None:
        super().__init__(width, width)
        self.heads = heads
        self.chunk_length = chunk_length
        self.chunks = chunks
        self.recalled = recalled
        self.relevance_query = nn.Linear(width, width, bias=False)
        self.relevance_key = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width)
        # A key's bias would add the same to all steps of a chunk, which a softmax does not see.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.register_buffer("place", sinusoids(chunk_length, width) * place_code, persistent=False)
        # As published: variance scaling by 2, over the inputs. A normal distribution cut off at two deviations keeps 0.88 of one.
        deviation = math.sqrt(2 / width) / 0.87962566
        for linear in (self.relevance_query, self.relevance_key, self.query, self.key, self.value, self.out):
            nn.init.trunc_normal_(linear.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        for linear in (self.query, self.value, self.out):
            nn.init.zeros_(linear.bias)

    @property
    def state_size(self) -> int:
        return (self.chunks * self.chunk_length + self.chunks + self.chunk_length - 1) * self.outputs + 1

    def start(self, batch_size: int) -> ChunkState:
        contents = self.out.bias.new_zeros(batch_size, self.chunks, self.chunk_length, self.outputs)
        clock = torch.zeros(batch_size, dtype=torch.int64, device=contents.device)
        return ChunkState(
            contents, torch.zeros_like(contents[:, :, 0]), contents.new_zeros(batch_size, self.chunk_length - 1, self.outputs), clock
        )

    def forward(
        self, x: Float[Tensor, "B T D"], state: ChunkState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], ChunkState]:
        if x.shape[1] == 0:
            return x, state
        readable, visible, after = self._write(x, state, reset)
        empty = self._empty(state.clock, readable.contents)
        if empty:
            readable, visible = Readable(*(side[:, empty:] for side in readable)), visible[:, :, empty:]
        return self.attend(x, readable, visible), after

    def _empty(self, clock: Int[Tensor, "B"], contents: Float[Tensor, "B L C D"]) -> int:
        """How many of the oldest places no row has filled yet, if few chunks are left without them: those are then all attended to, at no
        cost for what is not there. On a GPU asking would stall.
        """
        if clock.device.type != "cpu" or len(clock) == 0:
            return 0
        stored = contents.shape[1]
        empty = min(max(0, self.chunks - int(clock.max()) // self.chunk_length), stored - 1)
        return empty if are_few(stored - empty, min(self.recalled, stored - empty), contents) else 0

    def attend(self, x: Float[Tensor, "B T D"], readable: Readable, visible: Bool[Tensor, "B T L"]) -> Float[Tensor, "B T D"]:
        """What the steps recall of the chunks that each may see; 0 where it may see none."""
        chosen, weights = self._choose(x, readable, visible)
        query = self._query(x).to(weights.dtype)
        with torch.autocast(x.device.type, enabled=False):
            read = recall(query, readable.contents, chosen, weights)
        value = self.value.weight.unflatten(0, (self.heads, -1))
        y: Tensor = self.out(torch.einsum("bthi,hdi->bthd", read, value).flatten(2) + self.value.bias)
        return y.masked_fill(~visible.any(2, keepdim=True), 0.0)

    def inspect(self, x: Float[Tensor, "B T D"], state: ChunkState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """recalled [B, T, K]: the chunks looked into, 1 the newest; 0 where there was none. weights: how much each counts."""
        if x.shape[1] == 0:
            none = x.new_zeros(len(x), 0, self.recalled)
            return {"recalled": none.long(), "weights": none}
        readable, visible, _ = self._write(x, state, reset)
        chosen, weights = self._choose(x, readable, visible)
        newest = visible.long().cumsum(2).argmax(2, keepdim=True)
        return {"recalled": (newest - chosen + 1).masked_fill(~visible.gather(2, chosen), 0), "weights": weights}

    def _choose(
        self, x: Float[Tensor, "B T D"], readable: Readable, visible: Bool[Tensor, "B T L"]
    ) -> tuple[Int64[Tensor, "B T K"], Float[Tensor, "B T K"]]:
        query = self.relevance_query(x) @ self.relevance_key.weight / math.sqrt(self.outputs)
        # What is chosen is compared in the state's precision.
        with torch.autocast(x.device.type, enabled=False):
            return choose(query.to(readable.summaries.dtype), readable.summaries, visible, min(self.recalled, visible.shape[2]))

    def _query(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H D"]:
        key = self.key.weight.unflatten(0, (self.heads, -1))
        return torch.einsum("bthd,hdi->bthi", self.query(x).unflatten(2, (self.heads, -1)), key) / math.sqrt(key.shape[1])

    def _write(
        self, x: Float[Tensor, "B T D"], state: ChunkState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Readable, Bool[Tensor, "B T L"], ChunkState]:
        """The chunks stored and those that these steps complete, L in all; which of them each step sees; the state after.

        A trial's chunks stand one after the other, newest last, so what a step sees is an interval.
        """
        before = steps_before(state.clock, reset)
        line = torch.cat([state.open, x.to(state.open.dtype)], 1).detach()
        contents, summaries = state.contents.detach(), state.summaries.detach()
        ends = before % self.chunk_length == self.chunk_length - 1
        written = ends.cumsum(1)
        # On a CPU, an acting row's store is copied only when a chunk is written.
        if may_be_true(ends):
            new = self._cut(line, ends, written)
            contents, summaries = torch.cat([contents, new + self.place], 1), torch.cat([summaries, new.mean(2)], 1)
        readable = Readable(contents, summaries)
        last = self.chunks + written - ends.long()
        first = last - (before // self.chunk_length).clamp(max=self.chunks)
        number = torch.arange(contents.shape[1], device=x.device)
        visible = (first[..., None] <= number) & (number < last[..., None])

        clock = before[:, -1:] + 1
        if may_be_true(ends):
            kept = torch.arange(self.chunks, device=x.device) + written[:, -1:]
            contents, summaries = _take(contents, kept), _take(summaries, kept)
        if may_be_true(reset):
            gone = torch.arange(self.chunks, 0, -1, device=x.device) > clock // self.chunk_length
            contents, summaries = contents.masked_fill(gone[..., None, None], 0.0), summaries.masked_fill(gone[..., None], 0.0)
        closed = torch.arange(self.chunk_length - 1, 0, -1, device=x.device) > clock % self.chunk_length
        open_chunk = line[:, x.shape[1] :].masked_fill(closed[..., None], 0.0)
        return readable, visible, ChunkState(contents, summaries, open_chunk, clock[:, 0])

    def _cut(self, line: Float[Tensor, "B S D"], ends: Bool[Tensor, "B T"], written: Int64[Tensor, "B T"]) -> Float[Tensor, "B N C D"]:
        """The chunks that end in T steps, in order, out of the C - 1 steps before and these. Places for more hold anything."""
        steps = ends.shape[1]
        most = -(-steps // self.chunk_length)
        step = torch.arange(steps, device=line.device).expand_as(written)
        # The last place takes the steps that end nothing.
        end = torch.zeros_like(written[:, :1]).repeat(1, most + 1).scatter(1, torch.where(ends, written - 1, most), step)[:, :most]
        index = end[..., None] + torch.arange(self.chunk_length, device=line.device)
        return _take(line, index.flatten(1)).unflatten(1, (most, self.chunk_length))


def _take(x: Float[Tensor, "B S *rest"], index: Int64[Tensor, "B N"]) -> Float[Tensor, "B N *rest"]:
    """Row b's x[b, index[b, n]]."""
    first = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (index + first).flatten()).unflatten(0, index.shape)
