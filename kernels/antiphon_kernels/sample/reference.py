"""The definition of sampling, in plain NumPy: temperature -> top-k -> softmax -> min-p -> top-p -> draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def sample(
    logits: Logits,
    mask: Mask | None,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    uniform: float,
) -> int:
    """The id drawn by `uniform` in [0, 1) among the ids that `mask` allows and the cuts leave.

    `logits` [V]; `mask` [V], true = allowed, None = all. Temperature 0 is the likeliest id, the lowest on a tie.
    top_k 0 is no cut; the k likeliest stay, lower ids first on a tie. min_p cuts what is less likely than min_p times
    the likeliest. top_p keeps ids from the likeliest on while those before them sum to at most top_p of what is left,
    so the first above the threshold stays and so does at least one. The draw walks the ids that stay in ascending
    order. Raises ValueError when nothing is allowed, or an allowed logit is NaN or positive infinity.
    """
    allowed = np.flatnonzero(mask) if mask is not None else np.arange(logits.size)
    values = logits[allowed].astype(np.float64)
    if not allowed.size or np.isneginf(values).all():
        raise ValueError("the mask allows no id")
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("a logit is not finite")
    if temperature == 0:
        return int(allowed[values.argmax()])
    order = np.argsort(-values, kind="stable")
    if top_k:
        order = order[:top_k]
    p = np.exp((values[order] - values.max()) / temperature)
    order, p = order[p >= min_p], p[p >= min_p]
    before = np.concatenate([[0.0], np.cumsum(p)[:-1]])
    stays = before <= top_p * p.sum()
    kept = np.zeros(allowed.size)
    kept[order[stays]] = p[stays]
    summed = np.cumsum(kept)
    drawn = np.searchsorted(summed, uniform * summed[-1], side="right")
    return int(allowed[min(drawn, np.flatnonzero(kept)[-1])])  # the product may round up to the whole sum


def nats(logits: Logits, chosen: int) -> float:
    """-log p(chosen) under `logits` [V], unmasked, at temperature 1."""
    wide: Any = logits.astype(np.float64)
    top = wide.max()
    return float(np.log(np.exp(wide - top).sum()) - (wide[chosen] - top))
