"""`antiphon bench music-first`: whether a session's tokens are on time while texts want all of the model's time.

Every token of the session is asked for by itself, just before it is due: as many as sixteenth notes of four tokens each
make at the tempo. On each bar line an answer begins, of which the worker hears `commit` before. Beside it texts are
written, and a long prompt is read again and again. The same session alone, and the texts alone, are run for comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli import bench_options
from antiphon.cli.figures import write_figures
from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from antiphon.engine.bench_first import Heard

_TOKENS_PER_QUARTER = 16  # four sixteenths of a note each: position, pitch, velocity, duration
_QUARTERS_PER_BAR = 4
_COMMIT_MS = 60  # as in etc/antiphon.yaml
_MS = 1e6


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("music-first", help="whether music is on time beside texts", description=__doc__)
    parser.add_argument("--model", default="bundled", metavar="F", help="the music model (default: the bundled one)")
    parser.add_argument("--text-model", metavar="F", help="the texts' model (default: random weights of --shape)")
    parser.add_argument("--shape", default="0.1B", metavar="LxD[xV]", help="of the texts' model (default 0.1B)")
    bench_options.add_device(parser)
    parser.add_argument("--bpm", type=float, default=240.0, help="quarters a minute (default 240)")
    parser.add_argument("--texts", type=int, default=16, metavar="N", help="texts that are written (default 16)")
    parser.add_argument("--prefill", type=int, default=4000, metavar="N", help="tokens of the prompt (default 4000)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="length of each scene (default 20)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each model (default 1)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play the scenes, show a table, and write the figures where asked. 1 when the music was late beside texts."""
    import threading

    from rich.console import Console
    from rich.progress import Progress

    from antiphon.cli.machine import describe
    from antiphon.engine.bench_first import Load, Session, play

    for value, option in ((args.texts, "--texts"), (args.prefill, "--prefill"), (args.threads, "--threads")):
        bench_options.positive(value, option)
    if not (20 <= args.bpm <= 400 and args.seconds > 0):
        raise AntiphonError("a tempo is 20 to 400, and a scene takes time", where="--bpm, --seconds")
    machine = describe()
    quarter_ns = round(60e9 / args.bpm)
    session = Session(
        every_ns=quarter_ns // _TOKENS_PER_QUARTER,
        bar_ns=quarter_ns * _QUARTERS_PER_BAR,
        commit_ns=round(_COMMIT_MS * _MS),
    )
    len_ns, ended = round(args.seconds * 1e9), threading.Event()
    told = []
    with Progress(console=Console(stderr=True), transient=True) as bar, contextlib.ExitStack() as models:
        task = bar.add_task("loading", total=None)
        subjects = (
            bench_options.subject_of(args.model, None),
            bench_options.subject_of(args.text_model, None if args.text_model else args.shape),
        )
        music, text = (
            bench_options.loaded(subject, precision=args.precision, device=args.device, threads=args.threads)
            for subject in subjects
        )
        models.callback(music.close)
        models.callback(text.close)
        load = Load(model=text, texts=args.texts, prefill=args.prefill)
        bar.update(task, description="playing", total=3)
        for scene, playing, beside in (
            ("music alone", music, None), ("texts alone", None, load), ("music and texts", music, load),
        ):  # fmt: skip
            told.append({"scene": scene} | _told(play(playing, session, load=beside, len_ns=len_ns, ended=ended)))
            bar.advance(task)
    title = (
        f"{args.bpm:g} BPM beside {args.texts} texts and a prompt of {args.prefill:,} tokens, threads: {args.threads}"
    )
    _show(told, title=title, machine=machine)
    if args.json is not None:
        head = {"machine": machine, "bpm": args.bpm, "texts": args.texts, "prefill": args.prefill}
        write_figures(args.json, head | {"scenes": told})
    return 1 if told[-1]["missed"] else 0


def _told(heard: Heard) -> dict[str, Any]:
    return {
        "missed": sum(late > 0 for late in (*heard.late, *heard.answers_late)),
        "late_ms": _spread(heard.late),
        "answers_late_ms": _spread(heard.answers_late),
        "waited_ms": _spread(heard.waited),
        "slices_ms": _spread(heard.slices),
        "text_tokens_per_s": round(heard.text_per_s, 1),
        "prefills": len(heard.prefills),
        "prefill_s": round(sum(heard.prefills) / len(heard.prefills) / 1e9, 3) if heard.prefills else None,
    }


def _spread(values_ns: list[int]) -> dict[str, float]:
    """Percentiles in milliseconds; of nothing there are none."""
    from antiphon.cli.timing import lateness

    return lateness([value / _MS for value in values_ns]) if values_ns else {"count": 0}


def _show(told: list[dict[str, Any]], *, title: str, machine: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{title}; ms, p50 / p99 / max, below 0 is early")
    table.add_column("scene", no_wrap=True, min_width=15)
    for heading in ("tokens", "missed", "late", "answers late", "waited", "slices", "text/s", "prompt s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in told:
        figures = [
            "{p50:.2f} / {p99:.2f} / {max:.2f}".format(**row[key]) if row[key]["count"] else ""
            for key in ("late_ms", "answers_late_ms", "waited_ms", "slices_ms")
        ]
        table.add_row(
            row["scene"],
            f"{row['late_ms']['count']:,}",
            str(row["missed"]),
            *figures,
            f"{row['text_tokens_per_s']:,.0f}",
            "" if row["prefill_s"] is None else f"{row['prefill_s']:.2f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    console.print(machine, highlight=False)
