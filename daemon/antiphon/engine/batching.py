"""Continuous batching: texts that are written at the same time share the model's work, and come and go as they like.

A round takes one id from every text that is being written (all of them, in turns, when there are more than fit), and a
chunk of at most 64 ids from one prompt that is still being read, prompts taking turns. Chunks end at absolute multiples
of 64 ids, where a state may be kept for the next text with the same beginning. A round is one job in slices on the
worker, so that music, which has deadlines, comes before every slice; what a text gets does not depend on who else is in
the round.

All but `Batch.write` and `Writing.cancel` happens on the worker's thread.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from antiphon.engine.pool import STRIDE, Pool, Trail, keys_of
from antiphon.engine.runner import Draw, Mask
from antiphon.engine.sampler import Sampler
from antiphon.engine.timeline import FeedingTogether, Timeline, draw_together
from antiphon.engine.worker import Worker, WorkerClosed

MOST_ROWS = 64
"""Texts that are written on in one round."""

KEPT_EVERY = 512
"""Ids between the states of a long text that are kept; the last one of its prompt and of all of it are kept as well."""


class End(enum.Enum):
    """Why a text is over."""

    STOPPED = "stopped"
    """It drew an id that ends it."""
    LENGTH = "length"
    """It is as long as was asked for."""
    CANCELLED = "cancelled"
    """Nobody wants it any more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Text:
    """What is to be written: `timeline` reads `ids`, then `sampler` draws at most `most` ids.

    The timeline is not used by others until the text is over; then it has been fed all that was drawn but the last id.
    ends: ids that end the text. mask: asked before each draw, None = all ids. on_id: told of each id drawn, the ending
    one included, before it is fed; an exception from either ends the text with it. root: names what the timeline was
    before, when it had been fed nothing and yet is not the model's own beginning.
    """

    timeline: Timeline
    ids: Sequence[int]
    sampler: Sampler
    most: int
    ends: frozenset[int] = frozenset()
    mask: Callable[[], Mask | None] = lambda: None
    on_id: Callable[[int], object] = lambda _: None
    root: bytes = b""


class Writing:
    """A text on its way. `done` gives why it ended, or raises what went wrong."""

    __slots__ = ("_cancelled", "_drawn", "_latest", "_next", "_trail", "_unread", "done", "text")

    def __init__(self, text: Text) -> None:
        self.text = text
        self.done: Future[End] = Future()
        self._cancelled = threading.Event()
        self._unread: Sequence[int] = text.ids
        self._next: int | None = None  # drawn, and still to be fed
        self._drawn = 0
        self._trail: Trail | None = None  # where states may be kept, of a timeline that was new
        self._latest: bytes | None = None  # the key of the state of what was drawn that is kept

    @property
    def drawn(self) -> int:
        """Ids drawn so far."""
        return self._drawn

    def cancel(self) -> None:
        """End it as soon as the round that it is in is over: it costs no further id. From any thread."""
        self._cancelled.set()

    def _feed_of(self, ids: Sequence[int]) -> tuple[Timeline, Sequence[int]]:
        """`ids`, about to be fed to its timeline."""
        if self._trail is not None:
            self._trail.add(ids)
        return self.text.timeline, ids

    def _take(self, token: int) -> End | None:
        """`token` was drawn; gives why it was the last one, or None."""
        text = self.text
        text.sampler.take(token)
        self._next = token
        self._drawn += 1
        text.on_id(token)
        if token in text.ends:
            return End.STOPPED
        return End.LENGTH if self._drawn == text.most else None

    @property
    def _unwanted(self) -> bool:
        return self._cancelled.is_set() or self.done.cancelled()

    def _settle(self, outcome: End | BaseException) -> None:
        if not self.done.set_running_or_notify_cancel():
            return
        if isinstance(outcome, End):
            self.done.set_result(outcome)
        else:
            self.done.set_exception(outcome)


class Batch:
    """The texts that are written on one model, on `worker`. pool: where states are kept for texts that begin alike."""

    def __init__(self, worker: Worker, *, pool: Pool | None = None) -> None:
        self._worker = worker
        self._pool = pool
        self._lock = threading.RLock()  # the job's callback may come while it is held
        self._coming: list[Writing] = []  # under the lock, as is `_job`
        self._job: Future[None] | None = None
        self._reading: deque[Writing] = deque()
        self._drawing: deque[Writing] = deque()
        self._feeding: FeedingTogether | None = None  # of the round that is on its way
        self._fed: deque[Writing] = deque()  # the texts of that round, to be drawn from when it is fed

    def write(self, text: Text) -> Writing:
        """Take `text` into the next round. ValueError for ids outside the vocabulary and for what has no beginning."""
        size = text.timeline.model.vocab_size
        if text.most < 1:
            raise ValueError(f"a text of {text.most} ids cannot be written")
        if not len(text.ids) and not text.timeline.count:
            raise ValueError("a text begins with one id at least")
        ids = np.asarray(text.ids, np.int64)
        wrong = ids[(ids < 0) | (ids >= size)]
        if wrong.size:
            raise ValueError(f"id {wrong[0]} is not in the vocabulary of 0 to {size - 1}")
        writing = Writing(text)
        with self._lock:
            if self._job is None:
                job = self._job = self._worker.submit_sliced(lambda: self)
                self._coming.append(writing)
                job.add_done_callback(self._over)
            else:
                self._coming.append(writing)
        return writing

    def advance(self, budget_ns: int) -> bool:
        """One slice of a round; the worker calls this until no text is left."""
        if not self._fed:
            self._begin_round()
        elif self._feeding is not None:
            self._feed(self._feeding, budget_ns)
        else:
            self._draw(budget_ns)
        with self._lock:
            if self._fed or self._reading or self._drawing or self._coming:
                return False
            self._job = None  # a text that comes from now on submits another
            return True

    # A round, slice by slice

    def _begin_round(self) -> None:
        with self._lock:
            coming, self._coming = self._coming, []
        for writing in coming:
            try:
                self._welcome(writing)
            except Exception as error:  # it cannot be, or the model has no memory left for it
                writing._settle(error)
        for line in (self._reading, self._drawing):
            for writing in [one for one in line if one._unwanted]:
                line.remove(writing)
                writing._settle(End.CANCELLED)
        feeds: list[tuple[Timeline, Sequence[int]]] = []
        for _ in range(min(MOST_ROWS, len(self._drawing))):
            writing = self._drawing.popleft()
            self._fed.append(writing)
            if writing._next is not None:
                feeds.append(writing._feed_of((writing._next,)))
        if self._reading:
            writing = self._reading.popleft()
            self._fed.append(writing)
            size = STRIDE - writing.text.timeline.count % STRIDE
            feeds.append(writing._feed_of(writing._unread[:size]))
            writing._unread = writing._unread[size:]
        if feeds:
            try:
                self._feeding = FeedingTogether(feeds)
            except Exception as error:  # of the model, as below
                self._fail(error)

    def _welcome(self, writing: Writing) -> None:
        """Begin to read a text, from the longest beginning that is known already.

        ValueError for one that cannot be written with the others, which would all end with it.
        """
        text = writing.text
        for other in (*self._reading, *self._drawing):
            if other.text.timeline is text.timeline:
                raise ValueError("another text is written on this timeline")
            if other.text.timeline.model is not text.timeline.model:
                raise ValueError("texts of different models are not written together")
        if self._pool is not None and not text.timeline.count:
            writing._trail = Trail(text.root)
            mark = self._pool.longest(keys_of(text.ids, root=text.root))
            if mark is not None:
                text.timeline.rewind(mark)
                writing._unread = text.ids[mark.count :]
                writing._trail.add(text.ids[: mark.count])
        (self._reading if len(writing._unread) else self._drawing).append(writing)

    def _feed(self, feeding: FeedingTogether, budget_ns: int) -> None:
        try:
            if feeding.advance(budget_ns):
                self._feeding = None
        except Exception as error:  # whatever the model raises belongs to every text of the round; the others live on
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._feeding = None
        while self._fed:
            self._fed.popleft()._settle(error)

    def _draw(self, budget_ns: int) -> None:
        """Go on with the texts that have been fed: to the rest of their prompt, or to the next id."""
        until_ns = time.perf_counter_ns() + budget_ns
        while self._fed and time.perf_counter_ns() < until_ns:
            draws = self._next_draws()
            for (writing, _), token in zip(draws, _drawn(draws), strict=True):
                try:
                    end = writing._take(token) if isinstance(token, int) else token
                except Exception as error:  # whatever the text's own `on_id` raises
                    end = error
                if end is None:
                    self._drawing.append(writing)
                else:
                    writing._settle(end)

    def _next_draws(self) -> list[tuple[Writing, Draw]]:
        """The draws of some of the texts that have been fed: of one on a processor, on a GPU of all."""
        draws: list[tuple[Writing, Draw]] = []
        while self._fed:
            writing = self._fed.popleft()
            text = writing.text
            if writing._unwanted:
                writing._settle(End.CANCELLED)
                continue
            try:
                self._keep(writing)
                if len(writing._unread):
                    self._reading.append(writing)
                    continue
                draws.append((writing, text.sampler.draw(text.mask())))
            except Exception as error:  # whatever the text's own mask raises, or the model where a state is kept
                writing._settle(error)
            if text.timeline.model.runner.device == "cpu":
                break
        return draws

    def _keep(self, writing: Writing) -> None:
        """Keep the state of the prompt's last place, of the last one in what was drawn, and of some in between."""
        trail, pool = writing._trail, self._pool
        if pool is None or trail is None or not trail.count or trail.count % STRIDE:
            return
        prompt = len(writing.text.ids)
        if trail.count > prompt:
            if writing._latest is not None:
                pool.drop(writing._latest)
            writing._latest = None if trail.count % KEPT_EVERY == 0 else trail.key
        elif trail.count + STRIDE <= prompt and trail.count % KEPT_EVERY:
            return
        pool.keep(trail.key, writing.text.timeline)

    def _over(self, job: Future[None]) -> None:
        """The job has ended: texts are only left when the worker was closed, or something went wrong."""
        error: BaseException | None = WorkerClosed("the worker is closed") if job.cancelled() else job.exception()
        if error is None:
            return
        with self._lock:
            left = [*self._coming, *self._fed, *self._reading, *self._drawing]
            self._coming = []
            self._job = None
        for line in (self._fed, self._reading, self._drawing):
            line.clear()
        self._feeding = None
        for writing in left:
            writing._settle(error)


def _drawn(draws: Sequence[tuple[Writing, Draw]]) -> list[int | Exception]:
    """The id of each draw, or what keeps it from having one."""
    if len(draws) > 1:
        with contextlib.suppress(Exception):  # of one of them, or of the device: each is asked alone
            return [*draw_together([(writing.text.timeline, draw) for writing, draw in draws])]
    ids: list[int | Exception] = []
    for writing, draw in draws:
        try:
            ids.append(writing.text.timeline.draw(draw))
        except Exception as error:  # a mask that allows nothing, logits that are no numbers
            ids.append(error)
    return ids
