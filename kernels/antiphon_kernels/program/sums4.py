"""RWKV-4's time mixing between its matrices, some channels of one timeline at a time: SUMS_4.

Every channel remembers by itself, so that any part of them needs no other thread. The rows of a timeline follow one
another.
"""

from __future__ import annotations

from typing import Any

from antiphon_kernels.float32 import sigmoid
from antiphon_kernels.jit import piece
from antiphon_kernels.program.ops import FIRST
from antiphon_kernels.window import window
from antiphon_kernels.wkv4_step.numba_cpu import recur

# Columns of the operation: slots, the place of aa, bb and pp within the state, and vectors.
R, K, V, Y, PLACE, U, LOG_W = range(FIRST, FIRST + 7)

TOGETHER = 64
"""Channels of one piece of work: four 512-bit vectors."""


@piece
def part_row(
    floats: Any, op: Any, at: int, r: Any, k: Any, v: Any, y: Any, aa: Any, bb: Any, pp: Any
) -> None:  # fmt: skip
    """One row of the channels that begin at `at`: aa, bb and pp [n] move on and `y` [n] is written."""
    size = y.size
    recur(k, v, window(floats, op[U] + at, size), window(floats, op[LOG_W] + at, size), aa, bb, pp, y)
    for i in range(size):
        y[i] *= sigmoid(r[i])
