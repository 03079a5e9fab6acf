"""`antiphon detokenize`: a model's ids back to MIDI files."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.errors import AntiphonError, FileError

_MIDI_SUFFIXES = (".mid", ".midi")
_LONGEST_NAME_BYTES = 200  # file systems take 255, and a number may follow


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the input: where it stands, and its bytes."""

    where: str
    data: bytes


def add_parser(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "detokenize",
        help="turn a model's ids into MIDI files",
        description="Turn lines of ids, as `antiphon tokenize` writes them, into MIDI files named after each line's "
        '"file". A line that cannot be used is told of, and the others are still written.',
    )
    parser.add_argument("input", nargs="?", metavar="IN.jsonl|-", help="lines of ids; - reads them from standard input")
    parser.add_argument("--ids", metavar="1,2,3", help="these ids instead")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR|OUT.mid", help="a folder, or a file for a single line"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files; 1 if any line was refused. Raises AntiphonError."""
    from antiphon.tokens.piano import AntiphonScheme
    from antiphon.tokens.vocabulary import Vocabulary

    if (args.input is None) == (args.ids is None):
        raise AntiphonError("there is nothing to turn into music", fix="give either a file of lines or --ids")
    scheme = AntiphonScheme(Vocabulary())
    output: Path = args.output
    one_file = output.suffix.lower() in _MIDI_SUFFIXES and not output.is_dir()
    if args.ids is not None:
        if not one_file:
            raise FileError("--ids make one file", where=str(output), fix="name it with .mid at its end")
        scheme.write(_from_text(args.ids), output)
        return 0
    if one_file:
        lines = [line for line in _lines(args.input) if line.data.strip()]
        if len(lines) != 1:
            raise FileError(f"{len(lines)} lines do not go into one file", where=str(output), fix="name a folder")
        _, ids = _from_line(lines[0])
        scheme.write(ids, output)
        return 0
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(error.strerror or str(error), where=str(output), fix="name another folder") from error
    taken: set[str] = set()
    refused = 0
    for line in _lines(args.input):
        if not line.data.strip():
            continue
        try:
            name, ids = _from_line(line)
            target = output / _free(name, taken)
            if target.is_symlink():
                raise FileError("it is a link, which is not followed", where=str(target), fix="remove it")
            _write(scheme, ids, target, line.where)
        except AntiphonError as error:
            print(f"antiphon: {error}".replace("\n", "\\n"), file=sys.stderr)
            refused += 1
    return 1 if refused else 0


def _write(scheme: Any, ids: list[int], target: Path, where: str) -> None:
    try:
        scheme.write(ids, target)
    except FileError:
        raise
    except AntiphonError as error:
        raise FileError(error.message, where=where, fix=error.fix) from error


def _lines(source: str) -> Iterator[_Line]:
    if source == "-":
        for number, data in enumerate(sys.stdin.buffer, 1):
            yield _Line(f"line {number}", data)
        return
    try:
        with open(source, "rb") as file:
            for number, data in enumerate(file, 1):
                yield _Line(f"{source}:{number}", data)
    except OSError as error:
        raise FileError(error.strerror or str(error), where=source, fix="check the path") from error


def _from_line(line: _Line) -> tuple[str, list[int]]:
    """The name and the ids of a line. Raises FileError."""
    try:
        values = json.loads(line.data)
    except (ValueError, RecursionError) as error:
        raise FileError(f"it is not JSON: {error}", where=line.where, fix="see `antiphon tokenize`") from error
    ids = values.get("ids") if isinstance(values, dict) else None
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise FileError('it has no "ids", a list of whole numbers', where=line.where, fix="see `antiphon tokenize`")
    return str(values.get("file", "")), ids


def _from_text(text: str) -> list[int]:
    try:
        return [int(token) for token in re.split(r"[\s,]+", text.strip()) if token]
    except ValueError:
        raise AntiphonError("--ids are whole numbers with commas between", fix="as in --ids 3,380,250") from None


def _free(name: str, taken: set[str]) -> str:
    """A file name for what called itself `name`: no folder, nothing hidden, none twice."""
    base = re.split(r"[/\\]", name)[-1]
    for suffix in _MIDI_SUFFIXES:
        base = base[: -len(suffix)] if base.lower().endswith(suffix) else base
    plain = re.sub(r"[^\w.,+()\- ]", "_", base).strip(" .")
    stem = plain.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore") or "piece"
    free, count = stem, 1
    while free.casefold() in taken:
        count += 1
        free = f"{stem}-{count}"
    taken.add(free.casefold())
    return f"{free}.mid"
