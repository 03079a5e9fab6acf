"""Windows to fine-tune on (S2-110): bars of context, and the bars that complete them, which alone are learnt."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from training.small_corpus import RANGES, VOCABULARY, random_corpus, simple_corpus

from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.training.augment import Augmentation
from antiphon.training.batches import IGNORED, Sample, make_batch, sample_ids
from antiphon.training.corpus import Corpus
from antiphon.training.window_bars import WindowBars
from antiphon.training.windows import window_rows

CONTEXT = 512
BARS = WindowBars(context=(2, 6), completion=(1, 3))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return random_corpus(pieces=30)


def plan(
    corpus: Corpus, *, context: int = CONTEXT, bars: WindowBars = BARS, seed: int = 1, epoch: int = 0
) -> list[list[Sample]]:
    return window_rows(corpus, RANGES, context=context, bars=bars, seed=seed, epoch=epoch)


def in_order(rows: list[list[Sample]], piece: int) -> list[tuple[int, int, int]]:
    """Where the windows of a piece begin, turn into completions and end."""
    windows = [(s.start, s.learn_from or 0, s.end) for row in rows for s in row if s.piece == piece]
    return sorted(windows, key=lambda window: window[1])


def bars_in(corpus: Corpus, piece: int, start: int, end: int) -> int:
    return int((corpus.piece(piece)[start:end] == RANGES.bar).sum())


def test_windows_have_as_many_bars_as_was_asked(corpus: Corpus) -> None:
    contexts, completions = set(), set()
    for piece in range(len(corpus)):
        for start, middle, end in in_order(plan(corpus, context=2048), piece):
            ids = corpus.piece(piece)
            assert ids[start] == ids[middle] == RANGES.bar
            assert start == 0 or end - start < 2040
            closed = end < len(ids)
            assert not closed or ids[end - 1] == RANGES.bar, "the Bar that closes an answer is learnt, too"
            contexts.add(bars_in(corpus, piece, start, middle))
            completions.add(bars_in(corpus, piece, middle, end) - closed)
    assert contexts == {2, 3, 4, 5, 6}
    assert completions == {1, 2, 3}


def test_every_bar_with_a_context_is_completed_once_an_epoch() -> None:
    corpus = simple_corpus(pieces=4)  # 16 bars each, none of them silent
    for epoch in range(3):
        rows = plan(corpus, epoch=epoch)
        for piece in range(4):
            windows = in_order(rows, piece)
            lines = np.flatnonzero(corpus.piece(piece) == RANGES.bar)
            assert windows[0][1] == lines[BARS.context[0]]
            assert windows[-1][2] == len(corpus.piece(piece))
            for (_, _, end), (_, middle, _) in pairwise(windows):
                assert middle == end - 1


def test_completions_of_one_length_wander_from_epoch_to_epoch() -> None:
    bars = WindowBars(context=(4, 4), completion=(4, 4))
    corpus = simple_corpus(pieces=2)
    first = {in_order(plan(corpus, bars=bars, epoch=epoch), 0)[0][1] for epoch in range(20)}
    lines = np.flatnonzero(corpus.piece(0) == RANGES.bar)
    assert first == set(lines[4:8])


def test_neither_half_of_a_window_is_silent(corpus: Corpus) -> None:
    for row in plan(corpus):
        for sample in row:
            ids = corpus.piece(sample.piece)
            for half in (ids[sample.start : sample.learn_from], ids[sample.learn_from : sample.end]):
                assert ((half >= RANGES.pitch_first) & (half <= RANGES.pitch_last)).any()
    pieces = (decode(corpus.piece(piece).tolist(), VOCABULARY) for piece in range(len(corpus)))
    silent = sum(not (bar.notes or after.notes) for piece in pieces for bar, after in pairwise(piece))
    assert silent > 5, "the corpus does hold what must be left out"


def test_a_long_window_gives_up_bars_of_its_context_and_a_completion_leaves_it_a_quarter(corpus: Corpus) -> None:
    context, several = 256, 0
    for row in plan(corpus, context=context, bars=WindowBars(context=(12, 30), completion=(10, 20))):
        for sample in row:
            assert sample.learn_from is not None
            assert len(sample_ids(corpus, RANGES, sample)) <= context + 1
            assert corpus.piece(sample.piece)[sample.start] == RANGES.bar
            if bars_in(corpus, sample.piece, sample.learn_from, sample.end) > 2:
                several += 1
                assert sample.end - 1 - sample.learn_from <= 0.75 * context
    assert several > 10


def test_a_window_that_is_cut_begins_as_a_piece_does_with_its_tempo_told(corpus: Corpus) -> None:
    for sample in (sample for row in plan(corpus) for sample in row):
        ids = sample_ids(corpus, RANGES, sample).tolist()
        whole = decode(ids, VOCABULARY)[:-1]
        expected = [RANGES.bos, *encode(whole, VOCABULARY)]
        assert ids[: len(expected)] == expected


@pytest.mark.parametrize("augmentation", [None, Augmentation(cut_samples=1.0, cut_bars=0.5)])
def test_only_completions_are_learnt_and_all_of_them(corpus: Corpus, augmentation: Augmentation | None) -> None:
    rows = plan(corpus)
    seeds = [(1, row) for row in range(len(rows))]
    batch = make_batch(rows, corpus, RANGES, context=CONTEXT, augmentation=augmentation, seeds=seeds)
    ends = 0
    for row, samples in enumerate(rows):
        starts = np.flatnonzero(batch.starts[row])
        for start, end, sample in zip(starts, [*starts[1:], CONTEXT], samples, strict=True):
            targets = batch.targets[row, start:end]
            learnt = np.flatnonzero(targets != IGNORED)
            assert sample.learn_from is not None
            ids = corpus.piece(sample.piece)[sample.learn_from : sample.end].tolist()
            if sample.end == len(corpus.piece(sample.piece)):
                ids.append(RANGES.eos)
                ends += 1
            np.testing.assert_array_equal(np.diff(learnt), 1)
            assert len(learnt) == len(ids)
            assert targets[learnt[0]] == RANGES.bar
            # The id that predicts the completion's first is the context's last.
            assert batch.tokens[row, start + learnt[0] + 1] == RANGES.bar
            if augmentation is None:
                assert targets[learnt].tolist() == ids
    assert ends > 5


def test_a_cut_window_is_cut_where_its_completion_begins(corpus: Corpus) -> None:
    rows = plan(corpus)
    seeds = [(1, row) for row in range(len(rows))]
    always = Augmentation(transpose_low=0, transpose_high=0, velocity_bins=0, cut_samples=1.0, cut_bars=0.0)
    batch = make_batch(rows, corpus, RANGES, context=CONTEXT, augmentation=always, seeds=seeds)
    shortened = 0
    for row, samples in enumerate(rows):
        starts = np.flatnonzero(batch.starts[row])
        for start, sample in zip(starts, samples, strict=True):
            ids = sample_ids(corpus, RANGES, sample).tolist()
            bars = decode(ids, VOCABULARY)
            told = decode(batch.tokens[row, start : start + len(ids) - 1].tolist(), VOCABULARY)
            before = bars_in(corpus, sample.piece, sample.start, sample.learn_from or 0)
            for number, (bar, cut) in enumerate(zip(bars[:-1], told, strict=False)):
                room = sum(each.meter.in_quarters.len_steps for each in bars[number:before])
                for note, found in zip(bar.notes, cut.notes, strict=True):
                    wanted = note.len_steps if number >= before else min(note.len_steps, room - note.step)
                    assert found.len_steps == wanted
                    shortened += wanted < note.len_steps
    assert shortened > 50


def test_windows_follow_from_seed_and_epoch_and_nothing_else(corpus: Corpus) -> None:
    assert plan(corpus) == plan(corpus)
    assert plan(corpus, epoch=1) != plan(corpus)
    assert plan(corpus, seed=2) != plan(corpus)


def test_a_piece_too_short_for_a_window_gives_none() -> None:
    corpus = random_corpus(pieces=4, bars=(2, 3))
    assert plan(corpus, bars=WindowBars(context=(2, 2), completion=(1, 1))) == []


def test_bars_longer_than_a_sample_are_passed_over() -> None:
    corpus = random_corpus(pieces=10, bars=(20, 30))
    rows = plan(corpus, context=64)
    for sample in (sample for row in rows for sample in row):
        assert len(sample_ids(corpus, RANGES, sample)) <= 65
        assert sample.start < (sample.learn_from or 0) < sample.end
    assert rows
