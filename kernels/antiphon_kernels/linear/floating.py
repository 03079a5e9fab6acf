"""Rows of float32 activations times one block of weights in float32, bfloat16 or float16.

A block is 32 outputs, input by input: [input][output], inputs padded to 4. Four chains take the inputs by turns, each
with one fused product and sum after the other, and outputs are the lanes of vectors; so the order of the sums is the
same for every number of rows and on every processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from antiphon_kernels.jit import intrinsic
from antiphon_kernels.linear.emit import F32, I16, I32, Emitter, vector
from antiphon_kernels.linear.format import BFLOAT16, BLOCK, FLOAT32
from antiphon_kernels.linear.processor import features

CHAINS = 4
MANY = 8
"""Rows of the tile that takes one chain after the other."""

AHEAD = 4096  # bytes between what is multiplied and what is fetched
_STRETCH = 64  # inputs whose weights all chains pass over before the next: 8 KiB at most


def tile(rows: int, form: int) -> Callable[..., None]:
    """An intrinsic: `rows` rows of activations times one block of a float format.

    Its arguments are int64; a stride is in items: weights, the block's address; inputs; x and stride, the activations
    of the first row; to and to_stride, where the float32 outputs go; sums, room for 4 KiB.
    """

    @intrinsic
    def multiply(
        _typing: Any, weights: Any, inputs: Any, x: Any, stride: Any, to: Any, to_stride: Any, sums: Any
    ) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            (_Stretches if rows == MANY else _Tile)(builder, rows, form).emit(*args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return multiply


class _Floats(Emitter):
    """Loads weights of a format as vectors of float32."""

    def __init__(self, builder: Any, rows: int, form: int) -> None:
        super().__init__(builder)
        self._rows, self._form = rows, form
        wide = "avx512f" in features()
        self._lanes, self._room = (16, 24) if wide else (8, 12)
        self._vectors = BLOCK // self._lanes
        self._floats = vector(F32, self._lanes)
        self._item = 4 if form == FLOAT32 else 2
        self._zero = self.every(self._floats, 0.0)

    def _weights(self, here: Any, part: int) -> Any:
        place = self.at(here, self._item * self._lanes * part)
        if self._form == FLOAT32:
            return self.load(place, self._floats)
        if self._form == BFLOAT16:  # the upper half of a float32
            ints = vector(I32, self._lanes)
            wide = self.builder.zext(self.load(place, vector(I16, self._lanes)), ints)
            return self.builder.bitcast(self.builder.shl(wide, self.every(ints, 16)), self._floats)
        return self.halves(place, self._lanes)

    def _activation(self, x: Any, line: Any, at: Any) -> Any:
        return self.spread(self.load(self.at(x, line, self.times(at, 4)), F32), self._lanes)

    def _line(self, number: Any) -> Any:
        """Where an input's weights begin within a block, in bytes."""
        return self.times(number, self._item * BLOCK)

    def _fetch_input(self, here: Any) -> None:
        for line in range(0, self._item * BLOCK, 64):
            self.fetch(self.at(here, AHEAD + line))

    def _store(self, chains: list[Any], to: Any, part: int) -> None:
        first = self.builder.fadd(chains[0], chains[1])
        second = self.builder.fadd(chains[2], chains[3])
        self.store(self.builder.fadd(first, second), self.at(to, 4 * self._lanes * part))


class _Tile(_Floats):
    """Few rows: all four chains at once."""

    def emit(self, weights: Any, inputs: Any, x: Any, stride: Any, to: Any, to_stride: Any, _sums: Any) -> None:
        builder = self.builder
        lines = [self.times(builder.mul(stride, self.number(row)), 4) for row in range(self._rows)]
        together = self._vectors
        while together > 1 and together * self._rows * CHAINS > self._room:
            together //= 2
        whole = builder.udiv(inputs, self.number(CHAINS))
        for first in range(0, self._vectors, together):
            parts = range(first, first + together)
            places = [(chain, row, part) for chain in range(CHAINS) for row in range(self._rows) for part in parts]

            def added(sums: Any, chain: int, at: Any, parts: range = parts) -> dict[tuple[int, int], Any]:
                """One chain's sums with the input `at`."""
                here = self.at(weights, self._line(at))
                if parts.start == 0:
                    self._fetch_input(here)
                known = {part: self._weights(here, part) for part in parts}
                found = {}
                for row in range(self._rows):
                    activation = self._activation(x, lines[row], at)
                    for part in parts:
                        found[row, part] = self.fma(known[part], activation, sums[chain, row, part])
                return found

            def turn(number: Any, carried: Any, places: Any = places, added: Any = added) -> list[Any]:
                sums = dict(zip(places, carried, strict=True))
                for chain in range(CHAINS):
                    at = self.at(self.times(number, CHAINS), chain)
                    for (row, part), total in added(sums, chain, at).items():
                        sums[chain, row, part] = total
                return [sums[place] for place in places]

            given = self.loop(whole, [self._zero] * len(places), turn)
            sums = dict(zip(places, given, strict=True))
            last = builder.sub(inputs, self.number(1))
            for chain in range(CHAINS - 1):  # what four do not divide
                at = self.at(self.times(whole, CHAINS), chain)
                there = builder.icmp_signed("<", at, inputs)
                safe = builder.select(there, at, last)
                for (row, part), total in added(sums, chain, safe).items():
                    sums[chain, row, part] = builder.select(there, total, sums[chain, row, part])
            for row in range(self._rows):
                line = self.at(to, self.times(builder.mul(to_stride, self.number(row)), 4))
                for part in parts:
                    self._store([sums[chain, row, part] for chain in range(CHAINS)], line, part)


class _Stretches(_Floats):
    """Many rows: one chain after the other over a stretch of inputs, whose weights stay in the first cache."""

    def emit(self, weights: Any, inputs: Any, x: Any, stride: Any, to: Any, to_stride: Any, sums: Any) -> None:
        builder = self.builder
        lines = [self.times(builder.mul(stride, self.number(row)), 4) for row in range(self._rows)]
        together = self._vectors
        while together > 1 and together * self._rows > self._room:
            together //= 2
        bytes_ = 4 * self._lanes
        stretches = builder.udiv(self.at(inputs, _STRETCH - 1), self.number(_STRETCH))
        for first in range(0, self._vectors, together):
            parts = range(first, first + together)
            places = [(row, part) for row in range(self._rows) for part in parts]
            chain_bytes = bytes_ * len(places)
            for slot in range(CHAINS * len(places)):
                self.store(self._zero, self.at(sums, bytes_ * slot))

            def stretch(
                number: Any, _: Any, parts: range = parts, places: Any = places, chain_bytes: int = chain_bytes
            ) -> list[Any]:
                begin = self.times(number, _STRETCH)
                left = builder.sub(inputs, begin)
                size = builder.select(
                    builder.icmp_signed("<", left, self.number(_STRETCH)), left, self.number(_STRETCH)
                )

                def chain(which: Any, _: Any) -> list[Any]:
                    held = self.at(sums, self.times(which, chain_bytes))
                    turns = builder.udiv(builder.sub(self.at(size, CHAINS - 1), which), self.number(CHAINS))

                    def turn(step: Any, carried: Any) -> list[Any]:
                        at = self.at(begin, which, self.times(step, CHAINS))
                        here = self.at(weights, self._line(at))
                        self._fetch_input(here)
                        known = {part: self._weights(here, part) for part in parts}
                        totals: list[Any] = []
                        for row in range(self._rows):
                            activation = self._activation(x, lines[row], at)
                            for part in parts:
                                totals.append(self.fma(known[part], activation, carried[len(totals)]))
                        return totals

                    start = [self.load(self.at(held, bytes_ * slot), self._floats) for slot in range(len(places))]
                    for slot, total in enumerate(self.loop(turns, start, turn)):
                        self.store(total, self.at(held, bytes_ * slot))
                    return []

                self.loop(self.number(CHAINS), [], chain)  # noqa: B023
                return []

            self.loop(stretches, [], stretch)
            for slot, (row, part) in enumerate(places):
                line = self.at(to, self.times(builder.mul(to_stride, self.number(row)), 4))
                chains = [
                    self.load(self.at(sums, chain_bytes * chain + bytes_ * slot), self._floats)
                    for chain in range(CHAINS)
                ]
                self._store(chains, line, part)
