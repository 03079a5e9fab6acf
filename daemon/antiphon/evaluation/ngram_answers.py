"""Answers by counting: n-grams of ids drawn from, under the same grammar as the model's answers.

Probabilities are interpolated after Witten and Bell, as training.ngram scores them. The cache is a second model of the
same kind, counted on the prompt and the answer so far (Kuhn and De Mori 1990): it knows nothing but this song.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from antiphon.evaluation.call import Call
from antiphon.evaluation.measures import Floats
from antiphon.evaluation.passage import as_written
from antiphon.music.bar import Bar
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.tokens.grammar import AnswerGrammar, Bounds
from antiphon.tokens.vocabulary import BOS, Vocabulary
from antiphon.training.corpus import Corpus
from antiphon.training.ids import Ids

CACHE_ORDER = 16
CACHE_SHARE = 0.3
"""What the cache's foretelling counts for beside the counted corpus'."""

_KEPT = 100_000
"""So many contexts are kept counted: the short ones come again and again."""

Ints = npt.NDArray[np.int64]
Count = tuple[Ints, Floats]


class Counted:
    """All n-grams of a corpus, sorted so that those which begin with a context lie together.

    Memory: about 30 bytes for each id of the corpus at order 8.
    """

    def __init__(self, corpus: Corpus, *, size: int, order: int) -> None:
        """size: the vocabulary's; order: ids of an n-gram, 1 or more. Raises ValueError otherwise."""
        if order < 1 or size < 1:
            raise ValueError("an n-gram has at least one id, and a vocabulary too")
        self.size = size
        self.order = order
        self._bits = (size + 1).bit_length()
        self._at_once = 62 // self._bits  # ids of a context that one key holds, the latest first
        ids, before = _with_bos(corpus)
        keys = [self._key(ids, before, first) for first in range(0, order - 1, self._at_once)]
        arranged = np.lexsort(keys[::-1]) if keys else np.arange(len(ids))
        self._next = ids[arranged].astype(np.int32)
        self._keys = [key[arranged] for key in keys]
        # No n-gram foretells a piece's BOS.
        told = before[arranged] > 0
        self._next, self._keys = self._next[told], [key[told] for key in self._keys]
        self._kept: dict[tuple[int, ...], Count] = {}

    def foretold(self, context: Sequence[int]) -> Floats:
        """p of every id [size] after `context`, of which the last `order` − 1 ids count."""
        p = np.full(self.size, 1.0 / self.size)
        latest = tuple(reversed(context[len(context) - min(len(context), self.order - 1) :]))
        for length in range(len(latest) + 1):
            ids, times = self._count(latest[:length])
            if not len(ids):
                break
            p = _interpolated(ids, times, p)
        return p

    def _count(self, latest: tuple[int, ...]) -> Count:
        found = self._kept.get(latest)
        if found is None:
            low, high = self._range(latest)
            times = np.bincount(self._next[low:high], minlength=1)
            ids = np.flatnonzero(times)
            found = ids, times[ids].astype(np.float64)
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[latest] = found
        return found

    def _range(self, latest: tuple[int, ...]) -> tuple[int, int]:
        low, high = 0, len(self._next)
        for number, first in enumerate(range(0, len(latest), self._at_once)):
            part = latest[first : first + self._at_once]
            width = min(self._at_once, self.order - 1 - first)
            lowest = 0
            for token in part:
                lowest = lowest << self._bits | token + 1
            rest = self._bits * (width - len(part))
            key = self._keys[number][low:high]
            bounds = np.searchsorted(key, [lowest << rest, (lowest + 1) << rest])
            low, high = low + int(bounds[0]), low + int(bounds[1])
        return low, high

    def _key(self, ids: Ids, before: Ints, first: int) -> Ints:
        """The ids `first` + 1, `first` + 2, … before each id, in one number; 0 where the piece has none there."""
        key = np.zeros(len(ids), np.int64)
        for back in range(first + 1, min(first + self._at_once, self.order - 1) + 1):
            there = before >= back
            key <<= self._bits
            key[there] |= ids[np.flatnonzero(there) - back].astype(np.int64) + 1
        return key


@dataclass(slots=True)
class Cache:
    """The n-grams of one song so far."""

    size: int
    order: int = CACHE_ORDER
    _ids: list[int] = field(default_factory=list)
    _times: dict[tuple[int, ...], dict[int, int]] = field(default_factory=dict)

    def feed(self, token: int) -> None:
        """Take the id that came."""
        for length in range(min(len(self._ids), self.order - 1) + 1):
            after = self._times.setdefault(tuple(self._ids[len(self._ids) - length :]), {})
            after[token] = after.get(token, 0) + 1
        self._ids.append(token)

    def foretold(self) -> Floats:
        """p of every id [size] to come."""
        p = np.full(self.size, 1.0 / self.size)
        for length in range(min(len(self._ids), self.order - 1) + 1):
            after = self._times.get(tuple(self._ids[len(self._ids) - length :]))
            if after is None:
                break
            p = _interpolated(np.fromiter(after, np.int64), np.fromiter(after.values(), np.float64), p)
        return p


@dataclass(frozen=True, slots=True)
class NgramAnswers:
    """Draws answers from `counted`, with an in-song cache of share `cache_share` (0 = without one)."""

    counted: Counted
    vocabulary: Vocabulary
    cache_share: float = 0.0

    def __call__(self, call: Call, *, seed: int) -> tuple[Bar, ...]:
        rng = np.random.default_rng([seed, call.number, 3])
        grammar = AnswerGrammar(vocabulary=self.vocabulary, meter=call.meter, bars=call.bars, bounds=Bounds())
        heard = [BOS, *encode(call.prompt, self.vocabulary)]
        cache = Cache(self.vocabulary.size)
        if self.cache_share:
            for token in heard:
                cache.feed(token)
        written: list[int] = []
        while True:
            p = self.counted.foretold([*heard, *written] if len(written) < self.counted.order else written)
            if self.cache_share:
                p = (1 - self.cache_share) * p + self.cache_share * cache.foretold()
            allowed = np.where(grammar.mask(), p, 0.0).cumsum()
            token = int(np.searchsorted(allowed, rng.random() * allowed[-1], side="right"))
            grammar.feed(token)
            if grammar.done:
                break
            written.append(token)
            if self.cache_share:
                cache.feed(token)
        return as_written(decode(written, self.vocabulary), self.vocabulary)


def _interpolated(ids: Ints, times: Floats, shorter: Floats) -> Floats:
    """Witten and Bell: (n(h, x) + t(h) · p(x | h')) / (n(h) + t(h))."""
    different, total = len(ids), float(times.sum())
    p = shorter * (different / (total + different))
    p[ids] += times / (total + different)
    return p


def _with_bos(corpus: Corpus) -> tuple[Ids, Ints]:
    """All pieces with BOS before each, in a row, and how many ids of its piece come before each."""
    starts = corpus.piece_starts[:-1]
    ids = np.insert(corpus.ids, starts, BOS)
    first = starts + np.arange(len(starts))
    before = np.arange(len(ids)) - np.repeat(first, np.diff(corpus.piece_starts) + 1)
    return ids, before
