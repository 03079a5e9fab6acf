"""ggml's blocks of 32 numbers: float32 rows to the bytes of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.

Each block begins with its step `d` (and its least value `m` in the _1 types) as float16; the low halves of the bytes
are numbers 0 to 15, the high ones 16 to 31, and bit j of `qh` is the fifth bit of number j. The rounding is that of
ggml's reference (quantize_row_*_ref in ggml-quants.c, MIT), so that files equal those of rwkv.cpp's own tool.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

BLOCK = 32

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class BlockType(IntEnum):
    """The types, by their codes in rwkv.cpp's files."""

    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 7
    Q5_1 = 8
    Q8_0 = 9

    @property
    def block_bytes(self) -> int:
        """Bytes that 32 numbers take."""
        return {2: 18, 3: 20, 7: 22, 8: 24, 9: 34}[self.value]


def to_blocks(values: Floats, kind: BlockType) -> Bytes:
    """Float32 [rows, 32 n] to bytes [rows, n * block_bytes].

    ValueError when the rows do not divide into blocks, OverflowError when a step is beyond float16.
    """
    rows, width = values.shape
    if width % BLOCK:
        raise ValueError(f"rows of {width} numbers do not divide into blocks of {BLOCK}")
    x = np.ascontiguousarray(values, np.float32).reshape(-1, BLOCK)
    if kind is BlockType.Q8_0:
        parts = _q8_0(x)
    elif kind in (BlockType.Q4_0, BlockType.Q5_0):
        parts = _signed(x, levels=16 if kind is BlockType.Q4_0 else 32)
    else:
        parts = _offset(x, levels=16 if kind is BlockType.Q4_1 else 32)
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def _q8_0(x: Floats) -> list[Bytes]:
    step = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    scaled = x * _inverse(step)
    # C's roundf: halves away from zero.
    q = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    return [_halves(step), q.view(np.uint8)]


def _signed(x: Floats, *, levels: int) -> list[Bytes]:
    """Q4_0 and Q5_0: the number of the largest magnitude becomes the lowest level."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    step = extreme / np.float32(-levels // 2)
    q = np.minimum((x * _inverse(step) + np.float32(levels / 2 + 0.5)).astype(np.int8), levels - 1).astype(np.uint8)
    return [_halves(step), *_bits(q, levels)]


def _offset(x: Floats, *, levels: int) -> list[Bytes]:
    """Q4_1 and Q5_1: levels between the least and the largest number."""
    least = x.min(axis=1, keepdims=True)
    step = (x.max(axis=1, keepdims=True) - least) / np.float32(levels - 1)
    q = np.minimum(((x - least) * _inverse(step) + np.float32(0.5)).astype(np.uint8), levels - 1).astype(np.uint8)
    return [_halves(step), _halves(least), *_bits(q, levels)]


def _bits(q: Bytes, levels: int) -> list[Bytes]:
    nibbles = ((q[:, :16] & 15) | (q[:, 16:] << 4)).astype(np.uint8)
    if levels == 16:
        return [nibbles]
    fifth = np.packbits(q >> 4, axis=1, bitorder="little")
    return [fifth, nibbles]


def _inverse(step: Floats) -> Floats:
    """1 / step, and 0 where the step is 0."""
    return np.divide(np.float32(1), step, out=np.zeros_like(step), where=step != 0)


def _halves(values: Floats) -> Bytes:
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.isfinite(halves).all():
        raise OverflowError("its numbers are too large for blocks, whose step is a float16")
    return halves.view(np.uint8)
