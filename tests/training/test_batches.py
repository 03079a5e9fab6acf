"""What the network sees: samples as live play would begin them, every piece once an epoch, nothing leaking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from training.small_corpus import RANGES, VOCABULARY, random_corpus

from antiphon.model.wkv7_chunked import CHUNK
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.training.augment import Augmentation
from antiphon.training.batches import IGNORED, Batch, Sample, epoch_rows, make_batch, sample_ids
from antiphon.training.corpus import Corpus
from antiphon.training.ids import Ids

CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """A corpus and one epoch of it."""

    corpus: Corpus
    rows: list[list[Sample]]

    @property
    def samples(self) -> list[Sample]:
        return [sample for row in self.rows for sample in row]

    def batch(self, augmentation: Augmentation | None = None) -> Batch:
        seeds = [(1, row) for row in range(len(self.rows))]
        return make_batch(self.rows, self.corpus, RANGES, context=CONTEXT, augmentation=augmentation, seeds=seeds)


@pytest.fixture(scope="module")
def plan() -> Plan:
    corpus = random_corpus(pieces=30)
    return Plan(corpus, epoch_rows(corpus, RANGES, context=CONTEXT, seed=1, epoch=0))


def test_every_id_of_every_piece_is_in_an_epoch(plan: Plan) -> None:
    for piece in range(len(plan.corpus)):
        seen = np.zeros(len(plan.corpus.piece(piece)), np.bool_)
        stretches = sorted((s.start, s.end) for s in plan.samples if s.piece == piece)
        for start, end in stretches:
            seen[start:end] = True
        # A last bar of a few ids may be left out after a stretch that did not reach it; nothing else.
        assert seen[: len(seen) - 16].all()
    assert sum(len(piece) for piece in map(plan.corpus.piece, range(30))) > 10 * CONTEXT


def test_a_sample_begins_as_a_piece_does_with_its_tempo_told(plan: Plan) -> None:
    inner = 0
    for sample in plan.samples:
        ids = sample_ids(plan.corpus, RANGES, sample).tolist()
        assert ids[:2] == [RANGES.bos, RANGES.bar]
        assert ids[2] in VOCABULARY.meters
        assert ids[3] == VOCABULARY.position_id(0)
        assert ids[4] in VOCABULARY.tempos
        inner += sample.start > 0
    assert inner > 10


def test_a_sample_spells_the_bars_of_its_piece(plan: Plan) -> None:
    for sample in plan.samples:
        piece = plan.corpus.piece(sample.piece)
        first = int((piece[: sample.start] == RANGES.bar).sum())
        told = decode(sample_ids(plan.corpus, RANGES, sample).tolist(), VOCABULARY)
        whole = decode(piece.tolist(), VOCABULARY)[first : first + len(told)]
        assert told[:-1] == whole[:-1]
        # The last bar may break off, even before its meter is told.
        assert told[-1].notes == whole[-1].notes[: len(told[-1].notes)]


def test_a_sample_is_what_the_encoder_writes_for_bars_that_begin_a_piece(plan: Plan) -> None:
    on_the_line = 0
    for sample in plan.samples:
        ids = sample_ids(plan.corpus, RANGES, sample).tolist()
        expected = encode(decode(ids, VOCABULARY)[:-1], VOCABULARY)
        assert ids[1 : 1 + len(expected)] == expected
        on_the_line += sample.start > 0 and ids[5] in VOCABULARY.pitches
    assert on_the_line > 2  # an onset on the bar line shares its Position with the tempo


def test_a_sample_that_lacks_one_id_of_its_piece_has_no_eos() -> None:
    corpus = random_corpus(pieces=1)
    length = len(corpus.piece(0))
    for end, ends in ((length, True), (length - 1, False)):
        assert (RANGES.eos in sample_ids(corpus, RANGES, Sample(piece=0, start=0, end=end))) == ends


def test_a_piece_ends_with_eos_and_a_sample_that_stops_before_does_not(plan: Plan) -> None:
    ends = 0
    for sample in plan.samples:
        ids = sample_ids(plan.corpus, RANGES, sample)
        whole = sample.end == len(plan.corpus.piece(sample.piece))
        assert (ids == RANGES.eos).sum() == whole
        assert (ids[-1] == RANGES.eos) == whole
        ends += whole
    assert 20 < ends < len(plan.samples)


@pytest.mark.parametrize("augmentation", [None, Augmentation(cut_samples=1.0, cut_bars=0.5)])
def test_a_batch_holds_the_samples_and_the_ids_that_follow_them(plan: Plan, augmentation: Augmentation | None) -> None:
    batch = plan.batch(augmentation)
    for row, samples in enumerate(plan.rows):
        starts = np.flatnonzero(batch.starts[row])
        assert len(starts) == len(samples)
        assert (starts % CHUNK == 0).all()
        for start, end, sample in zip(starts, [*starts[1:], CONTEXT], samples, strict=True):
            ids = sample_ids(plan.corpus, RANGES, sample)
            count = len(ids) - 1
            assert start + count <= end
            tokens, targets = batch.tokens[row, start : start + count], batch.targets[row, start : start + count]
            np.testing.assert_array_equal(tokens[1:], targets[:-1])
            if augmentation is None:
                np.testing.assert_array_equal(tokens, ids[:-1])
                np.testing.assert_array_equal(targets, ids[1:])
            assert (batch.tokens[row, start + count : end] == RANGES.pad).all()
            assert (batch.targets[row, start + count : end] == IGNORED).all()
    assert (batch.targets != IGNORED).mean() > 0.6


def test_rows_are_drawn_from_seed_and_epoch_and_nothing_else(plan: Plan) -> None:
    def rows(seed: int, epoch: int) -> list[list[Sample]]:
        return epoch_rows(plan.corpus, RANGES, context=CONTEXT, seed=seed, epoch=epoch)

    assert rows(1, 0) == plan.rows
    assert rows(1, 1) != plan.rows
    assert rows(2, 0) != plan.rows


def test_a_row_is_varied_by_its_own_seed_whatever_stands_beside_it(plan: Plan) -> None:
    augmentation = Augmentation(cut_samples=1.0, cut_bars=0.5)

    def tokens(rows: list[list[Sample]], seeds: list[tuple[int, ...]]) -> Ids:
        made = make_batch(rows, plan.corpus, RANGES, context=CONTEXT, augmentation=augmentation, seeds=seeds)
        return made.tokens[-1].astype(np.int32)

    alone = tokens(plan.rows[1:2], [(9, 1)])
    np.testing.assert_array_equal(tokens(plan.rows[:2], [(9, 0), (9, 1)]), alone)
    assert (tokens(plan.rows[1:2], [(9, 2)]) != alone).any()


def test_a_bar_longer_than_a_sample_is_begun_and_passed_over() -> None:
    corpus = random_corpus(pieces=1, bars=(5, 6))
    rows = epoch_rows(corpus, RANGES, context=64, seed=1, epoch=0)
    for sample in (sample for row in rows for sample in row):
        assert corpus.piece(0)[sample.start] == RANGES.bar
        assert sample.end - sample.start <= 61
