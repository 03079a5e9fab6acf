"""The one inner loop that the compiler does not find by itself: exact integer dot products of bytes.

`block_totals` sums weights times 16-bit activations over one block of 32 rows and writes 32 exact totals. Which code
it becomes follows from the type of the weights: int8 = rows as they are, multiplied as 16-bit pairs (any processor);
uint8 = interleaved blocks, multiplied four bytes at a time by the processor's VNNI instruction. Both give the same
numbers to the bit, because integers add up to the same in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.codegen import get_host_cpu_features

from antiphon_kernels.jit import chosen_by_type, intrinsic, piece
from antiphon_kernels.rwkv7_step.window import window

BLOCK = 32  # output rows per block: two 512-bit or four 256-bit vectors of int32
CHUNK = 512  # inputs whose products fit one int32 total: 512 * 127 * 32639 < 2**31
AHEAD = 4096  # bytes between what is multiplied and what is fetched; 2,048 to 8,192 measured alike, none is slower

_I8, _I32, _I64, _F64 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()


def vnni_bits() -> int:
    """Width in bits of this processor's byte dot product: 512 (AVX-512 VNNI), 256 (AVX-VNNI) or 0 (none)."""
    named = config.CPU_FEATURES if config.CPU_FEATURES is not None else ""
    if config.CPU_FEATURES is None and not config.CPU_NAME:
        named = get_host_cpu_features()
    flags = set(str(named).split(","))
    if {"+avx512f", "+avx512vnni"} <= flags:
        return 512
    return 256 if "+avxvnni" in flags else 0


def block_totals(weights: Any, at: int, q: Any, planes: Any, inputs: int, q_total: int, totals: Any, to: int) -> None:
    """totals[to : to + 32] = the exact dot products of one block, float64 that hold integers.

    `weights` at byte `at`: the block, 32 rows of `inputs` (a multiple of 4). `q` int16 [inputs]: activations, and
    `planes` int8: the same as high bytes [inputs] and, from the middle on, low bytes. `q_total`: the sum of `q`.
    """
    raise NotImplementedError("runs only inside compiled code")


def split_planes(weights: Any, q: Any, planes: Any, inputs: int) -> None:
    """Fill `planes` from `q` where the layout of `weights` wants them."""
    raise NotImplementedError("runs only inside compiled code")


@chosen_by_type(block_totals)
def _choose_totals(
    weights: Any, at: Any, q: Any, planes: Any, inputs: Any, q_total: Any, totals: Any, to: Any
) -> Callable[..., None]:
    return _totals_of_quads if weights.dtype == types.uint8 else _totals_of_rows


@chosen_by_type(split_planes)
def _choose_split(weights: Any, q: Any, planes: Any, inputs: Any) -> Callable[..., None]:
    return _split if weights.dtype == types.uint8 else _split_nothing


def _totals_of_rows(
    weights: Any, at: Any, q: Any, planes: Any, inputs: Any, q_total: Any, totals: Any, to: Any
) -> None:
    for row in range(BLOCK):
        start = at + row * inputs
        total = np.int64(0)
        for chunk in range(0, inputs, CHUNK):
            size = min(CHUNK, inputs - chunk)
            total += np.int64(_dot(window(weights, start + chunk, size), window(q, chunk, size)))
        totals[to + row] = np.float64(total)


@piece
def _dot(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(a.size):
        total = _add_product(total, a[i], b[i])
    return total


def _totals_of_quads(
    weights: Any, at: Any, q: Any, planes: Any, inputs: Any, q_total: Any, totals: Any, to: Any
) -> None:
    # The bytes of the weights stand 128 too high, since the instruction wants one side unsigned.
    _dot_quads(weights, at, planes, planes.size // 2, inputs // 4, np.float64(128 * q_total), totals, to)


def _split(weights: Any, q: Any, planes: Any, inputs: Any) -> None:
    high, low = window(planes, 0, inputs), window(planes, planes.size // 2, inputs)
    for i in range(inputs):
        high[i] = high_byte(q[i])
        low[i] = low_byte(q[i])


def _split_nothing(weights: Any, q: Any, planes: Any, inputs: Any) -> None:
    return


@intrinsic
def low_byte(_typing: Any, q: Any) -> Any:
    """The low byte of an int16, as a signed byte."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.trunc(args[0], _I8)

    return types.int8(types.int16), generate


@intrinsic
def high_byte(_typing: Any, q: Any) -> Any:
    """The signed byte that completes `low_byte`: (q - low) / 256."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        half = ir.Constant(ir.IntType(16), 128)
        return builder.trunc(builder.ashr(builder.add(args[0], half), ir.Constant(ir.IntType(16), 8)), _I8)

    return types.int8(types.int16), generate


@intrinsic
def _add_product(_typing: Any, total: Any, a: Any, b: Any) -> Any:
    """total + a * b in int32. Numba widens int32 arithmetic to int64, which halves what a vector holds twice over."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.add(args[0], builder.mul(builder.sext(args[1], _I32), builder.sext(args[2], _I32)))

    return types.int32(types.int32, a, b), generate


@intrinsic
def _dot_quads(
    _typing: Any, weights: Any, at: Any, planes: Any, low: Any, quads: Any, excess: Any, totals: Any, to: Any
) -> Any:
    """totals[to + row] = sum over quads and their 4 bytes of (256 * high + low) * weight - excess, for 32 rows."""
    signature = types.void(weights, types.int64, planes, types.int64, types.int64, types.float64, totals, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = [context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 2, 6)]
        _QuadLoop(builder, vnni_bits()).emit(
            weights=builder.gep(builder.bitcast(data[0], _I8.as_pointer()), [args[1]]),
            high=builder.bitcast(data[1], _I32.as_pointer()),
            low=builder.bitcast(builder.gep(builder.bitcast(data[1], _I8.as_pointer()), [args[3]]), _I32.as_pointer()),
            quads=args[4],
            excess=args[5],
            totals=builder.gep(data[2], [args[7]]),
        )
        return context.get_dummy_value()

    return signature, generate


class _QuadLoop:
    """Writes the loop: per quad two broadcasts of activations and, per vector of rows, one load and two products."""

    def __init__(self, builder: Any, bits: int) -> None:
        if not bits:
            raise numba.core.errors.UnsupportedError("interleaved weights need a processor with VNNI")
        self._builder = builder
        self._lanes = bits // 32
        self._vectors = BLOCK // self._lanes
        self._ints = ir.VectorType(_I32, self._lanes)
        self._doubles = ir.VectorType(_F64, self._lanes)
        self._product = self._declared(
            f"llvm.x86.avx512.vpdpbusd.{bits}", ir.FunctionType(self._ints, [self._ints] * 3)
        )
        self._prefetch = self._declared(
            "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        )

    def emit(self, *, weights: Any, high: Any, low: Any, quads: Any, excess: Any, totals: Any) -> None:
        builder, ints = self._builder, self._ints
        before = builder.block
        loop, done = builder.append_basic_block("quads"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        quad = builder.phi(_I64)
        quad.add_incoming(ir.Constant(_I64, 0), before)
        sums = [builder.phi(ints) for _ in range(2 * self._vectors)]
        here = builder.gep(weights, [builder.mul(quad, ir.Constant(_I64, 4 * BLOCK))])
        self._fetch(here)
        activations = [self._broadcast(builder.gep(plane, [quad])) for plane in (high, low)]
        products = []
        for vector in range(self._vectors):
            block = self._load(builder.gep(here, [ir.Constant(_I64, vector * 4 * self._lanes)]))
            for plane in (0, 1):
                products.append(builder.call(self._product, [sums[2 * vector + plane], block, activations[plane]]))
        following = builder.add(quad, ir.Constant(_I64, 1))
        quad.add_incoming(following, loop)
        for total, product in zip(sums, products, strict=True):
            total.add_incoming(ir.Constant(ints, [0] * self._lanes), before)
            total.add_incoming(product, loop)
        builder.cbranch(builder.icmp_signed("<", following, quads), loop, done)
        builder.position_at_end(done)
        for vector in range(self._vectors):
            self._store(products[2 * vector], products[2 * vector + 1], excess, totals, vector)

    def _store(self, high: Any, low: Any, excess: Any, totals: Any, vector: int) -> None:
        """256 * high + low - excess is far below 2**53, so float64 holds it exactly."""
        builder, doubles = self._builder, self._doubles
        wide = builder.fmul(builder.sitofp(high, doubles), ir.Constant(doubles, [256.0] * self._lanes))
        total = builder.fadd(wide, builder.sitofp(low, doubles))
        total = builder.fsub(total, self._spread(excess, doubles))
        place = builder.gep(totals, [ir.Constant(_I64, vector * self._lanes)])
        builder.store(total, builder.bitcast(place, doubles.as_pointer())).align = 8

    def _load(self, place: Any) -> Any:
        loaded = self._builder.load(self._builder.bitcast(place, self._ints.as_pointer()))
        loaded.align = 1
        return loaded

    def _broadcast(self, place: Any) -> Any:
        quad = self._builder.load(place)
        quad.align = 1
        return self._spread(quad, self._ints)

    def _spread(self, value: Any, vector: Any) -> Any:
        nothing = ir.Constant(vector, ir.Undefined)
        first = self._builder.insert_element(nothing, value, ir.Constant(_I32, 0))
        every = ir.Constant(ir.VectorType(_I32, self._lanes), [0] * self._lanes)
        return self._builder.shuffle_vector(first, nothing, every)

    def _fetch(self, here: Any) -> None:
        for line in range(0, 4 * BLOCK, 64):
            place = self._builder.gep(here, [ir.Constant(_I64, AHEAD + line)])
            self._builder.call(self._prefetch, [place, *(ir.Constant(_I32, n) for n in (0, 3, 1))])

    def _declared(self, name: str, kind: Any) -> Any:
        module = self._builder.module
        return module.globals[name] if name in module.globals else ir.Function(module, kind, name)


@intrinsic
def prefetch(_typing: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of array[at]; a hint, safe at any place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.gep(builder.bitcast(data, _I8.as_pointer()), [args[1]])
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        module, name = builder.module, "llvm.prefetch.p0"
        fetch = module.globals[name] if name in module.globals else ir.Function(module, kind, name)
        builder.call(fetch, [place, *(ir.Constant(_I32, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
