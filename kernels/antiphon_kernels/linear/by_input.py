"""Weights that lie input by input: one row of activations skips the inputs that are 0; more rows put blocks together.

A run holds all outputs of one input. For VNNI the 32 outputs of a block stand in the order [half][eighth][of four]
within their run, so that four runs, unpacked against each other, give quads of consecutive outputs.
"""

from __future__ import annotations

from typing import Any

from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.linear.emit import F32, F64, I8, I32, I64, vector
from antiphon_kernels.linear.format import BLOCK
from antiphon_kernels.linear.vnni import QUAD_BYTES, Products

TOGETHER = 8
"""Inputs that are weighed in one pass over the outputs."""

AHEAD = 32
"""Inputs between what is put together and what is fetched."""


def _quads(code: Products, runs: list[Any]) -> list[Any]:
    """Four runs of bytes as four vectors of quads: in each 128 bits, outputs 0-3, 4-7, 8-11 and 12-15."""
    lanes = runs[0].type.count

    def unpacked(a: Any, b: Any, size: int, upper: bool) -> Any:
        """Items of `size` bytes of a and b by turns, of the lower or upper half of each 128 bits."""
        items = 16 // size
        order: list[int] = []
        for lane in range(lanes // 16):
            for item in range(items // 2):
                at = lane * 16 + (item + upper * items // 2) * size
                order += [at + i for i in range(size)] + [lanes + at + i for i in range(size)]
        return code.shuffle(a, b, order)

    a, b, c, d = runs
    pairs = [(unpacked(a, b, 1, upper), unpacked(c, d, 1, upper)) for upper in (False, True)]
    return [unpacked(first, second, 2, upper) for first, second in pairs for upper in (False, True)]


@intrinsic
def weigh(_typing: Any, weights: Any, run: Any, inputs: Any, high: Any, low: Any, columns: Any, sums: Any) -> Any:
    """Add 8 inputs times their runs onto `sums`, 64 outputs a column.

    `weights`: address of the first output; `run`: bytes of a run; `inputs`: address of 8 int32 and of 8 more, which are
    fetched; `high`, `low`: addresses of the 8 inputs' q; `sums`: address of int32 [columns][plane][eighth][block][8].
    """

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        code = Products(builder)
        weights, run, inputs, high, low, columns, sums = args
        size = code.bits // 8  # 64: two blocks a column; 32: one
        bytes_, ints = vector(I8, size), code.ints

        def start(number: int) -> Any:
            unit = builder.sext(code.load(code.at(inputs, 4 * number), I32), I64)
            return code.at(weights, builder.mul(unit, run))

        starts = [start(number) for number in range(2 * TOGETHER)]
        fours = [[code.four(code.at(side, 4 * q)) for side in (high, low)] for q in range(TOGETHER // 4)]

        def column(number: Any, _: Any) -> list[Any]:
            here = code.times(number, size)
            places = [code.at(sums, code.times(number, 8 * size), size * i) for i in range(8)]
            held = [code.load(place, ints) for place in places]
            for q in range(TOGETHER // 4):
                runs = [code.load(code.at(at, here), bytes_) for at in starts[4 * q : 4 * q + 4]]
                for i, quads in enumerate(_quads(code, runs)):
                    for side in range(2):
                        total = held[4 * side + i]
                        held[4 * side + i] = code.product(total, builder.bitcast(quads, ints), fours[q][side])
            for at in starts[TOGETHER:]:
                code.fetch(code.at(at, here))
            for place, total in zip(places, held, strict=True):
                code.store(total, place)
            return []

        code.loop(columns, [], column)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@intrinsic
def finish(_typing: Any, sums: Any, columns: Any, factor: Any, totals: Any) -> Any:
    """totals (float64 [outputs]) = factor * totals + 256 * high + low, from what `weigh` added up."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        code = Products(builder)
        sums, columns, factor, totals = args
        size, halves = code.bits // 8, code.bits // 256
        eight, doubles = vector(I32, 8), vector(F64, 8)

        def column(number: Any, _: Any) -> list[Any]:
            here = code.at(sums, code.times(number, 8 * size))
            for block in range(halves):
                for i in range(4):
                    high, low = (
                        builder.sitofp(code.load(code.at(here, size * (4 * side + i) + 32 * block), eight), doubles)
                        for side in range(2)
                    )
                    total = builder.fadd(builder.fmul(high, code.every(doubles, 256.0)), low)
                    place = code.at(totals, code.times(number, 8 * size), 8 * (BLOCK * block + 8 * i))
                    before = builder.fmul(code.load(place, doubles), code.spread(factor, 8))
                    code.store(builder.fadd(before, total), place)
            return []

        code.loop(columns, [], column)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64, types.int64), generate


@intrinsic
def put_together(_typing: Any, weights: Any, run: Any, quads: Any, blocks: Any, to: Any) -> Any:
    """Put blocks, the first of which begins at address `weights`, one after the other at `to`, as `vnni.tile` reads."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        code = Products(builder, 256)
        weights, run, quads, blocks, to = args
        bytes_ = vector(I8, BLOCK)

        def quad(number: Any, _: Any) -> list[Any]:
            first = code.at(weights, builder.mul(code.times(number, 4), run))

            def block(which: Any, _: Any) -> list[Any]:
                starts = [code.at(first, builder.mul(run, code.number(i)), code.times(which, BLOCK)) for i in range(4)]
                runs = [code.load(start, bytes_) for start in starts]
                for start in starts:
                    code.fetch(code.at(start, code.times(run, AHEAD)))
                place = code.at(to, code.times(builder.add(builder.mul(which, quads), number), QUAD_BYTES))
                for i, quads_of in enumerate(_quads(code, runs)):
                    code.store(quads_of, code.at(place, BLOCK * i))
                return []

            code.loop(blocks, [], block)
            return []

        code.loop(quads, [], quad)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def scaled(_typing: Any, totals: Any, excess: Any, scales: Any, step: Any, to: Any) -> Any:
    """32 outputs at address `to`: float32(total - excess) * (scale * step); totals float64, scales float32."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        code = Products(builder)
        totals, excess, scales, step, to = args
        lanes = code.lanes
        for part in range(code.vectors):
            total = builder.fsub(code.load(code.at(totals, 8 * lanes * part), code.doubles), code.spread(excess, lanes))
            scale = builder.fmul(code.load(code.at(scales, 4 * lanes * part), code.floats), code.spread(step, lanes))
            whole = builder.fptrunc(total, vector(F32, lanes))
            code.store(builder.fmul(whole, scale), code.at(to, 4 * lanes * part))
        return context.get_dummy_value()

    return types.void(types.int64, types.float64, types.int64, types.float32, types.int64), generate
