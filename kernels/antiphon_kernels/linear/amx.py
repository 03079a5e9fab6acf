"""Rows of activations times one interleaved block on the processor's tile unit: 16 x 16 outputs of 64 inputs a time.

The block is that of `vnni.py`; tiles multiply signed by unsigned bytes and add up in int32, so the totals are the same.
Linux grants the tiles' registers to a process that asks (arch_prctl, see Documentation/arch/x86/xstate.rst), and a
processor is left with them unused between two calls, so that a switch of threads need not save them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.linear.emit import F32, F64, I8, I16, I32, I64, Emitter, vector
from antiphon_kernels.linear.format import BLOCK, INPUTS_PAD
from antiphon_kernels.linear.processor import has_amx
from antiphon_kernels.linear.vnni import AHEAD, QUAD_BYTES

SIDE = 16
"""Rows, outputs and quads of inputs of a tile."""

SHARES = 4
"""Calls among which the fetching of the next block is divided: too much of it at once holds up the tiles."""

TILE_BYTES = 4 * SIDE * SIDE

_NEAR = 1 << 21

_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18
_UNKNOWN, _GRANTED, _REFUSED = range(3)


class Tiles(Emitter):
    """Tile registers 0 to 7."""

    def configure(self, rows: Any, *, inputs: Any = None) -> None:
        """Tiles 0 to 3 for totals, 4 and 5 for activations, both `rows` high, and 6 and 7 for weights.

        `inputs`: how many at a time, 32 or 64 (None).
        """
        builder = self.builder
        inputs = self.number(INPUTS_PAD) if inputs is None else inputs
        quads = builder.udiv(inputs, self.number(4))
        place = builder.alloca(ir.ArrayType(I8, 64))
        builder.store(ir.Constant(place.type.pointee, None), place)
        base = builder.ptrtoint(place, I64)
        self.store(ir.Constant(I8, 1), base)  # the only palette there is
        for tile in range(8):
            wide = inputs if tile in (4, 5) else self.number(4 * SIDE)
            self.store(builder.trunc(wide, I16), self.at(base, 16 + 2 * tile))
            self.store(builder.trunc(quads if tile >= 6 else rows, I8), self.at(base, 48 + tile))
        self.call("llvm.x86.ldtilecfg", ir.VoidType(), [builder.bitcast(place, I8.as_pointer())])

    def zero(self, tile: int) -> None:
        self.call("llvm.x86.tilezero", ir.VoidType(), [ir.Constant(I8, tile)])

    def fill(self, tile: int, address: Any, stride: Any) -> None:
        place = self.builder.inttoptr(address, I8.as_pointer())
        self.call("llvm.x86.tileloadd64", ir.VoidType(), [ir.Constant(I8, tile), place, stride])

    def keep(self, tile: int, address: Any) -> None:
        place = self.builder.inttoptr(address, I8.as_pointer())
        self.call("llvm.x86.tilestored64", ir.VoidType(), [ir.Constant(I8, tile), place, self.number(4 * SIDE)])

    def add(self, total: int, activations: int, weights: int, *, signed: bool = False) -> None:
        """Tile `total` += signed bytes of `activations` times unsigned, or `signed`, ones of `weights`."""
        self.call(
            "llvm.x86.tdpbssd" if signed else "llvm.x86.tdpbsud",
            ir.VoidType(),
            [ir.Constant(I8, t) for t in (total, activations, weights)],
        )


@intrinsic
def granted(_typing: Any) -> Any:
    """Whether this process may use the tiles; the first call asks for them."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if not has_amx():
            return context.get_constant(types.boolean, False)
        name = "antiphon.tiles"
        if name in builder.module.globals:
            answer = builder.module.globals[name]
        else:
            answer = ir.GlobalVariable(builder.module, I32, name)
            answer.linkage, answer.initializer = "internal", ir.Constant(I32, _UNKNOWN)
        with builder.if_then(builder.icmp_signed("==", builder.load(answer), ir.Constant(I32, _UNKNOWN)), likely=False):
            kind = ir.FunctionType(I64, [I64], var_arg=True)
            known = builder.module.globals
            system = known["syscall"] if "syscall" in known else ir.Function(builder.module, kind, "syscall")
            failed = builder.call(system, [ir.Constant(I64, n) for n in (_ARCH_PRCTL, _REQUEST, _TILE_DATA)])
            fine = builder.icmp_signed("==", failed, ir.Constant(I64, 0))
            builder.store(builder.select(fine, ir.Constant(I32, _GRANTED), ir.Constant(I32, _REFUSED)), answer)
        return builder.icmp_signed("==", builder.load(answer), ir.Constant(I32, _GRANTED))

    return types.boolean(), generate


@intrinsic
def configure(_typing: Any, rows: Any) -> Any:
    """Take the tiles into use for `rows` rows, at most 16."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if has_amx():
            Tiles(builder).configure(args[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def release(_typing: Any) -> Any:
    """Leave the tiles."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if has_amx():
            Tiles(builder).call("llvm.x86.tilerelease", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), generate


def multiply(planes: int) -> Callable[..., None]:
    """An intrinsic: what `vnni.tile` does, for as many `rows` as tiles are configured for.

    `sums`: room for 4 tiles. `coming`: from where to fetch a quarter of a block while it works, for the second cache;
    0 = a whole one from 4 KiB further on.
    """

    @intrinsic
    def multiply_rows(
        _typing: Any, rows: Any, weights: Any, quads: Any, high: Any, low: Any, stride: Any, scales: Any, steps: Any,
        excess: Any, to: Any, to_stride: Any, sums: Any, coming: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            if has_amx():
                _Block(builder, planes).emit(*args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 13), generate

    return multiply_rows


class _Block(Tiles):
    """Writes the loops over inputs and then over rows."""

    def __init__(self, builder: Any, planes: int) -> None:
        super().__init__(builder)
        self._planes = planes
        self._ints, self._floats, self._doubles = (vector(kind, SIDE) for kind in (I32, F32, F64))

    def emit(
        self, rows: Any, weights: Any, quads: Any, high: Any, low: Any, stride: Any, scales: Any, steps: Any,
        excess: Any, to: Any, to_stride: Any, sums: Any, coming: Any,
    ) -> None:  # fmt: skip
        turns = self.builder.udiv(quads, self.number(SIDE))
        if self._planes == 1:
            alone = self.builder.icmp_signed("==", coming, self.number(0))
            with self.builder.if_else(alone) as (then, otherwise):
                with then:
                    self._bytes(weights, turns, high, low, stride, sums, self.at(weights, AHEAD), SIDE * QUAD_BYTES)
                with otherwise:
                    self._bytes(weights, turns, high, low, stride, sums, coming, SIDE * QUAD_BYTES // SHARES)
            self._finish(rows, (0, 1), 2, quads, scales, steps, excess, to, to_stride, sums)
            return
        for half in (0, 1):
            self._wide(weights, turns, high, low, stride, sums, half)
            self._finish(rows, (half,), 3, quads, scales, steps, excess, to, to_stride, sums)

    def _bytes(
        self, weights: Any, turns: Any, high: Any, low: Any, stride: Any, sums: Any, coming: Any, share: int
    ) -> None:
        """Tiles 0 to 3: high and low totals of the first 16 outputs, then of the other 16."""
        for tile in range(4):
            self.zero(tile)

        def turn(number: Any, _: Any) -> list[Any]:
            inputs = self.times(number, INPUTS_PAD)
            here = self.at(weights, self.times(number, SIDE * QUAD_BYTES))
            self.fill(4, self.at(high, inputs), stride)
            self.fill(5, self.at(low, inputs), stride)
            for half in (0, 1):
                self.fill(6 + half, self.at(here, 64 * half), self.number(QUAD_BYTES))
            for line in range(0, share, 64):
                self.fetch(self.at(coming, self.times(number, share), line), nearness=2)
            for half in (0, 1):
                for side in (0, 1):
                    self.add(2 * half + side, 4 + side, 6 + half)
            return []

        self.loop(turns, [], turn)
        for tile in range(4):
            self.keep(tile, self.at(sums, TILE_BYTES * tile))

    def _wide(self, weights: Any, turns: Any, high: Any, low: Any, stride: Any, sums: Any, half: int) -> None:
        """Tiles 0 to 2: high, mixed and low totals of 16 outputs of 16-bit weights."""
        for tile in range(3):
            self.zero(tile)
        plane = self.times(turns, SIDE * QUAD_BYTES)

        def turn(number: Any, _: Any) -> list[Any]:
            inputs = self.times(number, INPUTS_PAD)
            here = self.at(weights, self.times(number, SIDE * QUAD_BYTES), 64 * half)
            self.fill(4, self.at(high, inputs), stride)
            self.fill(5, self.at(low, inputs), stride)
            self.fill(6, here, self.number(QUAD_BYTES))
            self.fill(7, self.at(here, plane), self.number(QUAD_BYTES))
            for total, activations, bytes_ in ((0, 4, 6), (1, 5, 6), (2, 5, 7), (1, 4, 7)):
                self.add(total, activations, bytes_)
            return []

        self.loop(turns, [], turn)
        for tile in range(3):
            self.keep(tile, self.at(sums, TILE_BYTES * tile))

    def _finish(
        self, rows: Any, halves: tuple[int, ...], kinds: int, quads: Any, scales: Any, steps: Any, excess: Any,
        to: Any, to_stride: Any, sums: Any,
    ) -> None:  # fmt: skip
        scale = {half: self.load(self.at(scales, 4 * SIDE * half), self._floats) for half in halves}

        def held(number: Any, place: int) -> list[Any]:
            """A row's totals of each kind, for 16 outputs."""
            line = self.at(sums, self.times(number, 4 * SIDE))
            return [self.load(self.at(line, TILE_BYTES * (kinds * place + kind)), self._ints) for kind in range(kinds)]

        def put(number: Any, half: int, whole: Any) -> None:
            step = self.spread(self.load(self.at(steps, self.times(number, 4)), F32), SIDE)
            line = self.at(to, self.times(self.builder.mul(to_stride, number), 4))
            self.store(self.builder.fmul(whole, self.builder.fmul(scale[half], step)), self.at(line, 4 * SIDE * half))

        def row(number: Any, _: Any) -> list[Any]:
            """256 * high + low - off is far below 2**53, so float64 holds it exactly."""
            off = self.spread(self.load(self.at(excess, self.times(number, 8)), F64), SIDE)
            for place, half in enumerate(halves):
                first, *others = held(number, place)
                total = self.builder.sitofp(first, self._doubles)
                for other in others:
                    shifted = self.builder.fmul(total, self.every(self._doubles, 256.0))
                    total = self.builder.fadd(shifted, self.builder.sitofp(other, self._doubles))
                put(number, half, self.builder.fptrunc(self.builder.fsub(total, off), self._floats))
            return []

        if kinds > 2:
            self.loop(rows, [], row)
            return

        def near_row(number: Any, carried: Any) -> list[Any]:
            """In int32, which is a third of the work, and whether that was enough.

            A total is 256 * (high - off / 256) + (low - off % 256). The latter is within 2**30; so where the
            difference in brackets is within 2**21, the total fits an int32, whatever overflows on the way to it.
            """
            (most,) = carried
            off = self.builder.fptosi(self.load(self.at(excess, self.times(number, 8)), F64), I64)
            upper = self.spread(self.builder.trunc(self.builder.ashr(off, self.number(8)), I32), SIDE)
            lower = self.spread(self.builder.trunc(self.builder.and_(off, self.number(255)), I32), SIDE)
            for place, half in enumerate(halves):
                high, low = held(number, place)
                rest = self.builder.sub(high, upper)
                size = self.builder.add(rest, self.every(self._ints, _NEAR))
                most = self.call(f"llvm.umax.v{SIDE}i32", self._ints, [most, size])
                shifted = self.builder.shl(rest, self.every(self._ints, 8))
                total = self.builder.add(shifted, self.builder.sub(low, lower))
                put(number, half, self.builder.sitofp(total, self._floats))
            return [most]

        (most,) = self.loop(rows, [self.every(self._ints, 0)], near_row)
        furthest = self.call(f"llvm.vector.reduce.umax.v{SIDE}i32", I32, [most])
        with self.builder.if_then(
            self.builder.icmp_unsigned(">=", furthest, ir.Constant(I32, 2 * _NEAR)), likely=False
        ):
            self.loop(rows, [], row)


assert BLOCK == 2 * SIDE
