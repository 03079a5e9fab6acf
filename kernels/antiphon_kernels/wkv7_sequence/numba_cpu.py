"""WKV-7 over whole sequences on the CPU: one head's 64 x 64 state stays in the first-level cache.

For every row of the batch and every head, token after token,

    S ← S·diag(w) − (S κ) bᵀ + v kᵀ,   y = S r        with S[value, key]

and backward by the chain rule from states kept every `CHUNK` tokens; the states between are computed
again. On a CPU this beats the chunked matmul form, whose matrices of 16 x 64 are too small to be worth
their traffic. All heads of a row take a chunk each before the next chunk begins, so that memory is read and
written in long stretches. All arrays are float32 [B, T, H, N], T a multiple of `CHUNK` and N = 64; kept states are
[B, T / CHUNK, H, N(value), N(key)], and `held` is S κ of every token, kept for the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.jit import kernel, piece
from antiphon_kernels.wkv7_sequence.heads64 import N, advance, remember, retreat
from antiphon_kernels.wkv7_sequence.reference import CHUNK

Floats = npt.NDArray[np.float32]


@piece
def _aligned(size: int) -> Any:
    """float32 [size] that begins with a cache line: a vector across two lines costs twice."""
    room = np.empty(size + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + size]


@piece
def _transpose(source: Any, target: Any) -> None:
    """target[i, j] = source[j, i], both [N * N] flat; written out because assigning `.T` goes element by element."""
    for i in range(N):
        for j in range(N):
            target[i * N + j] = source[j * N + i]


@kernel
def _forward(
    first: int, last: int, group: int, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any,
    keep: Any, start: Any, y: Any, held: Any, kept: Any, final: Any,
) -> None:  # fmt: skip
    """Parts first ≤ p < last, of `group` heads of one row each."""
    length, heads = r.shape[1], r.shape[2]
    states_ = _aligned(group * N * N)
    states = states_.reshape(group, N * N)
    r_, w_, k_, v_, kappa_, b_ = (
        r.reshape(-1), w.reshape(-1), k.reshape(-1), v.reshape(-1), kappa.reshape(-1), b.reshape(-1)
    )  # fmt: skip
    y_, held_ = y.reshape(-1), held.reshape(-1)
    stride, groups = heads * N, heads // group
    for part in range(first, last):
        row, head_0 = part // groups, part % groups * group
        for i in range(group):
            _transpose(start[row, head_0 + i].reshape(-1), states[i])
        for c in range(length // CHUNK):
            for i in range(group):
                state, head = states[i], head_0 + i
                if not keep[row, c]:
                    state[:] = np.float32(0.0)
                _transpose(state, kept[row, c, head].reshape(-1))
                at = ((row * length + c * CHUNK) * heads + head) * N
                advance(state, r_, w_, k_, v_, kappa_, b_, y_, held_, at, stride, CHUNK)
        for i in range(group):
            _transpose(states[i], final[row, head_0 + i].reshape(-1))


@kernel
def _backward(
    first: int, last: int, group: int, r: Any, w: Any, k: Any, v: Any, kappa: Any, b: Any, keep: Any, held: Any,
    kept: Any, dy: Any, dfinal: Any, dr: Any, dw: Any, dk: Any, dv: Any, dkappa: Any, db: Any, dstart: Any,
) -> None:  # fmt: skip
    """Parts first ≤ p < last, of `group` heads of one row each."""
    length, heads = r.shape[1], r.shape[2]
    states_ = _aligned((CHUNK + 1) * N * N)
    gradients = _aligned(group * N * N).reshape(group, N * N)
    r_, w_, k_, v_, kappa_, b_ = (
        r.reshape(-1), w.reshape(-1), k.reshape(-1), v.reshape(-1), kappa.reshape(-1), b.reshape(-1)
    )  # fmt: skip
    held_, dy_ = held.reshape(-1), dy.reshape(-1)
    dr_, dw_, dk_, dv_, dkappa_, db_ = (
        dr.reshape(-1), dw.reshape(-1), dk.reshape(-1), dv.reshape(-1), dkappa.reshape(-1), db.reshape(-1)
    )  # fmt: skip
    stride, groups = heads * N, heads // group
    for part in range(first, last):
        row, head_0 = part // groups, part % groups * group
        for i in range(group):
            gradients[i] = dfinal[row, head_0 + i].reshape(-1)
        for c in range(length // CHUNK - 1, -1, -1):
            for i in range(group):
                ds, head = gradients[i], head_0 + i
                at = ((row * length + c * CHUNK) * heads + head) * N
                states_[: N * N] = kept[row, c, head].reshape(-1)
                remember(states_, w_, k_, v_, b_, held_, at, stride, CHUNK)
                retreat(
                    ds, states_, r_, w_, k_, v_, kappa_, b_, held_, dy_,
                    dr_, dw_, dk_, dv_, dkappa_, db_, at, stride, CHUNK,
                )  # fmt: skip
                if not keep[row, c]:
                    ds[:] = np.float32(0.0)
        for i in range(group):
            dstart[row, head_0 + i].reshape(-1)[:] = gradients[i]


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
) -> tuple[Floats, Floats, Floats, Floats]:
    """y [B, T, H, N], `held` (alike), the kept states, and the final state [B, H, N(value), N(key)].

    Arguments as in `reference`.
    """
    batch, length, heads = _checked(r, w, k, v, kappa, b, keep=keep, states=(start,))
    y, held, final = np.empty_like(r), np.empty_like(r), np.empty_like(start)
    kept = np.empty((batch, length // CHUNK, heads, N, N), np.float32)
    _spread(_forward, batch, heads, threads, r, w, k, v, kappa, b, keep, start, y, held, kept, final)
    return y, held, kept, final


def backward(
    r: Floats,
    w: Floats,
    k: Floats,
    v: Floats,
    kappa: Floats,
    b: Floats,
    keep: npt.NDArray[np.bool_],
    held: Floats,
    kept: Floats,
    dy: Floats,
    dfinal: Floats,
    *,
    threads: int = 1,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats]:
    """Gradients by r, w, k, v, kappa, b and the start state, from those by y and the final state.

    `held` and `kept` are what `forward` gave for the same arguments.
    """
    batch, length, heads = _checked(r, w, k, v, kappa, b, held, dy, keep=keep, states=(dfinal,))
    _require(kept, (batch, length // CHUNK, heads, N, N), np.float32)
    dr, dw, dk, dv, dkappa, db = (np.empty_like(r) for _ in range(6))
    dstart = np.empty_like(dfinal)
    _spread(
        _backward, batch, heads, threads,
        r, w, k, v, kappa, b, keep, held, kept, dy, dfinal, dr, dw, dk, dv, dkappa, db, dstart,
    )  # fmt: skip
    return dr, dw, dk, dv, dkappa, db, dstart


def _checked(
    r: Floats, *others: Floats, keep: npt.NDArray[np.bool_], states: tuple[Floats, ...]
) -> tuple[int, int, int]:
    """The sizes B, T, H; ValueError for arrays that the kernels, which check nothing, cannot take."""
    if r.ndim != 4 or r.shape[1] % CHUNK or r.shape[3] != N:
        raise ValueError(f"r is [B, T, H, N] with T a multiple of {CHUNK} and N = {N}, not {list(r.shape)}")
    batch, length, heads, _ = r.shape
    for array in (r, *others):
        _require(array, r.shape, np.float32)
    for state in states:
        _require(state, (batch, heads, N, N), np.float32)
    _require(keep, (batch, length // CHUNK), np.bool_)
    return batch, length, heads


def _require(array: npt.NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"an array must be contiguous {dtype.__name__} {list(shape)}, not {array.dtype} {list(array.shape)}"
        )


def _spread(compiled: Callable[..., None], batch: int, heads: int, threads: int, *arrays: npt.NDArray[Any]) -> None:
    """Run the kernel on equal shares of the work, each in a thread; the calling one takes the first share.

    The heads of a row stay together unless there are fewer rows than threads.
    """
    group = heads if batch >= threads else 1
    parts = batch * heads // group
    threads = max(1, min(threads, parts))
    bounds = [parts * i // threads for i in range(threads + 1)]
    if threads == 1:
        compiled(0, parts, group, *arrays)
        return
    with ThreadPoolExecutor(threads - 1, "wkv7") as others:
        shares = [others.submit(compiled, bounds[i], bounds[i + 1], group, *arrays) for i in range(1, threads)]
        compiled(bounds[0], bounds[1], group, *arrays)
        for share in shares:
            share.result()
