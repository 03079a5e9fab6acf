"""States of beginnings that texts have in common, kept within a budget of bytes: the least recently used goes first.

A state is kept under the ids that led to it, at absolute multiples of 64 ids, so a text that begins as another did
need not be read from the start. A pool belongs to one model; keeping and finding is a copy each.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from antiphon.engine.loaded import LoadedModel
from antiphon.engine.timeline import Mark, Timeline

STRIDE = 64

Key = bytes


def keys_of(ids: Sequence[int], *, root: bytes = b"") -> list[Key]:
    """The keys of the beginnings of `ids` that are 64, 128, … ids long. root: what the timeline was before them.

    Each is a hash over all ids before its place, so that no text can be made to find another's state by chance.
    """
    numbers = np.asarray(ids, "<i4")
    keys, key = [], hashlib.blake2b(root, digest_size=32).digest()
    for end in range(STRIDE, numbers.size + 1, STRIDE):
        key = hashlib.blake2b(key + numbers[end - STRIDE : end].tobytes(), digest_size=32).digest()
        keys.append(key)
    return keys


class Pool:
    """States of `model` in at most `budget_bytes`; one that alone is larger is not kept."""

    def __init__(self, model: LoadedModel, *, budget_bytes: int) -> None:
        self._model = model
        self._most = budget_bytes // (model.state_bytes + 4 * model.vocab_size)
        self._marks: OrderedDict[Key, Mark] = OrderedDict()

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, key: Key) -> bool:
        return key in self._marks

    @property
    def nbytes(self) -> int:
        """Bytes held now, states and logits."""
        return len(self._marks) * (self._model.state_bytes + 4 * self._model.vocab_size)

    def keep(self, key: Key, timeline: Timeline) -> None:
        """Keep a copy of what `timeline` is now, and drop what has not been used for longest where it does not fit."""
        if key not in self._marks and self._most:
            while len(self._marks) >= self._most:
                self._marks.popitem(last=False)
            self._marks[key] = timeline.mark()
        if key in self._marks:
            self._marks.move_to_end(key)

    def longest(self, keys: Sequence[Key]) -> Mark | None:
        """The state of the longest of the beginnings `keys` (shortest first) that is kept; to be rewound to."""
        for key in reversed(keys):
            if key in self._marks:
                self._marks.move_to_end(key)
                return self._marks[key]
        return None

    def clear(self) -> None:
        """Drop everything."""
        self._marks.clear()
