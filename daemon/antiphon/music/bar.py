"""A bar as it is written: notes on the grid, counted from the bar line."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.music.meter import Meter
from antiphon.music.tempo import DEFAULT_BPM


@dataclass(frozen=True, slots=True, order=True)
class BarNote:
    """A note on the grid: onset `step` within its bar, pitch, length in steps (may cross bar lines), velocity."""

    step: int
    pitch: int
    len_steps: int
    velocity: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A normalised bar: at most one note for each (step, pitch), sorted by step and pitch.

    bpm is the tempo at the bar line, in quarters a minute.
    """

    meter: Meter
    notes: tuple[BarNote, ...] = ()
    bpm: float = DEFAULT_BPM
