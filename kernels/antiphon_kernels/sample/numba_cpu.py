"""Sampling in one compiled call: equal to `reference.py` to the id.

Only what may stay is sorted: of a vocabulary of 65,536, top-p usually leaves some ten ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.float32 import exp
from antiphon_kernels.jit import kernel, piece
from antiphon_kernels.sample import reference

Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32]

NONE_ALLOWED, NOT_FINITE = -1, -2
FAINT = reference.FAINT
_EVERY = np.zeros(0, np.bool_)
_NO_FLOATS = np.zeros(0, np.float32)
_NO_IDS = np.zeros(0, np.int32)
_LIKELY = 2.0**-6  # of the likeliest: those are sorted first, and usually no more


def sample(
    logits: Logits,
    mask: Mask | None,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    uniform: float,
    offsets: Logits | None = None,
    seen: Ids | None = None,
    shifts: Logits | None = None,
) -> int:
    """The id that `reference.sample` draws; raises the same errors."""
    chosen = int(
        _sample(
            _plain(logits, _NO_FLOATS), _plain(mask, _EVERY), _plain(offsets, _NO_FLOATS), _plain(seen, _NO_IDS),
            _plain(shifts, _NO_FLOATS), float(temperature), int(top_k), float(top_p), float(min_p), float(uniform),
        )
    )  # fmt: skip
    if chosen == NONE_ALLOWED:
        raise ValueError("the mask allows no id")
    if chosen == NOT_FINITE:
        raise ValueError("a logit is not finite")
    return chosen


def tally(counts: Logits, token: int, *, weight: float, decay: float) -> None:
    """As `reference.tally`, to the bit; `counts` is C-contiguous."""
    _tally(counts, int(token), np.float32(weight), np.float32(decay))


def shifts_of(counts: Logits, biases: Logits, *, presence: float, frequency: float) -> tuple[Ids, Logits]:
    """As `reference.shifts_of`, to the bit; both arrays are C-contiguous."""
    seen, shifts = np.empty(counts.size, np.int32), np.empty(counts.size, np.float32)
    count = int(_shifts_of(counts, biases, np.float32(presence), np.float32(frequency), seen, shifts))
    return seen[:count], shifts[:count]


def nats(logits: Logits, chosen: int) -> float:
    """-log p(chosen) under `logits` [V], unmasked, at temperature 1; within 1e-5 of `reference.nats`."""
    return float(_nats(logits, chosen))


def warm(logits: Logits) -> None:
    """Compile everything here, or load it from disk; `logits` [V] are any."""
    counts = np.ones(logits.size, np.float32)
    sample(logits, None, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.5)
    tally(counts, 0, weight=1.0, decay=1.0)
    shifts_of(counts, counts, presence=0.0, frequency=0.0)
    nats(logits, 0)


def _plain(array: Any, nothing: Any) -> Any:
    """`array` as the kernel was compiled for it: another kind of array would be another compilation."""
    if array is None:
        return nothing
    return array if array.flags.c_contiguous and array.flags.writeable else array.copy()


@kernel
def _sample(
    logits: Any, mask: Any, offsets: Any, seen: Any, shifts: Any,
    temperature: float, top_k: int, top_p: float, min_p: float, uniform: float,
) -> Any:  # fmt: skip
    if offsets.size or seen.size:
        shifted = logits.copy()
        for i in range(offsets.size):
            shifted[i] += offsets[i]
        for n in range(seen.size):
            shifted[seen[n]] += shifts[n]
        logits = shifted
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
    most = count if top_k <= 0 or top_k > count else top_k
    whole = 0.0  # what min-p leaves, when top-k cuts nothing
    for n in range(count):
        if p[n] >= min_p:
            whole += p[n]
    least = _LIKELY
    while True:
        least = max(least, min_p)
        order = _likely(p, logits, allowed, count, least)
        ranks = min(most, order.size)
        complete = ranks == most or least <= min_p or least == 0.0
        while ranks > 0 and p[order[ranks - 1]] < min_p:
            ranks -= 1
        total = whole
        if most < count:
            total = 0.0
            for rank in range(ranks):
                total += p[order[rank]]
        kept = 0
        before = 0.0
        while kept < ranks and before <= top_p * total:
            before += p[order[kept]]
            kept += 1
        # With all of top-k at hand nothing can be lacking; nor when the last one looked at has been cut.
        if complete or (most == count and kept < ranks):
            break
        least = least * least if least > 1e-60 else 0.0
    strengths = np.empty(kept, np.float64)
    for rank in range(kept):
        strengths[rank] = p[order[rank]]
    for n in range(count):
        p[n] = 0.0
    for rank in range(kept):
        p[order[rank]] = strengths[rank]


@piece
def _likely(p: Any, logits: Any, allowed: Any, count: int, least: float) -> Any:
    """Where p is at least `least`, the likeliest first, lower ids first on a tie."""
    found = np.empty(count, np.int64)
    size = 0
    for n in range(count):
        if p[n] >= least:
            found[size] = n
            size += 1
    keys = np.empty(size, np.float64)
    for n in range(size):
        keys[n] = -np.float64(logits[allowed[found[n]]])
    return found[:size][np.argsort(keys, kind="mergesort")]


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
def _tally(counts: Any, token: int, weight: Any, decay: Any) -> None:
    for i in range(counts.size):
        faded = counts[i] * decay
        counts[i] = np.float32(0) if faded < FAINT else faded
    counts[token] += weight


@kernel
def _shifts_of(counts: Any, biases: Any, presence: Any, frequency: Any, seen: Any, shifts: Any) -> Any:
    count = 0
    for i in range(counts.size):
        shift = biases[i]
        if counts[i] > 0:
            penalty = frequency * counts[i]
            shift = biases[i] - (presence + penalty)
        if shift != 0:
            seen[count] = i
            shifts[count] = shift
            count += 1
    return count


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
