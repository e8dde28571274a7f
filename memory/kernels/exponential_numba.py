"""The exponential in single precision and what is made of it, written out so that a compiler makes vectors of them."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from memory.kernels.compiled import AS_WRITTEN, compiled

_F = np.float32
# Where exp comes to the smallest normal number (what is below counts as this), then log2 e, ln 2 in two parts, and the series (Cephes,
# expf).
_LEAST, _LOG2E, _LN2, _LN2_REST = _F(-87.3), _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_P0, _P1, _P2, _P3, _P4, _P5 = _F(1.9875692e-4), _F(1.3981999e-3), _F(8.3334519e-3), _F(4.1665796e-2), _F(0.16666665), _F(0.5)
_ONE, _HALF, _BIAS = _F(1), _F(0.5), np.int32(127)
# Up to where tanh is a series, too (Cephes, tanhf): beyond, it is made of the exponential, which near zero would lose what is left of it.
_NEAR, _TWO = _F(0.625), _F(2)
_T0, _T1, _T2, _T3, _T4 = _F(-5.70498872745e-3), _F(2.06390887954e-2), _F(-5.37397155531e-2), _F(1.33314422036e-1), _F(-3.33332819422e-1)


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def exp(x):
    """Of what is not above zero, to the last bit or two, and never less than 1e-38."""
    x = x if not (x < _LEAST) else _LEAST
    power = np.floor(x * _LOG2E + _HALF)
    x = x - power * _LN2
    x = x - power * _LN2_REST
    series = ((((_P0 * x + _P1) * x + _P2) * x + _P3) * x + _P4) * x + _P5
    return (series * (x * x) + x + _ONE) * np.int32((np.int32(power) + _BIAS) << np.int32(23)).view(np.float32)


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def sigmoid(x):
    fallen = exp(-abs(x))
    above = _ONE / (_ONE + fallen)
    return fallen * above if x < 0 else above


@compiled(fastmath=AS_WRITTEN)
@no_type_check
def tanh(x):
    square, fallen = x * x, exp(-_TWO * abs(x))
    series = ((((_T0 * square + _T1) * square + _T2) * square + _T3) * square + _T4) * square * x + x
    size = (_ONE - fallen) / (_ONE + fallen)
    return series if abs(x) < _NEAR else -size if x < 0 else size
