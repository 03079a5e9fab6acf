"""Rows of activations times one interleaved block, four bytes at a time by the processor's VNNI instruction.

A block is 32 outputs; its bytes are interleaved by four inputs, [quad][output][input of the quad], and stand 128 too
high (8, for int4), because the instruction wants one side unsigned. What that adds is the same for all outputs of a
row, and is taken off at the end. Weights are loaded once for all rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.linear.emit import F32, F64, I32, Emitter, vector
from antiphon_kernels.linear.format import BLOCK
from antiphon_kernels.linear.processor import vnni_bits

AHEAD = 4096  # bytes between what is multiplied and what is fetched; 2,048 to 8,192 measured alike, none is slower
QUAD_BYTES = 4 * BLOCK

_ADDRESSES = types.void(*[types.int64] * 11)


class Products(Emitter):
    """Byte dot products at this processor's width."""

    def __init__(self, builder: Any, bits: int = 0) -> None:
        super().__init__(builder)
        self.bits = bits or vnni_bits()
        if not self.bits:
            raise numba.core.errors.UnsupportedError("interleaved weights need a processor with VNNI")
        self.lanes = self.bits // 32
        self.vectors = BLOCK // self.lanes
        self.ints, self.floats, self.doubles = (vector(kind, self.lanes) for kind in (I32, F32, F64))
        self.zero = self.every(self.ints, 0)

    def product(self, total: Any, weights: Any, activations: Any) -> Any:
        """total + four unsigned bytes of `weights` times four signed ones of `activations`, in each lane."""
        return self.call(f"llvm.x86.avx512.vpdpbusd.{self.bits}", self.ints, [total, weights, activations])

    def four(self, address: Any) -> Any:
        """Four activations, the same in every lane."""
        return self.spread(self.load(address, I32), self.lanes)


def tile(rows: int, planes: int) -> Callable[..., None]:
    """An intrinsic: `rows` rows of activations times one block of `planes` planes of int8 weights.

    Its arguments are int64; a stride is in items: weights, the block's address, and plane, bytes from one of its planes
    to the next; quads, an even number, at least inputs / 4; high, low and stride, the planes of the first row; scales
    (float32 [32]); steps (float32 [rows]); excess (float64 [rows]: what comes off a total); to and to_stride, where the
    float32 outputs go.
    """

    @intrinsic
    def multiply(
        _typing: Any, weights: Any, plane: Any, quads: Any, high: Any, low: Any, stride: Any, scales: Any, steps: Any,
        excess: Any, to: Any, to_stride: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _Tile(builder, rows, planes).emit(*args)
            return context.get_dummy_value()

        return _ADDRESSES, generate

    return multiply


class _Tile(Products):
    """Writes the loop over quads: per vector of outputs one load, per row and plane one product."""

    def __init__(self, builder: Any, rows: int, planes: int) -> None:
        super().__init__(builder)
        self._rows, self._planes = rows, planes
        self._kinds = planes + 1  # of sums: high and low; with 16-bit weights high, mixed and low
        # Of 32 or 16 registers a quarter is left to weights and activations.
        room = 24 if self.bits == 512 else 12
        self._together = self.vectors
        while self._together > 1 and self._together * rows * self._kinds > room:
            self._together //= 2
        # One row alone waits for its sums; two sets of them, for even and odd quads, halve that.
        self._sets = 2 if 2 * self._together * rows * self._kinds <= room else 1

    def emit(
        self, weights: Any, plane: Any, quads: Any, high: Any, low: Any, stride: Any, scales: Any, steps: Any,
        excess: Any, to: Any, to_stride: Any,
    ) -> None:  # fmt: skip
        rows = [self.at(self.number(0), self.builder.mul(stride, self.number(row))) for row in range(self._rows)]
        planes = [self.builder.mul(plane, self.number(number)) for number in range(self._planes)]
        for first in range(0, self.vectors, self._together):
            parts = range(first, first + self._together)
            totals = self._sums(weights, planes, quads, high, low, rows, parts)
            for row in range(self._rows):
                off = self.spread(self.load(self.at(excess, 8 * row), F64), self.lanes)
                step = self.spread(self.load(self.at(steps, 4 * row), F32), self.lanes)
                line = self.at(to, self.times(self.builder.mul(to_stride, self.number(row)), 4))
                for part in parts:
                    scale = self.builder.fmul(self.load(self.at(scales, 4 * self.lanes * part), self.floats), step)
                    whole = self._whole(totals[row, part], off)
                    self.store(self.builder.fmul(whole, scale), self.at(line, 4 * self.lanes * part))

    def _sums(
        self, weights: Any, planes: list[Any], quads: Any, high: Any, low: Any, rows: list[Any], parts: range
    ) -> dict[tuple[int, int], list[Any]]:
        """The totals of each kind, by row and vector of outputs."""
        places = [(s, row, part) for s in range(self._sets) for row in range(self._rows) for part in parts]

        def turn(number: Any, sums: Any) -> list[Any]:
            held = {place: list(sums[i * self._kinds : (i + 1) * self._kinds]) for i, place in enumerate(places)}
            for s in range(self._sets):
                quad = self.at(self.times(number, self._sets), s)
                here = [self.at(weights, plane, self.times(quad, QUAD_BYTES)) for plane in planes]
                loaded = {
                    (plane, part): self.load(self.at(here[plane], self.bits // 8 * part), self.ints)
                    for plane in range(self._planes)
                    for part in parts
                }
                for plane in range(self._planes):
                    for line in range(0, QUAD_BYTES, 64):
                        self.fetch(self.at(here[plane], AHEAD + line))
                for row in range(self._rows):
                    four = self.times(quad, 4)
                    both = [self.four(self.at(side, rows[row], four)) for side in (high, low)]
                    for part in parts:
                        for plane in range(self._planes):
                            for side in range(2):
                                kind = held[s, row, part]
                                kind[plane + side] = self.product(kind[plane + side], loaded[plane, part], both[side])
            return [total for place in places for total in held[place]]

        turns = self.builder.udiv(quads, self.number(self._sets))
        sums = self.loop(turns, [self.zero] * (len(places) * self._kinds), turn)
        totals: dict[tuple[int, int], list[Any]] = {}
        for i, (_, row, part) in enumerate(places):
            kinds = sums[i * self._kinds : (i + 1) * self._kinds]
            known = totals.get((row, part))
            totals[row, part] = (
                kinds if known is None else [self.builder.add(*two) for two in zip(known, kinds, strict=True)]
            )
        return totals

    def _whole(self, kinds: list[Any], off: Any) -> Any:
        """float32 of the total: 256 * high + low - off is far below 2**53, so float64 holds it exactly."""
        total = self.builder.sitofp(kinds[0], self.doubles)
        for kind in kinds[1:]:
            shifted = self.builder.fmul(total, self.every(self.doubles, 256.0))
            total = self.builder.fadd(shifted, self.builder.sitofp(kind, self.doubles))
        return self.builder.fptrunc(self.builder.fsub(total, off), self.floats)
