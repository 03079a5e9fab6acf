"""A model's tensors in memory, read as from an opened file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from antiphon.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTensors:
    """Tensors under official names; `quantized` ones are whole numbers with their scales."""

    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    quantized: Mapping[str, tuple[Tensor, Tensor]]
    ln_x_eps: float = 64e-5

    def read(self, name: str) -> Tensor:
        return self.tensors[name]

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None:
        return self.quantized.get(name)
