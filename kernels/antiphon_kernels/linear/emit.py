"""Writes vector code in LLVM's language: addresses are int64, loops carry vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from antiphon_kernels.linear.processor import reads_halves

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()


def vector(kind: Any, lanes: int) -> Any:
    return ir.VectorType(kind, lanes)


class Emitter:
    """A builder with the few words that the inner loops are written in."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def number(self, value: int) -> Any:
        return ir.Constant(I64, value)

    def every(self, kind: Any, value: float) -> Any:
        """A vector that holds one constant."""
        return ir.Constant(kind, [value] * kind.count)

    def at(self, address: Any, *offsets: Any) -> Any:
        """An address plus offsets in bytes."""
        for offset in offsets:
            if isinstance(offset, int):
                if offset == 0:
                    continue
                offset = self.number(offset)
            address = self.builder.add(address, offset)
        return address

    def times(self, value: Any, factor: int) -> Any:
        return self.builder.mul(value, self.number(factor))

    def load(self, address: Any, kind: Any) -> Any:
        loaded = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        loaded.align = 1
        return loaded

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer())).align = 1

    def spread(self, value: Any, lanes: int) -> Any:
        """A number in every lane."""
        kind = vector(value.type, lanes)
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(nothing, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(vector(I32, lanes), [0] * lanes))

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(vector(I32, len(lanes)), list(lanes)))

    def call(self, name: str, result: Any, args: Sequence[Any]) -> Any:
        kind = ir.FunctionType(result, [arg.type for arg in args])
        module = self.builder.module
        function = module.globals[name] if name in module.globals else ir.Function(module, kind, name)
        return self.builder.call(function, args)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.call(f"llvm.fma.v{a.type.count}f32", a.type, [a, b, c])

    def halves(self, address: Any, lanes: int) -> Any:
        """float32 of `lanes` finite float16 numbers."""
        builder = self.builder
        if reads_halves():
            return builder.fpext(self.load(address, vector(ir.HalfType(), lanes)), vector(F32, lanes))
        # Exponent and fraction moved to where float32 has them make a number 2**112 too small, denormals included.
        ints = vector(I32, lanes)
        wide = builder.zext(self.load(address, vector(I16, lanes)), ints)
        size = builder.shl(builder.and_(wide, self.every(ints, 0x7FFF)), self.every(ints, 13))
        scaled = builder.fmul(builder.bitcast(size, vector(F32, lanes)), self.every(vector(F32, lanes), 2.0**112))
        sign = builder.shl(builder.and_(wide, self.every(ints, 0x8000)), self.every(ints, 16))
        return builder.bitcast(builder.or_(builder.bitcast(scaled, ints), sign), vector(F32, lanes))

    def fetch(self, address: Any, *, nearness: int = 3) -> None:
        """Ask for a cache line, into the first cache (3) or the second (2); a hint, safe at any address."""
        place = self.builder.inttoptr(address, I8.as_pointer())
        self.call("llvm.prefetch.p0", ir.VoidType(), [place, *(ir.Constant(I32, n) for n in (0, nearness, 1))])

    def loop(
        self, count: Any, carried: Sequence[Any], body: Callable[[Any, Sequence[Any]], Sequence[Any]]
    ) -> list[Any]:
        """`body`(turn, carried) for each turn from 0 to below `count`; what the last one gave."""
        builder = self.builder
        before = builder.block
        head, inside, done = (builder.append_basic_block(name) for name in ("turns", "turn", "turned"))
        builder.branch(head)
        builder.position_at_end(head)
        turn = builder.phi(I64)
        turn.add_incoming(self.number(0), before)
        held = [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed("<", turn, count), inside, done)
        builder.position_at_end(inside)
        given = list(body(turn, held))
        end = builder.block
        following = builder.add(turn, self.number(1))
        turn.add_incoming(following, end)
        for phi, first, last in zip(held, carried, given, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, end)
        builder.branch(head)
        builder.position_at_end(done)
        return held
