"""A keyboard that can be plugged in, played, listened to and pulled out, whatever the MIDI system."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol

from antiphon.errors import PortError
from antiphon.ports.loopback import LoopbackDevice

CLEANING = {bytes((0xB0 | channel, control, 0)) for channel in range(16) for control in (64, 123, 120)}


class Device(Protocol):
    def send(self, data: bytes) -> None: ...

    def receive(self) -> bytes | None:
        """What was played to it, oldest first; None when there is nothing (yet)."""

    def close(self) -> None: ...


class LoopbackKeyboard:
    def __init__(self, path: Path, name: str) -> None:
        self._device = LoopbackDevice(path, name=name)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(PortError):
            self._device.send(data)

    def receive(self) -> bytes | None:
        return self._device.receive(timeout_s=0.001)

    def close(self) -> None:
        self._device.close()


class JackKeyboard:
    def __init__(self, name: str) -> None:
        import rtmidi

        self._in = rtmidi.MidiIn(rtmidi.API_UNIX_JACK, name=name, queue_size_limit=8192)
        self._in.ignore_types(sysex=True, timing=False, active_sense=True)
        self._in.open_virtual_port("in")
        self._out = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, name=name)
        self._out.open_virtual_port("out")

    def send(self, data: bytes) -> None:
        self._out.send_message(data)

    def receive(self) -> bytes | None:
        event = self._in.get_message()
        return None if event is None else bytes(event[0])

    def close(self) -> None:
        self._in.delete()
        self._out.delete()


def plug(api: str, *, name: str, path: Path) -> Device:
    return JackKeyboard(name) if api == "jack" else LoopbackKeyboard(path, name)


def receive_until(device: Device, *wanted: bytes, timeout_s: float = 5.0) -> list[bytes]:
    """What the device is played until all of `wanted` came, or the time is over; the cleaning of a new port apart."""
    got: list[bytes] = []
    until = time.monotonic() + timeout_s
    while not set(wanted) <= set(got) and time.monotonic() < until:
        data = device.receive()
        if data is None:
            time.sleep(0.002)
        elif data in wanted or data not in CLEANING:
            got.append(data)
    return got
