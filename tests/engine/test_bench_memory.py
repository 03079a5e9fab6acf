"""What the memory's speed is measured on."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.engine import bench_memory
from antiphon.engine.free_memory import free_memory


def test_memory_is_all_there_in_whole_large_pages() -> None:
    memory = bench_memory.memory_of(3_000_000)
    assert memory.nbytes == 4 << 20
    assert memory.ctypes.data % (2 << 20) == 0
    assert (memory == 1).all()


def test_the_large_reading_is_larger_than_the_last_cache_unless_memory_is_short() -> None:
    large = bench_memory.large_bytes()
    assert large == 2 * bench_memory.last_cache_bytes() or large <= free_memory().nbytes
    assert bench_memory.last_cache_bytes() >= 1 << 18


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("nbytes", [100, 1 << 20, 1 << 40])
def test_any_size_can_be_read_on_any_number_of_threads(threads: int, nbytes: int) -> None:
    memory = bench_memory.memory_of(1 << 21)
    contender = bench_memory.reader(memory, name="memory", nbytes=nbytes, threads=threads)
    (figure,) = contender.run()
    assert np.isfinite(figure)
    assert figure > 0


def test_a_devices_memory_is_read_too() -> None:
    (figure,) = bench_memory.device_reader("cpu", name="memory", nbytes=64 << 20).run()
    assert 0 < figure < np.inf
