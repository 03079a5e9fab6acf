"""float32 exp, sigmoid and tanh that the compiler can vectorise: the C library's are called one number at a time.

exp follows Cephes' expf (S. Moshier): argument reduced by ln 2 in two parts, a polynomial of degree 5; largest relative
error 2 ulp over [-87, 88], outside of which the argument is clamped. NaN in, NaN out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic, piece
from antiphon_kernels.lanes import fma

_HIGH, _LOW = np.float32(88.0), np.float32(-87.0)
_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_ONE, _TWO = np.float32(1), np.float32(2)


@piece
def exp(x: Any) -> Any:
    """e to the x."""
    x = _HIGH if x > _HIGH else x
    x = _LOW if x < _LOW else x
    n = nearest(x * _LOG2_E)
    x = fma(-n, _LN2_LOW, fma(-n, _LN2_HIGH, x))
    p = fma(fma(fma(fma(fma(_P0, x, _P1), x, _P2), x, _P3), x, _P4), x, _P5)
    return (fma(p, x * x, x) + _ONE) * power_of_two(n)


@piece
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _ONE / (_ONE + exp(-x))


@piece
def tanh(x: Any) -> Any:
    """Hyperbolic tangent; absolute error 2e-7."""
    return _ONE - _TWO / (exp(_TWO * x) + _ONE)


@intrinsic
def nearest(_typing: Any, x: Any) -> Any:
    """x rounded to the nearest integer, halves to even, still a float."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()]), args)

    return types.float32(types.float32), generate


@intrinsic
def power_of_two(_typing: Any, n: Any) -> Any:
    """2 to the n for a float that holds an integer from -126 to 127: its bits are the exponent."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        exponent = builder.add(builder.fptosi(args[0], int32), ir.Constant(int32, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(int32, 23)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def size_bits(_typing: Any, x: Any) -> Any:
    """The bits of |x| as an int32: they order as sizes do, with infinity and then NaN on top."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        return builder.and_(builder.bitcast(args[0], int32), ir.Constant(int32, 0x7FFFFFFF))

    return types.int32(types.float32), generate


@intrinsic
def from_bits(_typing: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def whole(_typing: Any, x: Any) -> Any:
    """x, which holds an integer, as an int32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fptosi(args[0], ir.IntType(32))

    return types.int32(types.float32), generate
