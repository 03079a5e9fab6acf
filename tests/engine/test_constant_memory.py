"""However long a session lasts, it takes no more memory: a timeline, its sampler, texts, forks and kept states."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from antiphon.engine.batching import Batch, End, Text
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.pool import Pool
from antiphon.engine.sampler import Drift, Penalties, Sampler, Style
from antiphon.engine.sampling import Sampling
from antiphon.engine.timeline import Timeline
from antiphon.engine.worker import Worker

TOKENS = 20_000
MOST_RSS = 4 << 20  # what the allocator may hold on to; a number kept for each token would show in the other test
MOST_TRACED = 64 << 10

STYLE = Style(
    sampling=Sampling(temperature=1.0, top_p=0.95),
    penalties=Penalties(presence=0.2, frequency=0.2, decay=0.996),
    drift=Drift(token=0, first=-2.0, per_step=0.001, most=2.0),
    seed=1,
)


def resident_bytes() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def session(model: LoadedModel) -> Callable[[int], None]:
    """Write `count` ids, with a fork, a mark and a rewind now and then."""
    timeline, sampler = Timeline(model), Sampler(vocab_size=model.vocab_size, style=STYLE)
    timeline.feed([1])
    branch = timeline.fork()
    mask = np.ones(model.vocab_size, np.bool_)

    def write(count: int) -> None:
        nonlocal branch
        for at in range(count):
            token = timeline.draw(sampler.draw(mask))
            sampler.take(token)
            timeline.feed((token,))
            if at % 50 == 0:
                branch = timeline.fork()
                mark = branch.mark()
                branch.feed((token, token))
                branch.rewind(mark)

    return write


def test_twenty_thousand_tokens_take_no_more_memory_than_two_thousand(model: LoadedModel) -> None:
    write = session(model)
    write(2000)
    gc.collect()
    before = resident_bytes()
    write(TOKENS)
    gc.collect()
    assert resident_bytes() - before < MOST_RSS


def test_nothing_is_kept_for_a_token(model: LoadedModel) -> None:
    write = session(model)
    write(500)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        write(3000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MOST_TRACED


def test_texts_that_come_and_go_leave_nothing_behind(model: LoadedModel) -> None:
    rng = np.random.default_rng(1)
    pool = Pool(model, budget_bytes=1 << 20)
    with Worker() as worker:
        batch = Batch(worker, pool=pool)

        def write(count: int) -> None:
            for _ in range(count):
                texts = [
                    Text(
                        timeline=Timeline(model),
                        ids=rng.integers(51, size=100).tolist(),
                        sampler=Sampler(vocab_size=51, style=STYLE),
                        most=20,
                    )
                    for _ in range(4)
                ]
                writings = [batch.write(text) for text in texts]
                assert [writing.done.result(60) for writing in writings] == [End.LENGTH] * 4

        tracemalloc.start()
        try:
            write(20)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            write(20)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert 0 < pool.nbytes <= 1 << 20
    assert after - before < MOST_TRACED
