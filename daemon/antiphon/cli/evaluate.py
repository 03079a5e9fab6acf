"""`antiphon evaluate`: what a model is worth on music it has not seen, beside what simpler things make of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from antiphon.cli import evaluate_answers

_CORPUS = "DIR|FILE.npz"


def add_parser(subparsers: Any) -> None:
    """Add the command to the main parser."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on music it has not seen",
        description="Nats per note (lower is better) of a model, with the bounds between which 95 %% of resampled song "
        "collections lie. With --windows: of the bars that a file of windows names, after so many bars of context, "
        "beside the first bundled model and, with --train-dir, an n-gram with and without a memory of the song. With "
        "--valid: of whole pieces, each from its first bar to its end. With --make-windows: choose such windows. With "
        "--windows and --answers: how human its answers are.",
    )
    parser.add_argument("model", nargs="?", default="bundled", metavar="MODEL", help="default: the bundled one")
    what = parser.add_argument_group("what to measure it on")
    what.add_argument("--windows", type=Path, metavar="FILE.jsonl", help="the windows: see --make-windows")
    what.add_argument("--root", type=Path, metavar="DIR", help="where the windows' files lie (default: beside FILE)")
    what.add_argument("--valid", type=Path, metavar=_CORPUS, help="the pieces, unseen in training")
    what.add_argument("--pieces", type=int, default=0, metavar="N", help="only so many, evenly spread (default: all)")
    what.add_argument("--songs", type=Path, metavar="FILE.csv", help="which piece (id) is of which song (group)")
    what.add_argument(
        "--make-windows",
        type=Path,
        metavar="OUT.jsonl",
        help="choose windows of the folder --valid, and measure nothing",
    )
    beside = parser.add_argument_group("what to measure beside it")
    beside.add_argument(
        "--train-dir",
        "--train",
        dest="train",
        type=Path,
        metavar=_CORPUS,
        help="count n-grams here, and score them too",
    )
    beside.add_argument(
        "--orders", type=int, nargs="+", default=[5, 8], metavar="N", help="n-grams of so many ids, with --valid"
    )
    beside.add_argument("--float", type=Path, metavar="CHECKPOINT", help="score these weights in float32 too")
    evaluate_answers.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write what was measured here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and show tables. Raises AntiphonError for a model, corpus or window that cannot be used."""
    from antiphon.errors import AntiphonError

    if args.make_windows is not None:
        from antiphon.cli import evaluate_windows

        return evaluate_windows.make(args)
    if (args.windows is None) == (args.valid is None):
        raise AntiphonError("say what to measure it on: --windows FILE.jsonl, or --valid and a corpus")
    if args.answers is not None or args.sweep:
        if args.windows is None or args.answers is None:
            raise AntiphonError("--answers N and --windows FILE.jsonl go together", fix="name both")
        return evaluate_answers.run(args)
    if args.windows is not None:
        from antiphon.cli import evaluate_windows

        return evaluate_windows.run(args)
    from antiphon.cli import evaluate_pieces

    return evaluate_pieces.run(args)
