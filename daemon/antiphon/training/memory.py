"""How the process hands memory back: not at all while it trains.

A training step takes and frees the same few hundred megabytes again and again. glibc gives large blocks back to the
kernel at once and gets them again page by page, which costs more than the arithmetic on them; told to keep them, a
step on a CPU takes about two thirds of the time.
"""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc; mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 256 << 20


def keep_freed_memory() -> bool:
    """From now on freed blocks stay with this process. False where the C library cannot be told."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
