"""Waking up on time: a kernel timer for the long wait, a short spin for the last 200 microseconds.

Owns a timerfd, which wakes an epoll at a nanosecond date where epoll's own timeout rounds up to a millisecond; and
knows how to ask the kernel for real-time scheduling. Python below 3.13 has no timerfd, hence ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import struct
import sys
import time
from typing import Final

SPIN_NS: Final = 200_000
"""A timer alone wakes 50 to 150 µs late; woken this much early, the spin ends within 1 µs of the moment."""

PRIORITY: Final = 50
"""In the middle of 1 to 99: above all ordinary programs, below what keeps a JACK or a kernel alive (60 and more)."""

_CLOCK_MONOTONIC: Final = 1  # linux/time.h
_TFD_TIMER_ABSTIME: Final = 1  # linux/timerfd.h
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_PR_SET_TIMERSLACK: Final = 29  # linux/prctl.h
_MCL_ON_FAULT: Final = 1 | 2 | 4  # current, future, but each page only once it is used; asm-generic/mman.h
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
_SECOND_NS: Final = 1_000_000_000
_SWITCH_S: Final = 50e-6

_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """A timer file descriptor that becomes readable at a moment of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._set_ns = 0

    def set(self, at_ns: int | None) -> None:
        """Ring at `at_ns`; None never."""
        wanted_ns = 0 if at_ns is None else max(1, at_ns)
        if wanted_ns == self._set_ns:
            return
        self._set_ns = wanted_ns
        seconds, nanoseconds = divmod(wanted_ns, _SECOND_NS)
        _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, struct.pack("@qqqq", 0, 0, seconds, nanoseconds), None)

    def rung(self) -> None:
        """Take note that it rang."""
        self._set_ns = 0
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


def spin_until(at_ns: int) -> None:
    while time.monotonic_ns() < at_ns:
        pass


def be_prompt() -> tuple[int, bool]:
    """Make this process as punctual as it may be: (SCHED_FIFO priority granted or 0, whether memory is locked)."""
    sys.setswitchinterval(_SWITCH_S)  # an input's thread never waits longer than this for the interpreter
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    locked = _may_lock() and _libc.mlockall(_MCL_ON_FAULT) == 0
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return 0, locked
    return PRIORITY, locked


def may_be_prompt() -> bool:
    """Whether this process would be granted real-time scheduling."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        os.sched_setscheduler(0, *before)
    except OSError:
        return False
    return True


def promote_threads() -> None:
    """Give the threads that libraries made here the priority of their process, where it was granted any."""
    if os.sched_getscheduler(0) != os.SCHED_FIFO:
        return
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.sched_getscheduler(int(thread)) != os.SCHED_FIFO:
                os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(PRIORITY))


def _may_lock() -> bool:
    """Whether locking has no limit; under one, a later thread or JACK's shared memory would not fit and fail."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False
