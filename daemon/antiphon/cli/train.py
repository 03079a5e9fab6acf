"""`antiphon train`: learn a model from MIDI files, continue a run, or export what a run learnt.

SIGTERM and Ctrl-C let the step in progress end, write the run's state, and exit with 0; a second one ends it at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_OPTIONS: dict[str, tuple[type, str]] = {
    "layers": (int, "the model's layers (default 6)"),
    "width": (int, "the model's width, a multiple of 64 (default 256)"),
    "steps": (int, "end after so many steps"),
    "tokens": (int, "end after so many tokens"),
    "minutes": (float, "end after so many minutes"),
    "batch_tokens": (int, "tokens a step (default 8192)"),
    "context": (int, "tokens a sample holds, a multiple of 16 (default 1024)"),
    "lr": (float, "the highest learning rate (default 0.002)"),
    "seed": (int, "the first weights, the order of the pieces and their variations follow from it (default 1)"),
    "device": (str, "what to work on: cpu (default), cuda or cuda:N"),
    "threads": (int, "threads to work on; 0 for all cores (default)"),
}
_SWITCHES = {
    "windows": "learn to complete windows of some bars, instead of whole pieces: fine-tuning",
    "compile": "use torch.compile (needs a C compiler)",
}


class _Stopped(Exception):
    """A stop was asked for before there was anything to keep."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the main parser."""
    parser = subparsers.add_parser(
        "train", help="learn a model from MIDI files, or export what a run learnt", description=__doc__
    )
    corpus = "a folder of MIDI files, which is packed into --out once, or an .npz packed so"
    parser.add_argument("--corpus", type=Path, metavar="DIR|FILE.npz", help=corpus)
    parser.add_argument("--valid", type=Path, metavar="DIR|FILE.npz", help="the same, to judge by and not to learn")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="any of the run's knobs")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out exactly where it stopped")
    parser.add_argument("--export", type=Path, metavar="MODEL", help="write the best checkpoint as int8, and stop")
    parser.add_argument(
        "--about",
        action="append",
        default=[],
        metavar="KEY=TEXT",
        help="with --export: put this into the metadata, too",
    )
    parser.add_argument("--init-from", metavar="MODEL|RUN", help="begin with the weights that another run has learnt")
    for name, text in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", default=None, help=text)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for name, (kind, text) in _OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, metavar="N", help=text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 when the run is finished, exported, or was stopped with its state on disk."""
    if args.export is not None:
        return _export(args)
    with _stop_asked() as stopping:
        try:
            return _train(args, stopping)
        except _Stopped:
            print("stopped before the first step; there is nothing to continue", file=sys.stderr)
            return 0


def _train(args: argparse.Namespace, stopping: Callable[[], bool]) -> int:
    from antiphon.training.config import TrainingConfig

    config = TrainingConfig.of(_values(args), where=str(args.config or ""))

    # What is wrong so far was told at once; torch takes seconds to load.
    from rich.console import Console

    from antiphon.tokens.vocabulary import Vocabulary
    from antiphon.training import snapshots
    from antiphon.training.ids import IdRanges
    from antiphon.training.plot import plot_losses
    from antiphon.training.trainer import Trainer

    if not args.resume:
        snapshots.require_fresh(args.out)
    vocabulary = Vocabulary()
    trainer = Trainer(
        config,
        corpus=_corpus(args, "corpus", vocabulary, stopping),
        valid=_corpus(args, "valid", vocabulary, stopping) if _given(args, "valid") else None,
        ranges=IdRanges.of_vocabulary(vocabulary),
        tokenizer=vocabulary.grid.to_json(),
        out=args.out,
        resume=args.resume,
    )
    try:
        finished = trainer.run(stopping=stopping, console=None if args.quiet else Console(stderr=True))
    finally:
        plot_losses(args.out / "log.jsonl", args.out / "loss.png")
    if not finished:
        print(f"stopped at step {trainer.counters.step}; continue with --resume", file=sys.stderr)
    return 0


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Tells whether SIGTERM or Ctrl-C came; the second of them is a KeyboardInterrupt."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """The knobs turned: those of the run that is resumed, then the file's, then the options."""
    values: dict[str, Any] = {}
    if args.resume:
        from antiphon.training.snapshots import saved_config

        values = saved_config(args.out)
    values |= _yaml(args.config) if args.config is not None else {}
    options = (*_OPTIONS, *_SWITCHES, "init_from")
    values |= {name: getattr(args, name) for name in options if getattr(args, name) is not None}
    return values


def _yaml(path: Path) -> dict[str, Any]:
    from antiphon.config.problem import InvalidConfig, Problem
    from antiphon.config.tree import Scalar, read_tree

    problems: list[Problem] = []
    tree = read_tree(path, problems)
    values: dict[str, Any] = {}
    for key, value in tree.entries.items():
        if isinstance(value, Scalar):
            values[key] = value.value
        else:
            problems.append(Problem(value.place, key, "is not a single value"))
    if problems:
        raise InvalidConfig(problems)
    return values


def _packed(args: argparse.Namespace, name: str) -> Path:
    """Where the corpus called `name` is kept when it was a folder."""
    out: Path = args.out
    return out / ("train.npz" if name == "corpus" else "valid.npz")


def _given(args: argparse.Namespace, name: str) -> bool:
    return getattr(args, name) is not None or (args.resume and _packed(args, name).is_file())


def _corpus(args: argparse.Namespace, name: str, vocabulary: Any, stopping: Callable[[], bool]) -> Any:
    """The corpus that was named, or the one that the run packed when it began."""
    from antiphon.cli.corpora import open_corpus
    from antiphon.errors import ConfigError

    def on_file() -> None:
        if stopping():
            raise _Stopped

    if not _given(args, name):
        raise ConfigError("nothing to learn from", fix="give --corpus a folder of MIDI files")
    path, packed = getattr(args, name), _packed(args, name)
    if args.resume and packed.is_file() and (path is None or path.is_dir()):
        path = packed
    return open_corpus(path, vocabulary, keep=packed, quiet=args.quiet, on_file=on_file)


def _export(args: argparse.Namespace) -> int:
    from antiphon.errors import ConfigError
    from antiphon.model.checkpoint import Checkpoint, read, sha256, write
    from antiphon.model.quantize import quantize_int8
    from antiphon.training.snapshots import best_folder, load_counters

    folder = best_folder(args.out)
    counters = load_counters(folder)
    model = read(folder / "model.safetensors")
    metadata = {**model.metadata, "steps": str(counters.step), "tokens": str(counters.tokens)}
    if counters.best_step == counters.step:
        metadata["valid_nats_per_note"] = f"{counters.best_nats_per_note:.6g}"
    for about in args.about:
        key, equals, text = about.partition("=")
        if not (key and equals) or key in metadata:
            raise ConfigError(f"--about {about!r} is no new KEY=TEXT", fix="write it like --about licences=CC0")
        metadata[key] = text
    write(args.export, quantize_int8(Checkpoint(spec=model.spec, tensors=model.tensors, metadata=metadata)))
    print(f"{args.export}: step {counters.step}, sha256 {sha256(args.export)}")
    return 0
