"""MIDI ports without a MIDI system: programs connect to a socket and are a keyboard each.

Owns one AF_UNIX SOCK_SEQPACKET socket. A program that connects says its name in its first packet and then appears
as the input and output `NAME:midi`; from there on every packet, either way, is one whole MIDI message. It comes and
goes like a plugged device. Nothing here imports rtmidi.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from antiphon.errors import PortError
from antiphon.ports.backend import Api, Hear
from antiphon.ports.matching import Plugged

_MAX_BYTES: Final = 1024
_BACKLOG: Final = 16


def default_path() -> Path:
    """Where the socket lies unless said otherwise: the user's runtime directory, else a directory of our own."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime else Path(tempfile.gettempdir()) / f"antiphon-{os.getuid()}"
    return folder / "antiphon-loopback.sock"


class Loopback:
    """The backend: accepts devices whenever it is scanned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._devices: dict[str, _Device] = {}
        self._nameless: list[socket.socket] = []
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.bind(str(path))
        except OSError as error:
            raise PortError(f"no loopback port can be made: {error.strerror or error}", where=str(path)) from error
        path.chmod(0o600)
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)

    @property
    def api(self) -> Api:
        return "loopback"

    def scan(self) -> Plugged:
        for name in [name for name, device in self._devices.items() if not device.connected]:
            self._devices.pop(name).close()
        with contextlib.suppress(BlockingIOError):
            while True:
                self._nameless.append(self._socket.accept()[0])
        for connection in tuple(self._nameless):
            self._greet(connection)
        names = tuple(self._devices)
        return Plugged(inputs=names, outputs=names)

    def _greet(self, connection: socket.socket) -> None:
        try:
            name = connection.recv(_MAX_BYTES, socket.MSG_DONTWAIT).decode()
        except BlockingIOError:
            return
        except (OSError, UnicodeDecodeError):
            name = ""
        self._nameless.remove(connection)
        if not name or ":" in name:
            connection.close()
            return
        raw, number = f"{name}:midi", 1
        while raw in self._devices:
            raw, number = f"{name}-{number:02}:midi", number + 1
        self._devices[raw] = _Device(connection)

    def open_input(self, raw: str, hear: Hear) -> _Device:
        device = self._device(raw)
        device.listen(hear)
        return device

    def open_output(self, raw: str) -> _Device:
        return self._device(raw)

    def _device(self, raw: str) -> _Device:
        device = self._devices.get(raw)
        if device is None:
            raise PortError("the port is gone", where=raw)
        return device

    def settle(self) -> None:
        """A packet that was sent is in the receiver's queue already."""

    def close(self) -> None:
        for connection in (*self._nameless, *(device.connection for device in self._devices.values())):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for device in self._devices.values():
            device.join()
            device.connection.close()
        self._devices.clear()
        self._socket.close()
        self.path.unlink(missing_ok=True)


class _Device:
    """One connected program, as an input and as an output. Its thread stamps what comes in."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.connected = True
        self._hear: Hear | None = None
        self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
        self._thread.start()

    def listen(self, hear: Hear) -> None:
        self._hear = hear

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # full or gone: lost, like on any cable
            self.connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Stop listening; the program stays connected and can be opened again."""
        self._hear = None

    def join(self) -> None:
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while True:
            try:
                data = self.connection.recv(_MAX_BYTES)
            except OSError:
                data = b""
            at_ns = time.monotonic_ns()
            if not data:
                self.connected = False
                return
            hear = self._hear
            if hear is not None:
                hear(at_ns, data)


class LoopbackDevice:
    """The other end: a program that is a keyboard. Use as a context manager."""

    def __init__(self, path: Path, *, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect(str(path))
            self._socket.send(name.encode())
        except OSError as error:
            self._socket.close()
            raise PortError(
                f"nobody listens: {error.strerror}", where=str(path), fix="start the daemon with api: loopback"
            ) from error

    def send(self, data: bytes) -> None:
        """Play one whole MIDI message. Raises PortError when the daemon is gone."""
        try:
            self._socket.send(data)
        except OSError as error:
            raise PortError("the daemon is gone", where="loopback") from error

    def receive(self, *, timeout_s: float | None = None) -> bytes | None:
        """The next message played to us; None after `timeout_s` (forever without), or when the daemon is gone."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(_MAX_BYTES) or None
        except OSError:
            return None

    def close(self) -> None:
        """Vanish, like a cable pulled out. Wakes a `receive` that waits in another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> LoopbackDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
