"""Safetensors files: a JSON header that is checked before it is believed, then the tensors' bytes.

A file may be damaged or hostile. The header is bounded and parsed first, and every byte that it promises is
compared with the file's real size. Source of the format: huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.mapped import MappedFile
from antiphon.model.stored import StoredTensor

MAX_HEADER_BYTES = 16 << 20
"""Far more than any RWKV needs; the format itself allows 100 MB."""

MAX_AXES, MAX_AXIS = 8, 2**48
"""Bounds on a tensor's shape; without them the product of a hostile one takes hours."""

MAX_NAME = 256

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPES = {**_FLOATS, "I8": torch.int8, "U8": torch.uint8}
_FIX = "give a whole safetensors file"

_Refused = Callable[[str], FileError]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A tensor's place, from the start of the file."""

    shape: tuple[int, ...]
    dtype: str
    at: int


def parts_of(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """All tensors by the file's own names, and its metadata. Raises FileError.

    `NAME` and `NAME.scale` become one: int8 [out, in] with scales [out] or [out, groups], or int4, two in a
    byte, uint8 [out, in / 2] (the lower half first, each 8 too large), with scales [out, groups].
    """

    def refused(what: str) -> FileError:
        return FileError(what, where=str(path), fix=_FIX)

    entries, metadata = _header(path, refused)
    file = MappedFile(path)
    parts: dict[str, StoredTensor] = {}
    for name, entry in entries.items():
        base = name.removesuffix(".scale")
        if base != name and base in entries:
            if entries[base].dtype not in ("I8", "U8"):
                raise refused(f"tensor {base} must be int8 with a scale, or neither")
            continue
        scale = entries.get(f"{name}.scale")
        if entry.dtype in _FLOATS:
            parts[name] = _plain(file, entry)
        elif scale is None:
            raise refused(f"tensor {name} must be int8 with a scale, or neither")
        else:
            parts[name] = _scaled(file, name, entry, scale, refused)
    return parts, metadata


def _plain(file: MappedFile, entry: _Entry) -> StoredTensor:
    dtype = _DTYPES[entry.dtype]

    def read() -> Tensor:
        return file.tensor(at=entry.at, dtype=dtype, shape=entry.shape)

    return StoredTensor(shape=entry.shape, dtype=dtype, stored=entry.dtype, read=read)


def _scaled(file: MappedFile, name: str, entry: _Entry, scale: _Entry, refused: _Refused) -> StoredTensor:
    int4 = entry.dtype == "U8"
    if len(entry.shape) != 2 or scale.dtype not in _FLOATS or scale.shape[:1] != entry.shape[:1]:
        raise refused(f"tensor {name} and its scale do not belong together")
    rows, columns = entry.shape[0], entry.shape[1] * (2 if int4 else 1)
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    if len(scale.shape) not in (1, 2) or groups < 1 or columns % groups or (int4 and len(scale.shape) == 1):
        raise refused(f"tensor {name}.scale has shape {list(scale.shape)}, which divides no rows of {columns}")

    def quantized() -> tuple[Tensor, Tensor]:
        values = file.tensor(at=entry.at, dtype=_DTYPES[entry.dtype], shape=entry.shape)
        if int4:
            values = torch.stack([values & 15, values >> 4], dim=-1).view(torch.int8).flatten(-2) - 8
        return values, file.tensor(at=scale.at, dtype=_DTYPES[scale.dtype], shape=scale.shape).float()

    def read() -> Tensor:
        values, scales = quantized()
        grouped = values.float().view(rows, groups, columns // groups)
        return (grouped * scales.view(rows, groups, 1)).view(rows, columns)

    stored = "INT4" if int4 else "INT8"
    return StoredTensor(shape=(rows, columns), dtype=torch.float32, stored=stored, read=read, quantized=quantized)


def _header(path: Path, refused: _Refused) -> tuple[dict[str, _Entry], dict[str, str]]:
    """Tensor entries and metadata, with every size checked against the file's."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
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
    spans = {name: _span(name, entry, refused) for name, entry in header.items()}
    end = 0
    for first, last in sorted(spans.values()):
        if first != end:
            raise refused("its tensors overlap or leave gaps")
        end = last
    if 8 + length + end != size:
        raise refused(f"it promises {8 + length + end} bytes and has {size}")
    return {
        name: _Entry(shape=tuple(entry["shape"]), dtype=entry["dtype"], at=8 + length + spans[name][0])
        for name, entry in header.items()
    }, metadata


def _span(name: str, entry: Any, refused: _Refused) -> tuple[int, int]:
    if len(name) > MAX_NAME or not name.isprintable():
        raise refused(f"a tensor has a name that no tensor has: {name[:60]!r}")
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
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise refused(f"tensor {name} is of a type that no RWKV has: {str(dtype)[:60]}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise refused(f"tensor {name} has another size than its shape says")
    return offsets[0], offsets[1]
