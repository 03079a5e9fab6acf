"""WKV-4 token by token on a GPU, in states that are chosen by their place in one array: some channels a program."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from antiphon_kernels.slab import Slab
from antiphon_kernels.triton_jit import kernel, lanes, launch

_CHANNELS = 256
"""Channels, which do not know each other, that one program carries."""


@kernel
def _advance(
    vectors: tl.tensor, u: tl.tensor, log_w: tl.tensor, states: tl.tensor, belongs: tl.tensor, first: tl.tensor,
    count: tl.tensor, out: tl.tensor, plane: tl.tensor, at: tl.tensor,
    LENGTH: tl.constexpr, D: tl.constexpr, CHANNELS: tl.constexpr,
) -> None:  # fmt: skip
    sequence = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = c < D
    amount = tl.load(count + sequence)
    if amount > 0:
        begin = tl.load(first + sequence)
        place = states + tl.load(belongs + sequence).to(tl.int64) * LENGTH + at + c
        aa = tl.load(place, mask=mask, other=0.0)
        bb = tl.load(place + D, mask=mask, other=0.0)
        pp = tl.load(place + 2 * D, mask=mask, other=0.0)
        bonus, decay = tl.load(u + c, mask=mask, other=0.0), tl.load(log_w + c, mask=mask, other=0.0)
        for row in range(begin, begin + amount):
            k = tl.load(vectors + row * D + c, mask=mask, other=0.0)
            v = tl.load(vectors + plane + row * D + c, mask=mask, other=0.0)
            most = tl.maximum(pp, bonus + k, propagate_nan=tl.PropagateNan.ALL)
            past, now = tl.exp(pp - most), tl.exp(bonus + k - most)
            tl.store(out + row * D + c, (past * aa + now * v) / (past * bb + now), mask=mask)
            most = tl.maximum(pp + decay, k, propagate_nan=tl.PropagateNan.ALL)
            past, now = tl.exp(pp + decay - most), tl.exp(k - most)
            aa = past * aa + now * v
            bb = past * bb + now
            pp = most
        tl.store(place, aa, mask=mask)
        tl.store(place + D, bb, mask=mask)
        tl.store(place + 2 * D, pp, mask=mask)


def advance(vectors: Tensor, u: Tensor, log_w: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor) -> None:
    """Move the states on by all rows of `slab`; y to `out` [rows, D]. Each sequence as in `reference.advance`.

    vectors: float32 [2, rows, D], k and v. u, log_w: [D]. states: float32 [slots, length], of which each has aa, bb and
    pp from `at` on. All are contiguous.
    """
    width = vectors.shape[2]
    channels = min(_CHANNELS, lanes(width))
    launch(
        _advance, (slab.sequences, -(-width // channels)), vectors,
        vectors, u, log_w, states, slab.states, slab.first, slab.count, out, vectors.stride(0), at,
        LENGTH=states.shape[1], D=width, CHANNELS=channels, num_warps=2,
    )  # fmt: skip
