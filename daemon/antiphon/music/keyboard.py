"""A keyboard's keys and pedal: note-ons and offs to notes, the same for a file and for a live port."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from antiphon.music.note import Note

_NOTE_OFF, _NOTE_ON, _CONTROL = 0x80, 0x90, 0xB0
_SUSTAIN, _ALL_SOUND_OFF, _RESET, _ALL_NOTES_OFF = 64, 120, 121, 123


@dataclass(frozen=True, slots=True)
class Held:
    """A note that still sounds: by its key, or by the pedal alone (`key_down` false)."""

    start_tick: int
    pitch: int
    velocity: int
    key_down: bool = True


@dataclass(slots=True)
class Keyboard:
    """Follows the keys and the sustain pedal (CC64, down from 64 on) of every channel it is shown.

    A note ends when its key is up and its channel's pedal is up, when it is struck again, or at all-notes-off
    (CC123, which the pedal holds) or all-sound-off (CC120, which it does not). Reset-all-controllers (CC121) lifts
    the pedal (MIDI recommended practice RP-015).
    """

    # By channel and pitch. A note is in one of the two at most and leaves each once, so that a flood of controllers
    # costs no more than the notes before it.
    _down: defaultdict[int, dict[int, Held]] = field(default_factory=lambda: defaultdict(dict))
    _kept: defaultdict[int, dict[int, Held]] = field(default_factory=lambda: defaultdict(dict))  # by the pedal alone
    _pedals: set[int] = field(default_factory=set)

    def hear(self, data: bytes, *, at_tick: int) -> list[Note]:
        """Take one channel message, status byte first; gives the notes that it ends.

        Messages that are no note, pedal or all-off are passed over, and so are short and garbled ones.
        """
        if len(data) < 3 or data[1] > 127 or data[2] > 127:
            return []
        kind, channel, number, value = data[0] & 0xF0, data[0] & 0x0F, data[1], data[2]
        if kind == _NOTE_ON and value > 0:
            ended = self._end(channel, [number], at_tick)
            self._down[channel][number] = Held(at_tick, number, value)
            return ended
        if kind in (_NOTE_ON, _NOTE_OFF):
            return self._lift(channel, [number], at_tick)
        if kind == _CONTROL and number == _SUSTAIN and value >= 64:
            self._pedals.add(channel)
        elif kind == _CONTROL and number in (_SUSTAIN, _RESET):
            self._pedals.discard(channel)
            return self._end(channel, list(self._kept[channel]), at_tick)
        elif kind == _CONTROL and number == _ALL_NOTES_OFF:
            return self._lift(channel, list(self._down[channel]), at_tick)
        elif kind == _CONTROL and number == _ALL_SOUND_OFF:
            return self._end(channel, [*self._down[channel], *self._kept[channel]], at_tick)
        return []

    @property
    def sounding(self) -> tuple[Held, ...]:
        """The notes that sound now, in the order in which they were struck."""
        held = [note for notes in (*self._down.values(), *self._kept.values()) for note in notes.values()]
        return tuple(sorted(held, key=lambda note: (note.start_tick, note.pitch)))

    def forget_notes(self) -> None:
        """Nothing sounds any more; a pedal that is down stays down."""
        self._down.clear()
        self._kept.clear()

    def end_all(self, *, at_tick: int) -> list[Note]:
        """End everything that sounds, as at the end of a file or when a port vanished; pedals go up."""
        self._pedals.clear()
        channels = {*self._down, *self._kept}
        return [n for c in channels for n in self._end(c, [*self._down[c], *self._kept[c]], at_tick)]

    def _lift(self, channel: int, pitches: Iterable[int], at_tick: int) -> list[Note]:
        """Let go of keys: what the pedal does not keep ends."""
        down, kept = self._down[channel], self._kept[channel]
        lifted = [pitch for pitch in pitches if pitch in down]
        if channel not in self._pedals:
            return self._end(channel, lifted, at_tick)
        for pitch in lifted:
            kept[pitch] = replace(down.pop(pitch), key_down=False)
        return []

    def _end(self, channel: int, pitches: Iterable[int], at_tick: int) -> list[Note]:
        ended: list[Note] = []
        for pitch in pitches:
            held = self._down[channel].pop(pitch, None) or self._kept[channel].pop(pitch, None)
            if held is not None:
                length = max(1, at_tick - held.start_tick)
                ended.append(Note(held.start_tick, held.pitch, length, held.velocity))
        return ended
