"""What the daemon and the ports process say to each other, as plain data.

A *port* is a small number chosen by the daemon for one wanted connection; inputs and outputs are numbered apart.
A *lane* is one independent stream of dated messages to a port (an answer, the click, the clock): a plan
supersedes only its own lane. All moments are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from antiphon.music.events import Due, Heard

Direction: TypeAlias = Literal["in", "out"]

EVERY_PORT = -1
"""In `Panic`: all outputs."""

APPEND = 2**63 - 1
"""In `Plan.replaces_from_ns`: supersede nothing, only add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A wanted connection; sent again for the same port and direction it takes the former one's place.

    pattern: matched like a file name (`*`, `?`, `[ab]`), whatever the case, against the full name of a port, its
        client and its own part. The input `*` takes every keyboard; any other pattern takes the first match.
    same_as: for an output, the number of the input whose device it shall answer to; the pattern then only narrows
        the choice. With several keyboards on that input, the one that last played is answered.
    """

    port: int
    direction: Direction
    pattern: str = "*"
    same_as: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a lane shall release: takes the place of everything unreleased from `replaces_from_ns` on.

    Dropped are the lane's unreleased note-ons dated at or after `replaces_from_ns` with their offs, and its other
    messages dated so. The off of a note that already sounds is never dropped, but another off for the same
    identity takes its place. Identities (`Due.note`, above 0) are unique within a lane while they wait or sound.
    """

    port: int
    lane: int
    plan: int
    replaces_from_ns: int
    dues: tuple[Due, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Drop all that waits in a lane; end each of its sounding notes at `at_ns`, or at its own off if earlier."""

    port: int
    lane: int
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Panic:
    """Silence a port, or `EVERY_PORT`: nothing waits, nothing sounds."""

    port: int = EVERY_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Quit:
    """Silence every port and leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The first word of the ports process.

    api: the MIDI system in use: alsa, jack or loopback.
    priority: SCHED_FIFO priority granted, 0 where real-time scheduling was refused.
    locked: whether memory is locked, so that no page fault can delay a note.
    """

    api: str
    priority: int
    locked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A wanted connection stands; an input wanted as `*` says so for each keyboard."""

    port: int
    direction: Direction
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """A connection is gone: its port vanished, the MIDI system died, or another device is answered now."""

    port: int
    direction: Direction
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Nothing that is plugged in matches a want; said once until that changes."""

    port: int
    direction: Direction
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A message went out: `due_ns` is when it should, `at_ns` when it did."""

    port: int
    lane: int
    plan: int
    note: int
    due_ns: int
    at_ns: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A note-on was not played, nor will its off be: too late, or its port is not there."""

    port: int
    lane: int
    plan: int
    note: int
    due_ns: int
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something a person should read in the log."""

    text: str


ToPorts: TypeAlias = Want | Plan | End | Panic | Quit
FromPorts: TypeAlias = Ready | Up | Down | Waiting | Heard | Released | Dropped | Fault
Message: TypeAlias = ToPorts | FromPorts
