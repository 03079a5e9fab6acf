"""The form of candle_rwkv7: RWKV-7 in float32, squeezed, under names of its own, with a config.json beside it."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from antiphon.errors import FileError
from antiphon.model.candle_names import candle_name, is_turned
from antiphon.model.safetensors_writer import Entry, Promise
from antiphon.model.source import Source
from antiphon.model.spec import ModelSpec, Version


def candle_promises(source: Source) -> list[Promise]:
    """The tensors of its model.safetensors. Raises FileError for a model that is no RWKV-7."""
    spec = source.spec
    if spec.version is not Version.V7:
        what = f"the candle form knows RWKV-7 only, and this is an RWKV-{spec.version}"
        raise FileError(what, where=str(source.path), fix="convert to safetensors, web-rwkv or rwkv.cpp")
    return [_promise(source, name, shape) for name, shape in spec.shapes().items()]


def candle_config(spec: ModelSpec) -> str:
    """The text of its config.json, every number from the tensors."""
    config = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.n_embd,
        "num_hidden_layers": spec.n_layer,
        "head_dim": spec.head_size,
        "intermediate_size": spec.ffn_dim,
        "a_low_rank_dim": spec.iclr_rank,
        "decay_low_rank_dim": spec.decay_rank,
        "v_low_rank_dim": spec.value_rank,
        "gate_low_rank_dim": spec.gate_rank,
        "norm_eps": 1e-5,
    }
    return json.dumps(config, indent=2) + "\n"


def _promise(source: Source, name: str, shape: tuple[int, ...]) -> Promise:
    shape = tuple(size for size in shape if size != 1)
    turned = is_turned(name) and len(shape) == 2

    def read() -> tuple[Tensor, ...]:
        tensor = source.read(name).float().reshape(shape)
        return (tensor.T if turned else tensor,)

    entry = Entry(name=candle_name(name), shape=shape[::-1] if turned else shape, dtype=torch.float32)
    return Promise(entries=(entry,), read=read)
