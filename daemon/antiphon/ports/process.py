"""The ports process: `python -m antiphon.ports.process --fd N --api auto`.

Owns time: what waits, what sounds, and the moment at which each message leaves; and which ports are wanted. Its
keeper holds the ports themselves and stamps what arrives. One thread does everything, asleep in one epoll on the
line, the keeper and the timer. When the line goes dead or the process is told to end, everything is silenced first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias

from antiphon.errors import PortError
from antiphon.music.events import Heard
from antiphon.ports.alarm import SPIN_NS, Alarm, be_prompt, spin_until
from antiphon.ports.codec import MAX_PACKET, PacketError, decode, encode
from antiphon.ports.kept import KeeperDied, Kept
from antiphon.ports.matching import Plugged, connect, device_of, name_of
from antiphon.ports.messages import (
    Direction,
    Down,
    Dropped,
    End,
    Fault,
    FromPorts,
    Panic,
    Plan,
    Quit,
    Ready,
    Released,
    Up,
    Waiting,
    Want,
)
from antiphon.ports.midi import is_note_on
from antiphon.ports.scheduler import Scheduler, Write

SCAN_NS: Final = 250_000_000
"""How often plugged ports are looked for; a look costs 0.03 ms."""

_CALM_NS: Final = 40_000_000
"""Opening a JACK client holds the interpreter for about 11 ms, so ports are opened only in a gap this long …"""

_PATIENCE_NS: Final = 2_000_000_000
"""… or once they have waited this long for one."""

_MAX_UNSENT: Final = 65_536
"""Messages the daemon may leave unread before it counts as dead."""

_Key: TypeAlias = tuple[int, Direction]


class _Stop(Exception):
    """The line is dead, or this process was asked to end."""


class Process:
    """The main thread's work. `line` is our end of the socketpair; it is closed by whoever made it."""

    def __init__(self, *, kept: Kept, line: socket.socket, late_ns: int) -> None:
        self._kept = kept
        self._line = line
        self._scheduler = Scheduler(late_ns=late_ns)
        self._alarm = Alarm()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._unsent: deque[bytes] = deque()
        self._wants: dict[_Key, Want] = {}
        self._links: dict[_Key, tuple[str, ...]] = {}
        self._inputs: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._reported: dict[_Key, tuple[str, ...]] = {}
        self._waiting: set[_Key] = set()
        self._last_played: dict[int, str] = {}
        self._refused: set[str] = set()
        self._scan_ns = 0
        self._changed_ns: int | None = None
        self._system_there = True
        line.setblocking(False)
        self._epoll = select.epoll()
        self._ending = False
        for fd in (line.fileno(), kept.fileno(), self._alarm.fd, self._bell):
            self._epoll.register(fd, select.EPOLLIN)

    def run(self, *, priority: int, locked: bool) -> None:
        """Work until the line ends or the daemon says `Quit`; then silence everything. Raises KeeperDied."""
        try:
            self._say(Ready(api=self._kept.api, priority=priority, locked=locked))
            if priority == 0:
                self._say(Fault(text="no real-time scheduling (see RLIMIT_RTPRIO): a busy machine may delay notes"))
            while True:
                self._turn()
        except _Stop:
            self._silence()
        finally:
            self._leave()

    def finish(self, number: int, frame: FrameType | None) -> None:
        """For a signal's handler: end at the next turn, which is now."""
        self._ending = True
        os.eventfd_write(self._bell, 1)

    def _turn(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= self._scan_ns and self._wants:
            self._scan(now_ns)
            self._pass_on()
        due_ns = self._scheduler.next_due_ns
        self._alarm.set(self._next_wake_ns(due_ns))
        for fd, events in self._epoll.poll():
            if fd == self._kept.fileno():
                self._pass_on()
            elif fd == self._line.fileno():
                self._attend(events)
            elif fd == self._alarm.fd:
                self._alarm.rung()
        if self._ending:
            raise _Stop
        self._release()

    def _next_wake_ns(self, due_ns: int | None) -> int | None:
        moments = [self._scan_ns] if self._wants else []
        if due_ns is not None:
            moments.append(due_ns - SPIN_NS)
        return min(moments, default=None)

    # --- out ---

    def _release(self) -> None:
        due_ns = self._scheduler.next_due_ns
        if due_ns is None or due_ns - time.monotonic_ns() > SPIN_NS:
            return
        spin_until(due_ns)
        actions, _ = self._scheduler.release(time.monotonic_ns())
        done: list[FromPorts] = []
        for action in actions:
            done.append(action if isinstance(action, Dropped) else self._write(action))
        for message in done:
            self._say(message)

    def _write(self, write: Write) -> Released:
        output = self._outputs.get(write.output)
        at_ns = time.monotonic_ns()
        if output is not None:
            self._kept.write(output, write.data)
        return Released(
            port=write.port,
            lane=write.lane,
            plan=write.plan,
            note=write.note,
            due_ns=write.due_ns,
            at_ns=at_ns,
            data=write.data,
        )

    def _write_all(self, writes: list[Write]) -> None:
        for write in writes:
            self._say(self._write(write))

    # --- in ---

    def _pass_on(self) -> None:
        while (heard := self._kept.heard()) is not None:
            handle, at_ns, data = heard
            raw = next((raw for raw, opened in self._inputs.items() if opened == handle), None)
            for (port, direction), names in self._links.items():
                if direction == "in" and raw in names:
                    self._say(Heard(at_ns=at_ns, port=port, data=data))
                    if raw is not None and len(names) > 1 and is_note_on(data):
                        self._answer_to(port, raw)

    def _answer_to(self, port: int, raw: str) -> None:
        """Let what answers to this input's device answer to the one that was just played."""
        device = device_of(raw)
        if self._last_played.get(port) == device:
            return
        self._last_played[port] = device
        self._route(time.monotonic_ns())

    # --- the line ---

    def _attend(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        while True:
            try:
                packet = self._line.recv(MAX_PACKET + 1)
            except BlockingIOError:
                return
            except ConnectionError:
                raise _Stop from None
            if not packet:
                raise _Stop
            self._obey(packet)

    def _obey(self, packet: bytes) -> None:
        try:
            message = decode(packet)
        except PacketError as error:
            self._say(Fault(text=str(error)))
            return
        match message:
            case Plan():
                self._scheduler.plan(message)
            case End():
                self._scheduler.end(message)
            case Want():
                self._wants[message.port, message.direction] = message
                self._scan_ns = 0
            case Panic():
                self._write_all(self._scheduler.panic(message, now_ns=time.monotonic_ns()))
            case Quit():
                raise _Stop
            case _:
                self._say(Fault(text=f"the daemon said {type(message).__name__}, which only the ports process says"))

    def _say(self, message: FromPorts) -> None:
        self._unsent.append(encode(message))
        if len(self._unsent) == 1:
            self._flush()
        elif len(self._unsent) > _MAX_UNSENT:
            raise _Stop

    def _flush(self) -> None:
        interest = select.EPOLLIN
        while self._unsent:
            try:
                self._line.send(self._unsent[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                interest |= select.EPOLLOUT
                break
            except ConnectionError:
                raise _Stop from None
            self._unsent.popleft()
        self._epoll.modify(self._line.fileno(), interest)

    # --- ports that come and go ---

    def _scan(self, now_ns: int) -> None:
        self._scan_ns = now_ns + SCAN_NS
        plugged = self._kept.scan()
        if (plugged is not None) != self._system_there:
            self._system_there = plugged is not None
            verb = "answers" if self._system_there else "does not answer; looking for it every second"
            self._say(Fault(text=f"the {self._kept.api} MIDI system {verb}"))
        plugged = plugged or Plugged(inputs=(), outputs=())
        self._lose(plugged)
        links = connect(self._wants.values(), plugged, self._links)
        if self._is_new(links) and not self._is_calm(now_ns):
            return
        self._changed_ns = None
        self._links = links
        self._open_inputs()
        self._open_outputs(now_ns)
        self._report_inputs()
        self._route(now_ns)
        for raw in self._outputs.keys() - self._linked("out"):  # after the routes, which ended what sounded there
            self._kept.close(self._outputs.pop(raw))

    def _is_new(self, links: dict[_Key, tuple[str, ...]]) -> bool:
        """Whether these links ask for a port to be opened."""
        return any(
            raw not in (self._inputs if direction == "in" else self._outputs) and raw not in self._refused
            for (_, direction), names in links.items()
            for raw in names
        )

    def _is_calm(self, now_ns: int) -> bool:
        due_ns = self._scheduler.next_due_ns
        if due_ns is None or due_ns - now_ns >= _CALM_NS:
            return True
        self._changed_ns = self._changed_ns or now_ns
        return now_ns - self._changed_ns >= _PATIENCE_NS

    def _lose(self, plugged: Plugged) -> None:
        """Let go of what vanished or was cut."""
        for raw in self._gone(self._inputs, plugged.inputs):
            self._kept.close(self._inputs.pop(raw))
            self._unlink("in", raw)
        for raw in self._gone(self._outputs, plugged.outputs):
            self._scheduler.lost(raw)
            self._kept.close(self._outputs.pop(raw))
            self._unlink("out", raw)
        self._refused &= {*plugged.inputs, *plugged.outputs}

    def _gone(self, opened: dict[str, int], plugged: tuple[str, ...]) -> list[str]:
        return [raw for raw, handle in opened.items() if raw not in plugged or self._kept.is_cut(handle)]

    def _unlink(self, direction: Direction, raw: str) -> None:
        for key, names in self._reported.items():
            if key[1] == direction and raw in names:
                self._reported[key] = tuple(name for name in names if name != raw)
                self._say(Down(port=key[0], direction=direction, name=name_of(raw)))

    def _linked(self, direction: Direction) -> set[str]:
        return {raw for key, names in self._links.items() if key[1] == direction for raw in names}

    def _open_inputs(self) -> None:
        wanted = self._linked("in")
        for raw in self._inputs.keys() - wanted:
            self._kept.close(self._inputs.pop(raw))
        for raw in wanted - self._inputs.keys():
            try:
                self._inputs[raw] = self._kept.open_input(raw)
            except KeeperDied:
                raise
            except PortError as error:
                self._refuse(raw, error)

    def _open_outputs(self, now_ns: int) -> None:
        for raw in self._linked("out") - self._outputs.keys():
            try:
                self._outputs[raw] = self._kept.open_output(raw)
            except KeeperDied:
                raise
            except PortError as error:
                self._refuse(raw, error)
                continue
            self._write_all(self._scheduler.opened(raw, now_ns=now_ns))

    def _refuse(self, raw: str, error: PortError) -> None:
        if raw not in self._refused:
            self._refused.add(raw)
            self._say(Fault(text=str(error)))

    def _report_inputs(self) -> None:
        for key, want in self._wants.items():
            if key[1] == "in":
                self._report(key, want, tuple(raw for raw in self._links.get(key, ()) if raw in self._inputs))

    def _route(self, now_ns: int) -> None:
        for key, want in self._wants.items():
            if key[1] == "out":
                raw = self._output_of(want)
                self._write_all(self._scheduler.route(want.port, raw, now_ns=now_ns))
                self._report(key, want, () if raw is None else (raw,))

    def _output_of(self, want: Want) -> str | None:
        names = [raw for raw in self._links.get((want.port, "out"), ()) if raw in self._outputs]
        if want.same_as is not None:
            device = self._last_played.get(want.same_as)
            names = [raw for raw in names if device_of(raw) == device] or names
        return names[0] if names else None

    def _report(self, key: _Key, want: Want, names: tuple[str, ...]) -> None:
        before = self._reported.get(key, ())
        for raw in before:
            if raw not in names:
                self._say(Down(port=key[0], direction=key[1], name=name_of(raw)))
        for raw in names:
            if raw not in before:
                self._say(Up(port=key[0], direction=key[1], name=name_of(raw)))
        self._reported[key] = names
        if names:
            self._waiting.discard(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._say(Waiting(port=key[0], direction=key[1], pattern=want.pattern))

    # --- leaving ---

    def _silence(self) -> None:
        released = [self._write(write) for write in self._scheduler.panic(Panic(), now_ns=time.monotonic_ns())]
        with contextlib.suppress(_Stop):
            for message in released:
                self._say(message)

    def _leave(self) -> None:
        self._kept.leave()
        self._epoll.close()
        self._alarm.close()
        os.close(self._bell)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="antiphon.ports.process", description="Own the MIDI ports of a daemon.")
    options.add_argument("--fd", type=int, required=True, help="our end of the line, an open SOCK_SEQPACKET socket")
    options.add_argument("--api", default="auto", choices=("auto", "alsa", "jack", "loopback"))
    options.add_argument("--late-ms", type=int, default=20, help="a note-on later than this is dropped")
    options.add_argument("--loopback", type=Path, metavar="PATH", help="where the loopback's socket shall lie")
    options.add_argument("--witness", type=int, help="a socket that the keeper tells when every note has been ended")
    return options


def main() -> int:
    options = parser().parse_args()
    line = socket.socket(fileno=options.fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        kept = Kept(api=options.api, loopback_path=options.loopback, witness=options.witness)
    except PortError as error:
        with contextlib.suppress(OSError):
            line.send(encode(Fault(text=str(error))))
        return 1
    priority, locked = be_prompt()
    process = Process(kept=kept, line=line, late_ns=options.late_ms * 1_000_000)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, process.finish)
    try:
        process.run(priority=priority, locked=locked)
    except KeeperDied as error:
        with contextlib.suppress(OSError):
            line.send(encode(Fault(text=str(error))), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
