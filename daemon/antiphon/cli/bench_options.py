"""What the benchmarks of a model have in common: which model, in which precision, on how many threads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from antiphon.engine.loaded import LoadedModel
    from antiphon.model.source import Source
    from antiphon.model.spec import ModelSpec

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int8-groups", "int4")
"""Those of `antiphon.model.precision`, which takes PyTorch to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model that is measured: a name for the table, where its weights come from, and whether they are random."""

    name: str
    source: Source
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
    add_device(parser)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of every contender (default 3)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="times in each turn (default 5)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[], metavar="N", help="measure with so many (default: 1, and all)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures to F")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --precision and --device."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="how weights are held (default: the file's own whole numbers, or int8)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or a GPU's UUID (default cpu)")


def subject(args: argparse.Namespace) -> Subject:
    """The model that --model and --shape name. Raises AntiphonError."""
    return subject_of(args.model, args.shape)


def subject_of(model: str, shape_text: str | None) -> Subject:
    """The model file called `model`, or random weights of a shape. Raises AntiphonError."""
    if shape_text is None:
        from antiphon.library.bundled import model_path
        from antiphon.model.source import open_source

        path = model_path(model)
        return Subject(name=path.name, source=open_source(path), random=False)
    import torch

    from antiphon.model.random_weights import RandomSource

    source = RandomSource(spec=shape(shape_text), seed=1, dtype=torch.float16)
    return Subject(name=f"{shape_text}, random weights", source=source, random=True)


def shape(text: str) -> ModelSpec:
    """The sizes that --shape names. Raises AntiphonError."""
    from antiphon.model.published import parsed

    try:
        return parsed(text)
    except ValueError as error:
        raise AntiphonError(str(error), where="--shape") from error


def loaded(subject: Subject, *, precision: str | None, device: str, threads: int) -> LoadedModel:
    """`subject` ready to run, on a processor with so many threads. Raises AntiphonError."""
    from antiphon.engine.identity import Identity
    from antiphon.engine.loaded import LoadedModel
    from antiphon.model.precision import Precision

    held = None if precision is None else Precision(precision)
    if not subject.random:
        return LoadedModel.open(subject.source.path, precision=held, device=device, threads=threads)
    return LoadedModel.of_source(
        subject.source,
        identify=lambda precision: Identity(model=subject.name, precision=precision.value),
        precision=held or Precision.INT8,
        device=device,
        threads=threads,
    )


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
