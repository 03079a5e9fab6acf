"""The n-gram is Witten and Bell's, is a probability, and does not look where it must not."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.small_corpus import RANGES, random_corpus

from antiphon.training import ngram
from antiphon.training.ids import Ids
from antiphon.training.ngram import cache_nats, mixed_nats, ngram_nats

SIZE = 5
SEQUENCES = st.lists(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=30), min_size=0, max_size=6)


def arrays(sequences: list[list[int]]) -> list[Ids]:
    return [np.array(sequence, np.int32) for sequence in sequences]


def by_dictionaries(train: list[list[int]], scored: list[list[int]], order: int) -> list[list[float]]:
    """The formula with a dictionary of counters, one context after the other."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for sequence in train:
        for at in range(1, len(sequence)):
            for back in range(min(order - 1, at) + 1):
                counts[tuple(sequence[at - back : at])][sequence[at]] += 1

    def probability(context: tuple[int, ...], token: int) -> float:
        p = 1 / SIZE
        for back in range(len(context) + 1):
            seen = counts.get(context[len(context) - back :], Counter[int]())
            if seen:
                p = (seen[token] + len(seen) * p) / (seen.total() + len(seen))
        return p

    return [
        [-math.log(probability(tuple(s[max(0, at - order + 1) : at]), s[at])) for at in range(1, len(s))]
        for s in scored
    ]


@given(train=SEQUENCES, scored=SEQUENCES, order=st.integers(1, 5))
def test_it_is_the_formula(train: list[list[int]], scored: list[list[int]], order: int) -> None:
    found = ngram_nats(arrays(train), arrays(scored), order=order, size=SIZE)
    expected = by_dictionaries(train, scored, order)
    for nats, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(nats, exact, rtol=1e-12)


@given(train=SEQUENCES, context=st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12), order=st.integers(1, 8))
def test_the_probabilities_of_all_ids_sum_to_one(train: list[list[int]], context: list[int], order: int) -> None:
    every = arrays([[*context, token] for token in range(SIZE)])
    last = [nats[-1] for nats in ngram_nats(arrays(train), every, order=order, size=SIZE)]
    assert math.fsum(math.exp(-nats) for nats in last) == pytest.approx(1.0, abs=1e-12)


def test_the_probabilities_sum_to_one_after_real_music_too() -> None:
    corpus = random_corpus(pieces=8)
    train = [corpus.piece(piece) for piece in range(7)]
    held = corpus.piece(7)
    for at in (1, 2, 9, 40):
        every = [np.append(held[:at], token).astype(np.int32) for token in range(RANGES.size)]
        last = [nats[-1] for nats in ngram_nats(train, every, order=8, size=RANGES.size)]
        assert math.fsum(math.exp(-nats) for nats in last) == pytest.approx(1.0, abs=1e-9)


def test_nothing_counted_leaves_every_id_alike() -> None:
    (nats,) = ngram_nats([], arrays([[0, 1, 2]]), order=8, size=SIZE)
    np.testing.assert_allclose(nats, [math.log(SIZE)] * 2)


def test_what_was_counted_is_foretold_and_the_order_counts() -> None:
    song = np.tile(np.array([0, 1, 2, 0, 3, 4], np.int32), 50)
    pair, triple = (ngram_nats([song], [song], order=order, size=SIZE)[0] for order in (2, 3))
    assert triple[10:].max() < 0.15  # two ids tell which comes next
    assert pair[10:].max() > 0.6  # one does not


def test_a_sequence_does_not_depend_on_what_is_scored_beside_it_nor_on_the_batching(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = random_corpus(pieces=6)
    pieces = [corpus.piece(piece) for piece in range(6)]
    together = ngram_nats(pieces[:4], pieces[4:], order=8, size=RANGES.size)
    monkeypatch.setattr(ngram, "_AT_ONCE", 7)
    for piece, nats in zip(pieces[4:], together, strict=True):
        (alone,) = ngram_nats(pieces[:4], [piece], order=8, size=RANGES.size)
        np.testing.assert_array_equal(alone, nats)


def test_no_context_reaches_into_the_sequence_before() -> None:
    first, second = np.array([1, 2, 3], np.int32), np.array([4, 4, 4], np.int32)
    one = ngram_nats([first, second], [second], order=3, size=SIZE)[0]
    other = ngram_nats([second, first], [second], order=3, size=SIZE)[0]
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("order", "size"), [(0, 5), (1, 0)])
def test_an_impossible_order_or_size_is_refused(order: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ngram_nats([], [], order=order, size=size)


@given(train=SEQUENCES, scored=SEQUENCES, order=st.integers(1, 5), data=st.data())
def test_the_last_ids_alone_are_foretold_as_they_are_among_all(
    train: list[list[int]], scored: list[list[int]], order: int, data: st.DataObject
) -> None:
    last = [data.draw(st.integers(0, len(sequence) - 1)) for sequence in scored]
    whole = ngram_nats(arrays(train), arrays(scored), order=order, size=SIZE)
    few = ngram_nats(arrays(train), arrays(scored), order=order, size=SIZE, last=last)
    for nats, all_nats, count in zip(few, whole, last, strict=True):
        np.testing.assert_array_equal(nats, all_nats[len(all_nats) - count :])


@given(sequence=st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=40), order=st.integers(1, 6))
def test_the_cache_is_the_formula_counted_in_what_came_before(sequence: list[int], order: int) -> None:
    (ids,) = arrays([sequence])
    found = cache_nats(ids, last=len(sequence) - 1, order=order, size=SIZE)
    for at in range(1, len(sequence)):
        (expected,) = by_dictionaries([sequence[:at]], [sequence[: at + 1]], order)
        assert found[at - 1] == pytest.approx(expected[-1], rel=1e-12)


def test_the_cache_is_a_probability_and_remembers() -> None:
    piece = random_corpus(pieces=1, bars=(20, 21)).piece(0)
    every = [np.append(piece[:90], token).astype(np.int32) for token in range(RANGES.size)]
    last = [float(cache_nats(ids, last=1, order=16, size=RANGES.size)[0]) for ids in every]
    assert math.fsum(math.exp(-nats) for nats in last) == pytest.approx(1.0, abs=1e-9)
    twice = np.concatenate([piece, piece])
    again = cache_nats(twice, last=len(piece) - 20, order=16, size=RANGES.size)
    assert again.mean() < 0.5 < 4.0 < cache_nats(piece, last=len(piece) - 20, order=16, size=RANGES.size).mean()


def test_a_mixture_lies_between_its_parts() -> None:
    nats, other = np.log([2.0, 4.0]), np.log([4.0, 4.0])
    np.testing.assert_allclose(np.exp(-mixed_nats(nats, other, weight=0.25)), [0.75 / 2 + 0.25 / 4, 0.25])
    np.testing.assert_allclose(mixed_nats(nats, other, weight=0.0), nats)
    np.testing.assert_allclose(mixed_nats(nats, other, weight=1.0), other)


def test_the_first_id_is_never_foretold() -> None:
    with pytest.raises(ValueError, match="first id"):
        ngram_nats([], arrays([[0, 1]]), order=2, size=SIZE, last=[2])
    with pytest.raises(ValueError, match="first id"):
        cache_nats(np.array([0, 1], np.int32), last=2, order=2, size=SIZE)
