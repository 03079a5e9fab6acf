"""The definition of WKV-7 over a sequence: one token after the other, in plain PyTorch.

Differentiable, so that autograd on it defines the gradients too; any float dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 16
"""Tokens between two kept states; a sequence may begin only at a multiple of it."""


def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, kappa: Tensor, b: Tensor, keep: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N] and the final state [B, H, N(value), N(key)].

    All of r…b are [B, T, H, N] with w the decays themselves, in 0..1. `keep` bool [B, T / CHUNK] is false where a
    chunk begins from a zero state; `start` is like the final state.
    """
    outputs: list[Tensor] = []
    state = start
    for t in range(r.shape[1]):
        if t % CHUNK == 0:
            state = torch.where(keep[:, t // CHUNK, None, None, None], state, torch.zeros_like(state))
        removed = (state @ kappa[:, t].unsqueeze(-1)) * b[:, t].unsqueeze(-2)
        state = state * w[:, t].unsqueeze(-2) - removed + v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2)
        outputs.append((state @ r[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, dim=1), state
