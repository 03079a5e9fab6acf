"""The definition of a linear layer in plain NumPy; the formulas are in `format.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.layout import to_float

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def linear(form: int, values: Array, scales: Floats | None, x: Floats, *, group: int = 0) -> Floats:
    """Outputs [rows, out] of activations `x` [rows, in] and a matrix `values` [out, in] in format `form`.

    Rounding an activation moves it by at most peak / 65278, where peak is the largest of its row.
    """
    if form >= fmt.FLOAT32:
        return _floating(form, values, x)
    assert scales is not None
    out = np.empty((x.shape[0], values.shape[0]), np.float32)
    for row, activations in enumerate(x):
        q, step = round_16(activations)
        if form in (fmt.INT8_ROWS, fmt.INT16_ROWS):
            out[row] = (values.astype(np.int64) @ q).astype(np.float32) * (scales * step)
            continue
        sums = np.zeros(values.shape[0], np.float32)
        for number in range(scales.shape[1]):
            inputs = slice(number * group, (number + 1) * group)
            total = (values[:, inputs].astype(np.int64) @ q[inputs]).astype(np.float32)
            sums = fused(total, scales[:, number].astype(np.float16).astype(np.float32), sums)
        out[row] = sums * step
    return out


def _floating(form: int, values: Array, x: Floats) -> Floats:
    weights = to_float(form, values)
    if form == fmt.BFLOAT16:
        weights = (weights.astype(np.uint32) << 16).view(np.float32)
    chains = np.zeros((4, x.shape[0], values.shape[0]), np.float32)
    for k, weight in enumerate(weights.astype(np.float32).T):
        chains[k % 4] = fused(weight[None, :], x[:, k, None], chains[k % 4])
    out: Floats = (chains[0] + chains[1]) + (chains[2] + chains[3])
    return out


def fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """a * b + c with one rounding: the product is exact in float64, where the sum is first rounded to odd."""
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    other = total - product
    error = (product - (total - other)) + (addend - other)
    bits = total.view(np.int64)
    inexact = (error != 0) & (bits & 1 == 0)
    away = (error > 0) == (total > 0)
    odd: Floats = np.where(inexact, bits + np.where(away, 1, -1), bits).view(np.float64).astype(np.float32)
    return odd


def round_16(x: Floats) -> tuple[npt.NDArray[np.int64], np.float32]:
    """(q [len(x)], step): x is nearest to q * step with |q| <= LEVELS; NaN or infinity in x give a NaN step."""
    peak = np.abs(x).max()
    if not np.isfinite(peak):
        return np.zeros(x.size, np.int64), np.float32(np.nan)
    if peak < np.float32(fmt.FAINT):
        return np.zeros(x.size, np.int64), np.float32(0)
    return np.rint(x * (np.float32(fmt.LEVELS) / peak)).astype(np.int64), peak / np.float32(fmt.LEVELS)
