"""The journal: what happened, a line of JSON each, for a person who wants to look closely and for the benchmarks.

Off unless a path is given: it names every note, and what is played belongs to the player.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from antiphon.errors import FileError


class Journal:
    """Appends records to a file as they come, each whole at once, so that another program can follow it."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise FileError(
                error.strerror or str(error), where=str(path), fix="choose a folder that can be written"
            ) from error

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record: {"kind": kind, ...}. Bytes are written in hexadecimal."""
        self._file.write(json.dumps({"kind": kind} | fields, default=_plain) + "\n")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
