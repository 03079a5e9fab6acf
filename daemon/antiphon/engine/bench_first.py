"""Music first: a timeline whose ids have dates, beside texts that want all the model's time, on one worker.

The music is a session as hard as the daemon ever plays one, and harder: every id is asked for by itself, one beat of
`Session.every_ns` before it is due, as if nothing could be written ahead. At each bar line an answer begins: a fork of
the trunk, the ids that were not settled yet, and the first ids drawn, asked for `commit_ns` before the line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from antiphon.engine.batching import Batch, Text, Writing
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.sampler import Sampler, Style
from antiphon.engine.sampling import Sampling
from antiphon.engine.timeline import Timeline
from antiphon.engine.worker import Worker

_SAMPLING = Sampling(temperature=1.0, top_p=0.98)
_NEVER = 2**31
_LEAD_NS = 200_000_000  # from the start of a scene to the first id, for the texts to get going
_PROMPT = 16  # ids of a text before it is written on


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """When ids are due: one every `every_ns`, and an answer every `bar_ns` on the bar line.

    unsettled: ids that a fork is fed before it draws; first: how many it draws, by the line.
    """

    every_ns: int
    bar_ns: int
    commit_ns: int
    unsettled: int = 12
    first: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What goes on beside the music: `texts` written without end, and a prompt of `prefill` ids again and again."""

    model: LoadedModel
    texts: int
    prefill: int


@dataclass(slots=True, kw_only=True)
class Heard:
    """What a scene came to. Times in ns; late ones are positive, one number per id or per answer.

    waited: from asking for an id to the beginning of its job. slices: how long each slice of the texts' work took.
    prefills: how long each long prompt took.
    """

    late: list[int] = field(default_factory=list)
    answers_late: list[int] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    prefills: list[int] = field(default_factory=list)
    text_ids: int = 0
    lasted_ns: int = 0

    @property
    def text_per_s(self) -> float:
        """Ids a second that all texts together were written by."""
        return self.text_ids * 1e9 / self.lasted_ns


def play(
    music: LoadedModel | None, session: Session, *, load: Load | None, len_ns: int, ended: threading.Event
) -> Heard:
    """Play `session` on `music` (None: texts alone) for `len_ns`, beside `load` (None: alone); `ended` stops it."""
    heard = Heard()
    with Worker() as worker:
        texts = None if load is None else _Texts(worker, load, heard)
        began = time.monotonic_ns()
        if texts is not None:
            texts.begin()
        first = began + _LEAD_NS
        if music is not None:
            _Music(worker, music, session, heard).play(first, first + len_ns, ended)
        else:
            ended.wait((first + len_ns - time.monotonic_ns()) / 1e9)
        heard.lasted_ns = time.monotonic_ns() - began
        if texts is not None:
            texts.end()
    return heard


class _Music:
    """Asks for ids on time, as the event loop of the daemon does, and notes when they were there."""

    def __init__(self, worker: Worker, model: LoadedModel, session: Session, heard: Heard) -> None:
        self._worker = worker
        self._session = session
        self._heard = heard
        self._trunk = Timeline(model)
        self._trunk.feed(range(min(64, model.vocab_size)))
        self._next = 0
        self._rng = np.random.default_rng(1)

    def play(self, first_ns: int, last_ns: int, ended: threading.Event) -> None:
        session = self._session
        asked: list[Future[None]] = []
        ids = answers = 0
        while not ended.is_set():
            id_due, line = first_ns + ids * session.every_ns, first_ns + answers * session.bar_ns
            ask_id, ask_answer = id_due - session.every_ns, line - session.commit_ns
            if min(ask_id, ask_answer) >= last_ns:
                break
            _sleep_until(min(ask_id, ask_answer))
            if ask_id <= ask_answer:
                asked.append(self._worker.submit(self._timed(self._write, id_due, self._heard.late), id_due))
                ids += 1
            else:
                asked.append(self._worker.submit(self._timed(self._answer, line, self._heard.answers_late), line))
                answers += 1
        for job in asked:
            job.result()

    def _timed(self, job: Callable[[], None], due_ns: int, late: list[int]) -> Callable[[], None]:
        asked_ns = time.monotonic_ns()

        def timed() -> None:
            self._heard.waited.append(time.monotonic_ns() - asked_ns)
            job()
            late.append(time.monotonic_ns() - due_ns)

        return timed

    def _write(self) -> None:
        self._trunk.feed((self._next,))
        self._next = self._trunk.sample(None, _SAMPLING, self._rng)

    def _answer(self) -> None:
        branch = self._trunk.fork()
        branch.feed(range(min(self._session.unsettled, branch.model.vocab_size)))
        for _ in range(self._session.first):
            branch.feed((branch.sample(None, _SAMPLING, self._rng),))


class _TimedBatch(Batch):
    """A batch that notes how long its slices take."""

    def __init__(self, worker: Worker, slices: list[int]) -> None:
        super().__init__(worker)
        self._slices = slices

    def advance(self, budget_ns: int) -> bool:
        began = time.monotonic_ns()
        done = super().advance(budget_ns)
        self._slices.append(time.monotonic_ns() - began)
        return done


class _Texts:
    """Texts without end, and a long prompt that comes again as soon as it has been read."""

    def __init__(self, worker: Worker, load: Load, heard: Heard) -> None:
        self._batch = _TimedBatch(worker, heard.slices)
        self._load = load
        self._heard = heard
        self._over = False
        self._rng = np.random.default_rng(2)
        self._writings: list[Writing] = []
        self._long: Writing | None = None

    def begin(self) -> None:
        for number in range(self._load.texts):
            self._writings.append(self._batch.write(self._text(_PROMPT, most=_NEVER, seed=number, on_id=self._count)))
        if self._load.prefill:
            self._read()

    def end(self) -> None:
        """Cancel all and wait for it."""
        self._over = True
        left = [*self._writings, *([] if self._long is None else [self._long])]
        for writing in left:
            writing.cancel()
        for writing in left:
            writing.done.exception()

    def _read(self) -> None:
        began = time.monotonic_ns()

        def read(_: int) -> None:
            self._heard.prefills.append(time.monotonic_ns() - began)

        self._long = self._batch.write(self._text(self._load.prefill, most=1, seed=0, on_id=read))
        self._long.done.add_done_callback(lambda _: None if self._over else self._read())

    def _text(self, size: int, *, most: int, seed: int, on_id: Callable[[int], object]) -> Text:
        model = self._load.model
        ids: Sequence[int] = self._rng.integers(0, model.vocab_size, size).tolist()
        sampler = Sampler(vocab_size=model.vocab_size, style=Style(sampling=_SAMPLING, seed=seed))
        return Text(timeline=Timeline(model), ids=ids, sampler=sampler, most=most, on_id=on_id)

    def _count(self, _: int) -> None:
        self._heard.text_ids += 1


def _sleep_until(at_ns: int) -> None:
    """Sleep, the last half millisecond awake: what is asked for late would be blamed on the model."""
    while (left := at_ns - time.monotonic_ns()) > 0:
        time.sleep(max(0.0, (left - 500_000) / 1e9) if left > 500_000 else 0)
