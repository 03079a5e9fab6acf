"""Rows of several timelines on their way through a program together.

A slab can be left between any two operations and gone on with later: it holds all that is between. The caller keeps
states and logits where they are until it is done, and runs nothing else on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.program import numba_cpu
from antiphon_kernels.program import ops as op_at
from antiphon_kernels.program.crew import Crew
from antiphon_kernels.program.ops import MAX_ROWS, Program
from antiphon_kernels.sample.numba_cpu import nats as cost_of

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """Ids to feed to one timeline.

    state: float32 [state_len], moves on in place. logits: float32 [V], overwritten by those after the last id. ids:
    int32 [T >= 1], all within the vocabulary. nats: float32 [T] or None; nats[t] = -log p(ids[t]) under the logits
    before it, of which the first are `logits` as they are given. ends: whether the logits after the last id are wanted.
    """

    state: Floats
    logits: Floats
    ids: npt.NDArray[np.int32]
    nats: Floats | None = None
    ends: bool = True


class Scratch:
    """Memory for slabs of `rows` rows of one program, on up to `threads` threads; for one slab at a time."""

    def __init__(self, program: Program, rows: int, *, threads: int = 1) -> None:
        sizes = program.sizes
        plain = program.weights.dtype != np.uint8
        copies = threads if rows == 1 else 1  # of what each thread works out for itself, see ops.py
        act = int(sizes[op_at.ACT_BYTES]) * rows * copies
        self.rows, self.threads = rows, threads
        self.embedded = np.empty(rows * program.width, np.float32)
        self.head = np.empty(0, np.float32)
        self._head_width = int(sizes[op_at.HEAD_WIDTH])
        self._arrays = (
            np.zeros((int(sizes[op_at.SHARED_FLOATS]) + int(sizes[op_at.OWN_FLOATS]) * copies) * rows, np.float32),
            np.zeros(0 if plain else act, np.int8),
            np.zeros(0 if plain else act, np.int8),
            np.zeros(act if plain else 0, np.int16),
            np.zeros(act // 32, np.int32),
            np.zeros(program.acts.shape[0] * rows * copies, np.float32),
        )

    def arrays(self, wanted: int) -> tuple[Any, ...]:
        """What the kernel takes, with room for so many rows of logits."""
        if self.head.size < wanted * self._head_width:
            self.head = np.zeros(wanted * self._head_width, np.float32)
        return (*self._arrays, self.head)


class Slab:
    """`segments` of at most MAX_ROWS ids in all, at the beginning of `program`, to be run on up to `threads` threads.

    A slab of one row must be run on as many threads from first to last.
    """

    def __init__(
        self, program: Program, segments: Sequence[Segment], *, threads: int = 1, scratch: Scratch | None = None
    ) -> None:
        rows = sum(segment.ids.size for segment in segments)
        if not 0 < rows <= MAX_ROWS:
            raise ValueError(f"a slab has 1 to {MAX_ROWS} rows, not {rows}")
        if scratch is None or scratch.rows != rows or scratch.threads < threads:
            scratch = Scratch(program, rows, threads=threads)
        self._program = program
        self._segments = segments
        self.scratch = scratch
        self._at = 0
        self._meeting = numba_cpu.meeting_of(1)
        before = np.arange(-1, rows - 1, dtype=np.int64)
        owner = np.empty(rows, np.int64)
        starts = np.zeros(len(segments) + 1, np.int64)
        wanted: list[int] = []
        targets: list[int] = []
        homes: list[int] = []
        self._costs: list[tuple[Floats, int]] = []
        for number, segment in enumerate(segments):
            first = int(starts[number])
            last = first + segment.ids.size
            before[first] = -1
            owner[first:last] = number
            starts[number + 1] = last
            if segment.nats is not None:
                segment.nats[0] = cost_of(segment.logits, int(segment.ids[0]))
                for row in range(first, last - 1):
                    wanted.append(row)
                    targets.append(int(segment.ids[row - first + 1]))
                    homes.append(0)
                    self._costs.append((segment.nats, row - first + 1))
            if segment.ends:
                wanted.append(last - 1)
                targets.append(-1)
                homes.append(segment.logits.ctypes.data)
                self._costs.append((_NOWHERE, 0))
        self._nats = np.zeros(len(wanted), np.float32)
        embed(program, np.concatenate([segment.ids for segment in segments]), scratch.embedded)
        self._arrays = (
            scratch.embedded,
            before,
            owner,
            starts,
            np.array([segment.state.ctypes.data for segment in segments], np.int64),
            np.array(wanted, np.int64),
            np.array(targets, np.int64),
            np.array(homes, np.int64),
            self._nats,
        )

    @property
    def rows(self) -> int:
        """How many ids it feeds."""
        return self.scratch.rows

    @property
    def at(self) -> int:
        """The operation that comes next."""
        return self._at

    @property
    def done(self) -> bool:
        """Whether states, logits and nats are what they are to be."""
        return self._at == len(self._program.ops)

    def run(self, until: int | None = None, *, crew: Crew | None = None) -> None:
        """Run the operations from here up to `until` (None: to the end). Releases the interpreter lock."""
        program = self._program
        end = len(program.ops) if until is None else until
        threads = 1 if crew is None else crew.threads
        if threads > self.scratch.threads:
            raise ValueError(f"{threads} threads run a slab for {self.scratch.threads}")
        scratch = self.scratch.arrays(self._nats.size)
        self._meeting[numba_cpu.ARRIVED] = 0

        def job(thread: int) -> None:
            numba_cpu.run(
                program.weights, program.floats, program.matrices, program.ops, program.slots, program.acts,
                program.sizes, self._arrays, scratch, self._at, end, thread, threads, self._meeting, 0, 0,
            )  # fmt: skip

        if crew is None:
            job(0)
        else:
            crew.run(job, let_go=lambda: numba_cpu.let_go(self._meeting))
        self._at = end
        if self.done:
            for (home, place), nats in zip(self._costs, self._nats, strict=True):
                home[place] = nats


_NOWHERE = np.zeros(1, np.float32)


def embed(program: Program, ids: npt.NDArray[np.int32], out: Floats) -> None:
    """out [T * D] = the embedding's rows of `ids` [T], in float32."""
    rows = program.embedding[ids]
    if program.embedding_scale is not None:
        np.multiply(rows, program.embedding_scale[ids, None], out=out.reshape(rows.shape))
    elif rows.dtype == np.uint16:  # bfloat16 is the upper half of a float32
        np.left_shift(rows, 16, out=out.view(np.uint32).reshape(rows.shape), dtype=np.uint32)
    else:
        out.reshape(rows.shape)[:] = rows


def feed(
    program: Program, segments: Sequence[Segment], *, crew: Crew | None = None, scratch: Scratch | None = None
) -> None:
    """Feed all `segments` to the end, as many rows at a time as fit; no bit depends on how they are cut."""
    waiting = list(segments)
    while waiting:
        taken, waiting = cut(waiting)
        Slab(program, taken, threads=1 if crew is None else crew.threads, scratch=scratch).run(crew=crew)


def cut(segments: Sequence[Segment]) -> tuple[list[Segment], list[Segment]]:
    """The first MAX_ROWS rows of `segments`, and the rest."""
    taken: list[Segment] = []
    room = MAX_ROWS
    for number, segment in enumerate(segments):
        size = min(room, segment.ids.size)
        taken.append(_part(segment, 0, size))
        room -= size
        if room == 0:
            rest = list(segments[number + 1 :])
            if size < segment.ids.size:
                rest.insert(0, _part(segment, size, segment.ids.size))
            return taken, rest
    return taken, []


def _part(segment: Segment, first: int, last: int) -> Segment:
    if first == 0 and last == segment.ids.size:
        return segment
    nats = None if segment.nats is None else segment.nats[first:last]
    # What comes next is scored by the logits in between.
    ends = segment.ends if last == segment.ids.size else nats is not None
    return Segment(state=segment.state, logits=segment.logits, ids=segment.ids[first:last], nats=nats, ends=ends)
