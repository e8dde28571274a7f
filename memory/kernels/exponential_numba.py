"""The exponential in single precision, written out so that a compiler makes vectors of it."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from memory.kernels.compiled import compiled

_F = np.float32
# Where exp comes to the smallest normal number (what is below counts as this), then log2 e, ln 2 in two parts, and the series (Cephes,
# expf).
_LEAST, _LOG2E, _LN2, _LN2_REST = _F(-87.3), _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_P0, _P1, _P2, _P3, _P4, _P5 = _F(1.9875692e-4), _F(1.3981999e-3), _F(8.3334519e-3), _F(4.1665796e-2), _F(0.16666665), _F(0.5)
_ONE, _HALF, _BIAS = _F(1), _F(0.5), np.int32(127)


# No sums may be reordered here; what is not a number stays so.
@compiled(fastmath={"contract", "nsz"})
@no_type_check
def exp(x):
    """Of what is not above zero, to the last bit or two, and never less than 1e-38."""
    x = x if not (x < _LEAST) else _LEAST
    power = np.floor(x * _LOG2E + _HALF)
    x = x - power * _LN2
    x = x - power * _LN2_REST
    series = ((((_P0 * x + _P1) * x + _P2) * x + _P3) * x + _P4) * x + _P5
    return (series * (x * x) + x + _ONE) * np.int32((np.int32(power) + _BIAS) << np.int32(23)).view(np.float32)
