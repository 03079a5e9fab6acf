"""What the ports process asks of a MIDI system; `rtmidi_backend` and `loopback` give it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from antiphon.ports.matching import Plugged

Api: TypeAlias = Literal["alsa", "jack", "loopback"]

Hear: TypeAlias = Callable[[int, bytes], None]
"""Called in the input's own thread with the moment of arrival (ns) and one whole message."""


class Input(Protocol):
    @property
    def connected(self) -> bool:
        """False once the connection has been cut, even if a port of that name is there again."""

    def close(self) -> None: ...


class Output(Protocol):
    @property
    def connected(self) -> bool:
        """False once the connection has been cut, even if a port of that name is there again."""

    def write(self, data: bytes) -> None:
        """Hand one message to the MIDI system; what cannot be delivered is lost without a word."""

    def close(self) -> None: ...


class Backend(Protocol):
    @property
    def api(self) -> Api: ...

    def scan(self) -> Plugged | None:
        """The ports that are there; None while the MIDI system itself is not. Cheap, and never waits."""

    def open_input(self, raw: str, hear: Hear) -> Input:
        """Raises PortError when the port is gone."""

    def open_output(self, raw: str) -> Output:
        """Raises PortError when the port is gone."""

    def settle(self) -> None:
        """Wait until what was written has left this process; the last thing before it ends."""

    def close(self) -> None: ...


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


def _loopback(path: Path | None) -> Backend:
    from antiphon.ports.loopback import Loopback, default_path

    return Loopback(path or default_path())
