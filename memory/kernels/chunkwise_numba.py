"""`memory.kernels.chunkwise` on a CPU: the recurrence as it stands, a row and head at a time, compiled by Numba.

A head's state of 64 by 64 numbers stays in a core's nearest cache, so that steps in order, which compute nothing twice, are quicker than
chunks of matrix products. The way out keeps every `CHUNK`th state; on the way back the others of a chunk are computed anew, the last chunk
first. Two or four rows of a state at a time, as sums over rows would otherwise be stored and loaded again for each.

For the way back, with S the state before step t, g and k and q of step t, r = S^T (g k), u = beta (v - r) (for the gated rule u = v),
S' = g S + k u^T and o = S'^T q; G is the gradient in S' by later steps alone, d that in what is named:

    du = G^T k + (q . k) do,    dv = beta du,    dbeta = du . (v - r),    dr = -beta du,    w = u . do
    dq = g (S do) + w k,    dk = G u + w q + g (S dr),    dg = rows of G . S + q (S do) + k (S dr),    dS = g (G + q do^T) + (g k) dr^T
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memory.kernels.compiled import compiled, require_shapes
from memory.kernels.matrices_numba import copy, dot, times, transposed_times
from memory.kernels.threads import in_threads

# Steps between two states that are kept.
CHUNK = 16
# Numbers of a state times steps, below which starting a thread costs more than it saves.
_ALONE = 1 << 20


def refused(state: Float[Tensor, "B H K V"]) -> str | None:
    """Why the kernel does not take a state like this; None if it does."""
    if state.dtype not in (torch.float32, torch.float64):
        return f"its state is {state.dtype}; want torch.float32 or torch.float64"
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
    rows, steps, heads, keys = q.shape
    values = v.shape[-1]
    require_shapes(
        k=(k, (rows, steps, heads, keys)),
        v=(v, (rows, steps, heads, values)),
        beta=(beta, (rows, steps, heads)),
        log_g=(log_g, (rows, steps, heads, 1 if log_g is not None and log_g.shape[-1] == 1 else keys)),
        state=(state, (rows, heads, keys, values)),
        reset=(reset, (rows, steps)),
    )
    # Whether an input needs a gradient is not known where functions are transformed.
    o, after, _ = _forward(q, k, v, beta, None if log_g is None else log_g.exp(), state, reset, torch.is_grad_enabled())
    return o, after


@compiled()
@no_type_check
def _write(state, g, k, u, q, o):
    """S becomes g S + k u^T; o = S^T q."""
    rows, columns = state.shape
    o[:] = 0
    for i in range(0, rows - 1, 2):
        k0, k1, q0, q1, g0, g1 = k[i], k[i + 1], q[i], q[i + 1], g[i], g[i + 1]
        s0, s1 = state[i], state[i + 1]
        for j in range(columns):
            first, second = g0 * s0[j] + k0 * u[j], g1 * s1[j] + k1 * u[j]
            s0[j], s1[j] = first, second
            o[j] += q0 * first + q1 * second
    if rows % 2:
        i = rows - 1
        for j in range(columns):
            state[i, j] = g[i] * state[i, j] + k[i] * u[j]
            o[j] += q[i] * state[i, j]


@compiled()
@no_type_check
def _advance(state, g, k, u, after):
    """S' = g S + k u^T."""
    rows, columns = state.shape
    for i in range(rows):
        gi, ki, before, then = g[i], k[i], state[i], after[i]
        for j in range(columns):
            then[j] = gi * before[j] + ki * u[j]


@compiled()
@no_type_check
def _written(delta, state, g, k, v, beta, gk, r, u):
    """For the delta rule gk = g k, r = v - S^T gk and u = beta r; for the gated one u = v, and the others are left."""
    if delta:
        for i in range(len(k)):
            gk[i] = g[i] * k[i]
        transposed_times(state, gk, r)
        for j in range(len(v)):
            r[j] = v[j] - r[j]
            u[j] = beta * r[j]
    else:
        for j in range(len(v)):
            u[j] = v[j]


@compiled()
@no_type_check
def _kept(decays, g, b, t, h, out):
    """g of one step, for each key."""
    for i in range(len(out)):
        out[i] = g[b, t, h, i if decays > 1 else 0] if decays else 1


@compiled()
@no_type_check
def _forwards(first, last, delta, decays, q, k, v, beta, g, before, reset, o, after, states):
    _, steps, heads, keys = q.shape
    values = v.shape[3]
    kept, gk = np.empty(keys, q.dtype), np.empty(keys, q.dtype)
    r, u = np.empty(values, q.dtype), np.empty(values, q.dtype)
    learns = states.shape[2] > 0
    for part in range(first, last):
        b, h = part // heads, part % heads
        state = after[b, h]
        copy(before[b, h], state)
        for t in range(steps):
            if learns and t % CHUNK == 0:
                copy(state, states[b, h, t // CHUNK])
            if reset[b, t]:
                state[:] = 0
            _kept(decays, g, b, t, h, kept)
            strength = beta[b, t, h] if delta else q[b, t, h, 0]
            _written(delta, state, kept, k[b, t, h], v[b, t, h], strength, gk, r, u)
            _write(state, kept, k[b, t, h], u, q[b, t, h], o[b, t, h])


@compiled()
@no_type_check
def _alike(state, to_state, out):
    """G . S, row by row."""
    for i in range(len(state)):
        out[i] = dot(state[i], to_state[i])


@compiled()
@no_type_check
def _to_before(g, q, gk, to_o, to_r, to_state):
    """G becomes g (G + q do^T) + (g k) dr^T."""
    rows, columns = to_state.shape
    for i in range(0, rows - 1, 2):
        g0, g1, gk0, gk1 = g[i], g[i + 1], gk[i], gk[i + 1]
        gq0, gq1 = g0 * q[i], g1 * q[i + 1]
        to_s0, to_s1 = to_state[i], to_state[i + 1]
        for j in range(columns):
            to_s0[j] = g0 * to_s0[j] + (gq0 * to_o[j] + gk0 * to_r[j])
            to_s1[j] = g1 * to_s1[j] + (gq1 * to_o[j] + gk1 * to_r[j])
    if rows % 2:
        i = rows - 1
        for j in range(columns):
            to_state[i, j] = g[i] * to_state[i, j] + (g[i] * q[i] * to_o[j] + gk[i] * to_r[j])


@compiled()
@no_type_check
def _backwards(
    first,
    last,
    delta,
    decays,
    q,
    k,
    v,
    beta,
    g,
    reset,
    states,
    grad_o,
    grad_q,
    grad_k,
    grad_v,
    grad_beta,
    grad_g,
    grad_state,
):
    _, steps, heads, keys = q.shape
    values = v.shape[3]
    befores, kept = np.empty((CHUNK + 1, keys, values), q.dtype), np.empty((CHUNK, keys), q.dtype)
    gk = np.zeros((CHUNK, keys), q.dtype)
    s_o, s_r, grad_u, grad_s = np.empty(keys, q.dtype), np.zeros(keys, q.dtype), np.empty(keys, q.dtype), np.zeros(keys, q.dtype)
    r, u = np.empty((CHUNK, values), q.dtype), np.empty((CHUNK, values), q.dtype)
    to_u, to_r = np.empty(values, q.dtype), np.empty(values, q.dtype)
    for part in range(first, last):
        b, h = part // heads, part % heads
        to_state = grad_state[b, h]
        for chunk in range(states.shape[2] - 1, -1, -1):
            start = chunk * CHUNK
            count = min(CHUNK, steps - start)
            copy(states[b, h, chunk], befores[0])
            for c in range(count):
                t = start + c
                if reset[b, t]:
                    befores[c] = 0
                _kept(decays, g, b, t, h, kept[c])
                strength = beta[b, t, h] if delta else q[b, t, h, 0]
                _written(delta, befores[c], kept[c], k[b, t, h], v[b, t, h], strength, gk[c], r[c], u[c])
                _advance(befores[c], kept[c], k[b, t, h], u[c], befores[c + 1])
            for c in range(count - 1, -1, -1):
                t = start + c
                qs, ks, to_o = q[b, t, h], k[b, t, h], grad_o[b, t, h]
                to_q, to_k, to_v = grad_q[b, t, h], grad_k[b, t, h], grad_v[b, t, h]
                matched, written = q.dtype.type(0), q.dtype.type(0)
                for i in range(keys):
                    matched += qs[i] * ks[i]
                for j in range(values):
                    written += u[c, j] * to_o[j]
                transposed_times(to_state, ks, to_u)
                strength, to_strength = beta[b, t, h] if delta else q.dtype.type(1), q.dtype.type(0)
                for j in range(values):
                    to_u[j] += matched * to_o[j]
                    to_v[j] = strength * to_u[j]
                    to_r[j] = -to_v[j]
                if delta:
                    for j in range(values):
                        to_strength += to_u[j] * r[c, j]
                    grad_beta[b, t, h] = to_strength
                else:
                    to_r[:] = 0
                times(befores[c], to_o, s_o)
                times(to_state, u[c], grad_u)
                if delta:
                    times(befores[c], to_r, s_r)
                if decays:
                    _alike(befores[c], to_state, grad_s)
                for i in range(keys):
                    g_i = kept[c, i]
                    to_q[i] = g_i * s_o[i] + ks[i] * written
                    to_k[i] = grad_u[i] + qs[i] * written + g_i * s_r[i]
                    to_g = grad_s[i] + qs[i] * s_o[i] + ks[i] * s_r[i]
                    if decays > 1:
                        grad_g[b, t, h, i] = to_g
                    elif decays:
                        grad_g[b, t, h, 0] += to_g
                _to_before(kept[c], qs, gk[c], to_o, to_r, to_state)
                if reset[b, t]:
                    to_state[:] = 0


@torch.library.custom_op(
    "coterie::chunkwise_in_order",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, Tensor? beta, Tensor? g, Tensor state, Tensor reset, bool learns) -> (Tensor, Tensor, Tensor)",
)
def _forward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor | None, g: Tensor | None, state: Tensor, reset: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """o_1..o_T, S_T and, for the way back, the states before every `CHUNK`th step, [B, H, M, K, V]."""
    results = _shapes(v, state, learns)
    _work(_forwards, q, k, v, *_or_empty(q, beta, g), (state, reset), results)
    return results


@torch.library.custom_op(
    "coterie::chunkwise_in_order_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, Tensor? beta, Tensor? g, Tensor reset, Tensor states, Tensor grad_o, Tensor grad_after)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    reset: Tensor,
    states: Tensor,
    grad_o: Tensor,
    grad_after: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients in q, k, v, beta, g and state; what was not given has an empty one."""
    beta, g = _or_empty(q, beta, g)
    grad_g = g.new_zeros(g.shape)
    results = (*(x.new_empty(x.shape) for x in (q, k, v, beta)), grad_g, grad_after.clone(memory_format=torch.contiguous_format))
    _work(_backwards, q, k, v, beta, g, (reset, states, grad_o), results)
    return results


def _or_empty(q: Tensor, beta: Tensor | None, g: Tensor | None) -> tuple[Tensor, Tensor]:
    """beta and g, of no numbers but with all axes where there is none."""
    return q.new_empty(0, 0, 0) if beta is None else beta, q.new_empty(0, 0, 0, 0) if g is None else g


def _work(
    function: Callable[..., Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    others: tuple[Tensor, ...],
    results: tuple[Tensor, ...],
) -> None:
    """Calls the function for some rows and heads on each thread."""
    arrays = (x.detach().contiguous().numpy() for x in (q, k, v, beta, g, *others, *results))
    threads = None if q.numel() * v.shape[3] > _ALONE else 1
    in_threads(function, len(q) * q.shape[2], beta.numel() > 0, g.shape[3], *arrays, threads=threads)


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor | None, g: Tensor | None, state: Tensor, reset: Tensor, learns: bool
) -> tuple[Tensor, ...]:
    return _shapes(v, state, learns)


@_backward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    reset: Tensor,
    states: Tensor,
    grad_o: Tensor,
    grad_after: Tensor,
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (q, k, v, *_or_empty(q, beta, g), grad_after))


def _shapes(v: Tensor, state: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, heads, keys, values = state.shape
    states = v.new_empty(rows, heads, -(-v.shape[1] // CHUNK) if learns else 0, keys, values)
    return v.new_empty(v.shape), v.new_empty(state.shape), states


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, beta, g, _, reset, _ = inputs
    _, _, states = output
    ctx.save_for_backward(q, k, v, beta, g, reset, states)
    ctx.mark_non_differentiable(states)
    # Zeros for the gradient in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_o: Tensor | None, grad_after: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    _, _, v, beta, g, _, states = kept = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    grad_after = v.new_zeros(*states.shape[:2], *states.shape[3:]) if grad_after is None else grad_after
    grad_q, grad_k, grad_v, *optional, grad_state = _backward(*kept, grad_o, grad_after)
    grad_beta, grad_g = (None if x is None else grad for x, grad in zip((beta, g), optional, strict=True))
    return grad_q, grad_k, grad_v, grad_beta, grad_g, grad_state, None, None


_forward.register_autograd(_gradients, setup_context=_keep)
