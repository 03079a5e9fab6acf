"""Silence MIDI outputs from outside: `python -m antiphon.ports.panic --api jack --out NAME`.

One shot, for when the ports process was killed and nobody is left in it to end its notes. To each named output go
the offs of the notes known to sound, then pedal up, all notes off and all sound off on every channel, then an off for
every pitch on the channels that were in use, for synths that know none of these.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Final

from antiphon.errors import PortError
from antiphon.ports.backend import Backend
from antiphon.ports.matching import name_of
from antiphon.ports.midi import CHANNELS, note_off, silence
from antiphon.ports.opening import open_backend

_PITCHES: Final = 128
_PATIENCE_S: Final = 10.0
"""How long a MIDI system that is busy burying the killed process is waited for."""


def quiet(backend: Backend, name: str, notes: Iterable[tuple[int, int]], channels: Iterable[int]) -> bool:
    """Silence the output of this name, if it is there.

    notes: (channel, pitch) known to sound. channels: those on which every pitch gets an off as well; both 0 to 15.
    """
    plugged = backend.scan()
    raws = [raw for raw in (plugged.outputs if plugged else ()) if name_of(raw) == name]
    for raw in raws:
        output = backend.open_output(raw)
        for channel, pitch in notes:
            output.write(note_off(channel, pitch))
        for channel in range(CHANNELS):
            for data in silence(channel):
                output.write(data)
        for channel in channels:
            for pitch in range(_PITCHES):
                output.write(note_off(channel, pitch))
        backend.settle()
        output.close()
    return bool(raws)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="antiphon.ports.panic", description="End every note on MIDI outputs.")
    options.add_argument("--api", default="auto", choices=("auto", "alsa", "jack"))
    options.add_argument("--out", action="append", default=[], metavar="NAME", help="an output, by its full name")
    options.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="N:CHANNEL:PITCH",
        help="a note that sounds on the N-th --out (from 0), channel from 0",
    )
    options.add_argument(
        "--channel", action="append", default=[], metavar="N:CHANNEL", help="a channel in use on the N-th --out"
    )
    return options


def main() -> int:
    options = parser().parse_args()
    try:
        notes = [tuple(int(part) for part in note.split(":")) for note in options.note]
        used = [tuple(int(part) for part in channel.split(":")) for channel in options.channel]
        backend = _reach(options.api)
        missing = [
            name
            for index, name in enumerate(options.out)
            if not quiet(
                backend,
                name,
                notes=[(channel, pitch) for out, channel, pitch in notes if out == index],
                channels=[channel for out, channel in used if out == index],
            )
        ]
        backend.close()
    except (PortError, ValueError) as error:
        print(f"antiphon.ports.panic: {error}", file=sys.stderr)
        return 1
    for name in missing:
        print(f"antiphon.ports.panic: {name} is not there", file=sys.stderr)
    return 1 if missing else 0


def _reach(api: str) -> Backend:
    backend = open_backend(api, loopback_path=None)
    until = time.monotonic() + _PATIENCE_S
    while backend.scan() is None and time.monotonic() < until:
        time.sleep(0.1)
    return backend


if __name__ == "__main__":
    sys.exit(main())
