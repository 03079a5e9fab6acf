"""The form of web-rwkv and ai00: float16, the low-rank matrices turned round, one decay and bonus for every channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from antiphon.model.safetensors_writer import Entry, Promise
from antiphon.model.source import Source
from antiphon.model.spec import Version
from antiphon.model.web_rwkv_names import is_turned, web_rwkv_name

METADATA = {"format": "pt"}


def web_rwkv_promises(source: Source, names: Sequence[str]) -> list[Promise]:
    """The tensors of its file, for those of `source` that are officially called `names`, its start state among them."""
    size = source.spec.head_size
    state = (source.spec.n_head, size, size)
    return [_promise(source, name, source.shapes.get(name, state)) for name in names]


def _promise(source: Source, name: str, shape: tuple[int, ...]) -> Promise:
    # It knows no RWKV-5.1, only 5.2, where every channel of a head has its own decay and bonus.
    repeats = source.spec.version is Version.V5_1 and name.endswith((".time_decay", ".time_faaaa"))
    turned = is_turned(name)

    def read() -> tuple[Tensor, ...]:
        tensor = source.read(name)
        if repeats:
            tensor = tensor.unsqueeze(-1).expand(-1, source.spec.head_size)
        return ((tensor.transpose(-1, -2) if turned else tensor).half(),)

    if repeats:
        shape = (*shape, source.spec.head_size)
    if turned:
        shape = (*shape[:-2], shape[-1], shape[-2])
    entry = Entry(name=web_rwkv_name(name), shape=shape, dtype=torch.float16)
    return Promise(entries=(entry,), read=read)
