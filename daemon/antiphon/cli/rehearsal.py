"""A rehearsal: the real daemon as a subprocess, played to through a real port by a device made of software.

Used by the demonstration and the live benchmark. It takes ALSA or a running JACK server where there is one, else
starts JACK's dummy server, else uses the built-in loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.errors import PortError
from antiphon.ports.backend import Api
from antiphon.ports.device import Device
from antiphon.ports.dummy_jack import DummyJack, installed, server_name

_READY_S = 60.0  # the very first start on a machine compiles the kernels

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A MIDI message and when it is to be played, or was received (CLOCK_MONOTONIC ns)."""

    at_ns: int
    data: bytes


@contextlib.contextmanager
def midi_system() -> Iterator[tuple[Api, str]]:
    """A MIDI system to rehearse on, and what to call it; JACK programs of this process find its server."""
    if os.path.exists("/dev/snd/seq"):
        yield "alsa", "ALSA"
        return
    from antiphon.ports import rtmidi_backend

    if rtmidi_backend.find_api() == "jack":
        yield "jack", "the JACK server that runs here"
        return
    if not installed():
        yield "loopback", "the built-in loopback (this machine has neither ALSA nor JACK)"
        return
    before = dict(os.environ)
    with server_name() as name, DummyJack(name=name) as server:
        os.environ.update(server.environment)
        try:
            yield "jack", "JACK's dummy server"
        finally:
            os.environ.clear()
            os.environ.update(before)


class Rehearsal:
    """A running daemon with one device plugged in. Use as a context manager.

    config: the daemon's configuration as YAML; empty for the default one. received: what reached the device.
    """

    def __init__(self, *, api: Api, config: str = "", device: str = "Rehearsal Keys") -> None:
        self.received: list[Message] = []
        self._api = api
        self._config = config
        self._name = device
        self._stack = contextlib.ExitStack()
        self._position = 0

    def __enter__(self) -> Rehearsal:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-")))
            self._journal = folder / "journal.jsonl"
            self._log = folder / "daemon.log"
            socket = folder / "loopback.sock"
            config = self._config
            if self._api == "loopback":
                config += f"\nmidi: {{api: loopback, loopback_path: {socket}}}\n"
            command = [sys.executable, "-m", "antiphon.cli.main", "daemon", "--journal", str(self._journal)]
            if config:
                (folder / "antiphon.yaml").write_text(config)
                command += ["--config", str(folder / "antiphon.yaml")]
            began = time.monotonic()
            log = stack.enter_context(self._log.open("wb"))
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(self._stop)
            self._wait(lambda: b"ready: " in self._log.read_bytes())
            self.ready_s = time.monotonic() - began
            self.device = stack.enter_context(
                Device(api=self._api, name=self._name, hear=self._hear, loopback_path=socket)
            )
            self._wait(lambda: {"in", "out"} <= {r["direction"] for r in self.records() if r["kind"] == "up"})
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, messages: Iterable[Message], *, on_wait: Callable[[], None] = lambda: None) -> None:
        """Play `messages`, sorted by time, each when it is due."""
        for message in messages:
            while (left_ns := message.at_ns - time.monotonic_ns()) > 0:
                on_wait()
                time.sleep(min(left_ns / 1e9, 0.25))
                self._check()
            self.device.send(message.data)

    def wait_until(self, at_ns: int) -> None:
        """Let time pass, seeing to it that the daemon lives."""
        while (left_ns := at_ns - time.monotonic_ns()) > 0:
            time.sleep(min(left_ns / 1e9, 0.25))
            self._check()

    def records(self) -> list[Record]:
        """What the daemon's journal says so far."""
        try:
            text = self._journal.read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def log(self) -> str:
        """What the daemon said."""
        return self._log.read_text(errors="replace")

    def _hear(self, at_ns: int, data: bytes) -> None:
        self.received.append(Message(at_ns, data))

    def _wait(self, met: Callable[[], bool]) -> None:
        end = time.monotonic() + _READY_S
        while not met():
            self._check()
            if time.monotonic() > end:
                raise PortError(f"the daemon was not ready within {_READY_S:.0f} s:\n{self.log()}")
            time.sleep(0.02)

    def _check(self) -> None:
        if self.process.poll() is not None:
            raise PortError(f"the daemon ended with exit code {self.process.returncode}:\n{self.log()}")

    def _stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
