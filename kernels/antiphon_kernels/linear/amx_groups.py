"""Rows of activations times one block in groups, on the processor's tile unit.

Totals leave the tiles after every group: 16 rows of 16 outputs are added up in registers while the tiles work on the
next group. Weights are unpacked to signed bytes once for all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.linear.amx import SIDE, TILE_BYTES, Tiles
from antiphon_kernels.linear.emit import F32, I32, Emitter, vector
from antiphon_kernels.linear.format import BLOCK, INPUTS_PAD, Q_GROUP
from antiphon_kernels.linear.groups import SCALE_BYTES
from antiphon_kernels.linear.processor import has_amx
from antiphon_kernels.linear.vnni import AHEAD, QUAD_BYTES

_LINE = 64


def unpack(bits: int) -> Callable[..., None]:
    """An intrinsic: the block at address `weights` as signed bytes in quads at `to`; scales are left out."""

    @intrinsic
    def unpack_block(_typing: Any, weights: Any, inputs: Any, group: Any, to: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            code, (weights, inputs, group, to) = Emitter(builder), args
            line = vector(ir.IntType(8), _LINE)
            inside = 32 // bits  # inputs whose weights stand in the same bytes, for 32 outputs in two lines
            each = builder.udiv(group, code.number(inside))

            def turn(number: Any, _: Any) -> list[Any]:
                scales = code.times(builder.udiv(number, each), SCALE_BYTES)
                here = code.at(weights, code.times(number, QUAD_BYTES), scales)
                there = code.at(to, code.times(number, inside // 4 * QUAD_BYTES))
                for part in range(0, QUAD_BYTES, _LINE):
                    packed = code.load(code.at(here, part), line)
                    code.fetch(code.at(here, AHEAD + part))
                    if bits == 8:
                        code.store(builder.xor(packed, code.every(line, 128)), code.at(there, part))
                        continue
                    halves = builder.and_(packed, code.every(line, 15)), builder.lshr(packed, code.every(line, 4))
                    for quad, half in enumerate(halves):
                        signed = builder.sub(half, code.every(line, 8))
                        code.store(signed, code.at(there, QUAD_BYTES * quad + part))
                return []

            code.loop(builder.udiv(inputs, code.number(inside)), [], turn)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), generate

    return unpack_block


@intrinsic
def configure(_typing: Any, rows: Any, inputs: Any) -> Any:
    """Take the tiles into use for `rows` rows, at most 16, and for 32 or 64 inputs at a time."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if has_amx():
            Tiles(builder).configure(args[0], inputs=args[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def multiply(inputs: int) -> Callable[..., None]:
    """An intrinsic: 16 rows of activations times one block, `inputs` (32 or 64) of a group at a time.

    Its arguments are int64: rows, how many of the 16 there are; weights, the signed bytes, and each, from one group to
    the next; scales and each_scales, the same for the scales; turns, how often `inputs` in all, and per, in a group;
    high, low and stride, the planes of the first row; steps (float32 [rows]); to and to_stride, where the outputs go;
    sums, room for 4 tiles; sooner, by how many bytes the scales of a last group that is not whole come sooner.
    """

    @intrinsic
    def multiply_rows(
        _typing: Any, rows: Any, weights: Any, each: Any, scales: Any, each_scales: Any, turns: Any, per: Any,
        high: Any, low: Any, stride: Any, steps: Any, to: Any, to_stride: Any, sums: Any, sooner: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            if has_amx():
                _Block(builder, inputs).emit(*args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 15), generate

    return multiply_rows


class _Block(Tiles):
    """Writes, for each half of the outputs, the loop over groups."""

    def __init__(self, builder: Any, inputs: int) -> None:
        super().__init__(builder)
        self._inputs = inputs
        self._ints, self._floats = vector(I32, SIDE), vector(F32, SIDE)

    def emit(
        self, rows: Any, weights: Any, each: Any, scales: Any, each_scales: Any, turns: Any, per: Any, high: Any,
        low: Any, stride: Any, steps: Any, to: Any, to_stride: Any, sums: Any, sooner: Any,
    ) -> None:  # fmt: skip
        builder = self.builder
        groups = builder.udiv(builder.add(turns, builder.sub(per, self.number(1))), per)
        last = builder.sub(groups, self.number(1))

        def room_of(number: Any) -> Any:
            return self.at(sums, self.times(builder.and_(number, self.number(1)), 2 * TILE_BYTES))

        for half in (0, 1):

            def start(number: Any, room: Any, half: int = half) -> None:
                begin = builder.mul(number, per)
                left = builder.sub(turns, begin)
                count = builder.select(builder.icmp_signed("<", left, per), left, per)
                here = self.at(weights, builder.mul(number, each), 4 * SIDE * half)
                self._totals(here, begin, count, high, low, stride, room)

            def group(number: Any, carried: Any, half: int = half, start: Callable[..., None] = start) -> list[Any]:
                following = builder.add(number, self.number(1))
                ahead = builder.select(builder.icmp_signed("<", following, groups), following, last)
                start(ahead, room_of(following))  # the tiles are at work on it while this one is added up
                room = room_of(number)
                whole_groups = builder.icmp_signed("<=", builder.mul(following, per), turns)
                short = builder.select(whole_groups, self.number(0), sooner)
                place = self.at(scales, builder.mul(number, each_scales), 2 * SIDE * half)
                scale = self.halves(builder.sub(place, short), SIDE)
                added = []
                for row, total in enumerate(carried):
                    upper, lower = (
                        self.load(self.at(room, TILE_BYTES * side + 4 * SIDE * row), self._ints) for side in (0, 1)
                    )
                    whole = builder.add(builder.shl(upper, self.every(self._ints, 8)), lower)
                    added.append(self.fma(builder.sitofp(whole, self._floats), scale, total))
                return added

            start(self.number(0), room_of(self.number(0)))
            outputs = self.loop(groups, [self.every(self._floats, 0.0)] * SIDE, group)
            for row, output in enumerate(outputs):
                with builder.if_then(builder.icmp_signed("<", self.number(row), rows)):
                    step = self.spread(self.load(self.at(steps, 4 * row), F32), SIDE)
                    line = self.at(to, self.times(builder.mul(to_stride, self.number(row)), 4), 4 * SIDE * half)
                    self.store(builder.fmul(output, step), line)

    def _totals(self, weights: Any, begin: Any, count: Any, high: Any, low: Any, stride: Any, room: Any) -> None:
        """High and low totals of one group."""
        for tile in (0, 1):
            self.zero(tile)

        def turn(number: Any, _: Any) -> list[Any]:
            at = self.times(self.builder.add(begin, number), self._inputs)
            self.fill(6, self.at(weights, self.times(number, self._inputs * BLOCK)), self.number(QUAD_BYTES))
            for side, plane in enumerate((high, low)):
                self.fill(4 + side, self.at(plane, at), stride)
                self.add(side, 4 + side, 6, signed=True)
            return []

        if self._inputs == Q_GROUP:  # a group is one turn
            turn(self.number(0), [])
        else:
            self.loop(count, [], turn)
        for tile in (0, 1):
            self.keep(tile, self.at(room, TILE_BYTES * tile))


assert INPUTS_PAD == 2 * Q_GROUP
