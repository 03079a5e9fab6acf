"""WKV-7 over whole sequences at once: chunks of 16 tokens in parallel, then a small scan over chunks.

It equals the token-by-token form `antiphon.model.rwkv7.wkv7` and is differentiable. Within a chunk let
P_t be the product of the decays up to t, and write S_t = Ŝ_t·diag(P_t). Then with
α_t = P_{t-1}·κ_t, β_t = κ_t·a_t/P_t, k̂_t = k_t/P_t, r̂_t = P_t·r_t and u_t = Ŝ_{t-1} α_t

    (I + tril(α βᵀ, −1)) U = α S₀ᵀ + tril(α k̂ᵀ, −1) V            one small triangular system
    Y = r̂ S₀ᵀ − tril(r̂ βᵀ) U + tril(r̂ k̂ᵀ) V
    S_C = (S₀ − Uᵀ β + Vᵀ k̂)·diag(P_C) = S₀ M + G

so that M and G of every chunk are known before any state is, and the only sequential work is
S ← S M + G once per chunk. A log decay is at least −e^{-1/2} ≈ −0.606, hence 1/P_t stays below
e^{9.8} in a chunk of 16: no rescaling inside a chunk is needed in float32. (The construction is that of
the DPLR delta rule: Yang et al., arXiv 2406.06484, and the RWKV-7 paper, arXiv 2503.14456.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

CHUNK = 16


def wkv7_chunked(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    kappa: Tensor,
    a: Tensor,
    state: Tensor | None = None,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N] and the state after the last token [B, H, N(value), N(key)].

    All of r…a are [B, T, H, N] with log_w in [−0.607, 0]; T is free. `state` is what came before (zeros
    when None). `keep` [B, ceil(T/16)] is 0 where a chunk begins a new sequence, whose state then
    starts from zero, and 1 elsewhere.
    """
    batch, length, heads, n = r.shape
    padding = -length % CHUNK
    chunks = (length + padding) // CHUNK

    def chunked(tensor: Tensor) -> Tensor:
        if padding:
            tensor = functional.pad(tensor, (0, 0, 0, 0, 0, padding))
        return tensor.view(batch, chunks, CHUNK, heads, n).permute(0, 3, 1, 2, 4)

    r, log_w, k, v, kappa, a = (chunked(tensor) for tensor in (r, log_w, k, v, kappa, a))
    ones = torch.ones(CHUNK, CHUNK, dtype=r.dtype, device=r.device)
    cumulated = ones.tril() @ log_w
    inverse = torch.exp(-cumulated)
    whole = torch.exp(cumulated[..., -1:, :])
    erased = kappa * a
    alpha = kappa * torch.exp(cumulated - log_w)
    left = torch.cat([alpha, r * torch.exp(cumulated)], dim=-2)
    right = torch.cat([erased * inverse, k * inverse], dim=-2)
    # Rows: α then r̂; columns: β then k̂. α_t sees only what came before t, r̂_t also t itself.
    mask = torch.cat([ones.tril(-1), ones.tril()]).repeat(1, 2)
    scores = (left @ right.transpose(-1, -2)) * mask
    written = scores[..., CHUNK:] @ v
    inverse_system = _applied(_UnitLowerInverse, scores[..., :CHUNK, :CHUNK])
    solved = inverse_system @ torch.cat([alpha, written[..., :CHUNK, :]], dim=-1)
    answered = torch.cat([left[..., CHUNK:, :], written[..., CHUNK:, :]], dim=-1)
    answered = answered - scores[..., CHUNK:, :CHUNK] @ solved

    at_end = right * whole
    solved_t = solved.transpose(-1, -2)
    transition = torch.diag_embed(whole.squeeze(-2)) - solved_t[..., :n, :] @ at_end[..., :CHUNK, :]
    gained = torch.cat([-solved_t[..., n:, :], v.transpose(-1, -2)], dim=-1) @ at_end
    if keep is not None:
        keep = keep.to(r.dtype).view(batch, 1, chunks, 1, 1)
        transition = transition * keep
    if state is None:
        state = torch.zeros(batch, heads, n, n, dtype=r.dtype, device=r.device)
    states = _applied(_Scan, transition, gained, state)
    before = states[:, :, :-1]
    if keep is not None:
        before = before * keep
    y = answered[..., :n] @ before.transpose(-1, -2) + answered[..., n:]
    y = y.permute(0, 2, 3, 1, 4).reshape(batch, chunks * CHUNK, heads, n)
    return y[:, :length], states[:, :, -1]


def _applied(function: type[torch.autograd.Function], *tensors: Tensor) -> Tensor:
    out: Tensor = function.apply(*tensors)
    return out


class _UnitLowerInverse(torch.autograd.Function):
    """(I + A)⁻¹ for strictly lower triangular A [..., 16, 16], as a product because A¹⁶ = 0."""

    @staticmethod
    def forward(ctx: Any, strict: Tensor) -> Tensor:
        eye = torch.eye(CHUNK, dtype=strict.dtype, device=strict.device)
        power = -strict
        inverse = eye + power
        for _ in range(3):
            power = power @ power
            inverse = inverse + inverse @ power
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        transposed = inverse.transpose(-1, -2)
        grad: Tensor = -(transposed @ grads[0] @ transposed)
        return grad


class _Scan(torch.autograd.Function):
    """S_{c+1} = S_c M_c + G_c for every chunk: M, G [B, H, chunks, N, N] -> S [B, H, chunks + 1, N, N]."""

    @staticmethod
    def forward(ctx: Any, transition: Tensor, gained: Tensor, state: Tensor) -> Tensor:
        chunks = transition.shape[2]
        states = torch.empty(
            *transition.shape[:2], chunks + 1, *transition.shape[3:], dtype=state.dtype, device=state.device
        )
        states[:, :, 0] = state
        for c in range(chunks):
            torch.add(gained[:, :, c], states[:, :, c] @ transition[:, :, c], out=states[:, :, c + 1])
        ctx.save_for_backward(transition, states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        transition, states = ctx.saved_tensors
        grad = grads[0]
        transposed = transition.transpose(-1, -2)
        carried = grad[:, :, -1]
        after = torch.empty_like(transition)
        for c in range(transition.shape[2] - 1, -1, -1):
            after[:, :, c] = carried
            carried = grad[:, :, c] + carried @ transposed[:, :, c]
        return states[:, :, :-1].transpose(-1, -2) @ after, after, carried
