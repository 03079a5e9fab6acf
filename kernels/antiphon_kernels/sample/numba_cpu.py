"""Sampling in one compiled call: equal to `reference.py` to the id.

Nothing is sorted but the few ids among which a cut falls: a vocabulary may have 65,536.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon_kernels.float32 import exp
from antiphon_kernels.float64 import exp as exp64
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
MOST_BUCKETS = 4096
FAR = 64.0  # ids further below than that are all alike: together they are less likely than one in 10**22
NEAR = 1e-12  # where all are as near as that, one bucket will do


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
    allowed = np.empty(logits.size, np.int32)
    below = np.empty(logits.size, np.float64)
    count = 0
    best = -1
    for i in range(logits.size):
        if mask.size == 0 or mask[i]:
            if np.isnan(logits[i]) or logits[i] == np.inf:
                return NOT_FINITE
            if logits[i] > -np.inf and (best < 0 or logits[i] > logits[best]):
                best = i
            allowed[count] = i
            below[count] = logits[i]
            count += 1
    if best < 0:
        return NONE_ALLOWED
    if temperature == 0:
        return best
    top = np.float64(logits[best])
    below = below[:count]
    p = np.empty(count, np.float64)
    for n in range(count):
        below[n] = (top - below[n]) / temperature
    for n in range(count):
        p[n] = exp64(-below[n])
    if top_k > 0 or top_p < 1:
        _keep_likeliest(p, below, top_k, top_p, min_p)
    else:
        for n in range(count):
            if p[n] < min_p:
                p[n] = 0.0
    total = 0.0
    for n in range(count):
        total += p[n]
    return _draw(p, allowed, count, uniform * total)


@piece
def _keep_likeliest(p: Any, below: Any, top_k: int, top_p: float, min_p: float) -> None:
    """Set to zero what top-k, min-p and top-p cut, in this order; p = exp(-below).

    All are thrown into buckets by how far below the likeliest they are. The buckets before the one in which a cut falls
    are kept whole, those after it not at all, and only its own ids are put in order.
    """
    size = p.size
    buckets = min(max(size, 64), MOST_BUCKETS)
    span = 0.0
    for n in range(size):
        span = max(span, min(below[n], FAR))
    scale = buckets / span if span > NEAR else 0.0
    bucket = np.empty(size, np.int32)
    for n in range(size):
        bucket[n] = min(np.int32(min(below[n], FAR) * scale), buckets - 1)
    if 0 < top_k < size:
        counts = np.zeros(buckets, np.int64)
        for n in range(size):
            counts[bucket[n]] += 1
        here, room = 0, top_k
        while counts[here] <= room:
            room -= counts[here]
            here += 1
        order = _in_order(below, bucket, here)
        for rank in range(room, order.size):
            p[order[rank]] = 0.0
        for n in range(size):
            if bucket[n] > here:
                p[n] = 0.0
    for n in range(size):
        if p[n] < min_p:
            p[n] = 0.0
    if top_p >= 1:
        return
    sums = np.zeros(buckets, np.float64)
    total = 0.0
    for n in range(size):
        sums[bucket[n]] += p[n]
        total += p[n]
    here, before, most = 0, 0.0, top_p * total
    while here < buckets - 1 and before + sums[here] <= most:
        before += sums[here]
        here += 1
    order = _in_order(below, bucket, here)
    for rank in range(order.size):
        strength = p[order[rank]]
        if before > most:
            p[order[rank]] = 0.0
        before += strength
    for n in range(size):
        if bucket[n] > here:
            p[n] = 0.0


@piece
def _in_order(below: Any, bucket: Any, here: int) -> Any:
    """What is in bucket `here`, the likeliest first, lower ids first on a tie."""
    found = np.empty(below.size, np.int64)
    size = 0
    alike = True
    for n in range(below.size):
        if bucket[n] == here:
            found[size] = n
            size += 1
            alike = alike and below[n] == below[found[0]]
    found = found[:size]
    return found if alike else found[np.argsort(below[found], kind="mergesort")]


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
