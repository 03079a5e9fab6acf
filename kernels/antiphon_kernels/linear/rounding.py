"""Rows of float32 rounded to 16 bits, as byte planes for interleaved weights and as int16 for plain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from antiphon_kernels.float32 import from_bits, nearest, size_bits, whole
from antiphon_kernels.jit import intrinsic, piece
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.emit import F32, I8, I16, I32, Emitter, vector
from antiphon_kernels.window import address, window

LEVELS = np.float32(fmt.LEVELS)
FAINT = np.float32(fmt.FAINT)
WIDE = 64


@piece
def round_rows(
    weights: Any, x: Any, stride: int, first_row: int, last_row: int, inputs: int, padded: int, act: Any
) -> None:
    """Round x[row * stride : … + inputs] (float32) into rows of `act`, for rows first_row to last_row.

    `act` = (high int8, low int8, q int16 [rows * act_stride each], totals int32 [rows * act_stride / 32],
    steps float32 [rows], act_stride): flat windows. The planes are filled for interleaved `weights` (uint8), q for
    plain ones (int8); all are 0 from `inputs` to `padded`, a multiple of 64. NaN or infinity in a row gives it a step
    of NaN, and with it its outputs.
    """
    high, low, q, totals, steps, act_stride = act
    for row in range(first_row, last_row):
        source = window(x, row * stride, inputs)
        most = np.int32(0)
        for i in range(inputs):
            most = max(most, size_bits(source[i]))
        peak = from_bits(most)
        inverse = np.float32(0)
        if FAINT <= peak < np.inf:
            steps[row], inverse = peak / LEVELS, LEVELS / peak
        else:
            steps[row] = np.float32(0) if peak < FAINT else np.float32(np.nan)
        begin = row * act_stride
        if inverse == 0:
            _clear(window(totals, begin // fmt.Q_GROUP, padded // fmt.Q_GROUP))
            if interleaved(weights):
                _clear(window(high, begin, padded))
                _clear(window(low, begin, padded))
            else:
                _clear(window(q, begin, padded))
            continue
        last = window(totals, begin // fmt.Q_GROUP, padded // fmt.Q_GROUP)
        done = inputs // WIDE
        if interleaved(weights):
            if done:
                _split_64s(
                    address(source, 0), inverse, done, address(high, begin), address(low, begin), address(last, 0)
                )
            _round_rest(source, inverse, done * WIDE, last)
            for i in range(done * WIDE, padded):
                rounded = whole(nearest(source[i] * inverse)) if i < inputs else np.int32(0)
                high[begin + i], low[begin + i] = _high_byte(rounded), _low_byte(rounded)
        else:
            if done:
                _round_64s(address(source, 0), inverse, done, address(q, 2 * begin), address(last, 0))
            _round_rest(source, inverse, done * WIDE, last)
            for i in range(done * WIDE, padded):
                q[begin + i] = whole(nearest(source[i] * inverse)) if i < inputs else np.int32(0)


@intrinsic
def interleaved(_typing: Any, weights: Any) -> Any:
    """Whether weights are laid out for VNNI: their type says so."""

    def generate(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return context.get_constant(types.boolean, weights.dtype == types.uint8)

    return types.boolean(weights), generate


@piece
def _clear(array: Any) -> None:
    for i in range(array.size):
        array[i] = 0


@piece
def _round_rest(source: Any, inverse: Any, start: int, totals: Any) -> None:
    """The totals of what follows the last whole 64."""
    for group in range(start // fmt.Q_GROUP, totals.size):
        total = 0
        for i in range(group * fmt.Q_GROUP, min(source.size, (group + 1) * fmt.Q_GROUP)):
            total += whole(nearest(source[i] * inverse))
        totals[group] = total


@intrinsic
def _low_byte(_typing: Any, q: Any) -> Any:
    """The low byte of an integer, as a signed byte."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.trunc(args[0], I8)

    return types.int8(types.int32), generate


@intrinsic
def _high_byte(_typing: Any, q: Any) -> Any:
    """The signed byte that completes `_low_byte`: (q - low) / 256."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        half = ir.Constant(I32, 128)
        return builder.trunc(builder.ashr(builder.add(args[0], half), ir.Constant(I32, 8)), I8)

    return types.int8(types.int32), generate


def _rounded(code: Emitter, x: Any, inverse: Any, at: Any, totals: Any) -> Any:
    """The q of the 64 numbers that begin at the `at`-th, as <64 x i32>; their totals are stored."""
    kind = vector(F32, WIDE)
    builder = code.builder
    numbers = code.load(code.at(x, code.times(at, 4)), kind)
    scaled = builder.fmul(numbers, code.spread(inverse, WIDE))
    rounded = builder.fptosi(code.call(f"llvm.rint.v{WIDE}f32", kind, [scaled]), vector(I32, WIDE))
    for half in range(2):
        part = code.shuffle(rounded, rounded, range(half * fmt.Q_GROUP, (half + 1) * fmt.Q_GROUP))
        total = code.call(f"llvm.vector.reduce.add.v{fmt.Q_GROUP}i32", I32, [part])
        code.store(total, code.at(totals, code.times(builder.udiv(at, code.number(fmt.Q_GROUP)), 4), 4 * half))
    return rounded


@intrinsic
def _split_64s(_typing: Any, x: Any, inverse: Any, count: Any, high: Any, low: Any, totals: Any) -> Any:
    """Round `count` times 64 numbers at address `x` into two byte planes and the totals of 32 each."""
    signature = types.void(types.int64, types.float32, types.int64, types.int64, types.int64, types.int64)

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        code, (x, inverse, count, high, low, totals) = Emitter(builder), args
        ints = vector(I32, WIDE)

        def turn(number: Any, _: Any) -> list[Any]:
            at = code.times(number, WIDE)
            rounded = _rounded(code, x, inverse, at, totals)
            code.store(builder.trunc(rounded, vector(I8, WIDE)), code.at(low, at))
            upper = builder.ashr(builder.add(rounded, code.every(ints, 128)), code.every(ints, 8))
            code.store(builder.trunc(upper, vector(I8, WIDE)), code.at(high, at))
            return []

        code.loop(count, [], turn)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _round_64s(_typing: Any, x: Any, inverse: Any, count: Any, q: Any, totals: Any) -> Any:
    """Round `count` times 64 numbers at address `x` into int16 and the totals of 32 each."""
    signature = types.void(types.int64, types.float32, types.int64, types.int64, types.int64)

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        code, (x, inverse, count, q, totals) = Emitter(builder), args

        def turn(number: Any, _: Any) -> list[Any]:
            at = code.times(number, WIDE)
            rounded = _rounded(code, x, inverse, at, totals)
            code.store(builder.trunc(rounded, vector(I16, WIDE)), code.at(q, code.times(at, 2)))
            return []

        code.loop(count, [], turn)
        return context.get_dummy_value()

    return signature, generate
