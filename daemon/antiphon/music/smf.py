"""The bytes of a Standard MIDI File: its chunks and its events.

A file is untrusted: whatever it claims, reading it takes time and memory in proportion to its size, and ends either
in events or in `Damage`. (mido, by contrast, reads numbers of any length, in time that grows with their square.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

META, TEMPO, TIME_SIGNATURE, END_OF_TRACK = 0xFF, 0x51, 0x58, 0x2F
_SYSEX, _SYSEX_GOES_ON = 0xF0, 0xF7
_HEADER_BYTES = 6


class Damage(Exception):
    """The bytes are no Standard MIDI File; says why."""


@dataclass(frozen=True, slots=True)
class Smf:
    """A file's header and its tracks' bytes.

    kind: 0 one track, 1 tracks that sound together, 2 tracks that are separate pieces.
    division: ticks a quarter, or video frames where bit 15 is set.
    """

    kind: int
    division: int
    tracks: tuple[bytes, ...]


def parse(data: bytes) -> Smf:
    """The chunks of `data`; those of a kind that the standard does not know are passed over. Raises Damage."""
    name, header, place = _chunk(data, 0)
    if name != b"MThd":
        raise Damage("it does not begin with MThd")
    if len(header) < _HEADER_BYTES:
        raise Damage("its header is too short")
    kind, count, division = (int.from_bytes(header[i : i + 2], "big") for i in (0, 2, 4))
    if kind > 2:
        raise Damage(f"it is of an unknown type, {kind}")
    tracks: list[bytes] = []
    while len(tracks) < count:
        name, chunk, place = _chunk(data, place)
        if name == b"MTrk":
            tracks.append(chunk)
    return Smf(kind, division, tuple(tracks))


def events(track: bytes) -> Iterator[tuple[int, bytes]]:
    """The events of a track as (ticks from its start, message), status byte first; system exclusives are left out.

    A meta event is 0xFF, its type, its content. Data bytes above 127 become 127. Raises Damage.
    """
    place, tick, running = 0, 0, 0
    try:
        while place < len(track):
            wait, place = _number(track, place)
            tick += wait
            status = track[place]
            if status == META:
                size, begin = _number(track, place + 2)
                yield tick, bytes((META, track[place + 1])) + _content(track, begin, size)
                if track[place + 1] == END_OF_TRACK:
                    return
                place = begin + size
            elif status in (_SYSEX, _SYSEX_GOES_ON):
                size, begin = _number(track, place + 1)
                place = begin + len(_content(track, begin, size))
            elif status > _SYSEX:
                raise Damage(f"it holds a message that no file may hold, 0x{status:02X}")
            else:
                # Running status outlives meta events here: many files rely on it, though the standard says otherwise.
                if status >= 0x80:
                    running = status
                    place += 1
                elif not running:
                    raise Damage("a message has no status")
                size = 1 if 0xC0 <= running < 0xE0 else 2
                content = _content(track, place, size)
                if not content.isascii():
                    content = bytes(min(byte, 127) for byte in content)
                yield tick, bytes((running,)) + content
                place += size
    except IndexError:
        raise Damage("a track ends within an event") from None


def _chunk(data: bytes, place: int) -> tuple[bytes, bytes, int]:
    """The chunk at `place`: its name, its content, and where the next one begins."""
    begin = place + 8
    if begin > len(data):
        raise Damage("it ends where a track should begin")
    end = begin + int.from_bytes(data[place + 4 : begin], "big")
    if end > len(data):
        raise Damage("it ends within a track")
    return data[place : place + 4], data[begin:end], end


def _number(track: bytes, place: int) -> tuple[int, int]:
    """The variable-length number at `place`, and where it ends; the standard allows it four bytes."""
    value = 0
    for end in range(place + 1, place + 5):
        byte = track[end - 1]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, end
    raise Damage("a number in it is too long")


def _content(track: bytes, place: int, size: int) -> bytes:
    if place + size > len(track):
        raise Damage("a track ends within an event")
    return track[place : place + size]
