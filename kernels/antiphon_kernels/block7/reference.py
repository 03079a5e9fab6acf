"""The definition of the element-wise parts of an RWKV-7 block, in plain PyTorch (arXiv 2503.14456).

Residuals x are float32 [rows, D]. What a matrix reads is written as planes (`antiphon_kernels.planes`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from antiphon_kernels.linear.on_device import Matrix, dequantized
from antiphon_kernels.planes import joined, put
from antiphon_kernels.slab import Slab
from antiphon_kernels.wkv7_step.reference import GATE, KAPPA, B, K, R, V, W

LAYER_NORM_EPS = 1e-5
GROUP_NORM_EPS = 64e-5
KEY_NORM_GUARD = 1e-12
MAX_LOG_DECAY = -math.exp(-0.5)

OF_R, OF_W, OF_K, OF_V, OF_A, OF_G = range(6)
"""The order of the six mixes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadWeights:
    """What makes the vectors of a layer's recurrence.

    w0, a0, v0, k_k, k_a: float32 [D]. w2, a2, v2, g2: what raises the low ranks, [D, rank] each, in one float form.
    starts: where the hidden numbers of w, a, v and g begin in a row of `hidden`. v0 and v2 are None in the first layer,
    whose own values the other layers mix in.
    """

    w0: Tensor
    a0: Tensor
    v0: Tensor | None
    k_k: Tensor
    k_a: Tensor
    w2: Matrix
    a2: Matrix
    v2: Matrix | None
    g2: Matrix
    starts: tuple[int, int, int, int]


def embed(table: Tensor, scales: Tensor | None, ids: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """out [rows, D]: rows `ids` (int32) of the embedding `table` [V, D], int8 with `scales` [V] or float, normed."""
    x = table[ids.long()].float()
    if scales is not None:
        x = x * scales[ids.long(), None]
    out.copy_(_layer_norm(x, weight, bias))


def shift_mix(
    x: Tensor, weight: Tensor, bias: Tensor, mixes: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor
) -> None:
    """out [M, P, rows, D] = n + (before - n) * mixes[m], with n the layer norm of x, before that of the token before.

    mixes: float32 [M, D]. The token before a sequence's first row lies in its state at `at`, in `states`
    [slots, length]; its last row's is written there in turn.
    """
    normed = _layer_norm(x, weight, bias)
    width = x.shape[1]
    kept = states[slab.slots.long(), at : at + width]
    before = torch.where((slab.previous >= 0)[:, None], normed[slab.previous.clamp(min=0).long()], kept)
    put(normed + (before - normed) * mixes.unsqueeze(1), out)
    begins = slab.last >= 0
    states[slab.slots[begins].long(), at : at + width] = normed[slab.last[begins].long()]


def prepare(projected: Tensor, hidden: Tensor, weights: HeadWeights, v_first: Tensor, vectors: Tensor) -> None:
    """vectors [VECTORS, rows, H, N]: r, decay, key, value, κ, κ·a and gate of each row.

    projected: float32 [rows, 3 * pitch], what the matrices make of r, k and v, each from a multiple of pitch >= D on.
    hidden: planes [P, rows, ranks], the low ranks. v_first [rows, D]: written by the first layer, read by the others.
    """
    rows, heads, n = vectors.shape[1:]
    width, pitch = heads * n, projected.shape[1] // 3
    r, k, v = (projected[:, i * pitch : i * pitch + width] for i in range(3))
    low = joined(hidden)

    def raised(matrix: Matrix, start: int) -> Tensor:
        return (low[:, start : start + matrix.inputs] @ dequantized(matrix).T)[:, :width]

    decay = torch.exp(MAX_LOG_DECAY * torch.sigmoid(weights.w0 + raised(weights.w2, weights.starts[0])))
    a = torch.sigmoid(weights.a0 + raised(weights.a2, weights.starts[1]))
    if weights.v0 is None or weights.v2 is None:
        v_first.copy_(v)
    else:
        v = v + (v_first - v) * torch.sigmoid(weights.v0 + raised(weights.v2, weights.starts[2]))
    kappa = functional.normalize((k * weights.k_k).view(rows, heads, n), dim=-1, eps=KEY_NORM_GUARD)
    k = k * (1 + (a - 1) * weights.k_a)
    for index, vector in ((R, r), (W, decay), (K, k), (V, v), (GATE, raised(weights.g2, weights.starts[3]))):
        vectors[index] = vector.view(rows, heads, n)
    vectors[KAPPA] = kappa
    vectors[B] = kappa * a.view(rows, heads, n)


def finish(y: Tensor, vectors: Tensor, r_k: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """out [1, P, rows, D]: y [rows, H, N] normed per head, plus the bonus of the token itself, gated.

    r_k, weight, bias: float32 [D].
    """
    rows, heads, n = y.shape
    mean = y.mean(dim=-1, keepdim=True)
    spread = y.var(dim=-1, keepdim=True, unbiased=False)
    normed = (y - mean) / torch.sqrt(spread + GROUP_NORM_EPS) * weight.view(heads, n) + bias.view(heads, n)
    bonus = (vectors[R] * vectors[K] * r_k.view(heads, n)).sum(dim=-1, keepdim=True)
    put(((normed + bonus * vectors[V]) * vectors[GATE]).view(rows, heads * n), out[0])


def norm(x: Tensor, places: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """out [1, P, M, D]: the layer norm of rows `places` (int32 [M]) of x."""
    put(_layer_norm(x[places.long()], weight, bias), out[0])


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, LAYER_NORM_EPS)
