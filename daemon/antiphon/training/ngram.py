"""A plain n-gram model of ids: what counting alone foretells, to set beside what a network does.

Interpolated after Witten and Bell (1991), in the form of Chen and Goodman (1999), section 2.5: in a context h that came
n(h) times with t(h) different ids after it,

    p(x | h) = (n(h, x) + t(h) · p(x | h')) / (n(h) + t(h))

where h' is h without its first id; the empty context falls back on 1/V, and a context never met leaves p as it is.

No table of all n-grams is built. The ids to be scored are known, so contexts are numbered among theirs, one id longer
each round, and the training ids that stand in none of them drop out. Memory is a few numbers for each training id.

Beside it stands a cache: the same formula, counted in nothing but the scored sequence itself, up to each id. It knows
no music, but it remembers what this piece has said already, as far back as it was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.training.ids import Ids

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_AT_ONCE = 1 << 20
"""Training ids whose contexts are looked up together; it bounds the memory that a lookup takes."""


@dataclass(slots=True)
class _Places:
    """Ids to be foretold, as indices into `ids`, and the number of the context that each stands in."""

    ids: Ids
    first: Ints  # index -> where its sequence begins
    at: Ints
    context: Ints

    @classmethod
    def of(cls, sequences: Sequence[Ids], last: Sequence[int] | None = None) -> _Places:
        """Every id but the first of each sequence, or its `last` ones, in the empty context, which is number 0."""
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        ends = np.cumsum(lengths)
        ids = np.concatenate(sequences).astype(np.int32) if len(sequences) else np.zeros(0, np.int32)
        first = np.repeat(ends - lengths, lengths)
        begin = first + 1 if last is None else np.repeat(ends - np.asarray(last, np.int64), lengths)
        at = np.flatnonzero(np.arange(len(ids)) >= begin)
        return cls(ids, first, at, np.zeros(len(at), np.int64))

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        return self.ids[self.at].astype(np.int64)

    def reaching(self, back: int) -> npt.NDArray[np.bool_]:
        """Which of the places have a `back`-th id before them in their sequence."""
        reach: npt.NDArray[np.bool_] = self.at - back >= self.first[self.at]
        return reach

    def kept(self, which: npt.NDArray[np.bool_]) -> None:
        self.at, self.context = self.at[which], self.context[which]

    def longer(self, back: int, size: int) -> Ints:
        """Each context with the `back`-th id before it put in front, as one number."""
        return self.context * size + self.ids[self.at - back]


def ngram_nats(
    train: Sequence[Ids], scored: Sequence[Ids], *, order: int, size: int, last: Sequence[int] | None = None
) -> list[Floats]:
    """−log p, in nats, of every id but the first of each of the `scored` sequences, one array a sequence.

    train: the sequences counted. order: how many ids an n-gram has, 1 or more. size: the vocabulary's; ids run from 0
    to size − 1. A context never reaches back beyond its sequence's first id. last: of each scored sequence only so
    many of its last ids are foretold, fewer than it has; the others are context.
    """
    if order < 1 or size < 1:
        raise ValueError("an n-gram has at least one id, and a vocabulary too")
    if last is not None and not all(0 <= few < len(ids) for few, ids in zip(last, scored, strict=True)):
        raise ValueError("the first id of a sequence cannot be foretold")
    if not scored:
        return []
    told = [max(0, len(sequence) - 1) for sequence in scored] if last is None else last
    counted, asked = _Places.of(train), _Places.of(scored, last)
    probability = np.full(len(asked.at), 1.0 / size)
    which = np.arange(len(asked.at))
    targets = asked.targets
    contexts = 1
    for back in range(order):
        if back:
            reach = asked.reaching(back)
            which, targets = which[reach], targets[reach]
            asked.kept(reach)
            known, asked.context = np.unique(asked.longer(back, size), return_inverse=True)
            counted.kept(counted.reaching(back))
            _number(counted, known, back, size)
            contexts = len(known)
        probability[which] = _interpolated(counted, asked.context, targets, probability[which], contexts, size)
    nats = -np.log(probability)
    return np.split(nats, np.cumsum(told)[:-1])


def cache_nats(ids: Ids, *, last: int, order: int, size: int) -> Floats:
    """−log p, in nats, of each of the `last` ids of one sequence under what was counted in the ids before it.

    The n-grams are of up to `order` ids, and the first id of the sequence is context only, as in `ngram_nats`.
    """
    if order < 1 or size < 1:
        raise ValueError("an n-gram has at least one id, and a vocabulary too")
    if not 0 <= last < len(ids):
        raise ValueError("the first id of a sequence cannot be foretold")
    nats = np.empty(last)
    # alike[j]: how many ids before place j + 1 equal those before the place in hand, counted up to order - 1.
    alike = np.zeros(0, np.int64)
    for at in range(1, len(ids)):
        longer = np.concatenate([np.zeros(1, np.int64), alike]) + 1
        alike = np.where(ids[: at - 1] == ids[at - 1], np.minimum(longer[: at - 1], order - 1), 0)
        if at >= len(ids) - last:
            nats[at - len(ids)] = -np.log(_from_alike(alike, ids[1:at], int(ids[at]), order, size))
    return nats


def mixed_nats(nats: Floats, other: Floats, *, weight: float) -> Floats:
    """−log of the two probabilities mixed, `other`'s with `weight` (0 to 1)."""
    mixed: Floats = -np.log((1 - weight) * np.exp(-nats) + weight * np.exp(-other))
    return mixed


def _from_alike(alike: Ints, after: Ids, target: int, order: int, size: int) -> float:
    """p(target), where `after` came in contexts that share `alike` ids with the one in hand."""
    seen = _at_least(np.bincount(alike, minlength=order))
    same = _at_least(np.bincount(alike[after == target], minlength=order))
    longest = np.zeros(size, np.int64)
    np.maximum.at(longest, after, alike + 1)
    different = _at_least(np.bincount(longest, minlength=order + 1))[1:]
    probability = 1.0 / size
    for count, n, t in zip(same.tolist(), seen.tolist(), different.tolist(), strict=True):
        if not n:
            break
        probability = (count + t * probability) / (n + t)
    return probability


def _at_least(counts: Ints) -> Ints:
    """From how many have each length, to how many have at least that."""
    return np.cumsum(counts[::-1])[::-1]


def _number(counted: _Places, known: Ints, back: int, size: int) -> None:
    """Give the counted places the numbers of their contexts among `known`, and drop the places that have none."""
    numbers = np.empty(len(counted.at), np.int64)
    keys = counted.longer(back, size)
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        found = np.minimum(np.searchsorted(known, part), max(0, len(known) - 1))
        numbers[start : start + _AT_ONCE] = np.where(known[found] == part, found, -1) if len(known) else -1
    counted.context = numbers
    counted.kept(numbers >= 0)


def _interpolated(counted: _Places, context: Ints, targets: Ints, shorter: Floats, contexts: int, size: int) -> Floats:
    """p(target | context) for each pair, from p(target | the context without its first id)."""
    pairs, times = np.unique(counted.context * size + counted.targets, return_counts=True)
    seen = np.bincount(counted.context, minlength=contexts)[context]
    different = np.bincount(pairs // size, minlength=contexts)[context]
    asked = context * size + targets
    found = np.minimum(np.searchsorted(pairs, asked), max(0, len(pairs) - 1))
    count = np.where(pairs[found] == asked, times[found], 0) if len(pairs) else np.zeros(len(asked), np.int64)
    return np.where(seen > 0, (count + different * shorter) / np.maximum(seen + different, 1), shorter)
