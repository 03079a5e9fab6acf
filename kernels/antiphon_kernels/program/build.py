"""Builds a program: first where everything goes, then one tensor after another into its place.

The builders of the versions say what a step does; how a matrix is held is up to whoever gives the weights. Memory
grows to the size of the result and one tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from antiphon_kernels.large_pages import zeros
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.format import BLOCK, INPUTS_PAD, up
from antiphon_kernels.linear.layout import describe, lay_out, sizes_of
from antiphon_kernels.linear.space import scratch_bytes
from antiphon_kernels.program import ops as op_at
from antiphon_kernels.program.ops import OFFSET, OP_COLUMNS, OWN, SIZE, Program

Array = npt.NDArray[Any]

ALIGN = 64  # bytes of a cache line
_SKIPPING = (fmt.INT8_ROWS, fmt.INT16_ROWS)  # formats that can lie by input
MOST_WEIGHTS = 1 << 20  # of one operation: a slab can be left between two, and must be soon


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One matrix as its format holds it: values [out, in], and scales [out] or [out, groups] where it has any."""

    values: Array
    scales: npt.NDArray[np.float32] | None = None


class Weights(Protocol):
    """Whoever gives a model's tensors, by their official names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape; KeyError when there is none."""
        ...

    def held(self, name: str) -> tuple[int, int]:
        """(format, inputs of a group or 0) in which a matrix is to be held."""
        ...

    def matrix(self, name: str, *, transpose: bool) -> Values:
        """A matrix [out, in] in that format; `transpose`: the tensor is [in, out]."""
        ...

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor of any shape, flat."""
        ...

    def embedding(self) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """See `Program.embedding`."""
        ...


class Builder:
    """Collects operations, slots, and what is to be laid where; `program` does the laying."""

    def __init__(self, weights: Weights, *, interleave: bool) -> None:
        self.weights = weights
        self._interleave = interleave
        self._bytes = 0
        self._floats = 0
        self._fill: list[Callable[[Array, npt.NDArray[np.float32]], None]] = []
        self._matrices: list[npt.NDArray[np.int64]] = []
        self._ops: list[npt.NDArray[np.int64]] = []
        self._costs: list[int] = []
        self._slots: list[tuple[int, bool]] = []
        self._acts: list[int] = []

    def slot(self, size: int, *, own: bool = False) -> int:
        """A new slot of at least `size` numbers a row, and whole blocks of them; for `own` see ops.py."""
        self._slots.append((up(size, BLOCK), own))
        return len(self._slots) - 1

    def act(self, inputs: int) -> int:
        """A new act for matrices of so many inputs."""
        self._acts.append(up(inputs, INPUTS_PAD))
        return len(self._acts) - 1

    def vector(self, name: str, size: int, *, made: Callable[[Array], Array] | None = None) -> int:
        """The place in `floats` of a tensor of `size` numbers, or of what `made` turns it into."""
        at = self._floats
        self._floats += up(size, ALIGN // 4)

        def fill(_weights: Array, floats: npt.NDArray[np.float32]) -> None:
            vector = self.weights.vector(name)
            vector = vector if made is None else np.asarray(made(vector), np.float32).reshape(-1)
            if vector.size != size:
                raise ValueError(f"{name} holds {vector.size} numbers, not {size}")
            floats[at : at + size] = vector

        self._fill.append(fill)
        return at

    def number(self, value: float) -> int:
        """The place in `floats` of one number."""
        at = self._floats
        self._floats += ALIGN // 4

        def fill(_weights: Array, floats: npt.NDArray[np.float32]) -> None:
            floats[at] = value

        self._fill.append(fill)
        return at

    def matrix(self, name: str, shape: tuple[int, int], *, transpose: bool = False, often_zero: bool = False) -> int:
        """The number of a new matrix [out, in]; ValueError when the tensor has another shape.

        often_zero: many of its inputs will be 0, and then need not be read.
        """
        found = self.weights.shape(name)
        if found != (shape[::-1] if transpose else shape):
            raise ValueError(f"{name} is {'x'.join(map(str, found))}, not {shape[0]}x{shape[1]}")
        outputs, inputs = shape
        form, group = self.weights.held(name)
        order = fmt.BY_INPUT if often_zero and form in _SKIPPING else fmt.BY_OUTPUT
        size, scales = sizes_of(form, outputs, inputs, group=group, order=order)
        row = describe(form, outputs, inputs, group=group, order=order, at=self._bytes, scales=self._floats)
        self._bytes += up(size, ALIGN)
        self._floats += up(scales, ALIGN // 4)
        begin, first = int(row[fmt.AT]), int(row[fmt.SCALES])

        def fill(weights: Array, floats: npt.NDArray[np.float32]) -> None:
            given = self.weights.matrix(name, transpose=transpose)
            lay_out(
                given.values, given.scales, row, weights[begin : begin + size], floats[first : first + scales],
                interleave=self._interleave,
            )  # fmt: skip

        self._fill.append(fill)
        self._matrices.append(row)
        return len(self._matrices) - 1

    def op(self, code: int, *columns: int, cost: int = 0) -> None:
        """Append an operation."""
        row = np.zeros(OP_COLUMNS, np.int64)
        row[op_at.CODE] = code
        row[op_at.FIRST : op_at.FIRST + len(columns)] = columns
        self._ops.append(row)
        self._costs.append(cost)

    def meet(self) -> None:
        """All threads meet after the operation appended last."""
        self._ops[-1][[op_at.MEET, op_at.MEET_ONE]] = 1

    def meet_rows(self) -> None:
        """The same where threads have shared rows; a thread that does a single row for itself goes on."""
        self._ops[-1][op_at.MEET] = 1

    def linear(self, act: int, source: int, matrix: int, to: int, *, turn: int = 0) -> None:
        """slot `to` = matrix times `act`, which was rounded from slot `source`; in pieces that are soon done."""
        for first, last, cost in self._pieces(matrix):
            self.op(op_at.LINEAR, act, source, matrix, to, first, last, turn, cost=cost)

    def head(self, act: int, source: int, matrix: int) -> None:
        """The logits of the rows in `act`."""
        for first, last, cost in self._pieces(matrix):
            self.op(op_at.HEAD, act, source, matrix, first, last, 0, cost=cost)

    def program(self, *, n_head: int, head_size: int, start: npt.NDArray[np.float32]) -> Program:
        """Lay everything where it belongs. The last matrix is the head's."""
        weights = zeros(self._bytes, np.uint8 if self._interleave else np.int8)
        floats: npt.NDArray[np.float32] = zeros(4 * self._floats, np.float32)
        for fill in self._fill:
            fill(weights, floats)
        weights.flags.writeable = floats.flags.writeable = False
        embedding, scale = self.weights.embedding()
        vocab, width = embedding.shape
        slots, acts = _table(self._slots), _table([(size, True) for size in self._acts])
        sizes = np.zeros(op_at.SIZES, np.int64)
        sizes[op_at.WIDTH], sizes[op_at.N_HEAD], sizes[op_at.HEAD_SIZE], sizes[op_at.VOCAB] = (
            width, n_head, head_size, vocab,
        )  # fmt: skip
        sizes[op_at.HEAD_WIDTH] = up(vocab, BLOCK)
        matrices = np.stack(self._matrices)
        sizes[op_at.SCRATCH_BYTES] = scratch_bytes(matrices)
        own = slots[:, OWN] == 1
        sizes[op_at.SHARED_FLOATS], sizes[op_at.OWN_FLOATS] = slots[~own, SIZE].sum(), slots[own, SIZE].sum()
        sizes[op_at.ACT_BYTES] = acts[:, SIZE].sum()
        return Program(
            weights=weights,
            floats=floats,
            matrices=matrices,
            ops=np.stack(self._ops),
            slots=slots,
            acts=acts,
            sizes=sizes,
            embedding=embedding,
            embedding_scale=scale,
            start=start,
            costs=np.array(self._costs, np.int64),
        )

    def _pieces(self, matrix: int) -> list[tuple[int, int, int]]:
        """(first block, last block, bytes of weights) of the pieces of a matrix."""
        row = self._matrices[matrix]
        blocks = int(row[fmt.BLOCKS])
        size, _ = sizes_of(
            int(row[fmt.FORMAT]), int(row[fmt.OUTPUTS]), int(row[fmt.INPUTS]),
            group=int(row[fmt.GROUP]), order=int(row[fmt.ORDER]),
        )  # fmt: skip
        count = max(1, -(-blocks * BLOCK * int(row[fmt.PADDED]) // MOST_WEIGHTS))
        edges = [blocks * i // count for i in range(count + 1)]
        return [(a, b, size * (b - a) // blocks) for a, b in itertools.pairwise(edges) if b > a]


def _table(sizes: list[tuple[int, bool]]) -> npt.NDArray[np.int64]:
    table = np.zeros((len(sizes), 3), np.int64)
    ends = {False: 0, True: 0}
    for row, (size, own) in zip(table, sizes, strict=True):
        row[[OFFSET, SIZE, OWN]] = ends[own], size, own
        ends[own] += size
    return table
