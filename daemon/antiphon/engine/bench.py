"""A race: contenders take turns in one run, and each is told with its median and its best figure.

Other work on the machine slows whoever happens to run. So every contender runs in every round, and what is compared
was measured in the same minute.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One who runs: `run()` does its work once or more and gives a figure for each time, higher being better."""

    name: str
    threads: int
    run: Callable[[], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a contender reached: its figures from all rounds, in their order."""

    name: str
    threads: int
    figures: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.figures)

    @property
    def best(self) -> float:
        return max(self.figures)


def race(
    contenders: Sequence[Contender], *, rounds: int, progress: Callable[[int], None] = lambda _: None
) -> tuple[Speed, ...]:
    """Let each of `contenders` run once in each of `rounds`, in turn; `progress` hears how many runs are over."""
    figures: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds):
        for place, contender in enumerate(contenders):
            figures[place] += contender.run()
            progress(number * len(contenders) + place + 1)
    return tuple(
        Speed(name=contender.name, threads=contender.threads, figures=tuple(own))
        for contender, own in zip(contenders, figures, strict=True)
    )
