"""Models on disk: safetensors files that are checked before they are believed.

A file may be damaged or hostile. Its header is bounded and parsed first, every promised byte is compared
with the file's real size, and only then are tensors read; nothing in the file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.spec import ModelSpec

MAX_HEADER_BYTES = 16 << 20
"""Far more than any RWKV needs; the format itself allows 100 MB (huggingface.co/docs/safetensors)."""

INT8_FORMAT = "antiphon-rwkv7-int8"
FLOAT_FORMAT = "antiphon-rwkv7"

MAX_AXES, MAX_AXIS = 8, 2**48
"""Bounds on a tensor's shape; without them the product of a hostile one takes hours."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04")
"""How files of torch.save begin: a zip, or a bare pickle of protocol 2 or 4."""

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1}
_FIX = "give an RWKV-7 model as a safetensors file"


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
    """The model in `path`; FileError when it is no whole, finite RWKV-7 in safetensors form."""
    header, metadata = _header(path)
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    spec = ModelSpec.of_tensors(shapes, where=str(path))
    _check_shapes(path, spec, shapes)
    for name in shapes:
        quantized = f"{name}.scale" in shapes
        if quantized != (header[name]["dtype"] == "I8"):
            raise FileError(f"tensor {name} must be int8 with a scale, or neither", where=str(path), fix=_FIX)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot be read as safetensors: {error}", where=str(path), fix=_FIX) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FileError(
                f"tensor {name} holds a NaN or an infinity", where=str(path), fix="train or convert it again"
            )
    return Checkpoint(spec=spec, tensors=tensors, metadata=metadata)


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


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Tensor entries and metadata, with every size checked against the file's."""

    def refused(what: str) -> FileError:
        return FileError(what, where=str(path), fix=_FIX)

    try:
        # Opening a pipe would wait for whoever writes into it.
        if not path.is_file():
            raise refused("not a file" if path.exists() else "there is no such file")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(_PICKLES):
                raise refused("a PyTorch pickle, which could run anything when it is opened")
            length = int.from_bytes(start, "little")
            if size < 8 or length > MAX_HEADER_BYTES or 8 + length > size:
                raise refused("not a safetensors file, or cut short")
            text = file.read(length)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused("not a safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise refused("not a safetensors file: its header is not a table")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refused("its metadata is not text")
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        spans.append(_span(name, entry, refused))
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise refused("its tensors overlap or leave gaps")
        end = last
    if 8 + length + end != size:
        raise refused(f"it promises {8 + length + end} bytes and has {size}")
    return header, metadata


def _span(name: str, entry: Any, refused: Any) -> tuple[int, int]:
    if not isinstance(entry, Mapping):
        raise refused(f"tensor {name} has no description")
    shape, offsets, dtype = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    numbers = [shape, offsets]
    if not all(isinstance(part, list) and all(type(i) is int and i >= 0 for i in part) for part in numbers):
        raise refused(f"tensor {name} has no shape or no place")
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    if len(shape) > MAX_AXES or any(axis > MAX_AXIS for axis in shape):
        raise refused(f"tensor {name} has a shape that no tensor has")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise refused(f"tensor {name} is of a type that no RWKV-7 has: {dtype}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise refused(f"tensor {name} has another size than its shape says")
    return offsets[0], offsets[1]


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
