"""Safetensors files written tensor by tensor: the header first, then each tensor where it belongs, one in memory.

The format is a header of JSON behind its length (8 bytes, little endian) and the bytes of all tensors without gaps.
Source: github.com/huggingface/safetensors, README.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.whole_file import whole_file

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int8: "I8",
    torch.uint8: "U8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the header says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Tensors that come together: what they are now, and what they hold when `read` is called."""

    entries: tuple[Entry, ...]
    read: Callable[[], tuple[Tensor, ...]]


def write_safetensors(
    path: Path, promises: Sequence[Promise], metadata: Mapping[str, str], *, mode: int = 0o644
) -> None:
    """Write the promised tensors to `path`, all or nothing. Raises FileError, also for a number that is not finite.

    The larger a tensor's items, the further in front it stands, so that every one is aligned.
    """
    entries = sorted(
        (entry for promise in promises for entry in promise.entries), key=lambda entry: -entry.dtype.itemsize
    )
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    places: dict[str, int] = {}
    end = 0
    for entry in entries:
        if entry.name in places:
            raise FileError(f"two tensors are called {entry.name}", where=str(path))
        places[entry.name] = end
        span = [end, end + entry.nbytes]
        header[entry.name] = {"dtype": DTYPES[entry.dtype], "shape": list(entry.shape), "data_offsets": span}
        end += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path, mode=mode) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for promise in promises:
            for entry, tensor in zip(promise.entries, promise.read(), strict=True):
                file.seek(8 + len(text) + places[entry.name])
                file.write(_bytes(entry, tensor, path).data)


def _bytes(entry: Entry, tensor: Tensor, path: Path) -> npt.NDArray[np.uint8]:
    if tuple(tensor.shape) != entry.shape or tensor.dtype != entry.dtype:
        raise FileError(
            f"tensor {entry.name} came as {tensor.dtype} {list(tensor.shape)}, not as promised", where=str(path)
        )
    require_finite(entry.name, tensor, path)
    data: npt.NDArray[np.uint8] = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
    return data


def require_finite(name: str, tensor: Tensor, path: Path) -> None:
    """Raise FileError when `tensor` holds a NaN or an infinity: float16 ends at 65504."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise FileError(
            f"tensor {name} holds numbers that {str(tensor.dtype).removeprefix('torch.')} cannot",
            where=str(path),
            fix="convert to a wider type",
        )
