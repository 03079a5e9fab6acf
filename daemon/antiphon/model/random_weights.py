"""Random weights at the scales of trained ones, for benchmarks: every part has a say, and nothing makes sense."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from antiphon.model.source import LN_X_EPS, Kind
from antiphon.model.spec import ModelSpec


def random_weights(spec: ModelSpec, *, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of `spec.shapes()`, of an RWKV-7; the same seed gives the same numbers.

    Big matrices spread by half the root of their inputs, so that activations neither grow nor fade over the layers,
    and half of the hidden units are zero (a trained model's: six to nine of ten).
    """
    source = RandomSource(spec=spec, seed=seed, dtype=dtype)
    return {name: source.read(name) for name in spec.shapes()}


@dataclass(frozen=True, kw_only=True)
class RandomSource:
    """Random weights as if from a file (`antiphon.model.source.Source`), each tensor made when it is read.

    No slots: the tables are made once, when first asked for.
    """

    spec: ModelSpec
    seed: int
    dtype: torch.dtype
    path: Path = Path("random")
    kind: Kind = Kind.SAFETENSORS
    ln_x_eps: float = LN_X_EPS
    start_state_names: tuple[str, ...] = ()

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Nothing is said about it."""
        return {}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return self.spec.shapes()

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        """One type for all."""
        return dict.fromkeys(self.shapes, self.dtype)

    @cached_property
    def stored(self) -> dict[str, str]:
        """One word for all."""
        return dict.fromkeys(self.shapes, str(self.dtype).removeprefix("torch."))

    def read(self, name: str) -> Tensor:
        """A tensor of its name's and the seed's own numbers; KeyError for an unknown name."""
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), self.seed))
        return _random(name, self.shapes[name], generator).to(self.dtype)

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None:
        """None: all tensors are floats."""
        return None


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
