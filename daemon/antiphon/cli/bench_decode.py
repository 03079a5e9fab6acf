"""`antiphon bench decode`: tokens a second of a model, on one thread and two, beside the plain PyTorch step.

The contenders take turns, so that other work on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.engine.bench import Report, Speed
    from antiphon.model.spec import ModelSpec


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("decode", help="tokens a second, beside plain PyTorch", description=__doc__)
    parser.add_argument("--model", default="bundled", help="a music model (default: the bundled one)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contender (default 9)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, show a table, and write the figures where asked."""
    from rich.console import Console
    from rich.progress import Progress

    from antiphon.cli.machine import describe
    from antiphon.engine.bench import measure
    from antiphon.errors import AntiphonError
    from antiphon.library.bundled import model_path
    from antiphon.model.checkpoint import read

    if args.rounds < 1:
        raise AntiphonError(f"{args.rounds} rounds measure nothing", where="--rounds", fix="give 1 or more")
    path, machine = model_path(args.model), describe()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("decoding", total=args.rounds)
        report = measure(path, rounds=args.rounds, progress=lambda done: bar.update(task, completed=done))
    spec = read(path).spec
    told = _told(report, machine=machine, path=path, spec=spec)
    _show(report, machine=machine, path=path, spec=spec)
    if args.json is not None:
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def _told(report: Report, *, machine: str, path: Path, spec: ModelSpec) -> dict[str, Any]:
    peer = {speed.threads: speed for speed in report.speeds if speed.name != report.speeds[0].name}
    return {
        "machine": machine,
        "model": {"file": path.name, "spec": json.loads(spec.to_json()), "parameters": spec.parameters},
        "decode": [
            {
                "what": speed.name,
                "threads": speed.threads,
                "timelines": speed.timelines,
                "tokens_per_s": {"median": round(speed.median, 1), "best": round(speed.best, 1)},
                "us_per_token": round(_us_per_token(speed), 1),
                "times_pytorch": round(speed.median / peer[speed.threads].median, 2),
                "rounds": [round(figure, 1) for figure in speed.rounds],
            }
            for speed in report.speeds
        ],
        "open_s": round(report.open_s, 3),
        "fork_us": round(report.fork_us, 1),
        "sample_us": round(report.sample_us, 1),
        "state_bytes": report.state_bytes,
        "packed_bytes": report.packed_bytes,
    }


def _us_per_token(speed: Speed) -> float:
    """How long one timeline waits for a token."""
    return 1e6 * speed.timelines / speed.median


def _show(report: Report, *, machine: str, path: Path, spec: ModelSpec) -> None:
    from rich.console import Console
    from rich.table import Table

    peer = {speed.threads: speed for speed in report.speeds if speed.name != report.speeds[0].name}
    rounds = len(report.speeds[0].rounds)
    table = Table(title=f"{path.name}: {spec.n_layer} layers x {spec.n_embd}, vocabulary {spec.vocab_size}")
    table.add_column("step", no_wrap=True)
    for heading in ("threads", "timelines", "tokens/s", "best", "µs/token", "x PyTorch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for speed in report.speeds:
        table.add_row(
            speed.name,
            str(speed.threads),
            str(speed.timelines),
            f"{speed.median:,.0f}",
            f"{speed.best:,.0f}",
            f"{_us_per_token(speed):,.0f}",
            f"{speed.median / peer[speed.threads].median:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"opened in {report.open_s:.2f} s · fork {report.fork_us:.0f} µs · sample {report.sample_us:.0f} µs · "
        f"state {report.state_bytes:,} bytes · weights {report.packed_bytes / 1e6:.1f} MB",
        highlight=False,
    )
    console.print(f"{machine}; medians of {rounds} rounds in turn", highlight=False)
