"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from antiphon.errors import FileError

_FOLDER = Path(__file__).parent / "bundled"

FIRST = _FOLDER / "antiphon-first.safetensors"
"""The first model there was: what later ones are measured against."""

BUNDLED = _FOLDER / "antiphon-second.safetensors"
"""The one that plays unless another is named."""


def named(name: str) -> Path:
    """Where the model called `name` lies, "bundled" or a path, whether there is one or not."""
    return BUNDLED if name == "bundled" else Path(name)


def model_path(name: str) -> Path:
    """The file of the model called `name`: "bundled", or a path. Raises FileError if there is no such file."""
    path = named(name)
    if not path.is_file():
        raise FileError("there is no such model file", where=str(path), fix="name a model file, or: bundled")
    return path
