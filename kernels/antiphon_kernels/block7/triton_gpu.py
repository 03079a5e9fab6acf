"""The element-wise parts of an RWKV-7 block on a GPU, each in one launch; each equals its namesake in `reference`.

`prepare` raises the low ranks itself, on the matrix units, a head at a time: what they raise it needs at once.
"""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from antiphon_kernels.block7 import reference
from antiphon_kernels.block7.reference import HeadWeights
from antiphon_kernels.linear.triton_gpu import product
from antiphon_kernels.slab import Slab
from antiphon_kernels.triton_jit import kernel, lanes, launch, normed, piece, put_planes

_EPS = tl.constexpr(reference.LAYER_NORM_EPS)
_GROUP_EPS = tl.constexpr(reference.GROUP_NORM_EPS)
_GUARD = tl.constexpr(reference.KEY_NORM_GUARD)
_MAX_LOG_DECAY = tl.constexpr(reference.MAX_LOG_DECAY)

_ROWS = 16
"""Rows of activations that a program of `prepare` takes."""


@kernel
def _embed(
    table: tl.tensor, scales: tl.tensor, ids: tl.tensor, weight: tl.tensor, bias: tl.tensor, out: tl.tensor,
    D: tl.constexpr, LANES: tl.constexpr, SCALED: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    token = tl.load(ids + row).to(tl.int64)
    c = tl.arange(0, LANES)
    mask = c < D
    x = tl.load(table + token * D + c, mask=mask, other=0.0).to(tl.float32)
    if SCALED:
        x *= tl.load(scales + token)
    w, b = tl.load(weight + c, mask=mask, other=0.0), tl.load(bias + c, mask=mask, other=0.0)
    tl.store(out + row * D + c, normed(x, w, b, mask, D, _EPS), mask=mask)


@kernel
def _shift_mix(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, mixes: tl.tensor, states: tl.tensor, slots: tl.tensor,
    previous: tl.tensor, last: tl.tensor, out: tl.tensor, at: tl.tensor, plane: tl.tensor,
    D: tl.constexpr, LANES: tl.constexpr, LENGTH: tl.constexpr, MIXES: tl.constexpr, PLANES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    c = tl.arange(0, LANES)
    mask = c < D
    w, b = tl.load(weight + c, mask=mask, other=0.0), tl.load(bias + c, mask=mask, other=0.0)
    here = normed(tl.load(x + row * D + c, mask=mask, other=0.0), w, b, mask, D, _EPS)
    kept = states + tl.load(slots + row).to(tl.int64) * LENGTH + at + c
    earlier = tl.load(previous + row)
    if earlier >= 0:
        before = normed(tl.load(x + earlier * D + c, mask=mask, other=0.0), w, b, mask, D, _EPS)
    else:
        before = tl.load(kept, mask=mask, other=0.0)
    for m in tl.static_range(MIXES):
        mixed = here + (before - here) * tl.load(mixes + m * D + c, mask=mask, other=0.0)
        put_planes(out + m * PLANES * plane, mixed, row * D + c, mask, plane, PLANES)
    # The program that read what was kept writes what is to be kept, so that none overtakes the other.
    end = tl.load(last + row)
    if end == row:
        tl.store(kept, here, mask=mask)
    elif end >= 0:
        tl.store(kept, normed(tl.load(x + end * D + c, mask=mask, other=0.0), w, b, mask, D, _EPS), mask=mask)


@piece
def _raised(
    hidden: tl.tensor, values: tl.tensor, r: tl.tensor, o: tl.tensor, rows: tl.tensor, plane: tl.tensor,
    INPUTS: tl.constexpr, PADDED: tl.constexpr, RANKS: tl.constexpr, HEIGHT: tl.constexpr, FORM: tl.constexpr,
    PLANES: tl.constexpr, R: tl.constexpr, N: tl.constexpr, INTERPRETED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """What a matrix of full precision makes of a low rank: [R, N]."""
    return product(
        hidden, values, values, r, o, rows, plane,
        INPUTS, PADDED, RANKS, HEIGHT, FORM, 1, False, False, PLANES, R, N, 64, INTERPRETED,
    )  # fmt: skip


@kernel
def _prepare(
    projected: tl.tensor, hidden: tl.tensor, w0: tl.tensor, a0: tl.tensor, v0: tl.tensor, k_k: tl.tensor,
    k_a: tl.tensor, w2: tl.tensor, a2: tl.tensor, v2: tl.tensor, g2: tl.tensor, v_first: tl.tensor,
    vectors: tl.tensor, rows: tl.tensor, plane: tl.tensor, vector: tl.tensor,
    D: tl.constexpr, N: tl.constexpr, PITCH: tl.constexpr, RANKS: tl.constexpr, FORM: tl.constexpr,
    HEIGHT: tl.constexpr, W_AT: tl.constexpr, A_AT: tl.constexpr, V_AT: tl.constexpr, G_AT: tl.constexpr,
    W_IN: tl.constexpr, A_IN: tl.constexpr, V_IN: tl.constexpr, G_IN: tl.constexpr, W_PAD: tl.constexpr,
    A_PAD: tl.constexpr, V_PAD: tl.constexpr, G_PAD: tl.constexpr, FIRST: tl.constexpr, PLANES: tl.constexpr,
    R: tl.constexpr, INTERPRETED: tl.constexpr,
) -> None:  # fmt: skip
    """R rows of one head."""
    r = tl.program_id(1) * R + tl.arange(0, R)
    o = tl.program_id(0) * N + tl.arange(0, N)
    here = (r < rows)[:, None] & (o < D)[None, :]
    at = r[:, None] * D + o[None, :]

    raised = _raised(hidden + W_AT, w2, r, o, rows, plane, W_IN, W_PAD, RANKS, HEIGHT, FORM, PLANES, R, N, INTERPRETED)
    decay = tl.exp(tl.sigmoid(tl.load(w0 + o)[None, :] + raised) * _MAX_LOG_DECAY)
    tl.store(vectors + vector + at, decay, mask=here)
    raised = _raised(hidden + A_AT, a2, r, o, rows, plane, A_IN, A_PAD, RANKS, HEIGHT, FORM, PLANES, R, N, INTERPRETED)
    a = tl.sigmoid(tl.load(a0 + o)[None, :] + raised)
    gate = _raised(hidden + G_AT, g2, r, o, rows, plane, G_IN, G_PAD, RANKS, HEIGHT, FORM, PLANES, R, N, INTERPRETED)
    tl.store(vectors + 6 * vector + at, gate, mask=here)

    across = projected + r[:, None] * (3 * PITCH) + o[None, :]
    v = tl.load(across + 2 * PITCH, mask=here, other=0.0)
    if FIRST:
        tl.store(v_first + at, v, mask=here)
    else:
        raised = _raised(
            hidden + V_AT, v2, r, o, rows, plane, V_IN, V_PAD, RANKS, HEIGHT, FORM, PLANES, R, N, INTERPRETED
        )
        towards = tl.load(v_first + at, mask=here, other=0.0) - v
        v += towards * tl.sigmoid(tl.load(v0 + o)[None, :] + raised)
    tl.store(vectors + 3 * vector + at, v, mask=here)
    tl.store(vectors + at, tl.load(across, mask=here, other=0.0), mask=here)
    k = tl.load(across + PITCH, mask=here, other=0.0)
    kappa = k * tl.load(k_k + o)[None, :]
    length = tl.sqrt_rn(tl.sum(kappa * kappa, axis=1))
    kappa = kappa / tl.maximum(length, _GUARD, propagate_nan=tl.PropagateNan.ALL)[:, None]
    tl.store(vectors + 2 * vector + at, k * (1.0 + (a - 1.0) * tl.load(k_a + o)[None, :]), mask=here)
    tl.store(vectors + 4 * vector + at, kappa, mask=here)
    tl.store(vectors + 5 * vector + at, kappa * a, mask=here)


@kernel
def _finish(
    y: tl.tensor, vectors: tl.tensor, r_k: tl.tensor, weight: tl.tensor, bias: tl.tensor, out: tl.tensor,
    vector: tl.tensor, plane: tl.tensor, HEADS: tl.constexpr, N: tl.constexpr, PLANES: tl.constexpr,
) -> None:  # fmt: skip
    """One head of one row."""
    row, head = tl.program_id(0), tl.program_id(1)
    c = head * N + tl.arange(0, N)
    at = row * HEADS * N + c
    mask = c >= 0
    answer = normed(tl.load(y + at), tl.load(weight + c), tl.load(bias + c), mask, N, _GROUP_EPS)
    bonus = tl.sum(tl.load(vectors + at) * tl.load(vectors + 2 * vector + at) * tl.load(r_k + c), axis=0)
    answer = (answer + bonus * tl.load(vectors + 3 * vector + at)) * tl.load(vectors + 6 * vector + at)
    put_planes(out, answer, at, mask, plane, PLANES)


@kernel
def _norm(
    x: tl.tensor, places: tl.tensor, weight: tl.tensor, bias: tl.tensor, out: tl.tensor, plane: tl.tensor,
    D: tl.constexpr, LANES: tl.constexpr, PLANES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    c = tl.arange(0, LANES)
    mask = c < D
    w, b = tl.load(weight + c, mask=mask, other=0.0), tl.load(bias + c, mask=mask, other=0.0)
    found = tl.load(x + tl.load(places + row) * D + c, mask=mask, other=0.0)
    put_planes(out, normed(found, w, b, mask, D, _EPS), row * D + c, mask, plane, PLANES)


def takes(n: int) -> bool:
    """Whether the kernels can run with heads of this size: powers of two from 16 on."""
    return n >= 16 and n & (n - 1) == 0


def embed(table: Tensor, scales: Tensor | None, ids: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """As `reference.embed`."""
    rows, width = out.shape
    launch(
        _embed, (rows,), out, table, table if scales is None else scales, ids, weight, bias, out,
        D=width, LANES=lanes(width), SCALED=scales is not None, num_warps=_warps(width),
    )  # fmt: skip


def shift_mix(
    x: Tensor, weight: Tensor, bias: Tensor, mixes: Tensor, states: Tensor, at: int, slab: Slab, out: Tensor
) -> None:
    """As `reference.shift_mix`, for contiguous tensors."""
    rows, width = x.shape
    launch(
        _shift_mix, (rows,), x, x, weight, bias, mixes, states, slab.slots, slab.previous, slab.last, out, at,
        out.stride(1), D=width, LANES=lanes(width), LENGTH=states.shape[1], MIXES=out.shape[0], PLANES=out.shape[1],
        num_warps=_warps(width),
    )  # fmt: skip


def prepare(projected: Tensor, hidden: Tensor, weights: HeadWeights, v_first: Tensor, vectors: Tensor) -> None:
    """As `reference.prepare`, for contiguous tensors."""
    rows, heads, n = vectors.shape[1:]
    w2, a2, g2 = weights.w2, weights.a2, weights.g2
    v2 = w2 if weights.v2 is None else weights.v2
    w_at, a_at, v_at, g_at = weights.starts
    launch(
        _prepare, (heads, -(-rows // _ROWS)), vectors,
        projected, hidden, weights.w0, weights.a0, weights.w0 if weights.v0 is None else weights.v0, weights.k_k,
        weights.k_a, w2.values, a2.values, v2.values, g2.values, v_first, vectors, rows, hidden.stride(0),
        vectors.stride(0),
        D=heads * n, N=n, PITCH=projected.shape[1] // 3, RANKS=hidden.shape[2], FORM=w2.form, HEIGHT=w2.height,
        W_AT=w_at, A_AT=a_at, V_AT=v_at, G_AT=g_at, W_IN=w2.inputs, A_IN=a2.inputs, V_IN=v2.inputs, G_IN=g2.inputs,
        W_PAD=w2.padded, A_PAD=a2.padded, V_PAD=v2.padded, G_PAD=g2.padded, FIRST=weights.v2 is None,
        PLANES=hidden.shape[0], R=_ROWS, INTERPRETED=not vectors.is_cuda, num_warps=4,
    )  # fmt: skip


def finish(y: Tensor, vectors: Tensor, r_k: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """As `reference.finish`, for contiguous tensors."""
    rows, heads, n = y.shape
    launch(
        _finish, (rows, heads), y, y, vectors, r_k, weight, bias, out, vectors.stride(0), out.stride(1),
        HEADS=heads, N=n, PLANES=out.shape[1], num_warps=1,
    )  # fmt: skip


def norm(x: Tensor, places: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """As `reference.norm`, for contiguous tensors."""
    width = x.shape[1]
    launch(
        _norm, (places.numel(),), x, x, places, weight, bias, out, out.stride(1),
        D=width, LANES=lanes(width), PLANES=out.shape[1], num_warps=_warps(width),
    )  # fmt: skip


def _warps(width: int) -> int:
    """Warps for a vector of this width: 8 numbers a thread or so."""
    return min(8, max(1, lanes(width) // 256))
