"""The definition of WKV-5 and 6 in place, in plain NumPy.

y = r (u k'v + S), then S <- w S + k'v, per head, with S [key, value]; u and w multiply along the keys. RWKV-5 has the
same w at every token, RWKV-6 another one (arXiv 2404.05892).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]


def advance(vectors: Floats, u: Floats, wkv: Floats, out: Floats) -> None:
    """Move `wkv` [H, N (key), N (value)] on by all rows of `vectors` [4, rows, H, N]; y to `out` [rows, H, N].

    vectors: r, the decay w, k and v. u: [H, N], how much more the present token counts.
    """
    for row, (r, w, k, v) in enumerate(zip(*vectors, strict=True)):
        written = k[:, :, None] * v[:, None, :]
        out[row] = np.einsum("hk,hkv->hv", r, u[:, :, None] * written + wkv)
        wkv[:] = w[:, :, None] * wkv + written
