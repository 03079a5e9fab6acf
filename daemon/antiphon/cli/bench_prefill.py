"""`antiphon bench prefill`: tokens a second of a text fed at once, beside the memory's speed and whoever else is asked.

All contenders take turns in one run. `--peer "llama-bench -m F.gguf -t {threads} -p {tokens} -n 0 -r 5 -o json"` races
llama.cpp.
"""

from __future__ import annotations

import argparse
from typing import Any

from antiphon.cli import bench_speed, peer


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("prefill", help="tokens a second of a text fed at once", description=__doc__)
    parser.add_argument("--tokens", type=int, default=512, metavar="N", help="tokens of the text (default 512)")
    bench_speed.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, show a table, and write the figures where asked."""
    return bench_speed.run(args, bench_speed.Work(kind=peer.PREFILL, tokens=args.tokens))
