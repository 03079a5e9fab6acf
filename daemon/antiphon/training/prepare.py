"""From folders of MIDI files to a corpus: every piece normalised and encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from antiphon.errors import AntiphonError, FileError
from antiphon.music.midi_file import read_piece
from antiphon.music.normalise import bars_of
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary
from antiphon.training.corpus import Corpus, pack_pieces


@dataclass(frozen=True, slots=True)
class Prepared:
    """A corpus, and what was said of the files that were left out of it."""

    corpus: Corpus
    refused: tuple[str, ...]


def midi_files(folder: Path) -> list[Path]:
    """The MIDI files below `folder`, sorted. Raises FileError if there are none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi") and p.is_file())
    if not files:
        raise FileError("no MIDI file there", where=str(folder), fix="name a folder that holds .mid files")
    return files


def prepare(
    files: Sequence[Path], vocabulary: Vocabulary, *, on_file: Callable[[Path], None] = lambda path: None
) -> Prepared:
    """`files` as a corpus. One that cannot be used is left out; FileError if none can.

    `on_file` is told of each before it is read; what it raises ends the work.
    """
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
        raise FileError("not one file could be used", fix=refused[0] if refused else "")
    return Prepared(pack_pieces(pieces, names), tuple(refused))
