"""How much memory is free for a model: the machine's, within the limits that this process stands under, or a GPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

ROOT = Path("/")
_NO_LIMIT = 1 << 60
_MOST_FILE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Bytes that may still be taken on a device. limit: what sets them, in words."""

    nbytes: int
    limit: str


def free_on(device: str, *, root: Path = ROOT) -> Free:
    """What is free on `cpu` or `cuda:N`. root: where /proc and /sys are."""
    if device == "cpu":
        return free_memory(root)
    free, _ = torch.cuda.mem_get_info(device)
    return Free(nbytes=int(free), limit=f"the memory of {device}")


def free_memory(root: Path = ROOT) -> Free:
    """What Linux would give this process without swapping: of the machine, and of every control group around it.

    Pages of files do not count as taken, the kernel gives them up. Where neither is told, no limit is known.
    """
    known = [Free(nbytes=_NO_LIMIT, limit="nothing that is known"), *_machine(root), *_groups(root)]
    return min(known, key=lambda free: free.nbytes)


def _machine(root: Path) -> Iterator[Free]:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and (number := _number(rest.removesuffix("kB"))) is not None:
            yield Free(nbytes=1024 * number, limit="the machine's memory")


def _groups(root: Path) -> Iterator[Free]:
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not path.startswith("/"):
            continue
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        # Seen from within a container the path may lead to nowhere; the mount itself is then its group.
        for group in (inside, *inside.parents) if ".." not in inside.parts else (PurePosixPath("."),):
            yield from _group(base / group, *names)


def _group(folder: Path, most: str, taken: str, reclaimable: str) -> Iterator[Free]:
    limit = next((_number(line) for line in _lines(folder / most)), None)
    used = next((_number(line) for line in _lines(folder / taken)), None)
    if limit is None or used is None or limit >= _NO_LIMIT:
        return
    files = 0
    for line in _lines(folder / "memory.stat"):
        name, _, rest = line.partition(" ")
        if name == reclaimable:
            files = _number(rest) or 0
    yield Free(nbytes=max(0, limit - max(0, used - files)), limit=f"the limit of {limit >> 20} MiB on this service")


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError), path.open() as file:
        return file.read(_MOST_FILE).splitlines()
    return []


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
