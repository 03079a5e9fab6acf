"""Pieces as ids in one file: an .npz with `ids` (all pieces, one after the other) and `piece_starts`.

A piece is Bar, TimeSig, … without BOS or EOS; both are added when a sample is made. `piece_starts` has
one more entry than there are pieces. Nothing in the file is pickled.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from antiphon.errors import FileError
from antiphon.training.ids import IdRanges, Ids

MAX_IDS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """`ids` int32, `piece_starts` int64 [pieces + 1], and where it was read from."""

    ids: Ids
    piece_starts: npt.NDArray[np.int64]
    where: str = ""

    def __len__(self) -> int:
        return len(self.piece_starts) - 1

    def piece(self, index: int) -> Ids:
        """The ids of one piece, without BOS and EOS."""
        return self.ids[self.piece_starts[index] : self.piece_starts[index + 1]]


def pack_pieces(pieces: Sequence[Sequence[int]]) -> Corpus:
    """A corpus of these pieces in this order."""
    lengths = [len(piece) for piece in pieces]
    ids = np.concatenate([np.asarray(piece, np.int32) for piece in pieces]) if pieces else np.zeros(0, np.int32)
    return Corpus(ids=ids, piece_starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write the .npz beside its place, then move it there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, ids=corpus.ids.astype(np.uint16), piece_starts=corpus.piece_starts)
    os.replace(temporary, path)


def read_corpus(path: Path, ranges: IdRanges) -> Corpus:
    """The corpus in `path`; FileError when it is not one, or was made with another vocabulary."""
    fix = "make it with `antiphon tokenize --npz`"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, starts = arrays["ids"], arrays["piece_starts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"not a corpus: {error}", where=str(path), fix=fix) from error
    if ids.ndim != 1 or starts.ndim != 1 or ids.dtype.kind not in "ui" or starts.dtype.kind not in "ui":
        raise FileError("ids and piece_starts must be lists of integers", where=str(path), fix=fix)
    starts = starts.astype(np.int64)
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(ids) or (np.diff(starts) < 2).any():
        raise FileError("piece_starts does not cut ids into pieces", where=str(path), fix=fix)
    if len(ids) > MAX_IDS or ids.min() < 0 or ids.max() >= ranges.size:
        raise FileError("ids lie outside the vocabulary", where=str(path), fix=fix)
    ids = ids.astype(np.int32)
    if (ids[starts[:-1]] != ranges.bar).any():
        raise FileError("a piece does not begin with a bar", where=str(path), fix=fix)
    return Corpus(ids=ids, piece_starts=starts, where=str(path))
