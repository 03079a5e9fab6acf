"""Memory on large pages, which save whatever streams through it most of its address translations."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

PAGE = 2 << 20
"""Bytes of a large page."""

SPARE = 16 << 10
"""Bytes past the end that a prefetch may name."""


def zeros(nbytes: int, dtype: Any) -> Any:
    """A 1-D array of `dtype` over `nbytes` of zeros that begin on a page of their own."""
    size = -(-(nbytes + SPARE) // PAGE) * PAGE + PAGE
    # Private, or Linux would take it for a file in memory, which has small pages.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages plays all the same
            memory.madvise(mmap.MADV_HUGEPAGE)
    spare = np.frombuffer(memory, np.uint8)
    start = -spare.ctypes.data % PAGE
    return spare[start : start + nbytes].view(dtype)
