"""Physical slicing: only the hidden states that predict what is learnt go through the head.

Logits are the largest thing in a step of training. For a batch [4, 2048] and a vocabulary of 65,536 in 16 bits they
take 4 · 2048 · 65,536 · 2 bytes = 1.07 GB; where 400 positions are learnt from, theirs take 52 MB, 95.1 % less. (With a
vocabulary of 584 ids, like ours, all of them take 9.6 MB, and the head is a few per cent of the work.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def completion_mask(ctx_lengths: Tensor, attention_mask: Tensor) -> Tensor:
    """Bool [B, T]: the positions that predict a completion, when row b reads all but the last id of its window.

    ctx_lengths [B]: how many ids of each window are context, at least 1: position ctx − 1 reads the context's last id,
    and predicts the completion's first. attention_mask bool [B, T]: false where a row is padding.
    """
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return attention_mask & (positions >= ctx_lengths.unsqueeze(1) - 1)


def rows_where(hidden: Tensor, wanted: Tensor) -> Tensor:
    """The hidden states [n, D] of the n positions where `wanted` [B, T] is true, of `hidden` [B, T, D], row by row."""
    return hidden.flatten(0, 1).index_select(0, wanted.flatten().nonzero().squeeze(1))


def physical_slicing(hidden: Tensor, ctx_lengths: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """The hidden states [n, D] that predict completions, of `hidden` [B, T, D] over windows less their last id.

    ctx_lengths [B] as in `completion_mask`. attention_mask bool [B, T]: without one nothing is padding.
    """
    if attention_mask is None:
        attention_mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return rows_where(hidden, completion_mask(ctx_lengths, attention_mask))
