"""`antiphon answer IN.mid -o OUT.mid`: continue a MIDI file from its next bar line, offline."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.sampling_options import add_sampling_options, sampling_of

if TYPE_CHECKING:
    from antiphon.music.note import Piece
    from antiphon.session.offline import Continuation


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser("answer", help="continue a MIDI file from its next bar line", description=__doc__)
    parser.add_argument("input", metavar="IN.mid", type=Path, help="the bars to answer")
    parser.add_argument("-o", "--output", metavar="OUT.mid", type=Path, required=True, help="where the music goes")
    parser.add_argument("--bars", type=int, default=4, metavar="M", help="bars of the answer, 1 to 256 (default 4)")
    parser.add_argument("--context-bars", type=int, default=64, metavar="N", help="bars heard before it (default 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same answer")
    add_sampling_options(parser)
    parser.add_argument(
        "--likeness", type=float, default=1.0, metavar="L", help="how closely to keep to what was heard"
    )
    parser.add_argument("--open-ending", action="store_true", help="end anywhere, not on a strong beat alone")
    parser.add_argument("--copies", action="store_true", help="let bars that were heard come again, note for note")
    parser.add_argument("--model", default="bundled", metavar="FILE", help="a music model; default: the bundled one")
    parser.add_argument("--answer-only", action="store_true", help="begin the file at the answer's first bar line")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer one file. Raises AntiphonError for a bad file or option."""
    from antiphon.errors import AntiphonError
    from antiphon.library.bundled import model_path
    from antiphon.music.meter import COMMON_TIME, MeterMap
    from antiphon.music.midi_file import Part, read_piece, write_parts
    from antiphon.music.tempo import TempoMap
    from antiphon.session.answer import Ask
    from antiphon.session.leaning import Likeness
    from antiphon.session.offline import continue_piece, moved, parts_of
    from antiphon.session.voice import Voice

    for name, value, most in (("--bars", args.bars, 256), ("--context-bars", args.context_bars, 100_000)):
        if not 1 <= value <= most:
            raise AntiphonError(f"{name} is {value}, but must be from 1 to {most}")
    if not 0 <= args.likeness <= 4:
        raise AntiphonError(f"--likeness is {args.likeness}, but must be from 0 to 4")
    if args.seed < 0:
        raise AntiphonError(f"--seed is {args.seed}, but must be 0 or more")
    sampling = sampling_of(args)
    piece = read_piece(args.input)
    voice = Voice.open(model_path(args.model))
    ask = Ask(
        meter=COMMON_TIME,
        bars=args.bars,
        sampling=sampling,
        seed=args.seed,
        likeness=Likeness.of(args.likeness),
        closes=not args.open_ending,
        copies=args.copies,
    )
    answer = continue_piece(piece, voice=voice, ask=ask, context_bars=args.context_bars)
    if args.answer_only:
        _, response = parts_of(piece, answer)
        notes = moved(response.notes, by_ticks=-answer.line.tick)
        write_parts(
            args.output,
            parts=[Part(response.name, notes, response.channel)],
            meters=MeterMap.of([(0, answer.line.meter)]),
            tempos=TempoMap.of([(0, piece.tempos.bpm_at(answer.line.tick))]),
            end_tick=answer.end_tick - answer.line.tick,
        )
    else:
        write_conversation(args.output, piece, answer)
    told = {
        "input": str(args.input),
        "output": str(args.output),
        "context_bars": answer.context_bars,
        "bars": args.bars,
        "first_bar": answer.line.number + 1,
        "meter": str(answer.line.meter),
        "notes": len(answer.notes),
        "tokens": answer.tokens,
        "nats_per_note": round(answer.nats_per_note, 4),
        "seconds": round(answer.seconds, 4),
        "seed": args.seed,
        "sampling": asdict(sampling),
        "likeness": args.likeness,
        "closes": ask.closes,
        "copies": ask.copies,
        "model": str(args.model),
    }
    if args.json:
        print(json.dumps(told))
    else:
        print(
            f"{args.output}: {answer.context_bars} bars heard; {args.bars} bars of {answer.line.meter} answered "
            f"from bar {answer.line.number + 1} on: {len(answer.notes)} notes at "
            f"{answer.nats_per_note:.2f} nats a note, {answer.tokens} tokens in {answer.seconds:.2f} s"
        )
    return 0


def write_conversation(path: Path, piece: Piece, answer: Continuation) -> None:
    """Write prompt and answer as two parts of one MIDI file, each with a marker. Raises FileError."""
    from antiphon.music.midi_file import write_parts
    from antiphon.session.offline import parts_of

    write_parts(
        path,
        parts=list(parts_of(piece, answer)),
        meters=piece.meters,
        tempos=piece.tempos,
        end_tick=answer.end_tick,
        markers=[(0, "Prompt"), (answer.line.tick, "Answer")],
    )
