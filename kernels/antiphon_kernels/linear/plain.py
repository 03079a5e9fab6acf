"""Rows of bytes as they are, times 16-bit activations, in loops that any processor's compiler makes vectors of."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from antiphon_kernels.float32 import from_bits
from antiphon_kernels.jit import intrinsic, piece
from antiphon_kernels.lanes import fma
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.format import BLOCK, Q_GROUP
from antiphon_kernels.linear.space import VARIABLE
from antiphon_kernels.window import float64_window, int16_window, int32_window, window

CHUNK = 512  # inputs whose products fit one int32 total: 512 * 128 * 32639 < 2**31


@piece
def multiply_rows(
    weights: Any, floats: Any, matrix: Any, act: Any, rows: int, first: int, last: int, out: Any, out_stride: int,
    scratch: Any,
) -> None:  # fmt: skip
    """See `numba_cpu.multiply`, for INT8_ROWS and INT16_ROWS."""
    if matrix[fmt.ORDER] == fmt.BY_INPUT:
        for row in range(rows):
            _one_row_by_input(weights, floats, matrix, act, row, first, last, out, out_stride, scratch)
        return
    _, _, q, _, steps, stride = act
    padded, planes = matrix[fmt.PADDED], 2 if matrix[fmt.FORMAT] == fmt.INT16_ROWS else 1
    for block in range(first, last):
        at = matrix[fmt.AT] + block * planes * BLOCK * padded
        begin = block * BLOCK
        for row in range(rows):
            activations = window(q, row * stride, padded)
            for output in range(min(BLOCK, matrix[fmt.OUTPUTS] - begin)):
                total = _dot(window(weights, at + output * padded, padded), activations)
                if planes == 2:
                    total = total * 256 + _dot(window(weights, at + (BLOCK + output) * padded, padded), activations)
                scale = floats[matrix[fmt.SCALES] + begin + output] * steps[row]
                out[row * out_stride + begin + output] = np.float32(np.float64(total)) * scale


@piece
def multiply_groups(
    weights: Any, matrix: Any, act: Any, rows: int, first: int, last: int, out: Any, out_stride: int
) -> None:
    """See `numba_cpu.multiply`, for INT8_GROUPS and INT4_GROUPS."""
    _, _, q, totals, steps, stride = act
    padded, group, small = matrix[fmt.PADDED], matrix[fmt.GROUP], matrix[fmt.FORMAT] == fmt.INT4_GROUPS
    block_bytes = fmt.group_block_bytes(matrix[fmt.FORMAT], padded, group)
    width = padded // 2 if small else padded
    for block in range(first, last):
        at, begin = matrix[fmt.AT] + block * block_bytes, block * BLOCK
        scales = int16_window(weights, at + BLOCK * width, (block_bytes - BLOCK * width) // 2)
        for row in range(rows):
            activations = window(q, row * stride, padded)
            excess = window(totals, row * stride // Q_GROUP, padded // Q_GROUP)
            for output in range(min(BLOCK, matrix[fmt.OUTPUTS] - begin)):
                line, result = window(weights, at + output * width, width), np.float32(0)
                for start in range(0, padded, group):
                    size = min(group, padded - start)
                    if small:
                        total = _dot_halves(
                            window(line, start // 2, size // 2), window(activations, start, size),
                            window(excess, start // Q_GROUP, size // Q_GROUP),
                        )  # fmt: skip
                    else:
                        total = np.int64(_dot_chunk(window(line, start, size), window(activations, start, size)))
                    result = fma(np.float32(total), _half(scales[start // group * BLOCK + output]), result)
                out[row * out_stride + begin + output] = result * steps[row]


@piece
def _dot_halves(packed: Any, q: Any, excess: Any) -> Any:
    """The dot product of 4-bit weights, 8 too high, 32 inputs in 16 bytes: the first 16 in the lower halves."""
    total, off = np.int32(0), np.int64(0)
    for part in range(excess.size):
        line = window(packed, part * (Q_GROUP // 2), Q_GROUP // 2)
        first, second = window(q, part * Q_GROUP, Q_GROUP // 2), window(q, part * Q_GROUP + Q_GROUP // 2, Q_GROUP // 2)
        for i in range(Q_GROUP // 2):
            total = _add_halves(total, line[i], first[i], second[i])
        off += 8 * np.int64(excess[part])
    return np.int64(total) - off


@piece
def _half(bits: Any) -> Any:
    """float32 of a finite float16: its exponent and fraction where float32 has them are 2**112 too small."""
    size = from_bits(np.int32((bits & 0x7FFF) << 13)) * np.float32(2.0**112)
    return -size if bits < 0 else size


@intrinsic
def _add_halves(_typing: Any, total: Any, packed: Any, first: Any, second: Any) -> Any:
    """total + the lower half of a byte * first + the upper half * second, in int32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        wide = ir.IntType(32)
        total, packed, first, second = args
        packed = builder.zext(packed, wide)
        lower = builder.and_(packed, ir.Constant(wide, 15))
        upper = builder.lshr(packed, ir.Constant(wide, 4))
        total = builder.add(total, builder.mul(lower, builder.sext(first, wide)))
        return builder.add(total, builder.mul(upper, builder.sext(second, wide)))

    return types.int32(types.int32, packed, first, second), generate


@piece
def _one_row_by_input(
    weights: Any, floats: Any, matrix: Any, act: Any, row: int, first: int, last: int, out: Any, out_stride: int,
    scratch: Any,
) -> None:  # fmt: skip
    _, _, q, _, steps, stride = act
    padded, run = matrix[fmt.PADDED], matrix[fmt.BLOCKS] * BLOCK
    begin = first * BLOCK
    columns = min(last * BLOCK, matrix[fmt.OUTPUTS]) - begin
    totals = float64_window(scratch, VARIABLE, columns)
    sums = int32_window(scratch, VARIABLE + 8 * columns, columns)
    activations = window(q, row * stride, padded)
    for i in range(columns):
        totals[i] = 0.0
    for plane in range(2 if matrix[fmt.FORMAT] == fmt.INT16_ROWS else 1):
        for i in range(columns):
            totals[i] *= 256.0
        for chunk in range(0, padded, CHUNK):
            for i in range(columns):
                sums[i] = 0
            for unit in range(chunk, min(chunk + CHUNK, padded)):
                if activations[unit]:
                    at = matrix[fmt.AT] + (plane * padded + unit) * run + begin
                    _add_run(sums, window(weights, at, columns), activations[unit])
            for i in range(columns):
                totals[i] += np.float64(sums[i])
    to = row * out_stride + begin
    scales = window(floats, matrix[fmt.SCALES] + begin, columns)
    for i in range(columns):
        out[to + i] = np.float32(totals[i]) * (scales[i] * steps[row])


@piece
def _add_run(sums: Any, run: Any, q: Any) -> None:
    for i in range(sums.size):
        sums[i] = _add_product(sums[i], run[i], q)


@piece
def _dot(a: Any, b: Any) -> Any:
    total = np.int64(0)
    for chunk in range(0, a.size, CHUNK):
        size = min(CHUNK, a.size - chunk)
        total += np.int64(_dot_chunk(window(a, chunk, size), window(b, chunk, size)))
    return total


@piece
def _dot_chunk(a: Any, b: Any) -> Any:
    """The int32 dot product of at most CHUNK bytes and 16-bit numbers."""
    total = np.int32(0)
    for i in range(a.size):
        total = _add_product(total, a[i], b[i])
    return total


@intrinsic
def _add_product(_typing: Any, total: Any, a: Any, b: Any) -> Any:
    """total + a * b in int32. Numba widens int32 arithmetic to int64, which halves what a vector holds twice over."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        wide = ir.IntType(32)
        return builder.add(args[0], builder.mul(builder.sext(args[1], wide), builder.sext(args[2], wide)))

    return types.int32(types.int32, a, b), generate
