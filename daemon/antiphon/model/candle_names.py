"""The names of candle's RWKV-7 (and of the layout that Transformers and flash-linear-attention use) and back.

Everything has its axes of one squeezed away, and low-rank matrices are stored as linear layers, [out, in].
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from antiphon.model.stored import StoredTensor

_OUTSIDE = {
    "emb.weight": "model.embeddings.weight",
    "head.weight": "lm_head.weight",
    "ln_out.weight": "model.norm.weight",
    "ln_out.bias": "model.norm.bias",
}
_LOW_RANK = {"0": "lora.2.bias", "1": "lora.0.weight", "2": "lora.2.weight"}
_IN_A_LAYER = {
    **{
        f"{ours}.{part}": f"{theirs}.{part}"
        for ours, theirs in {
            "ln0": "pre_norm",
            "ln1": "attn_norm",
            "ln2": "ffn_norm",
            "att.ln_x": "attn.g_norm",
        }.items()
        for part in ("weight", "bias")
    },
    **{f"att.{linear}.weight": f"attn.{linear[0]}_proj.weight" for linear in ("receptance", "key", "value", "output")},
    **{f"att.x_{mix}": f"attn.x_{mix}" for mix in "rwkvag"},
    **{f"att.{kind}{part}": f"attn.{kind}_lora.{name}" for kind in "wavg" for part, name in _LOW_RANK.items()},
    **{f"att.{name}": f"attn.{name}" for name in ("k_k", "k_a", "r_k")},
    "ffn.x_k": "ffn.x_k",
    "ffn.key.weight": "ffn.key.weight",
    "ffn.value.weight": "ffn.value.weight",
}
_OFFICIAL_OUTSIDE = {theirs: ours for ours, theirs in _OUTSIDE.items()}
_OFFICIAL_IN_A_LAYER = {theirs: ours for ours, theirs in _IN_A_LAYER.items()}
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.(.+)")
_BLOCK = re.compile(r"blocks\.(\d{1,9})\.(.+)")
_TURNED = re.compile(r"\.att\.[wavg][12]$")


def is_turned(official: str) -> bool:
    """Whether candle keeps the matrix the other way round."""
    return _TURNED.search(official) is not None


def candle_name(official: str) -> str:
    """Candle's name for an RWKV-7's tensor; KeyError when it has none."""
    if match := _BLOCK.fullmatch(official):
        return f"model.layers.{match[1]}.{_IN_A_LAYER[match[2]]}"
    return _OUTSIDE[official]


def are_candle(names: Mapping[str, StoredTensor]) -> bool:
    """Whether a file's tensors carry these names."""
    return "model.embeddings.weight" in names or any(name.startswith("model.layers.") for name in names)


def to_official(parts: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same tensors under official names; one without an official name keeps its own."""
    official: dict[str, StoredTensor] = {}
    for theirs, part in parts.items():
        name = _OFFICIAL_OUTSIDE.get(theirs, theirs)
        if match := _LAYER.fullmatch(theirs):
            name = f"blocks.{match[1]}.{_OFFICIAL_IN_A_LAYER.get(match[2], match[2])}"
        official[name] = part.turned() if is_turned(name) and len(part.shape) == 2 else part
    return official
