"""RAT, between a recurrence and attention (arXiv 2507.04416): gated means within chunks, attention over the chunks.

    z_t = sigmoid(W_z x_t), g_t = sigmoid(W_g x_t + b_g), and from x_t a value x, a query q and a key k
    v~_t = g_t * v~_{t-1} + (1 - g_t) * x_t      k~_t = g_t * k~_{t-1} + (1 - g_t) * k_t      from zero at the start of a chunk
    y_t = W_o(z_t * sum_j softmax_j(q_t . k~_j / sqrt(d)) v~_j)

where j runs over the last step of each of the M chunks before t's, and t itself. Chunks of C steps are counted from the row's last reset.
Queries and keys are turned by their chunk's number (rotary position code, Su et al. 2021), so that a score depends on how many chunks lie
between. Queries and keys are the same for all heads of a group; the gates g, one per channel, tell the heads' keys apart. C = 1 is
attention over the last M + 1 steps, C at least as long as a trial a gated linear recurrence.

State per row and layer: 2 D (M + 1) + 1 numbers: the keys and values that ended the last M chunks, those of the open one, a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from memory.attention import turned
from memory.kernels.scan import linear_scan
from memory.memory import Memory, require_divisor, require_positive
from memory.resets import steps_before
from memory.stack import Stack


class RATState(NamedTuple):
    """Chunk number c lies in slot c mod M. Keys and values are side by side: E = 2 D. `clock` counts the steps since the last reset."""

    closed: Float[Tensor, "B M E"]
    open: Float[Tensor, "B E"]
    clock: Int[Tensor, "B"]


@dataclass(frozen=True)
class RATConfig:
    """width: D. layers: residual blocks. heads: H, which divides D. groups: of heads that share queries and keys. chunk_length: C.
    chunks: M, the closed chunks that can be seen.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    groups: int = 2
    chunk_length: int = 16
    chunks: int = 16

    def __post_init__(self) -> None:
        require_positive("RATConfig.width", self.width)
        require_positive("RATConfig.layers", self.layers)
        require_divisor("RATConfig.heads", self.heads, "width", self.width)
        if self.width // self.heads % 2:
            raise ValueError(
                f"RATConfig.heads is {self.heads}, which gives heads of odd width {self.width // self.heads}; want an even one"
            )
        require_divisor("RATConfig.groups", self.groups, "heads", self.heads)
        require_positive("RATConfig.chunk_length", self.chunk_length)
        require_positive("RATConfig.chunks", self.chunks)

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [RAT(self) for _ in range(self.layers)])


class RAT(Memory):
    """A mixer: one layer."""

    def __init__(self, config: RATConfig) -> None:
        super().__init__(config.width, config.width)
        self.config = config
        self.head_width = config.width // config.heads
        self.sizes = [config.width] * 3 + [config.groups * self.head_width] * 2
        self.project = nn.Linear(config.width, sum(self.sizes), bias=False)
        # As published: a gate of sigmoid(log n) remembers n steps; n is spread evenly up to a chunk.
        self.gate_bias = nn.Parameter(torch.empty(config.width).uniform_(1.0, max(config.chunk_length - 1.0, 1.0)).log())
        self.to_output = nn.Linear(config.width, config.width, bias=False)

    @property
    def state_size(self) -> int:
        return 2 * self.outputs * (self.config.chunks + 1) + 1

    def start(self, batch_size: int) -> RATState:
        zeros = self.gate_bias.new_zeros
        closed = zeros(batch_size, self.config.chunks, 2 * self.outputs)
        return RATState(closed, zeros(batch_size, 2 * self.outputs), zeros(batch_size, dtype=torch.long))

    def forward(self, x: Float[Tensor, "B T D"], state: RATState, reset: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], RATState]:
        if x.shape[1] == 0:
            return x, state
        output_gate, queries, running, clock = self._recur(x, state, reset)
        ends = self._ends(running, clock, reset, state)
        weights = self._attend(queries, running, ends, clock)
        _, own_values = running.chunk(2, -1)
        _, values = ends.pairs.chunk(2, -1)
        # Each step's own value is no other step's.
        mixed = torch.einsum("bhtn,bnhd->bthd", weights[..., 1:], self._heads(values))
        mixed = mixed + weights[..., 0].transpose(1, 2)[..., None] * self._heads(own_values)
        return self.to_output(output_gate * mixed.flatten(2)), self._after(running, clock, ends)

    def inspect(self, x: Float[Tensor, "B T D"], state: RATState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """chunk_attention [B, T, H, 1+M]: the weight of the open chunk and of those that lie 1, ..., M chunks back."""
        _, queries, running, clock = self._recur(x, state, reset)
        ends = self._ends(running, clock, reset, state)
        weights = self._attend(queries, running, ends, clock)
        by_age = weights.new_zeros(*weights.shape[:-1], 1 + self.config.chunks)
        by_age[..., 0] = weights[..., 0]
        # What cannot be seen has age 0, and weight 0.
        by_age.scatter_add_(-1, ends.age[:, None].expand_as(weights[..., 1:]), weights[..., 1:])
        return {"chunk_attention": by_age.transpose(1, 2)}

    def _recur(self, x: Tensor, state: RATState, reset: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The output gate [B, T, D], queries [B, T, H, d], keys and values as they stand [B, T, 2 D], each step's clock [B, T]."""
        # What is carried keeps its precision under autocast.
        z, g, value, query, key = self.project(x).to(state.open.dtype).split(self.sizes, -1)
        clock = steps_before(state.clock, reset)
        kept = torch.sigmoid(g + self.gate_bias).repeat(1, 1, 2)
        fresh = torch.cat([self._share(key).flatten(2), value], -1)
        running = linear_scan(kept, (1 - kept) * fresh, state.open, clock % self.config.chunk_length == 0)
        return torch.sigmoid(z), self._share(query), running, clock

    def _ends(self, running: Tensor, clock: Tensor, reset: Tensor, state: RATState) -> _Ends:
        """The chunks that the state holds, then those that these steps close: as many as could, N = M + (T + C - 1) // C."""
        length, slots, (rows, steps) = self.config.chunk_length, self.config.chunks, clock.shape
        room = (steps + length - 1) // length
        chunk, closes = clock // length, clock % length == length - 1
        # The steps that close a chunk, in order. Places left over point at the last step, whose chunk no step comes after.
        place = (closes.cumsum(1) - 1).where(closes, room)
        closing = clock.new_full((rows, room + 1), steps - 1)
        closing = closing.scatter(1, place, torch.arange(steps, device=clock.device).expand(rows, steps))[:, :room]
        pairs = torch.cat([state.closed, running.gather(1, closing[..., None].expand(-1, -1, running.shape[-1]))], 1)
        number = torch.cat([_numbers_in_slots(state.clock // length, slots), chunk.gather(1, closing)], 1)
        trial = reset.cumsum(1)
        its_trial = torch.cat([trial.new_zeros(rows, slots), trial.gather(1, closing)], 1)
        age = chunk[..., None] - number[:, None]
        seen = (its_trial[:, None] == trial[..., None]) & (number[:, None] >= 0) & (age >= 1) & (age <= slots)
        return _Ends(pairs, number, age.masked_fill(~seen, 0), closes.sum(1))

    def _attend(self, queries: Tensor, running: Tensor, ends: _Ends, clock: Tensor) -> Float[Tensor, "B H T N"]:
        """How each step weighs the open chunk as it stands, which comes first, and the closed ones."""
        own_keys, _ = running.chunk(2, -1)
        keys, _ = ends.pairs.chunk(2, -1)
        own = (queries * self._heads(own_keys)).sum(-1).transpose(1, 2)[..., None]
        queries = turned(queries, clock // self.config.chunk_length)
        others = torch.einsum("bthd,bnhd->bhtn", queries, turned(self._heads(keys), ends.number)).to(own.dtype)
        others = others.masked_fill((ends.age == 0)[:, None], -torch.inf)
        return (torch.cat([own, others], -1) * self.head_width**-0.5).softmax(-1)

    def _after(self, running: Tensor, clock: Tensor, ends: _Ends) -> RATState:
        length, slots = self.config.chunk_length, self.config.chunks
        after = clock[:, -1] + 1
        count = after // length
        number = _numbers_in_slots(count, slots)
        # The last of the chunks closed here has number count - 1; what was closed longer ago is still in its slot.
        place = ends.closed_here[:, None] - (count[:, None] - number)
        source = (slots + place).where(place >= 0, torch.arange(slots, device=clock.device))
        closed = ends.pairs.gather(1, source[..., None].expand(-1, -1, running.shape[-1]))
        return RATState(closed.masked_fill((number < 0)[..., None], 0.0), running[:, -1], after)

    def _heads(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N H d"]:
        return x.unflatten(-1, (self.config.heads, self.head_width))

    def _share(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H d"]:
        """Each group's for all of its heads."""
        return x.unflatten(-1, (self.config.groups, self.head_width)).repeat_interleave(self.config.heads // self.config.groups, 2)


class _Ends(NamedTuple):
    """Chunks that have ended. pairs: key and value. number: of the chunk in its trial, below 0 for an empty slot. age: how many chunks
    back it is for each step, 0 where the step may not look. closed_here: how many of them were closed by these steps."""

    pairs: Float[Tensor, "B N E"]
    number: Int[Tensor, "B N"]
    age: Int[Tensor, "B T N"]
    closed_here: Int[Tensor, "B"]


def _numbers_in_slots(count: Int[Tensor, "B"], slots: int) -> Int[Tensor, "B M"]:
    """Which chunk each slot holds once `count` chunks are closed: the last whose number is the slot's modulo M; negative if none."""
    last = count[:, None] - 1
    return last - (last - torch.arange(slots, device=count.device)) % slots
