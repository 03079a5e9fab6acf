"""Texts written together: each as if it were alone, music before all, and gone as soon as nobody wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest

from antiphon.engine.batching import Batch, End, Text, Writing
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.pool import Pool, keys_of
from antiphon.engine.sampler import Penalties, Sampler, Style
from antiphon.engine.sampling import Sampling
from antiphon.engine.timeline import Timeline, feed_together
from antiphon.engine.worker import Worker, WorkerClosed

PATIENCE_S = 60.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as one:
        yield one


def style_of(seed: int) -> Style:
    return Style(
        sampling=Sampling(temperature=1.1, top_p=0.9), penalties=Penalties(frequency=0.3, decay=0.99), seed=seed
    )


def prompt(length: int, *, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(51, size=length)]


def text_of(
    model: LoadedModel,
    *,
    length: int = 10,
    most: int = 12,
    seed: int = 0,
    on_id: Callable[[int], object] = lambda _: None,
    ids: Sequence[int] | None = None,
) -> Text:
    return Text(
        timeline=Timeline(model),
        ids=prompt(length, seed=seed) if ids is None else ids,
        sampler=Sampler(vocab_size=model.vocab_size, style=style_of(seed)),
        most=most,
        on_id=on_id,
    )


def alone(text: Text) -> tuple[list[int], Timeline]:
    """What `text` comes to without a worker or a batch."""
    timeline, sampler = text.timeline.fork(), text.sampler.fork()
    timeline.feed(text.ids)
    drawn: list[int] = []
    while len(drawn) < text.most:
        if drawn:
            timeline.feed(drawn[-1:])
        drawn.append(timeline.draw(sampler.draw(text.mask())))
        sampler.take(drawn[-1])
        if drawn[-1] in text.ends:
            break
    return drawn, timeline


def all_of(writings: Sequence[Writing]) -> list[End]:
    return [writing.done.result(PATIENCE_S) for writing in writings]


def test_a_timeline_gives_the_same_bits_alone_among_three_and_among_sixteen(model: LoadedModel) -> None:
    """Bit-equal logits at batch 1, 3 and 16."""
    ids = prompt(90, seed=1)
    outcomes = []
    for others in (0, 2, 15):
        timelines = [Timeline(model) for _ in range(others + 1)]
        for at in range(0, 90, 9):
            feeds: list[tuple[Timeline, Sequence[int]]] = [(timelines[0], ids[at : at + 9])]
            feeds += [(other, prompt(1 + 3 * n, seed=n + at)) for n, other in enumerate(timelines[1:])]
            feed_together(feeds[::-1])
        assert timelines[0].count == 90
        outcomes.append((timelines[0].logits.copy(), timelines[0].state.copy()))
    for logits, state in outcomes[1:]:
        np.testing.assert_array_equal(logits, outcomes[0][0])
        np.testing.assert_array_equal(state, outcomes[0][1])


def test_a_timeline_is_not_fed_twice_at_once_nor_with_one_of_another_model(
    model: LoadedModel, float_model: LoadedModel
) -> None:
    timeline = Timeline(model)
    with pytest.raises(ValueError, match="twice"):
        feed_together([(timeline, [1]), (timeline, [2])])
    with pytest.raises(ValueError, match="different models"):
        feed_together([(timeline, [1]), (Timeline(float_model), [2])])
    with pytest.raises(ValueError, match="id 51"):
        feed_together([(Timeline(model), [3]), (timeline, [1, 51])])
    assert timeline.count == 0


def test_each_text_is_what_it_would_be_alone(model: LoadedModel, worker: Worker) -> None:
    drawn: dict[int, list[int]] = {n: [] for n in range(16)}
    texts = [text_of(model, length=1 + 37 * n % 200, most=5 + n, seed=n, on_id=drawn[n].append) for n in range(16)]
    expected = [alone(text) for text in texts]
    batch = Batch(worker)
    ends = all_of([batch.write(text) for text in texts])
    assert ends == [End.LENGTH] * 16
    for n, (text, (ids, timeline)) in enumerate(zip(texts, expected, strict=True)):
        assert drawn[n] == ids
        assert text.timeline.count == timeline.count == len(text.ids) + len(ids) - 1
        np.testing.assert_array_equal(text.timeline.logits, timeline.logits)
        np.testing.assert_array_equal(text.timeline.state, timeline.state)


def test_texts_come_while_others_are_written_and_more_than_fit_take_turns(model: LoadedModel, worker: Worker) -> None:
    batch, later, submitted = Batch(worker), list[Writing](), threading.Event()
    expected = [alone(text_of(model, length=3, most=4, seed=n))[0] for n in range(70)]
    drawn: list[list[int]] = [[] for _ in range(70)]

    def welcome_others(_token: int) -> None:
        if not submitted.is_set():
            submitted.set()
            later.extend(
                batch.write(text_of(model, length=3, most=4, seed=n, on_id=drawn[n].append)) for n in range(70)
            )

    first = batch.write(text_of(model, length=5, most=30, seed=99, on_id=welcome_others))
    assert all_of([first]) == [End.LENGTH]
    assert all_of(later) == [End.LENGTH] * 70
    assert drawn == expected


def test_a_text_ends_with_an_id_that_ends_it(model: LoadedModel, worker: Worker) -> None:
    ids, _ = alone(text_of(model, most=12, seed=5))
    heard: list[int] = []
    text = text_of(model, most=12, seed=5, on_id=heard.append)
    ended = Text(
        timeline=text.timeline,
        ids=text.ids,
        sampler=text.sampler,
        most=12,
        ends=frozenset(ids[3:4]),
        on_id=heard.append,
    )
    assert all_of([Batch(worker).write(ended)]) == [End.STOPPED]
    assert heard == ids[: ids.index(ids[3]) + 1]


def test_a_mask_is_asked_before_every_draw(model: LoadedModel, worker: Worker) -> None:
    allowed = iter(range(20, 30))

    def mask() -> np.ndarray:
        one = np.zeros(51, np.bool_)
        one[next(allowed)] = True
        return one

    heard: list[int] = []
    text = text_of(model)
    masked = Text(timeline=text.timeline, ids=text.ids, sampler=text.sampler, most=6, mask=mask, on_id=heard.append)
    assert all_of([Batch(worker).write(masked)]) == [End.LENGTH]
    assert heard == list(range(20, 26))


def test_music_comes_between_the_slices_of_a_long_prompt(model: LoadedModel, worker: Worker) -> None:
    """A job with a deadline waits for one slice at the most, however long the prompt is."""
    batch, done = Batch(worker), list[str]()
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    holding = worker.submit(hold, 0)
    assert begun.wait(PATIENCE_S)
    writing = batch.write(text_of(model, length=6000, most=1))
    writing.done.add_done_callback(lambda _: done.append("text"))
    music = Timeline(model)

    def play(left: int) -> None:
        music.feed([left])
        done.append("music")
        if left:
            worker.submit(lambda: play(left - 1), 1_000)

    go_on.set()
    holding.result(PATIENCE_S)
    worker.submit(lambda: play(20), 1_000)
    assert writing.done.result(PATIENCE_S) is End.LENGTH
    assert done == ["music"] * 21 + ["text"]
    reference = Timeline(model)
    reference.feed(range(20, -1, -1))
    np.testing.assert_array_equal(music.logits, reference.logits)


def test_prompts_take_turns_so_that_a_short_one_need_not_wait_for_a_long_one(
    model: LoadedModel, worker: Worker
) -> None:
    order: list[str] = []
    batch = Batch(worker)
    long = batch.write(text_of(model, length=64 * 40, most=1, on_id=lambda _: order.append("long")))
    short = batch.write(text_of(model, length=100, most=3, on_id=lambda _: order.append("short")))
    all_of([long, short])
    assert order == ["short", "short", "short", "long"]


def test_a_cancelled_text_costs_no_further_id(model: LoadedModel, worker: Worker) -> None:
    heard: list[int] = []
    writings: list[Writing] = []

    def leave(token: int) -> None:
        heard.append(token)
        if len(heard) == 3:
            writings[0].cancel()

    batch = Batch(worker)
    begun = threading.Event()
    worker.submit(begun.wait, 0)
    writings.append(batch.write(text_of(model, most=1000, seed=1, on_id=leave)))
    writings.append(batch.write(text_of(model, most=8, seed=2)))
    begun.set()
    assert all_of(writings) == [End.CANCELLED, End.LENGTH]
    assert len(heard) == 3
    assert writings[0].drawn == 3


def test_a_text_cancelled_while_it_is_read_ends_before_its_first_id(model: LoadedModel, worker: Worker) -> None:
    heard: list[int] = []
    batch = Batch(worker)
    begun = threading.Event()
    worker.submit(begun.wait, 0)
    writing = batch.write(text_of(model, length=64 * 100, most=5, on_id=heard.append))
    awaited = batch.write(text_of(model, length=64 * 100, most=5, on_id=heard.append))
    begun.set()
    writing.cancel()
    awaited.done.cancel()  # as asyncio does for whoever no longer awaits it
    assert writing.done.result(PATIENCE_S) is End.CANCELLED
    with pytest.raises(CancelledError):
        awaited.done.result(PATIENCE_S)
    worker.submit(lambda: None).result(PATIENCE_S)
    assert heard == []
    assert writing.text.timeline.count <= 64


def test_what_goes_wrong_in_one_text_leaves_the_others_alone(model: LoadedModel, worker: Worker) -> None:
    def fail(_token: int) -> None:
        raise LookupError("nobody listens")

    batch = Batch(worker)
    nothing = np.zeros(51, np.bool_)
    text = text_of(model)
    masked = Text(timeline=text.timeline, ids=text.ids, sampler=text.sampler, most=3, mask=lambda: nothing)
    good = text_of(model, seed=3)
    expected, _ = alone(good)
    heard: list[int] = []
    writings = [
        batch.write(text_of(model, on_id=fail)),
        batch.write(masked),
        batch.write(text_of(model, seed=3, on_id=heard.append)),
    ]
    with pytest.raises(LookupError, match="nobody listens"):
        writings[0].done.result(PATIENCE_S)
    with pytest.raises(ValueError, match="allows no id"):
        writings[1].done.result(PATIENCE_S)
    assert all_of(writings[2:]) == [End.LENGTH]
    assert heard == expected


@pytest.mark.parametrize(
    ("ids", "most", "named"), [([], 5, "begins with"), ([1, 51], 5, "id 51"), ([-1], 5, "id -1"), ([1], 0, "of 0 ids")]
)
def test_what_cannot_be_written_is_refused_at_once(
    model: LoadedModel, worker: Worker, ids: list[int], most: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Batch(worker).write(text_of(model, ids=ids, most=most))


def test_a_timeline_that_was_fed_before_goes_on_without_a_prompt(model: LoadedModel, worker: Worker) -> None:
    ids = prompt(10, seed=0)
    heard: list[int] = []
    text = text_of(model, ids=[], on_id=heard.append)
    text.timeline.feed(ids)
    expected, _ = alone(text_of(model, ids=ids))
    assert all_of([Batch(worker).write(text)]) == [End.LENGTH]
    assert heard == expected


def test_the_state_of_a_prompt_is_kept_and_spares_the_next_one_from_reading_it(
    model: LoadedModel, worker: Worker
) -> None:
    pool = Pool(model, budget_bytes=1 << 24)
    batch, ids = Batch(worker, pool=pool), prompt(1000, seed=8)
    first: list[int] = []
    all_of([batch.write(text_of(model, ids=ids, on_id=first.append))])
    keys = keys_of(ids)
    assert [key in pool for key in keys] == [at in (7, 14) for at in range(len(keys))]  # at 512 ids, and at 960
    longer = [*ids, 5, 6, 7]
    expected, timeline = alone(text_of(model, ids=longer))
    second: list[int] = []
    text = text_of(model, ids=longer, on_id=second.append)
    all_of([batch.write(text)])
    assert second == expected
    np.testing.assert_array_equal(text.timeline.logits, timeline.logits)
    assert first == alone(text_of(model, ids=ids))[0]


def test_the_next_turn_of_a_conversation_need_not_read_the_last_one_again(model: LoadedModel, worker: Worker) -> None:
    """What was drawn is kept too, its last place only, so that a prompt that goes on from there begins there."""
    pool = Pool(model, budget_bytes=1 << 24)
    batch, ids = Batch(worker, pool=pool), prompt(70, seed=8)
    drawn: list[int] = []
    all_of([batch.write(text_of(model, ids=ids, most=200, on_id=drawn.append))])
    whole = [*ids, *drawn]
    assert [key in pool for key in keys_of(whole)] == [True, False, False, True]  # at 64 ids, and at 256
    turn = [*whole, 5, 6, 7]
    expected, timeline = alone(text_of(model, ids=turn))
    second: list[int] = []
    text = text_of(model, ids=turn, on_id=second.append)
    all_of([batch.write(text)])
    assert second == expected
    np.testing.assert_array_equal(text.timeline.state, timeline.state)


def test_a_timeline_that_begins_elsewhere_finds_only_states_that_began_there(
    model: LoadedModel, worker: Worker
) -> None:
    pool = Pool(model, budget_bytes=1 << 24)
    batch, ids = Batch(worker, pool=pool), prompt(100, seed=8)
    state = np.random.default_rng(1).standard_normal(model.runner.state_len).astype(np.float32)

    def begun() -> Text:
        timeline = Timeline.restored(model, state=state, logits=np.zeros(51, np.float32), count=0)
        sampler = Sampler(vocab_size=51, style=style_of(1))
        return Text(timeline=timeline, ids=ids, sampler=sampler, most=3, root=b"tuned")

    all_of([batch.write(text_of(model, ids=ids))])
    assert len(pool) == 1
    _, expected = alone(begun())
    for _ in range(2):
        text = begun()
        all_of([batch.write(text)])
        np.testing.assert_array_equal(text.timeline.state, expected.state)
    assert len(pool) == 2


def test_closing_the_worker_ends_every_text(model: LoadedModel) -> None:
    worker = Worker()
    batch, begun, go_on = Batch(worker), threading.Event(), threading.Event()

    def hold(_token: int) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    writings = [batch.write(text_of(model, most=10_000, on_id=hold))]
    assert begun.wait(PATIENCE_S)
    writings += [batch.write(text_of(model, length=500)) for _ in range(3)]
    closing = threading.Thread(target=worker.close)
    closing.start()
    go_on.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    for writing in writings:
        with pytest.raises(WorkerClosed):
            writing.done.result(PATIENCE_S)
    with pytest.raises(WorkerClosed):
        batch.write(text_of(model))


def test_a_text_that_cannot_begin_ends_alone(model: LoadedModel, float_model: LoadedModel, worker: Worker) -> None:
    """A timeline that is in use, one of another model, and a pool of another model: all told, and nobody waits."""
    batch, begun = Batch(worker), threading.Event()
    worker.submit(begun.wait, 0)
    text = text_of(model, seed=3)
    expected, _ = alone(text)
    heard: list[int] = []
    good = Text(timeline=text.timeline, ids=text.ids, sampler=text.sampler, most=text.most, on_id=heard.append)
    writings = [batch.write(good), batch.write(good), batch.write(text_of(float_model))]
    begun.set()
    with pytest.raises(ValueError, match="written on this timeline"):
        writings[1].done.result(PATIENCE_S)
    with pytest.raises(ValueError, match="different models"):
        writings[2].done.result(PATIENCE_S)
    assert all_of(writings[:1]) == [End.LENGTH]
    assert heard == expected
    ids, strange, pool = prompt(64, seed=1), Timeline(float_model), Pool(float_model, budget_bytes=1 << 24)
    strange.feed(ids)
    pool.keep(keys_of(ids)[0], strange)
    with pytest.raises(ValueError, match="different models"):
        Batch(worker, pool=pool).write(text_of(model, ids=ids)).done.result(PATIENCE_S)


def test_a_state_that_cannot_be_kept_ends_its_text_alone(model: LoadedModel, worker: Worker) -> None:
    class Full(Pool):
        def keep(self, key: bytes, timeline: Timeline) -> None:
            raise MemoryError("no memory for a state")

    batch = Batch(worker, pool=Full(model, budget_bytes=1 << 24))
    long, short = batch.write(text_of(model, length=64, most=3)), batch.write(text_of(model, length=5, most=3))
    with pytest.raises(MemoryError, match="no memory for a state"):
        long.done.result(PATIENCE_S)
    assert all_of([short]) == [End.LENGTH]
