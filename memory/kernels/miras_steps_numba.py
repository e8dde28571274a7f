"""Miras step by step on a CPU, and back: a row and head at a time, compiled by Numba.

The weights of a head stay in a core's caches, each step's own are there when they are asked, and nothing is masked. The way out keeps the
weights before every `CHUNK`th step, P (2 + momentum) numbers per row and head; on the way back the others of a chunk are computed anew, the
last chunk first.

For the way back, in `memory.titans`' symbols: G_A and G_S are the gradients in A_t and S_t, G_C that in the weights W_c, all of them by
what comes later. Step by step the gradient goes from y_t to W_t, from W_t to A_t (where a chunk ended, W_c is W_t, and G_C goes there
too), from A_t to S_t; then

    dkeep = G_A . A_{t-1},    deta = G_S . S_{t-1},    dtheta = -G_S . grad l,    G_A becomes keep G_A,    G_S becomes eta G_S

and -theta G_S is the gradient in grad l, through which it reaches k, v and, once more through the network, W_c.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from memory.kernels.compiled import compiled
from memory.kernels.matrices_numba import add, copy
from memory.kernels.miras_choices_numba import (
    DECAY,
    LEAVES,
    LINEAR,
    TO_ENTERS,
    TO_RAW,
    load,
    recall,
    recall_back,
    retain,
    retain_back,
    store,
    surprise,
    surprise_back,
)

# Steps between two whose weights are kept.
CHUNK = 16

_F = np.float32
_0, _1 = _F(0), _F(1)


@compiled()
@no_type_check
def _move(a, s, keep, carried, rate, d, k, wide, narrow, new_a, new_s):
    """A and S after a step; without momentum there is no S."""
    for i in range(len(a)):
        left = k[i] if i < d else narrow[TO_RAW, i - d]
        right = wide[TO_ENTERS] if i < d else wide[LEAVES]
        factor = -rate * left
        row, new = a[i], new_a[i]
        if len(s):
            moved, newly = s[i], new_s[i]
            for j in range(len(row)):
                newly[j] = carried * moved[j] + factor * right[j]
            for j in range(len(row)):
                new[j] = keep * row[j] + newly[j]
        else:
            for j in range(len(row)):
                new[j] = keep * row[j] + factor * right[j]


@compiled()
@no_type_check
def _move_back(a, keep, to_a):
    """G_A, the gradient in A_t, becomes that in A_{t-1}, which is `a`; returns that in keep."""
    total = _0
    for i in range(len(a)):
        row, grad = a[i], to_a[i]
        for j in range(len(row)):
            total += grad[j] * row[j]
            grad[j] *= keep
    return total


@compiled()
@no_type_check
def _gather(s, carried, to_a, to_s):
    """G_S, which comes in as the gradient in S_{t+1}, becomes that in S_t; returns its product with S_{t-1}.

    s: S_{t-1}. carried: eta_{t+1}. to_a, to_s: G_A and G_S.
    """
    total = _0
    for i in range(len(s)):
        row, grad, more = s[i], to_s[i], to_a[i]
        for j in range(len(row)):
            grad[j] = carried * grad[j] + more[j]
            total += grad[j] * row[j]
    return total


@compiled()
@no_type_check
def forwards(
    begin, end, network, loss, retention, chunk, eps, steepness,
    q, k, v, keep, carried, rate, threshold, first, anchor, weights, momentum, phase, reset,
    y, anchor_after, weights_after, momentum_after, phase_after, kept,
):  # fmt: skip
    _, heads, steps, d = q.shape
    shape = (first.shape[1] // d, d) if network == LINEAR else (2 * d, first.shape[1] // (2 * d))
    carries = momentum.shape[2] > 0
    a, s, c = np.empty(shape, _F), np.empty(shape if carries else (0, 0), _F), np.empty(shape, _F)
    w, wc, start = np.empty(shape, _F), np.empty(shape, _F), np.empty(shape, _F)
    wide, narrow = np.empty((6, shape[1]), _F), np.empty((4, d), _F)
    for part in range(begin, end):
        row, head = part // heads, part % heads
        load(first[head], d, start)
        load(anchor[row, head], d, c)
        load(weights[row, head], d, a)
        if carries:
            load(momentum[row, head], d, s)
        retain(retention, c, d, wc)
        age = phase[row] % chunk
        for t in range(steps):
            if kept.shape[2] and t % CHUNK == 0:
                there = kept[row, head, t // CHUNK]
                copy(a, there[0])
                copy(c, there[1])
                if carries:
                    copy(s, there[2])
            if reset[row, t]:
                copy(start, a)
                copy(start, c)
                retain(retention, c, d, wc)
                s[:] = 0
                age = 0
            surprise(loss, wc, d, k[row, head, t], v[row, head, t], threshold[row, head, t], wide, narrow, eps, steepness)
            passed = carried[row, head, t] if carries else _0
            _move(a, s, keep[row, head, t], passed, rate[row, head, t], d, k[row, head, t], wide, narrow, a, s)
            age += 1
            if retention == DECAY:
                recall(a, d, q[row, head, t], y[row, head, t], wide, eps)
            else:
                retain(retention, a, d, w)
                recall(w, d, q[row, head, t], y[row, head, t], wide, eps)
            if age == chunk:
                age = 0
                copy(a, c)
                copy(a if retention == DECAY else w, wc)
        store(a, d, weights_after[row, head])
        store(c, d, anchor_after[row, head])
        if carries:
            store(s, d, momentum_after[row, head])
        if head == 0:
            phase_after[row] = age


@compiled()
@no_type_check
def backwards(
    begin, end, network, loss, retention, chunk, eps, steepness,
    q, k, v, keep, carried, rate, threshold, first, phase, reset, kept, grad_y, grad_anchor_after, grad_weights_after, grad_momentum_after,
    grad_q, grad_k, grad_v, grad_keep, grad_carried, grad_rate, grad_threshold, grad_first, grad_anchor, grad_weights, grad_momentum,
):  # fmt: skip
    _, heads, steps, d = q.shape
    shape = (first.shape[1] // d, d) if network == LINEAR else (2 * d, first.shape[1] // (2 * d))
    carries = grad_momentum.shape[2] > 0
    many = kept.shape[2]
    # After each step of a chunk, and before its first.
    a = np.empty((CHUNK + 1, *shape), _F)
    s = np.empty((CHUNK + 1, *shape) if carries else (CHUNK + 1, 0, 0), _F)
    w = np.empty((CHUNK, *shape) if retention != DECAY else (0, 1, 1), _F)
    # The anchors of a chunk, as A and as W, and which is each step's.
    anchors, anchors_w, which = np.empty((CHUNK + 1, *shape), _F), np.empty((CHUNK + 1, *shape), _F), np.empty(CHUNK, np.int64)
    ended = np.empty(CHUNK, np.bool_)
    wide, narrow, scale = np.empty((CHUNK, 6, shape[1]), _F), np.empty((CHUNK, 4, d), _F), np.empty(CHUNK, _F)
    more_wide, more_narrow = np.empty((6, shape[1]), _F), np.empty((4, d), _F)
    nothing = np.zeros(shape if carries else (0, 0), _F)
    start, start_w, to_start = np.empty(shape, _F), np.empty(shape, _F), np.empty(shape, _F)
    to_a, to_s, to_c, to_cw, to_w = np.empty(shape, _F), np.empty(shape, _F), np.empty(shape, _F), np.empty(shape, _F), np.empty(shape, _F)
    ages = np.empty(many, np.int64)
    for part in range(begin, end):
        row, head = part // heads, part % heads
        load(first[head], d, start)
        retain(retention, start, d, start_w)
        load(grad_weights_after[row, head], d, to_a)
        load(grad_anchor_after[row, head], d, to_c)
        if carries:
            load(grad_momentum_after[row, head], d, to_s)
        to_cw[:] = 0
        to_start[:] = 0
        # What the step that follows carries of S.
        later = _1
        age = phase[row] % chunk
        for t in range(steps):
            if t % CHUNK == 0:
                ages[t // CHUNK] = age
            age = (0 if reset[row, t] else age) + 1
            age = 0 if age == chunk else age
        for block in range(many - 1, -1, -1):
            offset = block * CHUNK
            count = min(CHUNK, steps - offset)
            there = kept[row, head, block]
            copy(there[0], a[0])
            copy(there[1], anchors[0])
            if carries:
                copy(there[2], s[0])
            retain(retention, anchors[0], d, anchors_w[0])
            age, current = ages[block], 0
            for i in range(count):
                t = offset + i
                before = start if reset[row, t] else a[i]
                if reset[row, t]:
                    if i > 0 and which[i - 1] == current:
                        current += 1
                    copy(start, anchors[current])
                    copy(start_w, anchors_w[current])
                    age = 0
                which[i] = current
                scale[i] = surprise(
                    loss,
                    anchors_w[current],
                    d,
                    k[row, head, t],
                    v[row, head, t],
                    threshold[row, head, t],
                    wide[i],
                    narrow[i],
                    eps,
                    steepness,
                )
                passed = carried[row, head, t] if carries else _0
                _move(
                    before, nothing if reset[row, t] else s[i], keep[row, head, t], passed, rate[row, head, t], d, k[row, head, t],
                    wide[i], narrow[i], a[i + 1], s[i + 1],
                )  # fmt: skip
                if retention != DECAY:
                    retain(retention, a[i + 1], d, w[i])
                age += 1
                ended[i] = age == chunk
                if ended[i]:
                    age = 0
                    current += 1
                    copy(a[i + 1], anchors[current])
                    copy(a[i + 1] if retention == DECAY else w[i], anchors_w[current])
            for i in range(count - 1, -1, -1):
                t = offset + i
                key = k[row, head, t]
                own = a[i + 1] if retention == DECAY else w[i]
                # Without retention W is A.
                to_own = to_a if retention == DECAY else to_w
                if retention != DECAY:
                    to_w[:] = 0
                if ended[i]:
                    add(to_a, to_c)
                    add(to_own, to_cw)
                    to_c[:] = 0
                    to_cw[:] = 0
                recall_back(own, d, q[row, head, t], grad_y[row, head, t], to_own, grad_q[row, head, t], more_wide, more_narrow, eps)
                if retention != DECAY:
                    retain_back(retention, a[i + 1], own, d, to_w, to_a)
                if carries:
                    grad_carried[row, head, t] = _gather(nothing if reset[row, t] else s[i], later, to_a, to_s)
                    later = carried[row, head, t]
                by_rate, to_threshold = surprise_back(
                    loss, anchors_w[which[i]], d, key, threshold[row, head, t], wide[i], narrow[i], scale[i], -rate[row, head, t],
                    to_s if carries else to_a, to_cw, grad_k[row, head, t], grad_v[row, head, t], more_wide, more_narrow, steepness,
                )  # fmt: skip
                grad_rate[row, head, t], grad_threshold[row, head, t] = -by_rate, to_threshold
                grad_keep[row, head, t] = _move_back(start if reset[row, t] else a[i], keep[row, head, t], to_a)
                if reset[row, t]:
                    add(to_start, to_a)
                    add(to_start, to_c)
                    retain_back(retention, start, start_w, d, to_cw, to_start)
                    to_a[:] = 0
                    to_c[:] = 0
                    to_cw[:] = 0
                    to_s[:] = 0
                    later = _0
        # What the first steps had for an anchor before any reset.
        if steps and not reset[row, 0]:
            copy(kept[row, head, 0, 1], anchors[0])
            retain(retention, anchors[0], d, anchors_w[0])
            retain_back(retention, anchors[0], anchors_w[0], d, to_cw, to_c)
        store(to_a, d, grad_weights[row, head])
        store(to_c, d, grad_anchor[row, head])
        store(to_start, d, grad_first[row, head])
        if carries:
            to_s *= later
            store(to_s, d, grad_momentum[row, head])
