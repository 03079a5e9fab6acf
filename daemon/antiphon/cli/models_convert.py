"""`antiphon models convert`: a model file in another form or precision."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from antiphon.library.bundled import named


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "convert",
        help="write a model file in another form or precision",
        description="Write a model in another form, tensor by tensor, so that little more than the largest tensor is "
        "in memory. OUT takes its place only when all of it is written.",
    )
    # The names that candle_rwkv7's converter gives them work too.
    parser.add_argument("source", nargs="?", type=named, metavar="IN", help="a model of any form, or: bundled")
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="the new file, or a folder for candle's two")
    parser.add_argument("--src", "--in", dest="src", type=named, help=argparse.SUPPRESS)
    parser.add_argument("--dest", type=Path, help=argparse.SUPPRESS)
    add_form_arguments(parser)
    parser.set_defaults(run=run)


def add_form_arguments(parser: argparse.ArgumentParser) -> None:
    """What says how the new file is to be written."""
    parser.add_argument(
        "--to",
        default="safetensors",
        choices=("safetensors", "candle", "web-rwkv", "rwkv.cpp"),
        help="whose form: official names in safetensors (default), candle_rwkv7's with a config.json, web-rwkv's or "
        "rwkv.cpp's",
    )
    parser.add_argument(
        "--quantize",
        default="",
        metavar="P",
        help="what the matrices become: fp32, bf16, fp16, int8, int8-groups or int4; for rwkv.cpp fp32, fp16 (default) "
        "or Q4_0, Q4_1, Q5_0, Q5_1, Q8_0",
    )
    parser.add_argument("--strategy", metavar="S", help="the same as a strategy of the rwkv package: 'cpu fp16i8'")
    parser.add_argument("--config", type=Path, metavar="F", help="candle's config.json (default: beside OUT)")


def run(args: argparse.Namespace) -> int:
    """Convert. Raises FileError for what cannot be read or written."""
    from antiphon.errors import AntiphonError
    from antiphon.model.source import open_source

    source, out = args.source or args.src, args.out or args.dest
    if source is None or out is None:
        raise AntiphonError("name a model and the file to write", fix="antiphon models convert IN OUT")
    return write(open_source(source), out, args)


def write(source: Any, out: Path, args: argparse.Namespace) -> int:
    """Write `source` to `out` in the form that `args` asks for, and tell how large it became."""
    import sys

    from antiphon.errors import AntiphonError, FileError
    from antiphon.model.convert import Form, convert

    if args.strategy is not None and args.quantize:
        raise AntiphonError("--strategy and --quantize say the same", fix="give one of them")
    if args.config is not None and args.to != "candle":
        raise AntiphonError(f"the {args.to} form has no config.json", where="--config", fix="give --to candle too")
    if out.is_dir():
        if args.to != "candle":
            raise FileError("is a folder", where=str(out), fix="name the file to write")
        out = out / "model.safetensors"
    quantize = _precision(args.strategy) if args.strategy is not None else args.quantize.lower()
    lost = convert(source, out, form=Form(args.to), quantize=quantize, config=args.config)
    for sentence in lost:
        print(f"antiphon: {sentence}", file=sys.stderr)
    spec = source.spec
    print(f"{out}: RWKV-{spec.version}, {spec.n_layer} layers x {spec.n_embd}, {out.stat().st_size / 1e6:,.1f} MB")
    return 0


def _precision(strategy: str) -> str:
    """The precision that a strategy asks for. Raises AntiphonError."""
    from antiphon.engine.strategy import placement_of

    return placement_of(strategy).precision.value
