"""How fast this machine reads memory: the limit of whatever streams through a model's weights once a token.

The memory is in 2 MiB pages where the system has them. It is read by one thread or by several, each its own share;
once as large as the last cache cannot hold, once as large as the model in question, which a cache may hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from antiphon.engine.bench import Contender
from antiphon.engine.free_memory import free_memory
from antiphon_kernels.large_pages import PAGE, zeros
from antiphon_kernels.memory_read import numba_cpu

Memory = npt.NDArray[np.int64]

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_USUAL_CACHE = 64 << 20  # where the system does not tell how large its last cache is
_A_RUN = 1 << 30  # bytes read in a run at least, beside which starting the threads takes no time
_A_DEVICES_RUN = 4 << 30  # the same of a GPU, beside which its launches take none


def last_cache_bytes() -> int:
    """The largest of the first processor's caches; 64 MiB where the system does not tell."""
    told = [size.read_text().strip() for size in _CACHES.glob("index*/size")]
    return max((int(size[:-1]) << 10 for size in told if size.endswith("K")), default=_USUAL_CACHE)


def large_bytes() -> int:
    """Twice the last cache, so that little of it is still there at the next pass; at most a quarter of what is free."""
    return min(2 * last_cache_bytes(), free_memory().nbytes // 4)


def memory_of(nbytes: int) -> Memory:
    """`nbytes` (rounded up to whole 2 MiB pages) of memory that was written to, so that all of it is there."""
    memory: Memory = zeros(-(-nbytes // PAGE) * PAGE, np.int64)
    memory[:] = 1
    return memory


def reader(memory: Memory, *, name: str, nbytes: int, threads: int) -> Contender:
    """Reads the first `nbytes` of `memory` (all of it, if it is smaller), gigabytes a second."""
    return Contender(name=name, threads=threads, run=_reading(memory, nbytes, threads))


def _reading(memory: Memory, nbytes: int, threads: int) -> Callable[[], Sequence[float]]:
    line = numba_cpu.STEP
    each = max(1, min(nbytes // 8, memory.size) // threads // line) * line
    shares = [memory[each * i : each * (i + 1)] for i in range(threads)]
    passes = max(1, -(-_A_RUN // (8 * each * threads)))
    numba_cpu.read(memory[:line], passes=1)  # compiled before the clock runs

    def read(readers: ThreadPoolExecutor, times: int) -> None:
        for done in [readers.submit(numba_cpu.read, share, passes=times) for share in shares]:
            done.result()

    def run() -> list[float]:
        with ThreadPoolExecutor(threads, "reader") as readers:
            read(readers, 1)  # what a cache can hold is in it, as a model's weights are after the first token
            began = time.perf_counter()
            read(readers, passes)
            return [8 * each * threads * passes / (time.perf_counter() - began) / 1e9]

    return run


def device_reader(device: str, *, name: str, nbytes: int) -> Contender:
    """Reads `nbytes` of the memory of a device of PyTorch's, gigabytes a second."""
    numbers = torch.zeros(max(1, nbytes // 4), dtype=torch.float32, device=device)
    passes = max(2, -(-_A_DEVICES_RUN // (4 * numbers.numel())))

    def run() -> list[float]:
        numbers.sum().item()  # all that was asked for before is done
        began = time.perf_counter()
        for _ in range(passes - 1):
            numbers.sum()
        numbers.sum().item()
        return [4 * numbers.numel() * passes / (time.perf_counter() - began) / 1e9]

    return Contender(name=name, threads=1, run=run)
