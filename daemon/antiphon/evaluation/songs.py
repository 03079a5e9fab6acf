"""Which file is of which song: the table that tells the windows, and the songs that they are resampled by."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from antiphon.errors import FileError


def read_songs(path: Path, names: Iterable[str]) -> dict[str, str]:
    """The song of each file, from a CSV with the columns id (the file's name without .mid) and group.

    Raises FileError for anything else, and for a table that names none of `names`.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            songs = {row["id"]: row["group"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise FileError("not a table with the columns id and group", where=str(path)) from error
    if not any(name in songs for name in names):
        raise FileError("it names none of the pieces", where=str(path), fix="its ids are the files' names without .mid")
    return songs


def song_of(file: str, songs: Mapping[str, str]) -> str:
    """The song of the file at path `file`; one that the table does not name is its own."""
    return songs.get(PurePosixPath(file).stem, f"file {file}")
