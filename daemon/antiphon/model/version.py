"""Which RWKV a set of tensors is, told by their names; what only looks like one is refused by name.

The rules follow the order in which the versions grew: each has a tensor that no older one has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

from antiphon.errors import FileError


class Version(StrEnum):
    """The generations of RWKV that can be run."""

    V4 = "4"
    V5_0 = "5.0"
    V5_1 = "5.1"
    V5_2 = "5.2"
    V6 = "6"
    V7 = "7"

    @property
    def has_gate(self) -> bool:
        """Whether the time mix multiplies its output by a gate."""
        return self not in (Version.V4, Version.V5_0)


_LOOK_ALIKES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"rosa", re.IGNORECASE), "an experiment with ROSA"),
    (re.compile(r"\.ffn\.enn\."), "a preview of RWKV-8"),
    (re.compile(r"\.qkv\."), "an RWKV-7b, which also attends"),
    (re.compile(r"\.ffn\.s_emb|\.ffn\.s[012]$"), "an RWKV-7a, which embeds deeply"),
    (
        re.compile(r"\.att\.(gate_w[12]|time_maa_rkvw|time_maa_[a-z]+_w[12])"),
        "an RWKV-6 of another kind (x060a, b or c)",
    ),
    (re.compile(r"\.ffnPre\.|\.tiny_|^head_[qk]\.|^copy_mask$"), "an RWKV-4 with extra parts"),
)
"""Tensors of relatives that would run and give nonsense; source: RWKV-LM, its folders RWKV-v4neo to RWKV-v8."""

_FIX = "give an RWKV-4, 5, 6 or 7 checkpoint"


def version_of(shapes: Mapping[str, tuple[int, ...]], *, where: str = "") -> Version:
    """The version of tensors under their official names; `FileError` names what else was found."""
    refuse_look_alikes(shapes, where=where)
    endings = {name.partition(".att.")[2] for name in shapes if ".att." in name}
    if endings & {"r_k", "k_k"}:
        return Version.V7
    if any(ending.startswith("time_maa_") for ending in endings):
        return Version.V6
    if "ln_x.weight" in endings:
        if "gate.weight" not in endings:
            return Version.V5_0
        decay = shapes.get("blocks.0.att.time_decay", ())
        return Version.V5_2 if len(decay) == 2 and decay[1] > 1 else Version.V5_1
    if "time_mix_k" in endings:
        return Version.V4
    found = ", ".join(sorted(shapes)[:3]) or "nothing"
    raise FileError(f"no RWKV is known by its tensors: {found} …", where=where, fix=_FIX)


def refuse_look_alikes(names: Iterable[str], *, where: str = "") -> None:
    """Raise `FileError` for the first tensor that only a relative of the known versions has."""
    names = list(names)
    for pattern, what in _LOOK_ALIKES:
        for name in names:
            if pattern.search(name):
                raise FileError(f"tensor {name} belongs to {what}", where=where, fix=_FIX)
