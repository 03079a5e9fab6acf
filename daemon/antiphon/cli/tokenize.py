"""`antiphon tokenize`: MIDI files to the ids that a model reads, a line of JSON for each."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "tokenize",
        help="turn MIDI files into a model's ids",
        description='Turn MIDI files into ids: for each file a line {"file", "ids", "bar_starts"}, the last being the '
        "indices in ids at which bars begin. A file that cannot be used is told of, and the others are still written.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR", help="MIDI files, or folders of them")
    parser.add_argument("--json", default="-", metavar="OUT.jsonl", help="where the lines go (default: printed)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tokenize all files; 1 if any was refused. Raises FileError if the lines cannot be written."""
    import json

    from antiphon.errors import AntiphonError, FileError
    from antiphon.music.midi_file import whole_file
    from antiphon.tokens.encoder import bar_starts
    from antiphon.tokens.piano import AntiphonScheme
    from antiphon.tokens.vocabulary import Vocabulary

    scheme = AntiphonScheme(Vocabulary())
    refused = 0
    out = contextlib.nullcontext(sys.stdout.buffer) if args.json == "-" else whole_file(args.json)
    with out as lines:
        for path in _midi_files(args.paths):
            try:
                if path.is_dir():
                    raise FileError(
                        "there is no MIDI file in it", where=str(path), fix="name .mid files or their folder"
                    )
                ids = scheme.read(path)
            except AntiphonError as error:
                print(f"antiphon: {error}".replace("\n", "\\n"), file=sys.stderr)
                refused += 1
                continue
            lines.write(json.dumps({"file": str(path), "ids": ids, "bar_starts": bar_starts(ids)}).encode() + b"\n")
    return 1 if refused else 0


def _midi_files(paths: list[Path]) -> Iterator[Path]:
    """The files named, and the MIDI files below the folders named, sorted. An empty folder stands for itself."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".mid", ".midi") and p.is_file())
        yield from found or [path]
