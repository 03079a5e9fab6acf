"""Sampling on a GPU, a program for each row: equal to `reference.sample` to the id, but for rounding in float64.

Nothing is sorted. A cut keeps what is likelier than some logit, and of those that equal it the first few; that logit is
found by halving the range of float32's bits, which order as numbers do. Sums are float64, in an order of their own.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from antiphon_kernels.triton_jit import kernel, lanes, launch, piece

NONE_ALLOWED, NOT_FINITE = -1, -2
"""What stands for an id where there is none: nothing is allowed, or a logit is NaN or positive infinity."""

_BLOCK = 4096
"""Logits that a program looks at together."""
_NONE_ALLOWED = tl.constexpr(NONE_ALLOWED)
_NOT_FINITE = tl.constexpr(NOT_FINITE)
_LEAST = tl.constexpr(-(2**31))
_MOST = tl.constexpr(2**31)


@piece
def _keys(values: tl.tensor) -> tl.tensor:
    """Whole numbers that order as the logits do; both zeros are one."""
    bits = (values + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)


@piece
def _above(
    values: tl.tensor, chances: tl.tensor, key: tl.tensor, V: tl.constexpr, BLOCK: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """How many logits lie above `key`, and how likely they are together."""
    count = tl.zeros((), tl.int32)
    chance = tl.zeros((), tl.float64)
    for start in range(0, V, BLOCK):
        c = start + tl.arange(0, BLOCK)
        mask = c < V
        here = (_keys(tl.load(values + c, mask=mask, other=float("-inf"))) > key) & mask
        count += tl.sum(here.to(tl.int32), axis=0)
        chance += tl.sum(tl.where(here, tl.load(chances + c, mask=mask, other=0.0), 0.0), axis=0)
    return count, chance


@kernel
def _sample(
    logits: tl.tensor, room: tl.tensor, settings: tl.tensor, chosen: tl.tensor, V: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(settings + row * 6)
    top_k = tl.load(settings + row * 6 + 1).to(tl.int32)
    top_p = tl.load(settings + row * 6 + 2)
    min_p = tl.load(settings + row * 6 + 3)
    uniform = tl.load(settings + row * 6 + 4)
    values = logits + tl.load(settings + row * 6 + 5).to(tl.int64) * V
    chances = room + row * V

    top = tl.full((), float("-inf"), tl.float32)
    best = tl.full((), V, tl.int32)
    broken = tl.zeros((), tl.int32)
    for start in range(0, V, BLOCK):
        c = start + tl.arange(0, BLOCK)
        x = tl.load(values + c, mask=c < V, other=float("-inf"))
        broken += tl.sum(((x != x) | (x == float("inf"))).to(tl.int32), axis=0)
        most = tl.max(x, axis=0)
        first = tl.min(tl.where(x == most, c, V), axis=0)
        best = tl.where(most > top, first, best)
        top = tl.maximum(top, most)

    if broken > 0:
        tl.store(chosen + row, _NOT_FINITE)
    elif top == float("-inf"):
        tl.store(chosen + row, _NONE_ALLOWED)
    elif temperature == 0:
        tl.store(chosen + row, best)
    else:
        for start in range(0, V, BLOCK):
            c = start + tl.arange(0, BLOCK)
            x = tl.load(values + c, mask=c < V, other=float("-inf"))
            tl.store(chances + c, tl.exp((x.to(tl.float64) - top.to(tl.float64)) / temperature), mask=c < V)
        tl.debug_barrier()

        # The k likeliest: all above `cut`, and the first `ties` of those that equal it.
        cut = tl.full((), _LEAST, tl.int64)
        ties = tl.full((), V, tl.int32)
        if (top_k > 0) & (top_k < V):
            high = tl.full((), _MOST, tl.int64)
            cut -= 1
            while high - cut > 1:  # at least k lie above `cut`, fewer above `high`
                middle = (cut + high) // 2
                count, _ = _above(values, chances, middle, V, BLOCK)
                enough = count >= top_k
                cut = tl.where(enough, middle, cut)
                high = tl.where(enough, high, middle)
            cut = high
            count, _ = _above(values, chances, cut, V, BLOCK)
            ties = top_k - count

        # What these and min-p leave gets its chance, all else none; `total` is what is left.
        total = tl.zeros((), tl.float64)
        met = tl.zeros((), tl.int32)
        for start in range(0, V, BLOCK):
            c = start + tl.arange(0, BLOCK)
            mask = c < V
            keys = _keys(tl.load(values + c, mask=mask, other=float("-inf")))
            p = tl.load(chances + c, mask=mask, other=0.0)
            equal = ((keys == cut) & mask).to(tl.int32)
            place = met + tl.cumsum(equal, axis=0) - equal
            met += tl.sum(equal, axis=0)
            stays = (keys > cut) | ((keys == cut) & (place < ties))
            p = tl.where(stays & (p >= min_p), p, 0.0)
            total += tl.sum(p, axis=0)
            tl.store(chances + c, p, mask=mask)
        tl.debug_barrier()

        # Of those, from the likeliest on while those before sum to at most top_p of the total.
        if top_p < 1:
            low = tl.full((), _LEAST, tl.int64) - 1
            high = tl.full((), _MOST, tl.int64)
            while high - low > 1:  # more than that lies above `low`, not above `high`
                middle = (low + high) // 2
                _, chance = _above(values, chances, middle, V, BLOCK)
                more = chance > top_p * total
                low = tl.where(more, middle, low)
                high = tl.where(more, high, middle)
            _, before = _above(values, chances, high, V, BLOCK)
            limit = top_p * total
            total = tl.zeros((), tl.float64)
            met = tl.zeros((), tl.int32)
            for start in range(0, V, BLOCK):
                c = start + tl.arange(0, BLOCK)
                mask = c < V
                keys = _keys(tl.load(values + c, mask=mask, other=float("-inf")))
                p = tl.load(chances + c, mask=mask, other=0.0)
                equal = ((keys == high) & (p > 0) & mask).to(tl.int32)
                place = met + tl.cumsum(equal, axis=0) - equal
                met += tl.sum(equal, axis=0)
                stays = (keys > high) | ((equal > 0) & (before + place.to(tl.float64) * p <= limit))
                p = tl.where(stays, p, 0.0)
                total += tl.sum(p, axis=0)
                tl.store(chances + c, p, mask=mask)
            tl.debug_barrier()

        # The draw walks what is left in ascending order.
        target = uniform * total
        passed = tl.zeros((), tl.float64)
        drawn = tl.full((), V, tl.int32)
        last = tl.zeros((), tl.int32)
        for start in range(0, V, BLOCK):
            c = start + tl.arange(0, BLOCK)
            p = tl.load(chances + c, mask=c < V, other=0.0)
            summed = passed + tl.cumsum(p, axis=0)
            first = tl.min(tl.where((summed > target) & (p > 0), c, V), axis=0)
            drawn = tl.minimum(drawn, first)
            last = tl.maximum(last, tl.max(tl.where(p > 0, c, 0), axis=0))
            passed += tl.sum(p, axis=0)
        tl.store(chosen + row, tl.minimum(drawn, last))  # rounding may leave the target a hair above the sum


def sample(logits: Tensor, settings: Tensor) -> Tensor:
    """int32 [draws]: the id of each draw, or `NONE_ALLOWED`, or `NOT_FINITE`.

    logits: float32 [rows, V], offsets and shifts added, what the mask forbids at -∞. settings: float64 [draws, 6] on
    the same device: of each draw temperature, top_k, top_p, min_p and the uniform number, as `reference.sample` has
    them, and the row of `logits` that it draws from.
    """
    rows, vocab = settings.shape[0], logits.shape[1]
    chosen = torch.empty(rows, dtype=torch.int32, device=logits.device)
    room = torch.empty(rows, vocab, dtype=torch.float64, device=logits.device)
    block = min(_BLOCK, lanes(vocab))
    launch(
        _sample, (rows,), logits, logits, room, settings, chosen, V=vocab, BLOCK=block, num_warps=max(1, block // 256)
    )
    return chosen


def refuse(chosen: int) -> None:
    """Raise what `reference.sample` raises where no id was drawn."""
    if chosen == NONE_ALLOWED:
        raise ValueError("the mask allows no id")
    if chosen == NOT_FINITE:
        raise ValueError("a logit is not finite")
