"""A file on disk as memory: its bytes become tensors without a copy, and nothing is read before it is used."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from antiphon.errors import FileError


def file_size(path: Path, *, fix: str = "") -> int:
    """The size in bytes of a regular file; `FileError` for anything else (opening a pipe would wait for its writer)."""
    try:
        if not path.is_file():
            raise FileError("not a file" if path.exists() else "there is no such file", where=str(path), fix=fix)
        return path.stat().st_size
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error


class MappedFile:
    """The bytes of `path`, mapped privately: what is done to the tensors never reaches the file."""

    def __init__(self, path: Path) -> None:
        self.size = file_size(path)
        try:
            storage = torch.UntypedStorage.from_file(str(path), False, self.size)
        except (OSError, RuntimeError) as error:
            raise FileError(f"cannot be mapped: {error}", where=str(path)) from error
        assert isinstance(storage, torch.UntypedStorage)
        self._bytes = torch.empty(0, dtype=torch.uint8).set_(storage)

    def tensor(self, *, at: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The tensor whose bytes begin at `at`; the caller has checked that they end inside the file."""
        count = math.prod(shape) * dtype.itemsize
        window = self._bytes[at : at + count]
        if window.numel() != count:
            raise ValueError(f"{count} bytes at {at} do not lie in a file of {self.size}")
        if at % dtype.itemsize:
            window = window.clone()
        return window.view(dtype).view(shape)
