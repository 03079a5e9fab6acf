"""A small model for the session: real weights, read by the real engine, that know nothing about music."""

from __future__ import annotations

import pytest
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.init import initial_weights
from antiphon.model.spec import ModelSpec
from antiphon.tokens.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    spec = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=Vocabulary().size)
    generator = torch.Generator().manual_seed(7)
    # Fresh weights remember nothing (their output matrices are zero); noise makes every id count.
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) * tensor.abs().mean().clamp(min=0.1)
        for name, tensor in initial_weights(spec, seed=7).items()
    }
    loaded = LoadedModel.of(Checkpoint(spec=spec, tensors=weights, metadata={}))
    loaded.warm()
    return loaded
