"""The recurrence of one head: S <- S diag(w) - (S kappa) replaced' + v k', then y = S r, with S [value, key].

Written out for heads of 64, those of every published model: a row of S is one vector, read and written once, and the
vectors over keys stay in registers from row to row. Other sizes go through memory and give the same numbers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic, piece
from antiphon_kernels.lanes import LANES, VECTOR, dot, fma, folded, fused
from antiphon_kernels.window import window

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@piece
def recur(wkv: Any, r: Any, w: Any, k: Any, v: Any, kappa: Any, replaced: Any, y: Any) -> None:
    """Move `wkv` [N * N] on by one token and write `y` [N]; all others float32 [N]."""
    size = r.size
    if size == 64:
        _recur_64(wkv, r, w, k, v, kappa, replaced, y)
        return
    for value in range(size):
        row = window(wkv, value * size, size)
        held, new = dot(row, kappa), v[value]
        for key in range(size):
            row[key] = fma(row[key], w[key], fma(-held, replaced[key], new * k[key]))
        y[value] = dot(row, r)


@intrinsic
def _recur_64(_typing: Any, wkv: Any, r: Any, w: Any, k: Any, v: Any, kappa: Any, replaced: Any, y: Any) -> Any:
    """The loop body of `recur` for N = 64, one row a turn."""
    assert LANES == 64

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wkv_, r_, w_, k_, v_, kappa_, replaced_, y_ = (
            context.make_array(kind)(context, builder, arg).data for kind, arg in zip(signature.args, args, strict=True)
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

        r_all, w_all, k_all, kappa_all, replaced_all = (load(a) for a in (r_, w_, k_, kappa_, replaced_))
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        before = builder.block
        turn, done = builder.append_basic_block("row"), builder.append_basic_block("rows")
        builder.branch(turn)
        builder.position_at_end(turn)
        value = builder.phi(_I64)
        value.add_incoming(ir.Constant(_I64, 0), before)
        row = builder.gep(wkv_, [builder.mul(value, ir.Constant(_I64, LANES))])
        kept = load(row)
        held = folded(builder, fused(builder, kept, kappa_all, zero))
        written = builder.fmul(spread(builder.load(builder.gep(v_, [value]))), k_all)
        cleared = fused(builder, spread(builder.fneg(held)), replaced_all, written)
        kept = fused(builder, kept, w_all, cleared)
        builder.store(kept, place(row)).align = 4
        builder.store(folded(builder, fused(builder, kept, r_all, zero)), builder.gep(y_, [value]))
        following = builder.add(value, ir.Constant(_I64, 1))
        value.add_incoming(following, turn)
        builder.cbranch(builder.icmp_signed("<", following, ir.Constant(_I64, 64)), turn, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(wkv, r, w, k, v, kappa, replaced, y), generate
