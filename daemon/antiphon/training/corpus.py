"""Pieces as ids in one file: what learning and evaluation read.

A packed corpus is a NumPy .npz without pickles: `ids` (all pieces, one after the other), `piece_starts` (where each
begins, and the end), `names` (one a piece) and `grid` (the vocabulary's, as JSON). A piece is Bar, TimeSig, … without
BOS or EOS; both are added when it is used.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from antiphon.errors import AntiphonError, FileError
from antiphon.music.midi_file import write_whole
from antiphon.tokens.vocabulary import BAR, Grid, Vocabulary
from antiphon.training.ids import Ids

MAX_IDS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """`ids` int32, `piece_starts` int64 [pieces + 1], a name for each piece, and where it was read from."""

    ids: Ids
    piece_starts: npt.NDArray[np.int64]
    names: tuple[str, ...]
    where: str = ""

    def __len__(self) -> int:
        return len(self.piece_starts) - 1

    def piece(self, index: int) -> Ids:
        """The ids of one piece, without BOS and EOS."""
        return self.ids[self.piece_starts[index] : self.piece_starts[index + 1]]

    def fingerprint(self) -> str:
        """SHA-256 over the ids and where the pieces begin: equal corpora, and no others, have equal ones."""
        digest = hashlib.sha256(self.piece_starts.astype("<i8").tobytes())
        digest.update(self.ids.astype("<i4").tobytes())
        return digest.hexdigest()


def pack_pieces(pieces: Sequence[Sequence[int]], names: Sequence[str]) -> Corpus:
    """A corpus of these pieces in this order."""
    arrays = [np.asarray(piece, np.int32) for piece in pieces]
    return Corpus(
        ids=np.concatenate(arrays) if arrays else np.zeros(0, np.int32),
        piece_starts=np.cumsum([0, *map(len, arrays)], dtype=np.int64),
        names=tuple(names),
    )


def write_corpus(path: Path, corpus: Corpus, vocabulary: Vocabulary) -> None:
    """Write the .npz, whole or not at all. Raises FileError."""
    narrow = np.uint16 if vocabulary.size <= 1 << 16 else np.uint32
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=corpus.ids.astype(narrow),
        piece_starts=corpus.piece_starts,
        names=np.asarray(corpus.names, np.str_),
        grid=np.asarray(vocabulary.grid.to_json()),
    )
    write_whole(path, buffer.getvalue())


def read_corpus(path: Path, vocabulary: Vocabulary) -> Corpus:
    """The corpus in `path`; FileError when it is not one, or was made with another vocabulary."""
    fix = "name a folder of MIDI files, or a corpus that `antiphon train` packed from one"

    def refused(what: str) -> FileError:
        return FileError(what, where=str(path), fix=fix)

    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, starts, names, grid = (arrays[name] for name in ("ids", "piece_starts", "names", "grid"))
    except OSError as error:
        raise refused(error.strerror or "cannot be read") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise refused("not a packed corpus") from error
    try:
        same = Grid.from_json(str(grid)) == vocabulary.grid
    except AntiphonError:
        same = False
    if not same:
        raise refused("it was packed with another vocabulary")
    if ids.ndim != 1 or starts.ndim != 1 or ids.dtype.kind not in "ui" or starts.dtype.kind not in "ui":
        raise refused("ids and piece_starts must be lists of integers")
    starts = starts.astype(np.int64)
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(ids) or (np.diff(starts) < 2).any():
        raise refused("piece_starts does not cut ids into pieces")
    if names.shape != (len(starts) - 1,) or names.dtype.kind != "U":
        raise refused("there must be a name for each piece")
    if len(ids) > MAX_IDS or ids.min() < 0 or ids.max() >= vocabulary.size:
        raise refused("ids lie outside the vocabulary")
    ids = ids.astype(np.int32)
    if (ids[starts[:-1]] != BAR).any():
        raise refused("a piece does not begin with a bar")
    return Corpus(ids=ids, piece_starts=starts, names=tuple(map(str, names)), where=str(path))
