"""Bars to ids, a bar at a time: what miditok yields for the same bars, without miditok."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antiphon.music.bar import Bar
from antiphon.tokens.vocabulary import BAR, Vocabulary


@dataclass(slots=True)
class BarEncoder:
    """Encodes bar after bar. It remembers the tempo last written: a tempo is written where it changes.

    The ids of a bar up to an onset do not depend on what comes after, so a live bar can be encoded as it grows.
    """

    vocabulary: Vocabulary
    tempo: int | None = None

    def bar(self, bar: Bar) -> list[int]:
        """The ids of `bar`, and move on. Raises AntiphonError for a meter that the vocabulary lacks."""
        ids = self.preview(bar)
        self.tempo = self.vocabulary.tempo_id(bar.bpm)
        return ids

    def preview(self, bar: Bar) -> list[int]:
        """The ids that `bar` would have, without moving on: for a bar that is still being played."""
        vocabulary = self.vocabulary
        ids = [BAR, vocabulary.meter_id(bar.meter)]
        tempo = vocabulary.tempo_id(bar.bpm)
        step: int | None = None
        if tempo != self.tempo:
            ids += [vocabulary.position_id(0), tempo]
            step = 0
        for note in bar.notes:
            if note.step != step:
                ids.append(vocabulary.position_id(note.step))
                step = note.step
            ids += [
                vocabulary.pitch_id(note.pitch),
                vocabulary.velocity_id(note.velocity),
                vocabulary.duration_id(note.len_steps),
            ]
        return ids


def encode(bars: Iterable[Bar], vocabulary: Vocabulary) -> list[int]:
    """The ids of `bars`, without BOS or EOS: equal to `remi.encode_with_miditok`."""
    encoder = BarEncoder(vocabulary)
    return [token for bar in bars for token in encoder.bar(bar)]


def bar_starts(ids: Sequence[int]) -> list[int]:
    """The indices at which bars begin in `ids`."""
    return [index for index, token in enumerate(ids) if token == BAR]
