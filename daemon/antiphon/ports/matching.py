"""Which plugged-in port a want means: names, patterns, and what makes two ports one device.

Ports are told apart by the names the MIDI system gives them. JACK says `client:port`; ALSA, through RtMidi, says
`client:port 24:0`, where the numbers change whenever the device is plugged in anew, so the name that is matched
and shown leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from antiphon.ports.messages import Direction, Want

OWN: Final = "antiphon"
"""Our own clients' names begin so; they are never wanted."""

_ALSA_ADDRESS = re.compile(r" (\d+):\d+$")
_JACK_COUNTER = re.compile(r"-\d\d$")
"""What JACK appends to the name of a second client of the same name."""

_A2J_WORDS = re.compile(r"\((?:capture|playback)\)|\[\d+\]")
"""a2jmidid names its ports `a2j:Device [24] (capture): Port`."""

_SIDES: Final = frozenset({"in", "out", "input", "output", "capture", "playback"})
_COLLECTORS: Final = frozenset({"system", "a2j"})
"""JACK clients that hold the ports of many devices."""

_NO_KEYBOARD: Final = frozenset({"system", "midi through", "virtual raw midi"})
"""Clients that `*` leaves out: nobody plays on them. Patterns that name them still match."""


def name_of(raw: str) -> str:
    """The name of a port that stays the same when its device is plugged in anew."""
    return _ALSA_ADDRESS.sub("", raw)


def matches(pattern: str, raw: str) -> bool:
    """Whether a pattern means this port, by full name, client or port part, whatever the case."""
    name = name_of(raw).casefold()
    client, _, port = name.partition(":")
    wanted = pattern.casefold()
    return any(part == wanted or fnmatchcase(part, wanted) for part in (name, client, port))


def is_own(raw: str) -> bool:
    return raw.casefold().startswith(OWN)


def is_keyboard(raw: str) -> bool:
    """Whether `*` takes this port: not ours, no through port, none of the system's own."""
    client = name_of(raw).casefold().partition(":")[0]
    return not is_own(raw) and not any(client.startswith(name) for name in _NO_KEYBOARD)


def device_of(raw: str) -> str:
    """What the input and the output of one device have in common."""
    address = _ALSA_ADDRESS.search(raw)
    client, _, port = name_of(raw).casefold().partition(":")
    if address:
        return f"{client} {address[1]}"
    bare = _JACK_COUNTER.sub("", client)
    if bare in _COLLECTORS:
        bare = f"{bare} {_A2J_WORDS.sub('', port)}"
    words = re.split(r"[\s_.:-]+", bare)
    return " ".join(word for word in words if word and word not in _SIDES) or bare


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged:
    """The ports that are there now, by raw name: inputs are what we can hear, outputs what we can play."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def connect(
    wants: Iterable[Want], plugged: Plugged, standing: Mapping[tuple[int, Direction], tuple[str, ...]]
) -> dict[tuple[int, Direction], tuple[str, ...]]:
    """The ports that each want shall be connected to, by raw name; empty where it has to wait.

    An input wanted as `*` gets every keyboard; an output with `same_as` gets the outputs of all devices on that
    input, the one to be played being a matter of who played last; any other want gets one port, and keeps the one
    that it has (`standing`).
    """
    links: dict[tuple[int, Direction], tuple[str, ...]] = {}
    ordered = sorted(wants, key=lambda want: want.direction == "out")  # inputs first: outputs may follow them
    for want in ordered:
        key = want.port, want.direction
        names = plugged.inputs if want.direction == "in" else plugged.outputs
        found = [raw for raw in names if _means(want, raw)]
        if want.direction == "out" and want.same_as is not None:
            devices = {device_of(raw) for raw in links.get((want.same_as, "in"), ())}
            links[key] = tuple(raw for raw in found if device_of(raw) in devices)
        elif want.direction == "in" and want.pattern == "*":
            links[key] = tuple(found)
        else:
            kept = [raw for raw in standing.get(key, ()) if raw in found]
            links[key] = tuple((kept or found)[:1])
    return links


def _means(want: Want, raw: str) -> bool:
    if want.pattern in ("*", ""):
        return is_keyboard(raw) or (want.same_as is not None and not is_own(raw))
    return not is_own(raw) and matches(want.pattern, raw)
