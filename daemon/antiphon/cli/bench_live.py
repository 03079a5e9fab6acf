"""`antiphon bench live`: how punctual the answers are, through real ports, beside a bare timer in the same run.

A device plays a bar and is answered a bar, over and over, in time with itself. What counts is the first answered onset
that belongs on the bar line: when the daemon released it, and when the device received it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.figures import write_figures

if TYPE_CHECKING:
    from antiphon.cli.rehearsal import Message, Record
    from antiphon.music.meter import Meter

_LEAD_NS = 500_000_000
_MS = 1e6


@dataclass(frozen=True, slots=True)
class Scene:
    """One run: a tempo (quarters a minute), a meter, how many answers, with every core busy or not."""

    bpm: float
    meter: str
    answers: int
    busy: bool

    @property
    def name(self) -> str:
        return f"{self.meter} at {self.bpm:g}, {'busy' if self.busy else 'idle'}"


_FULL: tuple[tuple[float, str, int], ...] = (
    *((240.0, "4/4", 300), (120.0, "4/4", 100), (60.0, "4/4", 20)),
    *((120.0, "3/4", 20), (120.0, "6/8", 20)),
)


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("live", help="how punctual the answers are", description=__doc__)
    parser.add_argument("--bpm", type=float, default=240.0, help="quarters a minute (default 240)")
    parser.add_argument("--meter", default="4/4")
    parser.add_argument("--answers", type=int, default=20, help="answers to wait for (default 20)")
    parser.add_argument("--minutes", type=float, help="play this long instead of counting answers")
    parser.add_argument(
        "--load",
        choices=("idle", "busy", "both"),
        help="busy keeps every core at work (default: idle, with --full both)",
    )
    parser.add_argument("--full", action="store_true", help="several tempos and meters: about 20 minutes a load")
    parser.add_argument("--model", default="bundled", help="a music model (default: the bundled one)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the scenes; exit code 1 if a bar line stayed without its onset."""
    from antiphon.cli.machine import describe
    from antiphon.cli.rehearsal import midi_system

    played = _FULL
    if not args.full:
        answers = args.answers
        if args.minutes is not None:
            answers = max(1, round(args.minutes * 60e9 / (2 * _bar_ns(args.bpm, args.meter))))
        played = ((args.bpm, args.meter, answers),)
    load = args.load or ("both" if args.full else "idle")
    loads = {"idle": (False,), "busy": (True,), "both": (False, True)}[load]
    scenes = [Scene(bpm, meter, answers, busy) for busy in loads for bpm, meter, answers in played]
    figures: list[dict[str, Any]] = []
    with midi_system() as (api, called):
        told = {"machine": describe(), "midi": called, "scenes": figures}
        try:
            for scene in scenes:
                print(f"{scene.name}: {scene.answers} answers on {called} …", file=sys.stderr, flush=True)
                figures.append(_play(scene, api=api, model=args.model))
        finally:  # what has been measured in many minutes is told, whatever ends the rest
            if figures:
                _show(told)
                if args.json is not None:
                    write_figures(args.json, told)
    return 1 if any(figure["missed"] for figure in figures) else 0


def _bar_ns(bpm: float, meter: str) -> int:
    from antiphon.music.meter import Meter

    return round(Meter.parse(meter).len_ticks * 60e9 / (bpm * 960))


def _play(scene: Scene, *, api: Any, model: str) -> dict[str, Any]:
    from antiphon.cli.rehearsal import Rehearsal
    from antiphon.cli.timing import lateness
    from antiphon.music.meter import Meter

    meter = Meter.parse(scene.meter)
    bar_ns = _bar_ns(scene.bpm, scene.meter)
    config = (
        f"clock: {{bpm: {scene.bpm}, meter: {scene.meter}}}\n"
        "players: [{name: bench, input: 'Rehearsal*', output: 'Rehearsal*', listen_bars: 1, answer_bars: 1}]\n"
        f"model: {{path: {json.dumps(model)}}}\n"
    )
    if api != "loopback":
        config += f"midi: {{api: {api}}}\n"
    with Rehearsal(api=api, config=config) as rehearsal, _busy(scene.busy), contextlib.ExitStack() as stack:
        before = _processor_s(rehearsal.process.pid)
        start_ns = time.monotonic_ns() + _LEAD_NS
        command = [sys.executable, "-m", "antiphon.ports.bare_timer"]
        numbers = (start_ns + bar_ns, 2 * bar_ns, scene.answers)
        timer = subprocess.Popen([*command, *map(str, numbers)], stdout=subprocess.PIPE)
        stack.callback(timer.kill)
        rehearsal.play(_calls(scene, meter, start_ns, bar_ns))
        rehearsal.wait_until(start_ns + 2 * scene.answers * bar_ns + bar_ns // 2)
        bare = json.loads(timer.communicate(timeout=30)[0])
        used = _processor_s(rehearsal.process.pid) - before
        seconds = (time.monotonic_ns() - start_ns) / 1e9
        records, received = rehearsal.records(), list(rehearsal.received)
    released = {r["due_ns"]: r for r in reversed(records) if r["kind"] == "released" and r["data"].startswith("9")}
    first = [_first_onset(answer, released, received) for answer in records if answer["kind"] == "answer"]
    played = [onset for onset in first if onset is not None]
    return asdict(scene) | {
        "name": scene.name,
        "ready_s": round(rehearsal.ready_s, 2),
        "answered": len(first),
        "missed": scene.answers - len(played),
        "released_late_ms": lateness([onset.released_late_ms for onset in played]),
        "received_late_ms": lateness(
            [onset.received_late_ms for onset in played if onset.received_late_ms is not None]
        ),
        "bare_timer_late_ms": lateness([late / _MS for late in bare["late_ns"]]),
        "bare_timer_priority": bare["priority"],
        "sent_ahead_ms": lateness([onset.ahead_ms for onset in played]),
        "dropped": sum(record["kind"] == "dropped" for record in records),
        "uncommitted": sum(answer["uncommitted"] for answer in map(_knowledge, records) if answer),
        "tokens_per_s": _rate(records),
        "daemon_cores": round(used / seconds, 4),
    }


def _calls(scene: Scene, meter: Meter, start_ns: int, bar_ns: int) -> Iterator[Message]:
    """A bar of quarters (of dotted quarters in 6/8), then a bar of silence, over and over."""
    from antiphon.cli.rehearsal import Message

    beats = meter.len_ticks // meter.beat_ticks
    beat_ns = bar_ns // beats
    scale = (60, 64, 67, 65, 62, 59, 55)
    for call in range(scene.answers):
        for beat in range(beats):
            at_ns = start_ns + 2 * call * bar_ns + beat * beat_ns
            pitch = scale[(call + 2 * beat) % len(scale)]
            yield Message(at_ns, bytes((0x90, pitch, 80 + 10 * (beat == 0))))
            yield Message(at_ns + 4 * beat_ns // 5, bytes((0x80, pitch, 0)))


@dataclass(frozen=True, slots=True)
class _Onset:
    released_late_ms: float
    received_late_ms: float | None
    ahead_ms: float


def _first_onset(answer: Record, released: dict[int, Record], received: list[Message]) -> _Onset | None:
    """The onset of `answer` on its bar line, as it was released and as the device received it; None if there is none.

    released: the first note-on due at each moment.
    """
    line_ns = answer["line_ns"]
    record = released.get(line_ns)
    if record is None:
        return None
    data = bytes.fromhex(record["data"])
    at = [m.at_ns for m in received if m.data == data and -1_000_000 < m.at_ns - record["at_ns"] < 200_000_000]
    return _Onset(
        (record["at_ns"] - line_ns) / _MS, (at[0] - line_ns) / _MS if at else None, (line_ns - answer["sent_ns"]) / _MS
    )


def _knowledge(record: Record) -> dict[str, int] | None:
    """How many onsets heard 60 ms or more before the bar line an answer's first onset did not know."""
    if record["kind"] != "answer":
        return None
    committed = sum(at_ns <= record["line_ns"] - 60_000_000 for at_ns in record["onsets_ns"])
    return {"uncommitted": max(0, committed - record["used"])}


def _rate(records: list[Record]) -> int:
    answers = [record for record in records if record["kind"] == "answer"]
    spent_s = sum(record["spent_ns"] for record in answers) / 1e9
    return round(sum(record["tokens"] for record in answers) / spent_s) if spent_s else 0


@contextlib.contextmanager
def _busy(busy: bool) -> Iterator[None]:
    """Every core at work, for as long as it lasts."""
    command = [sys.executable, "-c", "while True: sum(range(10000))"]
    burners = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)] if busy else []
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _processor_s(pid: int) -> float:
    """Processor seconds that a process and its living children have used."""
    ticks = 0
    pids = [pid]
    for known in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{known}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for task in Path(f"/proc/{known}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


def _show(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"First onset against the bar line, ms (p50 / p99 / max); {told['midi']}; {told['machine']}")
    for column in (
        "scene",
        "answers",
        "missed",
        "released",
        "bare timer",
        "received",
        "sent ahead",
        "tokens/s",
        "cores",
    ):
        table.add_column(column, justify="left" if column == "scene" else "right")
    for figure in told["scenes"]:
        row = [figure["name"], str(figure["answered"]), str(figure["missed"])]
        for key in ("released_late_ms", "bare_timer_late_ms", "received_late_ms"):
            row.append("{p50:.2f} / {p99:.2f} / {max:.2f}".format(**figure[key]))
        row += [f"{figure['sent_ahead_ms']['p50']:.0f}", f"{figure['tokens_per_s']:,}", f"{figure['daemon_cores']:.3f}"]
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
