"""The definition of a linear layer in plain NumPy; the formulas are in `format.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.linear import format as fmt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def linear(form: int, values: Array, scales: Floats | None, x: Floats) -> Floats:
    """Outputs [rows, out] of activations `x` [rows, in] and a matrix `values` [out, in] in format `form`.

    Rounding an activation moves it by at most peak / 65278, where peak is the largest of its row.
    """
    assert form in (fmt.INT8_ROWS, fmt.INT16_ROWS)
    assert scales is not None
    out = np.empty((x.shape[0], values.shape[0]), np.float32)
    for row, activations in enumerate(x):
        q, step = round_16(activations)
        out[row] = (values.astype(np.int64) @ q).astype(np.float32) * (scales * step)
    return out


def round_16(x: Floats) -> tuple[npt.NDArray[np.int64], np.float32]:
    """(q [len(x)], step): x is nearest to q * step with |q| <= LEVELS; NaN or infinity in x give a NaN step."""
    peak = np.abs(x).max()
    if not np.isfinite(peak):
        return np.zeros(x.size, np.int64), np.float32(np.nan)
    if peak < np.float32(fmt.FAINT):
        return np.zeros(x.size, np.int64), np.float32(0)
    return np.rint(x * (np.float32(fmt.LEVELS) / peak)).astype(np.int64), peak / np.float32(fmt.LEVELS)
