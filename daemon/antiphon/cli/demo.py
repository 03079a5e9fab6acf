"""`antiphon demo`: play a phrase to the real daemon on its default configuration, and show what it answered."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.cli.rehearsal import Message, Record
    from antiphon.music.note import Note

_LEAD_NS = 300_000_000


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("demo", help="play a phrase to the daemon and show its answer", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where demo.mid and demo.png go")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play, listen, draw. Exit code 1 if no answer came."""
    from antiphon.cli.phrase import NAME, phrase
    from antiphon.cli.piano_roll import System, as_picture, as_text
    from antiphon.cli.rehearsal import Message, Rehearsal, midi_system
    from antiphon.config.load import load
    from antiphon.music.meter import Meter, MeterMap
    from antiphon.music.midi_file import Part, write_parts
    from antiphon.music.tempo import TempoMap

    config = load(None)
    player = next(player for player in config.players if player.enabled)
    meter, bpm = Meter.parse(config.clock.meter), config.clock.bpm
    ns_per_tick = 60e9 / (bpm * 960)
    bar_ns = round(meter.len_ticks * ns_per_tick)
    with midi_system() as (api, called):
        print(f"Starting the daemon on {called} …", flush=True)
        with Rehearsal(api=api, device="Demo Keys") as rehearsal:
            print(f"Ready after {rehearsal.ready_s:.1f} s. Playing {NAME} at {bpm:g} quarters a minute:", flush=True)
            start_ns = time.monotonic_ns() + _LEAD_NS
            messages = [
                Message(start_ns + round(tick * ns_per_tick), data)
                for note in phrase()
                for tick, data in (
                    (note.start_tick, bytes((0x90, note.pitch, note.velocity))),
                    (note.end_tick, bytes((0x80, note.pitch, 0))),
                )
            ]
            rehearsal.play(sorted(messages, key=lambda m: (m.at_ns, m.data[0])), on_wait=_progress(start_ns, bar_ns))
            answer_ns = start_ns + player.listen_bars * bar_ns
            end_ns = answer_ns + player.answer_bars * bar_ns + 400_000_000
            while time.monotonic_ns() < end_ns:
                _progress(start_ns, bar_ns)()
                rehearsal.wait_until(min(end_ns, time.monotonic_ns() + 200_000_000))
            records = rehearsal.records()
            received = tuple(rehearsal.received)
    if sys.stdout.isatty():
        print("\r" + " " * 40 + "\r", end="")
    answers = [r for r in records if r["kind"] == "answer"]
    if not answers:
        print("antiphon: no answer came", file=sys.stderr)
        return 1
    line_ns = answers[0]["line_ns"]
    origin_ns = line_ns - player.listen_bars * bar_ns
    heard = _notes(
        (Message(r["at_ns"], bytes.fromhex(r["data"])) for r in records if r["kind"] == "heard"), origin_ns, bpm
    )
    released = [r for r in records if r["kind"] == "released" and r["note"] and r["due_ns"] >= line_ns]
    answered = _notes((Message(r["due_ns"], bytes.fromhex(r["data"])) for r in released), origin_ns, bpm)
    answer_tick = player.listen_bars * meter.len_ticks
    systems = [
        System("You play", 1, player.listen_bars, heard, "█"),
        System("Antiphon answers", player.listen_bars + 1, player.answer_bars, _from(answered, answer_tick), "█"),
    ]
    for system in systems:
        print("\n".join(as_text(system, meter)), end="\n\n")
    _show_timing(answers[0], released, received)
    mid, png = args.out / "demo.mid", args.out / "demo.png"
    end_tick = answer_tick + player.answer_bars * meter.len_ticks
    write_parts(
        mid,
        parts=[Part("You", heard, channel=0), Part("Antiphon", answered, channel=1)],
        meters=MeterMap.of([(0, meter)]),
        tempos=TempoMap.of([(0, bpm)]),
        end_tick=end_tick,
        markers=[(0, "You"), (answer_tick, "Antiphon")],
    )
    as_picture(systems, meter, png, title=f"{NAME}, and Antiphon's answer")
    print(f"Wrote {mid} (opens in a DAW aligned to bar 1) and {png} (piano roll).")
    return 0


def _progress(start_ns: int, bar_ns: int) -> Any:
    def show() -> None:
        if sys.stdout.isatty():
            bar = (time.monotonic_ns() - start_ns) // bar_ns + 1
            print(f"\r  bar {max(1, bar)} ", end="", flush=True)

    return show


def _notes(messages: Any, origin_ns: int, bpm: float) -> tuple[Note, ...]:
    """The notes that `messages` play, in ticks from `origin_ns`."""
    from antiphon.music.keyboard import Keyboard

    keyboard, notes, tick = Keyboard(), [], 0
    for message in sorted(messages, key=lambda m: (m.at_ns, m.data[0])):
        tick = max(0, round((message.at_ns - origin_ns) * bpm * 960 / 60e9))
        notes += keyboard.hear(message.data, at_tick=tick)
    return tuple(sorted([*notes, *keyboard.end_all(at_tick=tick)]))


def _from(notes: tuple[Note, ...], tick: int) -> tuple[Note, ...]:
    from dataclasses import replace

    return tuple(replace(note, start_tick=note.start_tick - tick) for note in notes)


def _show_timing(answer: Record, released: list[Record], received: tuple[Message, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    from antiphon.cli.timing import lateness

    onsets = [r for r in released if int(r["data"][0], 16) == 9]
    late = lateness([(r["at_ns"] - r["due_ns"]) / 1e6 for r in onsets])
    first = next((r for r in onsets if r["due_ns"] == answer["line_ns"]), None)
    arrived = [m.at_ns for m in received if m.data[0] & 0xF0 == 0x90 and m.at_ns >= answer["line_ns"]]
    table = Table(title="Timing", show_header=False)
    if first is not None:
        table.add_row("first onset, against the bar line", f"{(first['at_ns'] - answer['line_ns']) / 1e6:+.2f} ms")
    if arrived:
        table.add_row("the same, as the keyboard received it", f"{(arrived[0] - answer['line_ns']) / 1e6:+.2f} ms")
    table.add_row("lateness of all onsets, p50 / p99 / max", f"{late['p50']} / {late['p99']} / {late['max']} ms")
    table.add_row("first sent before the bar line by", f"{(answer['line_ns'] - answer['sent_ns']) / 1e6:.0f} ms")
    table.add_row("planned", f"{answer['plans']} times, knowing {answer['used']} of {len(answer['onsets_ns'])} onsets")
    table.add_row("the model", f"{answer['tokens'] / max(1, answer['spent_ns']) * 1e9:,.0f} tokens/s")
    Console().print(table)
