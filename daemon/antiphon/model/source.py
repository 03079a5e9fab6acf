"""An opened model file of any kind, seen as official tensors: names, shapes and meanings of the official `.pth`.

The kinds are told apart by content, never by the file's name. Nothing is read before it is wanted, and then one tensor
at a time, so that a model can be changed into another form in little more memory than its largest tensor takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model import candle_names, rwkv_cpp_names, web_rwkv_names
from antiphon.model.spec import ModelSpec, Version
from antiphon.model.stored import StoredTensor
from antiphon.model.tensor_file import TensorFile, is_finite, not_finite, open_tensors

LN_X_EPS = 64e-5
"""1e-5 times head_size 64: the official runtimes' constant under the root of `ln_x`."""
LN_X_EPS_RWKV_CPP_5 = 1e-5
"""Rwkv.cpp's for RWKV-5, with which its files are made and checked."""

_OURS = "antiphon-rwkv"
_PREFIXES = ("model.", "_forward_module.")
_STATE = re.compile(r"blocks\.(\d{1,9})\.att\.time_state")
_ADAPTER = re.compile(r"\.(lora_[AB]|lora\.[01]|disha|bone)$")
_DUMMIES = frozenset(f"blocks.0.att.v{part}" for part in range(3))
"""Layer 0 of an RWKV-7 has no value residual; many files carry tensors for it all the same."""


class Kind(StrEnum):
    """How a model file is kept: the container, and whose names are in it."""

    ANTIPHON = "antiphon"
    PTH = "pth"
    SAFETENSORS = "safetensors"
    CANDLE = "candle"
    WEB_RWKV = "web-rwkv"
    RWKV_CPP = "rwkv.cpp"


class Source(Protocol):
    """An opened model: what it is, and its tensors one at a time under official names and in official shapes."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def kind(self) -> Kind:
        """How it is kept."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free text about the model; empty where the container holds none."""

    @property
    def spec(self) -> ModelSpec:
        """Version and sizes."""

    @property
    def ln_x_eps(self) -> float:
        """The constant under the root of `ln_x` that these weights were made for (no RWKV-4 has one)."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape: those of `spec.shapes()`, in that order."""

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """The type in which `read` gives each tensor."""

    @property
    def stored(self) -> Mapping[str, str]:
        """The file's own word for how each tensor is kept: F16, BF16, INT8, Q4_0 …"""

    @property
    def start_state_names(self) -> tuple[str, ...]:
        """`blocks.N.att.time_state` of every layer when the model comes with a start state, else nothing."""

    def read(self, name: str) -> Tensor:
        """A tensor in float, as the file has it; whole numbers and blocks times their scales, in float32.

        `name` is of `shapes` or of `start_state_names`. Raises KeyError for another, FileError when the numbers are
        not finite. Do not write into it: it may be the file's own memory.
        """

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None:
        """A matrix that our own file keeps as whole numbers: int8 [out, in] and float32 scales [out] or [out, groups].

        None for a tensor that is kept otherwise. Raises as `read` does.
        """


@dataclass(frozen=True, kw_only=True)
class OpenedSource:
    """A file that was opened with `open_source`.

    No slots: the three tables are made once, when first asked for.
    """

    path: Path
    kind: Kind
    metadata: Mapping[str, str]
    spec: ModelSpec
    ln_x_eps: float
    parts: Mapping[str, StoredTensor]
    start_state: Mapping[str, StoredTensor]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: part.shape for name, part in self.parts.items()}

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The type in which `read` gives each tensor."""
        return {name: part.dtype for name, part in self.parts.items()}

    @cached_property
    def stored(self) -> dict[str, str]:
        """How each tensor is kept."""
        return {name: part.stored for name, part in self.parts.items()}

    @property
    def start_state_names(self) -> tuple[str, ...]:
        """The names of the start state's tensors."""
        return tuple(self.start_state)

    def read(self, name: str) -> Tensor:
        """A tensor in float."""
        part = self.parts.get(name) or self.start_state[name]
        tensor = part.read()
        if not is_finite(tensor):
            raise not_finite(name, self.path)
        return tensor

    def read_quantized(self, name: str) -> tuple[Tensor, Tensor] | None:
        """A matrix's whole numbers and scales."""
        part = self.parts[name]
        if part.quantized is None:
            return None
        values, scale = part.quantized()
        if not is_finite(scale):
            raise not_finite(f"{name}.scale", self.path)
        return values, scale


def open_source(path: Path) -> OpenedSource:
    """Open a model file by its content. Raises FileError when it is no whole RWKV-4, 5, 6 or 7 of a known kind."""
    file = open_tensors(path)
    kind, parts = _official(file)
    parts = {name: part for name, part in parts.items() if name not in _DUMMIES}
    start_state = {name: part for name, part in parts.items() if _STATE.fullmatch(name)}
    parts = {name: part for name, part in parts.items() if name not in start_state}
    if start_state and not parts:
        raise FileError("a start state, not a model", where=str(path), fix="give it beside the model that it is for")
    if adapted := next((name for name in parts if _ADAPTER.search(name)), None):
        what = f"an adapter, not a model: it holds {adapted}"
        raise FileError(what, where=str(path), fix="give it beside the model that it is for")
    shapes = {name: _with_heads(name, part.shape) for name, part in parts.items()}
    spec = ModelSpec.of_tensors(shapes, where=str(path))
    return OpenedSource(
        path=path,
        kind=kind,
        metadata=file.metadata,
        spec=spec,
        ln_x_eps=_ln_x_eps(file, kind, spec.version),
        parts=_checked(path, spec, parts),
        start_state=_checked_state(path, spec, start_state),
    )


def _official(file: TensorFile) -> tuple[Kind, dict[str, StoredTensor]]:
    """Whose names a file has, and its tensors under the official ones."""
    if candle_names.are_candle(file.parts):
        return Kind.CANDLE, candle_names.to_official(file.parts)
    parts = _without_prefixes(file)
    if file.container == "rwkv.cpp":
        return Kind.RWKV_CPP, rwkv_cpp_names.to_official(parts, where=str(file.path))
    if file.container == "pth":
        return Kind.PTH, _with_plain_bonus(parts)
    if file.metadata.get("format", "").startswith(_OURS):
        return Kind.ANTIPHON, parts
    if web_rwkv_names.are_web_rwkv(parts, file.metadata):
        return Kind.WEB_RWKV, web_rwkv_names.to_official(parts)
    return Kind.SAFETENSORS, _with_plain_bonus(parts)


def _without_prefixes(file: TensorFile) -> dict[str, StoredTensor]:
    parts: dict[str, StoredTensor] = {}
    for name, part in file.parts.items():
        while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), ""):
            name = name.removeprefix(prefix)
        if name in parts:
            raise FileError(f"tensor {name} is there twice, under two prefixes", where=str(file.path))
        parts[name] = part
    return parts


def _with_plain_bonus(parts: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Early RWKV-5.1 files call the bonus time_first, and then an exponential is meant; later ones have its value."""
    if "blocks.0.att.gate.weight" not in parts:
        return parts
    changed: dict[str, StoredTensor] = {}
    for name, part in parts.items():
        if name.endswith(".att.time_first"):
            name = name.replace("time_first", "time_faaaa")
            part = part.then(lambda tensor: tensor.double().exp().float(), part.shape, dtype=torch.float32)
        changed[name] = part
    return changed


def _with_heads(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape [H, N] of what squeezing has left as [N] when there is one head."""
    return (1, *shape) if name.endswith(".att.r_k") and len(shape) == 1 else shape


def _checked(path: Path, spec: ModelSpec, parts: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors in official order and shape, where files differ only in axes of one. Raises FileError."""
    expected = spec.shapes()
    fix = f"give a whole RWKV-{spec.version} checkpoint"
    missing = [name for name in expected if name not in parts]
    if missing:
        raise FileError(f"tensor {missing[0]} is missing ({len(missing)} in all)", where=str(path), fix=fix)
    for name, part in parts.items():
        want = expected.get(name)
        if want is None:
            raise FileError(f"tensor {name} is unknown in an RWKV-{spec.version}", where=str(path), fix=fix)
        if _squeezed(part.shape) != _squeezed(want):
            raise FileError(f"tensor {name} has shape {list(part.shape)}, not {list(want)}", where=str(path), fix=fix)
    return {name: parts[name].shaped(shape) for name, shape in expected.items()}


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in shape if axis != 1)


def _checked_state(path: Path, spec: ModelSpec, state: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The start state's tensors in the layers' order: all [H, N, N], or there is none. Raises FileError."""
    if not state:
        return {}
    names = [f"blocks.{layer}.att.time_state" for layer in range(spec.n_layer)]
    want = (spec.n_head, spec.head_size, spec.head_size)
    fix = "give a model with a start state for every layer, or none"
    if spec.version is Version.V4 or set(state) != set(names):
        raise FileError(f"a start state of {len(state)} layers, not {spec.n_layer}", where=str(path), fix=fix)
    for name, part in state.items():
        if part.shape != want:
            raise FileError(f"tensor {name} has shape {list(part.shape)}, not {list(want)}", where=str(path), fix=fix)
    return {name: state[name] for name in names}


def _ln_x_eps(file: TensorFile, kind: Kind, version: Version) -> float:
    """What our own files say, else what the kind of file means."""
    if text := file.metadata.get("ln_x_eps"):
        try:
            eps = float(text)
        except ValueError:
            eps = math.nan
        if not 0 < eps < 1:
            raise FileError(f"its ln_x_eps is {text[:40]!r}, not a number between 0 and 1", where=str(file.path))
        return eps
    fifth = version in (Version.V5_0, Version.V5_1, Version.V5_2)
    return LN_X_EPS_RWKV_CPP_5 if kind is Kind.RWKV_CPP and fifth else LN_X_EPS
