"""What bitsandbytes does to a weight that it quantizes, so that an adapter learnt on such a base is merged into it.

Source: bitsandbytes (MIT), functional.py: `get_4bit_type`, `quantize_4bit` with blocks of 64, `create_dynamic_map`,
and `quantize`, which scales the whole tensor at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_BLOCK = 64

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FP4_POSITIVE = (0.0, 0.0625 / 12, 2 / 12, 3 / 12, 4 / 12, 6 / 12, 8 / 12, 1.0)


def _dynamic_map() -> tuple[float, ...]:
    """The 256 levels of the dynamic 8-bit type: seven decades, each with twice as many levels as the one below."""
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1.0, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        for middle in middles.tolist():
            level = 10.0 ** (decade - 6) * middle
            levels += [level, -level]
    return tuple(sorted(levels))


def _rounded(weight: Tensor, levels: tuple[float, ...], *, block: int) -> Tensor:
    """Each number as the nearest of the levels, times the largest magnitude of its block."""
    flat = weight.float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scale = padded.abs().amax(dim=1, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    table = torch.tensor(sorted(levels))
    between = (table[1:] + table[:-1]) / 2
    nearest = table[torch.bucketize(padded / scale, between)]
    return (nearest * scale).flatten()[: len(flat)].view(weight.shape)


def nf4(weight: Tensor) -> Tensor:
    """The weight after 4-bit NormalFloat and back, float32 of its shape."""
    return _rounded(weight, _NF4, block=_BLOCK)


def fp4(weight: Tensor) -> Tensor:
    """The weight after 4-bit float and back, float32 of its shape."""
    return _rounded(weight, (*_FP4_POSITIVE, *(-level for level in _FP4_POSITIVE[1:])), block=_BLOCK)


def int8(weight: Tensor) -> Tensor:
    """The weight after the dynamic 8-bit type and back, float32 of its shape."""
    return _rounded(weight, _dynamic_map(), block=max(1, weight.numel()))


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {"nf4": nf4, "fp4": fp4, "4bit": fp4, "int8": int8}
"""By the name that RWKV-PEFT's --quant gives them; its 4bit is bitsandbytes' default, fp4."""
