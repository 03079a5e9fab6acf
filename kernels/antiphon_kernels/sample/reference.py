"""The definition of sampling, in plain NumPy.

Shifts -> mask -> temperature -> top-k -> softmax -> min-p -> top-p -> draw. What shifts an id's logit is its bias less
its penalty: `shifts_of` gives that from how often each id has occurred, and `tally` counts. `uniform` is where chance
comes from: a number that depends on nothing but a seed and how many were drawn before, so that a sampler is restored
from two integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32]

FAINT = np.float32(np.finfo(np.float32).tiny)
"""A count below the smallest normal float32 is none: an id that occurred so long ago has not occurred."""


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
    """The id drawn by `uniform` in [0, 1) among the ids that `mask` allows and the cuts leave.

    `logits` [V]; `offsets` [V] or None is added to them, then `shifts` [K] to those of the ids `seen` [K], each at
    most once (both None = none), in float32. `mask` [V], true = allowed, None = all. Temperature 0 is the likeliest
    id, the lowest on a tie. top_k 0 is no cut; the k likeliest stay, lower ids first on a tie. min_p cuts what is less
    likely than min_p times the likeliest. top_p keeps ids from the likeliest on while those before them sum to at most
    top_p of what is left, so the first above the threshold stays and so does at least one. The draw walks the ids that
    stay in ascending order. Raises ValueError when nothing is allowed, or an allowed logit is NaN or positive infinity.
    """
    if offsets is not None:
        logits = logits + offsets
    if seen is not None and shifts is not None:
        logits = logits.copy()
        logits[seen] += shifts
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


def tally(counts: Logits, token: int, *, weight: float, decay: float) -> None:
    """Count `token`: all `counts` [V] fade by `decay`, then its own grows by `weight`. In place, in float32.

    The order is that of ChatRWKV and RWKV-Runner: an id counts in full until the next one comes.
    """
    counts *= np.float32(decay)
    counts[counts < FAINT] = 0
    counts[token] += np.float32(weight)


def shifts_of(counts: Logits, biases: Logits, *, presence: float, frequency: float) -> tuple[Ids, Logits]:
    """(ids in ascending order, what to add to their logits): bias - (presence + frequency * count), in float32.

    `counts` and `biases` [V]. An id that has not occurred (count 0) has no penalty; ids without a shift are left out.
    """
    penalties = np.float32(presence) + np.float32(frequency) * counts
    shifts = np.where(counts > 0, biases - penalties, biases)
    seen = np.flatnonzero(shifts).astype(np.int32)
    return seen, shifts[seen]


def uniform(seed: int, number: int) -> float:
    """The `number`-th number of `seed` (both 0 .. 2**64 - 1): uniform in [0, 1) in steps of 2**-53.

    Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011), key = the seed,
    counter = (number, 0); the number is made of the upper 27 and 26 bits of the first two words of the block.
    """
    first, second, _, _ = philox((number & 0xFFFFFFFF, number >> 32, 0, 0), (seed & 0xFFFFFFFF, seed >> 32))
    return ((first >> 5) * 67108864.0 + (second >> 6)) / 9007199254740992.0


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of Philox4x32-10: four 32-bit words."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        x, y = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (y >> 32) ^ b ^ k, y & 0xFFFFFFFF, (x >> 32) ^ d ^ m, x & 0xFFFFFFFF
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def nats(logits: Logits, chosen: int) -> float:
    """-log p(chosen) under `logits` [V], unmasked, at temperature 1."""
    wide: Any = logits.astype(np.float64)
    top = wide.max()
    return float(np.log(np.exp(wide - top).sum()) - (wide[chosen] - top))
