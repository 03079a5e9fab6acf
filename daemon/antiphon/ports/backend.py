"""What the ports process asks of a MIDI system; `rtmidi_backend` and `loopback` give it."""

from __future__ import annotations

from collections.abc import Callable
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
