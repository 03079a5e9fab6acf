"""The `.pth` files of torch.save: a zip with a pickle that says what lies where, read without running anything.

PyTorch's weights-only loader does the reading, with the file mapped. Before it may, the zip's directory and the pickle
are checked here: nothing compressed, nothing twice, no more than the file's bytes, and a pickle that calls nothing but
what makes a tensor. A pickle can otherwise ask that loader too for more memory than there is.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.mapped import file_size
from antiphon.model.stored import StoredTensor

MAGIC = b"PK\x03\x04"

MAX_DIRECTORY_BYTES = 16 << 20
MAX_PICKLE_BYTES = 8 << 20
MAX_PICKLE_STEPS = 1 << 18
MAX_NAME = 256
"""Bounds several times what the largest RWKV needs (61 layers: 2,300 tensors, 0.3 MB, 80,000 steps)."""

_FIX = "give a .pth of torch.save that holds tensors and nothing else"

_ENTRY = re.compile(
    r"[^/]+/(data\.pkl|data/[0-9]+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)

_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_CALLED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}
"""What a pickle of tensors names. PyTorch's loader allows more, `bytearray` of any length among it."""

_STEPS = frozenset(
    {"PROTO", "GLOBAL", "MARK", "STOP", "REDUCE", "BUILD", "BINPERSID", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
     "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINUNICODE",
     "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "BINPUT", "LONG_BINPUT",
     "BINGET", "LONG_BINGET"}
)  # fmt: skip

_FLOATS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def parts_of(path: Path) -> dict[str, StoredTensor]:
    """All tensors by the file's own names, those of its `state_dict` when it is wrapped so. Raises FileError."""
    size = file_size(path)
    _check(path, size)
    if path.suffix.lower() == ".safetensors":
        # PyTorch's loader believes the name, and would look for another kind of file in it.
        raise FileError("a .pth of torch.save, whatever its name says", where=str(path), fix="rename it to .pth")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        EOFError,
    ) as error:
        raise _refused(path, f"PyTorch cannot read it: {str(error).splitlines()[0][:200]}") from error
    except (OSError, AssertionError, OverflowError) as error:
        raise _refused(path, f"PyTorch cannot read it: {type(error).__name__}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise _refused(path, f"it holds no table of tensors, but something of type {type(loaded).__name__}")
    parts = {name: _part(path, name, value) for name, value in loaded.items()}
    promised = sum(part.dtype.itemsize * math.prod(part.shape) for part in parts.values())
    # Tied weights (one storage, two names) are usual; a file that promises more than that is a trap.
    if promised > 2 * size:
        raise _refused(path, f"it promises {promised} bytes of tensors and has {size}")
    return parts


def _part(path: Path, name: Any, value: Any) -> StoredTensor:
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable():
        raise _refused(path, f"a tensor has a name that no tensor has: {str(name)[:60]!r}")
    if name == "_strategy":
        raise _refused(
            path, "it was converted for one strategy of the rwkv package; give the model that it was made of"
        )
    if not isinstance(value, Tensor):
        raise _refused(path, f"{name} is no tensor, but of type {type(value).__name__}")
    if value.layout is not torch.strided or value.dtype not in _FLOATS or value.device.type != "cpu":
        raise _refused(path, f"tensor {name} is of a type that no RWKV has: {value.dtype}")
    tensor = value.detach()
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise _refused(path, f"tensor {name} is larger than what is stored of it")
    return StoredTensor(
        shape=tuple(tensor.shape), dtype=tensor.dtype, stored=_FLOATS[tensor.dtype], read=tensor.contiguous
    )


def _refused(path: Path, what: str) -> FileError:
    return FileError(what, where=str(path), fix=_FIX)


def _check(path: Path, size: int) -> None:
    """Refuse whatever the loader should not see."""
    try:
        with path.open("rb") as file:
            _check_directory_size(path, file, size)
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                _check_entries(path, entries, size)
                text = archive.read(next(entry for entry in entries if entry.filename.endswith("/data.pkl")))
                order = [archive.read(entry) for entry in entries if entry.filename.endswith("/byteorder")]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise _refused(path, f"damaged: {error}") from error
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if order not in ([], [b"little"]):
        raise _refused(path, "its numbers are not little-endian")
    _check_pickle(path, text)


def _check_directory_size(path: Path, file: io.BufferedReader, size: int) -> None:
    """The zip's directory is read as a whole: see that it is small, and that it ends the file."""
    file.seek(max(0, size - 22 - 20 - 56))
    tail = file.read()
    if len(tail) < 22 or not tail[-22:].startswith(b"PK\x05\x06"):
        raise _refused(path, "cut short: the directory at its end is missing")
    directory, at = struct.unpack("<2I", tail[-10:-2])
    if len(tail) >= 98 and tail[56:60] == b"PK\x06\x07" and tail[:4] == b"PK\x06\x06":
        directory, at = struct.unpack("<2Q", tail[40:56])
        end = size - 98
    else:
        end = size - 22
    if directory > MAX_DIRECTORY_BYTES or at + directory != end:
        raise _refused(path, "damaged: its directory is not where it should be")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    for entry in entries:
        if not _ENTRY.fullmatch(entry.filename) or entry.flag_bits & 1:
            raise _refused(path, f"a zip that torch.save did not write: it holds {entry.filename[:80]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _refused(path, f"{entry.filename} in it is compressed, which torch.save never does")
    if len({name.partition("/")[0] for name in names}) != 1 or len(set(names)) != len(names):
        raise _refused(path, "a zip that torch.save did not write: its entries are not one folder")
    if sum(entry.file_size for entry in entries) > size:
        raise _refused(path, f"its entries promise more than its {size} bytes")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if not pickles:
        raise _refused(path, "a zip that torch.save did not write: it has no data.pkl")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise _refused(path, f"its pickle has {pickles[0].file_size} bytes, far more than names of tensors need")


def _check_pickle(path: Path, text: bytes) -> None:
    """Go through the pickle without doing what it says: only tensors, tables and plain values may be made."""
    steps = 0
    try:
        for step, argument, _ in pickletools.genops(text):
            steps += 1
            if steps > MAX_PICKLE_STEPS:
                raise _refused(path, f"its pickle has more than {MAX_PICKLE_STEPS} steps")
            if step.name == "GLOBAL" and argument not in _CALLED:
                raise _refused(path, f"its pickle calls {str(argument)[:80].replace(' ', '.')}, which makes no tensor")
            if step.name not in _STEPS:
                raise _refused(path, f"its pickle does what no table of tensors needs: {step.name}")
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise _refused(path, f"its pickle is damaged: {str(error)[:80]}") from error
