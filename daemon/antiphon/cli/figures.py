"""The figures of a command as a JSON file, for programs that read what people see in a table."""

from __future__ import annotations

import json
from pathlib import Path

from antiphon.errors import FileError


def write_figures(path: Path, figures: object) -> None:
    """Write `figures` to `path`, which may be a pipe. Raises FileError."""
    try:
        path.write_text(json.dumps(figures, indent=1) + "\n")
    except OSError as error:
        fix = "choose a folder that can be written"
        raise FileError(f"cannot be written: {error.strerror}", where=str(path), fix=fix) from error
