"""Ids to notes, each note as soon as it is whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import COMMON_TIME, Meter
from antiphon.music.tempo import DEFAULT_BPM
from antiphon.tokens.vocabulary import BAR, BOS, EOS, PAD, Vocabulary


@dataclass(slots=True)
class BarDecoder:
    """Takes ids one by one. `feed` gives the note that an id completes.

    bar: the number of the bar being read, from 0; -1 before the first. Ids that make no sense where they stand
    (a velocity without a pitch, a note before the first bar) are passed over, so that any ids decode.
    """

    vocabulary: Vocabulary
    bar: int = -1
    meter: Meter = COMMON_TIME
    bpm: float = DEFAULT_BPM
    _step: int = 0
    _pitch: int | None = None
    _velocity: int | None = None

    def feed(self, token: int) -> BarNote | None:
        """The note that `token` completes, its step counted from its bar line, or None."""
        vocabulary = self.vocabulary
        if token in vocabulary.durations:
            pitch, velocity = self._pitch, self._velocity
            self._pitch = self._velocity = None
            if pitch is None or velocity is None or self.bar < 0:
                return None
            return BarNote(self._step, pitch, vocabulary.duration_of(token), velocity)
        if token in vocabulary.pitches:
            self._pitch, self._velocity = vocabulary.pitch_of(token), None
        elif token in vocabulary.velocities:
            self._velocity = vocabulary.velocity_of(token)
        elif token in vocabulary.positions:
            self._step = vocabulary.position_of(token)
        elif token == BAR:
            self.bar += 1
            self._step = 0
        elif token in vocabulary.meters:
            self.meter = vocabulary.meter_of(token)
        elif token in vocabulary.tempos:
            self.bpm = vocabulary.bpm_of(token)
        return None


def decode(ids: Iterable[int], vocabulary: Vocabulary) -> list[Bar]:
    """The bars that `ids` spell; anything after EOS is left out, and so is a note beyond its bar's end.

    Of several notes of one pitch at one step the last one counts. Raises AntiphonError for an id that is not in the
    vocabulary.
    """
    decoder = BarDecoder(vocabulary)
    bars: list[Bar] = []
    notes: list[dict[tuple[int, int], BarNote]] = []
    for index, token in enumerate(ids):
        if token in (PAD, BOS):
            continue
        if token == EOS:
            break
        if not 0 <= token < vocabulary.size:
            raise AntiphonError(f"id {token} at {index} is outside the vocabulary of {vocabulary.size}")
        note = decoder.feed(token)
        if decoder.bar == len(bars):
            bars.append(Bar(decoder.meter, (), decoder.bpm))
            notes.append({})
        if not bars:
            continue
        if token in vocabulary.meters or token in vocabulary.tempos:
            bars[-1] = Bar(decoder.meter, (), decoder.bpm)
        if note is not None:
            notes[-1][note.step, note.pitch] = note
    return [_whole(bar, placed) for bar, placed in zip(bars, notes, strict=True)]


def _whole(bar: Bar, notes: dict[tuple[int, int], BarNote]) -> Bar:
    inside = (notes[place] for place in sorted(notes) if place[0] < bar.meter.len_steps)
    return replace(bar, notes=tuple(inside))
