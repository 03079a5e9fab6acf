"""Pieces of a compiled kernel: activations in, rounded where the format wants it, times a matrix, outputs out.

A row's outputs depend on nothing but the row: not on the other rows, their number, the blocks asked for together, the
layout of the weights or the processor. See `format.py` for the arithmetic and `layout.py` for the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from antiphon_kernels.jit import chosen_by_type, kernel, named, piece
from antiphon_kernels.linear import amx, amx_groups, floating, groups
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.by_input import TOGETHER, finish, put_together, scaled, weigh
from antiphon_kernels.linear.format import BLOCK, Q_GROUP
from antiphon_kernels.linear.plain import multiply_groups, multiply_rows
from antiphon_kernels.linear.processor import vnni_bits
from antiphon_kernels.linear.rounding import round_rows
from antiphon_kernels.linear.space import EDGE, EXCESS, ROWS_AT_ONCE, TILES, TOGETHER_BYTES, VARIABLE
from antiphon_kernels.linear.vnni import tile
from antiphon_kernels.window import address, float32_window, float64_window, int8_window, int32_window, window

__all__ = ["linear", "multiply", "round_rows"]

_TILE_1, _TILE_2, _TILE_4 = tile(1, 1), tile(2, 1), tile(4, 1)
_WIDE_TILE_1, _WIDE_TILE_2, _WIDE_TILE_4 = tile(1, 2), tile(2, 2), tile(4, 2)
_GROUP_1, _GROUP_2, _GROUP_4 = groups.tile(1, 8), groups.tile(2, 8), groups.tile(4, 8)
_SMALL_GROUP_1, _SMALL_GROUP_2, _SMALL_GROUP_4 = groups.tile(1, 4), groups.tile(2, 4), groups.tile(4, 4)
_NARROW_GROUP_TILES, _GROUP_TILES = amx_groups.multiply(32), amx_groups.multiply(64)
_UNPACK_4, _UNPACK_8 = amx_groups.unpack(4), amx_groups.unpack(8)
_TILES, _WIDE_TILES = amx.multiply(1), amx.multiply(2)
LEAST_ROWS, LEAST_ROWS_IN_GROUPS = 3, 9  # from which on the tile unit is the faster one
_COLUMN = vnni_bits() // 8 or 64  # outputs that `weigh` takes together


@piece
def multiply(
    weights: Any, floats: Any, matrix: Any, x: Any, x_stride: int, act: Any, rows: int, first_block: int,
    last_block: int, out: Any, out_stride: int, scratch: Any,
) -> None:  # fmt: skip
    """out[row * out_stride + o] = the outputs o of blocks first_block to last_block, for rows 0 to `rows`.

    `weights` (1-D, uint8 interleaved or int8 plain) and `floats` hold the matrix that the int64 row `matrix` describes.
    Integer formats read `act` (see `round_rows`), float formats `x` (float32 [rows * x_stride]). `scratch`: at least
    `space.scratch_bytes` of any type, one per thread. Nothing beyond the matrix's outputs is written.
    """
    form = matrix[fmt.FORMAT]
    if form == fmt.INT8_GROUPS or form == fmt.INT4_GROUPS:
        _groups(weights, matrix, act, rows, first_block, last_block, out, out_stride, scratch)
    elif form <= fmt.INT16_ROWS:
        _integers(weights, floats, matrix, act, rows, first_block, last_block, out, out_stride, scratch)
    else:
        _floating(weights, matrix, x, x_stride, rows, first_block, last_block, out, out_stride, scratch)


@kernel
def linear(
    weights: Any, floats: Any, matrix: Any, x: Any, x_stride: int, act: Any, rows: int, first_block: int,
    last_block: int, out: Any, out_stride: int, scratch: Any,
) -> None:  # fmt: skip
    """Round `x` into `act` and multiply: one matrix alone, see `round_rows` and `multiply`."""
    if matrix[fmt.FORMAT] <= fmt.INT4_GROUPS:
        round_rows(weights, x, x_stride, 0, rows, matrix[fmt.INPUTS], matrix[fmt.PADDED], act)
    multiply(weights, floats, matrix, x, x_stride, act, rows, first_block, last_block, out, out_stride, scratch)


def _integers(
    weights: Any, floats: Any, matrix: Any, act: Any, rows: int, first: int, last: int, out: Any, out_stride: int,
    scratch: Any,
) -> None:  # fmt: skip
    """What `multiply` does for integer formats, by the layout of the weights."""
    raise RuntimeError("runs only inside compiled code")


@chosen_by_type(_integers)
def _choose(
    weights: Any, floats: Any, matrix: Any, act: Any, rows: Any, first: Any, last: Any, out: Any, out_stride: Any,
    scratch: Any,
) -> Callable[..., None]:  # fmt: skip
    return _interleaved if weights.dtype == types.uint8 else _plain


@piece
def _floating(
    weights: Any, matrix: Any, x: Any, x_stride: int, rows: int, first: int, last: int, out: Any, out_stride: int,
    scratch: Any,
) -> None:  # fmt: skip
    """What `multiply` does for float formats."""
    form, inputs = matrix[fmt.FORMAT], matrix[fmt.INPUTS]
    block_bytes = fmt.float_block_bytes(form, inputs)
    for begin in range(0, rows, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, rows - begin)
        for block in range(first, last):
            size = min(BLOCK, matrix[fmt.OUTPUTS] - block * BLOCK)
            place, to_stride = address(out, 4 * (begin * out_stride + block * BLOCK)), out_stride
            if size < BLOCK:
                place, to_stride = address(scratch, EDGE), BLOCK
            at, source = address(weights, matrix[fmt.AT] + block * block_bytes), address(x, 4 * begin * x_stride)
            sums = (address(scratch, TILES) + 63) // 64 * 64
            if form == fmt.FLOAT32:
                _float32_block(at, inputs, source, x_stride, place, to_stride, sums, count)
            elif form == fmt.BFLOAT16:
                _bfloat16_block(at, inputs, source, x_stride, place, to_stride, sums, count)
            else:
                _float16_block(at, inputs, source, x_stride, place, to_stride, sums, count)
            if size < BLOCK:
                _copy_edge(scratch, out, begin, count, out_stride, block, size)


def _float_block(form: int, name: str) -> Callable[..., None]:
    """A piece called `name`: one block of a float format times `rows` rows; addresses as in `_block`."""
    one, two, many = floating.tile(1, form), floating.tile(2, form), floating.tile(floating.MANY, form)

    def block(at: int, inputs: int, x: int, stride: int, to: int, to_stride: int, sums: int, rows: int) -> None:
        row = 0
        while row < rows:
            source, place = x + 4 * row * stride, to + 4 * row * to_stride
            if rows - row >= floating.MANY:
                many(at, inputs, source, stride, place, to_stride, sums)
                row += floating.MANY
            elif rows - row >= 2:
                two(at, inputs, source, stride, place, to_stride, sums)
                row += 2
            else:
                one(at, inputs, source, stride, place, to_stride, sums)
                row += 1

    return piece(named(block, name))


_float32_block = _float_block(fmt.FLOAT32, "_float32_block")
_bfloat16_block = _float_block(fmt.BFLOAT16, "_bfloat16_block")
_float16_block = _float_block(fmt.FLOAT16, "_float16_block")


def _groups(
    weights: Any, matrix: Any, act: Any, rows: int, first: int, last: int, out: Any, out_stride: int, scratch: Any
) -> None:
    """What `multiply` does for formats with groups, by the layout of the weights."""
    raise RuntimeError("runs only inside compiled code")


@chosen_by_type(_groups)
def _choose_groups(
    weights: Any, matrix: Any, act: Any, rows: Any, first: Any, last: Any, out: Any, out_stride: Any, scratch: Any
) -> Callable[..., None]:
    return _interleaved_groups if weights.dtype == types.uint8 else _plain_groups


def _plain_groups(
    weights: Any, matrix: Any, act: Any, rows: Any, first: Any, last: Any, out: Any, out_stride: Any, scratch: Any
) -> None:
    multiply_groups(weights, matrix, act, rows, first, last, out, out_stride)


def _interleaved_groups(
    weights: Any, matrix: Any, act: Any, rows: Any, first: Any, last: Any, out: Any, out_stride: Any, scratch: Any
) -> None:
    high, low, _, totals, steps, stride = act
    turns, each = matrix[fmt.PADDED] // Q_GROUP, matrix[fmt.GROUP] // Q_GROUP
    small = matrix[fmt.FORMAT] == fmt.INT4_GROUPS
    block_bytes = fmt.group_block_bytes(matrix[fmt.FORMAT], matrix[fmt.PADDED], matrix[fmt.GROUP])
    for begin in range(0, rows, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, rows - begin)
        tiles = count >= LEAST_ROWS_IN_GROUPS and amx.granted()
        if tiles:
            amx_groups.configure(min(amx.SIDE, count), min(matrix[fmt.GROUP], fmt.INPUTS_PAD))
        for block in range(first, last):
            size = min(BLOCK, matrix[fmt.OUTPUTS] - block * BLOCK)
            place, to_stride = address(out, 4 * (begin * out_stride + block * BLOCK)), out_stride
            if size < BLOCK:
                place, to_stride = address(scratch, EDGE), BLOCK
            if tiles:
                _group_tiles(
                    matrix, address(weights, matrix[fmt.AT] + block * block_bytes), address(high, begin * stride),
                    address(low, begin * stride), stride, address(steps, 4 * begin), place, to_stride, count, scratch,
                )  # fmt: skip
                if size < BLOCK:
                    _copy_edge(scratch, out, begin, count, out_stride, block, size)
                continue
            _group_block(
                small, address(weights, matrix[fmt.AT] + block * block_bytes), turns, each,
                address(high, begin * stride), address(low, begin * stride), stride,
                address(totals, 4 * (begin * stride // Q_GROUP)), address(steps, 4 * begin), place, to_stride, count,
            )  # fmt: skip
            if size < BLOCK:
                _copy_edge(scratch, out, begin, count, out_stride, block, size)
        if tiles:
            amx.release()


@piece
def _group_tiles(
    matrix: Any, at: int, high: int, low: int, stride: int, steps: int, to: int, to_stride: int, rows: int, scratch: Any
) -> None:
    """One interleaved block in groups times `rows` rows on the tile unit; addresses as in `_block`."""
    padded, group = matrix[fmt.PADDED], matrix[fmt.GROUP]
    sums, weights = (address(scratch, TILES) + 63) // 64 * 64, (address(scratch, VARIABLE) + 63) // 64 * 64
    if matrix[fmt.FORMAT] == fmt.INT4_GROUPS:
        _UNPACK_4(at, padded, group, weights)
        stored = BLOCK // 2  # bytes of an input
    else:
        _UNPACK_8(at, padded, group, weights)
        stored = BLOCK
    scales, each_scales = at + group * stored, group * stored + 2 * BLOCK
    sooner = (-padded) % group * stored
    side, row = min(amx.SIDE, rows), 0
    while row < rows:
        row = min(row, rows - side)
        h, w, t, s = high + row * stride, low + row * stride, to + 4 * row * to_stride, steps + 4 * row
        if group == Q_GROUP:
            _NARROW_GROUP_TILES(
                side, weights, group * BLOCK, scales, each_scales, padded // 32, 1, h, w, stride, s, t, to_stride, sums,
                sooner,
            )  # fmt: skip
        else:
            _GROUP_TILES(
                side, weights, group * BLOCK, scales, each_scales, padded // 64, group // 64, h, w, stride, s, t,
                to_stride, sums, sooner,
            )  # fmt: skip
        row += side


@piece
def _copy_edge(scratch: Any, out: Any, begin: int, count: int, out_stride: int, block: int, size: int) -> None:
    """What a last block that is not whole has of outputs."""
    edge = float32_window(scratch, EDGE, ROWS_AT_ONCE * BLOCK)
    for row in range(count):
        for i in range(size):
            out[(begin + row) * out_stride + block * BLOCK + i] = edge[row * BLOCK + i]


@piece
def _group_block(
    small: bool, at: int, turns: int, each: int, high: int, low: int, stride: int, totals: int, steps: int, to: int,
    to_stride: int, rows: int,
) -> None:  # fmt: skip
    """One interleaved block in groups times `rows` rows; addresses as in `_block`."""
    row = 0
    while row < rows:
        left = rows - row
        h, w, t = high + row * stride, low + row * stride, to + 4 * row * to_stride
        s, q = steps + 4 * row, totals + 4 * (row * stride // Q_GROUP)
        if left >= 4:
            if small:
                _SMALL_GROUP_4(at, turns, each, h, w, stride, q, s, t, to_stride)
            else:
                _GROUP_4(at, turns, each, h, w, stride, q, s, t, to_stride)
            row += 4
        elif left >= 2:
            if small:
                _SMALL_GROUP_2(at, turns, each, h, w, stride, q, s, t, to_stride)
            else:
                _GROUP_2(at, turns, each, h, w, stride, q, s, t, to_stride)
            row += 2
        else:
            if small:
                _SMALL_GROUP_1(at, turns, each, h, w, stride, q, s, t, to_stride)
            else:
                _GROUP_1(at, turns, each, h, w, stride, q, s, t, to_stride)
            row += 1


def _plain(
    weights: Any, floats: Any, matrix: Any, act: Any, rows: Any, first: Any, last: Any, out: Any, out_stride: Any,
    scratch: Any,
) -> None:  # fmt: skip
    multiply_rows(weights, floats, matrix, act, rows, first, last, out, out_stride, scratch)


def _interleaved(
    weights: Any, floats: Any, matrix: Any, act: Any, rows: Any, first: Any, last: Any, out: Any, out_stride: Any,
    scratch: Any,
) -> None:  # fmt: skip
    if matrix[fmt.ORDER] == fmt.BY_INPUT and rows == 1:
        _one_row_by_input(weights, floats, matrix, act, first, last, out, scratch)
        return
    high, low, _, totals, steps, stride = act
    padded, planes = matrix[fmt.PADDED], 2 if matrix[fmt.FORMAT] == fmt.INT16_ROWS else 1
    for begin in range(0, rows, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, rows - begin)
        _excess(matrix, totals, stride, begin, count, float64_window(scratch, EXCESS, ROWS_AT_ONCE))
        tiles = count >= LEAST_ROWS and amx.granted()
        if tiles:
            amx.configure(min(amx.SIDE, count))
        together = max(1, TOGETHER_BYTES // (padded * BLOCK)) if planes == 1 else 1
        for block in range(first, last):
            if matrix[fmt.ORDER] == fmt.BY_INPUT:
                at = (address(scratch, VARIABLE) + 63) // 64 * 64
                inside = (block - first) % together
                if inside == 0:
                    run, ready = matrix[fmt.BLOCKS] * BLOCK, min(together, last - block)
                    for plane in range(planes):
                        put_together(
                            address(weights, matrix[fmt.AT] + plane * padded * run + block * BLOCK), run, padded // 4,
                            ready, at + plane * padded * BLOCK,
                        )  # fmt: skip
                at += inside * planes * padded * BLOCK
            else:
                at = address(weights, matrix[fmt.AT] + block * planes * BLOCK * padded)
            size = min(BLOCK, matrix[fmt.OUTPUTS] - block * BLOCK)
            place, to_stride = address(out, 4 * (begin * out_stride + block * BLOCK)), out_stride
            if size < BLOCK:
                place, to_stride = address(scratch, EDGE), BLOCK
            _block(
                tiles, (address(scratch, TILES) + 63) // 64 * 64, planes, at, matrix[fmt.INPUTS], padded // 4,
                address(high, begin * stride), address(low, begin * stride), stride,
                address(floats, 4 * (matrix[fmt.SCALES] + block * BLOCK)), address(steps, 4 * begin),
                address(scratch, EXCESS), place, to_stride, count,
            )  # fmt: skip
            if size < BLOCK:
                _copy_edge(scratch, out, begin, count, out_stride, block, size)
        if tiles:
            amx.release()


@piece
def _excess(matrix: Any, totals: Any, stride: int, begin: int, count: int, excess: Any) -> None:
    """What weights that stand 128 too high add to the totals of each row: 128 for each plane's worth of q."""
    factor = 128.0 * 257.0 if matrix[fmt.FORMAT] == fmt.INT16_ROWS else 128.0
    for row in range(count):
        whole = window(totals, (begin + row) * stride // Q_GROUP, matrix[fmt.PADDED] // Q_GROUP)
        total = np.int64(0)
        for i in range(whole.size):
            total += whole[i]
        excess[row] = factor * np.float64(total)


@piece
def _block(
    tiles: bool, sums: int, planes: int, at: int, inputs: int, quads: int, high: int, low: int, stride: int,
    scales: int, steps: int, excess: int, to: int, to_stride: int, rows: int,
) -> None:  # fmt: skip
    """One interleaved block times `rows` rows; all but planes, inputs, quads, strides and rows are addresses."""
    row = turn = 0
    plane, few = quads * 4 * BLOCK, (inputs + 7) // 8 * 2  # quads of 0 may be left out
    if tiles:
        side, share = min(amx.SIDE, rows), quads * 4 * BLOCK // amx.SHARES
        whole = rows > amx.SIDE * (amx.SHARES - 1)  # so many turns that they can share the fetching
        while row < rows:
            row = min(row, rows - side)  # the last rows may be worked out twice
            h, w, t = high + row * stride, low + row * stride, to + 4 * row * to_stride
            s, e = steps + 4 * row, excess + 8 * row
            coming = at + (amx.SHARES + turn) * share if whole else at * (turn > 0)
            if planes == 1:
                _TILES(side, at, quads, h, w, stride, scales, s, e, t, to_stride, sums, coming)
            else:
                _WIDE_TILES(side, at, quads, h, w, stride, scales, s, e, t, to_stride, sums, coming)
            row, turn = row + side, turn + 1
    while row < rows:
        left = rows - row
        h, w, t = high + row * stride, low + row * stride, to + 4 * row * to_stride
        s, e = steps + 4 * row, excess + 8 * row
        if planes == 1:
            if left >= 4:
                _TILE_4(at, plane, few, h, w, stride, scales, s, e, t, to_stride)
                row += 4
            elif left >= 2:
                _TILE_2(at, plane, few, h, w, stride, scales, s, e, t, to_stride)
                row += 2
            else:
                _TILE_1(at, plane, few, h, w, stride, scales, s, e, t, to_stride)
                row += 1
        elif left >= 4:
            _WIDE_TILE_4(at, plane, few, h, w, stride, scales, s, e, t, to_stride)
            row += 4
        elif left >= 2:
            _WIDE_TILE_2(at, plane, few, h, w, stride, scales, s, e, t, to_stride)
            row += 2
        else:
            _WIDE_TILE_1(at, plane, few, h, w, stride, scales, s, e, t, to_stride)
            row += 1


@piece
def _one_row_by_input(
    weights: Any, floats: Any, matrix: Any, act: Any, first: int, last: int, out: Any, scratch: Any
) -> None:
    high, low, _, totals, steps, stride = act
    padded, run = matrix[fmt.PADDED], matrix[fmt.BLOCKS] * BLOCK
    # Inputs that are not 0, with their q, closed up; and behind them what `weigh` may look ahead to.
    inputs = int32_window(scratch, VARIABLE, padded + 3 * TOGETHER)
    place = VARIABLE + 4 * (padded + 3 * TOGETHER)
    highs = int8_window(scratch, place, padded + TOGETHER)
    lows = int8_window(scratch, place + padded + TOGETHER, padded + TOGETHER)
    place += 2 * (padded + TOGETHER)
    count = np.int64(0)
    for i in range(padded):  # without a branch, for half of its outcomes would be guessed wrong
        inputs[count], highs[count], lows[count] = i, high[i], low[i]
        count += (high[i] | low[i]) != 0
    for i in range(TOGETHER):
        highs[count + i], lows[count + i] = 0, 0
    for i in range(count, count + 3 * TOGETHER):
        inputs[i] = inputs[count - 1] if count else 0
    begin = first * BLOCK
    columns = ((last - first) * BLOCK + _COLUMN - 1) // _COLUMN
    sums_at = (place + 63) // 64 * 64
    totals_at = sums_at + 8 * columns * _COLUMN
    sums = int32_window(scratch, sums_at, 2 * columns * _COLUMN)
    wholes = float64_window(scratch, totals_at, columns * _COLUMN)
    for i in range(wholes.size):
        wholes[i] = 0.0
    for plane in range(2 if matrix[fmt.FORMAT] == fmt.INT16_ROWS else 1):
        for i in range(sums.size):
            sums[i] = 0
        for i in range(0, count, TOGETHER):
            weigh(
                address(weights, matrix[fmt.AT] + plane * padded * run + begin), run, address(inputs, 4 * i),
                address(highs, i), address(lows, i), columns, address(scratch, sums_at),
            )  # fmt: skip
        finish(address(scratch, sums_at), columns, 256.0, address(scratch, totals_at))
    excess = float64_window(scratch, EXCESS, ROWS_AT_ONCE)
    _excess(matrix, totals, stride, 0, 1, excess)
    for block in range(first, last):
        whole, scales = address(wholes, 8 * BLOCK * (block - first)), matrix[fmt.SCALES] + block * BLOCK
        size = min(BLOCK, matrix[fmt.OUTPUTS] - block * BLOCK)
        if size == BLOCK:
            scaled(whole, excess[0], address(floats, 4 * scales), steps[0], address(out, 4 * block * BLOCK))
        else:
            edge = float32_window(scratch, EDGE, BLOCK)
            scaled(whole, excess[0], address(floats, 4 * scales), steps[0], address(edge, 0))
            for i in range(size):
                out[block * BLOCK + i] = edge[i]
