"""WKV-5 and 6 token by token on the CPU: the part that a step's program runs, and the same by itself.

Written out for heads of 64, those of every published model: a row of S, one key's, is one vector, read and written
once, and the output stays in registers. Other sizes go through memory and give the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic, kernel, piece
from antiphon_kernels.lanes import LANES, VECTOR, dot, fma, fused
from antiphon_kernels.window import window

Floats = npt.NDArray[Any]

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@piece
def recur(wkv: Any, r: Any, w: Any, k: Any, v: Any, u: Any, y: Any, spare: Any) -> None:
    """Move `wkv` [N * N] on by one token and write `y` [N]; all others float32 [N], `spare` is scratch."""
    size = r.size
    for key in range(size):
        spare[key] = k[key] * u[key]
    own = dot(r, spare)
    if size == 64:
        _recur_64(wkv, r, w, k, v, y, own)
        return
    for value in range(size):
        y[value] = np.float32(0)
    for key in range(size):
        row = window(wkv, key * size, size)
        asked, kept, new = r[key], w[key], k[key]
        for value in range(size):
            y[value] = fma(row[value], asked, y[value])
            row[value] = fma(row[value], kept, new * v[value])
    for value in range(size):
        y[value] = fma(v[value], own, y[value])


@intrinsic
def _recur_64(_typing: Any, wkv: Any, r: Any, w: Any, k: Any, v: Any, y: Any, own: Any) -> Any:
    """The rest of `recur` for N = 64, one key a turn."""
    assert LANES == 64

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wkv_, r_, w_, k_, v_, y_ = (
            context.make_array(kind)(context, builder, arg).data
            for kind, arg in zip(signature.args[:6], args[:6], strict=True)
        )

        def place(array: Any) -> Any:
            return builder.bitcast(array, VECTOR.as_pointer())

        def load(array: Any) -> Any:
            loaded = builder.load(place(array))
            loaded.align = 4
            return loaded

        def spread(number: Any) -> Any:
            nothing = ir.Constant(VECTOR, ir.Undefined)
            first = builder.insert_element(nothing, number, ir.Constant(_I32, 0))
            return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

        def every(array: Any, key: Any) -> Any:
            return spread(builder.load(builder.gep(array, [key])))

        values = load(v_)
        before = builder.block
        turn, done = builder.append_basic_block("key"), builder.append_basic_block("keys")
        builder.branch(turn)
        builder.position_at_end(turn)
        key, read = builder.phi(_I64), builder.phi(VECTOR)
        key.add_incoming(ir.Constant(_I64, 0), before)
        read.add_incoming(ir.Constant(VECTOR, [0.0] * LANES), before)
        row = builder.gep(wkv_, [builder.mul(key, ir.Constant(_I64, LANES))])
        kept = load(row)
        following = fused(builder, kept, every(r_, key), read)
        written = builder.fmul(every(k_, key), values)
        builder.store(fused(builder, kept, every(w_, key), written), place(row)).align = 4
        next_key = builder.add(key, ir.Constant(_I64, 1))
        key.add_incoming(next_key, turn)
        read.add_incoming(following, turn)
        builder.cbranch(builder.icmp_signed("<", next_key, ir.Constant(_I64, 64)), turn, done)
        builder.position_at_end(done)
        builder.store(fused(builder, values, spread(args[6]), following), place(y_)).align = 4
        return context.get_dummy_value()

    return types.void(wkv, r, w, k, v, y, types.float32), generate


def advance(vectors: Floats, u: Floats, wkv: Floats, out: Floats) -> None:
    """As `reference.advance`; all float32 and C-contiguous."""
    planes, rows, heads, size = vectors.shape
    fits = planes == 4 and u.shape == (heads, size) and wkv.shape == (heads, size, size)
    if not fits or out.shape != (rows, heads, size):
        raise ValueError(f"shapes do not fit: {[list(a.shape) for a in (vectors, u, wkv, out)]}")
    if not all(array.flags.c_contiguous for array in (vectors, u, wkv, out)):
        raise ValueError("all arrays must be contiguous")
    _advance(vectors.reshape(-1), u.reshape(-1), wkv.reshape(-1), out.reshape(-1), rows, heads, size)


@kernel
def _advance(vectors: Any, u: Any, wkv: Any, out: Any, rows: int, heads: int, size: int) -> None:
    plane, spare = rows * heads * size, np.empty(size, np.float32)
    for head in range(heads):
        state, bonus = window(wkv, head * size * size, size * size), window(u, head * size, size)
        for row in range(rows):
            at = (row * heads + head) * size
            r, w = window(vectors, at, size), window(vectors, plane + at, size)
            k, v = window(vectors, 2 * plane + at, size), window(vectors, 3 * plane + at, size)
            recur(state, r, w, k, v, bonus, window(out, at, size), spare)
