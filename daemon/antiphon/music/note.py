"""Notes in ticks, and a piece of them with its meters and tempos."""

from __future__ import annotations

from dataclasses import dataclass, field

from antiphon.music.meter import MeterMap
from antiphon.music.tempo import TempoMap


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """A sounding note: start (0 or more) and length (1 or more) in ticks, pitch 0..127, velocity 1..127."""

    start_tick: int
    pitch: int
    len_ticks: int
    velocity: int

    @property
    def end_tick(self) -> int:
        return self.start_tick + self.len_ticks


@dataclass(frozen=True, slots=True)
class Piece:
    """Un-quantized music: notes sorted by start and pitch, meters, tempos, and where it ends."""

    notes: tuple[Note, ...]
    meters: MeterMap = field(default_factory=MeterMap)
    tempos: TempoMap = field(default_factory=TempoMap)
    end_tick: int = 0
