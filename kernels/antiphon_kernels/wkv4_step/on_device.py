"""WKV-4 in place in the states of a slab, in plain PyTorch on any device: what the GPU's kernel must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from antiphon_kernels.slab import Slab


def advance(vectors: Tensor, u: Tensor, log_w: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor) -> None:
    """Move the states on by all rows of `slab`; y to `out` [rows, D]. Each sequence as in `reference.advance`.

    vectors: float32 [2, rows, D], k and v. u, log_w: [D]. states: float32 [slots, length], of which each has aa, bb and
    pp from `at` on.
    """
    width = vectors.shape[2]
    for state, first, count in zip(slab.states.tolist(), slab.first.tolist(), slab.count.tolist(), strict=True):
        aa, bb, pp = states[state, at : at + 3 * width].view(3, width)
        for row in range(first, first + count):
            k, v = vectors[:, row]
            most = torch.maximum(pp, u + k)
            past, now = torch.exp(pp - most), torch.exp(u + k - most)
            out[row] = (past * aa + now * v) / (past * bb + now)
            most = torch.maximum(pp + log_w, k)
            past, now = torch.exp(pp + log_w - most), torch.exp(k - most)
            aa.copy_(past * aa + now * v)
            bb.copy_(past * bb + now)
            pp.copy_(most)
