"""A model with adapters and a start state in it, merged tensor by tensor as they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.adapter_file import AdapterFile
from antiphon.model.adapters import Adapter
from antiphon.model.source import Kind, Source
from antiphon.model.spec import ModelSpec
from antiphon.model.states import StartState


class MergedSource:
    """`base` with every adapter merged in turn, and `start_state` in the place of its own; see `source.Source`.

    Start states that were learnt along with an adapter count as one, the first one holding.
    """

    def __init__(self, base: Source, adapters: Sequence[Adapter], *, start_state: StartState | None = None) -> None:
        self._base = base
        self._adapters = tuple(adapters)
        for adapter in adapters:
            if adapter.states and start_state is None:
                start_state = StartState.of(adapter.states, base.spec, where=adapter.where)
        self._states = start_state.stored() if start_state is not None else {}

    @classmethod
    def open(
        cls, base: Source, adapters: Sequence[AdapterFile], *, start_state: StartState | None = None
    ) -> MergedSource:
        """Open the adapters for `base`. Raises FileError for one that is of another model."""
        return cls(base, [adapter.open(base.shapes) for adapter in adapters], start_state=start_state)

    @property
    def path(self) -> Path:
        """The base's file."""
        return self._base.path

    @property
    def kind(self) -> Kind:
        """How the base is kept."""
        return self._base.kind

    @property
    def metadata(self) -> Mapping[str, str]:
        """The base's, and which adapters are merged in."""
        if not self._adapters:
            return self._base.metadata
        names = " + ".join(Path(adapter.where).name for adapter in self._adapters)
        return {**self._base.metadata, "adapters": names}

    @property
    def spec(self) -> ModelSpec:
        """Version and sizes."""
        return self._base.spec

    @property
    def ln_x_eps(self) -> float:
        """The base's."""
        return self._base.ln_x_eps

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return self._base.shapes

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """The type in which `read` gives each tensor: the base's."""
        return self._base.dtypes

    @property
    def stored(self) -> Mapping[str, str]:
        """How the base keeps each tensor."""
        return self._base.stored

    @property
    def start_state_names(self) -> tuple[str, ...]:
        """The names of the start state's tensors."""
        return tuple(self._states) or self._base.start_state_names

    def read(self, name: str) -> Tensor:
        """A tensor with the adapters in it. Raises FileError when a number is beyond its type."""
        if name in self._states:
            return self._states[name]
        tensor = self._base.read(name)
        merged = tensor
        for adapter in self._adapters:
            merged = adapter.merged(name, merged)
        if merged is not tensor and not bool(torch.isfinite(merged).all()):
            raise FileError(f"tensor {name} is not finite with the adapter in it", where=str(self.path))
        return merged

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None:
        """A matrix's whole numbers and scales, where no adapter touches it."""
        touched = any(name in adapter.changes or name in adapter.replaced for adapter in self._adapters)
        return None if touched else self._base.read_quantized(name)
