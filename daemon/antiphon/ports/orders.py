"""What the ports process and its keeper say to each other: kind byte, then MIDI bytes or, off the hot path, JSON.

Both are started together from the same installation, so this needs no version and refuses nothing.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

MAX_ORDER: Final = 131_072
"""Bytes; a list of a thousand ports."""

# from the ports process
SCAN: Final = 1
OPEN_INPUT: Final = 2
OPEN_OUTPUT: Final = 3
CLOSE: Final = 4
WRITE: Final = 5
LEAVE: Final = 6

# from the keeper
STANDS: Final = 64
SCANNED: Final = 65
OPENED: Final = 66
REFUSED: Final = 67
HEARD: Final = 68

QUIET: Final = b"quiet"
"""What the keeper tells its witness once every note has been ended."""

_WRITE = struct.Struct("<BH")
_HEARD = struct.Struct("<BHq")


def order(kind: int, **fields: Any) -> bytes:
    """Anything but `WRITE` and `HEARD`."""
    return bytes((kind,)) + json.dumps(fields).encode()


def fields(packet: bytes) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(packet[1:])
    return result


def write(handle: int, data: bytes) -> bytes:
    return _WRITE.pack(WRITE, handle) + data


def written(packet: bytes) -> tuple[int, bytes]:
    _, handle = _WRITE.unpack_from(packet)
    return handle, packet[_WRITE.size :]


def heard(handle: int, at_ns: int, data: bytes) -> bytes:
    return _HEARD.pack(HEARD, handle, at_ns) + data


def was_heard(packet: bytes) -> tuple[int, int, bytes]:
    _, handle, at_ns = _HEARD.unpack_from(packet)
    return handle, at_ns, packet[_HEARD.size :]
