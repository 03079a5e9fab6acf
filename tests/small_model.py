"""A small model that speaks our tokens and knows nothing about music: real weights in a real file."""

from __future__ import annotations

from pathlib import Path

import torch

from antiphon.model.checkpoint import Checkpoint, write
from antiphon.model.init import initial_weights
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec
from antiphon.tokens.vocabulary import Vocabulary


def small_checkpoint() -> Checkpoint:
    """Two layers of 64, in float32."""
    vocabulary = Vocabulary()
    spec = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=vocabulary.size)
    generator = torch.Generator().manual_seed(7)
    # Fresh weights remember nothing (their output matrices are zero); noise makes every id count.
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) * tensor.abs().mean().clamp(min=0.1)
        for name, tensor in initial_weights(spec, seed=7).items()
    }
    return Checkpoint(spec=spec, tensors=weights, metadata={"tokenizer": vocabulary.grid.to_json()})


def write_small_model(path: Path) -> Path:
    """The same in a file, as int8."""
    write(path, quantize_int8(small_checkpoint()))
    return path
