"""What can be told of a model file from its index alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.engine.devices import gpus
from antiphon.engine.fit import recommended
from antiphon.engine.free_memory import free_on
from antiphon.errors import FileError
from antiphon.library.memory import size_name
from antiphon.model.own_form import is_matrix, precision_of
from antiphon.model.precision import GROUP, Precision
from antiphon.model.source import Source, open_source
from antiphon.model.spec import ModelSpec

SUFFIXES = (".safetensors", ".st", ".pth", ".bin", ".prefab")
"""How files are called that may hold a model."""

MOST_FILES = 10_000

_VALUE_BYTES = {Precision.INT8: 1.0, Precision.INT8_GROUPS: 1.0, Precision.INT4: 0.5}
_GUESSES = ((129, "ABC, one id a character"), (2176, "REMI"), (20096, "MIDI, piano"), (50277, "MIDI, 13 instruments"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is in a file: `stored` are the types of its matrices, `memory` bytes of weights by precision."""

    path: Path
    kind: str
    spec: ModelSpec
    stored: tuple[str, ...]
    tokenizer: str
    has_start_state: bool
    file_bytes: int
    memory: dict[str, int]
    metadata: dict[str, str]

    @property
    def size(self) -> str:
        """What people call a model of this size."""
        return size_name(self.spec.parameters)

    @property
    def state_bytes(self) -> int:
        """Bytes that one timeline remembers."""
        return 4 * self.spec.state_floats

    def told(self) -> dict[str, Any]:
        """The same as plain data."""
        import json

        return {
            "file": str(self.path),
            "form": self.kind,
            "spec": json.loads(self.spec.to_json()),
            "size": self.size,
            "parameters": self.spec.parameters,
            "stored": list(self.stored),
            "tokenizer": self.tokenizer,
            "start_state": self.has_start_state,
            "file_bytes": self.file_bytes,
            "state_bytes": self.state_bytes,
            "memory_bytes": self.memory,
            "fits_here": fits_here(self.spec),
            "metadata": self.metadata,
        }


def describe(path: Path) -> Description:
    """Describe the model in `path`. Raises FileError when there is none."""
    source = open_source(path)
    matrices = {name for name in source.shapes if is_matrix(name)}
    return Description(
        path=path,
        kind=source.kind.value,
        spec=source.spec,
        stored=tuple(sorted({source.stored[name] for name in matrices})),
        tokenizer=tokenizer_of(source),
        has_start_state=bool(source.start_state_names),
        file_bytes=path.stat().st_size,
        memory={precision.value: weight_bytes(source.spec, precision) for precision in Precision},
        metadata=dict(source.metadata),
    )


def fits_here(spec: ModelSpec) -> dict[str, str]:
    """For every device of this machine the truest of bf16, int8 and int4 in which the model fits; "" for none."""
    devices = ["cpu", *(gpu.device for gpu in gpus())]
    found = {device: recommended(spec, device=device, free=free_on(device)) for device in devices}
    return {device: "" if precision is None else precision.value for device, precision in found.items()}


def tokenizer_of(source: Source) -> str:
    """The tokenizer that a model's metadata names, or a guess by the size of its vocabulary.

    The guesses are RWKV-Runner's; a model of another kind may have as many ids.
    """
    named = source.metadata.get("tokenizer", "")
    if named:
        return "Antiphon's own" if named.startswith("{") else named[:60]
    size = source.spec.vocab_size
    for below, name in _GUESSES:
        if size < below:
            return f"{name} (a guess by its size)"
    return ("20B, of GPT-NeoX" if size < 65536 else "World") + " (a guess by its size)"


def weight_bytes(spec: ModelSpec, precision: Precision) -> int:
    """Bytes of the weights, scales included, in a precision; what it does not touch is 16 or 32 bits wide."""
    total = 0.0
    for name, shape in spec.shapes().items():
        count = math.prod(shape)
        kept = precision_of(name, shape, precision)
        if kept in _VALUE_BYTES:
            scales = 4 * shape[0] if kept is Precision.INT8 else 2 * count / GROUP
            total += count * _VALUE_BYTES[kept] + scales
        elif kept is Precision.FP32:
            total += 4 * count
        elif is_matrix(name):
            total += 2 * count
        else:
            total += 4 * count
    return round(total)


def model_files(folder: Path) -> list[Path]:
    """The files below `folder` that may hold a model, by their names. Raises FileError when there are too many."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(found) > MOST_FILES:
        raise FileError(f"more than {MOST_FILES} files", where=str(folder), fix="name a folder of models")
    return found
