"""The archive: all notes of a training corpus by bar, in which baselines look up music and copies are looked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.errors import FileError
from antiphon.music.bar import BarNote
from antiphon.music.meter import Meter
from antiphon.tokens.vocabulary import Vocabulary
from antiphon.training.corpus import Corpus
from antiphon.training.ids import IdRanges

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """Notes [notes] in the order of piece, bar, onset and pitch; what is said of a bar is [bars].

    bar: the bar of each note, counted through all pieces. step: its onset within that bar. first_note: the first note
    of each bar, and the end, [bars + 1]. piece: the piece of each bar. meter: an index into `meters`. bar_steps: its
    length. piece_first_bar: [pieces + 1].
    """

    names: tuple[str, ...]
    meters: tuple[Meter, ...]
    bar: Numbers
    step: Numbers
    pitch: Numbers
    len_steps: Numbers
    velocity: Numbers
    first_note: npt.NDArray[np.int64]
    piece: Numbers
    meter: Numbers
    bar_steps: Numbers
    piece_first_bar: npt.NDArray[np.int64]

    @classmethod
    def of(cls, corpus: Corpus, vocabulary: Vocabulary) -> Archive:
        """The notes that the ids of `corpus` spell. Raises FileError where they spell none, or nonsense."""
        ranges = IdRanges.of_vocabulary(vocabulary)
        ids = corpus.ids
        bar_at = np.flatnonzero(ids == ranges.bar)
        note_at = np.flatnonzero((ids >= ranges.pitch_first) & (ids <= ranges.pitch_last))
        if not len(note_at):
            raise FileError("there is no note in this corpus", where=corpus.where)
        padded = np.concatenate([ids, np.zeros(2, ids.dtype)])
        meter_ids, velocity_ids, duration_ids = padded[bar_at + 1], padded[note_at + 1], padded[note_at + 2]
        position_at = np.flatnonzero((ids >= ranges.position_first) & (ids <= ranges.position_last))
        place = np.searchsorted(position_at, note_at) - 1
        bar = np.searchsorted(bar_at, note_at) - 1
        spelled = (
            _all_within(meter_ids, ranges.meter_first, ranges.meter_last)
            and _all_within(velocity_ids, ranges.velocity_first, ranges.velocity_last)
            and _all_within(duration_ids, ranges.duration_first, ranges.duration_last)
            and bool(place.min() >= 0)
            and bool(bar.min() >= 0)
            and bool((position_at[place] > bar_at[bar]).all())
        )
        if not spelled:
            raise FileError("its ids spell no music", where=corpus.where, fix="pack the corpus again")
        velocities = np.array(
            [vocabulary.velocity_of(i) for i in range(ranges.velocity_first, ranges.velocity_last + 1)]
        )
        meter = meter_ids - ranges.meter_first
        return cls(
            names=corpus.names,
            meters=vocabulary.grid.meters,
            bar=bar.astype(np.int32),
            step=ids[position_at[place]] - np.int32(ranges.position_first),
            pitch=ids[note_at] - np.int32(ranges.pitch_first) + np.int32(vocabulary.grid.lowest),
            len_steps=duration_ids - np.int32(ranges.duration_first) + np.int32(1),
            velocity=velocities[velocity_ids - ranges.velocity_first].astype(np.int32),
            first_note=np.searchsorted(bar, np.arange(len(bar_at) + 1)),
            piece=(np.searchsorted(corpus.piece_starts, bar_at, "right") - 1).astype(np.int32),
            meter=meter.astype(np.int32),
            bar_steps=np.array(ranges.meter_len_steps, np.int32)[meter],
            piece_first_bar=np.searchsorted(bar_at, corpus.piece_starts),
        )

    def passages(self, *, bars: int, meter: Meter) -> npt.NDArray[np.int64]:
        """The first bar of every run of `bars` bars of `meter` in one piece, ascending."""
        starts = np.arange(max(0, len(self.piece) - bars + 1))
        fits = self.piece[starts] == self.piece[starts + bars - 1]
        is_meter = np.array([each == meter.in_quarters for each in self.meters], np.bool_)[self.meter]
        so_far = np.concatenate([[0], is_meter.cumsum()])
        found: npt.NDArray[np.int64] = starts[fits & (so_far[starts + bars] - so_far[starts] == bars)]
        return found

    def notes_in(self, first_bar: npt.NDArray[np.int64], *, bars: int) -> npt.NDArray[np.int64]:
        """How many notes each run of `bars` bars has."""
        counts: npt.NDArray[np.int64] = self.first_note[first_bar + bars] - self.first_note[first_bar]
        return counts

    def notes(self, first_bar: int, *, bars: int) -> list[BarNote]:
        """The notes of `bars` bars of equal length, their steps counted from the first bar line."""
        inside = slice(int(self.first_note[first_bar]), int(self.first_note[first_bar + bars]))
        steps = self.step[inside] + (self.bar[inside] - first_bar) * int(self.bar_steps[first_bar])
        columns = (steps, self.pitch[inside], self.len_steps[inside], self.velocity[inside])
        return [BarNote(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _all_within(ids: Numbers, first: int, last: int) -> bool:
    return bool(((ids >= first) & (ids <= last)).all())
