"""A JACK server without a sound card, for machines that have neither hardware nor ALSA's sequencer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from antiphon.errors import PortError
from antiphon.ports.alarm import PRIORITY, may_be_prompt

PERIOD_FRAMES = 64
RATE_HZ = 48_000
PERIOD_NS = PERIOD_FRAMES * 1_000_000_000 // RATE_HZ

_START_S = 10.0
_SERVERS = 8  # as many as JACK allows on one machine


def installed() -> bool:
    """Whether jackd is there."""
    return shutil.which("jackd") is not None


@contextlib.contextmanager
def server_name() -> Iterator[str]:
    """A name for a server that nobody else uses now. Raises PortError when all are taken.

    JACK counts a server that was killed among its eight until one of the same name starts, so names come round again.
    """
    for number in range(1, _SERVERS + 1):
        name = f"antiphon-{number}"
        with open(Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield name
            return
    raise PortError("every name for a JACK server is in use", fix="end the other rehearsals")


class DummyJack:
    """A running server under a name of its own; `environment` makes JACK programs use it.

    Real-time where that is allowed, for a busy machine delays every event by tens of milliseconds otherwise.
    Synchronous mode (-S) loses no events; the asynchronous mode was seen to lose one in some 800 under load.
    """

    def __init__(self, *, name: str) -> None:
        self.environment = {"JACK_DEFAULT_SERVER": name, "JACK_NO_AUDIO_RESERVATION": "1"}
        scheduling = ["-R", "-P", str(PRIORITY)] if may_be_prompt() else ["-r"]
        command = ["jackd", "-n", name, *scheduling, "-S", "--no-mlock", "-d", "dummy", "-r", str(RATE_HZ)]
        self._process = subprocess.Popen(
            [*command, "-p", str(PERIOD_FRAMES)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | self.environment,
        )
        end_s = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end_s:
                self.close()
                raise PortError("jackd did not come up", fix="run it by hand to see why: " + " ".join(command))
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether the server takes connections; the socket of one that was killed is there and takes none."""
        address = f"/dev/shm/jack_{self.environment['JACK_DEFAULT_SERVER']}_{os.getuid()}_0"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
            return knock.connect_ex(address) == 0

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> DummyJack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
