"""The ports process's side of its keeper: starts it, has it open and close ports, writes to them, takes what they hear.

Owns the keeper process and the socket to it. What needs an answer waits for it; only writing does not.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, Final

from antiphon.errors import PortError
from antiphon.ports import orders
from antiphon.ports.matching import Plugged

_PATIENCE_S: Final = 10.0
"""A JACK server that is busy burying another client answers after 5 s."""


_BUFFER: Final = 1_048_576
"""Bytes asked for what was heard and waits for us; by default the kernel grants twice 212,992, or some 500 messages."""


class KeeperDied(PortError):
    """The keeper is gone, and the ports with it."""


class Kept:
    """The ports, held by a keeper. Raises KeeperDied from any call once it is gone."""

    def __init__(self, *, api: str, loopback_path: Path | None, witness: int | None) -> None:
        """Start a keeper. Raises PortError where it finds no such MIDI system.

        witness: a socket that the keeper shall tell when every note has been ended; closed on this side.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        command = [sys.executable, "-P", "-m", "antiphon.ports.keeper", f"--fd={theirs.fileno()}", f"--api={api}"]
        fds = [theirs.fileno()]
        if loopback_path is not None:
            command.append(f"--loopback={loopback_path}")
        if witness is not None:
            command.append(f"--witness={witness}")
            fds.append(witness)
        with theirs:
            # Apart from our process group too: what kills us as a group shall leave it alive to end our notes.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True, close_fds=True
            )
        if witness is not None:
            socket.socket(fileno=witness).close()
        self._heard: deque[tuple[int, int, bytes]] = deque()
        self._next_handle = 0
        self._cut: frozenset[int] = frozenset()
        self.api: str = self._answer()["api"]

    def fileno(self) -> int:
        """For a poll: readable when there may be something in `heard`."""
        return self._socket.fileno()

    def scan(self) -> Plugged | None:
        """The ports that are there; None while the MIDI system itself is not."""
        self._send(orders.order(orders.SCAN))
        found = self._answer()
        self._cut = frozenset(found["cut"])
        return Plugged(inputs=tuple(found["inputs"]), outputs=tuple(found["outputs"])) if found["there"] else None

    def is_cut(self, handle: int) -> bool:
        """Whether the last scan found this port's connection gone, even if a port of its name is there again."""
        return handle in self._cut

    def open_input(self, raw: str) -> int:
        """Returns a handle. Raises PortError when the port is gone."""
        return self._open(orders.OPEN_INPUT, raw)

    def open_output(self, raw: str) -> int:
        """Returns a handle; the port was silenced first. Raises PortError when it is gone."""
        return self._open(orders.OPEN_OUTPUT, raw)

    def write(self, handle: int, data: bytes) -> None:
        self._send(orders.write(handle, data))

    def close(self, handle: int) -> None:
        self._send(orders.order(orders.CLOSE, handle=handle))

    def heard(self) -> tuple[int, int, bytes] | None:
        """The next message that came in, as (handle, at_ns, data); None when there is none yet."""
        while not self._heard:
            try:
                packet = self._socket.recv(orders.MAX_ORDER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionError:
                packet = b""
            self._sort(packet)
        return self._heard.popleft()

    def leave(self) -> None:
        """Let the keeper end every note and go; waits until it has."""
        try:
            self._send(orders.order(orders.LEAVE))
            self._process.wait(timeout=_PATIENCE_S)
        except (KeeperDied, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._socket.close()

    def _open(self, kind: int, raw: str) -> int:
        self._next_handle = (self._next_handle + 1) % 65_536
        handle = self._next_handle
        self._send(orders.order(kind, handle=handle, raw=raw))
        self._answer()
        self._cut -= {handle}
        return handle

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise KeeperDied("the keeper of the MIDI ports is gone", where="ports") from error

    def _answer(self) -> dict[str, Any]:
        while True:
            if not select.select([self._socket], [], [], _PATIENCE_S)[0]:
                raise KeeperDied(f"the keeper of the MIDI ports said nothing for {_PATIENCE_S:.0f} s", where="ports")
            try:
                packet = self._socket.recv(orders.MAX_ORDER)
            except ConnectionError:
                packet = b""
            answer = self._sort(packet)
            if answer is not None:
                return answer

    def _sort(self, packet: bytes) -> dict[str, Any] | None:
        """Put what was heard aside; give anything else. Raises PortError for a refusal."""
        if not packet:
            raise KeeperDied("the keeper of the MIDI ports is gone", where="ports")
        if packet[0] == orders.HEARD:
            self._heard.append(orders.was_heard(packet))
            return None
        answer = orders.fields(packet)
        if packet[0] == orders.REFUSED:
            raise PortError(answer["reason"])
        return answer
