"""Sliding windows over a piece: N bars of context, and the M bars that complete it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from antiphon.errors import AntiphonError
from antiphon.tokens.piano import PianoTokenizer

Pair = tuple[list[int], list[int]]
"""A context and its completion."""


def sliding_window(
    token_ids: Sequence[int],
    bar_indices: Sequence[int],
    context_bars: int = 4,
    completion_bars: int = 2,
    step: int = 1,
) -> list[Pair]:
    """Every window of N = `context_bars` and M = `completion_bars` bars, `step` bars apart, as pairs of ids.

    bar_indices: where the bars begin in `token_ids`, rising. A completion runs to the next bar, the last one to the
    end of `token_ids`. Ten bars give five pairs of 4 + 2; fewer than N + M bars give none. Raises AntiphonError.
    """
    return [
        (list(token_ids[start:middle]), list(token_ids[middle:end]))
        for start, middle, end in _windows(token_ids, bar_indices, context_bars, completion_bars, step)
    ]


def create_context_completion_pairs(
    token_ids: Sequence[int],
    tokenizer: PianoTokenizer,
    context_bars: int = 4,
    completion_bars: int = 2,
    step: int = 1,
) -> list[Pair]:
    """As `sliding_window` over the bars of `token_ids`; a context that does not begin the piece is told its tempo.

    It gets the last tempo and time signature before it: before the first bar in the pianomuse vocabulary, and in ours,
    whose bars all carry their time signature, the tempo at the first bar's start, as if the piece began there.
    """
    bars = tokenizer.find_bar_indices(token_ids)
    pairs: list[Pair] = []
    for start, middle, end in _windows(token_ids, bars, context_bars, completion_bars, step):
        context = list(token_ids[start:middle])
        if start != bars[0]:
            context = tokenizer.with_metadata(context, tokenizer.extract_metadata_tokens(token_ids, start))
        pairs.append((context, list(token_ids[middle:end])))
    return pairs


def _windows(
    token_ids: Sequence[int], bars: Sequence[int], context_bars: int, completion_bars: int, step: int
) -> list[tuple[int, int, int]]:
    """Where each window begins, where its completion begins, and where that ends."""
    if min(context_bars, completion_bars, step) < 1:
        raise AntiphonError("a window has at least one bar of context and one of completion, and moves by at least one")
    lines = [*bars, len(token_ids)]
    if lines[0] < 0 or any(later <= earlier for earlier, later in pairwise(lines)):
        raise AntiphonError("bar indices rise, and lie within the ids")
    last = len(bars) - context_bars - completion_bars
    return [
        (lines[bar], lines[bar + context_bars], lines[bar + context_bars + completion_bars])
        for bar in range(0, last + 1, step)
    ]
