"""WKV-5 and 6 in place in the states of a slab, in plain PyTorch on any device: what the GPU's kernel must equal."""

from __future__ import annotations

from torch import Tensor

from antiphon_kernels.slab import Slab


def advance(vectors: Tensor, u: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor) -> None:
    """Move the states on by all rows of `slab`; y to `out` [rows, H, N]. Each sequence as in `reference.advance`.

    vectors: float32 [4, rows, H, N], r, w, k and v. u: [H, N]. states: float32 [slots, length], of which each has its
    matrix [H, N (key), N (value)] from `at` on.
    """
    heads, n = vectors.shape[2:]
    for state, first, count in zip(slab.states.tolist(), slab.first.tolist(), slab.count.tolist(), strict=True):
        s = states[state, at : at + heads * n * n].view(heads, n, n)
        for row in range(first, first + count):
            r, w, k, v = vectors[:, row]
            written = k.unsqueeze(-1) * v.unsqueeze(-2)
            out[row] = (r.unsqueeze(-2) @ (s + u.unsqueeze(-1) * written)).squeeze(-2)
            s.copy_(s * w.unsqueeze(-1) + written)
