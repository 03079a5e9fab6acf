"""Models small enough for tests, with weights at which every part of RWKV-7 has something to say."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from antiphon.model.init import initial_weights
from antiphon.model.spec import ModelSpec

SMALL = ModelSpec(
    n_layer=3, n_embd=64, vocab_size=29, head_size=16, ffn_dim=96,
    decay_rank=8, iclr_rank=6, value_rank=4, gate_rank=10,
)  # fmt: skip


def random_weights(spec: ModelSpec = SMALL, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Initial weights moved so far that the output matrices, zero at first, and the low-rank parts matter."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, tensor in initial_weights(spec, seed=seed).items():
        spread = tensor.shape[-1] ** -0.5 if tensor.squeeze().dim() == 2 else 0.2
        weights[name] = (tensor + spread * torch.randn(tensor.shape, generator=generator)).to(dtype)
    return weights


def wavy_weights(spec: ModelSpec) -> dict[str, Tensor]:
    """Weights of a formula, float64, so that other programs can be given the same."""
    weights: dict[str, Tensor] = {}
    for index, (name, shape) in enumerate(sorted(spec.shapes().items())):
        wave = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.7 + index)
        matrix = len(shape) == 2 and not name.endswith("r_k")
        # Values are faint, so that the constant under the group norm's root counts.
        scale = 0.002 if name.endswith("att.value.weight") else 0.2 if matrix else 0.5
        weights[name] = (wave * scale).view(shape)
    return weights
