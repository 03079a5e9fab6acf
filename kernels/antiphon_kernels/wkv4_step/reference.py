"""The definition of WKV-4 in place, in plain NumPy.

y = (aa e^pp + e^(u + k) v) / (bb e^pp + e^(u + k)), then aa e^pp <- aa e^(pp + log_w) + e^k v, and bb likewise with 1
for v; pp is the larger exponent of the two, so that nothing overflows (arXiv 2305.13048, on numerical stability).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]


def advance(vectors: Floats, u: Floats, log_w: Floats, sums: Floats, out: Floats) -> None:
    """Move `sums` (aa, bb and pp, [3, D]) on by all rows of `vectors` (k and v, [2, rows, D]); y to `out` [rows, D].

    u, log_w: [D], the bonus of the present token and the logarithm of the decay.
    """
    aa, bb, pp = sums
    for row, (k, v) in enumerate(zip(*vectors, strict=True)):
        most = np.maximum(pp, u + k)
        past, now = np.exp(pp - most), np.exp(u + k - most)
        out[row] = (past * aa + now * v) / (past * bb + now)
        most = np.maximum(pp + log_w, k)
        past, now = np.exp(pp + log_w - most), np.exp(k - most)
        aa[:], bb[:], pp[:] = past * aa + now * v, past * bb + now, most
