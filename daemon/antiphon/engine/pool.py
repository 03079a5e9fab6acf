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


class Trail:
    """The ids that a timeline has been fed from its beginning on, and the key of the last place among them.

    root: what the timeline was before the first one, if not new. A key is a hash over all ids before its place, so that
    no text can be made to find another's state.
    """

    __slots__ = ("_since", "count", "key")

    def __init__(self, root: bytes = b"") -> None:
        self.key: Key = hashlib.blake2b(root, digest_size=32).digest()
        self.count = 0
        """Ids fed; at a multiple of `STRIDE` the key is that of this very place."""
        self._since = np.zeros(0, "<i4")

    def add(self, ids: Sequence[int]) -> list[Key]:
        """`ids` were fed; gives the keys of the places among them, in order."""
        self.count += len(ids)
        self._since = np.concatenate([self._since, np.asarray(ids, "<i4")])
        keys = []
        while self._since.size >= STRIDE:
            self.key = hashlib.blake2b(self.key + self._since[:STRIDE].tobytes(), digest_size=32).digest()
            self._since = self._since[STRIDE:]
            keys.append(self.key)
        return keys


def keys_of(ids: Sequence[int], *, root: bytes = b"") -> list[Key]:
    """The keys of the beginnings of `ids` that are 64, 128, … ids long; root as for `Trail`."""
    return Trail(root).add(ids)


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

    def drop(self, key: Key) -> None:
        """Let go of a state, if it is kept."""
        self._marks.pop(key, None)

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
