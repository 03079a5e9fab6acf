"""Standard MIDI Files: reading what anyone may send, writing what any DAW opens.

A file is untrusted, so its size and its claims about length are limited. Writing is mido's.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import mido

from antiphon.errors import AntiphonError, FileError
from antiphon.music import smf
from antiphon.music.keyboard import Keyboard
from antiphon.music.meter import Meter, MeterMap
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from antiphon.music.time import TICKS_PER_QUARTER, rescale

MAX_FILE_BYTES = 8 << 20
"""Twenty hours of dense playing with a continuous pedal. The densest file that fits takes some 600 MB of memory."""

MAX_TICKS = (1 << 28) - 1
"""The longest wait that a file can write, 38 hours at 120 BPM; a piece that lasts longer is refused."""

DRUM_CHANNEL = 9
"""General MIDI's percussion channel, from 0; its numbers are instruments, not pitches."""

_SLOWEST_BPM, _FASTEST_BPM = 5.0, 999.0


def read_piece(path: str | os.PathLike[str]) -> Piece:
    """The notes of a MIDI file, all tracks merged, with its meters and tempos; drums are left out.

    Raises FileError, with the file's name and what to do, for a file that is missing, too large, not MIDI,
    truncated, too long, or without any note that has a pitch.
    """
    where = os.fspath(path)
    try:
        return _read(_parsed(where), where)
    except smf.Damage as error:
        raise FileError(f"it is damaged or cut short: {error}", where=where, fix="export it again") from error


def _parsed(where: str) -> smf.Smf:
    try:
        with open(where, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise FileError(why, where=where, fix="check the path and its permissions") from error
    if len(data) > MAX_FILE_BYTES:
        raise FileError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB", where=where, fix="split it into pieces")
    if not data:
        raise FileError("the file is empty", where=where, fix="export it again")
    if data[:4] != b"MThd":
        raise FileError("it is not a Standard MIDI File", where=where, fix="export it as .mid (type 0 or 1)")
    parsed = smf.parse(data)
    if parsed.division & 0x8000:
        raise FileError("its times are in video frames, not in beats", where=where, fix="export it with a tempo")
    if not parsed.division:
        raise FileError("it has no ticks in a quarter", where=where, fix="export it again")
    if parsed.kind == 2 and len(parsed.tracks) > 1:
        raise FileError("its tracks are separate pieces (type 2)", where=where, fix="export them one by one")
    return parsed


def _read(parsed: smf.Smf, where: str) -> Piece:
    notes: list[Note] = []
    meters: list[tuple[int, Meter]] = []
    tempos: list[tuple[int, float]] = []
    drums = 0
    end_tick = 0
    for track in parsed.tracks:
        keyboard = Keyboard()
        tick = 0
        for raw_tick, message in smf.events(track):
            tick = rescale(raw_tick, from_per_quarter=parsed.division)
            if tick > MAX_TICKS:
                raise FileError("it claims to last for days", where=where, fix="split it into pieces")
            kind, content = message[0], message[2:]
            if kind == smf.META:
                if message[1] == smf.TEMPO and any(content):
                    tempos.append((tick, _bpm(content)))
                elif message[1] == smf.TIME_SIGNATURE:
                    meters.append((tick, _meter(content, where)))
            elif kind & 0x0F == DRUM_CHANNEL:
                drums += kind & 0xF0 == 0x90 and content[0] > 0
            else:
                notes += keyboard.hear(message, at_tick=tick)
        notes += keyboard.end_all(at_tick=tick)
        end_tick = max(end_tick, tick)
    if not notes:
        told = "it has only drums" if drums else "it has no notes"
        raise FileError(f"{told}, nothing with a pitch to answer", where=where, fix="give it a melody or chords")
    notes.sort(key=attrgetter("start_tick", "pitch", "len_ticks", "velocity"))
    return Piece(tuple(notes), MeterMap.of(meters), TempoMap.of(tempos), end_tick)


def _bpm(content: bytes) -> float:
    """Quarters a minute, from microseconds a quarter (more than 0)."""
    return min(_FASTEST_BPM, max(_SLOWEST_BPM, 60e6 / int.from_bytes(content[:3], "big")))


def _meter(content: bytes, where: str) -> Meter:
    if len(content) < 2:
        raise smf.Damage("a time signature is too short")
    try:
        return Meter(content[0], 1 << content[1])
    except AntiphonError as error:
        raise FileError(error.message, where=where, fix=error.fix) from error


@dataclass(frozen=True, slots=True)
class Part:
    """A track to write: a name, a MIDI channel (0..15), a General MIDI program (0..127), and its notes."""

    name: str
    notes: Sequence[Note]
    channel: int = 0
    program: int = 0


def write_parts(
    path: str | os.PathLike[str],
    *,
    parts: Iterable[Part],
    meters: MeterMap,
    tempos: TempoMap,
    end_tick: int,
    markers: Iterable[tuple[int, str]] = (),
) -> None:
    """Write a type 1 file, whole or not at all. `markers` are (tick, text).

    Every track ends at `end_tick`, so that a DAW shows the last bar whole; meters and tempos from there on are left
    out. Raises FileError if it cannot be written.
    """
    if end_tick > MAX_TICKS:
        raise FileError("the music is too long for one file", where=os.fspath(path), fix="split it into pieces")
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER, charset="utf-8")
    conductor: list[tuple[int, mido.MetaMessage]] = []
    for line in meters.changes:
        numerator, denominator = line.meter.beats, line.meter.unit
        conductor.append((line.tick, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)))
    conductor += [(tick, mido.MetaMessage("set_tempo", tempo=round(60e6 / bpm))) for tick, bpm in tempos.changes]
    conductor = [(tick, message) for tick, message in conductor if tick < end_tick or not tick]
    conductor += [(tick, mido.MetaMessage("marker", text=text)) for tick, text in markers]
    file.tracks.append(_track("Antiphon", conductor, end_tick))
    for part in parts:
        events = [(0, mido.Message("program_change", channel=part.channel, program=part.program))]
        # At one tick an off comes before an on, so that a note struck again is not cut.
        changes = [(n.end_tick, 0, n.pitch, 0) for n in part.notes]
        changes += [(n.start_tick, 1, n.pitch, n.velocity) for n in part.notes]
        for tick, is_on, pitch, velocity in sorted(changes):
            kind = "note_on" if is_on else "note_off"
            events.append((tick, mido.Message(kind, channel=part.channel, note=pitch, velocity=velocity)))
        file.tracks.append(_track(part.name, events, end_tick))
    buffer = io.BytesIO()
    file.save(file=buffer)
    write_whole(path, buffer.getvalue())


def _track(name: str, events: list[tuple[int, mido.Message]], end_tick: int) -> mido.MidiTrack:
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name, time=0)])
    now = 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, end_tick - now)))
    return track


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises FileError if it cannot be written."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes its place only when the block ends well; what stood there before stays otherwise.

    What is no regular file, such as /dev/stdout or a pipe, is written to as it is. Raises FileError.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            with open(target, "wb") as file:
                yield file
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:32]}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise FileError(
            error.strerror or str(error), where=os.fspath(path), fix="choose a folder that can be written"
        ) from error
