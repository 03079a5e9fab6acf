"""Every knob of a training run, with its default; a key that is not here is an error."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from antiphon.errors import ConfigError
from antiphon.training.augment import Augmentation
from antiphon.training.window_bars import WindowBars

HEAD_SIZE = 64
OPTIMIZERS = ("muon", "adamw")
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """A run of training. It ends with whichever of `steps`, `tokens`, `minutes` comes first (0 = free).

    layers, width: the model. context: tokens a sample holds, a multiple of 16. batch_tokens: tokens of one
    step, a multiple of context. lr falls from its peak to lr * lr_final_share along a cosine planned over
    the run's end. optimizer: muon or adamw, see `Optimizer`. bf16: matmuls in bfloat16. compile: let torch.compile
    fuse what it can (needs a C compiler). keep: step checkpoints kept beside the best. valid_pieces: pieces judged at
    each validation. transpose_low…cut_bars: see `Augmentation`. device: cpu, or cuda or cuda:N for a GPU.
    threads: 0 = all cores. init_from: a checkpoint, or a run's folder, whose weights to begin with instead of random
    ones. label_smoothing: the share of a target's weight that is spread over all ids.

    windows: learn from the completions of windows alone, instead of from whole pieces: context_bars_low to
    context_bars_high bars of context, then completion_bars_low to completion_bars_high bars that are learnt.
    """

    layers: int = 6
    width: int = 256
    context: int = 1024
    batch_tokens: int = 8192
    steps: int = 0
    tokens: int = 0
    minutes: float = 0.0
    optimizer: str = "muon"
    lr: float = 2e-3
    muon_lr_factor: float = 2.0
    lr_final_share: float = 0.05
    warmup_steps: int = 100
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-12
    clip: float = 1.0
    seed: int = 1
    bf16: bool = True
    compile: bool = False
    device: str = "cpu"
    threads: int = 0
    checkpoint_every: int = 250
    validate_every: int = 250
    valid_pieces: int = 48
    valid_tokens: int = 2048
    keep: int = 2
    augment: bool = True
    transpose_low: int = -5
    transpose_high: int = 6
    velocity_bins: int = 2
    cut_samples: float = 0.5
    cut_bars: float = 0.125
    init_from: str = ""
    label_smoothing: float = 0.0
    windows: bool = False
    context_bars_low: int = 1
    context_bars_high: int = 16
    completion_bars_low: int = 1
    completion_bars_high: int = 8

    def __post_init__(self) -> None:
        problems: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # A whole number serves where a fraction is meant; nothing else may stand in.
            if field.type == "float" and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value).__name__ != field.type:
                problems.append(f"{field.name} must be of type {field.type}, not {value!r}")
            elif field.type == "float" and not math.isfinite(value):
                problems.append(f"{field.name} must be finite")
        if problems:
            raise ConfigError("; ".join(problems))
        checks = {
            "layers and keep must be at least 1": min(self.layers, self.keep) >= 1,
            f"width must be a multiple of {HEAD_SIZE}": self.width >= HEAD_SIZE and self.width % HEAD_SIZE == 0,
            "seed, threads, warmup_steps, valid_pieces, steps, tokens and minutes must not be negative": min(
                self.seed, self.threads, self.warmup_steps, self.valid_pieces, self.steps, self.tokens, self.minutes
            )
            >= 0,
            "valid_tokens must be at least 1": self.valid_tokens >= 1,
            "context must be a multiple of 16, at least 64": self.context >= 64 and self.context % 16 == 0,
            "batch_tokens must be a multiple of context": self.batch_tokens >= 1
            and self.batch_tokens % self.context == 0,
            "one of steps, tokens and minutes must be above 0": max(self.steps, self.tokens, self.minutes) > 0,
            "lr, clip and epsilon must be above 0": min(self.lr, self.clip, self.epsilon) > 0,
            "lr_final_share, cut_samples, cut_bars, beta1 and beta2 lie between 0 and 1": all(
                0 <= share <= 1 for share in (self.lr_final_share, self.cut_samples, self.cut_bars)
            )
            and all(0 <= beta < 1 for beta in (self.beta1, self.beta2)),
            "device must be cpu, cuda or cuda:N": _DEVICE.fullmatch(self.device) is not None,
            f"optimizer must be one of {', '.join(OPTIMIZERS)}": self.optimizer in OPTIMIZERS,
            "muon_lr_factor must be above 0": self.muon_lr_factor > 0,
            "weight_decay must not be negative": self.weight_decay >= 0,
            "checkpoint_every and validate_every must be at least 1": min(self.checkpoint_every, self.validate_every)
            >= 1,
            "transpose_low <= 0 <= transpose_high": self.transpose_low <= 0 <= self.transpose_high,
            "velocity_bins must not be negative": self.velocity_bins >= 0,
            "label_smoothing must be 0 or more, and below 1": 0 <= self.label_smoothing < 1,
            "1 <= context_bars_low <= context_bars_high": 1 <= self.context_bars_low <= self.context_bars_high,
            "1 <= completion_bars_low <= completion_bars_high": 1
            <= self.completion_bars_low
            <= self.completion_bars_high,
        }
        problems = [text for text, good in checks.items() if not good]
        if problems:
            raise ConfigError("; ".join(problems))

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str = "") -> TrainingConfig:
        """A config from a table of keys; ConfigError names every unknown key."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ConfigError(f"unknown keys: {', '.join(map(str, unknown))}", where=where, fix=f"known are {known}")
        return cls(**values)

    def to_json(self) -> str:
        """All knobs, one a line."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @property
    def augmentation(self) -> Augmentation | None:
        """The variations to draw, or None for plain samples."""
        if not self.augment:
            return None
        return Augmentation(
            transpose_low=self.transpose_low,
            transpose_high=self.transpose_high,
            velocity_bins=self.velocity_bins,
            cut_samples=self.cut_samples,
            cut_bars=self.cut_bars,
        )

    @property
    def window_bars(self) -> WindowBars | None:
        """How many bars the windows have that are learnt from, or None for whole pieces."""
        if not self.windows:
            return None
        return WindowBars(
            context=(self.context_bars_low, self.context_bars_high),
            completion=(self.completion_bars_low, self.completion_bars_high),
        )
