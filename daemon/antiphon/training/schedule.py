"""How far a run is, and what learning rate that means."""

from __future__ import annotations

import math

from antiphon.training.config import TrainingConfig


def progress(config: TrainingConfig, *, step: int, tokens: int, elapsed_s: float) -> float:
    """0 at the start, 1 or more when any of the run's limits is reached."""
    shares = [0.0]
    if config.steps:
        shares.append(step / config.steps)
    if config.tokens:
        shares.append(tokens / config.tokens)
    if config.minutes:
        shares.append(elapsed_s / (60.0 * config.minutes))
    return max(shares)


def learning_rate(config: TrainingConfig, *, step: int, progress: float) -> float:
    """A straight warm-up over the first steps under a cosine from lr to lr * lr_final_share."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    share = config.lr_final_share + (1.0 - config.lr_final_share) * cosine
    return config.lr * share * min(1.0, (step + 1) / max(1, config.warmup_steps))
