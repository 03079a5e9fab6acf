"""float64 exp that the compiler can vectorise, and that has the same bits on every processor: no library is called.

The argument is reduced by ln 2 in two parts (FreeBSD's msun, e_exp.c: the first has so few bits that its multiples are
exact), then a Taylor polynomial of degree 13, whose remainder is below 2**-57; each product and sum is rounded once.
Largest relative error 2 ulp over [-708, 709]; below, the result is 0. NaN in, NaN out.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic, piece

LEAST = -708.0
"""exp of less is below the smallest normal float64."""

_SHIFT = 6755399441055744.0  # 1.5 * 2**52: added to a number, it leaves the nearest integer in the lowest bits
_SHIFT_BITS = 0x4338000000000000
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_C2, _C3, _C4, _C5, _C6, _C7 = (1 / math.factorial(k) for k in range(2, 8))
_C8, _C9, _C10, _C11, _C12, _C13 = (1 / math.factorial(k) for k in range(8, 14))


@piece
def exp(x: Any) -> Any:
    """e to the x, for x up to 709."""
    bounded = LEAST if x < LEAST else x
    shifted = bounded * _LOG2_E + _SHIFT
    n = shifted - _SHIFT
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    p = ((((_C13 * r + _C12) * r + _C11) * r + _C10) * r + _C9) * r + _C8
    p = (((((p * r + _C7) * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _C2
    power = number_of((bits_of(shifted) - _SHIFT_BITS + 1023) << 52)
    y = ((p * r + 1.0) * r + 1.0) * power
    return 0.0 if x < LEAST else y


@intrinsic
def bits_of(_typing: Any, x: Any) -> Any:
    """The bits of a float64 as an int64."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def number_of(_typing: Any, bits: Any) -> Any:
    """The float64 with these bits."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate
