"""One tensor of an opened file: what it is like, and how to read it when it is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor that has not been read yet.

    `shape` and `dtype` are those that `read` gives; `stored` is the file's own word for how it is kept
    (F16, Q4_0, INT8 …). A matrix that is kept as whole numbers with scales also has `quantized`, which
    gives int8 values [out, in] and float32 scales [out], or [out, groups] with groups along the inputs.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    stored: str
    read: Callable[[], Tensor]
    quantized: Callable[[], tuple[Tensor, Tensor]] | None = None

    def then(
        self, change: Callable[[Tensor], Tensor], shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> StoredTensor:
        """This tensor after a change to `shape` (and `dtype`, otherwise kept) that is made when it is read."""
        before = self.read
        return StoredTensor(shape=shape, dtype=dtype or self.dtype, stored=self.stored, read=lambda: change(before()))

    def shaped(self, shape: tuple[int, ...]) -> StoredTensor:
        """The same numbers in the same order in another shape of the same size."""
        if shape == self.shape:
            return self
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{list(self.shape)} has not as many numbers as {list(shape)}")
        return self.then(lambda tensor: tensor.reshape(shape), shape)

    def turned(self) -> StoredTensor:
        """The same with its last two axes exchanged."""
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2])
        return self.then(lambda tensor: tensor.transpose(-1, -2).contiguous(), shape)
