"""Sums whose order is written down, so that they come out the same to the bit on every processor and compiler.

`dot` and `total` add up in 64 lanes: lane l takes the elements l, l + 64, l + 128, … in order, with one rounding per
fused product and sum; the lanes are then folded in halves (32 onto 32, 16 onto 16, …). What is left over when the
length is no multiple of 64 follows one by one. 64 lanes are four 512-bit registers, enough to hide the latency.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic

LANES = 64

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR = ir.VectorType(_F32, LANES)


@intrinsic
def fma(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32 with one rounding."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return fused(builder, *args)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def dot(_typing: Any, a: Any, b: Any) -> Any:
    """The sum of a[i] * b[i] over two float32 arrays of the length of `a`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, arg) for kind, arg in zip(signature.args, args, strict=True)
        ]
        return _summed(builder, [array.data for array in arrays], builder.extract_value(arrays[0].shape, 0))

    return types.float32(a, b), generate


@intrinsic
def total(_typing: Any, a: Any) -> Any:
    """The sum of a float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return _summed(builder, [array.data], builder.extract_value(array.shape, 0))

    return types.float32(a), generate


def _summed(builder: Any, data: list[Any], size: Any) -> Any:
    """Code for the sum over `size` elements of one array, or of the products of two."""
    whole = builder.and_(size, ir.Constant(_I64, -LANES))
    lanes = _loop(builder, data, ir.Constant(_I64, 0), whole, LANES, ir.Constant(VECTOR, [0.0] * LANES))
    return _loop(builder, data, whole, size, 1, folded(builder, lanes))


def folded(builder: Any, lanes: Any) -> Any:
    """Code that adds up the lanes of a vector, halves onto halves."""
    width = LANES
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(lanes, lanes, ir.Constant(ir.VectorType(_I32, width), list(range(at, at + width))))
            for at in (0, width)
        ]
        lanes = builder.fadd(*halves)
    return builder.extract_element(lanes, ir.Constant(_I32, 0))


def _loop(builder: Any, data: list[Any], start: Any, end: Any, by: int, first: Any) -> Any:
    """Code that adds elements start..end, `by` at a time, onto `first`; gives the sum."""
    before = builder.block
    head, body, done = (builder.append_basic_block(name) for name in ("sum", "add", "added"))
    builder.branch(head)
    builder.position_at_end(head)
    at, so_far = builder.phi(_I64), builder.phi(first.type)
    at.add_incoming(start, before)
    so_far.add_incoming(first, before)
    builder.cbranch(builder.icmp_signed("<", at, end), body, done)
    builder.position_at_end(body)
    loaded = [_load(builder, builder.gep(array, [at]), first.type) for array in data]
    new = builder.fadd(so_far, loaded[0]) if len(data) == 1 else fused(builder, loaded[0], loaded[1], so_far)
    at.add_incoming(builder.add(at, ir.Constant(_I64, by)), body)
    so_far.add_incoming(new, body)
    builder.branch(head)
    builder.position_at_end(done)
    return so_far


def _load(builder: Any, place: Any, kind: Any) -> Any:
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 4
    return loaded


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Code for a * b + c with one rounding, of numbers or of vectors."""
    name = f"llvm.fma.v{LANES}f32" if isinstance(a.type, ir.VectorType) else "llvm.fma.f32"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, [a, b, c])
