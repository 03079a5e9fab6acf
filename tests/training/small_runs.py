"""Runs of a few steps, and what they leave on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from training.small_corpus import RANGES, VOCABULARY, random_corpus

from antiphon.model import checkpoint
from antiphon.training import snapshots
from antiphon.training.config import TrainingConfig
from antiphon.training.corpus import Corpus
from antiphon.training.trainer import Trainer

TINY = TrainingConfig(
    layers=2, width=64, context=64, batch_tokens=128, steps=20, warmup_steps=4, threads=1,
    checkpoint_every=1000, validate_every=1000, valid_pieces=2, valid_tokens=64,
)  # fmt: skip


def trainer(
    out: Path, config: TrainingConfig = TINY, *, corpus: Corpus | None = None, valid: Corpus | None = None,
    resume: bool = False,
) -> Trainer:  # fmt: skip
    return Trainer(
        config,
        corpus=corpus or random_corpus(),
        valid=valid,
        ranges=RANGES,
        tokenizer=VOCABULARY.grid.to_json(),
        out=out,
        resume=resume,
    )


def after(steps: int) -> Callable[[], bool]:
    """Says "stop" when it is asked the next time after so many steps."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def weights(out: Path) -> dict[str, Tensor]:
    return checkpoint.read(snapshots.newest_folder(out) / "model.safetensors").tensors


def optimizer(out: Path) -> str:
    return repr(torch.load(snapshots.newest_folder(out) / "training.pt", weights_only=True)["optimizer"])


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
