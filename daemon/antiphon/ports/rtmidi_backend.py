"""Real MIDI ports through RtMidi: ALSA's sequencer or a JACK server. The only module that knows rtmidi.

Owns one RtMidi client for each open port, kept for the next one when a port vanishes: making a client takes 11 ms
that nothing else here can use, and closing one while another program opens its own can stop a synchronous JACK
server for 5 s, each waiting for the other's word. RtMidi calls an input's callback in a thread of its own, which stamps
first and hands on; nothing is parsed, locked or logged there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import rtmidi

from antiphon.errors import PortError
from antiphon.ports.backend import Api, Backend, Hear
from antiphon.ports.jack_watch import JackWatch, hush
from antiphon.ports.matching import OWN, Plugged

_ALSA_SEQUENCER: Final = Path("/dev/snd/seq")
_SETTLE_S: Final = 0.05
"""JACK takes what was written at its next period, 43 ms at the longest usual one (2048 frames at 48 kHz)."""

_JOIN_NS: Final = 200_000_000
_LOOK_S: Final = 0.001
_RETRY_NS: Final = 1_000_000_000


def find_api() -> Api | None:
    """What `auto` means on this machine; None where there is neither ALSA's sequencer nor a JACK server."""
    if _ALSA_SEQUENCER.exists() and rtmidi.API_LINUX_ALSA in rtmidi.get_compiled_api():
        return "alsa"
    try:
        hush()
        JackWatch().close()
    except PortError:
        return None
    return "jack"


def open_alsa() -> Backend:
    """Raises PortError where the kernel has no ALSA sequencer."""
    return _Alsa()


def open_jack() -> Backend:
    """Needs no server yet: one that starts later is found when it does. Raises PortError without libjack."""
    return _Jack()


class _Alsa:
    def __init__(self) -> None:
        if not _ALSA_SEQUENCER.exists():
            raise PortError(
                "this machine has no ALSA sequencer", where=str(_ALSA_SEQUENCER), fix="load it: modprobe snd-seq"
            )
        self._inputs = _Clients(rtmidi.MidiIn, rtmidi.API_LINUX_ALSA)
        self._outputs = _Clients(rtmidi.MidiOut, rtmidi.API_LINUX_ALSA)
        self._heard = self._inputs.take()
        self._played = self._outputs.take()

    @property
    def api(self) -> Api:
        return "alsa"

    def scan(self) -> Plugged:
        return Plugged(inputs=tuple(self._heard.get_ports()), outputs=tuple(self._played.get_ports()))

    def open_input(self, raw: str, hear: Hear) -> _Input:
        return _Input(self._inputs, raw, hear, connected=_always)

    def open_output(self, raw: str) -> _Output:
        return _Output(self._outputs, raw, connected=_always)

    def settle(self) -> None:
        """ALSA delivers while it is written to."""

    def close(self) -> None:
        self._inputs.give(self._heard)
        self._outputs.give(self._played)
        self._inputs.retire()
        self._outputs.retire()


class _Jack:
    def __init__(self) -> None:
        hush()
        self._inputs = _Clients(rtmidi.MidiIn, rtmidi.API_UNIX_JACK)
        self._outputs = _Clients(rtmidi.MidiOut, rtmidi.API_UNIX_JACK)
        self._watch: JackWatch | None = None
        self._retry_ns = 0

    @property
    def api(self) -> Api:
        return "jack"

    def scan(self) -> Plugged | None:
        if self._watch is not None and not self._watch.alive:
            self.close()
        if self._watch is None and not self._reach():
            return None
        assert self._watch is not None
        return self._watch.ports()

    def _reach(self) -> bool:
        # libjack crashes when a client is closed after another one was opened, if the former's server is dead. So
        # nothing is opened until all clients of the last server have been given back.
        if self._inputs.in_use or self._outputs.in_use:
            return False
        now_ns = time.monotonic_ns()
        if now_ns < self._retry_ns:
            return False
        self._retry_ns = now_ns + _RETRY_NS
        try:
            self._watch = JackWatch()
        except PortError:
            return False
        self._inputs = _Clients(rtmidi.MidiIn, rtmidi.API_UNIX_JACK)
        self._outputs = _Clients(rtmidi.MidiOut, rtmidi.API_UNIX_JACK)
        return True

    def open_input(self, raw: str, hear: Hear) -> _Input:
        before = self._ours_before(raw)
        port = _Input(self._inputs, raw, hear, connected=lambda: self._ours_at(raw) > 0)
        self._join(raw, before)
        return port

    def open_output(self, raw: str) -> _Output:
        before = self._ours_before(raw)
        port = _Output(self._outputs, raw, connected=lambda: self._ours_at(raw) > 0)
        self._join(raw, before)
        return port

    def _ours_before(self, raw: str) -> int:
        if self._watch is None or not self._watch.alive:
            raise PortError("the JACK server is gone", where=raw)
        return self._watch.ours_at(raw)

    def _join(self, raw: str, before: int) -> None:
        """Wait until the server's graph runs with the new connection; what is written earlier is lost."""
        until_ns = time.monotonic_ns() + _JOIN_NS
        while self._ours_at(raw) <= before and time.monotonic_ns() < until_ns:
            time.sleep(_LOOK_S)

    def _ours_at(self, raw: str) -> int:
        return self._watch.ours_at(raw) if self._watch is not None and self._watch.alive else 0

    def settle(self) -> None:
        if self._watch is not None and self._watch.alive:
            time.sleep(_SETTLE_S)

    def close(self) -> None:
        self._inputs.retire()
        self._outputs.retire()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class _Clients:
    """RtMidi clients of one kind, some of them without a port for the moment."""

    def __init__(self, kind: Any, api: int) -> None:
        self._kind = kind
        self._api = api
        self._idle: list[Any] = []
        self._retired = False
        self.in_use = 0

    def take(self) -> Any:
        try:
            midi = self._idle.pop() if self._idle else self._kind(self._api, name=OWN)
        except rtmidi.RtMidiError as error:
            raise PortError(f"no MIDI client can be made: {error}") from error
        self.in_use += 1
        return midi

    def give(self, midi: Any) -> None:
        self.in_use -= 1
        with contextlib.suppress(rtmidi.RtMidiError):
            midi.close_port()
        if self._retired:
            midi.delete()
        else:
            self._idle.append(midi)

    def retire(self) -> None:
        """Let go of the idle ones now, and of those in use when they are given back."""
        self._retired = True
        while self._idle:
            self._idle.pop().delete()


class _Input:
    def __init__(self, clients: _Clients, raw: str, hear: Hear, *, connected: Callable[[], bool]) -> None:
        self._connected = connected
        self._clients = clients
        self._midi = clients.take()
        self._midi.ignore_types(sysex=True, timing=False, active_sense=True)

        def on_message(event: tuple[Sequence[int], float], _: object) -> None:
            at_ns = time.monotonic_ns()
            hear(at_ns, bytes(event[0]))

        self._midi.set_callback(on_message)
        try:
            _open(self._midi, raw, name="in")
        except PortError:
            self.close()
            raise

    @property
    def connected(self) -> bool:
        return self._connected()

    def close(self) -> None:
        self._midi.cancel_callback()
        self._clients.give(self._midi)


class _Output:
    def __init__(self, clients: _Clients, raw: str, *, connected: Callable[[], bool]) -> None:
        self._connected = connected
        self._clients = clients
        self._midi = clients.take()
        try:
            _open(self._midi, raw, name="out")
        except PortError:
            self.close()
            raise
        self._send = self._midi.send_message

    @property
    def connected(self) -> bool:
        return self._connected()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(rtmidi.RtMidiError):  # the next scan will see that the port is gone
            self._send(data)

    def close(self) -> None:
        self._clients.give(self._midi)


def _open(midi: Any, raw: str, *, name: str) -> None:
    try:
        midi.open_port(midi.get_ports().index(raw), name=name)
    except (rtmidi.RtMidiError, ValueError) as error:
        raise PortError("the port is gone", where=raw) from error


def _always() -> bool:
    """ALSA's addresses change with every plugging, so a port that came back has another raw name."""
    return True
