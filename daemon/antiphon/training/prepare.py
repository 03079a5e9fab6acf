"""From folders of MIDI files to a packed corpus: every piece normalised and encoded once.

A packed corpus is a NumPy .npz without pickles: `ids` (uint16, all pieces in a row, without BOS or EOS),
`piece_starts` (int64, where each begins, and the end), `names` (the files), `grid` (the vocabulary's, as JSON).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.errors import AntiphonError, FileError
from antiphon.music.midi_file import read_piece, write_whole
from antiphon.music.normalise import bars_of
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed: pieces, ids, and the files that were left out, each with the reason."""

    pieces: int
    ids: int
    refused: tuple[str, ...]


def midi_files(paths: Iterable[Path]) -> list[Path]:
    """The MIDI files among `paths` and below those that are folders, sorted. Raises FileError if there are none."""
    files: list[Path] = []
    for path in paths:
        found = [p for p in path.rglob("*") if p.suffix.lower() in (".mid", ".midi")] if path.is_dir() else [path]
        files += sorted(found)
    if not files:
        raise FileError("no MIDI file there", where=", ".join(map(str, paths)), fix="name .mid files or their folder")
    return files


def pack(
    files: Iterable[Path],
    out: Path,
    *,
    vocabulary: Vocabulary,
    on_file: Callable[[Path], None] = lambda path: None,
) -> Packed:
    """Encode `files` into the packed corpus `out`. A file that cannot be read is left out and counted."""
    pieces: list[list[int]] = []
    names: list[str] = []
    refused: list[str] = []
    for path in files:
        on_file(path)
        try:
            ids = encode(bars_of(read_piece(path)), vocabulary)
        except AntiphonError as error:
            refused.append(str(error))
            continue
        if ids:
            pieces.append(ids)
            names.append(path.stem)
    if not pieces:
        raise FileError("not one file could be used", where=str(out), fix=refused[0] if refused else "")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=np.concatenate([np.asarray(ids, dtype=np.uint16) for ids in pieces]),
        piece_starts=np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        names=np.asarray(names),
        grid=np.asarray(vocabulary.grid.to_json()),
    )
    write_whole(out, buffer.getvalue())
    return Packed(len(pieces), sum(map(len, pieces)), tuple(refused))
