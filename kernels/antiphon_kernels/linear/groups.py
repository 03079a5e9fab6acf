"""Rows of activations times one interleaved block whose inputs share scales by groups.

A block holds group after group: its bytes, and then the group's 32 scales in float16. int8 bytes are [quad][output]
[input of the quad], 128 too high; int4 halves stand two quads to a byte, the earlier one in its lower half, 8 too high.
A group's total is an exact int32; over the groups they are added up in float32, one fused product and sum each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.linear.emit import F32, I32
from antiphon_kernels.linear.format import BLOCK, Q_GROUP
from antiphon_kernels.linear.vnni import QUAD_BYTES, Products

SCALE_BYTES = 2 * BLOCK
AHEAD = 8192  # bytes between what is multiplied and what is fetched; with 4,096 int4 is a tenth slower
QUADS = Q_GROUP // 4
"""Quads that are multiplied in one turn: 32 inputs, whose activations have a total of their own."""


def tile(rows: int, bits: int) -> Callable[..., None]:
    """An intrinsic: `rows` rows of activations times one block of 8-bit or 4-bit weights in groups.

    Its arguments are int64; a stride is in items: weights, the block's address; turns, inputs / 32; each, inputs of a
    group / 32; high, low and stride, the planes of the first row; totals (int32, q's totals of 32 inputs each,
    stride / 32 a row); steps (float32 [rows]); to and to_stride, where the float32 outputs go.
    """

    @intrinsic
    def multiply(
        _typing: Any, weights: Any, turns: Any, each: Any, high: Any, low: Any, stride: Any, totals: Any, steps: Any,
        to: Any, to_stride: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _Tile(builder, rows, bits).emit(*args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return multiply


class _Tile(Products):
    """Writes the loop over groups and, within, the loop over their turns."""

    def __init__(self, builder: Any, rows: int, bits: int) -> None:
        super().__init__(builder)
        self._rows, self._bits_of_weight = rows, bits
        self._turn_bytes = QUADS * QUAD_BYTES * bits // 8
        room = 24 if self.bits == 512 else 12
        self._together = self.vectors
        while self._together > 1 and self._together * rows * 3 > room:
            self._together //= 2

    def emit(
        self, weights: Any, turns: Any, each: Any, high: Any, low: Any, stride: Any, totals: Any, steps: Any,
        to: Any, to_stride: Any,
    ) -> None:  # fmt: skip
        builder = self.builder
        lines = [builder.mul(stride, self.number(row)) for row in range(self._rows)]
        none = builder.sub(each, self.number(1))
        groups = builder.udiv(builder.add(turns, none), each)
        group_bytes = self.at(self.times(each, self._turn_bytes), SCALE_BYTES)
        zero = self.every(self.floats, 0.0)
        for first in range(0, self.vectors, self._together):
            parts = range(first, first + self._together)
            places = [(row, part) for row in range(self._rows) for part in parts]

            def group(
                number: Any, sums: Any, parts: range = parts, places: list[tuple[int, int]] = places
            ) -> list[Any]:
                begin = builder.mul(number, each)
                left = builder.sub(turns, begin)
                count = builder.select(builder.icmp_signed("<", left, each), left, each)
                here = self.at(weights, builder.mul(number, group_bytes))
                wholes = self._group(here, begin, count, high, low, lines, totals, parts, places)
                scales_at = self.at(here, self.times(count, self._turn_bytes))
                scales = {part: self.halves(self.at(scales_at, 2 * self.lanes * part), self.lanes) for part in parts}
                return [
                    self.fma(builder.sitofp(whole, self.floats), scales[part], total)
                    for (_, part), whole, total in zip(places, wholes, sums, strict=True)
                ]

            sums = self.loop(groups, [zero] * len(places), group)
            for (row, part), total in zip(places, sums, strict=True):
                step = self.spread(self.load(self.at(steps, 4 * row), F32), self.lanes)
                line = self.at(to, self.times(builder.mul(to_stride, self.number(row)), 4))
                self.store(builder.fmul(total, step), self.at(line, 4 * self.lanes * part))

    def _group(
        self, weights: Any, begin: Any, count: Any, high: Any, low: Any, lines: list[Any], totals: Any, parts: range,
        places: list[tuple[int, int]],
    ) -> list[Any]:  # fmt: skip
        """The exact totals of one group, by row and vector of outputs."""
        builder = self.builder
        kinds = 2 * len(places)

        def turn(number: Any, carried: Any) -> list[Any]:
            held = {place: list(carried[2 * i : 2 * i + 2]) for i, place in enumerate(places)}
            over = list(carried[kinds:])
            here = self.at(weights, self.times(number, self._turn_bytes))
            at = builder.add(begin, number)
            inputs = self.times(at, Q_GROUP)
            for line in range(0, self._turn_bytes, 64):
                self.fetch(self.at(here, AHEAD + line))
            known: dict[tuple[int, int], Any] = {}
            for quad in range(QUADS):
                for row, line in enumerate(lines):
                    both = [self.four(self.at(side, line, inputs, 4 * quad)) for side in (high, low)]
                    for part in parts:
                        if row == 0:
                            known[quad, part] = self._loaded(here, quad, part)
                        kind = held[row, part]
                        for side in range(2):
                            kind[side] = self.product(kind[side], known[quad, part], both[side])
            for row, line in enumerate(lines):
                place = self.at(totals, builder.udiv(line, self.number(Q_GROUP // 4)), self.times(at, 4))
                over[row] = builder.add(over[row], self.load(place, I32))
            return [total for place in places for total in held[place]] + over

        start = [self.zero] * kinds + [I32(0)] * self._rows
        given = self.loop(count, start, turn)
        wholes = []
        for i, (row, _) in enumerate(places):
            high_total, low_total = given[2 * i : 2 * i + 2]
            shift = 7 if self._bits_of_weight == 8 else 3
            off = builder.shl(given[kinds + row], I32(shift))
            shifted = builder.shl(high_total, self.every(self.ints, 8))
            wholes.append(builder.sub(builder.add(shifted, low_total), self.spread(off, self.lanes)))
        return wholes

    def _loaded(self, here: Any, quad: int, part: int) -> Any:
        """One quad of a vector of outputs as unsigned bytes."""
        if self._bits_of_weight == 8:
            return self.load(self.at(here, QUAD_BYTES * quad + self.bits // 8 * part), self.ints)
        packed = self.load(self.at(here, QUAD_BYTES * (quad // 2) + self.bits // 8 * part), self.ints)
        if quad % 2:
            packed = self.builder.lshr(packed, self.every(self.ints, 4))
        return self.builder.and_(packed, self.every(self.ints, 0x0F0F0F0F))
