"""Made-up music for training tests: every meter change, tempo change, chord and long note that a corpus can have."""

from __future__ import annotations

import numpy as np

from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary
from antiphon.training.corpus import Corpus, pack_pieces
from antiphon.training.ids import IdRanges

VOCABULARY = Vocabulary()
RANGES = IdRanges.of_vocabulary(VOCABULARY)
METERS = tuple(Meter.parse(text) for text in ("4/4", "3/4", "6/8", "2/2", "5/16"))


def random_bars(rng: np.random.Generator, *, bars: int, low: int = 40, high: int = 80) -> list[Bar]:
    """Bars of random notes, some empty; lengths reach up to the longest that can be written."""
    meter, bpm = METERS[rng.integers(len(METERS))], 100.0
    made: list[Bar] = []
    for _ in range(bars):
        if rng.random() < 0.2:
            meter = METERS[rng.integers(len(METERS))]
        if rng.random() < 0.2:
            bpm = float(rng.integers(50, 200))
        places = {
            (int(rng.integers(meter.len_steps)), int(rng.integers(low, high + 1))) for _ in range(rng.integers(0, 8))
        }
        longest = VOCABULARY.longest_steps
        notes = [
            BarNote(step, pitch, int(min(longest, 1 + rng.geometric(0.04))), int(rng.integers(1, 128)))
            for step, pitch in sorted(places)
        ]
        made.append(Bar(meter, tuple(notes), bpm))
    return made


def random_corpus(*, pieces: int = 12, seed: int = 0, bars: tuple[int, int] = (2, 60)) -> Corpus:
    """Pieces of random music, from short ones to some that no sample holds whole."""
    rng = np.random.default_rng(seed)
    made = [encode(random_bars(rng, bars=int(rng.integers(*bars))), VOCABULARY) for _ in range(pieces)]
    return pack_pieces(made, [f"piece {number}" for number in range(pieces)])


def simple_corpus(*, pieces: int = 6) -> Corpus:
    """Scales, one note a quarter: music that a small model learns in a few steps."""
    scale = (0, 2, 4, 5, 7, 9, 11, 12)
    meter = Meter.parse("4/4")
    made = []
    for piece in range(pieces):
        notes = [60 + scale[(piece + quarter) % len(scale)] for quarter in range(4 * 16)]
        bars = [
            Bar(meter, tuple(BarNote(12 * i, notes[4 * bar + i], 12, 64) for i in range(4)), 100.0) for bar in range(16)
        ]
        made.append(encode(bars, VOCABULARY))
    return pack_pieces(made, [f"scale {number}" for number in range(pieces)])
