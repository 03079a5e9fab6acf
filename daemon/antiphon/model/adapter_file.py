"""Adapter files as people have them: the tensors, and what only stands beside them.

A LoRA's alpha is not in its file. It is looked for where it was given, in the file's own metadata, then in a JSON of
the same name (`rwkv-3.pth.json` or `rwkv-3.json`: {"alpha": 32}), then in PEFT's `adapter_config.json` in its folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from antiphon.errors import FileError
from antiphon.model.adapters import Adapter
from antiphon.model.bnb_rounding import ROUNDINGS
from antiphon.model.tensor_file import TensorFile, open_tensors

MAX_SIDECAR_BYTES = 1 << 20
_ALPHAS = ("alpha", "lora_alpha")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFile:
    """Where an adapter lies: its file, LoRA's alpha if it is known, PiSSA's first factors if they lie apart.

    rounding: how the base was quantized while PiSSA learnt ("nf4", "fp4", "4bit" or "int8"), None if it was not.
    """

    path: Path
    alpha: float | None = None
    first: Path | None = None
    rounding: str | None = None

    def open(self, shapes: Mapping[str, tuple[int, ...]]) -> Adapter:
        """The adapter, for a model whose tensors have `shapes`. Raises FileError."""
        if self.rounding is not None and self.rounding not in ROUNDINGS:
            fix = f"give one of {', '.join(ROUNDINGS)}"
            raise FileError(f"no base is quantized as {self.rounding}", where=str(self.path), fix=fix)
        file = open_tensors(self.path)
        alpha = self._alpha(file)
        return Adapter.of(
            file.parts,
            shapes,
            where=str(self.path),
            alpha=alpha,
            first=open_tensors(self.first).parts if self.first is not None else None,
            rounding=ROUNDINGS[self.rounding] if self.rounding is not None else None,
        )

    def settled(self) -> AdapterFile:
        """The same with the alpha that is found now, so that what stands beside the file may change. Raises FileError.

        It stays None where none is found.
        """
        return replace(self, alpha=self._alpha(open_tensors(self.path)))

    def _alpha(self, file: TensorFile) -> float | None:
        if self.alpha is not None:
            return _number({"alpha": self.alpha}, str(self.path))
        told = _number(file.metadata, str(self.path))
        return _beside(self.path) if told is None else told


def _beside(path: Path) -> float | None:
    """The alpha in a JSON beside `path`."""
    for sidecar in (
        path.with_name(f"{path.name}.json"),
        path.with_suffix(".json"),
        path.parent / "adapter_config.json",
    ):
        told = _sidecar(sidecar)
        if told is not None and (alpha := _number(told, str(sidecar))) is not None:
            return alpha
    return None


def _sidecar(path: Path) -> Mapping[str, Any] | None:
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise FileError("far too large to say something about an adapter", where=str(path))
        told = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise FileError("not JSON", where=str(path)) from error
    if not isinstance(told, dict):
        raise FileError("not a table", where=str(path))
    return told


def _number(told: Mapping[str, Any], where: str) -> float | None:
    """The alpha that `told` names, if it names one."""
    for key in _ALPHAS:
        value = told.get(key)
        if value is None:
            continue
        try:
            alpha = float(value)
        except (TypeError, ValueError, OverflowError):
            alpha = math.nan
        if isinstance(value, bool) or not (math.isfinite(alpha) and alpha > 0):
            raise FileError(f"{key} is {value!r}, not a number above 0", where=where)
        return alpha
    return None
