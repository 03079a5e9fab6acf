"""WKV-7 over whole sequences on the CPU: one head's 64 x 64 state stays in the first-level cache.

For every row of the batch and every head, token after token,

    S ← S·diag(w) − (S κ) bᵀ + v kᵀ,   y = S r        with S[value, key]

and backward by the chain rule from states kept every `CHUNK` tokens; the states between are computed
again. On a CPU this beats the chunked matmul form, whose matrices of 16 x 64 are too small to be worth
their traffic. All arrays are float32 [B, T, H, N], T a multiple of `CHUNK`; kept states are
[B, H, T / CHUNK, N(key), N(value)], transposed so that the inner loops run over neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from antiphon_kernels.jit import kernel
from antiphon_kernels.wkv7_sequence.reference import CHUNK

Floats = npt.NDArray[np.float32]
F = TypeVar("F", bound=Callable[..., Any])


def _reordered(function: F) -> F:
    """A part of a kernel whose sums may be taken in any order and fused, so that they vectorise; a NaN stays one."""
    return cast(F, numba.njit(nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")(function))


@_reordered
def _advance(s: Any, after: Any, sa: Any, y: Any, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any) -> None:
    """One token: `after` = the state that follows `s` [key, value], sa = S κ, y = S r."""
    n = s.shape[0]
    for i in range(n):
        sa[i] = np.float32(0.0)
        y[i] = np.float32(0.0)
    for j in range(0, n, 4):
        k0, k1, k2, k3 = kappa[j], kappa[j + 1], kappa[j + 2], kappa[j + 3]
        for i in range(n):
            sa[i] += s[j, i] * k0 + s[j + 1, i] * k1 + s[j + 2, i] * k2 + s[j + 3, i] * k3
    for j in range(n):
        w_j, k_j, b_j, r_j = w[j], k[j], b[j], r[j]
        for i in range(n):
            new = s[j, i] * w_j - sa[i] * b_j + v[i] * k_j
            after[j, i] = new
            y[i] += new * r_j


@kernel
def _forward(
    first: int, last: int, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any,
    keep: Any, start: Any, y: Any, kept: Any, final: Any,
) -> None:  # fmt: skip
    """Sequences first ≤ row·H + head < last."""
    length, heads, n = r.shape[1], r.shape[2], r.shape[3]
    # Two states in turn: an update in place would look like an overlap to the compiler's vector checks.
    states = np.empty((2, n, n), np.float32)
    sa = np.empty(n, np.float32)
    out = np.empty(n, np.float32)
    for sequence in range(first, last):
        row, head = sequence // heads, sequence % heads
        for j in range(n):
            for i in range(n):
                states[0, j, i] = start[row, head, i, j]
        for t in range(length):
            if t % CHUNK == 0:
                c = t // CHUNK
                if not keep[row, c]:
                    states[0] = np.float32(0.0)
                kept[row, head, c] = states[0]
            _advance(
                states[t % 2], states[1 - t % 2], sa, out,
                r[row, t, head], w[row, t, head], k[row, t, head],
                v[row, t, head], kappa[row, t, head], b[row, t, head],
            )  # fmt: skip
            y[row, t, head] = out
        for j in range(n):
            for i in range(n):
                final[row, head, i, j] = states[0, j, i]


@_reordered
def _retreat(
    ds: Any, dy: Any, s: Any, after: Any, sa: Any, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any,
    dr: Any, dw: Any, dk: Any, dv: Any, dkappa: Any, db: Any, dsa: Any,
) -> None:  # fmt: skip
    """One token backward: `ds` becomes the gradient by the state before it; the other d… are written."""
    n = ds.shape[0]
    for i in range(n):
        dv[i] = np.float32(0.0)
        dsa[i] = np.float32(0.0)
    for j in range(n):
        r_j, k_j, b_j = r[j], k[j], b[j]
        sum_r = np.float32(0.0)
        sum_k = np.float32(0.0)
        sum_b = np.float32(0.0)
        sum_w = np.float32(0.0)
        for i in range(n):
            d = ds[j, i] + dy[i] * r_j
            ds[j, i] = d
            sum_r += dy[i] * after[j, i]
            sum_k += d * v[i]
            sum_b += d * sa[i]
            sum_w += d * s[j, i]
            dv[i] += d * k_j
            dsa[i] -= d * b_j
        dr[j] = sum_r
        dk[j] = sum_k
        db[j] = -sum_b
        dw[j] = sum_w
    for j in range(n):
        w_j, kappa_j = w[j], kappa[j]
        sum_kappa = np.float32(0.0)
        for i in range(n):
            sum_kappa += dsa[i] * s[j, i]
            ds[j, i] = ds[j, i] * w_j + dsa[i] * kappa_j
        dkappa[j] = sum_kappa


@kernel
def _backward(
    first: int, last: int, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any, keep: Any, kept: Any, dy: Any,
    dfinal: Any, dr: Any, dw: Any, dk: Any, dv: Any, dkappa: Any, db: Any, dstart: Any,
) -> None:  # fmt: skip
    """Sequences first ≤ row·H + head < last."""
    length, heads, n = r.shape[1], r.shape[2], r.shape[3]
    states = np.empty((CHUNK + 1, n, n), np.float32)
    removed = np.empty((CHUNK, n), np.float32)
    out = np.empty(n, np.float32)
    ds = np.empty((n, n), np.float32)
    dsa = np.empty(n, np.float32)
    for sequence in range(first, last):
        row, head = sequence // heads, sequence % heads
        for j in range(n):
            for i in range(n):
                ds[j, i] = dfinal[row, head, i, j]
        for c in range(length // CHUNK - 1, -1, -1):
            states[0] = kept[row, head, c]
            for u in range(CHUNK):
                t = c * CHUNK + u
                _advance(
                    states[u], states[u + 1], removed[u], out,
                    r[row, t, head], w[row, t, head], k[row, t, head],
                    v[row, t, head], kappa[row, t, head], b[row, t, head],
                )  # fmt: skip
            for u in range(CHUNK - 1, -1, -1):
                t = c * CHUNK + u
                _retreat(
                    ds, dy[row, t, head], states[u], states[u + 1], removed[u],
                    r[row, t, head], w[row, t, head], k[row, t, head],
                    v[row, t, head], kappa[row, t, head], b[row, t, head],
                    dr[row, t, head], dw[row, t, head], dk[row, t, head],
                    dv[row, t, head], dkappa[row, t, head], db[row, t, head], dsa,
                )  # fmt: skip
            if not keep[row, c]:
                ds[:] = np.float32(0.0)
        for j in range(n):
            for i in range(n):
                dstart[row, head, i, j] = ds[j, i]


def forward(
    r: Floats,
    w: Floats,
    k: Floats,
    v: Floats,
    kappa: Floats,
    b: Floats,
    keep: npt.NDArray[np.bool_],
    start: Floats,
    *,
    threads: int = 1,
) -> tuple[Floats, Floats, Floats]:
    """y [B, T, H, N], the kept states, and the final state [B, H, N(value), N(key)]; arguments as in `reference`."""
    batch, length, heads, n = _checked(r, w, k, v, kappa, b, keep=keep, states=(start,))
    y, final = np.full_like(r, np.nan), np.full_like(start, np.nan)
    kept = np.empty((batch, heads, length // CHUNK, n, n), np.float32)
    _spread(_forward, batch * heads, threads, r, w, k, v, kappa, b, keep, start, y, kept, final)
    return y, kept, final


def backward(
    r: Floats,
    w: Floats,
    k: Floats,
    v: Floats,
    kappa: Floats,
    b: Floats,
    keep: npt.NDArray[np.bool_],
    kept: Floats,
    dy: Floats,
    dfinal: Floats,
    *,
    threads: int = 1,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats]:
    """Gradients by r, w, k, v, kappa, b and the start state, from those by y and the final state.

    `kept` is what `forward` gave for the same arguments.
    """
    batch, length, heads, n = _checked(r, w, k, v, kappa, b, dy, keep=keep, states=(dfinal,))
    _require(kept, (batch, heads, length // CHUNK, n, n), np.float32)
    dr, dw, dk, dv, dkappa, db = (np.full_like(r, np.nan) for _ in range(6))
    dstart = np.full_like(dfinal, np.nan)
    _spread(
        _backward, batch * heads, threads,
        r, w, k, v, kappa, b, keep, kept, dy, dfinal, dr, dw, dk, dv, dkappa, db, dstart,
    )  # fmt: skip
    return dr, dw, dk, dv, dkappa, db, dstart


def _checked(
    r: Floats, *others: Floats, keep: npt.NDArray[np.bool_], states: tuple[Floats, ...]
) -> tuple[int, int, int, int]:
    """The sizes B, T, H, N; ValueError for arrays that the kernels, which check nothing, cannot take."""
    if r.ndim != 4 or r.shape[1] % CHUNK or r.shape[3] % 4:
        raise ValueError(f"r is [B, T, H, N] with T a multiple of {CHUNK} and N of 4, not {list(r.shape)}")
    batch, length, heads, n = r.shape
    for array in (r, *others):
        _require(array, r.shape, np.float32)
    for state in states:
        _require(state, (batch, heads, n, n), np.float32)
    _require(keep, (batch, length // CHUNK), np.bool_)
    return batch, length, heads, n


def _require(array: npt.NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"an array must be contiguous {dtype.__name__} {list(shape)}, not {array.dtype} {list(array.shape)}"
        )


def _spread(compiled: Callable[..., None], sequences: int, threads: int, *arrays: npt.NDArray[Any]) -> None:
    """Run the kernel on equal shares of the sequences, each in a thread; the calling one takes the first share."""
    threads = max(1, min(threads, sequences))
    bounds = [sequences * i // threads for i in range(threads + 1)]
    if threads == 1:
        compiled(0, sequences, *arrays)
        return
    with ThreadPoolExecutor(threads - 1, "wkv7") as helpers:
        shares = [helpers.submit(compiled, bounds[i], bounds[i + 1], *arrays) for i in range(1, threads)]
        compiled(bounds[0], bounds[1], *arrays)
        for share in shares:
            share.result()
