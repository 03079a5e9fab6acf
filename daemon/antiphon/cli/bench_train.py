"""`antiphon bench train`: tokens a second and memory of a training step by size, beside a naive loop.

The naive loop is the model's definition, a token at a time under autograd. The contenders take turns, so that other
work on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.figures import write_figures

if TYPE_CHECKING:
    from antiphon.training.bench import Speed

SIZES = ("6x256", "8x384", "12x384")
_WORDS = {"trainer": "trainer", "naive": "naive loop"}


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("train", help="tokens a second by size, beside a naive loop", description=__doc__)
    sizes = " ".join(SIZES)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="LxW", help=f"layers x width (default {sizes})")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="steps of every contender (default 3)")
    parser.add_argument("--batch-tokens", type=int, default=8192, metavar="N", help="the trainer's step (default 8192)")
    parser.add_argument("--context", type=int, default=1024, metavar="N", help="tokens a row (default 1024)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0 for all cores (default)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, show a table, and write the figures where asked."""
    import os

    from rich.console import Console
    from rich.progress import Progress

    from antiphon.cli.machine import describe
    from antiphon.errors import AntiphonError
    from antiphon.training.bench import measure, plans
    from antiphon.training.config import TrainingConfig

    if args.rounds < 1:
        raise AntiphonError(f"{args.rounds} rounds measure nothing", where="--rounds", fix="give 1 or more")
    threads = args.threads or len(os.sched_getaffinity(0))
    sizes = [_size(text) for text in args.sizes]
    for layers, width in sizes:
        # Refuses what no run could be made of, before anything is measured.
        TrainingConfig(layers=layers, width=width, context=args.context, batch_tokens=args.batch_tokens, steps=1)
    machine = describe()
    speeds: list[Speed] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=3 * args.rounds * len(sizes))
        for layers, width in sizes:
            contenders = plans(
                layers=layers, width=width, batch_tokens=args.batch_tokens, context=args.context, threads=threads
            )
            speeds += measure(contenders, rounds=args.rounds, progress=lambda: bar.advance(task))
    told = _told(speeds)
    _show(told, machine=machine, threads=threads, rounds=args.rounds)
    if args.json is not None:
        write_figures(args.json, {"machine": machine, "threads": threads, "train": told})
    return 0


def _size(text: str) -> tuple[int, int]:
    from antiphon.errors import AntiphonError

    layers, _, width = text.partition("x")
    try:
        return int(layers), int(width)
    except ValueError as error:
        raise AntiphonError(f"{text!r} is no size", where="--sizes", fix="write layers x width like 6x256") from error


def _told(speeds: list[Speed]) -> list[dict[str, Any]]:
    naive = {(s.plan.layers, s.plan.width): s.median for s in speeds if s.plan.kind == "naive"}
    return [
        {
            "size": f"{speed.plan.layers}x{speed.plan.width}",
            "what": _WORDS[speed.plan.kind],
            "tokens_per_step": speed.plan.rows * speed.plan.tokens,
            "tokens_per_s": {"median": round(speed.median, 1), "best": round(max(speed.rounds), 1)},
            "times_naive": round(speed.median / naive[speed.plan.layers, speed.plan.width], 2),
            "peak_bytes": speed.peak_bytes,
            "rounds": [round(figure, 1) for figure in speed.rounds],
        }
        for speed in speeds
    ]


def _show(told: list[dict[str, Any]], *, machine: str, threads: int, rounds: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"training on batches of so many tokens, {threads} threads")
    table.add_column("size", no_wrap=True)
    table.add_column("what", no_wrap=True)
    for heading in ("batch", "tokens/s", "best", "x naive", "peak MB", "KB/token"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in told:
        table.add_row(
            row["size"],
            row["what"],
            f"{row['tokens_per_step']:,}",
            f"{row['tokens_per_s']['median']:,.0f}",
            f"{row['tokens_per_s']['best']:,.0f}",
            f"{row['times_naive']:.1f}",
            f"{row['peak_bytes'] / 1e6:,.0f}",
            f"{row['peak_bytes'] / 1e3 / row['tokens_per_step']:,.0f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"{machine}; medians of {rounds} rounds in turn. Peak: what the process grew by, its libraries left out.",
        highlight=False,
    )
