"""Corpora as commands are given them: a folder of MIDI files, or an .npz packed from one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from antiphon.tokens.vocabulary import Vocabulary
    from antiphon.training.corpus import Corpus

MOST_TOLD = 10
"""So many refused files are named; of the rest only the number is told."""


def open_corpus(
    path: Path,
    vocabulary: Vocabulary,
    *,
    keep: Path | None = None,
    quiet: bool = False,
    on_file: Callable[[], None] = lambda: None,
) -> Corpus:
    """The corpus at `path`; a folder is encoded, and kept packed at `keep` if that is given. Raises FileError.

    Progress, and the files that had to be left out, are told on stderr. `on_file` is called before each file.
    """
    from antiphon.training.corpus import read_corpus, write_corpus

    if not path.is_dir():
        return read_corpus(path, vocabulary)
    corpus = _encoded(path, vocabulary, quiet=quiet, on_file=on_file)
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(keep, corpus, vocabulary)
    return corpus


def _encoded(folder: Path, vocabulary: Vocabulary, *, quiet: bool, on_file: Callable[[], None]) -> Corpus:
    from rich.console import Console
    from rich.progress import Progress

    from antiphon.training.prepare import midi_files, prepare

    files = midi_files(folder)
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(f"reading {folder}", total=len(files))

        def advance(_path: Path) -> None:
            on_file()
            progress.advance(task)

        prepared = prepare(files, vocabulary, on_file=advance)
    for line in prepared.refused[:MOST_TOLD]:
        print(f"antiphon: left out: {line}", file=sys.stderr)
    if len(prepared.refused) > MOST_TOLD:
        print(f"antiphon: and {len(prepared.refused) - MOST_TOLD} more were left out", file=sys.stderr)
    return prepared.corpus
