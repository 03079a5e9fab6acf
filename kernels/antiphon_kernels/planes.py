"""Activations as the sum of planes: [P, rows, width], P = 1 in float32, or 1 or 2 in bfloat16 (8 or 16 bits)."""

from __future__ import annotations

import torch
from torch import Tensor


def split(x: Tensor, *, planes: int, dtype: torch.dtype) -> Tensor:
    """`x` [..., rows, width] as planes [..., P, rows, width] of `dtype`: each holds what those before it left over."""
    parts: list[Tensor] = []
    rest = x.float()
    for _ in range(planes):
        parts.append(rest.to(dtype))
        rest = rest - parts[-1].float()
    return torch.stack(parts, dim=-3)


def joined(planes: Tensor) -> Tensor:
    """What `split` split, in float32: [..., P, rows, width] to [..., rows, width]."""
    return planes.float().sum(dim=-3)


def put(x: Tensor, out: Tensor) -> None:
    """Write `x` [..., rows, width] into planes `out` [..., P, rows, width]."""
    out.copy_(split(x, planes=out.shape[-3], dtype=out.dtype))
