from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future

import pytest

from antiphon.engine.worker import Worker, WorkerClosed

PATIENCE_S = 10.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as one:
        yield one


class Gate:
    """A job that holds the worker until it is opened."""

    def __init__(self, worker: Worker) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()
        self.future = worker.submit(self._hold, 0)
        assert self._reached.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()
        self.future.result(PATIENCE_S)

    def _hold(self) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE_S)


def noting(done: list[str], what: str) -> Callable[[], None]:
    return lambda: done.append(what)


def test_the_earliest_deadline_runs_first_and_ties_in_the_order_they_came(worker: Worker) -> None:
    gate, done = Gate(worker), list[str]()
    futures = [
        worker.submit(noting(done, "no deadline")),
        worker.submit(noting(done, "late"), 3_000),
        worker.submit(noting(done, "tie one"), 2_000),
        worker.submit(noting(done, "tie two"), 2_000),
        worker.submit(noting(done, "early"), 1_000),
        worker.submit(noting(done, "tie three"), 2_000),
    ]
    gate.open()
    for future in futures:
        future.result(PATIENCE_S)
    assert done == ["early", "tie one", "tie two", "tie three", "late", "no deadline"]


def test_every_job_runs_on_the_one_thread_of_the_worker(worker: Worker) -> None:
    names = {worker.submit(threading.get_ident).result(PATIENCE_S) for _ in range(20)}
    assert len(names) == 1
    assert threading.get_ident() not in names


def test_results_and_exceptions_travel_to_whoever_waits_and_the_worker_lives_on(worker: Worker) -> None:
    def fail() -> None:
        raise LookupError("no such note")

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(LookupError, match="no such note"):
        worker.submit(fail).result(PATIENCE_S)
    with pytest.raises(SystemExit):
        worker.submit(leave).result(PATIENCE_S)
    assert worker.submit(lambda: 42).result(PATIENCE_S) == 42


def test_awaiting_a_job_leaves_the_loop_free(worker: Worker) -> None:
    async def scene() -> int:
        gate, turns = Gate(worker), 0
        job = asyncio.create_task(worker.run(lambda: 7, deadline_ns=1))
        for _ in range(50):
            await asyncio.sleep(0)
            turns += 1
        assert not job.done()
        gate.open()
        assert turns == 50
        return await job

    assert asyncio.run(scene()) == 7


def test_an_awaited_exception_is_raised_where_it_is_awaited(worker: Worker) -> None:
    async def scene() -> None:
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)

    asyncio.run(scene())


def test_a_job_cancelled_before_it_begins_never_runs(worker: Worker) -> None:
    async def scene(done: list[str]) -> None:
        gate = Gate(worker)
        job = asyncio.create_task(worker.run(noting(done, "cancelled")))
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        gate.open()
        await worker.run(noting(done, "after"))

    done: list[str] = []
    asyncio.run(scene(done))
    assert done == ["after"]


def test_a_loop_that_closed_meanwhile_does_not_stop_the_worker(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    gates: list[Gate] = []

    async def scene() -> None:
        gates.append(Gate(worker))
        asyncio.get_running_loop().create_task(worker.run(lambda: 1))
        await asyncio.sleep(0)

    asyncio.run(scene())
    gates[0].open()
    assert worker.submit(lambda: 5).result(PATIENCE_S) == 5


def test_closing_lets_the_running_job_end_and_cancels_the_rest() -> None:
    worker, done = Worker(), list[str]()
    gate = Gate(worker)
    waiting = worker.submit(noting(done, "waiting"))
    closing = threading.Thread(target=worker.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE_S)
    assert closing.is_alive()
    gate.open()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert done == []
    with pytest.raises(WorkerClosed):
        worker.submit(noting(done, "too late"))
    worker.close()


def test_a_job_cannot_close_the_worker_it_runs_on(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="cannot close"):
        worker.submit(worker.close).result(PATIENCE_S)


def test_a_finished_job_is_not_kept_alive(worker: Worker) -> None:
    class Answer:
        def write(self) -> None: ...

    answer = Answer()
    kept = weakref.ref(answer)
    worker.submit(answer.write).result(PATIENCE_S)
    del answer
    # The future is resolved a moment before the worker lets go of the job; another job comes after that moment.
    worker.submit(lambda: None).result(PATIENCE_S)
    gc.collect()
    assert kept() is None


def test_jobs_from_many_threads_all_run(worker: Worker) -> None:
    futures: list[Future[int]] = []
    lock = threading.Lock()

    def submit(first: int) -> None:
        for number in range(first, first + 100):
            future = worker.submit(lambda number=number: number, number)  # type: ignore[misc]
            with lock:
                futures.append(future)

    threads = [threading.Thread(target=submit, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(future.result(PATIENCE_S) for future in futures) == list(range(400))


class Steps:
    """What takes `left` slices, and notes each in `done`."""

    def __init__(
        self, done: list[str], name: str, left: int, *, then: Callable[[int], object] = lambda _: None
    ) -> None:
        self._done = done
        self._name = name
        self._left = left
        self._then = then

    def advance(self, budget_ns: int) -> bool:
        assert budget_ns > 0
        self._left -= 1
        self._done.append(self._name)
        self._then(self._left)
        return self._left == 0


def test_between_two_slices_whatever_has_an_earlier_deadline_runs(worker: Worker) -> None:
    done: list[str] = []

    def urge(left: int) -> None:
        if left == 2:
            worker.submit(noting(done, "later"), 3_000)
            worker.submit(noting(done, "soon"), 1_000)

    sliced = worker.submit_sliced(lambda: Steps(done, "slice", 4, then=urge), 2_000)
    assert sliced.result(PATIENCE_S) is None
    worker.submit(lambda: None).result(PATIENCE_S)
    assert done == ["slice", "slice", "soon", "slice", "slice", "later"]


def test_jobs_in_slices_with_the_same_deadline_take_turns(worker: Worker) -> None:
    gate, done = Gate(worker), list[str]()
    futures = [worker.submit_sliced(lambda name=name: Steps(done, name, 3)) for name in "ab"]  # type: ignore[misc]
    futures.append(worker.submit(noting(done, "plain")))
    gate.open()
    for future in futures:
        future.result(PATIENCE_S)
    assert done == ["a", "b", "plain", "a", "b", "a", "b"]


def test_a_job_in_slices_begins_when_its_turn_has_come(worker: Worker) -> None:
    gate, done = Gate(worker), list[str]()

    def begin() -> Steps:
        done.append("begin")
        return Steps(done, "slice", 1)

    sliced = worker.submit_sliced(begin)
    first = worker.submit(noting(done, "first"), 0)
    assert done == []
    gate.open()
    first.result(PATIENCE_S)
    sliced.result(PATIENCE_S)
    assert done == ["first", "begin", "slice"]


def test_a_job_in_slices_can_be_cancelled_between_them(worker: Worker) -> None:
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def hold(left: int) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    sliced = worker.submit_sliced(lambda: Steps(done, "slice", 1000, then=hold))
    assert begun.wait(PATIENCE_S)
    assert sliced.cancel()
    go_on.set()
    worker.submit(lambda: None).result(PATIENCE_S)
    worker.submit(lambda: None).result(PATIENCE_S)
    assert done == ["slice"]
    with pytest.raises(CancelledError):
        sliced.result(PATIENCE_S)


@pytest.mark.parametrize("where", ["begin", "advance"])
def test_what_a_slice_raises_travels_to_whoever_waits(worker: Worker, where: str) -> None:
    def fail(_left: int = 0) -> Steps:
        raise LookupError("no such slice")

    begin = fail if where == "begin" else lambda: Steps([], "slice", 3, then=fail)
    with pytest.raises(LookupError, match="no such slice"):
        worker.submit_sliced(begin).result(PATIENCE_S)
    assert worker.submit(lambda: 42).result(PATIENCE_S) == 42


def test_closing_ends_a_job_in_slices_after_its_slice() -> None:
    worker, done = Worker(), list[str]()
    begun, go_on = threading.Event(), threading.Event()

    def hold(left: int) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    sliced = worker.submit_sliced(lambda: Steps(done, "slice", 1000, then=hold))
    assert begun.wait(PATIENCE_S)
    closing = threading.Thread(target=worker.close)
    closing.start()
    go_on.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert sliced.cancelled()
    assert 1 <= len(done) < 1000
    with pytest.raises(WorkerClosed):
        worker.submit_sliced(lambda: Steps(done, "late", 1))
