"""`memory.kernels.chunkwise` in Triton: a program holds some value columns of one head's state of one row and goes through time by chunks.

Columns of the state are strangers to each other, as rows and heads are. Within a chunk everything is matrix products of small tiles. Decay
per key needs a product of g over (s, t] for each pair of steps and each key: at each of log2 C levels, the boundary in the middle of a
block splits it into a factor of the later step and one of the earlier, neither above 1, as in the plain version; but all blocks of a level
are one matrix product, and what is no pair of that level is masked. One decay per head makes a single matrix [C, C] instead.

The delta rule's triangular systems are inverted beforehand, row by row, for all chunks side by side: only they know nothing of the state.
On the way back everything but they and the chunks' first states is computed anew.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

# The widest keys; and steps per chunk, the smallest side of a matrix product: larger tiles than these do not stay in registers.
WIDEST, _CHUNK = 128, 16
# The logarithm of a reset: its exponential is zero, and the sum over a chunk of them is finite, so that 0 times it is no NaN.
_NOTHING = tl.constexpr(-1000.0)


def refused(state: Float[Tensor, "B H K V"]) -> str | None:
    """Why the kernel does not take a state like this; None if it does."""
    if state.dtype != torch.float32:
        return f"its state is {state.dtype}; want torch.float32"
    if state.shape[2] > WIDEST:
        return f"its keys are {state.shape[2]} wide; want at most {WIDEST}"
    return None


def matrix_scan(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "B T H"] | None,
    log_g: Float[Tensor, "B T H #K"] | None,
    state: Float[Tensor, "B H K V"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """As `memory.kernels.chunkwise.matrix_scan`; all of one type."""
    # Whether an input needs a gradient is not known where functions are transformed.
    o, after, _, _ = _forward(q, k, v, beta, log_g, state, reset, torch.is_grad_enabled())
    return o, after


@no_type_check
@triton.jit
def _load(side, row, head, first, steps, start, HEADS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr, COLUMNS: tl.constexpr):
    """[STEPS, COLUMNS] of a head's [B, T, H, WIDTH]: the steps from the first on, the columns from the start on, 0 where there is none."""
    t = first + tl.arange(0, STEPS)[:, None]
    d = start + tl.arange(0, COLUMNS)[None, :]
    return tl.load(side + ((row * steps + t) * HEADS + head) * WIDTH + d, (t < steps) & (d < WIDTH), 0.0)


@no_type_check
@triton.jit
def _store(
    side, values, row, head, first, steps, start, HEADS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr, COLUMNS: tl.constexpr
):
    t = first + tl.arange(0, STEPS)[:, None]
    d = start + tl.arange(0, COLUMNS)[None, :]
    tl.store(side + ((row * steps + t) * HEADS + head) * WIDTH + d, values, (t < steps) & (d < WIDTH))


@no_type_check
@triton.jit
def _load_log_g(
    log_g_in,
    reset_in,
    row,
    head,
    first,
    steps,
    HEADS: tl.constexpr,
    DECAYS: tl.constexpr,
    DECAYS_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """[CHUNK, DECAYS_BLOCK], of which DECAYS columns are given. After the last step nothing decays."""
    t = first + tl.arange(0, CHUNK)
    reset = tl.load(reset_in + row * steps + t, t < steps, 0) != 0
    if DECAYS == 0:
        log_g = tl.zeros([CHUNK, DECAYS_BLOCK], tl.float32)
    else:
        log_g = _load(log_g_in, row, head, first, steps, 0, HEADS, DECAYS, CHUNK, DECAYS_BLOCK)
    return tl.where(reset[:, None] | (log_g < _NOTHING), _NOTHING, log_g)


@no_type_check
@triton.jit
def _sums(mask, x, PRECISION: tl.constexpr):
    """x [CHUNK, DECAYS_BLOCK] summed over the steps in each row of the mask."""
    if x.shape[1] == 1:
        sums = tl.sum(tl.where(mask, tl.trans(x), 0.0), 1)[:, None]
    else:
        sums = tl.dot(tl.where(mask, 1.0, 0.0), x, input_precision=PRECISION)
    return sums


@no_type_check
@triton.jit
def _level(log_g, level, CHUNK: tl.constexpr, PRECISION: tl.constexpr):
    """Of which pairs [t, s], s < t, how much this level gives; and each step's own factor of it. Decay per head has but one level.

    A pair of level l stands in two neighbouring blocks of 2^l steps. The later step's factor is the product of g from the boundary to it,
    the earlier's from after it to the boundary: as no step is both in pairs of the same level, one product serves for all.
    """
    t = tl.arange(0, CHUNK)[:, None]
    s = tl.arange(0, CHUNK)[None, :]
    if log_g.shape[1] == 1:
        # Sums over (s, t]: the mask takes the steps up to t, the other side those after s.
        after = tl.where(t > s, log_g, 0.0)
        share = tl.where(s < t, tl.exp(tl.dot(tl.where(s <= t, 1.0, 0.0), after, input_precision=PRECISION)), 0.0)
        factor = tl.full([CHUNK, 1], 1.0, tl.float32)
    else:
        late = ((t >> level) & 1) == 1
        within = (t >> level) == (s >> level)
        factor = tl.exp(_sums(within & ((late & (s <= t)) | (~late & (s > t))), log_g, PRECISION))
        pair = late & (((s >> level) & 1) == 0) & ((t >> (level + 1)) == (s >> (level + 1)))
        share = tl.where(pair, 1.0, 0.0)
    return share, factor


@no_type_check
@triton.jit
def _scores_before(q, k, log_g, levels, CHUNK: tl.constexpr, PRECISION: tl.constexpr):
    """[t, s]: q_t . (k_s * product of g over (s, t]) where s < t, else 0."""
    scores = tl.zeros([CHUNK, CHUNK], tl.float32)
    for level in range(levels):
        share, factor = _level(log_g, level, CHUNK, PRECISION)
        scores += share * tl.dot(q * factor, tl.trans(k * factor), input_precision=PRECISION)
    return scores


@no_type_check
@triton.jit
def _scores(q, k, log_g, levels, CHUNK: tl.constexpr, PRECISION: tl.constexpr):
    """As `_scores_before`, but s <= t."""
    diagonal = tl.arange(0, CHUNK)[:, None] == tl.arange(0, CHUNK)[None, :]
    return tl.where(diagonal, tl.sum(q * k, 1)[:, None], _scores_before(q, k, log_g, levels, CHUNK, PRECISION))


@no_type_check
@triton.jit
def _decays(log_g, CHUNK: tl.constexpr, PRECISION: tl.constexpr):
    """Products of g from the chunk's first step to each, from after each to its last, and over all of it."""
    t = tl.arange(0, CHUNK)[:, None]
    s = tl.arange(0, CHUNK)[None, :]
    since_first = tl.exp(_sums(s <= t, log_g, PRECISION))
    to_last = tl.exp(_sums(s > t, log_g, PRECISION))
    return since_first, to_last, tl.exp(tl.sum(log_g, 0))[:, None]


@no_type_check
@triton.jit(do_not_specialize=["levels"])
def _inverse_kernel(
    k_in,
    beta_in,
    log_g_in,
    reset_in,
    inverses_out,
    steps,
    chunks,
    levels,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    DECAYS: tl.constexpr,
    KEYS_BLOCK: tl.constexpr,
    DECAYS_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(I + A)^-1 of a chunk, where A[t, s] = beta_t k_t . (k_s * product of g over (s, t]) below the diagonal.

    Row by row, since A's powers, whose sum it is too, can be a thousand times as large as it.
    """
    one = tl.program_id(0).to(tl.int64)
    row, head = one // HEADS, one % HEADS
    first = tl.program_id(1) * CHUNK
    k = _load(k_in, row, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
    beta = _load(beta_in, row, head, first, steps, 0, HEADS, 1, CHUNK, 1)
    log_g = _load_log_g(log_g_in, reset_in, row, head, first, steps, HEADS, DECAYS, DECAYS_BLOCK, CHUNK)
    # Columns are rows of A: [s, t].
    overlap = tl.trans(beta * _scores_before(k, k, log_g, levels, CHUNK, PRECISION))
    t = tl.arange(0, CHUNK)[:, None]
    s = tl.arange(0, CHUNK)[None, :]
    inverse = tl.where(t == s, 1.0, 0.0)
    for i in range(1, CHUNK):
        taken = tl.sum(tl.where(s == i, overlap, 0.0), 1)[:, None]
        inverse -= tl.where(t == i, tl.sum(taken * inverse, 0)[None, :], 0.0)
    tl.store(inverses_out + (one * chunks + tl.program_id(1)) * (CHUNK * CHUNK) + t * CHUNK + s, inverse)


@no_type_check
@triton.jit(do_not_specialize=["levels"])
def _forward_kernel(
    q_in,
    k_in,
    v_in,
    beta_in,
    log_g_in,
    state_in,
    reset_in,
    inverses_in,
    o_out,
    after_out,
    states_out,
    steps,
    chunks,
    levels,
    LEARNS: tl.constexpr,
    DELTA: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    DECAYS: tl.constexpr,
    KEYS_BLOCK: tl.constexpr,
    VALUES_BLOCK: tl.constexpr,
    DECAYS_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    one = tl.program_id(0).to(tl.int64)
    row, head = one // HEADS, one % HEADS
    start = tl.program_id(1) * VALUES_BLOCK
    key = tl.arange(0, KEYS_BLOCK)[:, None]
    value = start + tl.arange(0, VALUES_BLOCK)[None, :]
    place, inside = key * VALUES + value, (key < KEYS) & (value < VALUES)
    t = tl.arange(0, CHUNK)[:, None]
    s = tl.arange(0, CHUNK)[None, :]
    state = tl.load(state_in + one * (KEYS * VALUES) + place, inside, 0.0)
    for chunk in range(chunks):
        first = chunk * CHUNK
        if LEARNS:
            tl.store(states_out + (one * chunks + chunk) * (KEYS * VALUES) + place, state, inside)
        q = _load(q_in, row, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
        k = _load(k_in, row, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
        written = _load(v_in, row, head, first, steps, start, HEADS, VALUES, CHUNK, VALUES_BLOCK)
        log_g = _load_log_g(log_g_in, reset_in, row, head, first, steps, HEADS, DECAYS, DECAYS_BLOCK, CHUNK)
        since_first, to_last, decay = _decays(log_g, CHUNK, PRECISION)
        if DELTA:
            beta = _load(beta_in, row, head, first, steps, 0, HEADS, 1, CHUNK, 1)
            inverse = tl.load(inverses_in + (one * chunks + chunk) * (CHUNK * CHUNK) + t * CHUNK + s)
            missing = written - tl.dot(k * since_first, state, input_precision=PRECISION)
            written = tl.dot(inverse, beta * missing, input_precision=PRECISION)
        within = _scores(q, k, log_g, levels, CHUNK, PRECISION)
        o = tl.dot(q * since_first, state, input_precision=PRECISION)
        o = tl.dot(within, written, o, input_precision=PRECISION)
        _store(o_out, o, row, head, first, steps, start, HEADS, VALUES, CHUNK, VALUES_BLOCK)
        state = tl.dot(tl.trans(k * to_last), written, decay * state, input_precision=PRECISION)
    tl.store(after_out + one * (KEYS * VALUES) + place, state, inside)


@no_type_check
@triton.jit(do_not_specialize=["levels"])
def _backward_kernel(
    q_in,
    k_in,
    v_in,
    beta_in,
    log_g_in,
    reset_in,
    states_in,
    inverses_in,
    grad_o_in,
    grad_after_in,
    grad_q_out,
    grad_k_out,
    grad_v_out,
    grad_beta_out,
    grad_log_g_out,
    grad_state_out,
    steps,
    chunks,
    levels,
    rows,
    DELTA: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    DECAYS: tl.constexpr,
    KEYS_BLOCK: tl.constexpr,
    VALUES_BLOCK: tl.constexpr,
    DECAYS_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A program's gradients in q, k, beta and log g are those by way of its columns: [blocks, B, T, H, .], to be summed over blocks.

    The gradient in log g_u is the sum, over all that step u decays, of the number decayed times the gradient in it. Over pairs s < t in the
    chunk, which decay by (s, t], that is per key sum_{t >= u} q_t d q_t - sum_{s >= u} k_s d k_s.
    """
    one = tl.program_id(0).to(tl.int64)
    row, head = one // HEADS, one % HEADS
    start = tl.program_id(1) * VALUES_BLOCK
    # The row in outputs that have one for each block of columns.
    row_out = tl.program_id(1) * rows + row
    key = tl.arange(0, KEYS_BLOCK)[:, None]
    value = start + tl.arange(0, VALUES_BLOCK)[None, :]
    place, inside = key * VALUES + value, (key < KEYS) & (value < VALUES)
    t = tl.arange(0, CHUNK)[:, None]
    s = tl.arange(0, CHUNK)[None, :]
    to_state = tl.load(grad_after_in + one * (KEYS * VALUES) + place, inside, 0.0)
    for back in range(chunks):
        chunk = chunks - 1 - back
        first = chunk * CHUNK
        q = _load(q_in, row, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
        k = _load(k_in, row, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
        written = _load(v_in, row, head, first, steps, start, HEADS, VALUES, CHUNK, VALUES_BLOCK)
        log_g = _load_log_g(log_g_in, reset_in, row, head, first, steps, HEADS, DECAYS, DECAYS_BLOCK, CHUNK)
        state = tl.load(states_in + (one * chunks + chunk) * (KEYS * VALUES) + place, inside, 0.0)
        since_first, to_last, decay = _decays(log_g, CHUNK, PRECISION)
        if DELTA:
            beta = _load(beta_in, row, head, first, steps, 0, HEADS, 1, CHUNK, 1)
            inverse = tl.load(inverses_in + (one * chunks + chunk) * (CHUNK * CHUNK) + t * CHUNK + s)
            missing = written - tl.dot(k * since_first, state, input_precision=PRECISION)
            written = tl.dot(inverse, beta * missing, input_precision=PRECISION)
        to_o = _load(grad_o_in, row, head, first, steps, start, HEADS, VALUES, CHUNK, VALUES_BLOCK)
        within = _scores(q, k, log_g, levels, CHUNK, PRECISION)
        to_written = tl.dot(tl.trans(within), to_o, input_precision=PRECISION)
        to_written = tl.dot(k * to_last, to_state, to_written, input_precision=PRECISION)
        to_within = tl.dot(to_o, tl.trans(written), input_precision=PRECISION)

        # By way of the states before and after the chunk.
        to_q = since_first * tl.dot(to_o, tl.trans(state), input_precision=PRECISION)
        to_k = to_last * tl.dot(written, tl.trans(to_state), input_precision=PRECISION)
        decayed_until = q * to_q
        decayed_from = k * to_k
        decayed_throughout = tl.sum(decay * state * to_state, 1)[None, :]
        to_state = tl.dot(tl.trans(q * since_first), to_o, decay * to_state, input_precision=PRECISION)
        if DELTA:
            to_written = tl.dot(tl.trans(inverse), to_written, input_precision=PRECISION)
            to_beta = tl.sum(to_written * missing, 1)[:, None]
            # In A, but for beta.
            to_overlap = -tl.dot(to_written, tl.trans(written), input_precision=PRECISION)
            to_written = beta * to_written
            to_key = -since_first * tl.dot(to_written, tl.trans(state), input_precision=PRECISION)
            decayed_until += k * to_key
            to_k += to_key
            to_state -= tl.dot(tl.trans(k * since_first), to_written, input_precision=PRECISION)
        _store(grad_v_out, to_written, row, head, first, steps, start, HEADS, VALUES, CHUNK, VALUES_BLOCK)

        # By way of the scores: each step's with itself, which nothing decays, and each pair's.
        itself = tl.sum(tl.where(t == s, to_within, 0.0), 1)[:, None]
        to_q += itself * k
        to_k += itself * q
        for level in range(levels):
            share, factor = _level(log_g, level, CHUNK, PRECISION)
            far, near = factor * q, factor * k
            to_pairs = share * to_within
            to_far = tl.dot(to_pairs, near, input_precision=PRECISION)
            to_near = tl.dot(tl.trans(to_pairs), far, input_precision=PRECISION)
            to_q += factor * to_far
            decayed_until += far * to_far
            if DELTA:
                to_pairs = share * to_overlap
                to_far = tl.dot(to_pairs, near, input_precision=PRECISION)
                to_near = tl.dot(tl.trans(beta * to_pairs), near, to_near, input_precision=PRECISION)
                to_beta += tl.sum(near * to_far, 1)[:, None]
                to_k += beta * factor * to_far
                decayed_until += beta * near * to_far
            to_k += factor * to_near
            decayed_until -= near * to_near
        _store(grad_q_out, to_q, row_out, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
        _store(grad_k_out, to_k, row_out, head, first, steps, 0, HEADS, KEYS, CHUNK, KEYS_BLOCK)
        if DELTA:
            _store(grad_beta_out, to_beta, row_out, head, first, steps, 0, HEADS, 1, CHUNK, 1)
        if DECAYS > 0:
            if DECAYS == 1:
                decayed_until = tl.sum(decayed_until, 1)[:, None]
                decayed_from = tl.sum(decayed_from, 1)[:, None]
                decayed_throughout = tl.sum(decayed_throughout, 1)[:, None]
            to_log_g = _sums(s >= t, decayed_until, PRECISION) + _sums(s < t, decayed_from, PRECISION) + decayed_throughout
            to_log_g = tl.where(log_g > _NOTHING, to_log_g, 0.0)
            _store(grad_log_g_out, to_log_g, row_out, head, first, steps, 0, HEADS, DECAYS, CHUNK, DECAYS_BLOCK)
    tl.store(grad_state_out + one * (KEYS * VALUES) + place, to_state, inside)


@no_type_check
@triton.jit
def _step_kernel(
    q_in,
    k_in,
    v_in,
    beta_in,
    log_g_in,
    state_in,
    reset_in,
    o_out,
    after_out,
    DELTA: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    DECAYS: tl.constexpr,
    KEYS_BLOCK: tl.constexpr,
    VALUES_BLOCK: tl.constexpr,
):
    """The recurrence as it stands, for a single step."""
    one = tl.program_id(0).to(tl.int64)
    key = tl.arange(0, KEYS_BLOCK)[:, None]
    value = tl.program_id(1) * VALUES_BLOCK + tl.arange(0, VALUES_BLOCK)[None, :]
    place, inside = one * (KEYS * VALUES) + key * VALUES + value, (key < KEYS) & (value < VALUES)
    state = tl.load(state_in + place, inside, 0.0)
    k = tl.load(k_in + one * KEYS + key, key < KEYS, 0.0)
    written = tl.load(v_in + one * VALUES + value, value < VALUES, 0.0)
    if DECAYS == 1:
        state *= tl.exp(tl.load(log_g_in + one))
    elif DECAYS > 1:
        state *= tl.exp(tl.load(log_g_in + one * KEYS + key, key < KEYS, 0.0))
    state = tl.where(tl.load(reset_in + one // HEADS) != 0, 0.0, state)
    if DELTA:
        written = tl.load(beta_in + one) * (written - tl.sum(k * state, 0)[None, :])
    state += k * written
    o = tl.sum(tl.load(q_in + one * KEYS + key, key < KEYS, 0.0) * state, 0)[None, :]
    tl.store(o_out + one * VALUES + value, o, value < VALUES)
    tl.store(after_out + place, state, inside)


@torch.library.custom_op(
    "coterie::chunkwise",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? beta, Tensor? log_g, Tensor state, Tensor reset, bool learns)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor | None, log_g: Tensor | None, state: Tensor, reset: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """o_1..o_T, S_T and, for the way back, each chunk's first state [B, H, M, K, V] and the delta rule's inverses [B, H, M, C, C]."""
    o, after, states, inverses = _shapes(v, beta, state, learns)
    if after.numel() == 0:
        return o, after, states, inverses
    settings = _settings(log_g, state)
    inputs = [x if x is None else x.contiguous() for x in (q, k, v, beta, log_g, state, reset)]
    if v.shape[1] == 1 and not learns:
        settings = {name: settings[name] for name in _STEP}
        _step_kernel[_grid(state, settings)](*inputs, o, after, DELTA=beta is not None, **settings)
        return o, after, states, inverses
    loops = _loops(v, settings)
    if inverses.numel():
        keys = inputs[1], inputs[3], inputs[4], inputs[6]
        without_values = {name: value for name, value in settings.items() if name not in ("VALUES", "VALUES_BLOCK")}
        _inverse_kernel[(state.shape[0] * state.shape[1], loops[1])](*keys, inverses, *loops, **without_values)
    sides = *inputs, inverses, o, after, states
    _forward_kernel[_grid(state, settings)](*sides, *loops, LEARNS=learns, DELTA=beta is not None, **settings)
    return o, after, states, inverses


@torch.library.custom_op(
    "coterie::chunkwise_backward",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? beta, Tensor? log_g, Tensor reset, Tensor states, Tensor inverses, Tensor grad_o,"
    " Tensor grad_after) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    log_g: Tensor | None,
    reset: Tensor,
    states: Tensor,
    inverses: Tensor,
    grad_o: Tensor,
    grad_after: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients in q, k, v, beta, log_g and state; what was not given has an empty one."""
    if grad_after.numel() == 0:
        nothing = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        return *nothing, *(k.new_zeros(0 if x is None else x.shape) for x in (beta, log_g)), grad_after.clone()
    settings = _settings(log_g, grad_after)
    grid = _grid(grad_after, settings)
    in_blocks = [k.new_empty(grid[1], *(() if x is None else x.shape)) for x in (q, k, beta, log_g)]
    grad_v, grad_state = v.new_empty(v.shape), k.new_empty(grad_after.shape)
    inputs = (x if x is None else x.contiguous() for x in (q, k, v, beta, log_g, reset, states, inverses, grad_o, grad_after))
    outputs = *in_blocks[:2], grad_v, *in_blocks[2:], grad_state
    _backward_kernel[grid](*inputs, *outputs, *_loops(v, settings), v.shape[0], DELTA=beta is not None, **settings)
    grad_q, grad_k, grad_beta, grad_log_g = (x[0] if len(x) == 1 else x.sum(0) for x in in_blocks)
    return grad_q, grad_k, grad_v, grad_beta, grad_log_g, grad_state


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor | None, log_g: Tensor | None, state: Tensor, reset: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _shapes(v, beta, state, learns)


@_backward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    log_g: Tensor | None,
    reset: Tensor,
    states: Tensor,
    inverses: Tensor,
    grad_o: Tensor,
    grad_after: Tensor,
) -> tuple[Tensor, ...]:
    return tuple(k.new_empty(0 if x is None else x.shape) for x in (q, k, v, beta, log_g, grad_after))


def _shapes(v: Tensor, beta: Tensor | None, state: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, heads, keys, values = state.shape
    chunks = (v.shape[1] + _CHUNK - 1) // _CHUNK
    states = v.new_empty(rows, heads, chunks if learns else 0, keys, values)
    return v.new_empty(v.shape), v.new_empty(state.shape), states, v.new_empty(rows, heads, 0 if beta is None else chunks, _CHUNK, _CHUNK)


# The constants that a single step has.
_STEP = ("HEADS", "KEYS", "VALUES", "DECAYS", "KEYS_BLOCK", "VALUES_BLOCK", "num_warps")


def _settings(log_g: Tensor | None, state: Tensor) -> dict[str, Any]:
    """The kernels' constants, among them the largest part of the state that leaves a program registers for its chunk."""
    _, heads, keys, values = state.shape
    decays = 0 if log_g is None else log_g.shape[3]
    keys_block = max(16, triton.next_power_of_2(keys))
    values_block = min(64 if keys_block <= 64 else 32, max(16, triton.next_power_of_2(values)))
    return {
        "HEADS": heads,
        "KEYS": keys,
        "VALUES": values,
        "DECAYS": decays,
        "KEYS_BLOCK": keys_block,
        "VALUES_BLOCK": values_block,
        "DECAYS_BLOCK": keys_block if decays > 1 else 1,
        "CHUNK": _CHUNK,
        # The delta rule's systems pass errors on; and for tiles this small tensor cores would be no faster.
        "PRECISION": "ieee",
        "num_warps": 4 if keys_block * values_block <= 1024 else 8,
    }


def _loops(v: Tensor, settings: dict[str, Any]) -> tuple[int, int, int]:
    """Steps, chunks and levels, which no kernel may take for a constant 1: without the loop a chunk is one block of code, of which the
    compiler has all loads under way at once, more than there are registers."""
    return v.shape[1], triton.cdiv(v.shape[1], _CHUNK), _CHUNK.bit_length() - 1 if settings["DECAYS"] > 1 else 1


def _grid(state: Tensor, settings: dict[str, Any]) -> tuple[int, int]:
    """A program for each row, head and block of columns."""
    return state.shape[0] * state.shape[1], triton.cdiv(state.shape[3], settings["VALUES_BLOCK"])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, beta, log_g, _, reset, _ = inputs
    _, _, states, inverses = output
    ctx.save_for_backward(q, k, v, beta, log_g, reset, states, inverses)
    ctx.mark_non_differentiable(states, inverses)
    # Zeros for the gradients in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_o: Tensor | None, grad_after: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    _, _, v, beta, log_g, _, states, _ = kept = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    grad_after = v.new_zeros(*states.shape[:2], *states.shape[3:]) if grad_after is None else grad_after
    grad_q, grad_k, grad_v, *optional, grad_state = _backward(*kept, grad_o, grad_after)
    grad_beta, grad_log_g = (None if x is None else grad for x, grad in zip((beta, log_g), optional, strict=True))
    return grad_q, grad_k, grad_v, grad_beta, grad_log_g, grad_state, None, None


_forward.register_autograd(_gradients, setup_context=_keep)
