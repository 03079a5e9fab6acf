"""Which MIDI system is opened; a system is imported only when it is, so that the loopback never meets rtmidi."""

from __future__ import annotations

from pathlib import Path

from antiphon.errors import PortError
from antiphon.ports.backend import Api, Backend
from antiphon.ports.matching import Plugged


def open_backend(api: str, *, loopback_path: Path | None) -> Backend:
    """The MIDI system of this name; `auto` is ALSA where it exists, else a JACK server that answers, else loopback.

    `loopback_path` is where the loopback's socket shall lie.
    """
    if api == "loopback":
        return _loopback(loopback_path)
    from antiphon.ports import rtmidi_backend

    if api == "auto":
        found = rtmidi_backend.find_api()
        if found is None:
            return _loopback(loopback_path)
        api = found
    return rtmidi_backend.open_alsa() if api == "alsa" else rtmidi_backend.open_jack()


def look() -> dict[Api, Plugged]:
    """The ports of each MIDI system that answers on this machine now; `auto` takes the first."""
    from antiphon.ports import rtmidi_backend

    found: dict[Api, Plugged] = {}
    for open_system in (rtmidi_backend.open_alsa, rtmidi_backend.open_jack):
        try:
            system = open_system()
        except PortError:
            continue
        plugged = system.scan()
        if plugged is not None:
            found[system.api] = plugged
        system.close()
    return found


def _loopback(path: Path | None) -> Backend:
    from antiphon.ports.loopback import Loopback, default_path

    return Loopback(path or default_path())
