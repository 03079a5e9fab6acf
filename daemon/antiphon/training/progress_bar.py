"""How far a run is, for those who watch it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that fills from 0 to 1, with a few words behind it."""

    _progress: Progress
    _task: TaskID

    def show(self, done: float, words: str) -> None:
        """Move the bar to `done`, and change the words."""
        self._progress.update(self._task, completed=min(1.0, done), words=words)

    def say(self, line: str) -> None:
        """Leave a line above the bar."""
        self._progress.console.print(line, highlight=False, markup=False)


@contextmanager
def bar_on(console: Console | None) -> Iterator[Bar]:
    """A bar on `console` while the block runs; on None nothing is shown and nothing said."""
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), Remaining(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console or Console(quiet=True), disable=console is None) as progress:
        yield Bar(progress, progress.add_task("", total=1.0, words=""))
