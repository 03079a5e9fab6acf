"""WKV-7 token by token on a GPU: a slice of one head's state in registers, over all rows of its sequence.

One token for each of many sequences and many tokens of one are the same loop, so they are the same numbers.
"""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from antiphon_kernels.slab import Slab
from antiphon_kernels.triton_jit import kernel, launch

_SLICE = 16
"""Values of one head, which do not know each other, that one program carries."""


@kernel
def _advance(
    vectors: tl.tensor, states: tl.tensor, belongs: tl.tensor, first: tl.tensor, count: tl.tensor, out: tl.tensor,
    plane: tl.tensor, at: tl.tensor,
    LENGTH: tl.constexpr, HEADS: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr,
) -> None:  # fmt: skip
    sequence, head = tl.program_id(0), tl.program_id(1)
    values = tl.program_id(2) * SLICE + tl.arange(0, SLICE)
    keys = tl.arange(0, N)
    amount = tl.load(count + sequence)
    if amount > 0:
        begin = tl.load(first + sequence)
        slot = tl.load(belongs + sequence).to(tl.int64)
        place = states + slot * LENGTH + at + head * N * N + values[:, None] * N + keys[None, :]
        state = tl.load(place)
        for row in range(begin, begin + amount):
            here = vectors + (row * HEADS + head) * N
            r = tl.load(here + keys)
            w = tl.load(here + plane + keys)
            k = tl.load(here + 2 * plane + keys)
            v = tl.load(here + 3 * plane + values)
            kappa = tl.load(here + 4 * plane + keys)
            b = tl.load(here + 5 * plane + keys)
            read = tl.sum(state * kappa[None, :], axis=1)
            state = state * w[None, :] - read[:, None] * b[None, :] + v[:, None] * k[None, :]
            tl.store(out + (row * HEADS + head) * N + values, tl.sum(state * r[None, :], axis=1))
        tl.store(place, state)


def takes(n: int) -> bool:
    """Whether the kernel can run with heads of this size: powers of two."""
    return n >= 2 and n & (n - 1) == 0


def advance(vectors: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor) -> None:
    """As `reference.advance`, for contiguous tensors."""
    _, heads, n = vectors.shape[1:]
    part = min(n, _SLICE)
    launch(
        _advance, (slab.sequences, heads, n // part), vectors,
        vectors, states, slab.states, slab.first, slab.count, out, vectors.stride(0), at,
        LENGTH=states.shape[1], HEADS=heads, N=n, SLICE=part, num_warps=1,
    )  # fmt: skip
