"""A kernel to be timed by itself: its work, its definition, and what a call must read and compute at the least."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.model.spec import ModelSpec

SEED = 1
_A_RUN_S = 0.05  # that one figure is timed over, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a kernel is timed on: the sizes of a model, and how many rows (tokens) at once."""

    spec: ModelSpec
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A kernel with something to do.

    size: in words. call and plain: the kernel and its definition, once each, on the same numbers. nbytes: read and
    written by a call at the least. operations: multiplications and additions in a call. difference: the largest
    |kernel - definition| over the largest |definition|.
    """

    size: str
    call: Callable[[], object]
    plain: Callable[[], object]
    nbytes: int
    operations: int
    difference: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that can be timed: `name`, other names that it is known by, what it does, and how to give it work."""

    name: str
    aliases: tuple[str, ...] = ()
    what: str
    case: Callable[[Load], Case]


def timed(call: Callable[[], object], *, repeats: int) -> Callable[[], Sequence[float]]:
    """Calls a second, in `repeats` figures, each over as many calls as take a while."""
    calls = 0

    def run() -> list[float]:
        nonlocal calls
        if not calls:
            call()
            began = time.perf_counter()
            call()
            calls = max(1, round(_A_RUN_S / (time.perf_counter() - began)))
        return [_calls_per_s(call, calls) for _ in range(repeats)]

    return run


def _calls_per_s(call: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return calls / (time.perf_counter() - began)


def furthest(fast: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """The largest |fast - exact| over the largest |exact|."""
    return float(np.abs(fast - exact).max() / np.abs(exact).max())
