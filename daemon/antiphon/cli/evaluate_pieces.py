"""`antiphon evaluate --valid`: nats per note of a model on whole pieces, beside an n-gram of the same ids."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from antiphon.training.evaluation import Score, Sheet


def run(args: argparse.Namespace) -> int:
    """Measure, and show a table. Raises AntiphonError for a model or corpus that cannot be used."""
    from rich.console import Console
    from rich.progress import Progress

    from antiphon.errors import AntiphonError

    if args.pieces < 0 or min(args.orders) < 1:
        raise AntiphonError("--pieces must be 0 or more, and --orders 1 or more")

    from antiphon.cli.corpora import open_corpus
    from antiphon.evaluation.songs import read_songs
    from antiphon.library.bundled import model_path
    from antiphon.model import checkpoint
    from antiphon.session.voice import Voice
    from antiphon.training import evaluation
    from antiphon.training.ids import IdRanges

    path = model_path(args.model)
    voice = Voice.open(path)
    ranges = IdRanges.of_vocabulary(voice.vocabulary)
    float_weights = checkpoint.read(args.float) if args.float is not None else None
    if float_weights is not None and float_weights.spec != voice.model.spec:
        raise AntiphonError("the float checkpoint is of another model", where=str(args.float))
    valid = open_corpus(args.valid, voice.vocabulary, quiet=args.quiet)
    songs = read_songs(args.songs, valid.names) if args.songs is not None else None
    of_song = [songs.get(name, f"piece {name}") for name in valid.names] if songs is not None else None
    sheet = evaluation.sheet_of(valid, ranges, most=args.pieces, songs=of_song)
    if not sheet.notes.any():
        raise AntiphonError("there is not one note to score", where=str(args.valid))

    scores: dict[str, Score] = {}
    with Progress(console=Console(stderr=True), disable=args.quiet) as progress:
        nats = evaluation.model_nats(voice.model, sheet, on_piece=_counting(progress, "model, int8", sheet))
        scores["model, int8"] = evaluation.score(nats, sheet)
        if float_weights is not None:
            name = "model, float32"
            nats = evaluation.float_nats(float_weights, sheet, on_piece=_counting(progress, name, sheet))
            scores[name] = evaluation.score(nats, sheet)
    if args.train is not None:
        train = open_corpus(args.train, voice.vocabulary, quiet=args.quiet)
        for order in sorted(set(args.orders)):
            nats = evaluation.counted_nats(train, sheet, ranges, order=order)
            scores[f"n-gram, order {order}"] = evaluation.score(nats, sheet)
    if args.json is not None:
        _write(args.json, path, args, sheet, scores)
    _show(scores, sheet)
    return 0


def _counting(progress: Progress, name: str, sheet: Sheet) -> Callable[[], None]:
    task = progress.add_task(name, total=len(sheet.sequences))
    return lambda: progress.advance(task)


def _write(out: Path, model: Path, args: argparse.Namespace, sheet: Sheet, scores: dict[str, Score]) -> None:
    import json
    from dataclasses import asdict

    from antiphon.model.checkpoint import sha256
    from antiphon.music.midi_file import write_whole

    told = {
        "model": str(args.model),
        "sha256": sha256(model),
        "valid": str(args.valid),
        "train": str(args.train) if args.train is not None else None,
        "pieces": len(sheet.sequences),
        "songs": int(sheet.songs.max()) + 1,
        "notes": int(sheet.notes.sum()),
        "tokens": sheet.tokens,
        "scores": {name: asdict(score) for name, score in scores.items()},
    }
    write_whole(out, (json.dumps(told, indent=1) + "\n").encode())


def _show(scores: dict[str, Score], sheet: Sheet) -> None:
    from rich.console import Console
    from rich.table import Table

    songs = int(sheet.songs.max()) + 1
    title = f"{len(sheet.sequences)} pieces, {songs} songs, {int(sheet.notes.sum()):,} notes, {sheet.tokens:,} ids"
    table = Table(title=title)
    table.add_column("")
    for name in ("nats per note", "95 % of resamples", "nats per id"):
        table.add_column(name, justify="right")
    for name, score in scores.items():
        bounds = f"{score.low:.3f} … {score.high:.3f}"
        table.add_row(name, f"{score.nats_per_note:.3f}", bounds, f"{score.nats_per_token:.4f}")
    Console().print(table)
