"""A keyboard's keys and pedal: note-ons and offs to notes, the same for a file and for a live port."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    _held: dict[tuple[int, int], Held] = field(default_factory=dict)
    _pedals: set[int] = field(default_factory=set)

    def hear(self, data: bytes, *, at_tick: int) -> list[Note]:
        """Take one channel message, status byte first; gives the notes that it ends.

        Messages that are no note, pedal or all-off are passed over, and so are short and garbled ones.
        """
        if len(data) < 3 or data[1] > 127 or data[2] > 127:
            return []
        kind, channel, number, value = data[0] & 0xF0, data[0] & 0x0F, data[1], data[2]
        if kind == _NOTE_ON and value > 0:
            ended = self._end((channel, number), at_tick)
            self._held[channel, number] = Held(at_tick, number, value)
            return ended
        if kind in (_NOTE_ON, _NOTE_OFF):
            return self._lift((channel, number), at_tick)
        if kind == _CONTROL and number == _SUSTAIN:
            return self._pedal(channel, value >= 64, at_tick)
        if kind == _CONTROL and number == _RESET:
            return self._pedal(channel, False, at_tick)
        if kind == _CONTROL and number == _ALL_NOTES_OFF:
            return [n for place in self._places(channel) for n in self._lift(place, at_tick)]
        if kind == _CONTROL and number == _ALL_SOUND_OFF:
            return [n for place in self._places(channel) for n in self._end(place, at_tick)]
        return []

    @property
    def sounding(self) -> tuple[Held, ...]:
        """The notes that sound now, in the order in which they were struck."""
        return tuple(sorted(self._held.values(), key=lambda held: (held.start_tick, held.pitch)))

    def end_all(self, *, at_tick: int) -> list[Note]:
        """End everything that sounds, as at the end of a file or when a port vanished; pedals go up."""
        self._pedals.clear()
        return [note for place in list(self._held) for note in self._end(place, at_tick)]

    def _places(self, channel: int) -> list[tuple[int, int]]:
        return [(channel, pitch) for pitch in range(128) if (channel, pitch) in self._held]

    def _lift(self, place: tuple[int, int], at_tick: int) -> list[Note]:
        held = self._held.get(place)
        if held is None:
            return []
        if place[0] in self._pedals:
            self._held[place] = Held(held.start_tick, held.pitch, held.velocity, key_down=False)
            return []
        return self._end(place, at_tick)

    def _pedal(self, channel: int, down: bool, at_tick: int) -> list[Note]:
        if down:
            self._pedals.add(channel)
            return []
        if channel not in self._pedals:
            return []
        self._pedals.discard(channel)
        return [
            note
            for place in self._places(channel)
            if not self._held[place].key_down
            for note in self._end(place, at_tick)
        ]

    def _end(self, place: tuple[int, int], at_tick: int) -> list[Note]:
        held = self._held.pop(place, None)
        if held is None:
            return []
        return [Note(held.start_tick, held.pitch, max(1, at_tick - held.start_tick), held.velocity)]
