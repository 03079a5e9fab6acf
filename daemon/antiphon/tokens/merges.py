"""Byte-pair merges of REMI ids: often-seen neighbours become one id, so that a bar is fewer steps of the model.

The ids of the vocabulary keep their meaning; merged ids follow them. A merge stays within a *group*: a bar and its
meter, a position and its tempo, or a position and the notes struck there. So no merged id reaches over an onset or a
bar line, and the encoding of a group depends on nothing around it: music can be encoded as it is played.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from antiphon.errors import AntiphonError, FileError
from antiphon.music.midi_file import write_whole
from antiphon.tokens.vocabulary import BAR, BOS, EOS, PAD, Grid, Vocabulary

LONGEST_MERGE = 32
"""How many base ids a merged id may stand for. It bounds what a file of merges can blow up to."""

MOST_IDS = 1 << 16
"""How many ids there may be, merged ones included."""

_LONGEST_GROUP = 512
"""A group longer than this is cut: 88 notes at once are 265 ids, and merging takes time with the square of them."""

_LONGEST_KEPT = 64
_MOST_KEPT = 1 << 17
"""Groups whose encoding is remembered: how long one may be, and how many (some 50 MB)."""

_LARGEST_FILE = 4 << 20
_KIND = "remi-merges"
_FIX = "name a file that write_merges wrote for this vocabulary"


@dataclass(frozen=True, slots=True)
class Merges:
    """Pairs of ids in the order in which they were learnt; an earlier one is merged first.

    pairs: two ids each, of the vocabulary or merged by an earlier pair. A pair that spells what an earlier one spells
    shares its id. Raises AntiphonError for pairs that name unknown ids, repeat themselves, reach over a group's
    border or stand for more than LONGEST_MERGE ids.
    """

    vocabulary: Vocabulary
    pairs: tuple[tuple[int, int], ...]
    spelt: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """What each id stands for, in ids of the vocabulary."""
    _ranks: dict[tuple[int, int], tuple[int, int]] = field(init=False, repr=False, compare=False)
    _kept: dict[tuple[int, ...], tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spelt: list[tuple[int, ...]] = [(token,) for token in range(self.vocabulary.size)]
        ids = {spelling: token for token, spelling in enumerate(spelt)}
        ranks: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, pair in enumerate(self.pairs):
            spelling = _joined(pair, spelt, self.vocabulary, rank)
            if pair in ranks:
                raise AntiphonError(f"merge {rank} repeats an earlier one")
            if spelling not in ids:
                ids[spelling] = len(spelt)
                spelt.append(spelling)
            ranks[pair] = rank, ids[spelling]
        if len(spelt) > MOST_IDS:
            raise AntiphonError(f"{len(spelt)} ids are more than {MOST_IDS}")
        object.__setattr__(self, "spelt", tuple(spelt))
        object.__setattr__(self, "_ranks", ranks)
        object.__setattr__(self, "_kept", {})

    @property
    def size(self) -> int:
        """How many ids there are: the vocabulary's and the merged ones."""
        return len(self.spelt)

    def encode(self, ids: Iterable[int]) -> list[int]:
        """`ids` of the vocabulary as merged ids: `decode` gives exactly these back. Raises AntiphonError."""
        merged: list[int] = []
        for group in groups(ids, self.vocabulary):
            known = self._kept.get(group)
            merged += self._encoded(group) if known is None else known
        return merged

    def decode(self, ids: Iterable[int]) -> list[int]:
        """The vocabulary's ids that merged `ids` stand for. Raises AntiphonError for one outside 0..size - 1."""
        spelt, plain = self.spelt, list[int]()
        for index, token in enumerate(ids):
            if not 0 <= token < len(spelt):
                raise AntiphonError(f"id {token} at {index} is outside the {len(spelt)} merged ids")
            plain += spelt[token]
        return plain

    def _encoded(self, group: tuple[int, ...]) -> tuple[int, ...]:
        """The earliest-learnt pair is merged first, the leftmost of equals, until none is left."""
        size, ids, ranks = self.vocabulary.size, list(group), self._ranks
        for token in ids:
            if not 0 <= token < size:
                raise AntiphonError(f"id {token} is outside the vocabulary of {size}")
        while True:
            found = [(ranks[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in ranks]
            if not found:
                break
            (_, token), at = min(found)
            ids[at : at + 2] = [token]
        merged = tuple(ids)
        if len(group) <= _LONGEST_KEPT:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[group] = merged
        return merged

    def to_json(self) -> str:
        """The merges and the grid of their vocabulary as JSON."""
        return json.dumps({"kind": _KIND, "grid": json.loads(self.vocabulary.grid.to_json()), "pairs": self.pairs})

    @classmethod
    def from_json(cls, text: str, vocabulary: Vocabulary) -> Merges:
        """The merges that `to_json` wrote. Raises AntiphonError for anything else, and for another vocabulary's."""
        try:
            values = json.loads(text)
            kind, grid, pairs = values["kind"], json.dumps(values["grid"]), values["pairs"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise AntiphonError("not a table of merges", fix=_FIX) from error
        if kind != _KIND or type(pairs) is not list or not all(_is_pair(pair) for pair in pairs):
            raise AntiphonError("not a table of merges", fix=_FIX)
        if Grid.from_json(grid) != vocabulary.grid:
            raise AntiphonError("the merges belong to another vocabulary", fix=_FIX)
        return cls(vocabulary, tuple((left, right) for left, right in pairs))


def groups(ids: Iterable[int], vocabulary: Vocabulary) -> Iterator[tuple[int, ...]]:
    """`ids` cut into groups. A bar, a position, PAD, BOS and EOS begin one, and so do the notes behind a tempo."""
    first_position, end_position = vocabulary.positions.first, vocabulary.positions.end
    tempos = vocabulary.tempos
    group: list[int] = []
    after_tempo = False
    for token in ids:
        begins = token <= BAR or first_position <= token < end_position or after_tempo
        if group and (begins or len(group) == _LONGEST_GROUP):
            yield tuple(group)
            group = []
        group.append(int(token))
        after_tempo = token in tempos
    if group:
        yield tuple(group)


def read_merges(path: Path, vocabulary: Vocabulary) -> Merges:
    """The merges in `path`. Raises FileError for a file that holds none, or those of another vocabulary."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise FileError(error.strerror or "cannot be read", where=str(path), fix=_FIX) from error
    except UnicodeDecodeError as error:
        raise FileError("not a table of merges", where=str(path), fix=_FIX) from error
    if len(data) > _LARGEST_FILE:
        raise FileError("too large for a table of merges", where=str(path), fix=_FIX)
    try:
        return Merges.from_json(text, vocabulary)
    except AntiphonError as error:
        raise FileError(error.message, where=str(path), fix=error.fix or _FIX) from error


def write_merges(path: Path, merges: Merges) -> None:
    """Write the file that `read_merges` reads, whole or not at all. Raises FileError."""
    write_whole(path, merges.to_json().encode())


def _joined(
    pair: tuple[int, int], spelt: Sequence[tuple[int, ...]], vocabulary: Vocabulary, rank: int
) -> tuple[int, ...]:
    """What `pair` spells. Raises AntiphonError where that cannot be one id."""
    if not all(0 <= token < len(spelt) for token in pair):
        raise AntiphonError(f"merge {rank} joins an id that is not there yet")
    left, right = (spelt[token] for token in pair)
    alone = (PAD, BOS, EOS)
    if (
        left[0] in alone
        or right[0] in (*alone, BAR)
        or right[0] in vocabulary.positions
        or left[-1] in vocabulary.tempos
    ):
        raise AntiphonError(f"merge {rank} reaches over the border of a group")
    if len(left) + len(right) > LONGEST_MERGE:
        raise AntiphonError(f"merge {rank} stands for more than {LONGEST_MERGE} ids")
    return left + right


def _is_pair(value: object) -> bool:
    return type(value) is list and len(value) == 2 and all(type(token) is int for token in value)
