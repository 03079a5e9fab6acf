"""Random weights at the scales of trained ones, for benchmarks: every part has a say, and nothing makes sense."""

from __future__ import annotations

import torch
from torch import Tensor

from antiphon.model.spec import ModelSpec


def random_weights(spec: ModelSpec, *, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of `spec.shapes()`; the same seed gives the same numbers.

    Big matrices spread by half the root of their inputs, so that activations neither grow nor fade over the layers,
    and half of the hidden units are zero (a trained model's: six to nine of ten).
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(name, shape, generator).to(dtype) for name, shape in spec.shapes().items()}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    def normal(spread: float) -> Tensor:
        return torch.randn(shape, generator=generator).mul_(spread)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=generator).mul_(high - low).add_(low)

    part = name.rpartition("att.")[2]
    if name == "emb.weight":
        return normal(0.5)
    if name == "head.weight":
        return normal(shape[1] ** -0.5)
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith(".weight"):
        return normal(0.5 * shape[1] ** -0.5)
    if part == "w0":
        return uniform(-6.0, -1.0)
    if part == "k_k":
        return uniform(0.7, 1.0)
    if part == "k_a":
        return torch.ones(shape)
    if part == "a0":
        return uniform(-1.0, 1.0)
    if part == "r_k":
        return normal(0.1)
    if part in ("w1", "a1", "v1", "g1", "g2"):
        return normal(shape[0] ** -0.5)
    if part in ("w2", "a2", "v2"):
        return normal(0.1)
    return uniform(0.0, 1.0)  # the token shifts, and v0
