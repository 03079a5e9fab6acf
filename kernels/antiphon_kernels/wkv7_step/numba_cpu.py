"""WKV-7 token by token on the CPU, all heads of one sequence: the part that a step's program runs, by itself."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from antiphon_kernels.jit import kernel
from antiphon_kernels.window import window
from antiphon_kernels.wkv7_step.recurrence import recur

Floats = npt.NDArray[Any]


def advance(vectors: Floats, wkv: Floats, out: Floats) -> None:
    """Move `wkv` [H, N (value), N (key)] on by all rows of `vectors` [6, rows, H, N]; `out` [rows, H, N] takes y.

    `vectors`: r, the decay w, k, v, κ and κ·a, in the order of `reference`. All float32 and C-contiguous.
    """
    planes, rows, heads, size = vectors.shape
    if planes != 6 or wkv.shape != (heads, size, size) or out.shape != (rows, heads, size):
        raise ValueError(f"shapes do not fit: {list(vectors.shape)}, {list(wkv.shape)}, {list(out.shape)}")
    if not (vectors.flags.c_contiguous and wkv.flags.c_contiguous and out.flags.c_contiguous):
        raise ValueError("all arrays must be contiguous")
    _advance(vectors.reshape(-1), wkv.reshape(-1), out.reshape(-1), rows, heads, size)


@kernel
def _advance(vectors: Any, wkv: Any, out: Any, rows: int, heads: int, size: int) -> None:
    plane = rows * heads * size
    for head in range(heads):
        state = window(wkv, head * size * size, size * size)
        for row in range(rows):
            at = (row * heads + head) * size
            recur(
                state,
                window(vectors, at, size),
                window(vectors, plane + at, size),
                window(vectors, 2 * plane + at, size),
                window(vectors, 3 * plane + at, size),
                window(vectors, 4 * plane + at, size),
                window(vectors, 5 * plane + at, size),
                window(out, at, size),
            )
