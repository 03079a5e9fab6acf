"""Slabs and random numbers for tests of the GPU's kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from triton_here import DEVICE

from antiphon_kernels.slab import Slab, slab_of, tables


def slab(*parts: tuple[int, int], spare: int = 0) -> Slab:
    """The slab of sequences (state, length) and of `spare` rows and sequences that are nobody's."""
    rows, sequences = sum(length for _, length in parts) + spare, len(parts) + spare
    return slab_of(
        torch.from_numpy(tables(parts, capacity=rows + sequences)).to(DEVICE), rows=rows, sequences=sequences
    )


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def near(fast: Tensor, exact: Tensor, within: float) -> bool:
    """Whether the largest difference is below `within` of the largest number; never where one is NaN."""
    return bool((fast.float() - exact.float()).abs().max() <= within * exact.float().abs().max().clamp(min=1e-9))


def nans(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(size, torch.nan, dtype=dtype, device=DEVICE)


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]
