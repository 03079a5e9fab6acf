"""`antiphon bench long`: that a long session takes no more memory and no more time a token than a short one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from antiphon.cli import bench_options
from antiphon.cli.figures import write_figures

STRETCHES = 10


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "long", help="whether a long session costs more than a short one", description=__doc__
    )
    parser.add_argument("--model", default="bundled", metavar="F", help="a model file (default: the bundled one)")
    parser.add_argument("--tokens", type=int, default=100_000, metavar="N", help="how many (default 100,000)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the model (default 1)")
    bench_options.add_device(parser)
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a long session, show a table, and write the figures where asked."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from antiphon.cli.machine import describe
    from antiphon.engine.bench_long import write_long

    for value, option in ((args.tokens, "--tokens"), (args.threads, "--threads")):
        bench_options.positive(value, option)
    machine = describe()
    subject = bench_options.subject_of(args.model, None)
    model = bench_options.loaded(subject, precision=args.precision, device=args.device, threads=args.threads)
    try:
        written = write_long(model, tokens=args.tokens, stretches=STRETCHES)
        console = Console(stderr=True)
        stretches = list(track(written, "writing", total=STRETCHES, console=console, transient=True))
    finally:
        model.close()
    grown = stretches[-1].resident_bytes - stretches[0].resident_bytes
    table = Table(title=f"{subject.name}: {stretches[-1].tokens:,} tokens")
    for heading in ("tokens", "resident MiB", "µs/token"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stretch in stretches:
        mib = stretch.resident_bytes / (1 << 20)
        table.add_row(f"{stretch.tokens:,}", f"{mib:,.1f}", f"{stretch.us_per_token:,.0f}")
    console = Console()
    console.print(table)
    console.print(
        f"grown by {grown / (1 << 20):+.1f} MiB from the first stretch to the last · {machine}", highlight=False
    )
    if args.json is not None:
        told = [
            {"tokens": one.tokens, "resident_bytes": one.resident_bytes, "us_per_token": round(one.us_per_token, 1)}
            for one in stretches
        ]
        head = {"machine": machine, "model": subject.name, "grown_bytes": grown}
        write_figures(args.json, head | {"stretches": told})
    return 0
