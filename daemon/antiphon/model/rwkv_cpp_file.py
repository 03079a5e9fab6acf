"""The `.bin` files of rwkv.cpp: a short header, then tensor after tensor, numbers in blocks among them.

Six little-endian 32-bit numbers (magic, version, rows of the embedding, width, layers, type), then per tensor three
(axes, length of the name, type), the axes reversed, the name, and the numbers in row order. Source: rwkv.cpp,
docs/FILE_FORMAT.md and python/convert_pytorch_to_ggml.py; the blocks are ggml's (ggml-quants.c).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.ggml_blocks import BLOCK, BlockType
from antiphon.model.mapped import MappedFile
from antiphon.model.stored import StoredTensor

MAGIC = struct.pack("<I", 0x67676D66)
MAX_TENSORS = 1 << 14
MAX_NAME = 256
MAX_AXES = 4

_PLAIN = {0: ("F32", torch.float32), 1: ("F16", torch.float16)}
_BLOCKS = {kind.value: kind for kind in BlockType}
_RETIRED = (4, 5, 6)
_FIX = "convert it again with rwkv.cpp"

_Refused = Callable[[str], FileError]


def parts_of(path: Path) -> dict[str, StoredTensor]:
    """All tensors by the file's own names, blocks as float32. Raises FileError."""

    def refused(what: str) -> FileError:
        return FileError(what, where=str(path), fix=_FIX)

    mapped = MappedFile(path)
    parts: dict[str, StoredTensor] = {}
    try:
        with path.open("rb") as file:
            version, rows, width = _header(file, refused)
            while file.tell() < mapped.size:
                name, part, end = _tensor(file, mapped, version, refused)
                if name in parts:
                    raise refused(f"tensor {name} is there twice")
                if len(parts) == MAX_TENSORS:
                    raise refused(f"it has more than {MAX_TENSORS} tensors")
                parts[name] = part
                file.seek(end)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    embedding = parts.get("emb.weight")
    if embedding is not None and embedding.shape != (rows, width):
        raise refused(f"tensor emb.weight has shape {list(embedding.shape)}, and the header says {[rows, width]}")
    return parts


def _header(file: BinaryIO, refused: _Refused) -> tuple[int, int, int]:
    """The file's version, and the rows and the width of the embedding."""
    start = file.read(24)
    if len(start) < 24:
        raise refused("cut short in its header")
    _, version, rows, width, _, kind = struct.unpack("<6I", start)
    if version not in (100, 101):
        raise refused(f"a file of version {version}; 100 and 101 are known")
    if version == 100 and kind not in _PLAIN:
        # Their blocks are laid out otherwise.
        raise refused("a quantized file of the old version 100")
    return version, rows, width


def _tensor(file: BinaryIO, mapped: MappedFile, version: int, refused: _Refused) -> tuple[str, StoredTensor, int]:
    """The tensor that is described here: its name, how to read it, and where its bytes end."""
    start = file.read(12)
    if len(start) < 12:
        raise refused("cut short between two tensors")
    axes, name_bytes, kind = struct.unpack("<3I", start)
    if not 1 <= axes <= MAX_AXES or not 1 <= name_bytes <= MAX_NAME:
        raise refused(f"damaged at byte {file.tell() - 12}: a tensor of {axes} axes, its name of {name_bytes} bytes")
    rest = file.read(4 * axes + name_bytes)
    if len(rest) < 4 * axes + name_bytes:
        raise refused("cut short in a tensor's name")
    shape = tuple(reversed(struct.unpack(f"<{axes}I", rest[: 4 * axes])))
    try:
        name = rest[4 * axes :].decode()
    except UnicodeDecodeError as error:
        raise refused("damaged: a tensor's name is no text") from error
    if not name.isprintable() or 0 in shape:
        raise refused(f"damaged: a tensor {name!r} of shape {list(shape)}")
    if kind in _RETIRED or (version == 100 and kind not in _PLAIN):
        raise refused(f"tensor {name} is of type {kind}, which rwkv.cpp no longer reads")
    at = file.tell()
    if kind in _PLAIN:
        part, count = _plain(mapped, at, kind, shape)
    elif block := _BLOCKS.get(kind):
        if shape[-1] % BLOCK:
            raise refused(f"tensor {name} has rows of {shape[-1]}, which do not divide into blocks of {BLOCK}")
        part, count = _blocked(mapped, at, block, shape)
    else:
        raise refused(f"tensor {name} is of an unknown type: {kind}")
    if at + count > mapped.size:
        raise refused(f"cut short: tensor {name} ends at byte {at + count}, and the file has {mapped.size}")
    return name, part, at + count


def _plain(mapped: MappedFile, at: int, kind: int, shape: tuple[int, ...]) -> tuple[StoredTensor, int]:
    word, dtype = _PLAIN[kind]

    def read() -> Tensor:
        return mapped.tensor(at=at, dtype=dtype, shape=shape)

    return StoredTensor(shape=shape, dtype=dtype, stored=word, read=read), math.prod(shape) * dtype.itemsize


def _blocked(mapped: MappedFile, at: int, kind: BlockType, shape: tuple[int, ...]) -> tuple[StoredTensor, int]:
    blocks = math.prod(shape) // BLOCK

    def read() -> Tensor:
        table = mapped.tensor(at=at, dtype=torch.uint8, shape=(blocks, kind.block_bytes))
        return from_blocks(table, kind).view(shape)

    part = StoredTensor(shape=shape, dtype=torch.float32, stored=kind.name, read=read)
    return part, blocks * kind.block_bytes


def from_blocks(table: Tensor, kind: BlockType) -> Tensor:
    """uint8 [blocks, block_bytes] to float32 [blocks, 32]: the numbers that the blocks stand for, exactly as ggml's."""
    step = _halves(table, 0)
    if kind is BlockType.Q8_0:
        return table[:, 2:].view(torch.int8).float() * step
    least = _halves(table, 2) if kind in (BlockType.Q4_1, BlockType.Q5_1) else None
    nibbles = table[:, -16:]
    values = torch.cat([nibbles & 15, nibbles >> 4], dim=1)
    if kind in (BlockType.Q5_0, BlockType.Q5_1):
        places = torch.arange(8, dtype=torch.uint8)
        fifth = (table[:, -20:-16].unsqueeze(-1) >> places) & 1
        values |= fifth.flatten(1) << 4
    if least is not None:
        return values.float() * step + least
    return (values.float() - (16 if kind is BlockType.Q5_0 else 8)) * step


def _halves(table: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of every block, as float32 [blocks, 1]."""
    return table[:, at : at + 2].contiguous().view(torch.float16).float()
