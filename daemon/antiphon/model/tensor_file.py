"""A file of named tensors, opened by its content: safetensors, a .pth of torch.save, or a .bin of rwkv.cpp.

Here names and shapes are the file's own; `model.source` makes a model of them. Adapters and start states
come in the same containers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model import rwkv_cpp_file, safetensors_file, torch_file
from antiphon.model.mapped import file_size
from antiphon.model.stored import StoredTensor

_STRANGERS = {
    b"GGUF": "a GGUF file of llama.cpp",
    b"tjgg": "an old file of llama.cpp",
    b"lmgg": "a ggml file that says nothing about itself",
    b"\x80\x02": "a bare pickle of torch.save, from before PyTorch 1.6, which could run anything when it is opened",
    b"\x80\x04": "a bare pickle, which could run anything when it is opened",
}
FIX = "give an RWKV model as .pth, safetensors or rwkv.cpp's .bin"


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """An opened file: `container` is "safetensors", "pth" or "rwkv.cpp", `metadata` is empty but for safetensors."""

    path: Path
    container: str
    metadata: Mapping[str, str]
    parts: Mapping[str, StoredTensor]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape."""
        return {name: part.shape for name, part in self.parts.items()}

    def read(self, name: str) -> Tensor:
        """The tensor called `name`, in float; KeyError when there is none, FileError when it is not finite."""
        tensor = self.parts[name].read()
        if not is_finite(tensor):
            raise not_finite(name, self.path)
        return tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether a float tensor holds neither a NaN nor an infinity."""
    # A sum is not finite if a number is not, and costs no memory; the sum of finite ones may still overflow.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float32))) or bool(torch.isfinite(tensor).all())


def not_finite(name: str, path: Path) -> FileError:
    """The error for a tensor that is not finite."""
    return FileError(f"tensor {name} holds a NaN or an infinity", where=str(path), fix="train or convert it again")


def open_tensors(path: Path) -> TensorFile:
    """Open `path` without reading its tensors; FileError when it is none of the kinds, damaged, or hostile."""
    if file_size(path, fix=FIX) < 8:
        raise FileError("cut short: it has not even a header", where=str(path), fix=FIX)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    for magic, what in _STRANGERS.items():
        if start.startswith(magic):
            raise FileError(what, where=str(path), fix=FIX)
    if start == torch_file.MAGIC:
        return TensorFile(path=path, container="pth", metadata={}, parts=torch_file.parts_of(path))
    if start == rwkv_cpp_file.MAGIC:
        return TensorFile(path=path, container="rwkv.cpp", metadata={}, parts=rwkv_cpp_file.parts_of(path))
    parts, metadata = safetensors_file.parts_of(path)
    return TensorFile(path=path, container="safetensors", metadata=metadata, parts=parts)
