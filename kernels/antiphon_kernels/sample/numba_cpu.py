"""Sampling in one compiled call: equal to `reference.py` to the id."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.float32 import exp
from antiphon_kernels.jit import kernel, piece

Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

NONE_ALLOWED, NOT_FINITE = -1, -2
_EVERY = np.zeros(0, np.bool_)


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
    """The id that `reference.sample` draws; raises the same errors."""
    if mask is None:
        mask = _EVERY
    elif not (mask.flags.c_contiguous and mask.flags.writeable):
        mask = mask.copy()  # another kind of array, another number type, would each be another compilation
    chosen = int(_sample(logits, mask, float(temperature), int(top_k), float(top_p), float(min_p), float(uniform)))
    if chosen == NONE_ALLOWED:
        raise ValueError("the mask allows no id")
    if chosen == NOT_FINITE:
        raise ValueError("a logit is not finite")
    return chosen


def nats(logits: Logits, chosen: int) -> float:
    """-log p(chosen) under `logits` [V], unmasked, at temperature 1; within 1e-5 of `reference.nats`."""
    return float(_nats(logits, chosen))


@kernel
def _sample(logits: Any, mask: Any, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float) -> Any:
    allowed = np.empty(logits.size, np.int64)
    count = 0
    best = -1
    for i in range(logits.size):
        if mask.size == 0 or mask[i]:
            if np.isnan(logits[i]) or logits[i] == np.inf:
                return NOT_FINITE
            if logits[i] > -np.inf and (best < 0 or logits[i] > logits[best]):
                best = i
            allowed[count] = i
            count += 1
    if best < 0:
        return NONE_ALLOWED
    if temperature == 0:
        return best
    top = np.float64(logits[best])
    p = np.empty(count, np.float64)
    for n in range(count):
        p[n] = np.exp((np.float64(logits[allowed[n]]) - top) / temperature)
    if top_k > 0 or top_p < 1:
        _keep_likeliest(p, logits, allowed, count, top_k, top_p, min_p)
    else:
        for n in range(count):
            if p[n] < min_p:
                p[n] = 0.0
    total = 0.0
    for n in range(count):
        total += p[n]
    return _draw(p, allowed, count, uniform * total)


@piece
def _keep_likeliest(p: Any, logits: Any, allowed: Any, count: int, top_k: int, top_p: float, min_p: float) -> None:
    """Set to zero what top-k, min-p and top-p cut, in this order."""
    keys = np.empty(count, np.float64)
    for n in range(count):
        keys[n] = -np.float64(logits[allowed[n]])
    order = np.argsort(keys, kind="mergesort")
    kept = count if top_k <= 0 or top_k > count else top_k
    total = 0.0
    for rank in range(kept):
        if p[order[rank]] < min_p:
            kept = rank
            break
        total += p[order[rank]]
    before = 0.0
    for rank in range(count):
        here = p[order[rank]]
        if rank >= kept or before > top_p * total:
            p[order[rank]] = 0.0
        before += here


@piece
def _draw(p: Any, allowed: Any, count: int, target: float) -> Any:
    passed = 0.0
    last = allowed[0]
    for n in range(count):
        if p[n] > 0.0:
            passed += p[n]
            last = allowed[n]
            if passed > target:
                return last
    return last  # rounding may leave the target a hair above the sum


@kernel
def _nats(logits: Any, chosen: int) -> Any:
    return cost(logits, chosen)


@piece
def cost(logits: Any, chosen: int) -> Any:
    """-log p(chosen) as float64, for use inside kernels."""
    top = logits[0]
    for i in range(logits.size):
        if not logits[i] <= top:  # a NaN comes out on top
            top = logits[i]
    total = np.float64(0)
    for i in range(logits.size):
        total += np.float64(exp(logits[i] - top))
    return np.log(total) - np.float64(logits[chosen] - top)
