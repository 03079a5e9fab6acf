"""Start states: what a state-tuned model remembers before its first id.

A file holds `blocks.i.att.time_state` [H, N, N] for every layer and nothing else (some checkpoints embed the same
tensors). RWKV-7 runs them as they are, [value, key]; RWKV-5 and 6 write them the other way round than they run them, so
their last two axes are swapped. Source: RWKV-LM's runtimes, and RWKV-Runner (`load_rwkv_state`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.source import Source
from antiphon.model.spec import ModelSpec, Version
from antiphon.model.stored import StoredTensor
from antiphon.model.tensor_file import open_tensors

_NAME = re.compile(r"blocks\.(\d{1,9})\.att\.time_state")
_FIX = "give a state that was tuned on this model"


def is_turned_file(path: Path) -> bool:
    """Whether a file's name says that its matrices lie the other way round."""
    return path.suffix == ".state"


def state_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that belong to a start state."""
    return [name for name in names if _NAME.fullmatch(name)]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StartState:
    """A start state for models of `spec`: float32 [L, H, N, N], indexed as the model runs it.

    That is [value, key] in RWKV-7 and [key, value] in RWKV-5 and 6.
    """

    spec: ModelSpec
    wkv: Tensor

    @classmethod
    def of(
        cls, parts: Mapping[str, StoredTensor], spec: ModelSpec, *, where: str, transpose: bool = False
    ) -> StartState:
        """The start state in `parts`; `transpose` swaps its last two axes once more, for files of other trainers.

        Raises FileError when it is none, or not for models of `spec`.
        """
        if spec.version is Version.V4:
            raise FileError("RWKV-4 has no matrix to start from", where=where, fix="give a model of RWKV-5, 6 or 7")
        shapes = {name: parts[name].shape for name in state_names(parts)}
        if len(shapes) != spec.n_layer:
            what = f"holds start states of {len(shapes)} layers, and the model has {spec.n_layer}"
            raise FileError(what if shapes else "holds no start state", where=where, fix=_FIX)
        wanted = (spec.n_head, spec.head_size, spec.head_size)
        layers = []
        for layer in range(spec.n_layer):
            name = f"blocks.{layer}.att.time_state"
            if shapes.get(name) != wanted:
                found = f"has shape {list(shapes[name])}" if name in shapes else "is missing"
                raise FileError(f"tensor {name} {found}, and the model needs {list(wanted)}", where=where, fix=_FIX)
            tensor = parts[name].read().float()
            if not bool(torch.isfinite(tensor).all()):
                raise FileError(f"tensor {name} holds a NaN or an infinity", where=where, fix="tune it again")
            layers.append(tensor)
        wkv = torch.stack(layers)
        if transpose != (spec.version is not Version.V7):
            wkv = wkv.transpose(-1, -2)
        return cls(spec=spec, wkv=wkv.contiguous())

    @classmethod
    def of_file(cls, path: Path, spec: ModelSpec, *, transpose: bool = False) -> StartState:
        """The start state in a file of its own, see `of`; those called *.state are web-rwkv's, turned already."""
        parts = open_tensors(path).parts
        return cls.of(parts, spec, where=str(path), transpose=transpose != is_turned_file(path))

    @classmethod
    def of_source(cls, source: Source, *, transpose: bool = False) -> StartState | None:
        """The start state that comes with a model; None when it comes without."""
        if not source.start_state_names:
            return None
        size = source.spec.head_size
        parts = {
            name: StoredTensor(
                shape=(source.spec.n_head, size, size),
                dtype=torch.float32,
                stored="F32",
                read=partial(source.read, name),
            )
            for name in source.start_state_names
        }
        return cls.of(parts, source.spec, where=str(source.path), transpose=transpose)

    def packed(self) -> Tensor:
        """The whole state before the first id, float32 [state_floats]: per layer att_x, wkv, ffn_x, the x being 0."""
        d = self.spec.n_embd
        state = torch.zeros(self.spec.n_layer, self.spec.layer_floats)
        state[:, d:-d] = self.wkv.flatten(1)
        return state.flatten()

    def stored(self) -> dict[str, Tensor]:
        """The tensors of its file: what `of` reads, in the orientation of its version's trainer."""
        wkv = self.wkv if self.spec.version is Version.V7 else self.wkv.transpose(-1, -2)
        return {f"blocks.{layer}.att.time_state": wkv[layer].contiguous() for layer in range(self.spec.n_layer)}
