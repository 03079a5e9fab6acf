"""What is wrong with a configuration: one problem, and the error that holds all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.errors import ConfigError

MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file, and a line in it from 1 (0 = the file as a whole)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    path: the dotted path of the setting, such as "players[0].listen_bars"; empty for the file as a whole.
    allowed: what may stand there, empty where that says nothing. hint: what was probably meant, or empty.
    """

    place: Place
    path: str
    what: str
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.path}: {self.what}" if self.path else f"{self.place}: {self.what}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return f"{text} (did you mean {self.hint}?)" if self.hint else text


class InvalidConfig(ConfigError):
    """A configuration with problems: all of them, in the order of the files and their lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.place.file, problem.place.line)))
        count = len(self.problems)
        lines = [f"{count} {'problem' if count == 1 else 'problems'} in the configuration"]
        lines += [f"  {problem}" for problem in self.problems[:MOST_SHOWN]]
        if count > MOST_SHOWN:
            lines.append(f"  and {count - MOST_SHOWN} more")
        super().__init__("\n".join(lines))
