"""Miras' choices on a CPU, and their ways back: network, inner loss, retention; a head's weights at a time, compiled by Numba.

The weights lie as [d, hidden] twice, W_1 transposed above W_2, or as one matrix [d, d], transposed, so that vectors go along hidden units.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from memory.kernels.compiled import compiled
from memory.kernels.exponential_numba import exp, tanh
from memory.kernels.matrices_numba import add, add_outer, copy, dot, times, transposed_times

LINEAR, MLP = range(2)
SQUARED, POWER, HUBER = range(3)
DECAY, NORM, SOFTMAX = range(3)

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
ENTERS, LEAVES, FIRST, SECOND, TO_LEAVES, TO_ENTERS = range(6)
NORMAL, ERROR, SLOPE, TO_RAW = range(4)


@compiled()
@no_type_check
def load(flat, d, out):
    """A head's weights as they lie outside, into the order of here."""
    wide = out.shape[1]
    for i in range(d):
        for j in range(wide):
            out[i, j] = flat[j * d + i]
    for i in range(d, len(out)):
        for j in range(wide):
            out[i, j] = flat[i * wide + j]


@compiled()
@no_type_check
def store(matrix, d, flat):
    wide = matrix.shape[1]
    for i in range(d):
        for j in range(wide):
            flat[j * d + i] = matrix[i, j]
    for i in range(d, len(matrix)):
        for j in range(wide):
            flat[i * wide + j] = matrix[i, j]


@compiled()
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


@compiled()
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


@compiled()
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


@compiled()
@no_type_check
def _slope(loss, error, threshold, steepness, out):
    """The loss's gradient in what is recalled."""
    squared = loss == SQUARED
    if loss == HUBER:
        squared = dot(error, error) <= threshold * threshold
    for i in range(len(error)):
        e = error[i]
        if squared:
            out[i] = e
        else:
            out[i] = tanh(steepness * e) * (e * e if loss == POWER else threshold)


@compiled()
@no_type_check
def _slope_back(loss, error, threshold, steepness, grad):
    """`grad` in the slope becomes that in the error; returns that in the threshold."""
    if loss == SQUARED or (loss == HUBER and dot(error, error) <= threshold * threshold):
        return _0
    total = _0
    for i in range(len(error)):
        e, sign = error[i], tanh(steepness * error[i])
        rise = steepness * (_1 - sign * sign)
        if loss == POWER:
            grad[i] *= rise * e * e + _2 * e * sign
        else:
            total += grad[i] * sign
            grad[i] *= threshold * rise
    return total


@compiled()
@no_type_check
def retain(kind, a, d, out):
    """W of A."""
    if kind == DECAY:
        copy(a, out)
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


@compiled()
@no_type_check
def retain_back(kind, a, w, d, to_w, to_a):
    """Adds to `to_a`."""
    if kind == DECAY:
        add(to_a, to_w)
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
            along = dot(to_w[i], w[i]) / np.sqrt(_F(a.shape[1]))
            for j in range(a.shape[1]):
                to_a[i, j] += w[i, j] * (to_w[i, j] - along)


@compiled()
@no_type_check
def recall(w, d, q, y, wide, eps):
    """y = M(q). Leaves in `wide` what enters and leaves hidden units and its derivatives, and returns LayerNorm's scale."""
    if len(w) == d:
        transposed_times(w, q, y)
        return _1
    transposed_times(w[:d], q, wide[ENTERS])
    _gelu(wide[ENTERS], wide[LEAVES], wide[FIRST], wide[SECOND])
    times(w[d:], wide[LEAVES], y)
    scale = _normalise(y, eps)
    for i in range(d):
        y[i] += q[i]
    return scale


@compiled()
@no_type_check
def recall_back(w, d, q, to_y, to_w, to_q, wide, narrow, eps):
    """Adds to `to_w`; puts into `to_q`."""
    if len(w) == d:
        add_outer(to_w, q, to_y)
        times(w, to_y, to_q)
        return
    normal, to_raw, to_enters = narrow[NORMAL], narrow[TO_RAW], wide[TO_ENTERS]
    scale = recall(w, d, q, normal, wide, eps)
    for i in range(d):
        normal[i] -= q[i]
    _normalise_back(normal, scale, to_y, to_raw)
    add_outer(to_w[d:], to_raw, wide[LEAVES])
    transposed_times(w[d:], to_raw, to_enters)
    for j in range(len(to_enters)):
        to_enters[j] *= wide[FIRST, j]
    add_outer(to_w[:d], q, to_enters)
    times(w[:d], to_enters, to_q)
    for i in range(d):
        to_q[i] += to_y[i]


@compiled()
@no_type_check
def surprise(loss, w, d, k, v, threshold, wide, narrow, eps, steepness):
    """grad l at W: W_1's is k `wide[TO_ENTERS]`^T, W_2's `narrow[TO_RAW]` `wide[LEAVES]`^T. Returns LayerNorm's scale."""
    if len(w) == d:
        transposed_times(w, k, wide[ENTERS])
        for i in range(d):
            wide[ENTERS, i] -= v[i]
        _slope(loss, wide[ENTERS], threshold, steepness, wide[TO_ENTERS])
        return _1
    normal, error = narrow[NORMAL], narrow[ERROR]
    scale = recall(w, d, k, normal, wide, eps)
    for i in range(d):
        error[i] = normal[i] - v[i]
        normal[i] -= k[i]
    _slope(loss, error, threshold, steepness, narrow[SLOPE])
    _normalise_back(normal, scale, narrow[SLOPE], narrow[TO_RAW])
    transposed_times(w[d:], narrow[TO_RAW], wide[TO_LEAVES])
    for j in range(wide.shape[1]):
        wide[TO_ENTERS, j] = wide[TO_LEAVES, j] * wide[FIRST, j]
    return scale


@compiled()
@no_type_check
def surprise_back(loss, w, d, k, threshold, wide, narrow, scale, factor, to_gradient, to_w, to_k, to_v, more_wide, more_narrow, steepness):
    """Through grad l, the gradient in which is `factor` times `to_gradient`: adds to `to_w`, puts into `to_k` and `to_v`. Returns the
    product of grad l and `to_gradient`, and the gradient in the threshold.
    """
    by_enters, to_enters = wide[TO_ENTERS], more_wide[TO_ENTERS]
    transposed_times(to_gradient[:d], k, to_enters)
    times(to_gradient[:d], by_enters, to_k)
    product = dot(by_enters, to_enters)
    for i in range(d):
        to_k[i] *= factor
    for j in range(len(to_enters)):
        to_enters[j] *= factor
    if len(w) == d:
        to_threshold = _slope_back(loss, wide[ENTERS], threshold, steepness, to_enters)
        for i in range(d):
            to_v[i] = -to_enters[i]
        add_outer(to_w, k, to_enters)
        times(w, to_enters, more_narrow[ERROR])
        for i in range(d):
            to_k[i] += more_narrow[ERROR, i]
        return product, to_threshold

    normal, slope, by_raw, leaves = narrow[NORMAL], narrow[SLOPE], narrow[TO_RAW], wide[LEAVES]
    to_normal, to_slope, to_raw, beside = more_narrow[NORMAL], more_narrow[SLOPE], more_narrow[TO_RAW], more_narrow[ERROR]
    to_leaves, to_by_leaves = more_wide[LEAVES], more_wide[TO_LEAVES]
    # In what multiplied: to_raw and leaves.
    times(to_gradient[d:], leaves, to_raw)
    transposed_times(to_gradient[d:], by_raw, to_leaves)
    product += dot(by_raw, to_raw)
    for j in range(len(to_leaves)):
        to_leaves[j] *= factor
        to_by_leaves[j] = to_enters[j] * wide[FIRST, j]
        to_enters[j] *= wide[TO_LEAVES, j] * wide[SECOND, j]
    times(w[d:], to_by_leaves, beside)
    add_outer(to_w[d:], by_raw, to_by_leaves)
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
    to_threshold = _slope_back(loss, narrow[ERROR], threshold, steepness, to_slope)
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
    add_outer(to_w[d:], to_raw, leaves)
    transposed_times(w[d:], to_raw, more_wide[ENTERS])
    for j in range(len(to_leaves)):
        to_enters[j] += (to_leaves[j] + more_wide[ENTERS, j]) * wide[FIRST, j]
    add_outer(to_w[:d], k, to_enters)
    times(w[:d], to_enters, beside)
    for i in range(d):
        to_k[i] += beside[i]
    return product, to_threshold
