"""Where the bytes of a matrix lie, and the writing of one matrix into its place in memory that all matrices share.

Interleaved (for VNNI and tiles): a block is 32 outputs, its bytes [plane][quad of inputs][output][input of the quad],
each 128 higher than the weight. Plain: [plane][output][input]. BY_INPUT: [plane][input][output], one run of all outputs
after the other; interleaved, outputs within a block stand as `by_input.py` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.format import BLOCK, up

Array = npt.NDArray[Any]

SPARE = 64  # bytes after a matrix that lies by input: the last run may be read in whole vectors


def sizes_of(form: int, outputs: int, inputs: int, *, group: int = 0, order: int = fmt.BY_OUTPUT) -> tuple[int, int]:
    """(bytes of weights, float32 numbers of scales) that a matrix takes, both whole cache lines.

    ValueError for sizes that cannot be held.
    """
    if not 0 < inputs <= fmt.MOST_INPUTS or outputs <= 0:
        raise ValueError(f"a matrix of {outputs} x {inputs} cannot be held: 1 to {fmt.MOST_INPUTS} inputs are")
    blocks, padded = up(outputs, BLOCK) // BLOCK, up(inputs, fmt.INPUTS_PAD)
    if form in (fmt.INT8_GROUPS, fmt.INT4_GROUPS):
        if group not in fmt.GROUPS:
            raise ValueError(f"a group of {group} inputs cannot be held, but one of {fmt.GROUPS}")
        return blocks * int(fmt.group_block_bytes(form, padded, group)), 0
    if form >= fmt.FLOAT32:
        return blocks * int(fmt.float_block_bytes(form, inputs)), 0
    planes = 2 if form == fmt.INT16_ROWS else 1
    spare = SPARE if order == fmt.BY_INPUT else 0
    return planes * blocks * BLOCK * padded + spare, up(blocks * BLOCK, 16)


def describe(
    form: int, outputs: int, inputs: int, *, group: int = 0, order: int = fmt.BY_OUTPUT, at: int = 0, scales: int = 0
) -> npt.NDArray[np.int64]:
    """The row of int64 of a matrix whose weights begin at byte `at` and whose scales at float `scales`."""
    row = np.zeros(fmt.MATRIX_COLUMNS, np.int64)
    row[fmt.FORMAT], row[fmt.AT], row[fmt.SCALES], row[fmt.GROUP], row[fmt.ORDER] = form, at, scales, group, order
    row[fmt.INPUTS], row[fmt.OUTPUTS] = inputs, outputs
    row[fmt.BLOCKS], row[fmt.PADDED] = up(outputs, BLOCK) // BLOCK, up(inputs, fmt.INPUTS_PAD)
    return row


def lay_out(
    values: Array,
    scales: Array | None,
    row: npt.NDArray[np.int64],
    weights: Array,
    floats: npt.NDArray[np.float32],
    *,
    interleave: bool,
) -> None:
    """Write one matrix into its bytes `weights` and numbers `floats`, as many as `sizes_of` says.

    `values` [out, in]: int8 (INT8_ROWS, INT8_GROUPS), int16 within LEVELS (INT16_ROWS) or int8 from -8 to 7
    (INT4_GROUPS); for float formats any floating point, which is rounded, or uint16 that hold bfloat16 (BFLOAT16).
    `scales` float32 [out]; of groups [out, groups], which are rounded to float16. ValueError when they do not fit.
    """
    outputs, inputs = int(row[fmt.OUTPUTS]), int(row[fmt.INPUTS])
    if values.shape != (outputs, inputs):
        raise ValueError(f"values are {'x'.join(map(str, values.shape))}, not {outputs}x{inputs}")
    blocks, padded = int(row[fmt.BLOCKS]), int(row[fmt.PADDED])
    if row[fmt.FORMAT] in (fmt.INT8_GROUPS, fmt.INT4_GROUPS):
        _lay_out_groups(values, scales, row, weights.reshape(-1), interleave)
        return
    if row[fmt.FORMAT] >= fmt.FLOAT32:
        _lay_out_floats(values, row, weights.reshape(-1))
        return
    planes: tuple[Array, ...] = split_16(values) if row[fmt.FORMAT] == fmt.INT16_ROWS else (values,)
    full = np.zeros((len(planes), blocks * BLOCK, padded), np.int8)
    for plane, values_of in zip(full, planes, strict=True):
        plane[:outputs, :inputs] = values_of
    laid: Array
    body = weights.reshape(-1)[: full.size]
    if row[fmt.ORDER] == fmt.BY_INPUT:
        laid = full.transpose(0, 2, 1)
        if interleave:
            # [eighth][half][of four] -> [half][eighth][of four]
            laid = laid.reshape(len(planes), padded, blocks, 4, 2, 4).swapaxes(3, 4)
    else:
        laid = full.reshape(len(planes), blocks, BLOCK, padded).swapaxes(0, 1)
        if interleave:
            laid = laid.reshape(blocks, len(planes), BLOCK, padded // 4, 4).swapaxes(2, 3)
    body.view(np.int8).reshape(laid.shape)[:] = laid
    if interleave:
        body.view(np.uint8)[:] ^= 128  # 128 higher, as an unsigned byte
    floats[:] = 0
    if scales is None or scales.shape != (outputs,):
        raise ValueError(f"scales must be {outputs} numbers")
    floats[:outputs] = scales


def _lay_out_groups(
    values: Array, scales: Array | None, row: npt.NDArray[np.int64], weights: Array, interleave: bool
) -> None:
    """Write a matrix in groups: see `groups.py` (interleaved) and `plain.py`."""
    (outputs, inputs), blocks, padded = values.shape, int(row[fmt.BLOCKS]), int(row[fmt.PADDED])
    group, small = int(row[fmt.GROUP]), row[fmt.FORMAT] == fmt.INT4_GROUPS
    count = up(padded, group) // group
    if scales is None or scales.shape != (outputs, up(inputs, group) // group):
        raise ValueError(f"scales must be {outputs}x{up(inputs, group) // group} numbers")
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError("a scale is beyond float16")
    by_output = np.zeros((blocks * BLOCK, count), np.float16)
    by_output[:outputs, : half.shape[1]] = half
    by_group = np.ascontiguousarray(by_output.reshape(blocks, BLOCK, count).swapaxes(1, 2)).view(np.uint8)
    full = np.zeros((blocks * BLOCK, padded), np.int8)
    full[:outputs, :inputs] = values
    if small:
        if full.min() < -8 or full.max() > 7:
            raise ValueError("a 4-bit value is not from -8 to 7")
        full += 8
    size = blocks * int(fmt.group_block_bytes(int(row[fmt.FORMAT]), padded, group))
    laid = weights[:size].view(np.uint8).reshape(blocks, -1)
    if not interleave:
        lines = full.reshape(blocks, BLOCK, padded)
        flat: Array = lines
        if small:  # 32 inputs in 16 bytes, the first 16 in the lower halves
            halves = lines.reshape(blocks, BLOCK, padded // 32, 2, 16)
            flat = halves[:, :, :, 0] | halves[:, :, :, 1] << 4
        flat = flat.reshape(blocks, -1).view(np.uint8)
        laid[:, : flat.shape[1]] = flat
        laid[:, flat.shape[1] :] = by_group.reshape(blocks, -1)
        return
    quads = full.reshape(blocks, BLOCK, padded // 4, 4).swapaxes(1, 2)
    if small:  # two quads to a byte, the earlier one in the lower half
        quads = quads[:, 0::2] | quads[:, 1::2] << 4
    flat = quads.reshape(blocks, -1).view(np.uint8)
    if not small:
        flat = flat ^ 128
    each, at = flat.shape[1] * group // padded, 0
    for number in range(count):
        part = flat[:, number * each : (number + 1) * each]
        laid[:, at : at + part.shape[1]] = part
        at += part.shape[1]
        laid[:, at : at + 2 * BLOCK] = by_group[:, number]
        at += 2 * BLOCK


def _lay_out_floats(values: Array, row: npt.NDArray[np.int64], weights: Array) -> None:
    """Write a matrix of a float format, see `floating.py`."""
    (outputs, inputs), blocks, form = values.shape, int(row[fmt.BLOCKS]), int(row[fmt.FORMAT])
    held = to_float(form, values)
    lines = np.zeros((blocks * BLOCK, up(inputs, 4)), held.dtype)
    lines[:outputs, :inputs] = held
    size = blocks * int(fmt.float_block_bytes(form, inputs))
    laid = weights[:size].view(held.dtype).reshape(blocks, -1, BLOCK)
    laid[:] = lines.reshape(blocks, BLOCK, -1).swapaxes(1, 2)


def to_float(form: int, values: Array) -> Array:
    """Finite `values` as a float format holds them: float32, float16, or uint16 that are bfloat16; ValueError else."""
    if form == fmt.BFLOAT16 and values.dtype == np.uint16:
        held, finite = values, bool((values & 0x7F80 != 0x7F80).all())
    elif form == fmt.BFLOAT16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        held = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)  # to nearest, halves to even
        finite = bool(np.isfinite(values).all() and (held & 0x7F80 != 0x7F80).all())
    else:
        with np.errstate(over="ignore"):
            held = values.astype(np.float32 if form == fmt.FLOAT32 else np.float16)
        finite = bool(np.isfinite(held).all())
    if not finite:
        raise ValueError("a weight is not finite, or beyond its format")
    return held


def split_16(values: Array) -> tuple[Array, Array]:
    """(high, low) signed byte planes of integers within LEVELS: values = 256 * high + low."""
    wide = values.astype(np.int32)
    low = (wide + 128) % 256 - 128
    return ((wide - low) // 256).astype(np.int8), low.astype(np.int8)


def to_16_bits(weight: Array) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """(int16 [out, in] within LEVELS, scale [out]) nearest to a finite floating-point weight."""
    wide = weight.astype(np.float64)
    scale = (np.abs(wide).max(axis=1) / fmt.LEVELS).astype(np.float32)
    safe = np.where(scale > 0, scale, np.float32(1)).astype(np.float64)
    return np.clip(np.rint(wide / safe[:, None]), -fmt.LEVELS, fmt.LEVELS).astype(np.int16), scale
