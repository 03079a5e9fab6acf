"""The one thread that owns the model and every timeline: jobs run one by one, the earliest deadline first.

A job is a plain callable of a few milliseconds. Callers on an event loop `await run(job)`, others `submit(job)` and
hold a future. What takes longer comes in slices (`submit_sliced`), and between two of them whatever has an earlier
deadline gets its turn. The thread sleeps while there is nothing to do.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from antiphon.engine.runner import Running

T = TypeVar("T")

NO_DEADLINE_NS = 2**63 - 1
SLICE_NS = 1_500_000
"""What a slice is given: a runner's last step begins within it, and with that a slice stays below 3 ms."""


class WorkerClosed(RuntimeError):
    """A job came after the worker was closed."""


@dataclass(order=True, slots=True)
class _Job:
    deadline_ns: int
    number: int
    call: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)
    slice_ns: int = field(default=0, compare=False)  # 0: the call is the whole job, else it begins one in slices
    running: Running | None = field(default=None, compare=False)


class Worker:
    """Runs jobs on a thread of its own from construction until `close`."""

    def __init__(self, *, name: str = "worker") -> None:
        self._jobs: list[_Job] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._open = True
        # A daemon thread, so that a process whose main thread died is not kept half alive by its worker.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T], deadline_ns: int = NO_DEADLINE_NS) -> Future[T]:
        """Queue `call`; its result or exception comes through the future. WorkerClosed after `close`.

        Of the jobs that wait, the one with the earliest deadline (CLOCK_MONOTONIC) runs next, on a tie the one
        submitted first. A job that has begun is never interrupted; a late one runs all the same. A future that is
        cancelled before its job begins keeps it from running.
        """
        future: Future[T] = Future()
        self._queue(_Job(deadline_ns, next(self._numbers), call, future))
        return future

    def submit_sliced(
        self, begin: Callable[[], Running], deadline_ns: int = NO_DEADLINE_NS, *, slice_ns: int = SLICE_NS
    ) -> Future[None]:
        """Queue a job in slices: `begin` is called when its turn has come, and what it gives advances until it is done.

        It is queued as by `submit`, and anew after each slice: jobs with an earlier deadline come in between, and those
        with the same one take turns with it. A future that is cancelled keeps the next slice from running.
        """
        future: Future[None] = Future()
        self._queue(_Job(deadline_ns, next(self._numbers), begin, future, slice_ns))
        return future

    async def run(self, call: Callable[[], T], *, deadline_ns: int = NO_DEADLINE_NS) -> T:
        """Queue `call` and await its result without holding up the event loop, see `submit`."""
        return await asyncio.wrap_future(self.submit(call, deadline_ns))

    @property
    def is_current(self) -> bool:
        """Whether the caller is one of its jobs."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Let the running job end, cancel those that wait, and join the thread. May be called again."""
        if self.is_current:
            raise RuntimeError("a job cannot close the worker that runs it")
        with self._changed:
            self._open = False
            left, self._jobs = self._jobs, []
            self._changed.notify()
        for job in left:
            job.future.cancel()
        self._thread.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _queue(self, job: _Job) -> None:
        with self._changed:
            if not self._open:
                raise WorkerClosed("the worker is closed")
            heapq.heappush(self._jobs, job)
            self._changed.notify()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if job.slice_ns == 0:
                _settle(job)
            elif not _settle_slice(job):
                self._queue_again(job)
            del job  # what a finished job holds on to must not outlive it while the thread sleeps

    def _queue_again(self, job: _Job) -> None:
        with self._changed:
            if self._open:
                job.number = next(self._numbers)
                heapq.heappush(self._jobs, job)
                return
        job.future.cancel()

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or not self._open)
            return heapq.heappop(self._jobs) if self._jobs else None


def _settle(job: _Job) -> None:
    """Run one job and hand on what came of it."""
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        result = job.call()
    except BaseException as error:  # whatever a job raises belongs to its caller; the thread lives on
        job.future.set_exception(error)
    else:
        job.future.set_result(result)


def _settle_slice(job: _Job) -> bool:
    """Run one slice; gives whether the job has come to its end, and its future been told."""
    error: BaseException | None = None
    if not job.future.cancelled():  # it stays pending, and may be cancelled, until the last slice is over
        try:
            if job.running is None:
                job.running = job.call()
            if not job.running.advance(job.slice_ns):
                return False
        except BaseException as raised:  # as in `_settle`
            error = raised
    if job.future.set_running_or_notify_cancel():
        if error is None:
            job.future.set_result(None)
        else:
            job.future.set_exception(error)
    return True
