"""WKV-4 token by token on the CPU: the part that a step's program runs, and the same by itself."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from antiphon_kernels.float32 import exp
from antiphon_kernels.jit import kernel, piece
from antiphon_kernels.lanes import fma
from antiphon_kernels.window import window

Floats = npt.NDArray[Any]


@piece
def recur(k: Any, v: Any, u: Any, log_w: Any, aa: Any, bb: Any, pp: Any, y: Any) -> None:
    """Move aa, bb and pp on by one token and write `y`; all float32 [n]. A channel meets no other."""
    for i in range(y.size):
        now_at = u[i] + k[i]
        # A NaN in pp loses the comparison and comes back through the exponential.
        most = pp[i] if pp[i] > now_at else now_at
        past, now = exp(pp[i] - most), exp(now_at - most)
        y[i] = fma(now, v[i], past * aa[i]) / fma(past, bb[i], now)
        faded = pp[i] + log_w[i]
        most = faded if faded > k[i] else k[i]
        past, now = exp(faded - most), exp(k[i] - most)
        aa[i] = fma(now, v[i], past * aa[i])
        bb[i] = fma(past, bb[i], now)
        pp[i] = most


def advance(vectors: Floats, u: Floats, log_w: Floats, sums: Floats, out: Floats) -> None:
    """As `reference.advance`; all float32 and C-contiguous."""
    planes, rows, width = vectors.shape
    if (planes, *sums.shape) != (2, 3, width) or not u.shape == log_w.shape == (width,) or out.shape != (rows, width):
        raise ValueError(f"shapes do not fit: {[list(a.shape) for a in (vectors, u, log_w, sums, out)]}")
    if not all(array.flags.c_contiguous for array in (vectors, u, log_w, sums, out)):
        raise ValueError("all arrays must be contiguous")
    _advance(vectors.reshape(-1), u, log_w, sums.reshape(-1), out.reshape(-1), rows)


@kernel
def _advance(vectors: Any, u: Any, log_w: Any, sums: Any, out: Any, rows: int) -> None:
    width = u.size
    aa, bb, pp = window(sums, 0, width), window(sums, width, width), window(sums, 2 * width, width)
    for row in range(rows):
        k, v = window(vectors, row * width, width), window(vectors, (rows + row) * width, width)
        recur(k, v, u, log_w, aa, bb, pp, window(out, row * width, width))
