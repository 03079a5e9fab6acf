"""`antiphon bench decode`: tokens a second of one timeline, beside the memory's speed and whoever else is asked.

All contenders take turns in one run, so that other work on the machine slows all of them alike. Any model file will
do, or random weights of a shape. `--peer "llama-bench -m F.gguf -t {threads} -p 0 -n {tokens} -r 5 -o json"` races
llama.cpp.
"""

from __future__ import annotations

import argparse
from typing import Any

from antiphon.cli import bench_speed, peer


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("decode", help="tokens a second of one timeline", description=__doc__)
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens each time (default 128)")
    bench_speed.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, show a table, and write the figures where asked."""
    return bench_speed.run(args, bench_speed.Work(kind=peer.DECODE, tokens=args.tokens))
