"""WKV-7 over whole sequences on a GPU: chunks of 16 tokens side by side, and only a small step from chunk to chunk.

With P the product of the decays since the chunk began, α = κ·P before a token, β = κ·a/P, k̂ = k/P and r̂ = r·P, one
chunk that begins in the state S [key, value] is

    T = (I + tril(α βᵀ, −1))⁻¹,  W = T α,  U₀ = T tril(α k̂ᵀ, −1) V,  β′ = β·P_end,  k′ = k̂·P_end
    Y = Q S + Y₀                           Q = r̂ − tril(r̂ βᵀ) W,   Y₀ = tril(r̂ k̂ᵀ) V − tril(r̂ βᵀ) U₀
    S_end = P_end·S − β′ᵀ (W S) + G        G = k′ᵀ V − β′ᵀ U₀

All but S is known before any state is, so `_prepare` makes it for every chunk at once; `_carry` then walks from chunk
to chunk with a slice of the state in registers. Backward, `_carry_back` walks the other way with the gradient by the
state, dS = P_end·dS_end − Wᵀ (β′ dS_end) + Qᵀ dY, and `_gradients` takes every chunk at once again, from the state
that was kept where it begins and that gradient where it ends. (The construction is that of the DPLR delta rule: Yang
et al., arXiv 2406.06484, and the RWKV-7 paper, arXiv 2503.14456.) A log decay is at least −e^{-1/2}, so that 1/P stays
below e^{9.8} and float32 needs no rescaling inside a chunk.

Inputs are float32 or bfloat16; all that is computed inside, states and their gradients are float32. Where the GPU has
tensor cores for TF32, a product of matrices is three of theirs, which is close to float32; elsewhere it is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from antiphon_kernels.wkv7_sequence.reference import CHUNK

HEAD_SIZES = (16, 32, 64)
"""N that the kernels take: powers of two, from the smallest that a matrix product takes to the one of every release."""

# How many columns of S, which do not know each other, one walk carries, and one pass of `_gradients` takes. Warps,
# stages of loading ahead and these were chosen by what the compiler says of registers (sm_90), not by a clock.
_WALKED = 32
_SUMMED = 16
_WALK = {"num_warps": 4, "num_stages": 3}
_SIDE_BY_SIDE = {"num_warps": 4, "num_stages": 1}

F = TypeVar("F", bound=Callable[..., Any])


def _kernel(function: F) -> F:
    """Compiled for the GPU on its first call; under TRITON_INTERPRET=1, run by Triton's interpreter on any machine."""
    return cast(F, triton.jit(function))


@_kernel
def _rows(
    pointer: tl.tensor,
    base: tl.tensor,
    first: tl.tensor,
    length: tl.tensor,
    stride: tl.tensor,
    C: tl.constexpr,
    N: tl.constexpr,
) -> tl.tensor:
    """[C, N] of a [T, stride] array from token `first` on; behind its end zeros, which leave a state alone."""
    t = first + tl.arange(0, C)[:, None]
    return tl.load(pointer + base + t * stride + tl.arange(0, N)[None, :], mask=t < length, other=0.0).to(tl.float32)


@_kernel
def _put_rows(
    pointer: tl.tensor,
    x: tl.tensor,
    base: tl.tensor,
    first: tl.tensor,
    length: tl.tensor,
    stride: tl.tensor,
    C: tl.constexpr,
    N: tl.constexpr,
) -> None:
    """Write what `_rows` reads."""
    t = first + tl.arange(0, C)[:, None]
    place = pointer + base + t * stride + tl.arange(0, N)[None, :]
    tl.store(place, x.to(pointer.dtype.element_ty), mask=t < length)


@_kernel
def _block(
    rows: tl.constexpr, columns: tl.constexpr, row_stride: tl.constexpr, column_stride: tl.constexpr
) -> tl.tensor:
    """Offsets [rows, columns]."""
    return tl.arange(0, rows)[:, None] * row_stride + tl.arange(0, columns)[None, :] * column_stride


@_kernel
def _before(x: tl.tensor, C: tl.constexpr) -> tl.tensor:
    """tril(x, −1): what a token takes from those before it."""
    return tl.where(tl.arange(0, C)[:, None] > tl.arange(0, C)[None, :], x, 0.0)


@_kernel
def _until(x: tl.tensor, C: tl.constexpr) -> tl.tensor:
    """tril(x): what a token takes from those before it and from itself."""
    return tl.where(tl.arange(0, C)[:, None] >= tl.arange(0, C)[None, :], x, 0.0)


@_kernel
def _unit_lower_inverse(strict: tl.tensor, C: tl.constexpr) -> tl.tensor:
    """(I + strict)⁻¹, row after row: the powers of a product form would cancel badly where keys repeat."""
    rows = tl.arange(0, C)
    inverse = tl.where(rows[:, None] == rows[None, :], 1.0, 0.0)
    for i in range(1, C):
        row = tl.sum(tl.where(rows[:, None] == i, strict, 0.0), axis=0)
        solved = tl.sum(row[:, None] * inverse, axis=0)
        inverse = tl.where(rows[:, None] == i, inverse - solved[None, :], inverse)
    return inverse


@_kernel
def _prepare(
    r: tl.tensor, log_w: tl.tensor, k: tl.tensor, v: tl.tensor, kappa: tl.tensor, a: tl.tensor, solved: tl.tensor,
    asked: tl.tensor, erased: tl.tensor, whole: tl.tensor, inverse: tl.tensor, gained: tl.tensor, answered: tl.tensor,
    length: tl.tensor, heads: tl.tensor, chunks: tl.tensor,
    C: tl.constexpr, N: tl.constexpr, FORWARD: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One chunk of one head: W, Q, β′ and P_end; forward also G and Y₀, backward also T."""
    place = tl.program_id(0).to(tl.int64)  # sequence · chunks + chunk
    sequence, first = place // chunks, (place % chunks).to(tl.int32) * C
    stride = heads * N
    base = (sequence // heads * length * heads + sequence % heads) * N
    r_c = _rows(r, base, first, length, stride, C, N)
    log_w_c = _rows(log_w, base, first, length, stride, C, N)
    kappa_c = _rows(kappa, base, first, length, stride, C, N)
    erased_c = kappa_c * _rows(a, base, first, length, stride, C, N)
    cumulated = tl.cumsum(log_w_c, axis=0)
    total = tl.sum(log_w_c, axis=0)
    alpha = kappa_c * tl.exp(cumulated - log_w_c)
    beta_t = tl.trans(erased_c * tl.exp(-cumulated))
    r_hat = r_c * tl.exp(cumulated)
    at_end = tl.exp(total[None, :] - cumulated)
    t_inverse = _unit_lower_inverse(_before(tl.dot(alpha, beta_t, input_precision=PRECISION), C), C)
    removed_by_r = _until(tl.dot(r_hat, beta_t, input_precision=PRECISION), C)
    w_c = tl.dot(t_inverse, alpha, input_precision=PRECISION)
    q_c = r_hat - tl.dot(removed_by_r, w_c, input_precision=PRECISION)
    chunk = place * C * N + _block(C, N, N, 1)
    tl.store(solved + chunk, w_c)
    tl.store(asked + chunk, q_c)
    tl.store(erased + chunk, erased_c * at_end)
    tl.store(whole + place * N + tl.arange(0, N), tl.exp(total))
    if FORWARD:
        k_c = _rows(k, base, first, length, stride, C, N)
        v_c = _rows(v, base, first, length, stride, C, N)
        k_hat_t = tl.trans(k_c * tl.exp(-cumulated))
        met = tl.dot(_before(tl.dot(alpha, k_hat_t, input_precision=PRECISION), C), v_c, input_precision=PRECISION)
        u_c = tl.dot(t_inverse, met, input_precision=PRECISION)
        y_c = tl.dot(_until(tl.dot(r_hat, k_hat_t, input_precision=PRECISION), C), v_c, input_precision=PRECISION)
        y_c -= tl.dot(removed_by_r, u_c, input_precision=PRECISION)
        g_c = tl.dot(tl.trans(k_c * at_end), v_c, input_precision=PRECISION)
        g_c -= tl.dot(tl.trans(erased_c * at_end), u_c, input_precision=PRECISION)
        tl.store(answered + chunk, y_c)
        tl.store(gained + place * N * N + _block(N, N, N, 1), g_c)
    else:
        tl.store(inverse + place * C * C + _block(C, C, C, 1), t_inverse)


@_kernel
def _carry(
    solved: tl.tensor, asked: tl.tensor, erased: tl.tensor, whole: tl.tensor, answered: tl.tensor, gained: tl.tensor,
    keep: tl.tensor, start: tl.tensor, kept: tl.tensor, y: tl.tensor, final: tl.tensor, length: tl.tensor,
    heads: tl.tensor, chunks: tl.tensor,
    C: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """A slice of one head's state from the first chunk to the last; `kept` gets it as it is at chunks' beginnings."""
    sequence = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * SLICE
    row = sequence // heads
    base = (row * length * heads + sequence % heads) * N + column
    ends = sequence * N * N + column * N + _block(N, SLICE, 1, N)
    state = tl.load(start + ends)
    for c in range(chunks):
        place = sequence * chunks + c
        goes_on = tl.load(keep + row * chunks + c)
        state = tl.where(goes_on != 0, state, 0.0)
        here = place * N * N + column + _block(N, SLICE, N, 1)
        tl.store(kept + here, state)
        chunk = place * C * N + _block(C, N, N, 1)
        y_c = tl.load(answered + place * C * N + column + _block(C, SLICE, N, 1))
        y_c += tl.dot(tl.load(asked + chunk), state, input_precision=PRECISION)
        _put_rows(y, y_c, base, c * C, length, heads * N, C, SLICE)
        removed = tl.dot(tl.load(solved + chunk), state, input_precision=PRECISION)
        erased_t = tl.load(erased + place * C * N + _block(N, C, 1, N))
        state = state * tl.load(whole + place * N + tl.arange(0, N))[:, None] + tl.load(gained + here)
        state -= tl.dot(erased_t, removed, input_precision=PRECISION)
    tl.store(final + ends, state)


@_kernel
def _carry_back(
    solved: tl.tensor, asked: tl.tensor, erased: tl.tensor, whole: tl.tensor, keep: tl.tensor, dfinal: tl.tensor,
    dy: tl.tensor, dkept: tl.tensor, dstart: tl.tensor, length: tl.tensor, heads: tl.tensor, chunks: tl.tensor,
    C: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """A slice of the gradient by one head's state, last chunk first; `dkept` gets it as it is at chunks' ends."""
    sequence = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * SLICE
    row = sequence // heads
    base = (row * length * heads + sequence % heads) * N + column
    ends = sequence * N * N + column * N + _block(N, SLICE, 1, N)
    d_state = tl.load(dfinal + ends)
    for back in range(chunks):
        c = chunks - 1 - back
        place = sequence * chunks + c
        tl.store(dkept + place * N * N + column + _block(N, SLICE, N, 1), d_state)
        dy_c = _rows(dy, base, c * C, length, heads * N, C, SLICE)
        asked_t = tl.load(asked + place * C * N + _block(N, C, 1, N))
        solved_t = tl.load(solved + place * C * N + _block(N, C, 1, N))
        removed = tl.dot(tl.load(erased + place * C * N + _block(C, N, N, 1)), d_state, input_precision=PRECISION)
        d_state = d_state * tl.load(whole + place * N + tl.arange(0, N))[:, None]
        d_state += tl.dot(asked_t, dy_c, input_precision=PRECISION)
        d_state -= tl.dot(solved_t, removed, input_precision=PRECISION)
        goes_on = tl.load(keep + row * chunks + c)
        d_state = tl.where(goes_on != 0, d_state, 0.0)
    tl.store(dstart + ends, d_state)


@_kernel
def _gradients(
    r: tl.tensor, log_w: tl.tensor, k: tl.tensor, v: tl.tensor, kappa: tl.tensor, a: tl.tensor, inverse: tl.tensor,
    kept: tl.tensor, dkept: tl.tensor, dy: tl.tensor, dr: tl.tensor, dlog_w: tl.tensor, dk: tl.tensor, dv: tl.tensor,
    dkappa: tl.tensor, da: tl.tensor, length: tl.tensor, heads: tl.tensor, chunks: tl.tensor,
    C: tl.constexpr, N: tl.constexpr, SLICE: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """One chunk of one head: the gradients by its inputs, by the chain rule through the chunk's equations."""
    place = tl.program_id(0).to(tl.int64)
    sequence, first = place // chunks, (place % chunks).to(tl.int32) * C
    stride = heads * N
    base = (sequence // heads * length * heads + sequence % heads) * N
    log_w_c = _rows(log_w, base, first, length, stride, C, N)
    cumulated = tl.cumsum(log_w_c, axis=0)
    total = tl.sum(log_w_c, axis=0)
    at_end = tl.exp(total[None, :] - cumulated)
    kappa_c = _rows(kappa, base, first, length, stride, C, N)
    alpha = kappa_c * tl.exp(cumulated - log_w_c)
    erased = kappa_c * _rows(a, base, first, length, stride, C, N) * at_end
    written = _rows(k, base, first, length, stride, C, N) * at_end
    r_hat = _rows(r, base, first, length, stride, C, N) * tl.exp(cumulated)
    to_now = tl.exp(-total)[None, :]
    beta_t, k_hat_t = tl.trans(erased * to_now), tl.trans(written * to_now)
    met_k = _before(tl.dot(alpha, k_hat_t, input_precision=PRECISION), C)
    asked_b = _until(tl.dot(r_hat, beta_t, input_precision=PRECISION), C)
    asked_k = _until(tl.dot(r_hat, k_hat_t, input_precision=PRECISION), C)
    t_inverse = tl.load(inverse + place * C * C + _block(C, C, C, 1))

    # Sums over the values, a slice at a time: by the four score matrices and by what meets the states.
    d_met_b = tl.zeros((C, C), tl.float32)
    d_met_k = tl.zeros((C, C), tl.float32)
    d_asked_b = tl.zeros((C, C), tl.float32)
    d_asked_k = tl.zeros((C, C), tl.float32)
    d_alpha = tl.zeros((C, N), tl.float32)
    d_r_hat = tl.zeros((C, N), tl.float32)
    d_erased = tl.zeros((C, N), tl.float32)
    d_written = tl.zeros((C, N), tl.float32)
    d_whole = tl.zeros((N,), tl.float32)
    for column in range(0, N, SLICE):
        columns = place * N * N + column + _block(N, SLICE, N, 1)
        state = tl.load(kept + columns)
        v_c = _rows(v, base + column, first, length, stride, C, SLICE)
        dy_c = _rows(dy, base + column, first, length, stride, C, SLICE)
        met = tl.dot(alpha, state, input_precision=PRECISION) + tl.dot(met_k, v_c, input_precision=PRECISION)
        u_c = tl.dot(t_inverse, met, input_precision=PRECISION)
        d_asked_b -= tl.dot(dy_c, tl.trans(u_c), input_precision=PRECISION)
        d_asked_k += tl.dot(dy_c, tl.trans(v_c), input_precision=PRECISION)
        d_r_hat += tl.dot(dy_c, tl.trans(state), input_precision=PRECISION)
        d_state = tl.load(dkept + columns)
        d_whole += tl.sum(state * d_state, axis=1)
        d_erased -= tl.dot(u_c, tl.trans(d_state), input_precision=PRECISION)
        d_written += tl.dot(v_c, tl.trans(d_state), input_precision=PRECISION)
        d_u = tl.dot(erased, d_state, input_precision=PRECISION)
        d_u += tl.dot(tl.trans(asked_b), dy_c, input_precision=PRECISION)
        d_met = -tl.dot(tl.trans(t_inverse), d_u, input_precision=PRECISION)
        d_v = tl.dot(written, d_state, input_precision=PRECISION)
        d_v += tl.dot(tl.trans(met_k), d_met, input_precision=PRECISION)
        d_v += tl.dot(tl.trans(asked_k), dy_c, input_precision=PRECISION)
        _put_rows(dv, d_v, base + column, first, length, stride, C, SLICE)
        d_met_b -= tl.dot(d_met, tl.trans(u_c), input_precision=PRECISION)
        d_met_k += tl.dot(d_met, tl.trans(v_c), input_precision=PRECISION)
        d_alpha += tl.dot(d_met, tl.trans(state), input_precision=PRECISION)
    d_met_b, d_met_k = _before(d_met_b, C), _before(d_met_k, C)
    d_asked_b, d_asked_k = _until(d_asked_b, C), _until(d_asked_k, C)

    # Each quantity above is an input times an exponential of summed log decays. Inputs are read a second time here:
    # registers could not hold them over the loop.
    log_w_c = _rows(log_w, base, first, length, stride, C, N)
    cumulated = tl.cumsum(log_w_c, axis=0)
    total = tl.sum(log_w_c, axis=0)
    restored, at_end = tl.exp(-cumulated), tl.exp(total[None, :] - cumulated)
    k_c = _rows(k, base, first, length, stride, C, N)
    kappa_c = _rows(kappa, base, first, length, stride, C, N)
    a_c = _rows(a, base, first, length, stride, C, N)
    k_hat, beta = k_c * restored, kappa_c * a_c * restored
    d_r_hat += tl.dot(d_asked_b, beta, input_precision=PRECISION)
    d_r_hat += tl.dot(d_asked_k, k_hat, input_precision=PRECISION)
    decayed = tl.exp(cumulated)
    r_hat = _rows(r, base, first, length, stride, C, N) * decayed
    _put_rows(dr, d_r_hat * decayed, base, first, length, stride, C, N)
    d_cumulated = d_r_hat * r_hat
    d_alpha += tl.dot(d_met_b, beta, input_precision=PRECISION)
    d_alpha += tl.dot(d_met_k, k_hat, input_precision=PRECISION)
    decayed_before = tl.exp(cumulated - log_w_c)
    alpha = kappa_c * decayed_before
    through_alpha = d_alpha * alpha
    d_k_hat = tl.dot(tl.trans(d_met_k), alpha, input_precision=PRECISION)
    d_k_hat += tl.dot(tl.trans(d_asked_k), r_hat, input_precision=PRECISION)
    through_end = d_written * k_c * at_end
    d_cumulated += through_alpha - d_k_hat * k_hat
    _put_rows(dk, d_k_hat * restored + d_written * at_end, base, first, length, stride, C, N)
    d_beta = tl.dot(tl.trans(d_met_b), alpha, input_precision=PRECISION)
    d_beta += tl.dot(tl.trans(d_asked_b), r_hat, input_precision=PRECISION)
    through_end += d_erased * kappa_c * a_c * at_end
    d_cumulated -= d_beta * beta + through_end
    d_b = d_beta * restored + d_erased * at_end
    _put_rows(dkappa, d_alpha * decayed_before + a_c * d_b, base, first, length, stride, C, N)
    _put_rows(da, kappa_c * d_b, base, first, length, stride, C, N)
    d_total = tl.sum(through_end, axis=0) + d_whole * tl.exp(total)
    d_log_w = tl.cumsum(d_cumulated, axis=0, reverse=True) + d_total[None, :] - through_alpha
    _put_rows(dlog_w, d_log_w, base, first, length, stride, C, N)


def takes(r: Tensor) -> bool:
    """Whether the kernels can run on inputs of this shape [B, T, H, N], dtype and size."""
    return r.ndim == 4 and r.shape[3] in HEAD_SIZES and r.dtype in (torch.float32, torch.bfloat16) and r.numel() > 0


def forward(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, a: Tensor, keep: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """y [B, T, H, N] in v's dtype, the kept states, and the final state [B, H, N(value), N(key)] in float32.

    All of r…a are contiguous [B, T, H, N], float32 or bfloat16 each, N one of `HEAD_SIZES`, T free; log_w lies in
    [−0.607, 0]. `keep` bool [B, ceil(T / CHUNK)] and `start` (float32) are as in `reference`, with w = exp(log_w) and
    b = κ·a. Kept states are float32 [B, H, ceil(T / CHUNK), N(key), N(value)]. ValueError for anything else.
    """
    batch, length, heads, n, chunks = _checked(r, log_w, k, v, kappa, a, keep=keep, start=start)
    carried, scores = _scratch(r, chunks)
    answered = torch.empty_like(carried[0])
    gained, kept = (start.new_empty(batch, heads, chunks, n, n) for _ in range(2))
    y, final = torch.empty_like(v), torch.empty_like(start)
    with _on(r):
        _launch(
            _prepare, (batch * heads * chunks,), r, log_w, k, v, kappa, a, *carried, scores, gained, answered,
            length, heads, chunks, C=CHUNK, N=n, FORWARD=True, PRECISION=_precision(r), **_SIDE_BY_SIDE,
        )  # fmt: skip
        _launch(
            _carry, (batch * heads, n // min(n, _WALKED)), *carried, answered, gained, keep.view(torch.uint8), start,
            kept, y, final, length, heads, chunks,
            C=CHUNK, N=n, SLICE=min(n, _WALKED), PRECISION=_precision(r), **_WALK,
        )  # fmt: skip
    return y, kept, final


def backward(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    keep: Tensor,
    kept: Tensor,
    dy: Tensor,
    dfinal: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by r, log_w, k, v, kappa, a (each in its input's dtype) and by the start state (float32).

    `kept` is what `forward` gave for the same arguments; dy is like y and dfinal like the final state.
    """
    batch, length, heads, n, chunks = _checked(r, log_w, k, v, kappa, a, dy, keep=keep, start=dfinal)
    _require(kept, (batch, heads, chunks, n, n), (torch.float32,), r.device)
    carried, scores = _scratch(r, chunks)
    dkept, dstart = torch.empty_like(kept), torch.empty_like(dfinal)
    dr, dlog_w, dk, dv, dkappa, da = (torch.empty_like(x) for x in (r, log_w, k, v, kappa, a))
    with _on(r):
        _launch(
            _prepare, (batch * heads * chunks,), r, log_w, k, v, kappa, a, *carried, scores, scores, scores,
            length, heads, chunks, C=CHUNK, N=n, FORWARD=False, PRECISION=_precision(r), **_SIDE_BY_SIDE,
        )  # fmt: skip
        _launch(
            _carry_back, (batch * heads, n // min(n, _WALKED)), *carried, keep.view(torch.uint8), dfinal, dy, dkept,
            dstart, length, heads, chunks,
            C=CHUNK, N=n, SLICE=min(n, _WALKED), PRECISION=_precision(r), **_WALK,
        )  # fmt: skip
        _launch(
            _gradients, (batch * heads * chunks,), r, log_w, k, v, kappa, a, scores, kept, dkept, dy,
            dr, dlog_w, dk, dv, dkappa, da, length, heads, chunks,
            C=CHUNK, N=n, SLICE=min(n, _SUMMED), PRECISION=_precision(r), **_SIDE_BY_SIDE,
        )  # fmt: skip
    return dr, dlog_w, dk, dv, dkappa, da, dstart


def _scratch(r: Tensor, chunks: int) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Room for W, Q and β′ [B, H, chunks, CHUNK, N] with P_end [B, H, chunks, N]; and for T, CHUNK x CHUNK each."""
    batch, _, heads, n = r.shape

    def room(*size: int) -> Tensor:
        return torch.empty(batch, heads, chunks, *size, dtype=torch.float32, device=r.device)

    return (room(CHUNK, n), room(CHUNK, n), room(CHUNK, n), room(n)), room(CHUNK, CHUNK)


def _launch(function: Any, grid: tuple[int, ...], *arguments: Any, **sizes: Any) -> None:
    function[grid](*arguments, **sizes)


def _on(tensor: Tensor) -> torch.cuda.device:
    """Triton launches on the current device, which need not be the tensors' own; for CPU tensors nothing changes."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)


def _precision(tensor: Tensor) -> str:
    """How matrices are multiplied: see the module's description."""
    has_tf32 = (
        torch.version.hip is None and tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) >= (8, 0)
    )
    return "tf32x3" if has_tf32 else "ieee"


def _checked(r: Tensor, *others: Tensor, keep: Tensor, start: Tensor) -> tuple[int, int, int, int, int]:
    """The sizes B, T, H, N and the number of chunks; ValueError for tensors that the kernels cannot take."""
    if not takes(r):
        raise ValueError(
            f"r is [B, T, H, N] in float32 or bfloat16, not empty, with N one of {HEAD_SIZES}, "
            f"not {r.dtype} {list(r.shape)}"
        )
    batch, length, heads, n = r.shape
    chunks = -(-length // CHUNK)
    for tensor in (r, *others):
        _require(tensor, r.shape, (torch.float32, torch.bfloat16), r.device)
    _require(start, (batch, heads, n, n), (torch.float32,), r.device)
    _require(keep, (batch, chunks), (torch.bool,), r.device)
    return batch, length, heads, n, chunks


def _require(tensor: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...], device: torch.device) -> None:
    known = tuple(tensor.shape) == tuple(shape) and tensor.dtype in dtypes and tensor.device == device
    if not known or not tensor.is_contiguous():
        raise ValueError(
            f"a tensor must be contiguous {list(shape)} in {' or '.join(map(str, dtypes))} on {device}, "
            f"not {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        )
