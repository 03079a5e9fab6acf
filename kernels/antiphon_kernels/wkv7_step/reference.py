"""The definition of WKV-7 in place, in plain PyTorch: sequences of a slab, each with a state of its own.

S ← S·diag(w) − (S κ)(κ·a)ᵀ + v kᵀ and y = S r, per head, with S [value, key] (arXiv 2503.14456).
"""

from __future__ import annotations

from torch import Tensor

from antiphon_kernels.slab import Slab

R, W, K, V, KAPPA, B, GATE = range(7)
"""What `vectors` holds for each row: r, the decay w, k, v, κ, κ·a, and the gate, which is not looked at here."""
VECTORS = 7


def advance(vectors: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor) -> None:
    """Move the states on by all rows of `slab`, and write y.

    vectors: float32 [VECTORS, rows, H, N]. states: float32 [slots, length]; a state's matrix [H, N (value), N (key)]
    begins at `at`. out: float32 [rows, H, N]. Rows of no sequence are left as they are.
    """
    heads, n = vectors.shape[2:]
    for state, first, count in zip(slab.states.tolist(), slab.first.tolist(), slab.count.tolist(), strict=True):
        s = states[state, at : at + heads * n * n].view(heads, n, n)
        for row in range(first, first + count):
            r, w, k, v, kappa, b, _ = vectors[:, row]
            removed = (s @ kappa.unsqueeze(-1)) * b.unsqueeze(-2)
            s.copy_(s * w.unsqueeze(-2) - removed + v.unsqueeze(-1) * k.unsqueeze(-2))
            out[row] = (s @ r.unsqueeze(-1)).squeeze(-1)
