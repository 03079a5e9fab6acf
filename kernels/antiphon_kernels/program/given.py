"""Tensors that are in memory already, as the weights of a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.linear import format as fmt
from antiphon_kernels.linear.layout import to_16_bits
from antiphon_kernels.program.build import Values

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Given:
    """`tensors`: int8 `NAME` with float32 `NAME.scale` [out], or floating point, which is rounded to 16 bits.

    The embedding may be int8 with a scale, float32, float16, or uint16 that hold bfloat16.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """See `build.Weights`."""
        return self._tensors[name].shape

    def held(self, name: str) -> tuple[int, int]:
        """int8 as it is, all else in 16 bits."""
        return (fmt.INT8_ROWS if self._tensors[name].dtype == np.int8 else fmt.INT16_ROWS), 0

    def matrix(self, name: str, *, transpose: bool) -> Values:
        """The tensor, rounded where it is floating point."""
        tensor = self._tensors[name]
        if tensor.dtype != np.int8:
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} holds a NaN or an infinity")
            whole, scales = to_16_bits(tensor.T if transpose else tensor)
            return Values(values=whole, scales=scales)
        if transpose:
            raise ValueError(f"{name} is a low-rank weight; its int8 form has no agreed scale")
        return Values(values=tensor, scales=self._scale(name, tensor.shape[0]))

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor, flat, in float32."""
        return np.asarray(self._tensors[name], np.float32).reshape(-1)

    def embedding(self) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """The embedding as it is."""
        embedding = self._tensors["emb.weight"]
        if embedding.dtype != np.int8:
            return embedding, None
        return embedding, self._scale("emb.weight", embedding.shape[0])

    def _scale(self, name: str, outputs: int) -> npt.NDArray[np.float32]:
        scale = np.asarray(self._tensors[f"{name}.scale"], np.float32).reshape(-1)
        if scale.size != outputs:
            raise ValueError(f"{name}.scale holds {scale.size} numbers, not {outputs}")
        return scale
