"""The error tree: every error that a person may see says what, where and what to do.

AntiphonError
├── ConfigError      a configuration that cannot be used
├── FileError        a file that cannot be read or written (MIDI, checkpoint, corpus)
└── PortError        a MIDI port or the process that owns it
"""

from __future__ import annotations


class AntiphonError(Exception):
    """An error for people: `message` says what, `where` says where, `fix` says what to do."""

    def __init__(self, message: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.fix})" if self.fix else text


class ConfigError(AntiphonError):
    """A configuration that cannot be used."""


class FileError(AntiphonError):
    """A file that cannot be read or written."""


class PortError(AntiphonError):
    """A MIDI port, or the process that owns the ports."""
