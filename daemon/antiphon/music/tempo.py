"""Tempos, and the map of tempos over a piece."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from antiphon.music.time import TICKS_PER_QUARTER

DEFAULT_BPM = 120.0
"""What a MIDI file without a tempo event means (Standard MIDI Files 1.0)."""


@dataclass(frozen=True, slots=True)
class TempoMap:
    """The tempos of a piece as (tick, quarters a minute), sorted by tick, the first at tick 0."""

    changes: tuple[tuple[int, float], ...] = ((0, DEFAULT_BPM),)
    _ticks: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ticks", tuple(tick for tick, _ in self.changes))

    @classmethod
    def of(cls, changes: Iterable[tuple[int, float]]) -> TempoMap:
        """A map from (tick, bpm) pairs in any order; at equal ticks the last one counts."""
        by_tick = {0: DEFAULT_BPM} | dict(sorted(changes, key=lambda change: change[0]))
        return cls(tuple(sorted(by_tick.items())))

    def bpm_at(self, tick: int) -> float:
        """The tempo in force at `tick`, in quarters a minute."""
        return self.changes[max(0, bisect.bisect_right(self._ticks, tick) - 1)][1]

    def seconds_at(self, tick: int) -> float:
        """Seconds from tick 0 to `tick`."""
        seconds = 0.0
        for (start, bpm), end in zip(self.changes, [*self._ticks[1:], tick], strict=True):
            if start >= tick:
                break
            seconds += (min(end, tick) - start) * 60.0 / (bpm * TICKS_PER_QUARTER)
        return seconds
