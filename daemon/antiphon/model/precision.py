"""The precisions in which weights are held, and how a float matrix becomes whole numbers and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

GROUP = 32
"""Inputs that share a scale in the precisions by group."""


_NUMBERS_AT_ONCE = 1 << 19
"""Numbers that are quantized together: few enough that what is computed of them stays in a processor's cache."""


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
    values = torch.empty(rows, inputs, dtype=torch.int8)
    scale = torch.empty(rows, inputs // (group or inputs))
    rule = _by_largest
    if group:
        rule = _by_least_error if precision is Precision.INT4 else _by_largest_narrowed
    at_once = max(1, _NUMBERS_AT_ONCE // inputs)
    for first in range(0, rows, at_once):
        some = slice(first, min(first + at_once, rows))
        found, scales = rule(weight[some].float().reshape(-1, group or inputs))
        values[some] = found.view(-1, inputs)
        scale[some] = scales.view(-1, scale.shape[1])
    return Quantized(values=values, scale=scale if group else scale.squeeze(1), group=group)


def dequantize(quantized: Quantized) -> Tensor:
    """The float32 matrix [out, in] that the whole numbers stand for."""
    rows, inputs = quantized.values.shape
    grouped = quantized.values.float().view(rows, -1, quantized.group or inputs)
    return (grouped * quantized.scale.view(rows, -1, 1)).view(rows, inputs)


def _by_largest(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row with its largest magnitude at 127: values and scales [rows, 1]."""
    return _rounded(x, x.abs().amax(dim=1, keepdim=True) / 127.0)


def _by_largest_narrowed(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same with scales that a bfloat16 holds."""
    return _rounded(x, _narrowed(x.abs().amax(dim=1, keepdim=True) / 127.0))


def _rounded(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    # A row of zeros has no scale; any will do, and 1 divides safely.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(x / scale).clamp(-127, 127).to(torch.int8), scale


def _narrowed(scale: Tensor) -> Tensor:
    """The scales as bfloat16 has them, in float32."""
    return scale.bfloat16().float()


_STEPS = (8.5, 8.0, 7.5, 7.0, 6.5, 6.0)
"""Where the largest magnitude of a group may come to lie, in steps: beyond 8 it is cut, below it wastes a level."""


def _by_least_error(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as -8 … 7, with the scale, a bfloat16's, that of all those tried leaves the least squared error."""
    extreme = x.gather(1, x.abs().argmax(dim=1, keepdim=True))
    best = torch.full_like(extreme, torch.inf)
    best_values, best_scale = torch.zeros_like(x), torch.ones_like(extreme)
    for steps in _STEPS:
        # The side with the largest magnitude gets the eighth level.
        scale = extreme / -steps
        scale = torch.where(scale != 0, scale, torch.ones_like(scale))
        values = torch.round(x / scale).clamp(-8, 7)
        square = (values * values).sum(dim=1, keepdim=True)
        fitted = _narrowed((x * values).sum(dim=1, keepdim=True) / square.clamp(min=1))
        scale = torch.where(fitted != 0, fitted, torch.ones_like(scale))
        values = torch.where(fitted != 0, values, torch.zeros_like(values))
        error = ((values * scale - x) ** 2).sum(dim=1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        best_values = torch.where(better, values, best_values)
        best_scale = torch.where(better, scale, best_scale)
    return best_values.to(torch.int8), best_scale
