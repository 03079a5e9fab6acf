"""One message, one packet: the packing that both ends of the line share.

A packet is a kind byte followed by that kind's fields, little-endian, packed with `struct`; nothing is evaluated,
so a broken packet can only be refused. Strings and MIDI data carry a 16-bit length before them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from antiphon.errors import PortError
from antiphon.music.events import Due, Heard
from antiphon.ports.messages import (
    Direction,
    Down,
    Dropped,
    End,
    Fault,
    Message,
    Panic,
    Plan,
    Quit,
    Ready,
    Released,
    Up,
    Waiting,
    Want,
)
from antiphon.ports.midi import is_note_off, is_note_on, is_whole

MAX_PACKET: Final = 65536
"""Bytes. A plan may hold about 3,000 messages; the kernel's default socket buffer takes three such packets."""

_DIRECTIONS: Final[tuple[Direction, Direction]] = ("in", "out")
_NO_PORT: Final = -(2**31)

_WANT = struct.Struct("<iBi")
_PLAN = struct.Struct("<iiqqH")
_DUE = struct.Struct("<qqH")
_END = struct.Struct("<iiq")
_PORT = struct.Struct("<i")
_READY = struct.Struct("<iB")
_NAMED = struct.Struct("<iB")
_HEARD = struct.Struct("<qi")
_RELEASED = struct.Struct("<iiqqqq")
_LENGTH = struct.Struct("<H")


class PacketError(PortError):
    """A packet that is no message, or a message that fits no packet."""


def encode(message: Message) -> bytes:
    """The packet of a message. Raises PacketError when a number or a text is too large for its field."""
    kind = _KINDS.get(type(message))
    if kind is None:
        raise PacketError(f"{type(message).__name__} is not a message of the line", where="ports line")
    try:
        packet = bytes((kind,)) + _PACK[kind](message)
    except (struct.error, UnicodeEncodeError) as error:
        raise PacketError(f"{type(message).__name__} fits no packet: {error}", where="ports line") from error
    if len(packet) > MAX_PACKET:
        raise PacketError(
            f"{type(message).__name__} of {len(packet)} bytes, {MAX_PACKET} at most",
            where="ports line",
            fix="send it in parts",
        )
    return packet


def decode(packet: bytes) -> Message:
    """The message of a packet. Raises PacketError for anything `encode` did not make."""
    if not packet:
        raise PacketError("an empty packet", where="ports line")
    unpack = _UNPACK.get(packet[0])
    if unpack is None:
        raise PacketError(f"a packet of unknown kind {packet[0]}", where="ports line")
    try:
        message, end = unpack(packet)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise PacketError(f"a broken packet of kind {packet[0]}: {error}", where="ports line") from error
    if end != len(packet):
        raise PacketError(f"{len(packet) - end} bytes too many in a packet of kind {packet[0]}", where="ports line")
    return message


def _put(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _take(packet: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(packet, offset)
    start = offset + _LENGTH.size
    end = start + length
    if end > len(packet):
        raise IndexError(f"{length} bytes announced, {len(packet) - start} there")
    return packet[start:end], end


def _take_text(packet: bytes, offset: int) -> tuple[str, int]:
    data, end = _take(packet, offset)
    return data.decode(), end


def _pack_want(m: Want) -> bytes:
    same_as = _NO_PORT if m.same_as is None else m.same_as
    return _WANT.pack(m.port, _DIRECTIONS.index(m.direction), same_as) + _put(m.pattern.encode())


def _unpack_want(packet: bytes) -> tuple[Want, int]:
    port, direction, same_as = _WANT.unpack_from(packet, 1)
    pattern, end = _take_text(packet, 1 + _WANT.size)
    device = None if same_as == _NO_PORT else same_as
    return Want(port=port, direction=_DIRECTIONS[direction], pattern=pattern, same_as=device), end


def _pack_plan(m: Plan) -> bytes:
    parts = [_PLAN.pack(m.port, m.lane, m.plan, m.replaces_from_ns, len(m.dues))]
    for due in m.dues:
        _check(due)
        parts.append(_DUE.pack(due.at_ns, due.note, len(due.data)))
        parts.append(due.data)
    return b"".join(parts)


def _check(due: Due) -> None:
    """What the ports process relies on without looking again."""
    if not is_whole(due.data):
        raise PacketError(f"{due.data.hex(' ') or 'nothing'} is not one whole MIDI message", where="ports line")
    if (is_note_on(due.data) or is_note_off(due.data)) != (due.note > 0):
        raise PacketError(
            f"{due.data.hex(' ')} with identity {due.note}",
            where="ports line",
            fix="a note has an identity above 0, anything else has 0",
        )


def _unpack_plan(packet: bytes) -> tuple[Plan, int]:
    port, lane, plan, replaces_from_ns, count = _PLAN.unpack_from(packet, 1)
    offset = 1 + _PLAN.size
    dues = []
    for _ in range(count):
        at_ns, note, length = _DUE.unpack_from(packet, offset)
        start = offset + _DUE.size
        offset = start + length
        if offset > len(packet):
            raise IndexError("a due message is cut off")
        due = Due(at_ns=at_ns, data=packet[start:offset], note=note)
        _check(due)
        dues.append(due)
    message = Plan(port=port, lane=lane, plan=plan, replaces_from_ns=replaces_from_ns, dues=tuple(dues))
    return message, offset


def _pack_end(m: End) -> bytes:
    return _END.pack(m.port, m.lane, m.at_ns)


def _unpack_end(packet: bytes) -> tuple[End, int]:
    port, lane, at_ns = _END.unpack_from(packet, 1)
    return End(port=port, lane=lane, at_ns=at_ns), 1 + _END.size


def _pack_panic(m: Panic) -> bytes:
    return _PORT.pack(m.port)


def _unpack_panic(packet: bytes) -> tuple[Panic, int]:
    (port,) = _PORT.unpack_from(packet, 1)
    return Panic(port=port), 1 + _PORT.size


def _pack_quit(m: Quit) -> bytes:
    return b""


def _unpack_quit(packet: bytes) -> tuple[Quit, int]:
    return Quit(), 1


def _pack_ready(m: Ready) -> bytes:
    return _READY.pack(m.priority, m.locked) + _put(m.api.encode())


def _unpack_ready(packet: bytes) -> tuple[Ready, int]:
    priority, locked = _READY.unpack_from(packet, 1)
    api, end = _take_text(packet, 1 + _READY.size)
    return Ready(api=api, priority=priority, locked=(False, True)[locked]), end


def _pack_up(m: Up | Down) -> bytes:
    return _NAMED.pack(m.port, _DIRECTIONS.index(m.direction)) + _put(m.name.encode())


def _unpack_named(packet: bytes) -> tuple[int, Direction, str, int]:
    port, direction = _NAMED.unpack_from(packet, 1)
    name, end = _take_text(packet, 1 + _NAMED.size)
    return port, _DIRECTIONS[direction], name, end


def _unpack_up(packet: bytes) -> tuple[Up, int]:
    port, direction, name, end = _unpack_named(packet)
    return Up(port=port, direction=direction, name=name), end


def _unpack_down(packet: bytes) -> tuple[Down, int]:
    port, direction, name, end = _unpack_named(packet)
    return Down(port=port, direction=direction, name=name), end


def _pack_waiting(m: Waiting) -> bytes:
    return _NAMED.pack(m.port, _DIRECTIONS.index(m.direction)) + _put(m.pattern.encode())


def _unpack_waiting(packet: bytes) -> tuple[Waiting, int]:
    port, direction, pattern, end = _unpack_named(packet)
    return Waiting(port=port, direction=direction, pattern=pattern), end


def _pack_heard(m: Heard) -> bytes:
    return _HEARD.pack(m.at_ns, m.port) + _put(m.data)


def _unpack_heard(packet: bytes) -> tuple[Heard, int]:
    at_ns, port = _HEARD.unpack_from(packet, 1)
    data, end = _take(packet, 1 + _HEARD.size)
    return Heard(at_ns=at_ns, port=port, data=data), end


def _pack_released(m: Released) -> bytes:
    return _RELEASED.pack(m.port, m.lane, m.plan, m.note, m.due_ns, m.at_ns) + _put(m.data)


def _unpack_released(packet: bytes) -> tuple[Released, int]:
    port, lane, plan, note, due_ns, at_ns = _RELEASED.unpack_from(packet, 1)
    data, end = _take(packet, 1 + _RELEASED.size)
    return Released(port=port, lane=lane, plan=plan, note=note, due_ns=due_ns, at_ns=at_ns, data=data), end


def _pack_dropped(m: Dropped) -> bytes:
    return _RELEASED.pack(m.port, m.lane, m.plan, m.note, m.due_ns, m.at_ns)


def _unpack_dropped(packet: bytes) -> tuple[Dropped, int]:
    port, lane, plan, note, due_ns, at_ns = _RELEASED.unpack_from(packet, 1)
    message = Dropped(port=port, lane=lane, plan=plan, note=note, due_ns=due_ns, at_ns=at_ns)
    return message, 1 + _RELEASED.size


def _pack_fault(m: Fault) -> bytes:
    return _put(m.text.encode())


def _unpack_fault(packet: bytes) -> tuple[Fault, int]:
    text, end = _take_text(packet, 1)
    return Fault(text=text), end


_KINDS: Final[dict[type, int]] = {
    Want: 1,
    Plan: 2,
    End: 3,
    Panic: 4,
    Quit: 5,
    Ready: 64,
    Up: 65,
    Down: 66,
    Waiting: 67,
    Heard: 68,
    Released: 69,
    Dropped: 70,
    Fault: 71,
}
_PACK: Final[dict[int, Callable[..., bytes]]] = {
    1: _pack_want,
    2: _pack_plan,
    3: _pack_end,
    4: _pack_panic,
    5: _pack_quit,
    64: _pack_ready,
    65: _pack_up,
    66: _pack_up,
    67: _pack_waiting,
    68: _pack_heard,
    69: _pack_released,
    70: _pack_dropped,
    71: _pack_fault,
}
_UNPACK: Final[dict[int, Callable[[bytes], tuple[Message, int]]]] = {
    1: _unpack_want,
    2: _unpack_plan,
    3: _unpack_end,
    4: _unpack_panic,
    5: _unpack_quit,
    64: _unpack_ready,
    65: _unpack_up,
    66: _unpack_down,
    67: _unpack_waiting,
    68: _unpack_heard,
    69: _unpack_released,
    70: _unpack_dropped,
    71: _unpack_fault,
}
