"""Windows: which bars of which pieces a model hears, and which bars after them it is judged on.

They are chosen once and kept in a file, one JSON object a line, so that everything is measured on the same bars:

    {"file": "chopin/op28-7.mid", "start_bar": 12, "context_bars": 4, "bars": 4}

`start_bar` is the first bar of the context, counted from 0. A file of windows is untrusted: it names files only below
the folder that it is read for, and it is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from antiphon.errors import AntiphonError, FileError
from antiphon.evaluation.songs import song_of
from antiphon.music.bar import Bar
from antiphon.music.midi_file import read_piece, write_whole
from antiphon.music.normalise import MAX_BARS, bars_of
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary

MAX_WINDOWS = 100_000
MAX_BARS_IN_ALL = 2_000_000
"""Bars of all windows of a file together; some of them may be the same ones."""

MAX_LINE_BYTES = 4096
CONTEXTS = (4, 8, 16, 32)
"""Bars of context that every target is judged after, where its piece has them."""

TARGET_BARS = 4
TARGETS_A_SONG = 4
_FIX = 'a line is like {"file": "a.mid", "start_bar": 0, "context_bars": 4, "bars": 4}'
_PIECES_HELD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`context_bars` bars of `file` from bar `start_bar` (from 0) on, and the `bars` bars after them: the target.

    file: relative to some folder, with forward slashes. where: where it was read, for error messages.
    """

    file: str
    start_bar: int
    context_bars: int
    bars: int
    where: str = field(default="", compare=False)

    @property
    def target_bar(self) -> int:
        """The first bar of the target."""
        return self.start_bar + self.context_bars

    @property
    def end_bar(self) -> int:
        """The bar after the target."""
        return self.target_bar + self.bars

    def plain(self) -> dict[str, str | int]:
        """The window as it stands in a file."""
        told = asdict(self)
        del told["where"]
        return told

    def refused(self, what: str, fix: str = "") -> FileError:
        """An error about this window, to be raised."""
        return FileError(what, where=f"{self.where}: {self.file}" if self.where else self.file, fix=fix)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bars of a window, as they stand in the piece: notes may sound over the line between the two."""

    window: Window
    context: tuple[Bar, ...]
    target: tuple[Bar, ...]

    @property
    def notes(self) -> int:
        """How many notes begin in the target."""
        return sum(len(bar.notes) for bar in self.target)


def read_windows(path: Path) -> list[Window]:
    """The windows in the file at `path`, in its order. Raises FileError, naming the line, for anything else.

    Other keys than a window's four are let pass, and empty lines too.
    """
    windows: list[Window] = []
    try:
        with path.open("rb") as file:
            number = bars = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"{path}, line {number}"
                if len(line) > MAX_LINE_BYTES:
                    raise FileError(f"it is longer than {MAX_LINE_BYTES} bytes", where=where, fix=_FIX)
                if len(windows) == MAX_WINDOWS or number > 2 * MAX_WINDOWS:
                    raise FileError(f"there are more than {MAX_WINDOWS} windows", where=where, fix="take fewer")
                if line.strip():
                    windows.append(_window(line, where))
                    bars += windows[-1].context_bars + windows[-1].bars
                if bars > MAX_BARS_IN_ALL:
                    raise FileError(f"the windows have more than {MAX_BARS_IN_ALL} bars", where=where, fix="take fewer")
    except OSError as error:
        raise FileError(error.strerror or "cannot be read", where=str(path), fix="name a file of windows") from error
    if not windows:
        raise FileError("there is no window in it", where=str(path), fix=_FIX)
    return windows


def write_windows(path: Path, windows: Iterable[Window]) -> None:
    """Write a file of windows, whole or not at all. Raises FileError."""
    write_whole(path, "".join(json.dumps(window.plain()) + "\n" for window in windows).encode())


def load(window: Window, root: Path) -> Loaded:
    """The bars of `window`, its file being below `root`. The last few pieces are kept in memory.

    Raises FileError, naming the line and the file, for a file that is missing, outside `root`, no MIDI file, or
    shorter than the window.
    """
    try:
        path = (root / window.file).resolve()
        inside = not Path(window.file).is_absolute() and path.is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError) as error:  # a NUL in the name, links in a circle
        raise window.refused("that is no name of a file") from error
    if not inside:
        raise window.refused("the file lies outside the folder that the windows are of", "name files below it")
    try:
        bars = _bars(path)
    except AntiphonError as error:
        raise window.refused(error.message, error.fix) from error
    if len(bars) < window.end_bar:
        told = f"the window ends with bar {window.end_bar - 1}, but the piece has {len(bars)}, counted from 0"
        raise window.refused(told, "choose the windows anew")
    return Loaded(window, bars[window.start_bar : window.target_bar], bars[window.target_bar : window.end_bar])


@lru_cache(maxsize=_PIECES_HELD)
def _bars(path: Path) -> tuple[Bar, ...]:
    return tuple(bars_of(read_piece(path)))


def choose_windows(
    files: Sequence[Path],
    root: Path,
    songs: Mapping[str, str],
    *,
    on_file: Callable[[], None] = lambda: None,
) -> list[Window]:
    """Windows of the pieces in `files`, all below `root`: the same ones whenever they are chosen.

    songs: the song of a file by its name without .mid; a file not named there is its own. A song gives up to
    `TARGETS_A_SONG` targets of `TARGET_BARS` bars that do not overlap, spread over its files (as many of them as
    targets, evenly chosen) and over each piece. Every target has windows with each of `CONTEXTS`; where no file of a
    song is long enough for that, its targets have the shortest context only. Targets hold notes, and so does the
    shortest context before them, both in one meter, as an answer is. Files that cannot be read, or whose meters our
    vocabulary lacks, are left out.
    """
    vocabulary = Vocabulary()
    pieces: dict[str, list[tuple[str, list[int]]]] = {}
    short: dict[str, list[tuple[str, list[int]]]] = {}
    for path in sorted(files):
        on_file()
        try:
            bars = bars_of(read_piece(path))
            encode(bars, vocabulary)
        except AntiphonError:
            continue
        name = str(PurePosixPath(path.relative_to(root)))
        song = song_of(name, songs)
        for found, reach in ((pieces, max(CONTEXTS)), (short, min(CONTEXTS))):
            if targets := _targets(bars, reach):
                found.setdefault(song, []).append((name, targets))
    windows: list[Window] = []
    for song in sorted(short):
        long_enough = song in pieces
        for name, target in _spread(pieces[song] if long_enough else short[song]):
            windows += [
                Window(file=name, start_bar=target - context, context_bars=context, bars=TARGET_BARS)
                for context in (CONTEXTS if long_enough else CONTEXTS[:1])
            ]
    return windows


def _targets(bars: Sequence[Bar], reach: int) -> list[int]:
    """Where targets may begin with `reach` bars before them."""
    found: list[int] = []
    for bar in range(reach, len(bars) - TARGET_BARS + 1):
        context, target = bars[bar - min(CONTEXTS) : bar], bars[bar : bar + TARGET_BARS]
        one_meter = len({each.meter for each in (*context, *target)}) == 1
        if one_meter and any(each.notes for each in context) and any(each.notes for each in target):
            found.append(bar)
    return found


def _spread(pieces: Sequence[tuple[str, list[int]]]) -> list[tuple[str, int]]:
    """Up to `TARGETS_A_SONG` targets, in as many of the pieces as can be."""
    count = min(len(pieces), TARGETS_A_SONG)
    chosen = [pieces[_middle(part, count, len(pieces))] for part in range(count)]
    found: list[tuple[str, int]] = []
    for part, (name, targets) in enumerate(chosen):
        share = (TARGETS_A_SONG * (part + 1)) // count - (TARGETS_A_SONG * part) // count
        found += [(name, target) for target in _apart(targets, share)]
    return found


def _apart(targets: Sequence[int], most: int) -> list[int]:
    """As many as can be, up to `most`, of `targets`, evenly spread and not overlapping."""
    for count in range(most, 1, -1):
        chosen = [targets[_middle(part, count, len(targets))] for part in range(count)]
        if all(later - earlier >= TARGET_BARS for earlier, later in pairwise(chosen)):
            return chosen
    return [targets[len(targets) // 2]]


def _middle(part: int, parts: int, length: int) -> int:
    """The index in the middle of one of `parts` equal parts of a list."""
    return (2 * part + 1) * length // (2 * parts)


def _window(line: bytes, where: str) -> Window:
    try:
        told = json.loads(line)
        name, *numbers = (told[key] for key in ("file", "start_bar", "context_bars", "bars"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileError("it is no window", where=where, fix=_FIX) from error
    if type(name) is not str or not name or not all(type(number) is int for number in numbers):
        raise FileError("it is no window", where=where, fix=_FIX)
    start, context, bars = numbers
    if not (0 <= start <= MAX_BARS and 1 <= context <= MAX_BARS and 1 <= bars <= MAX_BARS):
        raise FileError("a window has 1 bar of context and of target or more", where=where, fix=_FIX)
    return Window(file=name, start_bar=start, context_bars=context, bars=bars, where=where)
