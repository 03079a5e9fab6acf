"""`antiphon evaluate --windows … --answers N`: what a model answers, beside humans and what simpler things answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.sampling_options import add_sampling_options, sampling_of

if TYPE_CHECKING:
    from antiphon.engine.sampling import Sampling
    from antiphon.evaluation.answers import AnswersReport
    from antiphon.evaluation.archive import Archive
    from antiphon.evaluation.call import Call
    from antiphon.evaluation.report import Sheet
    from antiphon.evaluation.systems import System
    from antiphon.session.voice import Voice
    from antiphon.training.corpus import Corpus

_NARROWEST = 110
"""Columns that the tables need; in a narrower terminal their lines run on."""

_FIRST, _FLOAT = "first model", "model, float32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of answers to the command `evaluate`."""
    of = parser.add_argument_group(
        "what it answers, instead of how well it foretells",
        description="Every system answers the windows with 4 bars of context; how the answers relate to their prompts "
        "is set beside how those of humans do. --train-dir: music for retrieval and n-grams, and to find copies in.",
    )
    of.add_argument("--answers", type=int, metavar="N", help="answers to N windows, evenly spread; 0 for all")
    of.add_argument("--seeds", type=int, default=3, metavar="N", help="answers to each window (default 3)")
    add_sampling_options(of)
    of.add_argument("--sweep", action="store_true", help="try many settings of the sampling, the model alone")
    of.add_argument("--plots", type=Path, metavar="DIR", help="draw what was found there")
    of.add_argument("--markdown", type=Path, metavar="OUT.md", help="write the tables and what they mean there")


def run(args: argparse.Namespace) -> int:
    """Let all answer, and show tables. Raises AntiphonError for what cannot be used."""
    from antiphon.errors import AntiphonError
    from antiphon.evaluation.answers import evaluate_answers
    from antiphon.evaluation.report import sheets
    from antiphon.evaluation.sweep import sweep_sheet, systems_of
    from antiphon.evaluation.systems import MODEL, simple_systems
    from antiphon.library.bundled import model_path
    from antiphon.session.voice import Voice

    if args.answers < 0 or args.seeds < 1:
        raise AntiphonError("--answers must be 0 or more, and --seeds 1 or more")
    sampling = sampling_of(args)
    path = model_path(args.model)
    voice = Voice.open(path)
    calls = _calls(args, voice)
    if args.sweep:
        systems = [simple_systems()[0], *systems_of(voice)]
        with _progress(calls, systems, args) as on_answer:
            report = evaluate_answers(calls, systems, voice.vocabulary, seeds=args.seeds, on_answer=on_answer)
        _give(args, path, report, [sweep_sheet(report)], best=())
        return 0
    train = _train(args, voice)
    systems, calls, archive, left_out = _systems(path, args, voice, sampling, calls, train)
    same = [(MODEL, _FLOAT)] if args.float is not None else []
    with _progress(calls, systems, args) as on_answer:
        report = evaluate_answers(
            calls,
            systems,
            voice.vocabulary,
            seeds=args.seeds,
            archive=archive,
            best=[MODEL],
            same=same,
            left_out=left_out,
            on_answer=on_answer,
        )
    _give(args, path, report, sheets(report), best=[MODEL])
    return 0


def _calls(args: argparse.Namespace, voice: Voice) -> list[Call]:
    from antiphon.evaluation.calls import calls_of
    from antiphon.evaluation.songs import read_songs
    from antiphon.evaluation.windows import read_windows

    windows = read_windows(args.windows)
    root = args.root if args.root is not None else args.windows.parent
    names = [Path(window.file).stem for window in windows]
    songs = read_songs(args.songs, names) if args.songs is not None else {}
    return calls_of(windows, root, songs, voice.vocabulary, most=args.answers)


def _train(args: argparse.Namespace, voice: Voice) -> Corpus | None:
    from antiphon.cli.corpora import open_corpus

    return open_corpus(args.train, voice.vocabulary, quiet=args.quiet) if args.train is not None else None


def _systems(
    path: Path,
    args: argparse.Namespace,
    voice: Voice,
    sampling: Sampling,
    calls: list[Call],
    train: Corpus | None,
) -> tuple[list[System], list[Call], Archive | None, int]:
    """Who answers, the calls that all can answer, the training music, and how many calls were left out."""
    from antiphon.errors import FileError
    from antiphon.evaluation.archive import Archive
    from antiphon.evaluation.float_voice import float_voice
    from antiphon.evaluation.retrieval import Retrieval
    from antiphon.evaluation.systems import MODEL, ModelAnswers, System, simple_systems, trained_systems
    from antiphon.library.bundled import FIRST
    from antiphon.model import checkpoint
    from antiphon.session.voice import Voice

    systems, archive, answerable = simple_systems(), None, calls
    if train is not None:
        archive = Archive.of(train, voice.vocabulary)
        retrieval = Retrieval(archive)
        answerable = [call for call in calls if retrieval.knows(call)]
        if not answerable:
            raise FileError("it has no passage in the meter of any window", where=str(args.train))
        systems += trained_systems(train, retrieval, voice.vocabulary)
    if checkpoint.sha256(path) != checkpoint.sha256(FIRST):
        systems.append(System(name=_FIRST, answer=ModelAnswers(Voice.open(FIRST), sampling)))
    systems.append(System(name=MODEL, answer=ModelAnswers(voice, sampling)))
    if args.float is not None:
        weights = checkpoint.read(args.float)
        if weights.spec != voice.model.spec:
            raise FileError("the float checkpoint is of another model", where=str(args.float))
        systems.append(System(name=_FLOAT, answer=ModelAnswers(float_voice(voice, weights), sampling)))
    return systems, answerable, archive, len(calls) - len(answerable)


@contextmanager
def _progress(
    calls: Sequence[Call], systems: Sequence[System], args: argparse.Namespace
) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import Progress

    total = len(calls) * sum(args.seeds if system.chance else 1 for system in systems)
    with Progress(console=Console(stderr=True), disable=args.quiet) as progress:
        task = progress.add_task("answers", total=total)
        yield lambda name: progress.update(task, advance=1, description=name)


def _give(
    args: argparse.Namespace, path: Path, report: AnswersReport, tables: Sequence[Sheet], *, best: Sequence[str]
) -> None:
    import json

    from rich.console import Console

    from antiphon.evaluation.plots import draw
    from antiphon.evaluation.report import gates, markdown
    from antiphon.model.checkpoint import sha256
    from antiphon.music.midi_file import write_whole

    told: dict[str, Any] = {
        "model": str(args.model),
        "sha256": sha256(path),
        "windows": str(args.windows),
        "train": str(args.train) if args.train is not None else None,
        "seeds": args.seeds,
    }
    if not args.sweep:
        told["sampling"] = {name: getattr(args, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    if args.json is not None:
        plain = told | {"answers": report.plain()}
        write_whole(args.json, (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode())
    if args.markdown is not None:
        write_whole(args.markdown, markdown(report, tables, told, best).encode())
    if args.plots is not None:
        draw(report, args.plots)
    console = Console()
    console.width = max(_NARROWEST, console.width)
    for sheet in tables:
        console.print(_table(sheet))
    for name in best:
        for asked, met in gates(report, name):
            console.print(f"{'yes' if met else 'no ':3}  {asked}")


def _table(sheet: Sheet) -> object:
    from rich import box
    from rich.table import Table

    table = Table(title=sheet.title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(sheet.columns):
        head = name.replace(" ", "\n")  # a column is as wide as its numbers
        table.add_column(head, justify="right" if number else "left", no_wrap=number > 0, min_width=0 if number else 16)
    for row in sheet.rows:
        table.add_row(*row)
    return table
