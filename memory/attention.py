"""Self-attention to the W steps before, with resets anywhere.

Attention with relative positions (Dai et al. 2019, section 3.3), for each head of size d, over the steps j = t-W .. t of t's own trial:

    A_{t,j} = (q_t + u) . k_j + (q_t + v) . W_R R_{t-j},   q_t, k_j, v_j = W_q x_t, W_k x_j, W_v x_j
    y_t = W_o sum_j softmax_j(A_{t,j} / sqrt(d)) v_j

R_i is the sinusoid of distance i; u and v are learned. State per row: 2 W D + 1 numbers, the keys and values of the steps before, and a
clock. Gradients flow through all of it: Dai et al. stop them where one segment of theirs ends, which is where a call happens to be split.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from memory.memory import Memory
from memory.resets import may_be_true, steps_before


class WindowState(NamedTuple):
    """keys, values: of the last W steps, newest last; zero where the trial is younger. clock: steps of the trial so far."""

    keys: Float[Tensor, "B H W d"]
    values: Float[Tensor, "B H W d"]
    clock: Int[Tensor, "B"]


class WindowAttention(Memory):
    """A mixer from width D to width D. window: W, how many steps a step attends to besides itself."""

    distance_code: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__(width, width)
        self.heads = heads
        self.window = window
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.project_distance = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, 1, 1, width // heads))
        self.distance_bias = nn.Parameter(torch.empty(heads, 1, 1, width // heads))
        self.out = nn.Linear(width, width, bias=False)
        # Farthest first, as a step sees its keys.
        self.register_buffer("distance_code", sinusoids(window + 1, width), persistent=False)
        # As in Dai et al.'s program.
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    @property
    def state_size(self) -> int:
        return 2 * self.window * self.outputs + 1

    def start(self, batch_size: int) -> WindowState:
        empty = self.content_bias.new_zeros(batch_size, self.heads, self.window, self.outputs // self.heads)
        return WindowState(empty, torch.zeros_like(empty), empty.new_zeros(batch_size, dtype=torch.int64))

    def forward(
        self, x: Float[Tensor, "B T D"], state: WindowState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], WindowState]:
        steps = x.shape[1]
        if steps == 0:
            return x, state
        before, unused = steps_before(state.clock, reset), self._unused(state.clock, steps)
        query, keys, values = self._project(x, state)
        weights = self._attend(query, keys[:, :, unused:], before)
        mixed = weights.to(values.dtype) @ self._blocks(values[:, :, unused:], steps).transpose(-1, -2)
        y: Tensor = self.out(mixed.flatten(2, 3)[:, :, :steps].transpose(1, 2).flatten(2))
        keys, values = keys[:, :, steps:], values[:, :, steps:]
        if may_be_true(reset):
            distance = torch.arange(self.window - 1, -1, -1, device=x.device)
            forgotten = (distance > before[:, -1:])[:, None, :, None]
            keys, values = keys.masked_fill(forgotten, 0.0), values.masked_fill(forgotten, 0.0)
        return y, WindowState(keys, values, before[:, -1] + 1)

    def inspect(self, x: Float[Tensor, "B T D"], state: WindowState, reset: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
        """attention: [B, T, H, W + 1], the weight that each head gives to the step 0, 1, .. W steps ago."""
        steps = x.shape[1]
        if steps == 0:
            return {"attention": x.new_zeros(len(x), 0, self.heads, self.window + 1)}
        query, keys, _ = self._project(x, state)
        weights = self._attend(query, keys, steps_before(state.clock, reset))
        # Query i's key at distance g lies at i + W - g.
        ago = torch.arange(self.window, -1, -1, device=x.device)
        place = torch.arange(weights.shape[3], device=x.device)[:, None] + ago
        by_distance = weights.gather(4, place.expand(*weights.shape[:3], -1, -1))
        return {"attention": by_distance.flatten(2, 3)[:, :, :steps].transpose(1, 2)}

    def _project(
        self, x: Float[Tensor, "B T D"], state: WindowState
    ) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B H S d"], Float[Tensor, "B H S d"]]:
        """Queries, and keys and values of the W steps before and of these: S = W + T."""
        query, key, value = self.project(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys = torch.cat([state.keys, key.to(state.keys.dtype)], 2)
        return query, keys, torch.cat([state.values, value.to(state.values.dtype)], 2)

    def _unused(self, clock: Int[Tensor, "B"], steps: int) -> int:
        """How many of the W steps before no row has lived: in one block of queries they can be left out. On a GPU asking would stall."""
        if clock.device.type != "cpu" or len(clock) == 0 or self._cut(steps)[1] > 1:
            return 0
        return max(0, self.window - int(clock.max()))

    def _attend(
        self, query: Float[Tensor, "B H T d"], keys: Float[Tensor, "B H S d"], before: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B H blocks length seen"]:
        """The weights, in blocks of at most W queries and the keys that any of them may see, so that they grow with T and not with T^2.

        With P = S - T keys before the queries, query i of a block sees key j at the distance P + i - j, if that is from 0 to W.
        """
        length, count, spare = self._cut(query.shape[2])
        query = _padded(query, spare).unflatten(2, (count, length))
        past = keys.shape[2] - before.shape[1]
        seen = self._blocks(keys, before.shape[1])
        # Farthest first; beyond W there is nothing to see.
        reaches = min(self.window, past + length - 1) + 1
        code = self.project_distance(self.distance_code[-reaches:]).unflatten(1, (self.heads, -1))
        to_content = (query + self.content_bias) @ seen
        to_distance = torch.einsum("bhnld,ghd->bhnlg", query + self.distance_bias, code)
        to_distance = F.pad(to_distance, (past + length - reaches, length)).flatten(3)
        # Row i moves length - 1 - i places to the left: read the same numbers, from there on, as rows that are one shorter.
        shorter = past + 2 * length - 1
        to_distance = to_distance[..., length - 1 :][..., : length * shorter].unflatten(3, (length, shorter))[..., : past + length]
        place = torch.arange(length, device=query.device)
        distance = place[:, None] + past - torch.arange(seen.shape[4], device=query.device)
        reach = F.pad(before, (0, spare)).clamp(max=self.window).reshape(len(before), 1, count, length, 1)
        hidden = (distance < 0) | (distance > reach)
        scores = (to_content + to_distance) / math.sqrt(query.shape[4])
        # Every step sees itself, so no row of scores is empty.
        return torch.softmax(scores.masked_fill(hidden, -math.inf), -1, dtype=keys.dtype)

    def _blocks(self, keys: Float[Tensor, "B H S d"], steps: int) -> Float[Tensor, "B H blocks d seen"]:
        """What each block of queries may see."""
        length, _, spare = self._cut(steps)
        return _padded(keys, spare).unfold(2, length + keys.shape[2] - steps, length)

    def _cut(self, steps: int) -> tuple[int, int, int]:
        """T queries in blocks: their length, their number, and how many queries the last has to spare."""
        length = min(steps, self.window)
        count = -(-steps // length)
        return length, count, count * length - steps


def _padded(x: Float[Tensor, "B H steps d"], spare: int) -> Float[Tensor, "B H more d"]:
    return F.pad(x, (0, 0, 0, spare)) if spare else x


def sinusoids(length: int, width: int) -> Float[Tensor, "length width"]:
    """Position codes of length - 1, .., 1, 0: the sines of position times 10000^(-i / width), i = 0, 2, 4, .., then the cosines."""
    position = torch.arange(length - 1, -1, -1, dtype=torch.float64)
    angle = position[:, None] * 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width].float()


def turned(x: Float[Tensor, "B N H d"], place: Int[Tensor, "B N"]) -> Float[Tensor, "B N H d"]:
    """Rotary position codes (Su et al. 2021): channels i and i + d/2 as a pair, turned by place * 10000^(-2 i / d)."""
    half = x.shape[-1] // 2
    precise = torch.promote_types(x.dtype, torch.float32)
    angle = place[..., None, None] * 10_000.0 ** (-torch.arange(half, device=x.device, dtype=precise) / half)
    cosine, sine = angle.cos(), angle.sin()
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
