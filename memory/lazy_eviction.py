"""Attention over a bounded store, from which what is not coming back is evicted (LazyEviction, arXiv 2506.15969).

Residual layers (`memory.stack`) of causal multi-head attention with rotary positions (Su et al. 2021) over the steps still in the store.
Every W steps of the row's own clock, at most M stay: the W newest, and of the older ones those of the highest importance I_i at time t,

    lazy                    I_i = 2 sigmoid(-(t - TS_i) / max(MRI_i, 1)) + [MRI_i > 0] 2 sigmoid(-(MRI_i - 1) / W)
    accumulated_attention   I_i = the attention that i has received since it came (H2O, Zhang et al. 2023)
    fifo                    I_i = i

where TS_i is when i was last activated and MRI_i the longest interval between two of its activations (0: none yet). At t a step is
activated if its attention a_ti, the mean over heads, exceeds alpha / n, n being the number of steps attended to: softmaxes over dozens
need a threshold relative to the uniform one. The second term's form is ours: 2 sigmoid(-1 / MRI), as some print it, grows with MRI, which
the text beside it denies. Which steps to keep is decided without gradients.

State per row and layer: S (2 D + 4) + 1 numbers, S = M + W - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from memory.attention import turned
from memory.memory import Memory, require_divisor, require_positive
from memory.resets import steps_before
from memory.stack import Stack

EVICTIONS = ("lazy", "fifo", "accumulated_attention")


class Marks(NamedTuple):
    """What is known of N steps. position: counted from the row's last reset; -1 where a slot is empty. activated, interval: TS and MRI.

    received: attention so far.
    """

    position: Int64[Tensor, "B N"]
    activated: Int64[Tensor, "B N"]
    interval: Int64[Tensor, "B N"]
    received: Float[Tensor, "B N"]


class LazyEvictionState(NamedTuple):
    """S slots, the oldest step first, empty slots in front of them and zero but for their position. clock: the next step's position."""

    key: Float[Tensor, "B S H d"]
    value: Float[Tensor, "B S H d"]
    marks: Marks
    clock: Int64[Tensor, "B"]


@dataclass(frozen=True)
class LazyEvictionConfig:
    """width: D. layers, heads: of attention. chunks: M, the steps that an eviction leaves. window: W, steps between evictions.

    eviction: "lazy", "fifo" or "accumulated_attention". threshold: alpha, in units of uniform attention.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    chunks: int = 64
    window: int = 16
    eviction: str = "lazy"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "chunks", "window"):
            require_positive(f"LazyEvictionConfig.{name}", getattr(self, name))
        require_divisor("LazyEvictionConfig.heads", self.heads, "width", self.width)
        if self.width // self.heads % 2:
            raise ValueError(
                f"LazyEvictionConfig.width is {self.width} with {self.heads} heads; want an even number for each: positions turn pairs"
            )
        if self.chunks < self.window:
            raise ValueError(f"LazyEvictionConfig.chunks is {self.chunks}; want at least the window, {self.window}, which is always kept")
        if self.eviction not in EVICTIONS:
            raise ValueError(f"LazyEvictionConfig.eviction is {self.eviction!r}; want one of {', '.join(map(repr, EVICTIONS))}")
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"LazyEvictionConfig.threshold is {self.threshold}; want a number from 0")

    def build(self, inputs: int) -> Stack:
        return Stack(inputs, self.width, [LazyAttention(self) for _ in range(self.layers)])


class LazyAttention(Memory):
    """One layer's attention, from width D to width D."""

    def __init__(self, config: LazyEvictionConfig) -> None:
        super().__init__(config.width, config.width)
        self.config = config
        self.project = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        for linear in (self.project, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    @property
    def slots(self) -> int:
        """S: what an eviction leaves, and the steps until the next one."""
        return self.config.chunks + self.config.window - 1

    @property
    def state_size(self) -> int:
        return self.slots * (2 * self.outputs + 4) + 1

    def start(self, batch_size: int) -> LazyEvictionState:
        new, slots, heads = self.out.weight.new_zeros, self.slots, self.config.heads
        key, value = (new(batch_size, slots, heads, self.outputs // heads) for _ in range(2))
        position, activated, interval = (new(batch_size, slots, dtype=torch.int64) for _ in range(3))
        marks = Marks(position - 1, activated, interval, new(batch_size, slots))
        return LazyEvictionState(key, value, marks, new(batch_size, dtype=torch.int64))

    def forward(
        self, x: Float[Tensor, "B T D"], state: LazyEvictionState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], LazyEvictionState]:
        if x.shape[1] == 0:
            return x.new_zeros(x.shape), state
        answers = []
        projected = self.project(x).to(state.key.dtype)
        # In W steps no row evicts twice: after a reset it has W steps to go.
        for first in range(0, x.shape[1], self.config.window):
            part = slice(first, first + self.config.window)
            answer, state, _ = self._attend(projected[:, part], state, reset[:, part])
            answers.append(answer)
        return self.out(torch.cat(answers, 1)), state

    def inspect(self, x: Float[Tensor, "B T D"], state: LazyEvictionState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """position [B, T, S + 1]: the steps attended to, itself last, -1 where there is none. attention [B, T, H, S + 1]: how much.

        kept [B, T, S + 1]: which of them are still there afterwards.
        """
        projected = self.project(x).to(state.key.dtype)
        seen: dict[str, list[Tensor]] = {"position": [], "attention": [], "kept": []}
        for t in range(x.shape[1]):
            _, state, looked = self._attend(projected[:, t : t + 1], state, reset[:, t : t + 1])
            seen["position"].append(looked.position.masked_fill(~looked.alive[:, 0], -1))
            seen["attention"].append(looked.attention[:, :, 0])
            seen["kept"].append(looked.kept)
        return {name: torch.stack(values, 1) for name, values in seen.items() if values}

    def _attend(
        self, projected: Float[Tensor, "B L QKV"], state: LazyEvictionState, reset: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L D"], LazyEvictionState, _Looked]:
        """At most W steps: their answers, the state after them and what was looked at. Of N = S + L steps, the slots and the new ones."""
        slots, steps = self.slots, projected.shape[1]
        clock = steps_before(state.clock, reset)
        query, key, value = projected.unflatten(-1, (3, self.config.heads, -1)).unbind(2)
        query, key = (turned(part, clock) for part in (query, key))
        # Which life a step belongs to: 0 before the first reset here, 1 after it, and so on.
        life = nn.functional.pad(reset.cumsum(1), (slots, 0))
        arrived = torch.ones(steps, slots + steps, dtype=torch.bool, device=reset.device).tril(slots)
        arriving = (clock, clock, 0 * clock, state.marks.received.new_zeros(clock.shape))
        marks = Marks(*(torch.cat(pair, 1) for pair in zip(state.marks, arriving, strict=True)))
        alive = (life[:, slots:, None] == life[:, None, :]) & arrived & (marks.position >= 0)[:, None, :]
        keys, values = torch.cat([state.key, key], 1), torch.cat([state.value, value], 1)
        # Evictions hang on a hair's breadth of attention, so it keeps its precision under autocast.
        with torch.autocast(projected.device.type, enabled=False):
            scores = torch.einsum("blhd,bnhd->bhln", query, keys) / query.shape[-1] ** 0.5
            evicts = (clock + 1) % self.config.window == 0
            with torch.no_grad():
                leaving = self._leaving(marks, _softmax(scores, alive), alive, evicts, clock)
            evicted = evicts.cumsum(1) > evicts
            alive = alive & ~(evicted[..., None] & leaving[:, None])
            attention = _softmax(scores, alive)
            answer = torch.einsum("bhln,bnhd->blhd", attention, values).flatten(2)
        with torch.no_grad():
            marks = _marked(marks, attention, alive, clock, self.config.threshold)
            kept = alive[:, -1] & ~leaving
            # Those that stay move to the back, in their order.
            order = kept.long().argsort(dim=1, stable=True)[:, -slots:]
            empty = ~kept.gather(1, order)
        rows = torch.arange(len(order), device=order.device)[:, None]
        key, value = (part[rows, order].masked_fill(empty[..., None, None], 0.0) for part in (keys, values))
        stored = Marks(*(mark.gather(1, order).masked_fill(empty, 0) for mark in marks))
        stored = stored._replace(position=stored.position.masked_fill(empty, -1))
        after = LazyEvictionState(key, value, stored, clock[:, -1] + 1)
        return answer, after, _Looked(marks.position, alive, attention, kept)

    def _leaving(
        self,
        marks: Marks,
        attention: Float[Tensor, "B H L N"],
        alive: Bool[Tensor, "B L N"],
        evicts: Bool[Tensor, "B L"],
        clock: Int64[Tensor, "B L"],
    ) -> Bool[Tensor, "B N"]:
        """Who leaves at the one step of a row that evicts; nobody where none does."""
        chunks, window = self.config.chunks, self.config.window
        until = evicts.cumsum(1) <= evicts
        marks = _marked(marks, attention, alive & until[..., None], clock, self.config.threshold)
        now = clock.masked_fill(~evicts, 0).sum(1, keepdim=True)
        old = (alive & evicts[..., None]).any(1) & (marks.position <= now - window)
        importance = self._importance(marks, now).masked_fill(~old, float("-inf"))
        # Of equals the newer stays.
        best_first = importance.flip(1).argsort(dim=1, descending=True, stable=True)
        rank = best_first.argsort(dim=1).flip(1)
        return old & (rank >= chunks - window)

    def _importance(self, marks: Marks, now: Int64[Tensor, "B 1"]) -> Float[Tensor, "B N"]:
        if self.config.eviction == "fifo":
            return marks.position.double()
        if self.config.eviction == "accumulated_attention":
            return marks.received
        interval = marks.interval.double()
        recent = 2 * torch.sigmoid((marks.activated - now) / interval.clamp(min=1))
        recurs = 2 * torch.sigmoid((1 - interval) / self.config.window)
        # Equals must be equal: the last bit of a sigmoid may depend on where in a tensor it stands.
        return (recent + recurs.masked_fill(marks.interval == 0, 0.0)).round(decimals=9)


class _Looked(NamedTuple):
    """alive: which were attended to at each step. kept: which are there after the last."""

    position: Int64[Tensor, "B N"]
    alive: Bool[Tensor, "B L N"]
    attention: Float[Tensor, "B H L N"]
    kept: Bool[Tensor, "B N"]


def _marked(
    marks: Marks, attention: Float[Tensor, "B H L N"], alive: Bool[Tensor, "B L N"], clock: Int64[Tensor, "B L"], threshold: float
) -> Marks:
    """The marks after the steps' attention to those alive; steps to whom nobody is alive leave none."""
    share = attention.mean(1).masked_fill(~alive, 0.0)
    active = alive & (share > threshold / alive.sum(-1, keepdim=True))
    last = torch.where(active, clock[..., None], marks.activated[:, None]).cummax(1).values
    before = torch.cat([marks.activated[:, None], last[:, :-1]], 1)
    intervals = (clock[..., None] - before).masked_fill(~active, 0)
    return Marks(marks.position, last[:, -1], marks.interval.maximum(intervals.amax(1)), marks.received + share.sum(1))


def _softmax(scores: Float[Tensor, "B H L N"], alive: Bool[Tensor, "B L N"]) -> Float[Tensor, "B H L N"]:
    return scores.masked_fill(~alive[:, None], float("-inf")).softmax(-1)
