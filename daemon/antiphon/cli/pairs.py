"""`antiphon pairs`: MIDI files to pairs of context and completion, a line of JSON for each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

PAIRS = "pairs.jsonl"
DATASET = "dataset"


def add_parser(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = commands.add_parser(
        "pairs",
        help="cut MIDI files into pairs of context and completion",
        description="Slide a window over every MIDI file below a folder, and write each position of it as a line "
        f'{{"context", "completion"}} of ids into {PAIRS}. A context that does not begin its piece is told in which '
        "tempo and meter it begins. A file that cannot be used is told of, and the others are still written.",
    )
    # Both spellings of each: scripts made for PianoMuse's own tool keep working.
    parser.add_argument("--midi-dir", "--midi_dir", type=Path, required=True, metavar="DIR", help="where the files lie")
    parser.add_argument("--output-dir", "--output_dir", type=Path, required=True, metavar="DIR", help="made if needed")
    for name, default, text in (
        ("n-context-bars", 4, "bars of context"),
        ("n-completion-bars", 2, "bars that complete them"),
        ("step", 1, "bars by which the window moves"),
    ):
        parser.add_argument(
            f"--{name}", f"--{name.replace('-', '_')}", type=int, default=default, metavar="N",
            help=f"{text} (default {default})",
        )  # fmt: skip
    parser.add_argument(
        "--preset",
        choices=("antiphon", "pianomuse"),
        default="antiphon",
        help="the vocabulary: this project's own (default), or PianoMuse's",
    )
    parser.add_argument(
        "--use-hf-dataset",
        "--use_hf_dataset",
        action="store_true",
        help=f"also write {DATASET}/ for Hugging Face's datasets (needs that package)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the pairs of all files; 1 if any was refused. Raises FileError if there is none, or nothing was written."""
    import json

    from antiphon.errors import AntiphonError, FileError
    from antiphon.music.midi_file import whole_file
    from antiphon.tokens.piano import PianoTokenizer
    from antiphon.tokens.windows import create_context_completion_pairs, sliding_window
    from antiphon.training.prepare import midi_files

    bars = (args.n_context_bars, args.n_completion_bars, args.step)
    sliding_window([], [], *bars)  # refuses windows that are none
    dataset = _dataset_class() if args.use_hf_dataset else None
    files = midi_files(args.midi_dir)
    tokenizer = PianoTokenizer(preset=args.preset)
    out: Path = args.output_dir
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(error.strerror or "cannot be made", where=str(out)) from error
    refused = count = 0
    with whole_file(out / PAIRS) as lines:
        for path in files:
            try:
                pairs = create_context_completion_pairs(tokenizer.tokenize_midi(path), tokenizer, *bars)
            except AntiphonError as error:
                print(f"antiphon: {error}".replace("\n", "\\n"), file=sys.stderr)
                refused += 1
                continue
            for context, completion in pairs:
                lines.write(json.dumps({"context": context, "completion": completion}).encode() + b"\n")
            count += len(pairs)
    if dataset is not None:
        _write_dataset(dataset, out)
    print(f"{out / PAIRS}: {count} pairs from {len(files) - refused} of {len(files)} files")
    return 1 if refused else 0


def _dataset_class() -> Any:
    """Hugging Face's Dataset. Raises AntiphonError where the package is missing."""
    import importlib

    from antiphon.errors import AntiphonError

    try:
        return importlib.import_module("datasets").Dataset
    except ImportError as error:
        raise AntiphonError(
            "--use-hf-dataset needs the package datasets",
            fix=f"install it, or read {PAIRS} with it: load_dataset('json', data_files='{PAIRS}')",
        ) from error


def _write_dataset(dataset: Any, out: Path) -> None:
    import tempfile

    # Without a cache of its own it would fill the user's.
    with tempfile.TemporaryDirectory() as cache:
        dataset.from_json(str(out / PAIRS), cache_dir=cache).save_to_disk(str(out / DATASET))
