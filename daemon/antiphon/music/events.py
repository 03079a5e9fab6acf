"""Stamped MIDI events: what was heard and what is due, each with its moment on the monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heard:
    """One MIDI message as it arrived.

    at_ns: moment of arrival, CLOCK_MONOTONIC nanoseconds, stamped first thing in the driver's callback.
    port: the number of the wanted input it came in by.
    data: the whole message, status byte first (no running status).
    """

    at_ns: int
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Due:
    """One MIDI message to be released at a moment to come.

    at_ns: CLOCK_MONOTONIC nanoseconds.
    data: the whole message, status byte first.
    note: identity shared by a note-on and its note-off, so that an old off cannot cut a new note;
        0 for a message that is no note.
    """

    at_ns: int
    data: bytes
    note: int = 0
