"""Batches come in the same order however they are asked for, and the next one is made meanwhile."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from training.small_corpus import RANGES, random_corpus
from training.small_runs import TINY

from antiphon.training.course import Course, Place


def course() -> Course:
    return Course(TINY, corpus=random_corpus(), ranges=RANGES)


def test_a_place_gives_the_same_batch_whatever_was_asked_for_before() -> None:
    seen, place = [], Place(0, 0)
    with course() as walked:
        while place.epoch < 2:
            batch, after = walked.at(place)
            seen.append((place, batch, after))
            place = after
    jumped = course()
    for at, batch, after in reversed(seen):
        again, then = jumped.at(at)
        assert then == after
        np.testing.assert_array_equal(again.tokens, batch.tokens)
        np.testing.assert_array_equal(again.targets, batch.targets)
        np.testing.assert_array_equal(again.starts, batch.starts)


def test_a_batch_holds_what_was_asked_for() -> None:
    config = replace(TINY, batch_tokens=192)
    batch, after = Course(config, corpus=random_corpus(), ranges=RANGES).at(Place(0, 1))
    assert batch.tokens.shape == (3, TINY.context)
    assert after == Place(0, 4)


def test_batches_are_made_ahead_inside_with_and_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    made = course()
    for _ in range(2):
        with made:
            made.at(Place(0, 0))
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
