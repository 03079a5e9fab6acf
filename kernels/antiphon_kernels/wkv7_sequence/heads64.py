"""The inner loops of WKV-7 for heads of 64, written out as vectors: a run of tokens forward, and one backward.

Forward holds the state as [key, value]: the sums over keys, S κ and S r, then add up whole vectors. Backward
holds states and their gradient as [value, key]: five of its seven sums run over values and again add up whole
vectors, which stay in registers from row to row. Every sum has its order written down, so that the numbers are the
same to the bit on every processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.lanes import LANES, VECTOR, folded, fused

N = 64
"""The head size of every published RWKV-7."""

_KEYS_A_TURN = 4

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def advance(
    _typing: Any, state: Any, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any, y: Any, held: Any,
    at: Any, stride: Any, count: Any,
) -> Any:  # fmt: skip
    """Move `state` [N(key) * N(value)] on by `count` tokens: y = S r and held = S κ (before the token) are written.

    All arrays are flat float32; token t of r…held begins at `at` + t * `stride`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        state_, r_, w_, k_, v_, kappa_, b_, y_, held_ = _data(context, builder, signature, args, 9)
        at, stride, count = args[9:]
        code = _Code(builder)

        def token(t: Any, _: Sequence[Any]) -> list[Any]:
            here = builder.add(at, builder.mul(t, stride))
            values = code.load(builder.gep(v_, [here]))

            def reach(turn: Any, sums: Sequence[Any]) -> list[Any]:
                sums = list(sums)
                for lane in range(_KEYS_A_TURN):
                    key = code.key(turn, lane)
                    row = code.load(code.row(state_, key))
                    sums[lane % 2] = fused(builder, row, code.number(kappa_, here, key), sums[lane % 2])
                return sums

            taken = builder.fadd(*code.loop(_turns(), [code.zero, code.zero], reach))
            code.store(taken, builder.gep(held_, [here]))
            erased = builder.fneg(taken)

            def move(turn: Any, sums: Sequence[Any]) -> list[Any]:
                sums = list(sums)
                for lane in range(_KEYS_A_TURN):
                    key = code.key(turn, lane)
                    place = code.row(state_, key)
                    row = builder.fmul(code.load(place), code.number(w_, here, key))
                    row = fused(builder, erased, code.number(b_, here, key), row)
                    row = fused(builder, values, code.number(k_, here, key), row)
                    code.store(row, place)
                    sums[lane % 2] = fused(builder, row, code.number(r_, here, key), sums[lane % 2])
                return sums

            code.store(builder.fadd(*code.loop(_turns(), [code.zero, code.zero], move)), builder.gep(y_, [here]))
            return []

        code.loop(count, [], token)
        return context.get_dummy_value()

    arrays = (state, r, w, k, v, kappa, b, y, held)
    return types.void(*arrays, types.int64, types.int64, types.int64), generate


@intrinsic
def remember(
    _typing: Any, states: Any, w: Any, k: Any, v: Any, b: Any, held: Any, at: Any, stride: Any, count: Any
) -> Any:
    """Fill `states` [count + 1, N(value), N(key)], whose first is given, with the state after each token."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        states_, w_, k_, v_, b_, held_ = _data(context, builder, signature, args, 6)
        at, stride, count = args[6:]
        code = _Code(builder)

        def token(t: Any, _: Sequence[Any]) -> list[Any]:
            here = builder.add(at, builder.mul(t, stride))
            before = builder.gep(states_, [builder.mul(t, ir.Constant(_I64, N * N))])
            after = builder.gep(before, [ir.Constant(_I64, N * N)])
            decays, keys, erasing = (code.load(builder.gep(x, [here])) for x in (w_, k_, b_))

            def row(value: Any, _: Sequence[Any]) -> list[Any]:
                moved = builder.fmul(code.load(code.row(before, value)), decays)
                taken = code.spread(builder.fneg(code.scalar(held_, here, value)))
                moved = fused(builder, taken, erasing, moved)
                moved = fused(builder, code.number(v_, here, value), keys, moved)
                code.store(moved, code.row(after, value))
                return []

            code.loop(ir.Constant(_I64, N), [], row)
            return []

        code.loop(count, [], token)
        return context.get_dummy_value()

    arrays = (states, w, k, v, b, held)
    return types.void(*arrays, types.int64, types.int64, types.int64), generate


@intrinsic
def retreat(
    _typing: Any, ds: Any, states: Any, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any, held: Any, dy: Any,
    dr: Any, dw: Any, dk: Any, dv: Any, dkappa: Any, db: Any, at: Any, stride: Any, count: Any,
) -> Any:  # fmt: skip
    """`ds` [N(value) * N(key)], the gradient by the state after `count` tokens, becomes that by the state before them.

    `states` is what `remember` filled; dr…db are written.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ds_, states_, r_, w_, k_, v_, kappa_, b_, held_, dy_, dr_, dw_, dk_, dv_, dkappa_, db_ = _data(
            context, builder, signature, args, 16
        )
        at, stride, count = args[16:]
        code = _Code(builder)

        def token(turn: Any, _: Sequence[Any]) -> list[Any]:
            t = builder.sub(builder.sub(count, ir.Constant(_I64, 1)), turn)
            here = builder.add(at, builder.mul(t, stride))
            before = builder.gep(states_, [builder.mul(t, ir.Constant(_I64, N * N))])
            after = builder.gep(before, [ir.Constant(_I64, N * N)])

            def row(value: Any, sums: Sequence[Any]) -> list[Any]:
                # Loaded for every row: with the five sums there are no registers to keep them in.
                r_all, w_all, k_all, kappa_all, b_all = (
                    code.load(builder.gep(x, [here])) for x in (r_, w_, k_, kappa_, b_)
                )
                by_r, by_w, by_k, by_b, by_kappa = sums
                place = code.row(ds_, value)
                by_y = code.number(dy_, here, value)
                d = fused(builder, by_y, r_all, code.load(place))
                by_r = fused(builder, by_y, code.load(code.row(after, value)), by_r)
                state = code.load(code.row(before, value))
                by_w = fused(builder, d, state, by_w)
                by_k = fused(builder, code.number(v_, here, value), d, by_k)
                by_b = fused(builder, code.spread(builder.fneg(code.scalar(held_, here, value))), d, by_b)
                builder.store(folded(builder, builder.fmul(d, k_all)), code.place(dv_, here, value)).align = 4
                by_held = code.spread(builder.fneg(folded(builder, builder.fmul(d, b_all))))
                by_kappa = fused(builder, by_held, state, by_kappa)
                code.store(fused(builder, by_held, kappa_all, builder.fmul(d, w_all)), place)
                return [by_r, by_w, by_k, by_b, by_kappa]

            sums = code.loop(ir.Constant(_I64, N), [code.zero] * 5, row)
            for total, out in zip(sums, (dr_, dw_, dk_, db_, dkappa_), strict=True):
                code.store(total, builder.gep(out, [here]))
            return []

        code.loop(count, [], token)
        return context.get_dummy_value()

    arrays = (ds, states, r, w, k, v, kappa, b, held, dy, dr, dw, dk, dv, dkappa, db)
    return types.void(*arrays, types.int64, types.int64, types.int64), generate


def _data(context: Any, builder: Any, signature: Any, args: Any, count: int) -> list[Any]:
    """Where the elements of the first `count` arguments lie, all of them contiguous arrays."""
    return [
        context.make_array(kind)(context, builder, arg).data
        for kind, arg in zip(signature.args[:count], args[:count], strict=True)
    ]


def _turns() -> Any:
    return ir.Constant(_I64, N // _KEYS_A_TURN)


class _Code:
    """Writes loads, stores and loops over vectors of 64 float32."""

    def __init__(self, builder: Any) -> None:
        assert LANES == N
        self._builder = builder
        self.zero = ir.Constant(VECTOR, [0.0] * N)

    def load(self, place: Any) -> Any:
        loaded = self._builder.load(self._builder.bitcast(place, VECTOR.as_pointer()))
        loaded.align = 4
        return loaded

    def store(self, vector: Any, place: Any) -> None:
        self._builder.store(vector, self._builder.bitcast(place, VECTOR.as_pointer())).align = 4

    def row(self, matrix: Any, index: Any) -> Any:
        return self._builder.gep(matrix, [self._builder.mul(index, ir.Constant(_I64, N))])

    def key(self, turn: Any, lane: int) -> Any:
        start = self._builder.mul(turn, ir.Constant(_I64, _KEYS_A_TURN))
        return self._builder.add(start, ir.Constant(_I64, lane))

    def place(self, array: Any, here: Any, index: Any) -> Any:
        return self._builder.gep(array, [self._builder.add(here, index)])

    def scalar(self, array: Any, here: Any, index: Any) -> Any:
        return self._builder.load(self.place(array, here, index))

    def number(self, array: Any, here: Any, index: Any) -> Any:
        """array[here + index] in every lane."""
        return self.spread(self.scalar(array, here, index))

    def spread(self, number: Any) -> Any:
        nothing = ir.Constant(VECTOR, ir.Undefined)
        first = self._builder.insert_element(nothing, number, ir.Constant(_I32, 0))
        return self._builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, N), [0] * N))

    def loop(
        self, count: Any, carried: Sequence[Any], body: Callable[[Any, Sequence[Any]], Sequence[Any]]
    ) -> list[Any]:
        """`body`(turn, carried) for each turn from 0 to below `count` (at least 1); what the last one gave."""
        builder = self._builder
        before = builder.block
        inside, done = builder.append_basic_block("turn"), builder.append_basic_block("turned")
        builder.branch(inside)
        builder.position_at_end(inside)
        turn = builder.phi(_I64)
        turn.add_incoming(ir.Constant(_I64, 0), before)
        held = [builder.phi(VECTOR) for _ in carried]
        given = list(body(turn, held))
        end = builder.block
        following = builder.add(turn, ir.Constant(_I64, 1))
        turn.add_incoming(following, end)
        for phi, first, last in zip(held, carried, given, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, end)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, done)
        builder.position_at_end(done)
        return given
