"""`antiphon models verify`: what a model foretells after given ids, written down for `antiphon models compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from antiphon.library.bundled import named


def add_parser(subparsers: Any) -> None:
    """Add the command to `subparsers`."""
    parser = subparsers.add_parser(
        "verify",
        help="write down what a model foretells after given ids",
        description="Feed ids and write the logits and probabilities of what comes next: final_logits.bin and "
        "final_probs.bin (little-endian float32) and final_logits.json. By default the plain PyTorch definition "
        "computes them in float32; with --quantize or --device the engine does.",
    )
    parser.add_argument("model", type=named, metavar="FILE", help="a model of any form, or: bundled")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tokens", metavar="1,2,3", help="the ids to feed")
    what.add_argument("--full", action="store_true", help="ten lists of 1 to 100 ids, each into a folder of its own")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if needed")
    parser.add_argument("--device", metavar="D", help="cpu (default), cuda, cuda:N or a GPU's UUID")
    parser.add_argument(
        "--quantize", metavar="P", help="run on the engine: fp32, bf16, fp16, int8, int8-groups or int4"
    )
    parser.add_argument("--adapter", "--lora", type=Path, action="append", default=[], metavar="FILE", help="merge it")
    parser.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha, of every adapter given")
    parser.add_argument("--state", type=Path, metavar="FILE", help="begin with it; the definition judges it too")
    parser.add_argument("--transpose-state", action="store_true", help="swap the axes of its matrices")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute and write. Raises FileError for a model, and AntiphonError for ids, that cannot be used."""
    from antiphon.errors import AntiphonError
    from antiphon.library import parity, verify
    from antiphon.model.adapter_file import AdapterFile
    from antiphon.model.merged import MergedSource
    from antiphon.model.source import open_source

    adapters = [AdapterFile(path=path, alpha=args.alpha) for path in args.adapter]
    source = MergedSource.open(open_source(args.model), adapters)
    if args.transpose_state and args.state is None and not source.start_state_names:
        raise AntiphonError("there is no start state to turn", where="--transpose-state", fix="give --state FILE too")
    given = [_ids(args.tokens)] if args.tokens is not None else verify.prompts(source.spec.vocab_size)
    folders = [args.out if not args.full else args.out / f"{parity.PROMPT}{i:02}" for i in range(len(given))]
    for ids in given:
        verify.checked(ids, source.spec)
    if args.quantize is not None or (args.device or "cpu") != "cpu":
        if args.transpose_state:
            raise AntiphonError(
                "the engine runs a start state as it lies",
                where="--transpose-state",
                fix="turn it with `antiphon models merge` first",
            )
        precision = args.quantize.lower() if args.quantize is not None else "fp32"
        if precision not in parity.LIMITS:
            raise AntiphonError(f"there is no precision {args.quantize}", fix=f"give one of {', '.join(parity.LIMITS)}")
        outcomes = verify.engine_outcomes(
            args.model,
            given,
            precision=precision,
            device=args.device or "cpu",
            adapters=adapters,
            start_state=args.state,
        )
    else:
        definition = verify.Definition.of(source)
        start = verify.start_state_of(source, args.state, transpose=args.transpose_state)
        outcomes = [definition.outcome(ids, start) for ids in given]
        if args.state is not None:
            _judge(definition, source, args, max(given, key=len))
    for folder, outcome in zip(folders, outcomes, strict=True):
        parity.write_outcome(folder, outcome)
        likeliest = int(outcome.logits.argmax())
        speed = outcome.tokens_per_s or 0.0
        print(
            f"{folder}: {len(outcome.tokens)} ids, {outcome.precision} by the {outcome.told['by']} on "
            f"{outcome.told['device']}, likeliest {likeliest} (p {outcome.probs[likeliest]:.4f}), {speed:,.0f} ids/s"
        )
    return 0


def _ids(text: str) -> tuple[int, ...]:
    from antiphon.errors import AntiphonError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise AntiphonError(f"{text[:60]!r} are no ids", where="--tokens", fix="write them like 1,2,3") from error


def _judge(definition: Any, source: Any, args: argparse.Namespace, ids: tuple[int, ...]) -> None:
    """Tell how well the ids are expected with the start state as it is, turned, and without one."""
    from antiphon.library import verify

    if len(ids) < 2:
        print("the start state cannot be judged by one id; give a text that it was tuned for")
        return
    ways = {
        "with the state": verify.start_state_of(source, args.state, transpose=args.transpose_state),
        "with its axes swapped": verify.start_state_of(source, args.state, transpose=not args.transpose_state),
        "without it": None,
    }
    figures = {name: definition.nats(ids, start) for name, start in ways.items()}
    print("nats an id: " + ", ".join(f"{figure:.4f} {name}" for name, figure in figures.items()))
    if figures["with its axes swapped"] < figures["with the state"]:
        print("the state fits better with its axes swapped: see --transpose-state")
