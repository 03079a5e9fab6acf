"""The read that bandwidth is measured with really reads every byte, every time."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon_kernels.memory_read import numba_cpu, reference


@pytest.mark.parametrize("turns", [0, 1, 2, 33])
@pytest.mark.parametrize("passes", [1, 3])
def test_every_number_is_read_in_every_pass(turns: int, passes: int) -> None:
    memory = np.random.default_rng(1).integers(-(2**62), 2**62, turns * numba_cpu.STEP)
    assert numba_cpu.read(memory, passes=passes) == reference.read(memory, passes=passes)


def test_one_number_more_or_less_is_noticed() -> None:
    memory = np.zeros(2 * numba_cpu.STEP, np.int64)
    for place in range(memory.size):
        memory[place] = 1
        assert numba_cpu.read(memory, passes=2) == 2
        memory[place] = 0


@pytest.mark.parametrize(
    "memory", [np.zeros(numba_cpu.STEP + 1, np.int64), np.zeros(2 * numba_cpu.STEP, np.int64)[::2]], ids=["odd", "gaps"]
)
def test_memory_that_cannot_be_read_in_lines_is_refused(memory: np.ndarray) -> None:
    with pytest.raises(ValueError, match="multiple"):
        numba_cpu.read(memory, passes=1)
