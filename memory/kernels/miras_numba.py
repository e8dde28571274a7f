"""What `memory.titans` learns and recalls, on a CPU: a row and head at a time, one step after another, compiled by Numba.

The weights of a head stay in a core's caches, each step's own are there when they are asked, and nothing is masked. They lie as [d, hidden]
twice, W_1 transposed above W_2, or as one matrix [d, d], transposed, so that vectors go along hidden units. The way out keeps the weights
before every `CHUNK`th step, P (2 + momentum) numbers per row and head; on the way back the others of a chunk are computed anew, the last
chunk first.

For the way back, in `memory.titans`' symbols: G_A and G_S are the gradients in A_t and S_t, G_C that in the weights W_c, all of them by
what comes later. Step by step the gradient goes from y_t to W_t, from W_t to A_t (where a chunk ended, W_c is W_t, and G_C goes there
too), from A_t to S_t; then

    dkeep = G_A . A_{t-1},    deta = G_S . S_{t-1},    dtheta = -G_S . grad l,    G_A becomes keep G_A,    G_S becomes eta G_S

and -theta G_S is the gradient in grad l, through which it reaches k, v and, once more through the network, W_c.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numba import njit
from torch import Tensor

from memory.kernels.choice import require_shapes
from memory.kernels.exponential_numba import exp
from memory.kernels.threads import in_threads

# Steps between two whose weights are kept.
CHUNK = 16
# Numbers of a state times steps, below which starting a thread costs more than it saves.
_ALONE = 1 << 17

LINEAR, MLP = range(2)
SQUARED, POWER, HUBER = range(3)
DECAY, NORM, SOFTMAX = range(3)

# Sums may be reordered, for vectors; infinities and what is not a number stay what they are.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})

_F = np.float32
_0, _1, _2, _HALF = _F(0), _F(1), _F(2), _F(0.5)
# The normal distribution's integral to 1e-7 (Abramowitz and Stegun, 7.1.26), and its greatest density.
_P = _F(0.3275911 * 2**-0.5)
_A1, _A2, _A3, _A4, _A5 = _F(0.254829592), _F(-0.284496736), _F(1.421413741), _F(-1.453152027), _F(1.061405429)
_DENSITY = _F((2 * np.pi) ** -0.5)
# The square of where there is nothing left of either.
_FAR = _F(170)

# What a step leaves behind. Of each hidden unit: what enters it (in a linear network the error), what leaves it, the first two derivatives
# of that by what enters, and the inner loss's gradients in both. Of each number recalled: as normalised, the error, and the gradients in it
# and in what was not normalised.
_ENTERS, _LEAVES, _FIRST, _SECOND, _TO_LEAVES, _TO_ENTERS = range(6)
_NORMAL, _ERROR, _SLOPE, _TO_RAW = range(4)


def refused(weights: Float[Tensor, "B H P"]) -> str | None:
    """Why the kernel does not take weights like these; None if it does."""
    if weights.dtype != torch.float32:
        return f"its state is {weights.dtype}; want torch.float32"
    return None


def learn(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T d"],
    keep: Float[Tensor, "B H T"],
    carried: Float[Tensor, "B H T"] | None,
    rate: Float[Tensor, "B H T"],
    threshold: Float[Tensor, "B H T"],
    first: Float[Tensor, "H P"],
    anchor: Float[Tensor, "B H P"],
    weights: Float[Tensor, "B H P"],
    momentum: Float[Tensor, "B H P"] | None,
    phase: Int[Tensor, "B"],
    reset: Bool[Tensor, "B T"],
    kind: tuple[int, int, int],
    chunk_length: int,
    constants: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """What is recalled [B, H, T, d]; anchor, weights, momentum and phase after. All numbers of one type.

    keep, carried, rate: 1 - alpha, eta (None without momentum) and theta. kind: network, loss and retention, by the numbers above.
    constants: of LayerNorm's denominator, and the smoothed sign's steepness.
    Differentiable once, by going back.
    """
    rows, heads, steps, d = q.shape
    numbers = first.shape[1]
    if kind[0] != LINEAR and numbers % (2 * d):
        raise ValueError(f"first is {list(first.shape)}; want a multiple of {2 * d} per head")
    if (carried is None) != (momentum is None):
        raise ValueError(
            f"momentum is {momentum if momentum is None else list(momentum.shape)}; want {'some' if carried is not None else None}"
        )
    require_shapes(
        k=(k, (rows, heads, steps, d)),
        v=(v, (rows, heads, steps, d)),
        keep=(keep, (rows, heads, steps)),
        carried=(carried, (rows, heads, steps)),
        rate=(rate, (rows, heads, steps)),
        threshold=(threshold, (rows, heads, steps)),
        first=(first, (heads, d * d if kind[0] == LINEAR else numbers)),
        anchor=(anchor, (rows, heads, numbers)),
        weights=(weights, (rows, heads, numbers)),
        momentum=(momentum, (rows, heads, numbers)),
        phase=(phase, (rows,)),
        reset=(reset, (rows, steps)),
    )
    # Whether an input needs a gradient is not known where functions are transformed.
    y, *after, _ = _forward(
        q, k, v, keep, carried, rate, threshold, first, anchor, weights, momentum, phase, reset, *kind, chunk_length, *constants,
        torch.is_grad_enabled(),
    )  # fmt: skip
    return y, after[0], after[1], None if momentum is None else after[2], after[3]


@_compiled
@no_type_check
def _across(matrix, x, out):
    """out = matrix^T x."""
    rows = len(x)
    whole = rows - rows % 4
    out[:] = 0
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        m0, m1, m2, m3 = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
        for j in range(len(out)):
            out[j] += (x0 * m0[j] + x1 * m1[j]) + (x2 * m2[j] + x3 * m3[j])
    for i in range(whole, rows):
        x0, m0 = x[i], matrix[i]
        for j in range(len(out)):
            out[j] += x0 * m0[j]


@_compiled
@no_type_check
def _along(matrix, x, out):
    """out = matrix x."""
    for i in range(len(out)):
        row, total = matrix[i], _0
        for j in range(len(x)):
            total += row[j] * x[j]
        out[i] = total


@_compiled
@no_type_check
def _add_outer(matrix, left, right):
    """matrix += left right^T."""
    for i in range(len(left)):
        row, factor = matrix[i], left[i]
        for j in range(len(right)):
            row[j] += factor * right[j]


@_compiled
@no_type_check
def _dot(a, b):
    total = _0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_compiled
@no_type_check
def _add(matrix, more):
    for i in range(len(matrix)):
        row, other = matrix[i], more[i]
        for j in range(len(row)):
            row[j] += other[j]


@_compiled
@no_type_check
def _scale(matrix, factor):
    for i in range(len(matrix)):
        row = matrix[i]
        for j in range(len(row)):
            row[j] *= factor


@_compiled
@no_type_check
def _copy(matrix, out):
    for i in range(len(matrix)):
        row, other = matrix[i], out[i]
        for j in range(len(row)):
            other[j] = row[j]


@_compiled
@no_type_check
def _load(flat, d, out):
    """A head's weights as they lie outside, into the order of here."""
    wide = out.shape[1]
    for i in range(d):
        for j in range(wide):
            out[i, j] = flat[j * d + i]
    for i in range(d, len(out)):
        for j in range(wide):
            out[i, j] = flat[i * wide + j]


@_compiled
@no_type_check
def _store(matrix, d, flat):
    wide = matrix.shape[1]
    for i in range(d):
        for j in range(wide):
            flat[j * d + i] = matrix[i, j]
    for i in range(d, len(matrix)):
        for j in range(wide):
            flat[i * wide + j] = matrix[i, j]


@_compiled
@no_type_check
def _gelu(x, leaves, first, second):
    """Its values and first two derivatives."""
    for j in range(len(x)):
        square = min(x[j] * x[j], _FAR)
        bell = exp(-_HALF * square)
        t = _1 / (_1 + _P * abs(x[j]))
        tail = _HALF * bell * (t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * _A5)))))
        below = tail if x[j] < 0 else _1 - tail
        density = _DENSITY * bell
        leaves[j] = x[j] * below
        first[j] = below + x[j] * density
        second[j] = density * (_2 - square)


@_compiled
@no_type_check
def _sign(x, steepness):
    """tanh(steepness x)."""
    fallen = exp(-_2 * steepness * abs(x))
    size = (_1 - fallen) / (_1 + fallen)
    return -size if x < 0 else size


@_compiled
@no_type_check
def _normalise(x, eps):
    """To mean 0 and, but for `eps`, variance 1; what it was divided by, inverted."""
    d = _F(len(x))
    mean, square = _0, _0
    for i in range(len(x)):
        mean += x[i]
    mean /= d
    for i in range(len(x)):
        x[i] -= mean
        square += x[i] * x[i]
    scale = _1 / np.sqrt(square / d + eps)
    for i in range(len(x)):
        x[i] *= scale
    return scale


@_compiled
@no_type_check
def _normalise_back(normal, scale, to_normal, out):
    """The gradient in what was normalised: scale (g - mean g - normal mean(g normal))."""
    d = _F(len(normal))
    mean, along = _0, _0
    for i in range(len(normal)):
        mean += to_normal[i]
        along += to_normal[i] * normal[i]
    mean, along = mean / d, along / d
    for i in range(len(normal)):
        out[i] = scale * (to_normal[i] - mean - normal[i] * along)


@_compiled
@no_type_check
def _slope(loss, error, threshold, steepness, out):
    """The loss's gradient in what is recalled."""
    squared = loss == SQUARED
    if loss == HUBER:
        squared = _dot(error, error) <= threshold * threshold
    for i in range(len(error)):
        e = error[i]
        if squared:
            out[i] = e
        else:
            out[i] = _sign(e, steepness) * (e * e if loss == POWER else threshold)


@_compiled
@no_type_check
def _slope_back(loss, error, threshold, steepness, grad):
    """`grad` in the slope becomes that in the error; returns that in the threshold."""
    if loss == SQUARED or (loss == HUBER and _dot(error, error) <= threshold * threshold):
        return _0
    total = _0
    for i in range(len(error)):
        e, sign = error[i], _sign(error[i], steepness)
        rise = steepness * (_1 - sign * sign)
        if loss == POWER:
            grad[i] *= rise * e * e + _2 * e * sign
        else:
            total += grad[i] * sign
            grad[i] *= threshold * rise
    return total


@_compiled
@no_type_check
def _retain(kind, a, d, out):
    """W of A."""
    if kind == DECAY:
        _copy(a, out)
    elif kind == NORM:
        for begin in range(0, len(a), d):
            total = _0
            for i in range(begin, begin + d):
                for j in range(a.shape[1]):
                    square = a[i, j] * a[i, j]
                    total += square * square
            scale = _1 / np.sqrt(_1 + total)
            for i in range(begin, begin + d):
                for j in range(a.shape[1]):
                    out[i, j] = scale * a[i, j]
    else:
        # W_1's rows are columns here.
        for j in range(a.shape[1]):
            most = a[0, j]
            for i in range(1, d):
                most = max(most, a[i, j])
            total = _0
            for i in range(d):
                out[i, j] = exp(a[i, j] - most)
                total += out[i, j]
            scale = np.sqrt(_F(d)) / total
            for i in range(d):
                out[i, j] *= scale
        for i in range(d, len(a)):
            most = a[i, 0]
            for j in range(1, a.shape[1]):
                most = max(most, a[i, j])
            total = _0
            for j in range(a.shape[1]):
                out[i, j] = exp(a[i, j] - most)
                total += out[i, j]
            scale = np.sqrt(_F(a.shape[1])) / total
            for j in range(a.shape[1]):
                out[i, j] *= scale


@_compiled
@no_type_check
def _retain_back(kind, a, w, d, to_w, to_a):
    """Adds to `to_a`."""
    if kind == DECAY:
        _add(to_a, to_w)
    elif kind == NORM:
        for begin in range(0, len(a), d):
            total, along = _0, _0
            for i in range(begin, begin + d):
                for j in range(a.shape[1]):
                    square = a[i, j] * a[i, j]
                    total += square * square
                    along += to_w[i, j] * a[i, j]
            scale = _1 / np.sqrt(_1 + total)
            along *= _2 * scale * scale * scale
            for i in range(begin, begin + d):
                for j in range(a.shape[1]):
                    to_a[i, j] += scale * to_w[i, j] - along * a[i, j] * a[i, j] * a[i, j]
    else:
        for j in range(a.shape[1]):
            along = _0
            for i in range(d):
                along += to_w[i, j] * w[i, j]
            along /= np.sqrt(_F(d))
            for i in range(d):
                to_a[i, j] += w[i, j] * (to_w[i, j] - along)
        for i in range(d, len(a)):
            along = _dot(to_w[i], w[i]) / np.sqrt(_F(a.shape[1]))
            for j in range(a.shape[1]):
                to_a[i, j] += w[i, j] * (to_w[i, j] - along)


@_compiled
@no_type_check
def _recall(w, d, q, y, wide, eps):
    """y = M(q). Leaves in `wide` what enters and leaves hidden units and its derivatives, and returns LayerNorm's scale."""
    if len(w) == d:
        _across(w, q, y)
        return _1
    _across(w[:d], q, wide[_ENTERS])
    _gelu(wide[_ENTERS], wide[_LEAVES], wide[_FIRST], wide[_SECOND])
    _along(w[d:], wide[_LEAVES], y)
    scale = _normalise(y, eps)
    for i in range(d):
        y[i] += q[i]
    return scale


@_compiled
@no_type_check
def _recall_back(w, d, q, to_y, to_w, to_q, wide, narrow, eps):
    """Adds to `to_w`; puts into `to_q`."""
    if len(w) == d:
        _add_outer(to_w, q, to_y)
        _along(w, to_y, to_q)
        return
    normal, to_raw, to_enters = narrow[_NORMAL], narrow[_TO_RAW], wide[_TO_ENTERS]
    scale = _recall(w, d, q, normal, wide, eps)
    for i in range(d):
        normal[i] -= q[i]
    _normalise_back(normal, scale, to_y, to_raw)
    _add_outer(to_w[d:], to_raw, wide[_LEAVES])
    _across(w[d:], to_raw, to_enters)
    for j in range(len(to_enters)):
        to_enters[j] *= wide[_FIRST, j]
    _add_outer(to_w[:d], q, to_enters)
    _along(w[:d], to_enters, to_q)
    for i in range(d):
        to_q[i] += to_y[i]


@_compiled
@no_type_check
def _surprise(loss, w, d, k, v, threshold, wide, narrow, eps, steepness):
    """grad l at W: W_1's is k `wide[_TO_ENTERS]`^T, W_2's `narrow[_TO_RAW]` `wide[_LEAVES]`^T. Returns LayerNorm's scale."""
    if len(w) == d:
        _across(w, k, wide[_ENTERS])
        for i in range(d):
            wide[_ENTERS, i] -= v[i]
        _slope(loss, wide[_ENTERS], threshold, steepness, wide[_TO_ENTERS])
        return _1
    normal, error = narrow[_NORMAL], narrow[_ERROR]
    scale = _recall(w, d, k, normal, wide, eps)
    for i in range(d):
        error[i] = normal[i] - v[i]
        normal[i] -= k[i]
    _slope(loss, error, threshold, steepness, narrow[_SLOPE])
    _normalise_back(normal, scale, narrow[_SLOPE], narrow[_TO_RAW])
    _across(w[d:], narrow[_TO_RAW], wide[_TO_LEAVES])
    for j in range(wide.shape[1]):
        wide[_TO_ENTERS, j] = wide[_TO_LEAVES, j] * wide[_FIRST, j]
    return scale


@_compiled
@no_type_check
def _surprise_back(loss, w, d, k, threshold, wide, narrow, scale, factor, to_gradient, to_w, to_k, to_v, more_wide, more_narrow, steepness):
    """Through grad l, the gradient in which is `factor` times `to_gradient`: adds to `to_w`, puts into `to_k` and `to_v`. Returns the
    product of grad l and `to_gradient`, and the gradient in the threshold.
    """
    by_enters, to_enters = wide[_TO_ENTERS], more_wide[_TO_ENTERS]
    _across(to_gradient[:d], k, to_enters)
    _along(to_gradient[:d], by_enters, to_k)
    product = _dot(by_enters, to_enters)
    for i in range(d):
        to_k[i] *= factor
    for j in range(len(to_enters)):
        to_enters[j] *= factor
    if len(w) == d:
        to_threshold = _slope_back(loss, wide[_ENTERS], threshold, steepness, to_enters)
        for i in range(d):
            to_v[i] = -to_enters[i]
        _add_outer(to_w, k, to_enters)
        _along(w, to_enters, more_narrow[_ERROR])
        for i in range(d):
            to_k[i] += more_narrow[_ERROR, i]
        return product, to_threshold

    normal, slope, by_raw, leaves = narrow[_NORMAL], narrow[_SLOPE], narrow[_TO_RAW], wide[_LEAVES]
    to_normal, to_slope, to_raw, beside = more_narrow[_NORMAL], more_narrow[_SLOPE], more_narrow[_TO_RAW], more_narrow[_ERROR]
    to_leaves, to_by_leaves = more_wide[_LEAVES], more_wide[_TO_LEAVES]
    # In what multiplied: to_raw and leaves.
    _along(to_gradient[d:], leaves, to_raw)
    _across(to_gradient[d:], by_raw, to_leaves)
    product += _dot(by_raw, to_raw)
    for j in range(len(to_leaves)):
        to_leaves[j] *= factor
        to_by_leaves[j] = to_enters[j] * wide[_FIRST, j]
        to_enters[j] *= wide[_TO_LEAVES, j] * wide[_SECOND, j]
    _along(w[d:], to_by_leaves, beside)
    _add_outer(to_w[d:], by_raw, to_by_leaves)
    # LayerNorm's way back, back.
    n, mean, along, by_slope, slope_along = _F(d), _0, _0, _0, _0
    for i in range(d):
        to_raw[i] = factor * to_raw[i] + beside[i]
        by_slope += to_raw[i] * by_raw[i]
        to_slope[i] = scale * to_raw[i]
        mean += to_slope[i]
        along += to_slope[i] * normal[i]
        slope_along += slope[i] * normal[i]
    mean, along, slope_along = mean / n, along / n, slope_along / n
    for i in range(d):
        to_normal[i] = -to_slope[i] * slope_along - slope[i] * along
        to_slope[i] -= mean + normal[i] * along
    to_threshold = _slope_back(loss, narrow[_ERROR], threshold, steepness, to_slope)
    mean, along = _0, _0
    for i in range(d):
        to_v[i] = -to_slope[i]
        to_k[i] += to_slope[i]
        to_normal[i] += to_slope[i]
        mean += to_normal[i]
        along += to_normal[i] * normal[i]
    # In the scale; what was normalised is the normal over it.
    along = (by_slope + along) / n
    mean = mean / n
    for i in range(d):
        to_raw[i] = scale * (to_normal[i] - mean - normal[i] * along)
    _add_outer(to_w[d:], to_raw, leaves)
    _across(w[d:], to_raw, more_wide[_ENTERS])
    for j in range(len(to_leaves)):
        to_enters[j] += (to_leaves[j] + more_wide[_ENTERS, j]) * wide[_FIRST, j]
    _add_outer(to_w[:d], k, to_enters)
    _along(w[:d], to_enters, beside)
    for i in range(d):
        to_k[i] += beside[i]
    return product, to_threshold


@_compiled
@no_type_check
def _move(a, s, keep, carried, rate, d, k, wide, narrow, new_a, new_s):
    """A and S after a step; without momentum there is no S."""
    for i in range(len(a)):
        left = k[i] if i < d else narrow[_TO_RAW, i - d]
        right = wide[_TO_ENTERS] if i < d else wide[_LEAVES]
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


@_compiled
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


@_compiled
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


@_compiled
@no_type_check
def _forwards(
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
        _load(first[head], d, start)
        _load(anchor[row, head], d, c)
        _load(weights[row, head], d, a)
        if carries:
            _load(momentum[row, head], d, s)
        _retain(retention, c, d, wc)
        age = phase[row] % chunk
        for t in range(steps):
            if kept.shape[2] and t % CHUNK == 0:
                there = kept[row, head, t // CHUNK]
                _copy(a, there[0])
                _copy(c, there[1])
                if carries:
                    _copy(s, there[2])
            if reset[row, t]:
                _copy(start, a)
                _copy(start, c)
                _retain(retention, c, d, wc)
                s[:] = 0
                age = 0
            _surprise(loss, wc, d, k[row, head, t], v[row, head, t], threshold[row, head, t], wide, narrow, eps, steepness)
            passed = carried[row, head, t] if carries else _0
            _move(a, s, keep[row, head, t], passed, rate[row, head, t], d, k[row, head, t], wide, narrow, a, s)
            age += 1
            if retention == DECAY:
                _recall(a, d, q[row, head, t], y[row, head, t], wide, eps)
            else:
                _retain(retention, a, d, w)
                _recall(w, d, q[row, head, t], y[row, head, t], wide, eps)
            if age == chunk:
                age = 0
                _copy(a, c)
                _copy(a if retention == DECAY else w, wc)
        _store(a, d, weights_after[row, head])
        _store(c, d, anchor_after[row, head])
        if carries:
            _store(s, d, momentum_after[row, head])
        if head == 0:
            phase_after[row] = age


@_compiled
@no_type_check
def _backwards(
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
        _load(first[head], d, start)
        _retain(retention, start, d, start_w)
        _load(grad_weights_after[row, head], d, to_a)
        _load(grad_anchor_after[row, head], d, to_c)
        if carries:
            _load(grad_momentum_after[row, head], d, to_s)
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
            _copy(there[0], a[0])
            _copy(there[1], anchors[0])
            if carries:
                _copy(there[2], s[0])
            _retain(retention, anchors[0], d, anchors_w[0])
            age, current = ages[block], 0
            for i in range(count):
                t = offset + i
                before = start if reset[row, t] else a[i]
                if reset[row, t]:
                    if i > 0 and which[i - 1] == current:
                        current += 1
                    _copy(start, anchors[current])
                    _copy(start_w, anchors_w[current])
                    age = 0
                which[i] = current
                scale[i] = _surprise(
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
                    _retain(retention, a[i + 1], d, w[i])
                age += 1
                ended[i] = age == chunk
                if ended[i]:
                    age = 0
                    current += 1
                    _copy(a[i + 1], anchors[current])
                    _copy(a[i + 1] if retention == DECAY else w[i], anchors_w[current])
            for i in range(count - 1, -1, -1):
                t = offset + i
                key = k[row, head, t]
                own = a[i + 1] if retention == DECAY else w[i]
                # Without retention W is A.
                to_own = to_a if retention == DECAY else to_w
                if retention != DECAY:
                    to_w[:] = 0
                if ended[i]:
                    _add(to_a, to_c)
                    _add(to_own, to_cw)
                    to_c[:] = 0
                    to_cw[:] = 0
                _recall_back(own, d, q[row, head, t], grad_y[row, head, t], to_own, grad_q[row, head, t], more_wide, more_narrow, eps)
                if retention != DECAY:
                    _retain_back(retention, a[i + 1], own, d, to_w, to_a)
                if carries:
                    grad_carried[row, head, t] = _gather(nothing if reset[row, t] else s[i], later, to_a, to_s)
                    later = carried[row, head, t]
                by_rate, to_threshold = _surprise_back(
                    loss, anchors_w[which[i]], d, key, threshold[row, head, t], wide[i], narrow[i], scale[i], -rate[row, head, t],
                    to_s if carries else to_a, to_cw, grad_k[row, head, t], grad_v[row, head, t], more_wide, more_narrow, steepness,
                )  # fmt: skip
                grad_rate[row, head, t], grad_threshold[row, head, t] = -by_rate, to_threshold
                grad_keep[row, head, t] = _move_back(start if reset[row, t] else a[i], keep[row, head, t], to_a)
                if reset[row, t]:
                    _add(to_start, to_a)
                    _add(to_start, to_c)
                    _retain_back(retention, start, start_w, d, to_cw, to_start)
                    to_a[:] = 0
                    to_c[:] = 0
                    to_cw[:] = 0
                    to_s[:] = 0
                    later = _0
        # What the first steps had for an anchor before any reset.
        if steps and not reset[row, 0]:
            _copy(kept[row, head, 0, 1], anchors[0])
            _retain(retention, anchors[0], d, anchors_w[0])
            _retain_back(retention, anchors[0], anchors_w[0], d, to_cw, to_c)
        _store(to_a, d, grad_weights[row, head])
        _store(to_c, d, grad_anchor[row, head])
        _store(to_start, d, grad_first[row, head])
        if carries:
            _scale(to_s, later)
            _store(to_s, d, grad_momentum[row, head])


@torch.library.custom_op(
    "coterie::miras",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, Tensor keep, Tensor? carried, Tensor rate, Tensor threshold, Tensor first, Tensor anchor,"
    " Tensor weights, Tensor? momentum, Tensor phase, Tensor reset, int network, int loss, int retention, int chunk, float eps,"
    " float steepness, bool learns) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, anchor: Tensor,
    weights: Tensor, momentum: Tensor | None, phase: Tensor, reset: Tensor, network: int, loss: int, retention: int, chunk: int, eps: float,
    steepness: float, learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the state after (momentum empty where there is none) and, for the way back, the weights before every `CHUNK`th step."""
    results = _shapes(q, weights, momentum, phase, network, learns)
    tensors = (q, k, v, keep, carried, rate, threshold, first, anchor, weights, momentum, phase, reset, *results)
    _work(_forwards, q, weights, (network, loss, retention, chunk, _F(eps), _F(steepness)), tensors)
    return results


@torch.library.custom_op(
    "coterie::miras_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, Tensor keep, Tensor? carried, Tensor rate, Tensor threshold, Tensor first, Tensor phase,"
    " Tensor reset, Tensor kept, Tensor grad_y, Tensor grad_anchor, Tensor grad_weights, Tensor? grad_momentum, int network, int loss,"
    " int retention, int chunk, float eps, float steepness)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, phase: Tensor,
    reset: Tensor, kept: Tensor, grad_y: Tensor, grad_anchor: Tensor, grad_weights: Tensor, grad_momentum: Tensor | None, network: int,
    loss: int, retention: int, chunk: int, eps: float, steepness: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients in q, k, v, keep, carried, rate, threshold, first, anchor, weights and momentum; empty where there is none."""
    results = _gradient_shapes(q, keep, carried, grad_weights, grad_momentum)
    # Each row has its own gradient in the first weights.
    results[7] = grad_weights.new_empty(grad_weights.shape)
    inputs = (q, k, v, keep, carried, rate, threshold, first, phase, reset, kept, grad_y, grad_anchor, grad_weights, grad_momentum)
    _work(_backwards, q, grad_weights, (network, loss, retention, chunk, _F(eps), _F(steepness)), (*inputs, *results))
    results[7] = results[7].sum(0)
    return tuple(results)


def _work(function: Any, q: Tensor, weights: Tensor, settings: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> None:
    """Calls the function for some rows and heads on each thread."""
    rows, heads, steps, _ = q.shape
    nothing = q.new_empty(0, 0, 0)
    arrays = ((nothing if x is None else x).detach().contiguous().numpy() for x in tensors)
    threads = None if weights.numel() * steps > _ALONE else 1
    in_threads(function, rows * heads, *settings, *arrays, threads=threads)


def _shapes(
    q: Tensor, weights: Tensor, momentum: Tensor | None, phase: Tensor, network: int, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, heads, steps, d = q.shape
    high = d if network == LINEAR else 2 * d
    kept = q.new_empty(rows, heads, -(-steps // CHUNK) if learns else 0, 2 if momentum is None else 3, high, weights.shape[2] // high)
    anchor, after = (weights.new_empty(weights.shape) for _ in range(2))
    moved = weights.new_empty((0, 0, 0) if momentum is None else momentum.shape)
    return q.new_empty(q.shape), anchor, after, moved, phase.new_empty(phase.shape), kept


def _gradient_shapes(q: Tensor, keep: Tensor, carried: Tensor | None, weights: Tensor, momentum: Tensor | None) -> list[Tensor]:
    none = (0, 0, 0)
    gates = keep.shape
    shapes = [q.shape] * 3 + [gates, none if carried is None else gates, gates, gates, weights.shape[1:], weights.shape, weights.shape]
    return [q.new_empty(shape) for shape in (*shapes, none if momentum is None else weights.shape)]


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, anchor: Tensor,
    weights: Tensor, momentum: Tensor | None, phase: Tensor, reset: Tensor, network: int, loss: int, retention: int, chunk: int, eps: float,
    steepness: float, learns: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return _shapes(q, weights, momentum, phase, network, learns)


@_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, carried: Tensor | None, rate: Tensor, threshold: Tensor, first: Tensor, phase: Tensor,
    reset: Tensor, kept: Tensor, grad_y: Tensor, grad_anchor: Tensor, grad_weights: Tensor, grad_momentum: Tensor | None, network: int,
    loss: int, retention: int, chunk: int, eps: float, steepness: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(_gradient_shapes(q, keep, carried, grad_weights, grad_momentum))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, phase_after, kept = output
    # The weights before the first step are in what is kept.
    ctx.save_for_backward(*inputs[:8], *inputs[11:13], kept)
    ctx.settings, ctx.state, ctx.carries = inputs[13:19], inputs[9].shape, inputs[10] is not None
    ctx.mark_non_differentiable(phase_after, kept)
    # Zeros for the gradient in what is kept would be as large as itself.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_y: Tensor | None, *after: Tensor | None) -> tuple[Tensor | None, ...]:
    q, *_ = kept = ctx.saved_tensors
    grad_y = torch.zeros_like(q) if grad_y is None else grad_y
    anchor, weights = (q.new_zeros(ctx.state) if grad is None else grad for grad in after[:2])
    momentum = (q.new_zeros(ctx.state) if after[2] is None else after[2]) if ctx.carries else None
    found = _backward(*kept, grad_y, anchor, weights, momentum, *ctx.settings)
    grads: list[Tensor | None] = list(found)
    if kept[4] is None:
        grads[4] = None
    if not ctx.carries:
        grads[10] = None
    return *grads, *[None] * 9


_forward.register_autograd(_gradients, setup_context=_keep)
