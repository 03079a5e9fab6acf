"""`antiphon evaluate --windows`: nats per note of the same bars after shorter and longer context, system by system."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from antiphon.evaluation.comparison import Column, Comparison, Measured
    from antiphon.evaluation.likelihood import Scored
    from antiphon.evaluation.statistics import Estimate, Paired
    from antiphon.evaluation.windows import Loaded
    from antiphon.session.voice import Voice

_THREADS = 2
_Counting = Callable[[str], Callable[[], None]]


def make(args: argparse.Namespace) -> int:
    """Choose windows of the folder `args.valid` and write them. Raises AntiphonError."""
    from antiphon.errors import AntiphonError, FileError
    from antiphon.evaluation.songs import read_songs, song_of
    from antiphon.evaluation.windows import choose_windows, write_windows
    from antiphon.training.prepare import midi_files

    if args.valid is None or not args.valid.is_dir():
        raise AntiphonError("windows are chosen of a folder of MIDI files", fix="name it with --valid")
    files = midi_files(args.valid)
    songs = read_songs(args.songs, [path.stem for path in files]) if args.songs is not None else {}
    with _progress(len(files), quiet=args.quiet) as counting:
        windows = choose_windows(files, args.valid, songs, on_file=counting(f"reading {args.valid}"))
    if not windows:
        raise FileError("no piece there is long enough for a window", where=str(args.valid))
    write_windows(args.make_windows, windows)
    contexts = sorted({window.context_bars for window in windows})
    print(f"{len(windows)} windows in {args.make_windows}; paths in it are relative to {args.valid}")
    for context in contexts:
        there = [window for window in windows if window.context_bars == context]
        count = len({song_of(window.file, songs) for window in there})
        print(f"after {context:2} bars: {len(there)} targets of {count} songs")
    return 0


def run(args: argparse.Namespace) -> int:
    """Measure, and show tables. Raises AntiphonError for a model, corpus or window that cannot be used."""
    from antiphon.errors import FileError
    from antiphon.evaluation.comparison import Measured, compare
    from antiphon.evaluation.songs import read_songs, song_of
    from antiphon.evaluation.windows import load, read_windows
    from antiphon.library.bundled import model_path
    from antiphon.session.voice import Voice

    path = model_path(args.model)
    voice = Voice.open(path)
    windows = read_windows(args.windows)
    root = args.root if args.root is not None else args.windows.parent
    loaded = [load(window, root) for window in windows]
    if not all(any(one.notes for one in loaded if one.window.context_bars == n) for n in _contexts(loaded)):
        raise FileError("there is not one note to score", where=str(args.windows))
    names = [Path(window.file).stem for window in windows]
    songs = read_songs(args.songs, names) if args.songs is not None else {}
    with _progress(len(loaded), quiet=args.quiet) as counting:
        scores = _scores(args, path, voice, loaded, counting)
    measured = [
        Measured(
            window=one.window,
            song=song_of(one.window.file, songs),
            notes=one.notes,
            systems={name: of_system[index] for name, of_system in scores.items()},
        )
        for index, one in enumerate(loaded)
    ]
    comparison = compare(measured)
    if args.json is not None:
        _write(args.json, path, args, measured, comparison)
    _show(comparison)
    return 0


def _scores(
    args: argparse.Namespace, path: Path, voice: Voice, loaded: Sequence[Loaded], counting: _Counting
) -> dict[str, list[Scored]]:
    from antiphon.cli.corpora import open_corpus
    from antiphon.errors import FileError
    from antiphon.evaluation.comparison import MODEL
    from antiphon.evaluation.likelihood import FloatScorer, ModelScorer, ngram_scores, score_windows
    from antiphon.library.bundled import FIRST
    from antiphon.model import checkpoint
    from antiphon.session.voice import Voice

    weights = checkpoint.read(args.float) if args.float is not None else None
    if weights is not None and weights.spec != voice.model.spec:
        raise FileError("the float checkpoint is of another model", where=str(args.float))
    train = open_corpus(args.train, voice.vocabulary, quiet=args.quiet) if args.train is not None else None

    def play(name: str, of: Voice) -> list[Scored]:
        return score_windows(ModelScorer(of), loaded, threads=_THREADS, on_window=counting(name))

    scores = {MODEL: play(MODEL, voice)}
    same = checkpoint.sha256(path) == checkpoint.sha256(FIRST)
    scores["first"] = scores[MODEL] if same else play("first", Voice.open(FIRST))
    if weights is not None:
        scorer = FloatScorer(weights, voice.vocabulary)
        scores["float"] = score_windows(scorer, loaded, on_window=counting("float"))
    if train is not None:
        counted = ngram_scores(train, loaded, voice.vocabulary, on_window=counting("ngram"))
        scores |= {"ngram": counted.ngram, "ngram_cache": counted.ngram_cache}
    return scores


def _contexts(loaded: Sequence[Loaded]) -> set[int]:
    return {one.window.context_bars for one in loaded}


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[_Counting]:
    """A bar for each thing that is done `total` times; the callable given by its name moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=quiet) as progress:

        def counting(name: str) -> Callable[[], None]:
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        yield counting


def _write(
    out: Path, model: Path, args: argparse.Namespace, measured: Sequence[Measured], comparison: Comparison
) -> None:
    import json

    from antiphon.evaluation import likelihood, statistics
    from antiphon.model.checkpoint import sha256
    from antiphon.music.midi_file import write_whole

    summary = {
        "model": str(args.model),
        "sha256": sha256(model),
        "windows": str(args.windows),
        "train": str(args.train) if args.train is not None else None,
        "ngram_order": likelihood.NGRAM_ORDER,
        "cache_order": likelihood.CACHE_ORDER,
        "cache_weight": likelihood.CACHE_WEIGHT,
        "resamples": statistics.RESAMPLES,
        "confidence": statistics.CONFIDENCE,
    } | comparison.plain()
    told = {"windows": [one.plain() for one in measured], "summary": summary}
    write_whole(out, (json.dumps(told, indent=1, allow_nan=False) + "\n").encode())


def _show(comparison: Comparison) -> None:
    from rich.console import Console

    from antiphon.evaluation.comparison import MODEL

    console = Console()
    if comparison.complete:
        first = comparison.complete[0]
        title = (
            f"nats per note after so much context: {first.targets} targets, {first.songs} songs, {first.notes:,} notes"
        )
        rows = {name: [_interval(column.systems[name]) for column in comparison.complete] for name in first.systems}
        console.print(_table(title, comparison.complete, rows))
        rows = {
            f"{MODEL} − {name}": [_paired(one.against[name]) for one in comparison.complete] for name in first.against
        }
        if len(comparison.complete) > 1:
            label = f"{MODEL} − its own after {first.context_bars} bars"
            rows[label] = [_paired(column.longer) if column.longer else "" for column in comparison.complete]
        console.print(_table("paired differences, and in how many songs it is lower", comparison.complete, rows))
    if not _alike(comparison):
        rows = {"targets, songs": [f"{column.targets}, {column.songs}" for column in comparison.every]}
        for name in comparison.every[0].systems:
            rows[name] = [_interval(column.systems[name]) for column in comparison.every]
        console.print(_table("the same, every window", comparison.every, rows))


def _alike(comparison: Comparison) -> bool:
    """Whether the columns of all windows are those of the complete targets."""
    return [column.targets for column in comparison.every] == [column.targets for column in comparison.complete]


def _table(title: str, columns: Sequence[Column], rows: Mapping[str, Sequence[str]]) -> object:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(f"{column.context_bars} bars", justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f}\n{estimate.low:.2f} … {estimate.high:.2f}"


def _paired(paired: Paired) -> str:
    difference = paired.difference
    bounds = f"{difference.low:+.2f} … {difference.high:+.2f}"
    return f"{difference.value:+.3f}\n{bounds}\n{paired.songs_lower}/{paired.songs}"
