"""What systemd needs to know of us, told over its notification socket (sd_notify(3)): ten lines of standard library."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Tell systemd `state`, such as "READY=1"; gives whether anybody listens. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.sendto(state.encode(), address)
    except OSError:
        return False
    return True
