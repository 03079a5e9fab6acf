"""`antiphon bench kernel NAME`: one kernel by itself, beside its definition, the memory's speed and peers.

`--list` names them. A peer's figure is calls a second.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli import bench_options, peer
from antiphon.cli.figures import write_figures
from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from antiphon.engine.bench import Speed
    from antiphon.engine.bench_case import Case, Kernel


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("kernel", help="one kernel by itself", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="which one")
    parser.add_argument("--list", action="store_true", help="name them all, and what they are called elsewhere")
    parser.add_argument("--shape", default="12x768", metavar="LxD[xV]", help="of this model (default 12x768)")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="so many tokens at once (default 1)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of every contender (default 3)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="figures in each turn (default 5)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    peer.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, show a table, and write the figures where asked. Raises AntiphonError."""
    from antiphon.cli.machine import describe
    from antiphon.engine import bench_memory
    from antiphon.engine.bench import Contender, race
    from antiphon.engine.bench_case import Load, timed
    from antiphon.engine.bench_kernels import kernels

    known = kernels()
    if args.list:
        _list(known)
        return 0
    kernel = _named(args.name, known)
    for value, option in ((args.rounds, "--rounds"), (args.repeats, "--repeats"), (args.rows, "--rows")):
        bench_options.positive(value, option)
    pattern, machine = peer.checked_pattern(args.peer_pattern), describe()
    case = kernel.case(Load(spec=bench_options.shape(args.shape), rows=args.rows))
    memory = bench_memory.memory_of(case.nbytes)
    contenders = [
        Contender(name=kernel.name, threads=1, run=timed(case.call, repeats=args.repeats)),
        Contender(name="its definition", threads=1, run=timed(case.plain, repeats=1)),
        bench_memory.reader(memory, name="memory", nbytes=case.nbytes, threads=1),
    ]
    for command in args.peer:
        peering = peer.peer(
            command, kind=peer.OTHER, pattern=pattern, timeout_s=args.peer_timeout_s,
            fill={"threads": 1, "tokens": args.rows, "batch": args.rows},
        )  # fmt: skip
        contenders.append(Contender(name=peer.name_of(command), threads=1, run=peering))
    ours, plain, limit, *peers = race(contenders, rounds=args.rounds)
    told = {
        "kernel": kernel.name,
        "size": case.size,
        "us": {"median": 1e6 / ours.median, "best": 1e6 / ours.best},
        "bytes": case.nbytes,
        "gb_per_s": case.nbytes * ours.median / 1e9,
        "giga_operations_per_s": case.operations * ours.median / 1e9,
        "memory_gb_per_s": {"median": limit.median, "best": limit.best},
        "share_of_memory": case.nbytes * ours.median / 1e9 / limit.best,
        "off_by": case.difference(),
        "definition_us": 1e6 / plain.median,
        "peers": [
            {"what": speed.name, "us": 1e6 / speed.median, "ours_is": ours.median / speed.median} for speed in peers
        ],
    }
    _show(told, case, (plain, *peers), machine=machine, rounds=args.rounds)
    if args.json is not None:
        write_figures(args.json, {"machine": machine, "rounds": args.rounds} | told)
    return 0


def _named(name: str | None, known: tuple[Kernel, ...]) -> Kernel:
    for kernel in known:
        if name == kernel.name or name in kernel.aliases:
            return kernel
    raise AntiphonError(
        "no kernel named" if name is None else f"no kernel is called {name!r}",
        where="bench kernel",
        fix=f"there are {', '.join(kernel.name for kernel in known)}",
    )


def _list(known: tuple[Kernel, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ("name", "what it does", "called elsewhere"):
        table.add_column(heading)
    for kernel in known:
        table.add_row(kernel.name, kernel.what, "\n".join(kernel.aliases))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _show(told: dict[str, Any], case: Case, others: tuple[Speed, ...], *, machine: str, rounds: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{told['kernel']}: {case.size}, one thread")
    table.add_column("what", no_wrap=True)
    for heading in ("µs", "best", "MB", "GB/s", "of memory", "Gop/s", "off by", "ours is"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row(
        told["kernel"],
        f"{told['us']['median']:,.4g}",
        f"{told['us']['best']:,.4g}",
        f"{told['bytes'] / 1e6:,.2f}",
        f"{told['gb_per_s']:,.1f}",
        f"{told['share_of_memory']:.0%}",
        f"{told['giga_operations_per_s']:,.1f}",
        f"{told['off_by']:.1e}",
        "",
    )
    for speed in others:
        ratio = 1e6 / speed.median / told["us"]["median"]
        table.add_row(
            speed.name, f"{1e6 / speed.median:,.4g}", f"{1e6 / speed.best:,.4g}", "", "", "", "", "", f"{ratio:.1f}x"
        )
    memory = told["memory_gb_per_s"]
    table.add_row("memory, as much", "", "", "", f"{memory['median']:,.1f}", "", "", "", "")
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(f"{machine}; medians, all of {rounds} rounds in turn", highlight=False)
