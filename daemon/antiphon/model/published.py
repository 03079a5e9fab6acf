"""The sizes in which RWKV-7 is published, and sizes written as text.

Ranks are those of the released files, which follow an older rule than the trainer's present one (RWKV-LM,
RWKV-v7/train_temp/src/model.py): 32 * round(1.8 sqrt(D) / 32) and so on.
"""

from __future__ import annotations

import re

from antiphon.model.spec import ModelSpec

WORLD_VOCAB = 65536
"""Rows of the embedding of every published text model."""

#                     layers  width   w    a    v    g
_SIZES = {
    "0.1B": (12, 768, 64, 64, 32, 128),
    "0.4B": (24, 1024, 64, 64, 32, 128),
    "1.5B": (24, 2048, 96, 96, 64, 256),
    "2.9B": (32, 2560, 96, 96, 64, 320),
    "7.2B": (32, 4096, 128, 128, 96, 480),
    "13.3B": (61, 4096, 192, 192, 128, 384),
}
_TEXT = re.compile(r"([0-9]+)x([0-9]+)(?:x([0-9]+))?")


def published(name: str) -> ModelSpec:
    """The shape of the published model called `name`, as in "0.1B"; KeyError for another name."""
    layers, width, decay, iclr, value, gate = _SIZES[name.upper()]
    return ModelSpec(
        n_layer=layers,
        n_embd=width,
        vocab_size=WORLD_VOCAB,
        ffn_dim=4 * width,
        decay_rank=decay,
        iclr_rank=iclr,
        value_rank=value,
        gate_rank=gate,
    )


def names() -> tuple[str, ...]:
    """The published sizes, the smallest first."""
    return tuple(_SIZES)


def parsed(text: str, *, vocab_size: int = WORLD_VOCAB) -> ModelSpec:
    """A shape from text: a published name ("0.4B"), or layers x width x vocabulary ("6x256x512").

    vocab_size: where the text names none. ValueError for anything else, and for what no RWKV-7 can be.
    """
    if text.upper() in _SIZES:
        return published(text)
    if (match := _TEXT.fullmatch(text)) is None:
        known = ", ".join(names())
        raise ValueError(f"{text!r} is no shape: write layers x width (x vocabulary) like 12x768, or one of {known}")
    layers, width, vocab = match.groups()
    return ModelSpec.of_width(
        n_layer=int(layers), n_embd=int(width), vocab_size=int(vocab) if vocab is not None else vocab_size
    )
