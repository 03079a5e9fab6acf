"""Meters, and the map of meters over a piece."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from antiphon.errors import AntiphonError
from antiphon.music.time import STEPS_PER_QUARTER, TICKS_PER_QUARTER

_PATTERN = re.compile(r"\s*(\d{1,3})\s*/\s*(\d{1,3})\s*")


@dataclass(frozen=True, slots=True, order=True)
class Meter:
    """A time signature: `beats` (1..255) beats a bar, each 1/`unit` of a whole note (1, 2, 4, 8, 16 or 32)."""

    beats: int
    unit: int

    def __post_init__(self) -> None:
        if not 1 <= self.beats <= 255 or self.unit not in (1, 2, 4, 8, 16, 32):
            raise AntiphonError(f"{self.beats}/{self.unit} is not a meter", fix="write it like 4/4 or 6/8")

    @classmethod
    def parse(cls, text: str) -> Meter:
        """The meter written as `text`, such as "6/8". Raises AntiphonError on anything else."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise AntiphonError(f"{text!r} is not a meter", fix="write it like 4/4 or 6/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.beats}/{self.unit}"

    @property
    def len_ticks(self) -> int:
        """Length of a bar in ticks."""
        return self.beats * 4 * TICKS_PER_QUARTER // self.unit

    @property
    def len_steps(self) -> int:
        """Length of a bar in grid steps. Raises AntiphonError where the bar line falls off the grid."""
        steps, rest = divmod(self.beats * 4 * STEPS_PER_QUARTER, self.unit)
        if rest:
            raise AntiphonError(f"a bar of {self} does not fit the grid of {STEPS_PER_QUARTER} steps a quarter")
        return steps

    @property
    def beat_ticks(self) -> int:
        """Length of the felt beat in ticks: a dotted one in 6/8, 9/8, 12/8 and their like."""
        unit_ticks = 4 * TICKS_PER_QUARTER // self.unit
        return 3 * unit_ticks if self.unit >= 8 and self.beats % 3 == 0 and self.beats > 3 else unit_ticks

    @property
    def in_quarters(self) -> Meter:
        """The same bar counted in quarters where it is counted in halves or wholes (3/2 becomes 6/4)."""
        if self.unit >= 4:
            return self
        return Meter(self.beats * 4 // self.unit, 4)


COMMON_TIME = Meter(4, 4)


@dataclass(frozen=True, slots=True)
class BarLine:
    """Where a bar begins: its number (from 0), its first tick, and its meter."""

    number: int
    tick: int
    meter: Meter

    @property
    def end_tick(self) -> int:
        return self.tick + self.meter.len_ticks


@dataclass(frozen=True, slots=True)
class MeterMap:
    """The meters of a piece: changes as (tick, meter), each moved to the bar line at or after it.

    A change that a file puts inside a bar takes effect at the next bar line, so that every bar is whole.
    """

    changes: tuple[BarLine, ...] = (BarLine(0, 0, COMMON_TIME),)
    _ticks: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ticks", tuple(change.tick for change in self.changes))

    @classmethod
    def of(cls, changes: Iterable[tuple[int, Meter]]) -> MeterMap:
        """A map from (tick, meter) pairs in any order; 4/4 until the first."""
        lines = [BarLine(0, 0, COMMON_TIME)]
        for tick, meter in sorted(changes, key=lambda change: change[0]):
            last = lines[-1]
            bars = -(-(tick - last.tick) // last.meter.len_ticks)
            if bars <= 0:
                lines[-1] = BarLine(last.number, last.tick, meter)
                continue
            lines.append(BarLine(last.number + bars, last.tick + bars * last.meter.len_ticks, meter))
        merged = lines[:1]
        for line in lines[1:]:
            if line.meter != merged[-1].meter:
                merged.append(line)
        return cls(tuple(merged))

    def bar_at(self, tick: int) -> BarLine:
        """The bar that holds `tick` (0 or more)."""
        change = self.changes[max(0, bisect.bisect_right(self._ticks, tick) - 1)]
        bars = (tick - change.tick) // change.meter.len_ticks
        return BarLine(change.number + bars, change.tick + bars * change.meter.len_ticks, change.meter)

    def bars(self, *, first: int = 0, until_tick: int) -> Iterable[BarLine]:
        """The bars from number `first` on that begin before `until_tick`."""
        line = self.bar(first)
        while line.tick < until_tick:
            yield line
            line = self.bar_at(line.end_tick)

    def bar(self, number: int) -> BarLine:
        """Bar `number`, from 0."""
        change = self.changes[0]
        for candidate in self.changes:
            if candidate.number > number:
                break
            change = candidate
        bars = number - change.number
        return BarLine(number, change.tick + bars * change.meter.len_ticks, change.meter)
