"""The files of rwkv.cpp: a short header, then name, shape and numbers of one tensor after the other.

Matrices of the layers are what is quantized; vectors and whatever mixes stay float32, the rest is float16. Decays and
first-token bonuses are stored as they are used. Source: rwkv.cpp (MIT), docs/FILE_FORMAT.md,
python/convert_pytorch_to_ggml.py and rwkv_quantize.inc.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.ggml_blocks import BLOCK, BlockType, to_blocks
from antiphon.model.safetensors_writer import require_finite
from antiphon.model.source import Source
from antiphon.model.spec import ModelSpec, Version
from antiphon.model.whole_file import whole_file

MAGIC, VERSION = 0x67676D66, 101


class DataType(IntEnum):
    """What a file's matrices are, by the code in its header."""

    FP32 = 0
    FP16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 7
    Q5_1 = 8
    Q8_0 = 9


_LINEAR = re.compile(r"blocks\.\d+\.(att|ffn)\.(receptance|key|value|output|gate)\.weight")
_WIDE = re.compile(r".*\.(time_\w+|k_k|k_a|r_k|x_rwkvag|x_k|w0|a0|v0)")
"""Tensors of more than one axis that stay float32."""

_ROWS_AT_ONCE = 4096
"""Rows of a matrix that are quantized at a time: it bounds the memory beside the matrix itself."""


def write_rwkv_cpp(path: Path, source: Source, kind: DataType) -> None:
    """Write the model to `path` as matrices of `kind`, all or nothing, one tensor in memory. Raises FileError.

    A matrix whose rows do not divide into blocks of 32 is float16 where others are quantized.
    """
    spec = source.spec
    with whole_file(path) as file:
        file.write(struct.pack("<6i", MAGIC, VERSION, spec.vocab_size, spec.n_embd, spec.n_layer, kind))
        for name, tensor in _transformed(source):
            if name.endswith(".time_state"):
                continue
            require_finite(name, tensor, path)
            stored = _stored_as(name, tensor, kind)
            text = name.encode()
            file.write(struct.pack("<3i", tensor.dim(), len(text), stored))
            file.write(struct.pack(f"<{tensor.dim()}i", *reversed(tensor.shape)))
            file.write(text)
            for rows in tensor.split(_ROWS_AT_ONCE) if tensor.dim() == 2 else (tensor,):
                file.write(_bytes(name, rows, stored, path))


def _transformed(source: Source) -> Iterator[tuple[str, Tensor]]:
    """Every tensor as the file has it, float32, in official order."""
    spec = source.spec
    for name in spec.shapes():
        if name.endswith(".att.x_r"):
            yield name.removesuffix("r") + "rwkvag", _mixes(source, name.removesuffix("r"))
        elif not re.fullmatch(r".*\.att\.x_[wkvag]", name):
            tensor = source.read(name).float()
            yield name, (_time(name, tensor, spec) if ".time_" in name else _turned(name, tensor)).contiguous()


def _mixes(source: Source, start: str) -> Tensor:
    """The six mixing vectors of a layer in one [6, 1, D]."""
    return torch.cat([source.read(f"{start}{mix}").float().reshape(1, 1, -1) for mix in "rwkvag"])


def _turned(name: str, tensor: Tensor) -> Tensor:
    return tensor.T if re.fullmatch(r".*\.att\.[wavg][12]", name) else tensor


def _time(name: str, tensor: Tensor, spec: ModelSpec) -> Tensor:
    """The tensors called time_…, as each version of RWKV is run there."""
    last = name.rpartition(".")[2]
    by_head = (spec.n_head, -1, 1)
    if spec.version is Version.V5_1 and last in ("time_decay", "time_faaaa"):
        # It knows no RWKV-5.1, only 5.2, where every channel of a head has its own decay and bonus.
        tensor = tensor.unsqueeze(-1).expand(-1, spec.head_size)
    if last in ("time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2"):
        return tensor.transpose(-1, -2)
    if last == "time_decay":
        if spec.version is Version.V4:
            return -torch.exp(tensor.flatten())
        if spec.version is Version.V6:
            return tensor.reshape(by_head)
        return torch.exp(-torch.exp(tensor)).reshape(by_head)
    if last == "time_faaaa":
        return tensor.reshape(by_head)
    if last == "time_first" and spec.version is not Version.V4:
        return torch.exp(tensor).reshape(by_head)
    return tensor.flatten()


def _stored_as(name: str, tensor: Tensor, kind: DataType) -> DataType:
    if kind is DataType.FP32 or tensor.dim() < 2 or _WIDE.fullmatch(name):
        return DataType.FP32
    if kind is DataType.FP16 or not _LINEAR.fullmatch(name) or tensor.shape[1] % BLOCK:
        return DataType.FP16
    return kind


def _bytes(name: str, tensor: Tensor, stored: DataType, path: Path) -> bytes:
    values: npt.NDArray[np.generic]
    if stored is DataType.FP32:
        values = tensor.numpy().astype("<f4", copy=False)
    elif stored is DataType.FP16:
        require_finite(name, tensor.half(), path)
        values = tensor.numpy().astype("<f2")
    else:
        try:
            values = to_blocks(tensor.numpy(), BlockType(stored))
        except OverflowError as error:
            raise FileError(f"tensor {name}: {error}", where=str(path), fix="convert to a wider type") from error
    return values.tobytes()
