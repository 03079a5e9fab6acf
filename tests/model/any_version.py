"""Small models of every version, of odd sizes, with weights at which every part has something to say."""

from __future__ import annotations

import torch
from torch import Tensor

from antiphon.model.spec import ModelSpec, Version

SPECS: dict[str, ModelSpec] = {
    "4": ModelSpec(version=Version.V4, n_layer=3, n_embd=50, vocab_size=37, head_size=1, ffn_dim=203),
    "5.0": ModelSpec(version=Version.V5_0, n_layer=3, n_embd=60, vocab_size=37, head_size=12, ffn_dim=101),
    "5.1": ModelSpec(version=Version.V5_1, n_layer=3, n_embd=72, vocab_size=31, head_size=24, ffn_dim=97),
    "5.2": ModelSpec(version=Version.V5_2, n_layer=3, n_embd=96, vocab_size=29, head_size=32, ffn_dim=130),
    "6": ModelSpec(
        version=Version.V6, n_layer=3, n_embd=60, vocab_size=41, head_size=20, ffn_dim=99, decay_rank=7, mix_rank=5
    ),
    "7": ModelSpec(
        version=Version.V7, n_layer=3, n_embd=60, vocab_size=41, head_size=20, ffn_dim=99,
        decay_rank=7, iclr_rank=6, value_rank=5, gate_rank=9,
    ),
    "4 wide": ModelSpec.of_width(version=Version.V4, n_layer=2, n_embd=128, vocab_size=100),
    "5.0 wide": ModelSpec.of_width(version=Version.V5_0, n_layer=2, n_embd=128, vocab_size=100),
    "5.1 wide": ModelSpec.of_width(version=Version.V5_1, n_layer=2, n_embd=128, vocab_size=100),
    "5.2 wide": ModelSpec.of_width(version=Version.V5_2, n_layer=2, n_embd=128, vocab_size=100),
    "6 wide": ModelSpec.of_width(version=Version.V6, n_layer=2, n_embd=128, vocab_size=100),
    "7 wide": ModelSpec.of_width(version=Version.V7, n_layer=2, n_embd=128, vocab_size=100),
}  # fmt: skip

SMALL = tuple(name for name in SPECS if "wide" not in name)


def random_weights(spec: ModelSpec, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of `spec.shapes()`, float32 numbers as `dtype`; the same seed gives the same ones."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(name, shape, generator).to(dtype) for name, shape in spec.shapes().items()}


def random_ids(spec: ModelSpec, count: int, *, seed: int = 0) -> Tensor:
    """`count` ids within the vocabulary."""
    return torch.randint(0, spec.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    part = name.rpartition(".att.")[2] if ".att." in name else name.rpartition(".ffn.")[2]
    noise = torch.randn(shape, generator=generator)
    if name == "emb.weight":
        return noise * 0.5
    if len(shape) == 1 and name.endswith(".weight"):
        return 1 + 0.2 * noise
    if name.endswith(".bias"):
        return 0.1 * noise
    if part.endswith((".weight", "w2", "maa_w1", "decay_w1")) or part in ("w1", "a1", "v1", "g1", "a2", "v2", "g2"):
        # A linear layer reads along its last axis, a low-rank one along the last but one.
        inputs = shape[-1] if name.endswith(".weight") else shape[-2]
        return noise * inputs**-0.5
    if part.startswith(("time_mix", "time_maa", "x_")):
        return torch.rand(shape, generator=generator)
    if part in ("time_decay", "w0"):
        return noise.clamp(-2, 2) * 1.5 - 2  # from a memory of one token to one of hundreds
    return noise * 0.5  # time_first, time_faaaa, a0, v0, k_k, k_a, r_k
