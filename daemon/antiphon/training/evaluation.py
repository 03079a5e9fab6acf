"""What a model is worth on pieces it has not seen, beside what counting alone foretells.

Every piece is scored whole: BOS, its ids, EOS, from an empty memory. All nats, those of bars, positions and EOS too,
are shared among the notes; that number depends neither on how a piece is cut nor on how many ids a note takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Timeline
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import dequantize
from antiphon.model.rwkv7 import State
from antiphon.training.corpus import Corpus
from antiphon.training.ids import IdRanges, Ids
from antiphon.training.network import Network
from antiphon.training.ngram import ngram_nats

RESAMPLES = 10_000
CONFIDENCE = 0.95
_TOKENS_AT_ONCE = 4096
_SCORED_AT_ONCE = 512
"""Ids given to the engine in one call: a tenth of a second, so that Ctrl-C is heeded."""

OnPiece = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The pieces to be scored: ids with BOS and EOS, notes of each, and which belong to one song.

    songs: a number for each piece, from 0; pieces of one song have the same.
    """

    sequences: tuple[Ids, ...]
    notes: npt.NDArray[np.int64]
    songs: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """How many ids are scored: all but each BOS."""
        return sum(len(sequence) - 1 for sequence in self.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Nats per note and per id, with the bounds between which nats per note lies with 95 % confidence."""

    nats_per_note: float
    low: float
    high: float
    nats_per_token: float


def whole_pieces(corpus: Corpus, ranges: IdRanges) -> list[Ids]:
    """Every piece with BOS before it and EOS behind."""
    bos, eos = np.array([ranges.bos], np.int32), np.array([ranges.eos], np.int32)
    return [np.concatenate([bos, corpus.piece(piece), eos]) for piece in range(len(corpus))]


def sheet_of(corpus: Corpus, ranges: IdRanges, *, most: int = 0, songs: Sequence[str] | None = None) -> Sheet:
    """The pieces of `corpus`, or `most` evenly spread ones (0 = all). songs: a name for each piece of the corpus."""
    count = len(corpus) if most <= 0 else min(most, len(corpus))
    chosen = np.unique(np.linspace(0, len(corpus) - 1, count).astype(np.int64))
    pieces = whole_pieces(corpus, ranges)
    names = np.asarray(songs if songs is not None else range(len(corpus)))
    return Sheet(
        sequences=tuple(pieces[piece] for piece in chosen),
        notes=np.array([_notes(pieces[piece], ranges) for piece in chosen], np.int64),
        songs=np.unique(names[chosen], return_inverse=True)[1].astype(np.int64),
    )


def model_nats(model: LoadedModel, sheet: Sheet, *, on_piece: OnPiece = lambda: None) -> npt.NDArray[np.float64]:
    """Nats of each piece under `model`, as it plays: in int8, one id after the other."""
    return np.array([_told(on_piece, _played(model, sequence)) for sequence in sheet.sequences])


def float_nats(checkpoint: Checkpoint, sheet: Sheet, *, on_piece: OnPiece = lambda: None) -> npt.NDArray[np.float64]:
    """Nats of each piece under the weights of `checkpoint` in float32."""
    network = Network(checkpoint.spec, dequantize(checkpoint).tensors)
    with torch.inference_mode():
        return np.array([_told(on_piece, _read(network, sequence)) for sequence in sheet.sequences])


def counted_nats(train: Corpus, sheet: Sheet, ranges: IdRanges, *, order: int) -> npt.NDArray[np.float64]:
    """Nats of each piece under an n-gram of `order` ids counted in `train`."""
    pieces = ngram_nats(whole_pieces(train, ranges), sheet.sequences, order=order, size=ranges.size)
    return np.array([float(nats.sum()) for nats in pieces])


def score(nats: npt.NDArray[np.float64], sheet: Sheet, *, seed: int = 0) -> Score:
    """The score that these nats [pieces] are; songs, not notes, are drawn again for its bounds (bootstrap)."""
    songs = int(sheet.songs.max()) + 1
    by_song = np.bincount(sheet.songs, nats, songs), np.bincount(sheet.songs, sheet.notes, songs)
    drawn = np.random.default_rng(seed).multinomial(songs, np.full(songs, 1 / songs), RESAMPLES)
    nats_drawn, notes_drawn = (drawn @ sums for sums in by_song)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(nats_drawn / np.maximum(notes_drawn, 1), [tail, 100 - tail])
    total = float(nats.sum())
    return Score(
        nats_per_note=total / max(1, int(sheet.notes.sum())),
        low=float(low),
        high=float(high),
        nats_per_token=total / max(1, sheet.tokens),
    )


def _played(model: LoadedModel, sequence: Ids) -> Iterable[float]:
    timeline = Timeline(model)
    timeline.feed(sequence[:1].tolist())
    for start in range(1, len(sequence), _SCORED_AT_ONCE):
        yield float(timeline.feed_scored(sequence[start : start + _SCORED_AT_ONCE].tolist()).sum(dtype=np.float64))


def _read(network: Network, sequence: Ids) -> Iterable[float]:
    ids = torch.from_numpy(sequence.astype(np.int64))
    state: State | None = None
    for start in range(0, len(ids) - 1, _TOKENS_AT_ONCE):
        inputs = ids[start : start + _TOKENS_AT_ONCE + 1]
        logits, state = network(inputs[:-1].unsqueeze(0), state)
        yield float(functional.cross_entropy(logits[0].double(), inputs[1:], reduction="sum"))


def _told(on_piece: OnPiece, parts: Iterable[float]) -> float:
    total = sum(parts)
    on_piece()
    return total


def _notes(ids: Ids, ranges: IdRanges) -> int:
    return int(((ids >= ranges.pitch_first) & (ids <= ranges.pitch_last)).sum())
