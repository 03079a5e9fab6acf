"""The one thread that owns the model and every timeline: jobs run one by one, the earliest deadline first.

A job is a plain callable of a few milliseconds. Callers on an event loop `await run(job)`, others `submit(job)` and
hold a future. The thread sleeps while there is nothing to do.
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

T = TypeVar("T")

NO_DEADLINE_NS = 2**63 - 1


class WorkerClosed(RuntimeError):
    """A job came after the worker was closed."""


@dataclass(order=True, slots=True)
class _Job:
    deadline_ns: int
    number: int
    call: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)


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
        with self._changed:
            if not self._open:
                raise WorkerClosed("the worker is closed")
            heapq.heappush(self._jobs, _Job(deadline_ns, next(self._numbers), call, future))
            self._changed.notify()
        return future

    async def run(self, call: Callable[[], T], *, deadline_ns: int = NO_DEADLINE_NS) -> T:
        """Queue `call` and await its result without holding up the event loop, see `submit`."""
        return await asyncio.wrap_future(self.submit(call, deadline_ns))

    def close(self) -> None:
        """Let the running job end, cancel those that wait, and join the thread. May be called again."""
        if threading.current_thread() is self._thread:
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

    def _work(self) -> None:
        while (job := self._next()) is not None:
            _settle(job)
            del job  # what a finished job holds on to must not outlive it while the thread sleeps

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
