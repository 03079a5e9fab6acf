"""The trunk: the conversation so far, written as ids as soon as they can no longer change.

REMI writes a note's duration at its onset. So the trunk settles up to the earliest note that still sounds (one that
outlasts `MAX_LEN_STEPS` is cut there, as the normaliser cuts it), and no further than the last step that is past. A
fork adds the rest, sounding notes cut at the bar line where the answer begins.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from antiphon.music.bar import Bar, BarNote
from antiphon.music.keyboard import Held
from antiphon.music.meter import BarLine
from antiphon.music.normalise import MAX_LEN_STEPS, snapped, untangled
from antiphon.music.note import Note
from antiphon.music.time import TICKS_PER_STEP, snap_to_step
from antiphon.tokens.encoder import BarEncoder
from antiphon.tokens.vocabulary import BOS, Vocabulary

# One step more than a note can be written, so that its snapped length is at least that however its onset snapped.
_LONGEST_TICKS = (MAX_LEN_STEPS + 1) * TICKS_PER_STEP

MOST_HEARD = 64
"""How many of the player's bars an answer looks back on, so that a long session costs no more than a short one."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A bar of the conversation: its line, its tempo, and whether it is the player's or an answer's."""

    line: BarLine
    bpm: float
    played: bool

    def bar(self, notes: Iterable[BarNote], *, until_step: int) -> Bar:
        """The bar with those of `notes` (steps on the pulse) that begin in it before `until_step`."""
        start, end = self.line.tick // TICKS_PER_STEP, min(until_step, self.line.end_tick // TICKS_PER_STEP)
        inside = tuple(replace(note, step=note.step - start) for note in notes if start <= note.step < end)
        return Bar(self.line.meter, inside, self.bpm)


@dataclass(slots=True)
class Trunk:
    """The bars of the conversation in order, and how far their ids are settled.

    A bar is opened by its line on the pulse, as the player's or an answer's; bars that were silent between a call and
    the next are never opened, so the music stays one piece. Notes outside the opened bars are no part of it.
    """

    vocabulary: Vocabulary
    encoder: BarEncoder = field(init=False)
    count: int = 0  # ids settled so far, BOS included
    _ids: list[int] = field(default_factory=list)  # settled and not yet taken
    _lines: deque[_Opened] = field(default_factory=deque)  # not wholly settled
    _played: deque[Bar] = field(default_factory=lambda: deque(maxlen=MOST_HEARD))  # the player's, wholly settled
    _written: int = 0  # how many ids of the first of those bars are settled
    _settled_step: int = -(2**62)  # every onset before this one is settled
    _notes: list[Note] = field(default_factory=list)  # ended notes that may still matter

    def __post_init__(self) -> None:
        self.encoder = BarEncoder(self.vocabulary)
        self._settle_ids([BOS])

    def open_bar(self, line: BarLine, *, bpm: float, played: bool = True) -> None:
        """The conversation goes on with the bar at `line`; `played` tells the player's bars from an answer's."""
        self._lines.append(_Opened(line, bpm, played))

    def add(self, notes: Iterable[Note]) -> None:
        """Take notes that have ended, their ticks on the pulse. Late ones move to the first step still open."""
        first_tick = self._settled_step * TICKS_PER_STEP
        for note in notes:
            if snap_to_step(note.start_tick) >= self._settled_step:
                self._notes.append(note)
            elif note.len_ticks < _LONGEST_TICKS:  # a longer one was settled, cut, while it still sounded
                late = first_tick - note.start_tick
                self._notes.append(replace(note, start_tick=first_tick, len_ticks=max(1, note.len_ticks - late)))

    def settle(self, *, now_tick: int, sounding: Iterable[Held]) -> None:
        """Settle what can no longer change at `now_tick` while the notes of `sounding` still sound."""
        held, ended = self._split(sounding, now_tick=now_tick)
        if not self._lines:
            return
        # A chord's last note may still be on its way to the present step, and bars not opened yet are still open.
        opened = self._lines[-1].line.end_tick
        limit = min([min(now_tick, opened) // TICKS_PER_STEP, *(snap_to_step(note.start_tick) for note in held)])
        if limit <= self._settled_step:
            return
        notes = untangled(map(snapped, [*self._notes, *ended]))
        self._settled_step = limit
        while self._lines:
            opening = self._lines[0]
            start, end = opening.line.tick // TICKS_PER_STEP, opening.line.end_tick // TICKS_PER_STEP
            if start >= limit:
                break
            bar = opening.bar(notes, until_step=min(limit, end))
            if limit < end:
                ids = self.encoder.preview(bar)
                self._settle_ids(ids[self._written :])
                self._written = len(ids)
                break
            self._settle_ids(self.encoder.bar(bar)[self._written :])
            self._written = 0
            if opening.played:
                self._played.append(bar)
            self._lines.popleft()
        # A note that was settled while it sounds stays what was settled, and an ended note matters as long as a later
        # one of its pitch could cut it.
        self._notes += [n for n in ended if n not in self._notes]
        self._notes = [n for n in self._notes if snap_to_step(n.start_tick) >= limit - MAX_LEN_STEPS]

    def take(self) -> list[int]:
        """The ids settled since the last take, to be fed to the trunk's timeline."""
        ids, self._ids = self._ids, []
        return ids

    def rest(self, *, at_tick: int, sounding: Iterable[Held]) -> list[int]:
        """The ids that a fork at the bar line `at_tick` feeds beyond the settled ones: all that was heard before it.

        Notes that sound over `at_tick` are cut there.
        """
        encoder = BarEncoder(self.vocabulary, self.encoder.tempo)
        ids = [token for _, bar in self._unsettled(at_tick, sounding) for token in encoder.bar(bar)]
        return ids[self._written :]

    def heard(self, *, at_tick: int, sounding: Iterable[Held]) -> tuple[Bar, ...]:
        """The player's last bars, `MOST_HEARD` at most, as a fork at the bar line `at_tick` knows them."""
        open_bars = [bar for opened, bar in self._unsettled(at_tick, sounding) if opened.played]
        return (*self._played, *open_bars)[-MOST_HEARD:]

    def _unsettled(self, at_tick: int, sounding: Iterable[Held]) -> list[tuple[_Opened, Bar]]:
        """The bars before `at_tick` that are not wholly settled, with all that was heard in them before it."""
        at_step = at_tick // TICKS_PER_STEP
        notes = [
            *self._notes,
            *(Note(h.start_tick, h.pitch, max(1, at_tick - h.start_tick), h.velocity) for h in sounding),
        ]
        before = [n for n in untangled(map(snapped, notes)) if n.step < at_step]
        cut = [replace(note, len_steps=min(note.len_steps, at_step - note.step)) for note in before]
        opened = itertools.takewhile(lambda opened: opened.line.tick < at_tick, self._lines)
        return [(each, each.bar(cut, until_step=at_step)) for each in opened]

    def _settle_ids(self, ids: list[int]) -> None:
        self._ids += ids
        self.count += len(ids)

    @staticmethod
    def _split(sounding: Iterable[Held], *, now_tick: int) -> tuple[list[Held], list[Note]]:
        """The notes that keep the trunk waiting, and those that have sounded as long as a note can be written."""
        held: list[Held] = []
        ended: list[Note] = []
        for note in sounding:
            if now_tick - note.start_tick < _LONGEST_TICKS:
                held.append(note)
            else:
                ended.append(Note(note.start_tick, note.pitch, _LONGEST_TICKS, note.velocity))
        return held, ended
