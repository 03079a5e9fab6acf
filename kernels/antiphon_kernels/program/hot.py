"""One id after another on one timeline: a slab of one row, made once, and threads that stay awake between ids.

A step of a small model takes less time than it takes Linux to wake a thread. So the other threads wait for the next id
inside compiled code, and only go to sleep when none has come for a while. Whoever posts an id sees who is awake and
wakes the others; a thread that is about to leave looks once more, after it has said so.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import numpy.typing as npt

from antiphon_kernels.program import numba_cpu
from antiphon_kernels.program.crew import wake
from antiphon_kernels.program.ops import MEET_ONE, Program
from antiphon_kernels.program.slab import Scratch

Floats = npt.NDArray[np.float32]

PATIENCE = 4000
"""Turns that a thread waits for the next id, some 50 ns each on a recent processor."""


class Step:
    """Feeds one id at a time, on the caller's thread and `threads` - 1 others. For one caller at a time.

    The others end when it is closed, or dropped.
    """

    def __init__(self, program: Program, *, threads: int = 1) -> None:
        one = np.zeros(1, np.int64)
        self._program = program
        self._threads = threads
        self._embedded = np.zeros(program.width, np.float32)
        self._states, self._homes = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._meeting = numba_cpu.meeting_of(threads)
        slab = (
            self._embedded, one - 1, one, np.array([0, 1]), self._states, one, one - 1, self._homes,
            np.zeros(1, np.float32),
        )  # fmt: skip
        self._arguments = (
            program.weights, program.floats, program.matrices, program.ops, program.slots, program.acts, program.sizes,
            slab, Scratch(program, 1, threads=threads).arrays(1), 0, len(program.ops),
        )  # fmt: skip
        self._arrivals = int(program.ops[:, MEET_ONE].sum()) * threads
        self._open = True
        self._begin = [threading.Semaphore(0) for _ in range(1, threads)]
        self._others = [
            threading.Thread(target=_serve, args=(weakref.ref(self), begin, number), name=f"step-{number}", daemon=True)
            for number, begin in enumerate(self._begin, 1)
        ]
        self._end = weakref.finalize(self, wake, self._begin)
        self._end.atexit = False
        for other in self._others:
            other.start()

    def run(self, token: int, state_at: int, logits_at: int) -> None:
        """Feed one id to the timeline whose state and logits lie at these addresses; see `slab.Segment`."""
        embed_one(self._program, token, self._embedded)
        self._states[0], self._homes[0] = state_at, logits_at
        posted = int(self._meeting[numba_cpu.POSTED])
        try:
            if self._threads > 1 and numba_cpu.post(self._meeting, self._arrivals, self._threads):
                for number, begin in enumerate(self._begin, 1):
                    if self._meeting[numba_cpu.gone(number)]:
                        begin.release()
            numba_cpu.run(*self._arguments, 0, self._threads, self._meeting, 0, 0)
        except BaseException:
            # An interrupt may come once the others have begun, and they would wait for this thread for ever.
            arrivals = (posted + 1) * self._arrivals
            if self._meeting[numba_cpu.POSTED] > posted and self._meeting[numba_cpu.ARRIVED] < arrivals:
                wake(self._begin)
                numba_cpu.run(*self._arguments, 0, self._threads, self._meeting, 0, 0)
            raise

    def close(self) -> None:
        """End the other threads. May be called again; nothing is run after it."""
        others, self._others, self._open = self._others, [], False
        self._end()
        for other in others:
            other.join()

    def _work(self, number: int, jobs: int) -> int:
        """One thread's part of what is posted after the first `jobs`, until nothing more comes; gives the jobs then."""
        return numba_cpu.run(*self._arguments, number, self._threads, self._meeting, PATIENCE, jobs)


def _serve(step: weakref.ref[Step], begin: threading.Semaphore, number: int) -> None:
    """What the others run; asleep they hold nothing of their step, so that one that is dropped can go."""
    jobs = 0
    while True:
        begin.acquire()
        mine = step()
        if mine is None or not mine._open:
            return
        jobs = mine._work(number, jobs)
        del mine


def embed_one(program: Program, token: int, out: Floats) -> None:
    """out [D] = the embedding's row of `token`, in float32."""
    row = program.embedding[token]
    if program.embedding_scale is not None:
        np.multiply(row, program.embedding_scale[token], out=out)
    elif row.dtype == np.uint16:
        np.left_shift(row, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        out[:] = row
