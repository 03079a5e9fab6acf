"""`antiphon check`: is this configuration usable?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="tell every mistake in a configuration",
        description="Tell every mistake in a configuration at once, each with its file, line and setting.",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="F", help="the file; without it, this machine's own")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from antiphon.config import load

    load(args.file)
    print("ok")
    return 0
