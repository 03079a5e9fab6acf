"""`antiphon bench batch`: tokens a second of timelines that decode together, by how many they are.

All contenders take turns in one run. A peer's command is run once for every size, `{batch}` filled in.
"""

from __future__ import annotations

import argparse
from typing import Any

from antiphon.cli import bench_options, bench_speed

KIND = "batch"
SIZES = (1, 2, 4, 8, 16, 64)


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "batch", help="tokens a second of timelines that decode together", description=__doc__
    )
    parser.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens of each each time (default 32)")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=SIZES,
        metavar="N",
        help=f"timelines (default {' '.join(map(str, SIZES))})",
    )
    bench_speed.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, show a table, and write the figures where asked."""
    sizes = [bench_options.positive(size, "--batch") for size in dict.fromkeys(args.batch)]
    return bench_speed.run(args, bench_speed.Work(kind=KIND, tokens=args.tokens, timelines=sizes))
