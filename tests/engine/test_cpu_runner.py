"""Feeds in slices on the processor: the bits of a feed in one piece, whatever runs in between."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.engine.cpu_runner import CpuMemory, CpuRunner, segment_of
from antiphon.engine.loaded import LoadedModel
from antiphon.engine.runner import Draw, Feed
from antiphon_kernels.program.slab import Slab

IDS = np.random.default_rng(1).integers(51, size=150).astype(np.int32)


@pytest.fixture
def runner(model: LoadedModel) -> CpuRunner:
    assert isinstance(model.runner, CpuRunner)
    return model.runner


def whole(runner: CpuRunner, ids: np.ndarray) -> CpuMemory:
    memory = runner.new_memory()
    runner.run([Feed(memory=memory, ids=ids)])
    return memory


def same(one: CpuMemory, other: CpuMemory) -> None:
    np.testing.assert_array_equal(one.state, other.state)
    np.testing.assert_array_equal(one.logits, other.logits)


def test_without_a_budget_a_slice_is_one_operation_and_the_bits_are_the_same(runner: CpuRunner) -> None:
    memories = [runner.new_memory() for _ in range(3)]
    nats = np.empty(150, np.float32)
    feeds = [
        Feed(memory=memories[0], ids=IDS, nats=nats),
        Feed(memory=memories[1], ids=IDS[:1]),
        Feed(memory=memories[2], ids=IDS[:40]),
    ]
    running, slices = runner.begin(feeds), 1
    while not running.advance(0):
        slices += 1
    assert slices == 3 * len(runner.program.ops)  # 191 rows are three slabs
    for memory, ids in zip(memories, (IDS, IDS[:1], IDS[:40]), strict=True):
        same(memory, whole(runner, ids))
    scored = np.empty(150, np.float32)
    runner.run([Feed(memory=runner.new_memory(), ids=IDS, nats=scored)])
    np.testing.assert_array_equal(nats, scored)


def test_a_budget_for_all_of_it_needs_one_slice(runner: CpuRunner) -> None:
    for _ in range(2):  # the first time operations are timed one by one
        memory = runner.new_memory()
        assert runner.begin([Feed(memory=memory, ids=IDS)]).advance(10**12)
        same(memory, whole(runner, IDS))


def test_what_runs_between_two_slices_changes_nothing_and_is_not_changed(runner: CpuRunner) -> None:
    memory, others = runner.new_memory(), [runner.new_memory() for _ in range(2)]
    running = runner.begin([Feed(memory=memory, ids=IDS)])
    inner = runner.begin([Feed(memory=others[0], ids=IDS[:70])])
    at, inner_done = 0, False
    while not running.advance(0):
        if at < 60:
            runner.run([Feed(memory=others[1], ids=IDS[at : at + 1])])
            at += 1
        inner_done = inner_done or inner.advance(0)
    assert inner_done
    same(memory, whole(runner, IDS))
    same(others[0], whole(runner, IDS[:70]))
    same(others[1], whole(runner, IDS[:60]))


def test_a_memory_of_another_device_is_refused(runner: CpuRunner) -> None:
    class Elsewhere:
        state = logits = np.zeros(1, np.float32)

    for refused in (runner.run, runner.begin):
        with pytest.raises(TypeError, match="another device: Elsewhere"):
            refused([Feed(memory=Elsewhere(), ids=IDS)])  # type: ignore[arg-type]


def test_draws_of_several_memories_are_those_of_each(runner: CpuRunner) -> None:
    memories = [whole(runner, IDS[:length]) for length in (3, 50, 150)]
    draws = [Draw(temperature=1.0, top_k=5, top_p=0.9, min_p=0.0, uniform=u) for u in (0.1, 0.5, 0.9)]
    one_by_one = [runner.sample(memory, draw) for memory, draw in zip(memories, draws, strict=True)]
    assert runner.sample_all(memories, draws) == one_by_one


def test_the_memory_of_the_slabs_used_last_is_kept(runner: CpuRunner) -> None:
    def slab(rows: int) -> Slab:
        return runner.slab([segment_of(Feed(memory=runner.new_memory(), ids=IDS[:rows]))])

    for rows in (3, 4, 5, 6, 7, 3):
        runner.give_back(slab(rows).scratch)
    kept = {rows: slab(rows).scratch for rows in (3, 6)}
    for scratch in kept.values():
        runner.give_back(scratch)
    assert slab(3).scratch is kept[3]
    assert slab(6).scratch is kept[6]
    runner.give_back(newest := slab(9).scratch)
    assert slab(9).scratch is newest
