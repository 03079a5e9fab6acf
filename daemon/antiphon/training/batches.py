"""What the network sees, and in which order: pieces cut into samples, samples packed into rows.

The plan of an epoch and every variation in it follow from (seed, epoch, row), so that a run continues
exactly where it stopped by remembering two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.model.wkv7_chunked import CHUNK
from antiphon.training.augment import Augmentation
from antiphon.training.corpus import Corpus
from antiphon.training.ids import IdRanges, Ids

IGNORED = -100
"""The target of a position without loss: torch's default for cross entropy."""

_SHORTEST = 16
"""A rest of a piece shorter than this is not worth a sample."""

_OPEN_ROWS = 64
"""How many rows are kept open for short samples while packing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A stretch of one piece: ids [start, end) of it, `start` at a bar line; from `learn_from` on they are learnt."""

    piece: int
    start: int
    end: int
    learn_from: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`tokens` and `targets` int64 [B, T], `starts` bool [B, T]: where a sample begins."""

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    starts: npt.NDArray[np.bool_]


def epoch_rows(corpus: Corpus, ranges: IdRanges, *, context: int, seed: int, epoch: int) -> list[list[Sample]]:
    """Every piece once, in rows of at most `context` tokens; shuffled."""
    rng = np.random.default_rng([seed, epoch, 0])
    samples: list[Sample] = []
    for piece in rng.permutation(len(corpus)):
        samples += _samples(corpus, ranges, int(piece), sample_budget(context), rng)
    return to_rows(samples, context, rng)


def sample_budget(context: int) -> int:
    """How many ids of a piece a sample of `context` tokens holds."""
    # BOS and a stated tempo (Position_0, Tempo) come in front, EOS behind; the last id is only a target.
    return context - 3


def to_rows(samples: list[Sample], context: int, rng: np.random.Generator) -> list[list[Sample]]:
    """The samples in rows of at most `context` tokens, short ones packed; shuffled."""
    long = [[sample] for sample in samples if _room(sample) > context - _SHORTEST - CHUNK]
    short = [sample for sample in samples if _room(sample) <= context - _SHORTEST - CHUNK]
    rows = long + _packed([short[i] for i in rng.permutation(len(short))], context)
    return [rows[i] for i in rng.permutation(len(rows))]


def make_batch(
    rows: list[list[Sample]],
    corpus: Corpus,
    ranges: IdRanges,
    *,
    context: int,
    augmentation: Augmentation | None,
    seeds: list[tuple[int, ...]],
) -> Batch:
    """The rows as arrays; row i is varied by a generator seeded with seeds[i]."""
    tokens = np.full((len(rows), context), ranges.pad, np.int64)
    targets = np.full((len(rows), context), IGNORED, np.int64)
    starts = np.zeros((len(rows), context), np.bool_)
    for row, (samples, seed) in enumerate(zip(rows, seeds, strict=True)):
        rng = np.random.default_rng(seed)
        at = 0
        for sample in samples:
            ids = sample_ids(corpus, ranges, sample)
            completion = _completion(sample, ids, ranges)
            if augmentation is not None:
                ids = augmentation.apply(ids, ranges, rng, completion=completion)
            count, first = len(ids) - 1, completion or 1
            tokens[row, at : at + count] = ids[:-1]
            targets[row, at + first - 1 : at + count] = ids[first:]
            starts[row, at] = True
            at += count + -count % CHUNK
    return Batch(tokens=tokens, targets=targets, starts=starts)


def sample_ids(corpus: Corpus, ranges: IdRanges, sample: Sample) -> Ids:
    """BOS, the stretch with its tempo stated in the first bar, and EOS if the piece ends with it."""
    piece = corpus.piece(sample.piece)
    ids = piece[sample.start : sample.end]
    tempo = _tempo_before(piece, ranges, sample.start)
    parts = [np.array([ranges.bos], np.int32)]
    if tempo is None or _states_tempo(ids, ranges):
        parts.append(ids)
    else:
        stated = np.array([ranges.position_first, tempo], np.int32)
        # A first onset on step 0 shares its Position with the tempo, as in the encoder.
        rest = 3 if len(ids) > 2 and ids[2] == ranges.position_first else 2
        parts += [ids[:2], stated, ids[rest:]]
    if sample.end == len(piece):
        parts.append(np.array([ranges.eos], np.int32))
    return np.concatenate(parts)


def _completion(sample: Sample, ids: Ids, ranges: IdRanges) -> int | None:
    """Where in `sample_ids` those begin that are learnt, or None if all are."""
    if sample.learn_from is None:
        return None
    # Counted from the end, because a tempo may have been stated in front.
    return len(ids) - int(ids[-1] == ranges.eos) - (sample.end - sample.learn_from)


def _samples(corpus: Corpus, ranges: IdRanges, piece: int, budget: int, rng: np.random.Generator) -> list[Sample]:
    """The piece cut into stretches of `budget` ids; the first is shorter by chance, so that cuts wander."""
    ids = corpus.piece(piece)
    bars = np.flatnonzero(ids == ranges.bar)
    samples: list[Sample] = []
    start = 0
    allowed = int(rng.integers(budget // 4, budget + 1))
    while True:
        end = min(len(ids), start + allowed)
        samples.append(Sample(piece=piece, start=start, end=end))
        if end == len(ids):
            break
        # The next stretch begins with the bar in which this one broke off.
        inside = bars[(bars > start) & (bars <= end)]
        if not len(inside):
            later = bars[bars > end]
            if not len(later):
                break
            inside = later[:1]
        start = int(inside[-1])
        allowed = budget
        if len(ids) - start < _SHORTEST:
            break
    return samples


def _room(sample: Sample) -> int:
    """Tokens a sample may take of a row: BOS, a stated tempo and EOS added, rounded up to whole chunks."""
    tokens = sample.end - sample.start + 3
    return tokens + -tokens % CHUNK


def _packed(samples: list[Sample], context: int) -> list[list[Sample]]:
    """First fit into a few open rows; the fullest is closed when there are too many."""
    closed: list[list[Sample]] = []
    open_rows: list[tuple[int, list[Sample]]] = []
    for sample in samples:
        need = _room(sample)
        fits = [i for i, (used, _) in enumerate(open_rows) if used + need <= context]
        if fits:
            best = max(fits, key=lambda i: open_rows[i][0])
            used, row = open_rows[best]
            open_rows[best] = (used + need, [*row, sample])
            continue
        if len(open_rows) == _OPEN_ROWS:
            fullest = max(range(len(open_rows)), key=lambda i: open_rows[i][0])
            closed.append(open_rows.pop(fullest)[1])
        open_rows.append((need, [sample]))
    return closed + [row for _, row in open_rows]


def _tempo_before(piece: Ids, ranges: IdRanges, start: int) -> int | None:
    before = piece[:start]
    tempos = before[(before >= ranges.tempo_first) & (before <= ranges.tempo_last)]
    return int(tempos[-1]) if len(tempos) else None


def _states_tempo(ids: Ids, ranges: IdRanges) -> bool:
    """Whether Bar, TimeSig, Position_0 is followed by a tempo."""
    return len(ids) > 3 and ranges.tempo_first <= int(ids[3]) <= ranges.tempo_last
