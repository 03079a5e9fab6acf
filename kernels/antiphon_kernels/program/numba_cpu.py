"""The kernel that runs a program: operations `begin` to `end` on one slab, by one thread of several.

All arithmetic of a row is fixed by the row alone: neither the other rows of its slab, nor how a timeline was cut into
slabs, nor the number of threads changes a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.jit import kernel, piece
from antiphon_kernels.linear.numba_cpu import multiply, round_rows
from antiphon_kernels.program import heads5, heads7, sums4
from antiphon_kernels.program import ops as op_at
from antiphon_kernels.program.elements import LN_EPS, add, apply, copy, gate, layer_norm, mix, mix_by
from antiphon_kernels.program.memory import add_to, borrowed, give_way, pause, seen
from antiphon_kernels.program.ops import (
    ACT_BYTES,
    ADD,
    ADD_NORM,
    BEGIN,
    CODE,
    FINISH,
    FIRST,
    GATE,
    HEAD,
    HEAD_ROUND,
    HEAD_SIZE,
    HEAD_WIDTH,
    HEADS_5,
    HEADS_7,
    KEEP,
    LINEAR,
    MEET,
    MEET_ONE,
    MIX,
    MIX_BY,
    NORM,
    OFFSET,
    OWN,
    OWN_FLOATS,
    ROUND,
    SCRATCH_BYTES,
    SHARED_FLOATS,
    SIZE,
    SUMS_4,
    VOCAB,
    WIDTH,
)  # fmt: skip
from antiphon_kernels.sample.numba_cpu import cost
from antiphon_kernels.window import window

ONE, ZERO = np.int64(1), np.int64(0)
TURNS = 200  # that a thread waits for another before it offers its core: some 10 µs, longer than most have to

# Places in `meeting` int64, each on a cache line of its own: who came to meetings so far, how many had before this job,
# jobs posted, and for every thread whether it waits for one, followed by whether it did not when the last was posted.
LINE = 8
ARRIVED, BASE, POSTED, AWAKE = 0, LINE, 2 * LINE, 3 * LINE


def meeting_of(threads: int) -> npt.NDArray[np.int64]:
    """A `meeting` for so many threads, before the first job."""
    return np.zeros(AWAKE + LINE * threads, np.int64)


def gone(thread: int) -> int:
    """The place in `meeting` that is 1 when this thread may be asleep, as `post` found it."""
    return AWAKE + LINE * thread + 1


@kernel
def run(
    weights: Any, floats: Any, matrices: Any, ops: Any, slots: Any, acts: Any, sizes: Any, slab: Any, scratch: Any,
    begin: int, end: int, thread: int, threads: int, meeting: Any, patience: int, jobs: int,
) -> int:  # fmt: skip
    """See `slab.py` for what `slab` and `scratch` hold, and `hot.py` for `meeting`.

    patience 0: run once. Otherwise serve: run whenever a job is posted after the first `jobs`, and return when none
    was for so many turns of waiting. Gives how many jobs have been posted and done.
    """
    (embedded, before, segments, starts, states, wanted, targets, homes, nats) = slab
    (work, high, low, q, totals, steps, head) = scratch
    rows, count = before.size, wanted.size
    each = rows == 1  # every thread works out for itself what is not shared, see ops.py
    own = thread if each else 0
    slots = _placed(slots, rows, sizes[SHARED_FLOATS] * rows + sizes[OWN_FLOATS] * own)
    acts = _placed(acts, rows, sizes[ACT_BYTES] * own)
    width = sizes[WIDTH]
    spare = np.empty(2 * sizes[HEAD_SIZE], np.float32)
    products = np.empty(sizes[SCRATCH_BYTES], np.uint8)
    done = jobs
    if patience:
        add_to(meeting, AWAKE + LINE * thread, ONE)
    while True:
        if patience:
            if not _is_posted(meeting, done, patience, AWAKE + LINE * thread):
                return done
            done += 1
        met = seen(meeting, BASE)
        for number in range(begin, end):
            op = ops[number]
            code = op[CODE]
            a, b, c, d, e = op[FIRST], op[FIRST + 1], op[FIRST + 2], op[FIRST + 3], op[FIRST + 4]
            if code == LINEAR:
                matrix = matrices[c]
                first, last = _share(e, op[FIRST + 5], thread, threads, op[FIRST + 6])
                if first < last:
                    multiply(
                        weights, floats, matrix, _slot(work, slots, b, rows), slots[b, SIZE],
                        _act(high, low, q, totals, steps, acts, a, rows, own), rows, first, last,
                        _slot(work, slots, d, rows), slots[d, SIZE], products,
                    )  # fmt: skip
            elif code == HEADS_7:
                _heads_7(floats, op, work, slots, sizes, states, starts, rows, spare, thread, threads)
            elif code == HEADS_5:
                _heads_5(floats, op, work, slots, sizes, states, starts, rows, spare, thread, threads)
            elif code == SUMS_4:
                _sums_4(floats, op, work, slots, width, states, starts, rows, thread, threads)
            elif code == MIX:
                for row in range(rows):
                    if each or (row + number) % threads == thread:
                        x = _row(work, slots, a, row, width)
                        out = _row(work, slots, d, row, width)
                        weight = window(floats, c, width)
                        if before[row] < 0:
                            mix(x, borrowed(states[segments[row]] + 4 * b, width), weight, out)
                        else:
                            mix(x, _row(work, slots, a, row - 1, width), weight, out)
                        _round(weights, work, slots, d, high, low, q, totals, steps, acts, e, rows, own, row, width)
            elif code == MIX_BY:
                for row in range(rows):
                    if each or (row + number) % threads == thread:
                        x, weight = _row(work, slots, a, row, width), window(floats, c, width)
                        out = _row(work, slots, d, row, width)
                        more = _row(work, slots, op[FIRST + 5], row, width)
                        if before[row] < 0:
                            mix_by(x, borrowed(states[segments[row]] + 4 * b, width), weight, more, out)
                        else:
                            mix_by(x, _row(work, slots, a, row - 1, width), weight, more, out)
                        _round(weights, work, slots, d, high, low, q, totals, steps, acts, e, rows, own, row, width)
            elif code == GATE:
                for row in range(rows):
                    if row % threads == thread:
                        gate(_row(work, slots, a, row, width), _row(work, slots, b, row, width))
            elif code == ROUND:
                for row in range(rows):
                    if each or (row + number) % threads == thread:
                        apply(c, _row(work, slots, a, row, d), _row(work, slots, e, row, d))
                        _round(weights, work, slots, e, high, low, q, totals, steps, acts, b, rows, own, row, d)
            elif code in (ADD_NORM, ADD):
                for row in range(rows):
                    if each or row % threads == thread:
                        x = _row(work, slots, b, row, width)
                        add(_row(work, slots, a, row, width), x)
                        if code == ADD_NORM:
                            out = _row(work, slots, c, row, width)
                            layer_norm(x, out, window(floats, d, width), window(floats, e, width), LN_EPS)
            elif code == NORM:
                for row in range(rows):
                    if each or row % threads == thread:
                        x, out = _row(work, slots, a, row, width), _row(work, slots, b, row, width)
                        layer_norm(x, out, window(floats, c, width), window(floats, d, width), LN_EPS)
            elif code == KEEP:
                for segment in range(states.size):
                    if segment % threads == thread:
                        x = _row(work, slots, a, starts[segment + 1] - 1, width)
                        copy(x, borrowed(states[segment] + 4 * b, width))
            elif code == BEGIN:
                for row in range(rows):
                    if each or row % threads == thread:
                        x, out = window(embedded, row * width, width), _row(work, slots, a, row, width)
                        layer_norm(x, out, window(floats, b, width), window(floats, c, width), LN_EPS)
            elif code == HEAD_ROUND:
                for place in range(count):
                    if each or place % threads == thread:
                        x, out = (
                            _row(work, slots, a, wanted[place], width),
                            _row(work, slots, b, place, width),
                        )
                        layer_norm(x, out, window(floats, d, width), window(floats, e, width), LN_EPS)
                        _round(weights, work, slots, b, high, low, q, totals, steps, acts, c, rows, own, place, width)
            elif code == HEAD:
                matrix = matrices[c]
                first, last = _share(d, e, thread, threads, op[FIRST + 5])
                straight = count == 1 and homes[0] != 0
                if first < last and count:
                    multiply(
                        weights, floats, matrix, _slot(work, slots, b, rows), slots[b, SIZE],
                        _act(high, low, q, totals, steps, acts, a, rows, own), count, first, last,
                        borrowed(homes[0], sizes[VOCAB]) if straight else head, sizes[HEAD_WIDTH], products,
                    )  # fmt: skip
            elif code == FINISH:
                for place in range(count):
                    if place % threads == thread:
                        logits = window(head, place * sizes[HEAD_WIDTH], sizes[VOCAB])
                        if homes[place] and count > 1:
                            copy(logits, borrowed(homes[place], sizes[VOCAB]))
                        if targets[place] >= 0:
                            nats[place] = cost(logits, targets[place])
            if threads > 1 and op[MEET_ONE if each else MEET]:
                met += threads
                if add_to(meeting, ARRIVED, ONE) < met:
                    waited = 0
                    while seen(meeting, ARRIVED) < met:
                        pause()
                        waited += 1
                        if waited > TURNS:  # who we wait for may have been put on this very core
                            give_way()
        if not patience:
            return done


@piece
def _is_posted(meeting: Any, done: int, patience: int, awake: int) -> bool:
    """Wait for the next job; False when patience ran out, and then whoever posts one knows."""
    waited = 0
    while seen(meeting, POSTED) == done:
        pause()
        waited += 1
        if waited > TURNS:
            give_way()
        if waited > patience:
            add_to(meeting, awake, -ONE)
            if seen(meeting, POSTED) == done:
                return False
            add_to(meeting, awake, ONE)  # it was posted just now, by somebody who may not have seen us leave
            waited = 0
    return True


@kernel
def post(meeting: Any, arrivals: int, threads: int) -> Any:
    """Post a job to whose meetings so many `arrivals` belong; how many threads may be asleep, see `gone` for which."""
    meeting[BASE] = meeting[POSTED] * arrivals
    add_to(meeting, POSTED, ONE)
    asleep = ZERO
    for thread in range(1, threads):
        awake = AWAKE + LINE * thread
        meeting[awake + 1] = add_to(meeting, awake, ZERO) == 0
        asleep += meeting[awake + 1]
    return asleep


@kernel
def let_go(meeting: Any) -> None:
    """Let nobody wait at this job's meetings any more; what it was to work out is void."""
    add_to(meeting, ARRIVED, ONE << 62)


@piece
def _heads_7(
    floats: Any, op: Any, work: Any, slots: Any, sizes: Any, states: Any, starts: Any, rows: int, spare: Any,
    thread: int, threads: int,
) -> None:  # fmt: skip
    size, heads = sizes[HEAD_SIZE], sizes[op_at.N_HEAD]
    kappa, passing = window(spare, 0, size), window(spare, size, size)
    for job in range(thread, states.size * heads, threads):
        segment, head = job // heads, job % heads
        at = head * size
        wkv = borrowed(states[segment] + 4 * (op[heads7.PLACE] + at * size), size * size)
        for row in range(starts[segment], starts[segment + 1]):
            heads7.head_row(
                floats, op, at, wkv,
                _part(work, slots, op[heads7.R], row, at, size),
                _part(work, slots, op[heads7.W], row, at, size),
                _part(work, slots, op[heads7.K], row, at, size),
                _part(work, slots, op[heads7.V], row, at, size),
                _part(work, slots, op[heads7.A], row, at, size),
                _part(work, slots, op[heads7.G], row, at, size),
                _part(work, slots, op[heads7.V_FIRST], row, at, size),
                _part(work, slots, op[heads7.Y], row, at, size),
                kappa, passing,
            )  # fmt: skip


@piece
def _heads_5(
    floats: Any, op: Any, work: Any, slots: Any, sizes: Any, states: Any, starts: Any, rows: int, spare: Any,
    thread: int, threads: int,
) -> None:  # fmt: skip
    size, heads = sizes[HEAD_SIZE], sizes[op_at.N_HEAD]
    w = op[heads5.R] if op[heads5.W] == heads5.NONE else op[heads5.W]  # never read, but every window needs a slot
    g = op[heads5.R] if op[heads5.G] == heads5.NONE else op[heads5.G]
    for job in range(thread, states.size * heads, threads):
        segment, head = job // heads, job % heads
        at = head * size
        wkv = borrowed(states[segment] + 4 * (op[heads5.PLACE] + at * size), size * size)
        for row in range(starts[segment], starts[segment + 1]):
            heads5.head_row(
                floats, op, at, wkv,
                _part(work, slots, op[heads5.R], row, at, size),
                _part(work, slots, w, row, at, size),
                _part(work, slots, op[heads5.K], row, at, size),
                _part(work, slots, op[heads5.V], row, at, size),
                _part(work, slots, g, row, at, size),
                _part(work, slots, op[heads5.Y], row, at, size),
                window(spare, 0, size),
            )  # fmt: skip


@piece
def _sums_4(
    floats: Any, op: Any, work: Any, slots: Any, width: int, states: Any, starts: Any, rows: int,
    thread: int, threads: int,
) -> None:  # fmt: skip
    parts = (width + sums4.TOGETHER - 1) // sums4.TOGETHER
    for job in range(thread, states.size * parts, threads):
        segment, at = job // parts, job % parts * sums4.TOGETHER
        size = min(sums4.TOGETHER, width - at)
        place = states[segment] + 4 * (op[sums4.PLACE] + at)
        aa, bb, pp = borrowed(place, size), borrowed(place + 4 * width, size), borrowed(place + 8 * width, size)
        for row in range(starts[segment], starts[segment + 1]):
            sums4.part_row(
                floats, op, at,
                _part(work, slots, op[sums4.R], row, at, size),
                _part(work, slots, op[sums4.K], row, at, size),
                _part(work, slots, op[sums4.V], row, at, size),
                _part(work, slots, op[sums4.Y], row, at, size),
                aa, bb, pp,
            )  # fmt: skip


@piece
def _placed(table: Any, rows: int, own_at: int) -> Any:
    """[n, 2]: where in memory the slots or acts of this slab begin for this thread, and how wide they are."""
    placed = np.empty((table.shape[0], 2), np.int64)
    for i in range(table.shape[0]):
        placed[i, OFFSET] = table[i, OFFSET] * rows + (own_at if table[i, OWN] else 0)
        placed[i, SIZE] = table[i, SIZE]
    return placed


@piece
def _slot(work: Any, slots: Any, slot: int, rows: int) -> Any:
    """A slot of the slab, all rows."""
    return window(work, slots[slot, OFFSET], slots[slot, SIZE] * rows)


@piece
def _row(work: Any, slots: Any, slot: int, row: int, size: int) -> Any:
    """The first `size` numbers of a row of a slot."""
    return window(work, slots[slot, OFFSET] + slots[slot, SIZE] * row, size)


@piece
def _part(work: Any, slots: Any, slot: int, row: int, at: int, size: int) -> Any:
    """`size` numbers of a row of a slot, from the `at`-th on."""
    return window(work, slots[slot, OFFSET] + slots[slot, SIZE] * row + at, size)


@piece
def _act(high: Any, low: Any, q: Any, totals: Any, steps: Any, acts: Any, act: int, rows: int, own: int) -> Any:
    """An act of the slab, all rows, as the matrices take it; `own`: which thread's, when each has its own."""
    at, size = acts[act, OFFSET], acts[act, SIZE]
    return (
        window(high, at, size * rows),
        window(low, at, size * rows),
        window(q, at if q.size else 0, size * rows if q.size else 0),
        window(totals, at // 32, size // 32 * rows),
        window(steps, (own * acts.shape[0] + act) * rows, rows),
        size,
    )


@piece
def _round(
    weights: Any, work: Any, slots: Any, slot: int, high: Any, low: Any, q: Any, totals: Any, steps: Any, acts: Any,
    act: int, rows: int, own: int, row: int, inputs: int,
) -> None:  # fmt: skip
    """The first `inputs` numbers of one row of a slot into an act."""
    rounded = _act(high, low, q, totals, steps, acts, act, rows, own)
    source = _slot(work, slots, slot, rows)
    round_rows(weights, source, slots[slot, SIZE], row, row + 1, inputs, acts[act, SIZE], rounded)


@piece
def _share(first: int, last: int, thread: int, threads: int, turn: int) -> Any:
    """What of the blocks first..last is this thread's: adjoining parts, which `turn` hands round."""
    mine = (thread + turn) % threads
    return first + (last - first) * mine // threads, first + (last - first) * (mine + 1) // threads
