"""The weights that a run begins with: drawn from its seed, or those that another run has learnt."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from antiphon.errors import FileError
from antiphon.model import checkpoint
from antiphon.model.init import initial_weights
from antiphon.model.quantize import dequantize
from antiphon.model.spec import ModelSpec
from antiphon.training import snapshots
from antiphon.training.config import TrainingConfig

_STORY = ("training", "corpus", "begun_from", "steps", "tokens")


def first_weights(
    config: TrainingConfig, *, vocab_size: int, tokenizer: str
) -> tuple[ModelSpec, dict[str, Tensor], dict[str, str]]:
    """The model's spec, its float32 weights, and metadata that say where they come from.

    With `init_from` they are those of a checkpoint, or of the best one of a run's folder, and the metadata hold its
    SHA-256 and what it says of its own training, as JSON. Raises FileError when it is of another size or tokenizer.
    """
    if not config.init_from:
        spec = ModelSpec.of_width(n_layer=config.layers, n_embd=config.width, vocab_size=vocab_size)
        return spec, initial_weights(spec, seed=config.seed), {}
    path = _model_file(Path(config.init_from))
    found = dequantize(checkpoint.read(path))
    spec, metadata = found.spec, found.metadata
    if (spec.n_layer, spec.n_embd, spec.vocab_size) != (config.layers, config.width, vocab_size):
        raise FileError(
            f"the checkpoint is of another model: {spec.n_layer} layers of {spec.n_embd}, {spec.vocab_size} ids",
            where=str(path),
            fix=f"the run's has {config.layers} layers of {config.width}, {vocab_size} ids: set layers and width",
        )
    if metadata.get("tokenizer", tokenizer) != tokenizer:
        raise FileError("the checkpoint was trained on another tokenizer's ids", where=str(path))
    story = {key: metadata[key] for key in _STORY if key in metadata}
    return spec, found.tensors, {"begun_from": json.dumps({"sha256": checkpoint.sha256(path)} | story)}


def _model_file(path: Path) -> Path:
    """The checkpoint at `path`: a file, or that in the folder of a step, or the best one of a run."""
    if not path.is_dir():
        return path
    inside = path / "model.safetensors"
    return inside if inside.is_file() else snapshots.best_folder(path) / "model.safetensors"
