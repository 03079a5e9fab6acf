"""`antiphon listen PROMPT.mid … -o DIR`: answers to hear and to look at, on one page.

For every prompt the folder gets the prompt and its answer as a MIDI file, a piano roll, and, where FluidSynth and a
sound font are installed, the sound; `index.html` holds them all. Nothing is chosen: one answer a prompt and seed.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.sampling_options import add_sampling_options, sampling_of

if TYPE_CHECKING:
    from antiphon.music.note import Piece
    from antiphon.session.offline import Continuation

_SOUND_FONTS = ("/usr/share/sounds/sf2/default-GM.sf2", "/usr/share/sounds/sf2/FluidR3_GM.sf2")
_RENDER_LIMIT_S = 300
_GAIN = "0.6"


@dataclass(frozen=True, slots=True)
class _Heard:
    """One answer on the page: `sound` and `picture` are names within the folder."""

    name: str
    seed: int
    told: str
    picture: str
    sound: str | None


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "listen", help="answer MIDI files and lay the answers out to be heard", description=__doc__
    )
    parser.add_argument("prompts", metavar="PROMPT.mid", type=Path, nargs="+", help="the bars to answer")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--bars", type=int, default=4, metavar="M", help="bars of an answer, 1 to 256 (default 4)")
    parser.add_argument("--context-bars", type=int, default=64, metavar="N", help="bars heard before it (default 64)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="S", help="an answer for each (default 1)")
    add_sampling_options(parser)
    parser.add_argument("--model", default="bundled", metavar="FILE", help="a music model; default: the bundled one")
    parser.add_argument("--sound-font", type=Path, metavar="SF2", help="what FluidSynth plays with (default: look)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer, draw, render. Raises AntiphonError for a bad file or option."""
    from antiphon.errors import AntiphonError
    from antiphon.library.bundled import model_path
    from antiphon.music.meter import COMMON_TIME
    from antiphon.music.midi_file import read_piece, write_whole
    from antiphon.session.answer import Ask
    from antiphon.session.offline import continue_piece
    from antiphon.session.voice import Voice

    if not 1 <= args.bars <= 256 or args.context_bars < 1 or min(args.seeds) < 0:
        raise AntiphonError("--bars must be from 1 to 256, --context-bars 1 or more, and --seeds 0 or more")
    names = [path.stem for path in args.prompts]
    if len(set(names)) < len(names):
        raise AntiphonError("two prompts have the same file name", fix="their answers would overwrite each other")
    pieces = [read_piece(path) for path in args.prompts]
    sound_font = _sound_font(args.sound_font)
    sampling = sampling_of(args)
    voice = Voice.open(model_path(args.model))
    args.output.mkdir(parents=True, exist_ok=True)
    page: list[_Heard] = []
    for name, piece in zip(names, pieces, strict=True):
        for seed in args.seeds:
            ask = Ask(meter=COMMON_TIME, bars=args.bars, sampling=sampling, seed=seed)
            answer = continue_piece(piece, voice=voice, ask=ask, context_bars=args.context_bars)
            page.append(_laid_out(args.output, name, seed, piece, answer, bars=args.bars, sound_font=sound_font))
            print(f"{name}, seed {seed}: {page[-1].told}")
    write_whole(args.output / "index.html", _page(page, model=args.model).encode())
    print(f"{args.output / 'index.html'}: {len(page)} answers" + ("" if sound_font else ", without sound"))
    if sound_font is None:
        print("for sound install FluidSynth and a sound font (apt: fluidsynth, timgm6mb-soundfont)")
    return 0


def _laid_out(
    folder: Path, name: str, seed: int, piece: Piece, answer: Continuation, *, bars: int, sound_font: Path | None
) -> _Heard:
    from antiphon.cli.answer import write_conversation
    from antiphon.cli.piano_roll import System, as_picture
    from antiphon.session.offline import moved, parts_of

    stem = f"{name}-seed{seed}"
    midi = folder / f"{stem}.mid"
    write_conversation(midi, piece, answer)
    prompt, response = parts_of(piece, answer)
    line = answer.line
    heard_bars = max(1, min(answer.context_bars, 4))
    first = line.tick - heard_bars * line.meter.len_ticks
    heard = tuple(note for note in moved(prompt.notes, by_ticks=-first) if note.start_tick >= 0)
    systems = [
        System("prompt", line.number + 1 - heard_bars, heard_bars, heard, "█"),
        System("answer", line.number + 1, bars, tuple(moved(response.notes, by_ticks=-line.tick)), "█"),
    ]
    as_picture(systems, line.meter, folder / f"{stem}.png", title=f"{name}, seed {seed}")
    sound = None
    if sound_font is not None:
        sound = f"{stem}.ogg"
        _render(midi, folder / sound, sound_font)
    told = f"{len(answer.notes)} notes, {answer.nats_per_note:.2f} nats a note"
    return _Heard(name, seed, told, f"{stem}.png", sound)


def _sound_font(named: Path | None) -> Path | None:
    """The sound font to play with, or None where there is no sound to be had."""
    from antiphon.errors import FileError

    if named is not None:
        if not named.is_file():
            raise FileError("there is no such sound font", where=str(named))
        if shutil.which("fluidsynth") is None:
            raise FileError("FluidSynth is not installed", fix="apt install fluidsynth, or leave --sound-font out")
        return named
    found = [path for path in map(Path, _SOUND_FONTS) if path.is_file()]
    return found[0] if found and shutil.which("fluidsynth") else None


def _render(midi: Path, sound: Path, sound_font: Path) -> None:
    """MIDI to Ogg Vorbis with FluidSynth. Raises FileError when it fails."""
    from antiphon.errors import FileError

    command = ["fluidsynth", "-q", "-n", "-i", "-g", _GAIN, "-T", "oga", "-F", str(sound), str(sound_font), str(midi)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_RENDER_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FileError(f"FluidSynth did not render it: {error}", where=str(midi)) from error
    if ran.returncode or not sound.is_file():
        raise FileError(f"FluidSynth did not render it: {ran.stderr.strip()[-300:]}", where=str(midi))


def _page(answers: Sequence[_Heard], *, model: str) -> str:
    rows = []
    for each in answers:
        title = html.escape(f"{each.name}, seed {each.seed}")
        audio = f'<audio controls preload="none" src="{html.escape(each.sound)}"></audio>' if each.sound else ""
        midi = html.escape(f"{each.name}-seed{each.seed}.mid")
        rows.append(
            f'<section><h2>{title}</h2><p>{html.escape(each.told)} · <a href="{midi}">MIDI</a></p>{audio}'
            f'<img src="{html.escape(each.picture)}" alt="piano roll of {title}"></section>'
        )
    style = "body{font-family:sans-serif;max-width:70rem;margin:2rem auto}img{max-width:100%}audio{width:100%}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Antiphon answers</title><style>{style}</style>'
        f"<h1>Antiphon answers</h1><p>Model: {html.escape(Path(model).name)}. One answer a prompt and seed, "
        f"none chosen."
        f"</p>{''.join(rows)}</html>\n"
    )
