"""`antiphon models merge`: a model with adapters, or a start state, in it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from antiphon.cli import models_convert
from antiphon.library.bundled import named


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "merge",
        help="write a model with adapters or a start state in it",
        description="Merge LoRA, PiSSA, Bone and Bat adapters into a model, in the order in which they are given, and "
        "write it in any form that `antiphon models convert` knows. A LoRA's alpha is not in its file: it is read from "
        'a JSON beside it (FILE.json with {"alpha": 32}, or PEFT\'s adapter_config.json), or given here.',
    )
    parser.add_argument("base", type=named, metavar="BASE", help="what the adapter was trained on, or: bundled")
    parser.add_argument("out", type=Path, metavar="OUT", help="the new file")
    parser.add_argument("--adapter", "--lora", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha, of every adapter given")
    parser.add_argument("--init", type=Path, metavar="FILE", help="the factors that PiSSA began with (init_pissa.pth)")
    parser.add_argument(
        "--base-quant",
        choices=("nf4", "fp4", "4bit", "int8"),
        help="how the base was quantized while PiSSA learnt",
    )
    parser.add_argument("--state", type=Path, metavar="FILE", help="a start state to put in")
    parser.add_argument("--transpose-state", action="store_true", help="swap the axes of its matrices")
    models_convert.add_form_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge. Raises FileError for what cannot be read, fitted or written."""
    from antiphon.errors import AntiphonError
    from antiphon.model.adapter_file import AdapterFile
    from antiphon.model.merged import MergedSource
    from antiphon.model.source import open_source
    from antiphon.model.states import StartState

    if not args.adapter and args.state is None:
        raise AntiphonError("there is nothing to merge", fix="give --adapter FILE or --state FILE")
    if args.alpha is not None and not args.alpha > 0:
        raise AntiphonError(f"an alpha of {args.alpha} undoes or turns the adapter", where="--alpha")
    base = open_source(args.base)
    files = [
        AdapterFile(path=path, alpha=args.alpha, first=args.init, rounding=args.base_quant) for path in args.adapter
    ]
    state = None
    if args.state is not None:
        state = StartState.of_file(args.state, base.spec, transpose=args.transpose_state)
    elif args.transpose_state:
        raise AntiphonError("there is no start state to turn", where="--transpose-state", fix="give --state FILE too")
    return models_convert.write(MergedSource.open(base, files, start_state=state), args.out, args)
