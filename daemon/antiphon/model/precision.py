"""The precisions in which weights are held, and how a float matrix becomes whole numbers and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GROUP = 32
"""Inputs that share a scale in the precisions by group."""


_NUMBERS_AT_ONCE = 1 << 15
"""Numbers that are quantized together: what is computed of them stays in a processor's cache, and PyTorch, which
divides larger tensors among threads (at::internal::GRAIN_SIZE), widens them on the one that asks."""

Floats = npt.NDArray[np.float32]


class Precision(StrEnum):
    """How the big matrices are held: as floats, as int8 by row or by group, or as int4 by group."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT8_GROUPS = "int8-groups"
    INT4 = "int4"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Quantized:
    """A matrix as int8 `values` [out, in] and float32 `scale`: [out] by row (`group` 0), [out, in / group] by group.

    In int4 the values are within -8 … 7, otherwise within -127 … 127. Scales by group are numbers that bfloat16 has:
    they take two bytes, whatever their size, and those that are no extremes are float16's as well.
    """

    values: Tensor
    scale: Tensor
    group: int


def quantize(weight: Tensor, precision: Precision) -> Quantized:
    """The matrix `weight` [out, in] in one of the whole-number precisions; ValueError for another.

    A matrix whose inputs do not divide into groups becomes int8 by row in every one of them.
    """
    if precision not in (Precision.INT8, Precision.INT8_GROUPS, Precision.INT4):
        raise ValueError(f"{precision} holds no whole numbers")
    rows, inputs = weight.shape
    group = 0 if precision is Precision.INT8 or inputs % GROUP else GROUP
    values = np.empty((rows, inputs), np.int8)
    scale = np.empty((rows, inputs // (group or inputs)), np.float32)
    rule = _by_largest
    if group:
        rule = _by_least_error if precision is Precision.INT4 else _by_largest_narrowed
    at_once = max(1, _NUMBERS_AT_ONCE // inputs)
    for first in range(0, rows, at_once):
        some = slice(first, min(first + at_once, rows))
        # NumPy works on one thread. PyTorch's would wait for each other at every step, which takes many times as long
        # on a machine that does other work.
        found, scales = rule(weight[some].float().numpy().reshape(-1, group or inputs))
        values[some] = found.reshape(-1, inputs)
        scale[some] = scales.reshape(-1, scale.shape[1])
    scales_of_rows = torch.from_numpy(scale)
    return Quantized(
        values=torch.from_numpy(values), scale=scales_of_rows if group else scales_of_rows.squeeze(1), group=group
    )


def dequantize(quantized: Quantized) -> Tensor:
    """The float32 matrix [out, in] that the whole numbers stand for."""
    rows, inputs = quantized.values.shape
    grouped = quantized.values.float().view(rows, -1, quantized.group or inputs)
    return (grouped * quantized.scale.view(rows, -1, 1)).view(rows, inputs)


def _by_largest(x: Floats) -> tuple[Floats, Floats]:
    """Each row with its largest magnitude at 127: whole numbers, and scales [rows, 1]."""
    return _rounded(x, np.abs(x).max(axis=1, keepdims=True) / np.float32(127))


def _by_largest_narrowed(x: Floats) -> tuple[Floats, Floats]:
    """The same with scales that a bfloat16 holds."""
    return _rounded(x, _narrowed(np.abs(x).max(axis=1, keepdims=True) / np.float32(127)))


def _rounded(x: Floats, scale: Floats) -> tuple[Floats, Floats]:
    # A row of zeros has no scale; any will do, and 1 divides safely.
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.clip(np.rint(x / scale), np.float32(-127), np.float32(127)), scale


def _narrowed(scale: Floats) -> Floats:
    """The scales as bfloat16 has them: rounded to the nearest, halves to the even one."""
    bits = scale.view(np.uint32)
    narrow: Floats = (
        (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    ).view(np.float32)
    return narrow


_STEPS = (8.5, 8.0, 7.5, 7.0, 6.5, 6.0)
"""Where the largest magnitude of a group may come to lie, in steps: beyond 8 it is cut, below it wastes a level."""


def _by_least_error(x: Floats) -> tuple[Floats, Floats]:
    """Each row as -8 … 7, with the scale, a bfloat16's, that of all those tried leaves the least squared error."""
    one = np.float32(1)
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    best = np.full(len(x), np.inf, np.float32)
    best_values, best_scale = np.zeros_like(x), np.ones_like(extreme)
    for steps in _STEPS:
        # The side with the largest magnitude gets the eighth level.
        scale = extreme / np.float32(-steps)
        values = np.clip(np.rint(x / np.where(scale != 0, scale, one)), np.float32(-8), np.float32(7))
        square = np.einsum("rg,rg->r", values, values)[:, None]
        fitted = _narrowed(np.einsum("rg,rg->r", x, values)[:, None] / np.maximum(square, one))
        off = values * fitted - x
        error = np.einsum("rg,rg->r", off, off)
        better = error < best
        best[better], best_values[better], best_scale[better] = error[better], values[better], fitted[better]
    nothing = best_scale[:, 0] == 0
    best_values[nothing], best_scale[nothing] = 0, one
    return best_values, best_scale
