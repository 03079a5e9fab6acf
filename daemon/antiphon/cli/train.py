"""`antiphon train`: learn a model from a corpus, continue a run, or export what a run learnt."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.training.corpus import Corpus
    from antiphon.training.ids import IdRanges

_OPTIONS = {
    "layers": int,
    "width": int,
    "steps": int,
    "tokens": int,
    "minutes": float,
    "batch_tokens": int,
    "context": int,
    "lr": float,
    "seed": int,
    "threads": int,
}


def add_parser(subparsers: Any) -> None:
    """Add the command to the main parser."""
    parser = subparsers.add_parser("train", help="train a model on a corpus, or export a run as int8")
    parser.add_argument("--corpus", type=Path, help="an .npz of `antiphon tokenize`, or a folder that holds train.npz")
    parser.add_argument("--valid", type=Path, help="the same for validation (default: valid.npz beside train.npz)")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--config", type=Path, help="YAML with any of the run's knobs")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out exactly where it stopped")
    parser.add_argument("--export", type=Path, metavar="MODEL", help="write the best checkpoint as int8 and stop")
    parser.add_argument("--compile", action="store_true", default=None, help="use torch.compile (needs a C compiler)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for name, kind in _OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 when the run is finished, exported, or was stopped with its state on disk."""
    from antiphon.errors import ConfigError

    if args.export is not None:
        return _export(args)
    if args.corpus is None:
        raise ConfigError("nothing to learn from", fix="give --corpus")
    from antiphon.tokens.vocabulary import Vocabulary
    from antiphon.training.config import TrainingConfig
    from antiphon.training.ids import IdRanges
    from antiphon.training.plot import plot_losses
    from antiphon.training.trainer import Trainer

    values = _yaml(args.config) if args.config is not None else {}
    if args.resume:
        values = {**_saved_config(args.out), **values}
    values.update({name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None})
    if args.compile is not None:
        values["compile"] = args.compile
    config = TrainingConfig.of(values, where=str(args.config or ""))
    vocabulary = Vocabulary()
    ranges = IdRanges.of_vocabulary(vocabulary)
    corpus, valid = _corpora(args, ranges)
    trainer = Trainer(
        config,
        corpus=corpus,
        valid=valid,
        ranges=ranges,
        tokenizer=vocabulary.grid.to_json(),
        out=args.out,
        resume=args.resume,
    )
    asked: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _frame: asked.append(number))
    finished = trainer.run(stopping=lambda: bool(asked), show=not args.quiet)
    plot_losses(args.out / "log.jsonl", args.out / "loss.png")
    if not finished:
        print(f"stopped at step {trainer.counters.step}; continue with --resume", file=sys.stderr)
    return 0


def _corpora(args: argparse.Namespace, ranges: IdRanges) -> tuple[Corpus, Corpus | None]:
    from antiphon.training.corpus import read_corpus

    train, valid = args.corpus, args.valid
    if train.is_dir():
        beside = train / "valid.npz"
        valid = valid or (beside if beside.exists() else None)
        train = train / "train.npz"
    if valid is not None and valid.is_dir():
        valid = valid / "valid.npz"
    return read_corpus(train, ranges), read_corpus(valid, ranges) if valid is not None else None


def _saved_config(out: Path) -> dict[str, Any]:
    import json

    from antiphon.training.snapshots import newest_folder

    values: dict[str, Any] = json.loads((newest_folder(out) / "config.json").read_text())
    return values


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    from antiphon.errors import ConfigError

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read as YAML: {error}", where=str(path)) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError("must be a table of keys and values", where=str(path))
    return values


def _export(args: argparse.Namespace) -> int:
    import json

    from antiphon.model.checkpoint import Checkpoint, read, sha256, write
    from antiphon.model.quantize import quantize_int8
    from antiphon.training.snapshots import best_folder, load

    folder = best_folder(args.out)
    counters, _, _ = load(folder)
    model = read(folder / "model.safetensors")
    metadata = {
        **model.metadata,
        "steps": str(counters.step),
        "tokens": str(counters.tokens),
        "valid_nats_per_note": json.dumps(counters.best_nats_per_note),
    }
    write(args.export, quantize_int8(Checkpoint(spec=model.spec, tensors=model.tensors, metadata=metadata)))
    print(f"{args.export}: step {counters.step}, sha256 {sha256(args.export)}")
    return 0
