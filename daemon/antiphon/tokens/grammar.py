"""The grammar of an answer: which tokens may come next, as a mask over the vocabulary.

A bar is written  Bar TimeSig (Position (Pitch Velocity Duration)+)*  with rising positions, and rising pitches at one
position. An answer keeps to the meter it was asked in, to a number of bars, and to the musician's bounds: every note
ends inside it, no pitch is struck while it sounds, and at least one note comes on the first bar line. Its last token
is the Bar that would open the bar after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import AntiphonError
from antiphon.music.bar import BarNote
from antiphon.music.meter import Meter
from antiphon.music.normalise import HIGHEST, LOWEST
from antiphon.tokens.vocabulary import BAR, Vocabulary

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a musician allows. lowest, highest: pitches, inclusive. max_notes_at_once: polyphony, 1 or more.

    on_downbeat: the answer's first onset falls on its first bar line.
    """

    lowest: int = LOWEST
    highest: int = HIGHEST
    max_notes_at_once: int = 10
    on_downbeat: bool = True

    def __post_init__(self) -> None:
        if not LOWEST <= self.lowest <= self.highest <= HIGHEST:
            raise AntiphonError(f"pitches {self.lowest} to {self.highest} are no range within {LOWEST} to {HIGHEST}")
        if self.max_notes_at_once < 1:
            raise AntiphonError("an answer needs at least one note at once")


class AnswerGrammar:
    """Follows an answer token by token. `mask()` says what may come next, `feed` takes what came.

    bars: how many bars the answer has. bar: the one being written, from 0; -1 before the first Bar.
    step: the position being written within the bar, -1 before the bar's first.
    """

    def __init__(self, *, vocabulary: Vocabulary, meter: Meter, bars: int, bounds: Bounds) -> None:
        if bars < 1:
            raise AntiphonError("an answer has at least one bar")
        self.vocabulary = vocabulary
        self.bars = bars
        self.bounds = bounds
        self.bar = -1
        self.step = -1
        self.done = False
        self._meter_id = vocabulary.meter_id(meter)
        self._bar_steps = meter.in_quarters.len_steps
        self._last = -1  # the last token fed
        self._pitch = -1  # the last pitch written at this position
        self._not_before = 0  # onsets earlier than this step of the answer are no longer to be had
        self._mask: Mask = np.zeros(vocabulary.size, dtype=np.bool_)
        self._ends = np.zeros(bounds.highest - bounds.lowest + 1, dtype=np.int64)  # by pitch: where it is free again

    @property
    def total_steps(self) -> int:
        """The answer's length in steps."""
        return self.bars * self._bar_steps

    @property
    def here(self) -> int:
        """The position being written, in steps from the answer's first bar line."""
        return max(0, self.bar) * self._bar_steps + max(0, self.step)

    def hold_back(self, *, until_step: int) -> None:
        """From now on write no onset before `until_step`, counted from the answer's first bar line."""
        self._not_before = until_step

    def occupy(self, note: BarNote) -> None:
        """Take a note into account that sounds but was not written: its pitch is not free until it ends."""
        if self.bounds.lowest <= note.pitch <= self.bounds.highest:
            index = note.pitch - self.bounds.lowest
            self._ends[index] = max(self._ends[index], note.step + note.len_steps)

    def mask(self) -> Mask:
        """What may come next, [vocabulary size], True where legal. The array is reused by the next call."""
        vocabulary, mask = self.vocabulary, self._mask
        mask[:] = False
        last = self._last
        if self.done:
            return mask
        if self.bar < 0:
            mask[BAR] = True
        elif last == BAR:
            mask[self._meter_id] = True
        elif last in vocabulary.pitches:
            mask[vocabulary.velocities.first : vocabulary.velocities.end] = True
        elif last in vocabulary.velocities:
            room = min(self.total_steps - self.here, vocabulary.longest_steps)
            mask[vocabulary.durations.first : vocabulary.durations.first + room] = True
        else:
            chord_open = last in vocabulary.positions or last in vocabulary.durations
            if chord_open and self.here >= self._not_before:
                self._allow_pitches(mask)
            if last not in vocabulary.positions:
                self._allow_positions(mask)
                mask[BAR] = not (self._first_onset_missing and mask.any())
        return mask

    @property
    def _first_onset_missing(self) -> bool:
        return self.bounds.on_downbeat and self.bar == 0 and self.step < 0 and self._not_before == 0

    def _free(self, step: int) -> NDArray[np.bool_]:
        """By pitch from the lowest: which may be struck at `step` of the answer."""
        free = self._ends <= step
        if len(free) - int(free.sum()) >= self.bounds.max_notes_at_once:
            free[:] = False
        return free

    def _allow_pitches(self, mask: Mask) -> None:
        free = self._free(self.here)
        free[: max(0, self._pitch + 1 - self.bounds.lowest)] = False
        first = self.vocabulary.pitch_id(self.bounds.lowest)
        mask[first : first + len(free)] = free

    def _allow_positions(self, mask: Mask) -> None:
        start = self.bar * self._bar_steps
        first, end = max(self.step + 1, self._not_before - start), self._bar_steps
        if self._first_onset_missing:
            end = first + 1
        if first >= end:
            return
        steps = np.arange(start + first, start + end)
        sounding = (self._ends[None, :] > steps[:, None]).sum(axis=1)
        room = (sounding < self.bounds.max_notes_at_once) & (sounding < len(self._ends))
        positions = self.vocabulary.positions.first
        mask[positions + first : positions + end] = room

    def feed(self, token: int) -> None:
        """Take the token that came. It is not checked against the mask: what was played is taken as it is."""
        vocabulary = self.vocabulary
        if token == BAR:
            self.bar += 1
            self.step, self._pitch = -1, -1
            self.done = self.bar >= self.bars
        elif token in vocabulary.positions:
            self.step, self._pitch = vocabulary.position_of(token), -1
        elif token in vocabulary.pitches:
            self._pitch = vocabulary.pitch_of(token)
        elif token in vocabulary.durations:
            self.occupy(BarNote(self.here, self._pitch, vocabulary.duration_of(token), 1))
        self._last = token


def first_illegal(ids: Iterable[int], *, grammar: AnswerGrammar) -> int | None:
    """The index of the first id that `grammar` forbids, or None where all are legal and the answer is complete.

    Where all are legal and more are wanted it is the index of the first missing one.
    """
    count = 0
    for token in ids:
        if not (0 <= token < grammar.vocabulary.size and grammar.mask()[token]):
            return count
        grammar.feed(token)
        count += 1
    return None if grammar.done else count
