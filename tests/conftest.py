"""What every test stands on: what a machine must have for it, a JACK server of its own, and a clean leave.

Owns the JACK server of a test run (one for the whole run, under a private name) and ends it whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import settings

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")
MARK = "ANTIPHON_TEST_RUN"
# How long a thread or a process may take to go after its test has ended.
GRACE_S = float(os.environ.get("ANTIPHON_TEST_GRACE_S", "3"))

# Timings are benchmarks, never asserts; and a run leaves no example database in the working directory.
settings.register_profile("house", deadline=None, database=None)
settings.load_profile("house")


# --- what a machine must have -------------------------------------------------------------------------------


class Need(NamedTuple):
    """What tests under one marker need of the machine: `met` asks for it, `what` names it for people."""

    what: str
    met: Callable[[], bool]


NEEDS = {
    "jack": Need(what="JACK (jackd; `make setup` installs it)", met=lambda: shutil.which("jackd") is not None),
}
SKIPPED: dict[str, int] = dict.fromkeys(NEEDS, 0)


def pytest_configure(config: pytest.Config) -> None:
    """Mark every process below us, so that one left behind is seen even when its parent is gone."""
    os.environ[MARK] = str(os.getpid())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"jack_server", "jack_name"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("jack")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, need in NEEDS.items():
        if item.get_closest_marker(name) is None or need.met():
            continue
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs {need.what}, and nothing is skipped where CI=true", pytrace=False)
        SKIPPED[name] += 1
        pytest.skip(f"needs {need.what}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, need in NEEDS.items():
        terminalreporter.write_line(f"tests skipped for want of {need.what}: {SKIPPED[name]}")


# --- JACK ---------------------------------------------------------------------------------------------------

# Opens a client the way every JACK program does; exit code 0 when the server let it in.
KNOCK = """
import ctypes, sys
jack = ctypes.CDLL("libjack.so.0")
jack.jack_client_open.restype = ctypes.c_void_p
jack.jack_client_close.argtypes = [ctypes.c_void_p]
NO_START_SERVER, SERVER_NAME = 0x01, 0x04
status = ctypes.c_int()
client = jack.jack_client_open(
    b"knock", NO_START_SERVER | SERVER_NAME, ctypes.byref(status), sys.argv[1].encode())
sys.exit(0 if client and jack.jack_client_close(client) == 0 else 1)
"""


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@pytest.fixture(scope="session")
def jack_server() -> Iterator[str]:
    """A JACK server without hardware, synchronous, periods of 64 frames at 48 kHz; yields its name.

    `JACK_DEFAULT_SERVER` names it for this process and its children while the run lasts.
    """
    before = {key: os.environ.get(key) for key in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")}
    with contextlib.ExitStack() as stack:
        name = _start_jack(stack)
        os.environ["JACK_DEFAULT_SERVER"] = name
        os.environ["JACK_NO_START_SERVER"] = "1"
        try:
            yield name
        finally:
            for key, value in before.items():
                os.environ.pop(key, None)
                if value is not None:
                    os.environ[key] = value


@pytest.fixture
def jack_name() -> Iterator[str]:
    """The name for a JACK server that a test starts by itself."""
    with _lent_name() as name:
        yield name


@contextlib.contextmanager
def _lent_name() -> Iterator[str]:
    """A name for a JACK server that no other run uses now.

    JACK counts a server that was killed among the eight that a machine may have until one of the same name starts:
    names must come round again. A lock file holds each while it is in use.
    """
    for number in range(1, 9):
        name = f"antiphon-test-{number}"
        with open(Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield name
            return
    pytest.fail("every name for a JACK server is in use", pytrace=False)


def _start_jack(stack: contextlib.ExitStack) -> str:
    """Start a server that ends with `stack`; returns its name."""
    said = b""
    for _ in range(3):  # a name may be blocked by a dead server whose pid came round again
        name = stack.enter_context(_lent_name())
        log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
        server = subprocess.Popen(
            ["jackd", "-n", name, "-r", "-S", "--no-mlock", "-d", "dummy", "-r", "48000", "-p", "64"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "JACK_NO_AUDIO_RESERVATION": "1"},
            preexec_fn=_die_with_parent,
        )
        stack.callback(_end, server)
        if _answers(server, name, patience_s=20.0):
            return name
        log.seek(0)
        said = log.read()
    pytest.fail(f"jackd did not answer:\n{said.decode(errors='replace')}", pytrace=False)


def _answers(server: subprocess.Popen[bytes], name: str, *, patience_s: float) -> bool:
    until = time.monotonic() + patience_s
    while time.monotonic() < until and server.poll() is None:
        knock = subprocess.run([sys.executable, "-c", KNOCK, name], capture_output=True, check=False)
        if knock.returncode == 0:
            return server.poll() is None
        time.sleep(0.05)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()  # lets jackd give its shared memory back
    try:
        server.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


# --- a clean leave ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    left = _after_grace(lambda: [thread for thread in threading.enumerate() if _is_ours(thread, before)])
    if left:
        pytest.fail(f"threads left behind: {[thread.name for thread in left]}", pytrace=False)


def _is_ours(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    # A dummy stands for a thread of a C library that once called into Python; it outlives that thread.
    return thread not in before and thread.is_alive() and not isinstance(thread, threading._DummyThread)


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """Fail a test that leaves a process behind, an orphaned grandchild included, and end that process."""
    before = set(_processes())
    yield
    left = _after_grace(lambda: [(pid, what) for pid, what in _processes().items() if pid not in before])
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    if left:
        pytest.fail(f"processes left behind: {left}", pytrace=False)


def _processes() -> dict[int, str]:
    """The living processes that this run has started, by pid, each with its command line."""
    mark = f"{MARK}={os.getpid()}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            what = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or belongs to another user
        # The resource tracker of multiprocessing is Python's own and stays until the interpreter ends.
        if state == "Z" or "multiprocessing.resource_tracker" in what:
            continue
        if marked or int(parent) == os.getpid():
            found[int(entry.name)] = what
    return found


@pytest.fixture(autouse=True)
def _no_file_left() -> Iterator[None]:
    """Fail a test that leaves a file in its working directory (names with a dot are tools')."""
    here = Path.cwd()
    before = _files(here)
    yield
    left = sorted(_files(here) - before)
    if left:
        pytest.fail(f"files left in {here}: {left}", pytrace=False)


def _files(here: Path) -> set[str]:
    return {entry.name for entry in here.iterdir() if not entry.name.startswith((".", "__pycache__"))}


def _after_grace(left: Callable[[], list[T]]) -> list[T]:
    until = time.monotonic() + GRACE_S
    while (rest := left()) and time.monotonic() < until:
        time.sleep(0.02)
    return rest
