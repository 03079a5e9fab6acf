"""How a kernel is compiled: Numba without the interpreter lock, kept on disk between processes.

Numba's own cache looks only at the one file that a function stands in, gives up at import where no folder is
writable, and raises for good on a file that a power cut left half written. The cache here is keyed on every
source file of this package, falls back from folder to folder, and treats a broken entry as a missing one.

No kernel uses fast-math: the compiler would drop the checks that find a NaN, and take sums in whatever order suits the
processor, so that a seed would give other music on another machine, or once a kernel comes from the cache. Sums that
should be fast have their order written down (`lanes.py`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numba.extending
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE = Path(__file__).resolve().parent


def named(function: F, name: str) -> F:
    """`function`, which was made inside another one, under a name that no other function of its module has."""
    function.__name__ = function.__qualname__ = name
    return function


def _require_name(function: Callable[..., Any]) -> None:
    """Refuse a function whose name others may share.

    In compiled code a function is known by its name, its argument types and a number that counts within a process.
    Code from the disk was numbered by other processes, so two functions of one name could be taken for each other.
    """
    if "<locals>" in function.__qualname__:
        raise ValueError(f"{function.__qualname__} must be given a name of its own, see `named`")


def kernel(function: F) -> F:
    """An entry point: compiled on the first call, found again on disk by later processes."""
    _require_name(function)
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    compiled._cache = _Cache(compiled.py_func)
    return cast(F, compiled)


def piece(function: F) -> F:
    """A part of a kernel, compiled into the kernels that call it. ValueError when its name may not be its own."""
    _require_name(function)
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def intrinsic(typing: F) -> Callable[..., Any]:
    """An operation written in the compiler's own language; `typing` gives (signature, code generator)."""
    return cast(Callable[..., Any], numba.extending.intrinsic(typing))


def chosen_by_type(function: Callable[..., Any]) -> Callable[[F], F]:
    """What `function` becomes in compiled code: the decorated function picks an implementation by argument types."""
    return cast(Callable[[F], F], numba.extending.overload(function))


@functools.cache
def source_stamp() -> str:
    """SHA-256 over every Python file of this package: what compiled code depends on."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def cache_folder() -> Path:
    """The first folder that can be written: NUMBA_CACHE_DIR, beside the source, systemd's, the user's, a fresh one."""
    for folder in _candidates():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return Path(tempfile.mkdtemp(prefix="antiphon-kernels-"))


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / "antiphon-kernels"
    yield _PACKAGE / "__pycache__"
    if given := os.environ.get("CACHE_DIRECTORY"):
        yield Path(given.split(":")[0]) / "kernels"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        yield Path(home) / "antiphon" / "kernels"


class _Locator(_CacheLocator):  # type: ignore[misc]  # Numba has no types
    """Where compiled kernels lie and what makes them stale."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return source_stamp()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], _path: str) -> _Locator:
        return cls(function)


class _CacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            # A half-written or foreign file may raise anything while it is unpickled; compiling again is always right.
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        # A full or read-only disk costs the next process a compilation, not this one its music.
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
