"""How well a system foretells the bars of a window: nats over all ids of the target, given those of the context.

A model begins with BOS and hears the context's bars as a piece that begins there; the tempo is stated in its first
bar. Then come the target's ids, from its first Bar to the last id of its last bar, and −ln p of each is summed up:
bars, positions and tempos too, nothing after. The bars are those of the piece, notes that sound over a bar line whole.
Shared among the target's notes, the sum depends neither on how many ids a note takes nor on which ids they are, so
systems with other vocabularies compare, as long as they tell the music in equal detail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as functional

from antiphon.engine.timeline import Timeline
from antiphon.errors import AntiphonError
from antiphon.evaluation.windows import Loaded
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.rwkv7 import State
from antiphon.music.bar import Bar
from antiphon.session.voice import Voice
from antiphon.tokens.encoder import BarEncoder
from antiphon.tokens.vocabulary import BOS, Vocabulary
from antiphon.training.corpus import Corpus
from antiphon.training.evaluation import whole_pieces
from antiphon.training.ids import IdRanges
from antiphon.training.network import Network
from antiphon.training.ngram import cache_nats, mixed_nats, ngram_nats

NGRAM_ORDER = 8
CACHE_ORDER = 16
CACHE_WEIGHT = 0.5
"""The best of 0.1, 0.15, 0.2, 0.3 … 0.7, 0.85 after 4, 8 and 16 bars on windows of 100 training songs, which were left
out of the counting; after 32 bars 0.6 is better by 0.03 nats a note."""

_TOKENS_AT_ONCE = 4096

OnWindow = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """Nats over all the ids of a target, and how many ids those are in the system's own tokens."""

    nats: float
    tokens: int


class Scorer(Protocol):
    """A system that foretells bars. Called from one thread, or from several where it says so."""

    def __call__(self, context: Sequence[Bar], target: Sequence[Bar]) -> Scored:
        """The nats of `target` after `context`. Raises AntiphonError for bars that the system cannot tell."""
        ...


def ids_of(context: Sequence[Bar], target: Sequence[Bar], vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
    """The ids of the context, with BOS, and of the target. Raises AntiphonError for a meter out of vocabulary."""
    encoder = BarEncoder(vocabulary)
    before = [BOS, *(token for bar in context for token in encoder.bar(bar))]
    return before, [token for bar in target for token in encoder.bar(bar)]


@dataclass(frozen=True, slots=True)
class ModelScorer:
    """A model as it plays: in int8, on a timeline of its own for each window. Several threads may call it."""

    voice: Voice

    def __call__(self, context: Sequence[Bar], target: Sequence[Bar]) -> Scored:
        before, after = ids_of(context, target, self.voice.vocabulary)
        timeline = Timeline(self.voice.model)
        timeline.feed(before)
        return Scored(float(timeline.feed_scored(after).sum(dtype=np.float64)), len(after))


class FloatScorer:
    """The weights of a checkpoint in float32."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
        self._network = Network(checkpoint.spec, dequantize(checkpoint).tensors)
        self._vocabulary = vocabulary

    def __call__(self, context: Sequence[Bar], target: Sequence[Bar]) -> Scored:
        before, after = ids_of(context, target, self._vocabulary)
        ids = torch.tensor([*before, *after])
        nats = 0.0
        state: State | None = None
        with torch.inference_mode():
            for start in range(0, len(ids) - 1, _TOKENS_AT_ONCE):
                part = ids[start : start + _TOKENS_AT_ONCE + 1]
                logits, state = self._network(part[:-1].unsqueeze(0), state)
                told = functional.cross_entropy(logits[0].double(), part[1:], reduction="none")
                nats += float(told[max(0, len(before) - 1 - start) :].sum())
        return Scored(nats, len(after))


def score_windows(
    scorer: Scorer, windows: Sequence[Loaded], *, threads: int = 1, on_window: OnWindow = lambda: None
) -> list[Scored]:
    """What `scorer` makes of each window, in their order. Raises FileError, naming the window, where it cannot."""

    def score(window: Loaded) -> Scored:
        try:
            return scorer(window.context, window.target)
        except AntiphonError as error:
            raise window.window.refused(error.message, error.fix) from error

    found: list[Scored] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        try:
            for scored in pool.map(score, windows):
                found.append(scored)
                on_window()
        finally:
            pool.shutdown(cancel_futures=True)
    return found


@dataclass(frozen=True, slots=True)
class NgramScores:
    """What an n-gram of `NGRAM_ORDER` ids makes of each window, alone and mixed with a cache of the window itself."""

    ngram: list[Scored]
    ngram_cache: list[Scored]


def ngram_scores(
    train: Corpus,
    windows: Sequence[Loaded],
    vocabulary: Vocabulary,
    *,
    order: int = NGRAM_ORDER,
    cache_order: int = CACHE_ORDER,
    cache_weight: float = CACHE_WEIGHT,
    on_window: OnWindow = lambda: None,
) -> NgramScores:
    """The n-gram's nats, counted in `train`, of the same ids that a model without merges foretells.

    The cache counts n-grams of up to `cache_order` ids in the context and in the target so far; its probabilities have
    `cache_weight` in the mixture. Raises FileError, naming the window, for bars that the vocabulary cannot say.
    """
    size = vocabulary.size
    sequences, lasts = [], []
    for window in windows:
        try:
            before, after = ids_of(window.context, window.target, vocabulary)
        except AntiphonError as error:
            raise window.window.refused(error.message, error.fix) from error
        sequences.append(np.array([*before, *after], np.int32))
        lasts.append(len(after))
    counted = whole_pieces(train, IdRanges.of_vocabulary(vocabulary))
    scores = NgramScores([], [])
    for sequence, last, nats in zip(
        sequences, lasts, ngram_nats(counted, sequences, order=order, size=size, last=lasts), strict=True
    ):
        cached = cache_nats(sequence, last=last, order=cache_order, size=size)
        scores.ngram.append(Scored(float(nats.sum()), last))
        scores.ngram_cache.append(Scored(float(mixed_nats(nats, cached, weight=cache_weight).sum()), last))
        on_window()
    return scores
