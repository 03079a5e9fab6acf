"""What the benchmarks of a model have in common: which model, in which precision, on how many threads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from antiphon.engine.runner import Runner
    from antiphon.model.checkpoint import Checkpoint
    from antiphon.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model that is measured: a name for the table, the weights, and whether they are random."""

    name: str
    checkpoint: Checkpoint
    random: bool


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that `subject` and `threads` read."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", default="bundled", metavar="F", help="a model file (default: the bundled one)")
    which.add_argument(
        "--shape",
        metavar="LxD[xV]",
        help="random weights of so many layers, width and vocabulary (65536), or of a published size such as 0.1B",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of every contender (default 3)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="times in each turn (default 5)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[], metavar="N", help="measure with so many (default: 1, and all)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")


def subject(args: argparse.Namespace) -> Subject:
    """The model that the options name. Raises AntiphonError."""
    if args.shape is None:
        from antiphon.library.bundled import model_path
        from antiphon.model.checkpoint import read

        path = model_path(args.model)
        return Subject(name=path.name, checkpoint=read(path), random=False)
    import torch

    from antiphon.model.checkpoint import Checkpoint
    from antiphon.model.random_weights import random_weights

    spec = shape(args.shape)
    weights = random_weights(spec, seed=1, dtype=torch.float16)
    return Subject(name=f"{args.shape}, random weights", checkpoint=Checkpoint(spec=spec, tensors=weights), random=True)


def shape(text: str) -> ModelSpec:
    """The sizes that --shape names. Raises AntiphonError."""
    from antiphon.model.published import parsed

    try:
        return parsed(text)
    except ValueError as error:
        raise AntiphonError(str(error), where="--shape") from error


def runner(args: argparse.Namespace, subject: Subject, *, threads: int) -> Runner:
    """`subject` ready to run on so many threads. Raises AntiphonError."""
    from antiphon.engine.cpu_runner import CpuRunner

    made = CpuRunner.of(subject.checkpoint)
    made.warm()
    return made


def threads(args: argparse.Namespace) -> Sequence[int]:
    """How many threads to measure with, each number once, as asked for. Raises AntiphonError."""
    import os

    if any(number < 1 for number in args.threads):
        raise AntiphonError(f"{min(args.threads)} threads do nothing", where="--threads", fix="give 1 or more")
    return list(dict.fromkeys(args.threads or [1, len(os.sched_getaffinity(0))]))


def positive(value: int, option: str) -> int:
    """`value`, if it is 1 or more. Raises AntiphonError."""
    if value < 1:
        raise AntiphonError(f"{value} measures nothing", where=option, fix="give 1 or more")
    return value
