"""Kept states: found by all the ids before them, within a budget, the least recently used gone first."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.pool import Pool, keys_of
from antiphon.engine.timeline import Timeline


def size_of(model: LoadedModel) -> int:
    return model.state_bytes + 4 * model.vocab_size


def fed(model: LoadedModel, ids: list[int]) -> Timeline:
    timeline = Timeline(model)
    timeline.feed(ids)
    return timeline


def test_there_is_a_key_for_every_64_ids_and_it_tells_all_ids_before_it_apart() -> None:
    ids = [i % 50 for i in range(200)]
    keys = keys_of(ids)
    assert len(keys) == 3
    assert keys_of(ids[:128]) == keys[:2]
    assert keys_of(ids[:63]) == []
    other = [*ids[:10], 49, *ids[11:]]
    assert not set(keys_of(other)) & set(keys)
    assert not set(keys_of(ids, root=b"tuned")) & set(keys)
    later = [*ids[:70], 49, *ids[71:]]
    assert keys_of(later)[0] == keys[0]
    assert not set(keys_of(later)[1:]) & set(keys)


def test_the_longest_beginning_that_is_kept_is_found_and_is_a_copy(model: LoadedModel) -> None:
    ids = [i % 50 for i in range(200)]
    pool, keys = Pool(model, budget_bytes=10 * size_of(model)), keys_of(ids)
    assert pool.longest(keys) is None
    timeline = fed(model, ids[:64])
    pool.keep(keys[0], timeline)
    timeline.feed(ids[64:128])
    pool.keep(keys[1], timeline)
    timeline.feed(ids[128:])
    mark = pool.longest(keys)
    assert mark is not None
    assert mark.count == 128
    again = Timeline(model)
    again.rewind(mark)
    again.feed(ids[128:])
    np.testing.assert_array_equal(again.logits, timeline.logits)
    np.testing.assert_array_equal(again.state, timeline.state)
    found = pool.longest(keys[:1])
    assert found is not None
    assert found.count == 64


def test_a_full_pool_lets_go_of_what_was_not_used_for_longest(model: LoadedModel) -> None:
    pool = Pool(model, budget_bytes=2 * size_of(model) + 1)
    timeline = fed(model, [1])
    pool.keep(b"one", timeline)
    pool.keep(b"two", timeline)
    assert pool.longest([b"one"]) is not None
    pool.keep(b"three", timeline)
    assert (b"one" in pool, b"two" in pool, b"three" in pool) == (True, False, True)
    pool.keep(b"one", timeline)  # kept already: used again, not kept twice
    pool.keep(b"four", timeline)
    assert (b"one" in pool, b"three" in pool, b"four" in pool) == (True, False, True)
    assert len(pool) == 2
    assert pool.nbytes == 2 * size_of(model)
    pool.clear()
    assert len(pool) == 0


@pytest.mark.parametrize("budget", [0, 100])
def test_a_budget_that_holds_no_state_keeps_none(model: LoadedModel, budget: int) -> None:
    pool = Pool(model, budget_bytes=budget)
    pool.keep(b"one", fed(model, [1]))
    assert len(pool) == 0
