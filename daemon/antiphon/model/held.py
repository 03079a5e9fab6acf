"""A model's tensors as a program wants them: each read, put into its precision and handed over, one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.own_form import is_linear
from antiphon.model.precision import GROUP, Precision, quantize
from antiphon.model.source import Source
from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.layout import to_16_bits
from antiphon_kernels.program.build import Values

Array = npt.NDArray[Any]

_FLOAT_FORMATS = {Precision.FP32: fmt.FLOAT32, Precision.BF16: fmt.BFLOAT16, Precision.FP16: fmt.FLOAT16}
_HALF_MOST = 65504.0


def precision_of(source: Source) -> Precision:
    """The precision that a file asks for by what is in it: its own whole numbers, or int8."""
    linear = [name for name in source.shapes if is_linear(name)]
    if any(source.stored[name] == "INT4" for name in linear):
        return Precision.INT4
    for name in linear:
        kept = source.read_quantized(name)
        # Where inputs do not divide into groups, a file of groups has rows.
        if kept is not None and kept[1].ndim == 2:
            return Precision.INT8_GROUPS
    return Precision.INT8


class HeldWeights:
    """`source` with its big matrices in `precision`; low-rank ones in 16 bits, or in the same float type.

    Whole numbers that the file has in this very precision are taken as they are. The embedding stays as the file has
    it: int8 rows or floats.
    """

    def __init__(self, source: Source, precision: Precision) -> None:
        self._source = source
        self._precision = precision

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape; KeyError when there is none."""
        return tuple(self._source.shapes[name])

    def held(self, name: str) -> tuple[int, int]:
        """(format, inputs of a group or 0) of a matrix."""
        if self._precision in _FLOAT_FORMATS:
            return _FLOAT_FORMATS[self._precision], 0
        if not is_linear(name):
            return fmt.INT16_ROWS, 0
        if self._precision is Precision.INT8 or self.shape(name)[1] % GROUP:
            return fmt.INT8_ROWS, 0
        return (fmt.INT8_GROUPS if self._precision is Precision.INT8_GROUPS else fmt.INT4_GROUPS), GROUP

    def matrix(self, name: str, *, transpose: bool) -> Values:
        """A matrix [out, in] in its format."""
        form, group = self.held(name)
        if form in (fmt.INT8_ROWS, fmt.INT8_GROUPS, fmt.INT4_GROUPS):
            values, scale = self._whole(name, form, group)
            return Values(values=values.numpy(), scales=scale.float().numpy())
        tensor = self._source.read(name)
        tensor = tensor.T if transpose else tensor
        if form == fmt.INT16_ROWS:
            whole, scales = to_16_bits(tensor.float().numpy())
            return Values(values=whole, scales=scales)
        tensor = tensor.float()
        if form == fmt.FLOAT16 and float(tensor.abs().max()) > _HALF_MOST:
            raise FileError(
                f"tensor {name} holds numbers beyond float16", where=str(self._source.path), fix="choose bf16 or int8"
            )
        return Values(values=tensor.contiguous().numpy())

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor of any shape, flat, in float32."""
        return self._source.read(name).float().reshape(-1).numpy()

    def embedding(self) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """The embedding: int8 with scales, float32, float16, or bfloat16 as uint16; in memory of its own."""
        kept = self._source.read_quantized("emb.weight")
        if kept is not None and kept[1].ndim == 1:
            return kept[0].clone().numpy(), kept[1].float().clone().numpy()
        tensor = self._source.read("emb.weight").clone()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.uint16).numpy(), None
        return (tensor if tensor.dtype in (torch.float16, torch.float32) else tensor.float()).numpy(), None

    def _whole(self, name: str, form: int, group: int) -> tuple[Tensor, Tensor]:
        kept = self._source.read_quantized(name)
        if kept is not None and _fits(kept, form, group, small=self._source.stored[name] == "INT4"):
            return kept
        made = quantize(self._source.read(name), self._precision)
        return made.values, made.scale


def _fits(kept: tuple[Tensor, Tensor], form: int, group: int, *, small: bool) -> bool:
    """Whether whole numbers of a file are those of the format already."""
    values, scale = kept
    if form == fmt.INT8_ROWS:
        return scale.ndim == 1
    groups = -(-values.shape[1] // group)
    return scale.shape == (values.shape[0], groups) and small == (form == fmt.INT4_GROUPS)
