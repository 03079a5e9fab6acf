"""A score is the nats of whole pieces, the same from the engine, the network and the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from model.small_models import random_weights
from training.small_corpus import RANGES, random_corpus

from antiphon.engine.loaded import LoadedModel
from antiphon.model import rwkv7
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize, quantize_int8
from antiphon.model.spec import ModelSpec
from antiphon.training import evaluation
from antiphon.training.evaluation import counted_nats, float_nats, model_nats, score, sheet_of, whole_pieces
from antiphon.training.ids import Ids
from antiphon.training.ngram import ngram_nats

SPEC = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=RANGES.size)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint(spec=SPEC, tensors=random_weights(SPEC))


def by_definition(checkpoint: Checkpoint, sequence: Ids) -> float:
    weights = {name: tensor.double() for name, tensor in dequantize(checkpoint).tensors.items()}
    ids = torch.from_numpy(sequence.astype(np.int64))
    logits, _ = rwkv7.sequence(weights, ids[:-1])
    return float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))


def test_a_piece_is_scored_whole_from_bos_to_eos() -> None:
    corpus = random_corpus(pieces=3)
    sheet = sheet_of(corpus, RANGES)
    for piece, sequence in enumerate(sheet.sequences):
        assert sequence.tolist() == [RANGES.bos, *corpus.piece(piece).tolist(), RANGES.eos]
    assert sheet.tokens == len(corpus.ids) + 3
    durations = (corpus.ids >= RANGES.duration_first) & (corpus.ids <= RANGES.duration_last)
    assert sheet.notes.sum() == durations.sum()
    assert sheet.songs.tolist() == [0, 1, 2]


def test_the_network_and_the_engine_score_as_the_definition_does(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_TOKENS_AT_ONCE", 50)  # a piece in several calls, the state carried
    monkeypatch.setattr(evaluation, "_SCORED_AT_ONCE", 50)
    sheet = sheet_of(random_corpus(pieces=3, bars=(8, 20)), RANGES)
    assert min(map(len, sheet.sequences)) > 100
    told: list[None] = []
    exact = [by_definition(checkpoint, sequence) for sequence in sheet.sequences]
    found = float_nats(checkpoint, sheet, on_piece=lambda: told.append(None))
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert len(told) == 3
    int8 = quantize_int8(checkpoint)
    exact_int8 = [by_definition(int8, sequence) for sequence in sheet.sequences]
    np.testing.assert_allclose(model_nats(LoadedModel.of(int8), sheet), exact_int8, rtol=1e-5)
    assert abs(exact_int8[0] - exact[0]) > 3e-5 * exact[0]  # so the two are told apart


def test_the_ngram_is_scored_on_the_same_ids() -> None:
    train, valid = random_corpus(pieces=4, seed=1), random_corpus(pieces=2, seed=2)
    sheet = sheet_of(valid, RANGES)
    found = counted_nats(train, sheet, RANGES, order=3)
    expected = ngram_nats(whole_pieces(train, RANGES), whole_pieces(valid, RANGES), order=3, size=RANGES.size)
    np.testing.assert_allclose(found, [nats.sum() for nats in expected])


def test_a_score_shares_all_nats_among_the_notes() -> None:
    sheet = sheet_of(random_corpus(pieces=5), RANGES)
    nats = 2.5 * sheet.notes
    found = score(nats, sheet)
    assert found.nats_per_note == found.low == found.high == pytest.approx(2.5)
    assert found.nats_per_token == pytest.approx(nats.sum() / sheet.tokens)


def test_the_bounds_hold_what_is_drawn_again_by_song() -> None:
    corpus = random_corpus(pieces=40)
    sheet = sheet_of(corpus, RANGES)
    nats = sheet.notes * np.random.default_rng(0).normal(3.0, 0.5, 40)
    single = score(nats, sheet)
    assert single.low < single.nats_per_note < single.high
    # The spread of a ratio of sums: notes-weighted deviations from the mean.
    deviation = nats - single.nats_per_note * sheet.notes
    error = math.sqrt((deviation**2).sum()) / sheet.notes.sum()
    assert single.high - single.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    # Ten recordings of each of four songs say no more than four songs do.
    four = sheet_of(corpus, RANGES, songs=[f"song {piece % 4}" for piece in range(40)])
    alike = 3.0 * four.notes + np.array([-1.0, -0.5, 0.5, 1.0])[four.songs] * four.notes
    ten_times = score(alike, sheet)
    as_songs = score(alike, four)
    assert as_songs.nats_per_note == ten_times.nats_per_note
    assert as_songs.high - as_songs.low > 2 * (ten_times.high - ten_times.low)
    assert score(alike, four) == as_songs


def test_some_pieces_stand_for_all() -> None:
    corpus = random_corpus(pieces=9)
    sheet = sheet_of(corpus, RANGES, most=3, songs=[str(piece // 5) for piece in range(9)])
    assert [len(sequence) - 2 for sequence in sheet.sequences] == [len(corpus.piece(piece)) for piece in (0, 4, 8)]
    assert sheet.songs.tolist() == [0, 0, 1]
    assert len(sheet_of(corpus, RANGES, most=100).sequences) == 9
