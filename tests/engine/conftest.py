"""A two-layer model, written as a real file and read by the real loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from antiphon.engine.loaded import LoadedModel
from antiphon.model import checkpoint as checkpoints
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.init import initial_weights
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec


@pytest.fixture(scope="session")
def float_checkpoint() -> Checkpoint:
    spec = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=51)
    generator = torch.Generator().manual_seed(7)
    # Fresh weights remember nothing (their output matrices are zero); noise makes every id count.
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) * tensor.abs().mean().clamp(min=0.1)
        for name, tensor in initial_weights(spec, seed=7).items()
    }
    return Checkpoint(spec=spec, tensors=weights, metadata={"tokenizer": "{}"})


@pytest.fixture(scope="session")
def model_file(float_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    checkpoints.write(path, quantize_int8(float_checkpoint))
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> LoadedModel:
    return LoadedModel.open(model_file)


@pytest.fixture(scope="session")
def float_model(float_checkpoint: Checkpoint) -> LoadedModel:
    """Another model of the same shape."""
    return LoadedModel.of(float_checkpoint)
