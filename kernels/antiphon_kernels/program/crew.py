"""Threads that run one job together: the caller is the first of them, the others sleep between jobs."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence

Job = Callable[[int], None]


class Crew:
    """`threads` threads, the caller's included. One job at a time; not to be shared by callers on several threads.

    The others end when it is closed, or dropped.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"a crew of {threads} threads does nothing")
        self.threads = threads
        self._job: Job | None = None
        self._let_go: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._posted = 0
        self._finished = [0] * (threads - 1)  # up to which job each of the others is done
        self._begin = [threading.Semaphore(0) for _ in range(threads - 1)]
        self._done = threading.Semaphore(0)
        self._others = [
            threading.Thread(target=_serve, args=(weakref.ref(self), begin, number), name=f"crew-{number}", daemon=True)
            for number, begin in enumerate(self._begin, 1)
        ]
        self._end = weakref.finalize(self, wake, self._begin)
        self._end.atexit = False
        for other in self._others:
            other.start()

    def run(self, job: Job, *, let_go: Callable[[], None] | None = None) -> None:
        """job(0) … job(threads - 1), each on a thread of its own; returns when all are done. Raises what one raised.

        let_go: called when one raised, or an interrupt kept it from beginning: the others are not to wait for it.
        """
        if self.threads == 1:
            job(0)
            return
        if not self._others:
            raise RuntimeError("the crew is closed")
        self._wait()  # for a job whose end an interrupt kept us from
        number = self._posted + 1
        try:
            self._let_go, self._error, self._job, self._posted = let_go, None, job, number
            wake(self._begin)
            job(0)
        except BaseException:
            if let_go is not None:
                let_go()
            wake(self._begin)  # all of them: one that was woken already sees that there is nothing new
            raise
        finally:
            self._wait()
            self._job = self._let_go = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """End the threads. May be called again."""
        others, self._others = self._others, []
        self._end()
        for other in others:
            other.join()

    def _wait(self) -> None:
        while any(finished < self._posted for finished in self._finished):
            self._done.acquire()

    def _work(self, number: int) -> bool:
        """One thread's part of what was posted last, if that is new; False when there will be no more."""
        posted = self._posted
        if self._finished[number - 1] == posted:
            return bool(self._others)
        try:
            assert self._job is not None
            self._job(number)
        except BaseException as error:
            self._error = error
            if self._let_go is not None:
                self._let_go()
        finally:
            self._finished[number - 1] = posted
            self._done.release()
        return True


def wake(sleepers: Sequence[threading.Semaphore]) -> None:
    """Wake the threads that wait for these."""
    for sleeper in sleepers:
        sleeper.release()


def _serve(crew: weakref.ref[Crew], begin: threading.Semaphore, number: int) -> None:
    """What the others run; asleep they hold nothing of their crew, so that one that is dropped can go."""
    while True:
        begin.acquire()
        mine = crew()
        if mine is None or not mine._work(number):
            return
        del mine
