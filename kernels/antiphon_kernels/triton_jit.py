"""How Triton kernels are made and launched here, and the pieces that several of them share.

Activations that a matrix is multiplied with lie in planes [P, rows, width]: x = the sum of its planes. One bfloat16
plane keeps 8 bits, two keep 16, as many as the CPU's; weights of 8 bits and less are bfloat16 numbers too, so that
every product is exact and only their sum is rounded, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiled for the GPU on its first call; under TRITON_INTERPRET=1, run by Triton's interpreter on any machine.

    A model's sizes are constants of a kernel. How many `rows` a call has is not, and is not looked at either: Triton
    would compile anew for 1, for multiples of 16 and for all else.
    """
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return cast(F, triton.jit(function, do_not_specialize=[name for name in ("rows",) if name in names]))


def piece(function: F) -> F:
    """Used inside kernels only."""
    return cast(F, triton.jit(function))


def launch(function: Any, grid: tuple[int, ...], near: Tensor, *arguments: Any, **constants: Any) -> None:
    """Run `function` on the device of `near`: Triton launches on the current one, which need not be the tensors'."""
    with torch.cuda.device(near.device if near.is_cuda else -1):
        function[grid](*arguments, **constants)


def lanes(n: int) -> int:
    """The power of two that holds n."""
    return 1 << max(0, n - 1).bit_length()


@piece
def dot(a: tl.tensor, b: tl.tensor, acc: tl.tensor, INTERPRETED: tl.constexpr) -> tl.tensor:
    """acc + a b, summed in float32. The interpreter holds bfloat16 as bits and would multiply those."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@piece
def put_planes(
    pointer: tl.tensor, value: tl.tensor, at: tl.tensor, mask: tl.tensor, plane: tl.tensor, PLANES: tl.constexpr
) -> None:
    """Write float32 numbers as planes that lie `plane` apart."""
    first = value.to(pointer.dtype.element_ty)
    tl.store(pointer + at, first, mask=mask)
    if PLANES == 2:
        tl.store(pointer + plane + at, (value - first.to(tl.float32)).to(pointer.dtype.element_ty), mask=mask)


@piece
def normed(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, mask: tl.tensor, width: tl.tensor, EPS: tl.constexpr
) -> tl.tensor:
    """Layer norm of a vector: `mask` is true within its `width`; what lies behind comes out as zero."""
    mean = tl.sum(tl.where(mask, x, 0.0), axis=0) / width
    away = tl.where(mask, x - mean, 0.0)
    spread = tl.sum(away * away, axis=0) / width
    return tl.where(mask, away / tl.sqrt_rn(spread + EPS) * weight + bias, 0.0)
