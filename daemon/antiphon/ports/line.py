"""The daemon's end of the line to the ports process: starts it, speaks with it, and cleans up after its death.

Owns the process, the socket and a mirror of the sounding notes, by port number. All of it lives in the asyncio loop
that started it. If the process is killed its keeper ends the notes; if the keeper is killed too, or instead, its
notes sound on, so a one-shot panic process ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from antiphon.errors import PortError
from antiphon.music.events import Heard
from antiphon.ports.codec import MAX_PACKET, PacketError, decode, encode
from antiphon.ports.messages import (
    Down,
    Dropped,
    Fault,
    FromPorts,
    Plan,
    Quit,
    Ready,
    Released,
    ToPorts,
    Up,
    Waiting,
    Want,
)
from antiphon.ports.midi import SYSTEM, is_note_off, is_note_on
from antiphon.ports.orders import QUIET
from antiphon.ports.sounding import Held, Sounding

_START_S: Final = 10.0
_LEAVE_S: Final = 3.0
_DEAF_S: Final = 0.5
_KEEPER_S: Final = 3.0
_PANIC_S: Final = 30.0
_MAX_UNSENT: Final = 4096
_FROM_PORTS: Final = (Ready, Up, Down, Waiting, Heard, Released, Dropped, Fault)


class Line:
    """The line. `await Line.start(...)`, then `open()` once messages may come, `send(...)`, `await stop()`."""

    def __init__(
        self,
        *,
        sock: socket.socket,
        witness: socket.socket,
        process: asyncio.subprocess.Process,
        wants: Sequence[Want],
        on_message: Callable[[FromPorts], None],
        on_death: Callable[[PortError], None],
        loopback_path: Path,
        own_folder: Path | None,
    ) -> None:
        self.loopback_path = loopback_path
        self.sounding: Sounding[int] = Sounding()
        self.api = ""
        self.priority = 0
        self.locked = False
        self._socket = sock
        self._witness = witness
        self._process = process
        self._wants = tuple(wants)
        self._on_message = on_message
        self._on_death = on_death
        self._own_folder = own_folder
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._early: deque[FromPorts] = deque()
        self._unsent: deque[bytes] = deque()
        self._outputs: dict[int, str] = {}
        self._channels: dict[int, set[int]] = {}
        self._open = False
        self._closed = False
        self._stopping = False
        self._burial: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The ports process."""
        return self._process.pid

    @classmethod
    async def start(
        cls,
        *,
        api: str = "auto",
        wants: Sequence[Want] = (),
        late_ms: int = 20,
        loopback_path: Path | str | None = None,
        on_message: Callable[[FromPorts], None],
        on_death: Callable[[PortError], None],
    ) -> Line:
        """Start the ports process and wait for its first word. Raises PortError when it cannot work.

        api: auto, alsa, jack or loopback. late_ms: a note-on later than this is dropped.
        loopback_path: where the loopback's socket shall lie; without it, in a new directory (see `loopback_path`).
        on_message: called in the loop with each message once the line is open, and not before.
        on_death: called in the loop, at most once, after the process died uncalled for and its notes were ended.
        """
        own_folder = None
        if not loopback_path:
            own_folder = Path(tempfile.mkdtemp(prefix="antiphon-"))
            loopback_path = own_folder / "loopback.sock"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        witness, testimony = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, testimony:
            ours.setblocking(False)
            witness.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working directory is no place to import from
                "-m",
                "antiphon.ports.process",
                f"--fd={theirs.fileno()}",
                f"--api={api}",
                f"--late-ms={late_ms}",
                f"--loopback={loopback_path}",
                f"--witness={testimony.fileno()}",
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), testimony.fileno()),
                start_new_session=True,  # Ctrl-C in the daemon's terminal is the daemon's to handle
            )
        line = cls(
            sock=ours,
            witness=witness,
            process=process,
            wants=wants,
            on_message=on_message,
            on_death=on_death,
            loopback_path=Path(loopback_path),
            own_folder=own_folder,
        )
        line._loop.add_reader(ours.fileno(), line._read)
        try:
            async with asyncio.timeout(_START_S):
                await line._ready
        except TimeoutError:
            await line.stop()
            raise PortError(f"the ports process said nothing within {_START_S:.0f} s", where="ports") from None
        except BaseException:
            await line.stop()
            raise
        return line

    def open(self) -> None:
        """Ask for the wanted ports and let messages come."""
        self._open = True
        while self._early:
            self._on_message(self._early.popleft())
        for want in self._wants:
            self.send(want)

    def send(self, message: ToPorts) -> None:
        """Say something; never waits. Raises PortError for a message that cannot be said.

        On a line that is dead nothing happens: `on_death` tells, or `stop` was called.
        """
        packet = encode(message)
        if self._closed:
            return
        if isinstance(message, Plan):
            used = self._channels.setdefault(message.port, set())
            used.update(due.data[0] & 15 for due in message.dues if due.data[0] < SYSTEM)
        self._unsent.append(packet)
        if len(self._unsent) == 1:
            self._flush()
        elif len(self._unsent) > _MAX_UNSENT:
            self._die()

    async def stop(self) -> None:
        """Have everything silenced, and wait until the process is gone. May be called again."""
        self._stopping = True
        self.send(Quit())
        if self._burial is None:
            await self._gone(_LEAVE_S)
            await self._end_notes()
        else:
            await self._burial
        self._close()
        self._witness.close()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)

    # --- speaking ---

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._socket.send(self._unsent[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                self._die()
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        while not self._closed:
            try:
                packet = self._socket.recv(MAX_PACKET + 1)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._die()
                return
            try:
                message = decode(packet)
            except PacketError as error:
                message = Fault(text=str(error))
            if isinstance(message, _FROM_PORTS):
                self._take(message)

    def _take(self, message: FromPorts) -> None:
        match message:
            case Ready():
                self.api, self.priority, self.locked = message.api, message.priority, message.locked
                if not self._ready.done():
                    self._ready.set_result(None)
            case Fault() if not self._ready.done():
                self._ready.set_exception(PortError(message.text))
                return
            case Released():
                self._mirror(message)
            case Up(direction="out"):
                self._outputs[message.port] = message.name
            case Down(direction="out"):
                self._outputs.pop(message.port, None)
            case _:
                pass
        if self._open:
            self._on_message(message)
        else:
            self._early.append(message)

    def _mirror(self, released: Released) -> None:
        data = released.data
        if is_note_on(data):
            self.sounding.begin(
                Held(
                    place=released.port,
                    channel=data[0] & 15,
                    pitch=data[1],
                    port=released.port,
                    lane=released.lane,
                    plan=released.plan,
                    note=released.note,
                )
            )
        elif is_note_off(data):
            held = self.sounding.of((released.port, released.lane, released.note))
            if held is not None:
                self.sounding.end(held)

    # --- death ---

    def _die(self) -> None:
        """The process is gone, or deaf."""
        if self._closed:
            return
        self._close()
        if not self._ready.done():
            self._ready.set_exception(PortError("the ports process ended before it was ready", where="ports"))
            return
        if not self._stopping:
            self._burial = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        code = await self._gone(_DEAF_S)
        quiet = await self._end_notes()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        after = "its notes were ended" if quiet else "its notes could not all be ended"
        self._on_death(PortError(f"the ports process died ({how}); {after}", where="ports"))

    async def _gone(self, patience_s: float) -> int:
        """The exit code of the process, which is killed where it takes longer than this to end."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def _end_notes(self) -> bool:
        """Wait for the keeper to end the notes of the dead process; if it is dead too, do it from outside."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_KEEPER_S):
                if await self._loop.sock_recv(self._witness, len(QUIET)) == QUIET:
                    await self._loop.sock_recv(self._witness, 1)  # it ends: the keeper is gone
                    return True
        return await self._panic()

    async def _panic(self) -> bool:
        """End what the dead process left sounding; False where that did not work."""
        if self.api == "loopback" or not self._outputs:
            return True  # the loopback's devices saw their connection end
        command = ["--api", self.api]
        names = sorted(set(self._outputs.values()))
        for name in names:
            command.append(f"--out={name}")
        for held in self.sounding:
            if held.place in self._outputs:
                command.append(f"--note={names.index(self._outputs[held.place])}:{held.channel}:{held.pitch}")
        channels = {
            (names.index(name), channel)
            for port, name in self._outputs.items()
            for channel in self._channels.get(port, ())
        }
        command += [f"--channel={index}:{channel}" for index, channel in sorted(channels)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "antiphon.ports.panic",
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_PANIC_S):
                return await process.wait() == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unsent.clear()
        fd = self._socket.fileno()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._socket.close()
