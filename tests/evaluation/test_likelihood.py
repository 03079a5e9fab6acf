"""A target's nats are those of its own ids after BOS and the context's, the same from every reader (S2-110)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from model.small_models import random_weights
from training.small_corpus import RANGES, VOCABULARY, random_bars, random_corpus

from antiphon.engine.loaded import LoadedModel
from antiphon.errors import AntiphonError, FileError
from antiphon.evaluation import likelihood
from antiphon.evaluation.likelihood import (
    CACHE_ORDER,
    CACHE_WEIGHT,
    NGRAM_ORDER,
    FloatScorer,
    ModelScorer,
    Scored,
    ids_of,
    ngram_scores,
    score_windows,
)
from antiphon.evaluation.windows import Loaded, Window
from antiphon.model import rwkv7
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize, quantize_int8
from antiphon.model.spec import ModelSpec
from antiphon.music.bar import Bar
from antiphon.music.meter import Meter
from antiphon.session.voice import Voice
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import BAR, BOS
from antiphon.training.evaluation import whole_pieces
from antiphon.training.ngram import cache_nats, ngram_nats

SPEC = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=RANGES.size)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint(spec=SPEC, tensors=random_weights(SPEC))


def some_windows(count: int = 5, *, context: int = 6, bars: int = 2) -> list[Loaded]:
    rng = np.random.default_rng(3)
    made = []
    for number in range(count):
        piece = tuple(random_bars(rng, bars=context + bars))
        window = Window(file=f"{number}.mid", start_bar=0, context_bars=context, bars=bars, where=f"line {number}")
        made.append(Loaded(window, piece[:context], piece[context:]))
    return made


def by_definition(checkpoint: Checkpoint, window: Loaded) -> tuple[float, int]:
    """Nats of the ids from the target's first Bar on, from one pass over the whole window."""
    weights = {name: tensor.double() for name, tensor in dequantize(checkpoint).tensors.items()}
    ids = [BOS, *encode([*window.context, *window.target], VOCABULARY)]
    bars = [index for index, token in enumerate(ids) if token == BAR]
    first = bars[len(window.context)]
    logits, _ = rwkv7.sequence(weights, torch.tensor(ids[:-1]))
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    return float(nats[first - 1 :].sum()), len(ids) - first


def test_context_and_target_are_the_ids_of_one_piece_cut_at_the_targets_first_bar() -> None:
    for window in some_windows():
        before, after = ids_of(window.context, window.target, VOCABULARY)
        assert before + after == [BOS, *encode([*window.context, *window.target], VOCABULARY)]
        assert after[0] == BAR
        assert before.count(BAR) == 6
        assert before[3:5] == [VOCABULARY.position_id(0), VOCABULARY.tempo_id(window.context[0].bpm)]


def test_the_engine_and_the_floats_score_as_the_definition_does(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_TOKENS_AT_ONCE", 32)  # a window in several calls, the state carried
    windows = some_windows()
    assert min(len(encode(window.context, VOCABULARY)) for window in windows) > 40
    floats = score_windows(FloatScorer(checkpoint, VOCABULARY), windows)
    int8 = quantize_int8(checkpoint)
    voice = Voice(LoadedModel.of(int8), VOCABULARY)
    played = score_windows(ModelScorer(voice), windows, threads=2)
    for window, one, other in zip(windows, floats, played, strict=True):
        exact, tokens = by_definition(checkpoint, window)
        exact_int8, _ = by_definition(int8, window)
        assert one.tokens == other.tokens == tokens
        assert one.nats == pytest.approx(exact, rel=1e-6)
        assert other.nats == pytest.approx(exact_int8, rel=1e-5)


def test_threads_keep_the_windows_order_and_each_is_told() -> None:
    windows = some_windows(20)
    told: list[None] = []

    def notes(context: Sequence[Bar], target: Sequence[Bar]) -> Scored:
        return Scored(float(sum(len(bar.notes) for bar in target)), len(context))

    found = score_windows(notes, windows, threads=4, on_window=lambda: told.append(None))
    assert [scored.nats for scored in found] == [window.notes for window in windows]
    assert len(told) == 20


def test_bars_that_a_system_cannot_tell_are_named() -> None:
    windows = some_windows(4)
    odd = Loaded(windows[2].window, windows[2].context, (Bar(Meter(23, 8)),))
    windows[2] = odd
    with pytest.raises(FileError, match=r"line 2: 2\.mid: the model knows no bars of 23/8"):
        score_windows(lambda context, target: Scored(0.0, len(ids_of(context, target, VOCABULARY)[1])), windows)
    with pytest.raises(FileError, match=r"line 2: 2\.mid: the model knows no bars of 23/8"):
        ngram_scores(random_corpus(pieces=1), windows, VOCABULARY)


def test_a_system_that_fails_ends_the_work() -> None:
    calls: list[None] = []

    def failing(context: Sequence[Bar], target: Sequence[Bar]) -> Scored:
        calls.append(None)
        raise AntiphonError("it cannot")

    with pytest.raises(FileError, match="it cannot"):
        score_windows(failing, some_windows(50), threads=1)
    assert len(calls) < 50


def test_the_ngrams_foretell_the_targets_ids_and_no_others() -> None:
    train = random_corpus(pieces=6)
    windows = some_windows()
    scores = ngram_scores(train, windows, VOCABULARY)
    counted = whole_pieces(train, RANGES)
    for window, ngram, cached in zip(windows, scores.ngram, scores.ngram_cache, strict=True):
        before, after = ids_of(window.context, window.target, VOCABULARY)
        ids = np.array([*before, *after], np.int32)
        (nats,) = ngram_nats(counted, [ids], order=NGRAM_ORDER, size=RANGES.size)
        cache = cache_nats(ids, last=len(after), order=CACHE_ORDER, size=RANGES.size)
        both = (1 - CACHE_WEIGHT) * np.exp(-nats[-len(after) :]) + CACHE_WEIGHT * np.exp(-cache)
        assert ngram.tokens == cached.tokens == len(after)
        assert ngram.nats == pytest.approx(nats[-len(after) :].sum())
        assert cached.nats == pytest.approx(-np.log(both).sum())


def test_what_the_context_says_the_cache_knows() -> None:
    bars = tuple(random_bars(np.random.default_rng(5), bars=4))
    other = tuple(random_bars(np.random.default_rng(6), bars=4))
    window = Window(file="a.mid", start_bar=0, context_bars=4, bars=4)
    again, new = Loaded(window, bars, bars), Loaded(window, other, bars)
    scores = ngram_scores(random_corpus(pieces=3), [again, new], VOCABULARY)
    assert scores.ngram_cache[0].nats < 0.7 * scores.ngram_cache[1].nats
