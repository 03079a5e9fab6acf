"""The keeper: the process that holds the MIDI ports open for the ports process, and outlives it.

Owns the driver's clients and, for each output, the notes that sound there. It decides nothing: it writes what it is
told when it is told, and hands on what arrives, stamped in the driver's own thread. Once nobody is at the other end
any more it ends every note and leaves.

Why a process of its own: a JACK client that is killed stops a synchronous server for ten client timeouts, 5 s by
default, and nobody can end its notes in that time (JackAudioDriver, DRIVER_TIMEOUT_FACTOR). So what has work to
do, and can fail, is apart from what must not die.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from pathlib import Path

from antiphon.errors import PortError
from antiphon.ports import orders
from antiphon.ports.alarm import be_prompt, promote_threads
from antiphon.ports.backend import Backend, Hear, Input, Output
from antiphon.ports.midi import CHANNELS, SYSTEM, is_note_off, is_note_on, note_off, silence
from antiphon.ports.opening import open_backend


class Keeper:
    """`line` leads to the ports process; both ends block."""

    def __init__(self, *, backend: Backend, line: socket.socket) -> None:
        self._backend = backend
        self._line = line
        self._inputs: dict[int, Input] = {}
        self._outputs: dict[int, _Kept] = {}

    def run(self) -> None:
        """Obey until nobody is there to be obeyed; then end every note."""
        self._line.send(orders.order(orders.STANDS, api=self._backend.api))
        with contextlib.suppress(ConnectionError):
            while (packet := self._line.recv(orders.MAX_ORDER)) and packet[0] != orders.LEAVE:
                self._obey(packet)
        for output in self._outputs.values():
            output.quiet()
        self._backend.settle()

    def close(self) -> None:
        for port in self._inputs.values():
            port.close()
        for output in self._outputs.values():
            output.close()
        self._backend.close()

    def _obey(self, packet: bytes) -> None:
        kind = packet[0]
        if kind == orders.WRITE:
            handle, data = orders.written(packet)
            output = self._outputs.get(handle)
            if output is not None:
                output.write(data)
        elif kind == orders.SCAN:
            self._scan()
        elif kind == orders.CLOSE:
            self._close(**orders.fields(packet))
        elif kind in (orders.OPEN_INPUT, orders.OPEN_OUTPUT):
            self._open(kind, **orders.fields(packet))

    def _scan(self) -> None:
        plugged = self._backend.scan()
        cut = [handle for handle, port in self._inputs.items() if not port.connected]
        cut += [handle for handle, kept in self._outputs.items() if not kept.output.connected]
        self._line.send(
            orders.order(
                orders.SCANNED,
                there=plugged is not None,
                inputs=plugged.inputs if plugged else (),
                outputs=plugged.outputs if plugged else (),
                cut=cut,
            )
        )

    def _open(self, kind: int, *, handle: int, raw: str) -> None:
        try:
            if kind == orders.OPEN_INPUT:
                self._inputs[handle] = self._backend.open_input(raw, self._hearing(handle))
            else:
                output = self._outputs[handle] = _Kept(self._backend.open_output(raw))
                output.clear()
        except PortError as error:
            self._line.send(orders.order(orders.REFUSED, reason=str(error)))
            return
        promote_threads()  # a JACK client's runs as an ordinary one unless the server is a real-time one
        self._line.send(orders.order(orders.OPENED))

    def _hearing(self, handle: int) -> Hear:
        line, heard, flags = self._line, orders.heard, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

        def hear(at_ns: int, data: bytes) -> None:
            # In the driver's thread: nothing may wait here. Full means that the ports process hangs, or is gone.
            with contextlib.suppress(OSError):
                line.send(heard(handle, at_ns, data), flags)

        return hear

    def _close(self, *, handle: int) -> None:
        if handle in self._inputs:
            self._inputs.pop(handle).close()
        elif handle in self._outputs:
            self._outputs.pop(handle).close()


class _Kept:
    """An open output and what sounds on it."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._sounding: set[tuple[int, int]] = set()  # channel, pitch
        self._used: set[int] = set()

    def write(self, data: bytes) -> None:
        self.output.write(data)
        if data[0] >= SYSTEM:
            return
        self._used.add(data[0] & 15)
        if is_note_on(data):
            self._sounding.add((data[0] & 15, data[1]))
        elif is_note_off(data):
            self._sounding.discard((data[0] & 15, data[1]))

    def clear(self) -> None:
        """Whatever a former life left sounding there."""
        for channel in range(CHANNELS):
            for data in silence(channel):
                self.output.write(data)

    def quiet(self) -> None:
        """Nobody will end these notes but us."""
        for channel, pitch in sorted(self._sounding):
            self.output.write(note_off(channel, pitch))
        if self._sounding:
            for channel in sorted(self._used):
                for data in silence(channel):
                    self.output.write(data)
        self._sounding.clear()

    def close(self) -> None:
        self.output.close()


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="antiphon.ports.keeper", description="Hold the MIDI ports open.")
    options.add_argument("--fd", type=int, required=True, help="a SOCK_SEQPACKET socket to the ports process")
    options.add_argument("--witness", type=int, help="a socket that is told when every note has been ended")
    options.add_argument("--api", default="auto", choices=("auto", "alsa", "jack", "loopback"))
    options.add_argument("--loopback", type=Path, metavar="PATH", help="where the loopback's socket shall lie")
    return options


def main() -> int:
    options = parser().parse_args()
    # A service manager tells everybody to end; the keeper ends after the ports process, which needs it until then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = socket.socket(fileno=options.fd)
    try:
        backend = open_backend(options.api, loopback_path=options.loopback)
    except PortError as error:
        with contextlib.suppress(OSError):
            line.send(orders.order(orders.REFUSED, reason=str(error)))
        return 1
    be_prompt()
    keeper = Keeper(backend=backend, line=line)
    keeper.run()
    if options.witness is not None:
        with contextlib.suppress(OSError):
            socket.socket(fileno=options.witness).send(orders.QUIET, socket.MSG_NOSIGNAL)
    keeper.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
