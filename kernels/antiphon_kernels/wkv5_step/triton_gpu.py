"""WKV-5 and 6 token by token on a GPU, in states that are chosen by their place in one array: slices of heads."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from antiphon_kernels.slab import Slab
from antiphon_kernels.triton_jit import kernel, launch

_SLICE = 16
"""Values of one head, which do not know each other, that one program carries."""


@kernel
def _advance(
    vectors: tl.tensor, u: tl.tensor, states: tl.tensor, belongs: tl.tensor, first: tl.tensor, count: tl.tensor,
    out: tl.tensor, plane: tl.tensor, at: tl.tensor,
    LENGTH: tl.constexpr, HEADS: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr,
) -> None:  # fmt: skip
    sequence, head = tl.program_id(0), tl.program_id(1)
    values = tl.program_id(2) * SLICE + tl.arange(0, SLICE)
    keys = tl.arange(0, N)
    amount = tl.load(count + sequence)
    if amount > 0:
        begin = tl.load(first + sequence)
        slot = tl.load(belongs + sequence).to(tl.int64)
        place = states + slot * LENGTH + at + head * N * N + keys[:, None] * N + values[None, :]
        state = tl.load(place)
        bonus = tl.load(u + head * N + keys)
        for row in range(begin, begin + amount):
            here = vectors + (row * HEADS + head) * N
            r = tl.load(here + keys)
            w = tl.load(here + plane + keys)
            written = tl.load(here + 2 * plane + keys)[:, None] * tl.load(here + 3 * plane + values)[None, :]
            y = tl.sum(r[:, None] * (bonus[:, None] * written + state), axis=0)
            tl.store(out + (row * HEADS + head) * N + values, y)
            state = w[:, None] * state + written
        tl.store(place, state)


def takes(n: int) -> bool:
    """Whether the kernel can run with heads of this size: powers of two."""
    return n >= 2 and n & (n - 1) == 0


def advance(vectors: Tensor, u: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor) -> None:
    """Move the states on by all rows of `slab`; y to `out` [rows, H, N]. Each sequence as in `reference.advance`.

    vectors: float32 [4, rows, H, N], r, w, k and v. u: [H, N]. states: float32 [slots, length], of which each has its
    matrix [H, N (key), N (value)] from `at` on. All are contiguous.
    """
    _, heads, n = vectors.shape[1:]
    part = min(n, _SLICE)
    launch(
        _advance, (slab.sequences, heads, n // part), vectors,
        vectors, u, states, slab.states, slab.first, slab.count, out, vectors.stride(0), at,
        LENGTH=states.shape[1], HEADS=heads, N=n, SLICE=part, num_warps=1,
    )  # fmt: skip
