"""What makes one loaded model give other numbers than another: its file, what was merged into it, how it is held."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from antiphon.errors import FileError
from antiphon.model.checkpoint import Checkpoint, sha256

TOKENIZER = "tokenizer"
"""Where a model's metadata say in which tokens it speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Hashes (hex) and words that agree where numbers do.

    model: of the file. adapters: of each file that was merged, in order. start_state: of its file, or "". tokenizer: of
    what the metadata say of it, or "". precision: how the weights are held.
    """

    model: str
    precision: str
    tokenizer: str = ""
    adapters: tuple[str, ...] = ()
    start_state: str = ""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file as it was when it was read, so that it is noticed when another has taken its place."""

    path: Path
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The stamp of `path` as it is now. Raises FileError."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
        return cls(path, status.st_ino, status.st_size, status.st_mtime_ns)

    def sha256(self) -> str:
        """The file's SHA-256 in hex; FileError when it is no longer the file that was read. Reads all of it."""
        digest = sha256(self.path)
        if FileStamp.of(self.path) != self:
            raise FileError("the file has changed since it was loaded", where=str(self.path), fix="load it again")
        return digest


def hash_of_text(text: str) -> str:
    """The SHA-256 in hex of `text`, "" for none."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def hash_of_tensors(checkpoint: Checkpoint) -> str:
    """A SHA-256 in hex over all tensors, for a model that is in no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def differences(kept: Identity, here: Identity) -> Sequence[str]:
    """What of `kept` is otherwise in `here`, in words for people."""
    found = []
    if kept.model != here.model:
        found.append(f"it is of another model file (SHA-256 {kept.model[:12]}…, here {here.model[:12]}…)")
    if kept.adapters != here.adapters:
        found.append(f"it is of a model with {_many(kept.adapters)}, and this one has {_many(here.adapters)}")
    if kept.start_state != here.start_state:
        found.append("it began from another start state")
    if kept.precision != here.precision:
        found.append(f"it is of the model in {kept.precision}, and this one is in {here.precision}")
    if kept.tokenizer != here.tokenizer:
        found.append("its ids are of another tokenizer")
    return found


def _many(adapters: Sequence[str]) -> str:
    if not adapters:
        return "no adapter"
    return "adapters " + ", ".join(f"{adapter[:12]}…" for adapter in adapters)
