"""`antiphon dump`: the configuration that is in force, as YAML."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "dump",
        help="print the configuration that is in force",
        description="Print the configuration that is in force, as YAML that loads back to the same.",
    )
    parser.add_argument("--config", type=Path, metavar="F", help="read this file instead of this machine's own")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--changed", action="store_true", help="only what differs from the defaults")
    kind.add_argument("--reference", action="store_true", help="every key with its default and its reason instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from antiphon.config import dump, load, reference

    print(reference() if args.reference else dump(load(args.config), changed=args.changed), end="")
    return 0
