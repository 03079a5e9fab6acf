"""Whole models in memory: read from a file of any kind, written as safetensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.source import Source, open_source
from antiphon.model.spec import ModelSpec, Version
from antiphon.model.whole_file import sync_folder

INT8_FORMAT = "antiphon-rwkv7-int8"
FLOAT_FORMAT = "antiphon-rwkv7"

_FIX = "give an RWKV-7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model: its spec, its tensors under the official names, and free text about it.

    In the int8 form a matrix `NAME` is int8 [out, in] and comes with float32 `NAME.scale` [out].
    """

    spec: ModelSpec
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def quantized_names(spec: ModelSpec) -> frozenset[str]:
    """The matrices that are int8 in the int8 form: embedding, head, and the big linear ones."""
    return frozenset(name for name, shape in spec.shapes().items() if name.endswith(".weight") and len(shape) == 2)


def read(path: Path) -> Checkpoint:
    """The whole RWKV-7 in `path`, a file of any kind; FileError when it is none, or not finite."""
    source = open_source(path)
    if source.spec.version is not Version.V7:
        raise FileError(f"an RWKV-{source.spec.version}, where an RWKV-7 is needed", where=str(path), fix=_FIX)
    return of_source(source)


def of_source(source: Source) -> Checkpoint:
    """All tensors of an opened model at once. Raises FileError when they are not finite."""
    tensors: dict[str, Tensor] = {}
    for name in source.shapes:
        quantized = source.read_quantized(name)
        if quantized is not None and quantized[1].dim() == 1:
            tensors[name], tensors[f"{name}.scale"] = quantized
        else:
            tensors[name] = source.read(name)
    return Checkpoint(spec=source.spec, tensors=tensors, metadata=dict(source.metadata))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write the model beside its place, make sure that it is on disk, then move it there. Raises FileError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    _check_shapes(path, checkpoint.spec, shapes)
    int8 = any(name.endswith(".scale") for name in tensors)
    metadata = {
        **checkpoint.metadata,
        "format": INT8_FORMAT if int8 else FLOAT_FORMAT,
        "spec": checkpoint.spec.to_json(),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # The library makes files for their owner only; a model is meant to be read.
        temporary.chmod(0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot be written: {error}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex. Raises FileError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _check_shapes(path: Path, spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = spec.shapes()
    matrices = quantized_names(spec)
    missing = sorted(set(expected) - set(shapes))
    if missing:
        raise FileError(f"tensor {missing[0]} is missing ({len(missing)} in all)", where=str(path), fix=_FIX)
    for name, shape in shapes.items():
        matrix = name.removesuffix(".scale")
        want = expected.get(name)
        if name.endswith(".scale") and matrix in matrices:
            want = expected[matrix][:1]
        if want is None:
            raise FileError(f"tensor {name} is unknown", where=str(path), fix=_FIX)
        if shape != want:
            raise FileError(f"tensor {name} has shape {list(shape)}, not {list(want)}", where=str(path), fix=_FIX)
