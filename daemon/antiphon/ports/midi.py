"""The few MIDI messages that the ports process must know by sight: notes, the pedal, and what ends everything.

Bytes and lengths are those of the MIDI 1.0 Detailed Specification (4.2.1), tables I to VII.
"""

from __future__ import annotations

from typing import Final

NOTE_OFF: Final = 0x80
NOTE_ON: Final = 0x90
CONTROL: Final = 0xB0
SYSTEM: Final = 0xF0
SYSTEM_REALTIME: Final = 0xF8
SUSTAIN: Final = 64
ALL_SOUND_OFF: Final = 120
ALL_NOTES_OFF: Final = 123
CHANNELS: Final = 16

_RELEASE_VELOCITY: Final = 64
"""What the specification asks of senders that sense no release velocity."""

_LENGTHS: Final = {0x80: 3, 0x90: 3, 0xA0: 3, 0xB0: 3, 0xC0: 2, 0xD0: 2, 0xE0: 3}
_SYSTEM_LENGTHS: Final = {0xF1: 2, 0xF2: 3, 0xF3: 2, 0xF6: 1, 0xF8: 1, 0xFA: 1, 0xFB: 1, 0xFC: 1, 0xFE: 1, 0xFF: 1}


def is_whole(data: bytes) -> bool:
    """Whether this is one complete message: status byte first, as many data bytes as it takes, no SysEx."""
    if not data or data[0] < NOTE_OFF or any(byte >= NOTE_OFF for byte in data[1:]):
        return False
    length = _SYSTEM_LENGTHS.get(data[0]) if data[0] >= SYSTEM else _LENGTHS[data[0] & 0xF0]
    return len(data) == length


def is_note_on(data: bytes) -> bool:
    return len(data) == 3 and data[0] & 0xF0 == NOTE_ON and data[2] > 0


def is_note_off(data: bytes) -> bool:
    """A note-off, or a note-on of velocity 0, which means the same."""
    return len(data) == 3 and (data[0] & 0xF0 == NOTE_OFF or (data[0] & 0xF0 == NOTE_ON and data[2] == 0))


def is_sustain(data: bytes) -> bool:
    return len(data) == 3 and data[0] & 0xF0 == CONTROL and data[1] == SUSTAIN


def note_off(channel: int, pitch: int) -> bytes:
    return bytes((NOTE_OFF | channel, pitch, _RELEASE_VELOCITY))


def sustain_off(channel: int) -> bytes:
    return bytes((CONTROL | channel, SUSTAIN, 0))


def silence(channel: int) -> tuple[bytes, bytes, bytes]:
    """Pedal up, all notes off, all sound off: what ends everything on a channel of a synth that listens."""
    status = CONTROL | channel
    return (
        sustain_off(channel),
        bytes((status, ALL_NOTES_OFF, 0)),
        bytes((status, ALL_SOUND_OFF, 0)),
    )
