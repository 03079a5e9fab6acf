"""The names of web-rwkv and ai00 and back: nearly the official ones, with low-rank matrices the other way round.

`time_maa` is called `time_mix` and `time_faaaa` `time_first`, everything is float16, and an RWKV-5.1's number per head
is repeated for every channel, which makes it an RWKV-5.2. RWKV-4 and 5.0 look as they do officially.
Source: web-rwkv, assets/scripts/convert_safetensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from antiphon.model.stored import StoredTensor

_LOW_RANK = re.compile(r"\.att\.(time_(?:maa|mix|decay)_w|[wavg])([12])$")
_STATE = re.compile(r"\.att\.time_state$")


def is_turned(official: str) -> bool:
    """Whether web-rwkv keeps the tensor with its last two axes exchanged."""
    return _LOW_RANK.search(official) is not None or _STATE.search(official) is not None


def web_rwkv_name(official: str) -> str:
    """Web-rwkv's name for a tensor."""
    return official.replace("time_faaaa", "time_first").replace("time_maa", "time_mix")


def are_web_rwkv(parts: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bool:
    """Whether the tensors of a safetensors file are named, or turned, in web-rwkv's way."""
    if any(name.endswith(".att.time_mix_x") for name in parts):
        return True
    first = parts.get("blocks.0.att.time_first")
    if first is not None and "blocks.0.att.gate.weight" in parts:
        # An official file of that kind, of early 5.1, has one number a head.
        return len(first.shape) == 2 and first.shape[1] > 1
    width = _width(parts)
    low_rank = {name: part for name, part in parts.items() if _LOW_RANK.search(name)}
    for name, part in low_rank.items():
        if (turned := _seen_turned(name, part, width)) is not None:
            return turned
    # All are square, so that only the writer's habits tell.
    habits = metadata.get("format") == "pt" and all(part.dtype is torch.float16 for part in low_rank.values())
    return bool(low_rank) and habits


def to_official(parts: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same tensors under official names, turned back."""
    sixth = any(name.endswith(".att.time_mix_x") for name in parts)
    gated = "blocks.0.att.gate.weight" in parts
    width = _width(parts)
    official: dict[str, StoredTensor] = {}
    for theirs, part in parts.items():
        name = theirs.replace("time_mix", "time_maa") if sixth else theirs
        if gated:
            name = name.replace("time_first", "time_faaaa")
        # Some converters turn RWKV-6's matrices twice: believe the shape where it tells.
        turned = is_turned(name) and _seen_turned(name, part, width) is not False
        official[name] = part.turned() if turned and len(part.shape) >= 2 else part
    return official


def _width(parts: Mapping[str, StoredTensor]) -> int:
    """The model's width; 0 when there is no embedding."""
    embedding = parts.get("emb.weight")
    return embedding.shape[-1] if embedding is not None and embedding.shape else 0


def _seen_turned(name: str, part: StoredTensor, width: int) -> bool | None:
    """Whether a low-rank matrix's shape shows that it is turned; None when it shows nothing."""
    match = _LOW_RANK.search(name)
    if match is None or len(part.shape) < 2:
        return None
    official, other = part.shape[-2:] if match[2] == "1" else part.shape[:-3:-1]
    if official == other or width not in (official, other):
        return None
    return other == width
