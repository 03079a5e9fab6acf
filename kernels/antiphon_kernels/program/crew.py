"""Threads that run one job together: the caller is the first of them, the others sleep between jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable

Job = Callable[[int], None]


class Crew:
    """`threads` threads, the caller's included. One job at a time; not to be shared by callers on several threads."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"a crew of {threads} threads does nothing")
        self.threads = threads
        self._job: Job | None = None
        self._error: BaseException | None = None
        self._begin = [threading.Semaphore(0) for _ in range(threads - 1)]
        self._done = threading.Semaphore(0)
        self._others = [
            threading.Thread(target=self._serve, args=(number,), name=f"crew-{number}", daemon=True)
            for number in range(1, threads)
        ]
        for other in self._others:
            other.start()

    def run(self, job: Job) -> None:
        """job(0) … job(threads - 1), each on a thread of its own; returns when all are done. Raises what one raised."""
        if self.threads == 1:
            job(0)
            return
        if self._job is not None or not self._others:
            raise RuntimeError("the crew is closed, or at work already")
        self._job = job
        for begin in self._begin:
            begin.release()
        try:
            job(0)
        finally:
            for _ in self._others:
                self._done.acquire()
            self._job = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """End the threads. May be called again."""
        others, self._others = self._others, []
        self._job = None
        for begin in self._begin:
            begin.release()
        for other in others:
            other.join()

    def _serve(self, number: int) -> None:
        while True:
            self._begin[number - 1].acquire()
            if self._job is None:
                return
            try:
                self._job(number)
            except BaseException as error:
                self._error = error
            finally:
                self._done.release()
