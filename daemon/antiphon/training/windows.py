"""Windows to fine-tune on, as an answer is asked for: some bars of context, and the bars that complete them.

Only the completion is learnt from. Its last id is the Bar that would open the bar after it, as an answer's is, or EOS
where the piece ends.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antiphon.training.batches import Sample, sample_budget, to_rows
from antiphon.training.corpus import Corpus
from antiphon.training.ids import IdRanges, Ids
from antiphon.training.window_bars import WindowBars

_COMPLETION_SHARE = 0.75
"""A completion may take so much of a sample; the rest is its context's, however long both are."""


def window_rows(
    corpus: Corpus, ranges: IdRanges, *, context: int, bars: WindowBars, seed: int, epoch: int
) -> list[list[Sample]]:
    """Every bar that has a context is completed once, in rows of at most `context` tokens; shuffled.

    Windows whose context or completion holds no note are left out: nothing was played, or nothing is said.
    """
    # 2 keeps this stream apart from the plan of whole pieces and from the variations.
    rng = np.random.default_rng([seed, epoch, 2])
    samples: list[Sample] = []
    for piece in rng.permutation(len(corpus)):
        samples += _windows(corpus.piece(int(piece)), int(piece), ranges, sample_budget(context), bars, rng)
    return to_rows(samples, context, rng)


def _windows(
    ids: Ids, piece: int, ranges: IdRanges, budget: int, bars: WindowBars, rng: np.random.Generator
) -> list[Sample]:
    """The windows of one piece: each completion begins where the last one ended."""
    lines = np.append(np.flatnonzero(ids == ranges.bar), len(ids))
    notes = np.append(0, np.cumsum((ids >= ranges.pitch_first) & (ids <= ranges.pitch_last)))
    count = len(lines) - 1
    shortest, longest = bars.completion
    samples: list[Sample] = []
    # Completions of one length would begin at the same bars in every epoch; so the first one comes later by chance.
    middle = bars.context[0] + int(rng.integers(shortest))
    while middle + shortest <= count:
        end = min(count, middle + int(rng.integers(shortest, longest + 1)))
        start = max(0, middle - int(rng.integers(bars.context[0], bars.context[1] + 1)))
        start, end = _fitted(lines, start, middle, end, budget)
        first, learn_from = int(lines[start]), int(lines[middle])
        # The Bar that closes the completion belongs to it.
        last = int(min(lines[end] + 1, first + budget, len(ids)))
        middle = end
        if learn_from < last and notes[first] < notes[learn_from] < notes[last]:
            samples.append(Sample(piece=piece, start=first, end=last, learn_from=learn_from))
    return samples


def _fitted(lines: npt.NDArray[np.int64], start: int, middle: int, end: int, budget: int) -> tuple[int, int]:
    """`start` and `end`, in bars, of the window that fits into `budget` ids, as far as whole bars go.

    The completion gives up its last bars until it leaves the context its share, then the context its first ones; one
    bar of each stays.
    """
    while end > middle + 1 and lines[end] - lines[middle] > _COMPLETION_SHARE * budget:
        end -= 1
    while start < middle - 1 and lines[end] + 1 - lines[start] > budget:
        start += 1
    return start, end
