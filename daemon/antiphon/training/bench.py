"""How fast training is and how much memory it takes, beside a naive loop: contenders take turns in one run.

Each contender is a process of its own (`bench_worker`), so that its memory is its own; only one of them works at a
time, so that other work on the machine slows all of them alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from antiphon.errors import AntiphonError

NAIVE_ROWS, NAIVE_TOKENS = 2, 256
"""The naive loop's batch: autograd keeps the matrix state of every token for it, which at 8,192 would be tens of GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker measures. kind: "trainer" or "naive". A step learns from `rows` rows of `tokens` ids."""

    kind: str
    layers: int
    width: int
    rows: int
    tokens: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a worker measured: tokens learnt from a second, a figure a round, and the most memory that it took.

    `peak_bytes`: what the process grew by, over what it held with its libraries loaded and warmed up.
    """

    plan: Plan
    rounds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        """Tokens a second in the median round."""
        return statistics.median(self.rounds)


def plans(*, layers: int, width: int, batch_tokens: int, context: int, threads: int) -> list[Plan]:
    """The trainer at its own batch, the trainer at the naive loop's, and the naive loop."""
    size = {"layers": layers, "width": width, "threads": threads}
    return [
        Plan(kind="trainer", rows=batch_tokens // context, tokens=context, **size),
        Plan(kind="trainer", rows=NAIVE_ROWS, tokens=NAIVE_TOKENS, **size),
        Plan(kind="naive", rows=NAIVE_ROWS, tokens=NAIVE_TOKENS, **size),
    ]


def measure(plans: Sequence[Plan], *, rounds: int, progress: Callable[[], None] = lambda: None) -> list[Speed]:
    """Every plan's speed over `rounds` steps taken in turn. `progress` is called after each step."""
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(plan)) for plan in plans]
        figures: list[list[dict[str, Any]]] = [[] for _ in plans]
        for _ in range(rounds):
            for worker, told in zip(workers, figures, strict=True):
                told.append(worker.step())
                progress()
    return [
        Speed(
            plan=plan,
            rounds=tuple(one["tokens"] / one["seconds"] for one in told),
            peak_bytes=told[-1]["peak_bytes"],
        )
        for plan, told in zip(plans, figures, strict=True)
    ]


class _Worker:
    """A contender's process, which takes a step for every line that it is sent."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        command = [sys.executable, "-m", "antiphon.training.bench_worker", json.dumps(asdict(plan))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()  # "ready"

    def step(self) -> dict[str, Any]:
        """What the worker tells of one step: tokens, seconds, peak_bytes."""
        assert self._process.stdin is not None
        # If it is dead there is nothing to read either.
        with suppress(BrokenPipeError):
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._line())
        return told

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise AntiphonError(f"the process that measured {self._plan} died", fix="it may want more memory")
        return line

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
