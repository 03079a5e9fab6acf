"""Freed blocks stay with a process that asked for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Resident memory of a child, in pages, before and after it frees 64 MB, having asked to keep them or not.
CHILD = """
import sys
from antiphon.training.memory import keep_freed_memory
import ctypes
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(ctypes.c_size_t(64 << 20))
ctypes.memset(block, 1, 64 << 20)
before = resident()
libc.free(ctypes.c_void_p(block))
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
@pytest.mark.parametrize(("asked", "kept"), [("keep", True), ("plain", False)])
def test_freed_blocks_stay_where_asked(asked: str, kept: bool) -> None:
    ran = subprocess.run([sys.executable, "-c", CHILD, asked], capture_output=True, text=True, check=True)
    given_back = int(ran.stdout)
    assert (given_back < 1 << 20) == kept
