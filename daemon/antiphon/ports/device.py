"""A keyboard made of software: a device with an output that we play and an input that we listen to.

The demonstration, the live benchmark and the tests play to a daemon with it as a musician would.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from antiphon.errors import PortError
from antiphon.ports.backend import Api, Hear
from antiphon.ports.loopback import LoopbackDevice


class Device:
    """A device called `name` on `api`; `hear` is called with each message that reaches it, in a thread of its own.

    On ALSA and JACK it is a pair of virtual ports; on the loopback it connects to the daemon's socket at
    `loopback_path`. Raises PortError where the MIDI system is not there.
    """

    def __init__(self, *, api: Api, name: str, hear: Hear, loopback_path: Path | None = None) -> None:
        self.name = name
        self._closers: list[Any] = []
        if api == "loopback":
            if loopback_path is None:
                raise PortError("a loopback device needs the path of the daemon's socket", where=name)
            self._open_loopback(loopback_path, hear)
        else:
            self._open_virtual(api, hear)

    def _open_loopback(self, path: Path, hear: Hear) -> None:
        device = LoopbackDevice(path, name=self.name)

        def listen() -> None:
            while (data := device.receive()) is not None:
                hear(time.monotonic_ns(), data)

        thread = threading.Thread(target=listen, name=self.name, daemon=True)
        thread.start()
        self._send = device.send
        self._closers += [device.close, thread.join]

    def _open_virtual(self, api: Api, hear: Hear) -> None:
        import rtmidi

        code = rtmidi.API_LINUX_ALSA if api == "alsa" else rtmidi.API_UNIX_JACK
        try:
            out = rtmidi.MidiOut(code, name=self.name)
            inp = rtmidi.MidiIn(code, name=self.name)
            out.open_virtual_port("out")
            inp.ignore_types(sysex=True, timing=False, active_sense=True)
            inp.set_callback(lambda event, _: hear(time.monotonic_ns(), bytes(event[0])))
            inp.open_virtual_port("in")
        except Exception as error:  # rtmidi's errors share no base but RuntimeError, and some are its own
            raise PortError(f"no virtual port on {api}: {error}", where=self.name) from error
        self._send = lambda data: out.send_message(data)
        self._closers += [inp.close_port, out.close_port, inp.delete, out.delete]

    def send(self, data: bytes) -> None:
        """Play one whole message."""
        self._send(data)

    def close(self) -> None:
        """Unplug it."""
        while self._closers:
            self._closers.pop(0)()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
