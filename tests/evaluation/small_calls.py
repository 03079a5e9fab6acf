"""Small music to measure: bars from plain tuples, and a little corpus with songs that have a tune each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from antiphon.evaluation.call import Call
from antiphon.evaluation.passage import Passage, as_written, laid
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import COMMON_TIME, Meter
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary
from antiphon.training.corpus import Corpus, pack_pieces

VOCABULARY = Vocabulary()
SCALE = (0, 2, 4, 5, 7, 9, 11)


def bars_of(notes: Iterable[tuple[int, ...]], *, bars: int = 4, meter: Meter = COMMON_TIME) -> tuple[Bar, ...]:
    """Bars from (step, pitch), (step, pitch, length) or (step, pitch, length, velocity); 12 steps and 64 by default."""
    default = (0, 60, 12, 64)
    return laid((BarNote(*note, *default[len(note) :]) for note in notes), meter=meter, bars=bars, bpm=100)


def passage(notes: Iterable[tuple[int, ...]], *, bars: int = 4, meter: Meter = COMMON_TIME) -> Passage:
    """The same as a passage."""
    return Passage.of(bars_of(notes, bars=bars, meter=meter))


def tune(rng: np.random.Generator, *, bars: int, meter: Meter = COMMON_TIME) -> tuple[Bar, ...]:
    """A walk up and down a scale on some key, in quarters and eighths, now and then with a note below it."""
    tonic, place = int(rng.integers(48, 66)), int(rng.integers(7))
    notes: list[tuple[int, int, int, int]] = []
    step, end = 0, bars * meter.len_steps
    while step < end:
        length = int(rng.choice([6, 12, 12, 24]))
        place = int(np.clip(place + rng.integers(-2, 3), 0, 13))
        notes.append((step, tonic + SCALE[place % 7] + 12 * (place // 7), length, int(rng.integers(40, 100))))
        if rng.random() < 0.2:
            notes.append((step, tonic - 12, length, 50))
        step += length
    return bars_of(notes, bars=bars, meter=meter)


def calls(*, songs: int = 4, each: int = 2, seed: int = 0) -> list[Call]:
    """Calls of four bars and the four that follow, `each` from every song."""
    rng = np.random.default_rng(seed)
    made: list[Call] = []
    for song in range(songs):
        piece = as_written(tune(rng, bars=8 * each + 4), VOCABULARY)
        for index in range(each):
            prompt, target = piece[8 * index : 8 * index + 4], piece[8 * index + 4 : 8 * index + 8]
            made.append(
                Call(
                    number=len(made),
                    name=f"song {song}, {index}",
                    song=f"song {song}",
                    prompt=as_written(prompt, VOCABULARY),
                    target=as_written(target, VOCABULARY),
                    elsewhere=as_written(piece[-4:], VOCABULARY),
                )
            )
    return made


def corpus_of(pieces: Sequence[Sequence[Bar]]) -> Corpus:
    """These pieces, packed."""
    return pack_pieces([encode(piece, VOCABULARY) for piece in pieces], [f"piece {n}" for n in range(len(pieces))])


def small_corpus(*, pieces: int = 12, bars: int = 16, seed: int = 9) -> Corpus:
    """Pieces as the calls have them, but other ones."""
    rng = np.random.default_rng(seed)
    return corpus_of([tune(rng, bars=bars) for _ in range(pieces)])
