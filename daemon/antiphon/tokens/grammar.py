"""The grammar of an answer: which tokens may come next, as a mask over the vocabulary.

A bar is written  Bar TimeSig (Position (Pitch Velocity Duration)+)*  with rising positions, and rising pitches at one
position. An answer keeps to the meter it was asked in, to a number of bars, and to the musician's bounds: every note
ends inside it, no pitch is struck while it sounds, and at least one note comes on the first bar line. Its last token
is the Bar that would open the bar after it.

Where it is asked to, an answer closes: its last onset falls on a strong beat of its last bar, and no note before it
takes the place that this onset needs. And it copies no bar that was heard, nor its own bar a second time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import AntiphonError
from antiphon.music.bar import BarNote
from antiphon.music.meter import Meter
from antiphon.music.normalise import HIGHEST, LOWEST
from antiphon.music.time import TICKS_PER_STEP
from antiphon.tokens.copies import Onset, Place
from antiphon.tokens.vocabulary import BAR, Vocabulary

Mask = NDArray[np.bool_]

_MOTIF_NOTES = 3
"""A copy of so many notes is averted at its last note, by another pitch; a shorter one by going on."""


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


def strong_steps(meter: Meter, *, bars: int) -> tuple[int, ...]:
    """The steps of the last of `bars` bars on which an answer may end: its downbeat, and the strongest beat after it.

    That is the middle of a bar of four or more beats, or of two dotted or half ones, and the beginning of the shorter
    group in five or seven (3+2, 4+3); a bar of three, or of two quarters or shorter, has none. A single bar may end on
    any beat: it is too short to thin out.
    """
    beat = meter.beat_ticks // TICKS_PER_STEP
    beats = max(1, meter.len_ticks // meter.beat_ticks)
    if bars == 1:
        return tuple(beat * index for index in range(beats))
    two_short = meter.beats == 2 and meter.unit >= 4
    return (0,) if beats in (1, 3) or two_short else (0, (beats + 1) // 2 * beat)


class AnswerGrammar:
    """Follows an answer token by token. `mask()` says what may come next, `feed` takes what came.

    bars: how many bars the answer has. bar: the one being written, from 0; -1 before the first Bar.
    step: the position being written within the bar, -1 before the bar's first.
    onsets, notes: how many were written, all bars together. chord: how many notes are written at this position.
    last_onset: where the last one is, in steps of the answer; last_pitch: of the last note; both -1 before the first.
    closes: the last onset is on one of `strong_steps`. copies: the bars that must not come again, see `tree_of`.
    """

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        meter: Meter,
        bars: int,
        bounds: Bounds,
        closes: bool = False,
        copies: Place | None = None,
    ) -> None:
        if bars < 1:
            raise AntiphonError("an answer has at least one bar")
        self.vocabulary = vocabulary
        self.bars = bars
        self.bounds = bounds
        self.bar = -1
        self.step = -1
        self.done = False
        self.onsets = 0
        self.notes = 0
        self.chord = 0
        self.last_onset = -1
        self.last_pitch = -1
        self._meter_id = vocabulary.meter_id(meter)
        self._bar_steps = meter.in_quarters.len_steps
        self._last = -1  # the last token fed
        self._pitch = -1  # the last pitch written at this position
        self._not_before = 0  # onsets earlier than this step of the answer are no longer to be had
        self._mask: Mask = np.zeros(vocabulary.size, dtype=np.bool_)
        self._ends = np.zeros(bounds.highest - bounds.lowest + 1, dtype=np.int64)  # by pitch: where it is free again
        self._strong = strong_steps(meter, bars=bars) if closes else ()
        self._copies = copies
        self._place = copies  # where the bar so far is in `copies`; None where it is no heard bar's beginning
        self._written: tuple[Onset, ...] = ()  # the onsets of the bar being written
        self._before: tuple[Onset, ...] = ()  # and of the one before it
        self._twice = False  # whether that one equalled the one before it

    @property
    def total_steps(self) -> int:
        """The answer's length in steps."""
        return self.bars * self._bar_steps

    @property
    def here(self) -> int:
        """The position being written, in steps from the answer's first bar line."""
        return max(0, self.bar) * self._bar_steps + max(0, self.step)

    @property
    def bar_steps(self) -> int:
        """A bar's length in steps."""
        return self._bar_steps

    @property
    def last_token(self) -> int:
        """The last token fed; -1 before the first."""
        return self._last

    @property
    def closing_step(self) -> int | None:
        """The last step of the answer that an onset may fall on, a strong beat; None where it need not close."""
        if not self._strong:
            return None
        step = self.total_steps - self._bar_steps + self._strong[-1]
        return step if step >= self._not_before else None

    @property
    def sounding(self) -> int:
        """How many notes sound at the position being written, those written there included."""
        return int(np.count_nonzero(self._ends > self.here))

    def clone(self) -> AnswerGrammar:
        """A grammar that goes on from here by itself: a few small copies, so that tokens can be tried and dropped."""
        twin = copy.copy(self)
        twin._mask = np.zeros_like(self._mask)
        twin._ends = self._ends.copy()
        return twin

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
            room = min(self._ends_by() - self.here, vocabulary.longest_steps)
            mask[vocabulary.durations.first : vocabulary.durations.first + room] = True
        else:
            chord_open = last in vocabulary.positions or last in vocabulary.durations
            if chord_open and self.here >= self._not_before:
                self._allow_pitches(mask)
            if last not in vocabulary.positions:
                self._allow_positions(mask)
                mask[BAR] = self._may_end_bar or not mask.any()
        return mask

    @property
    def _may_end_bar(self) -> bool:
        if self._first_onset_missing or self._is_copy(self._place, self._written):
            return False
        return self._last_bar_closing is None or self.step in self._strong

    @property
    def _last_bar_closing(self) -> int | None:
        """`closing_step` while the last bar is written."""
        return self.closing_step if self.bar == self.bars - 1 else None

    def _is_copy(self, place: Place | None, written: tuple[Onset, ...]) -> bool:
        """Whether a bar with the onsets `written`, at `place`, would be a copy if it ended there."""
        return (place is not None and place.ends) or (self._twice and written == self._before)

    def _room_to_close(self, *, taken: int) -> bool:
        """Whether an onset could still fall on the closing step if `taken` more notes sounded there."""
        closing = self.closing_step
        if closing is None:
            return True
        sounding = int(np.count_nonzero(self._ends > closing)) + taken
        return sounding < min(self.bounds.max_notes_at_once, len(self._ends))

    def _ends_by(self) -> int:
        """Where a note of the present position must have ended, in steps of the answer."""
        closing = self.closing_step
        if closing is None or self.here >= closing or self._room_to_close(taken=1):
            return self.total_steps
        return closing

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
        self._avert_copies(free)
        first = self.vocabulary.pitch_id(self.bounds.lowest)
        mask[first : first + len(free)] = free

    def _avert_copies(self, free: NDArray[np.bool_]) -> None:
        """Take away from `free` the pitches that would make the bar a copy, where a position is left with another."""
        pitches = [
            pitch
            for (step, pitch), place in (self._place.onward.items() if self._place is not None else ())
            if step == self.step and place.ends and (place.depth >= _MOTIF_NOTES or self.bar == self.bars - 1)
        ]
        count = len(self._written)
        if self._twice and count == len(self._before) - 1 and self._before[:count] == self._written:
            step, pitch = self._before[count]
            if step == self.step:
                pitches.append(pitch)
        averted = [pitch - self.bounds.lowest for pitch in pitches]
        averted = [index for index in averted if 0 <= index < len(free) and free[index]]
        if averted and (self.chord or int(np.count_nonzero(free)) > len(averted)):
            free[averted] = False

    def _allow_positions(self, mask: Mask) -> None:
        start = self.bar * self._bar_steps
        first, end = max(self.step + 1, self._not_before - start), self._bar_steps
        if self._first_onset_missing:
            end = first + 1
        closing = self._last_bar_closing
        if closing is not None:
            end = min(end, closing - start + 1)
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
            self.step, self._pitch, self.chord = -1, -1, 0
            self.done = self.bar >= self.bars
            self._twice = bool(self._written) and self._written == self._before
            self._before, self._written, self._place = self._written, (), self._copies
        elif token in vocabulary.positions:
            self.step, self._pitch, self.chord = vocabulary.position_of(token), -1, 0
        elif token in vocabulary.pitches:
            self._pitch = self.last_pitch = vocabulary.pitch_of(token)
            self.onsets += not self.chord
            self.last_onset = self.here
            self.notes += 1
            self.chord += 1
            onset = (self.step, self._pitch)
            self._written += (onset,)
            self._place = self._place.onward.get(onset) if self._place is not None else None
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
