"""The definition of a read, in plain NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def read(memory: npt.NDArray[np.int64], *, passes: int) -> int:
    """`passes` times the sum of `memory`, modulo 2**64 as a signed number."""
    with np.errstate(over="ignore"):
        return int(memory.sum(dtype=np.int64) * np.int64(passes))
