"""The pulse: where the beat is. It maps nanoseconds of the monotonic clock to ticks of musical time and back.

`InternalPulse` keeps a configured tempo. `ClockPulse` follows MIDI clock (24 a quarter; start, stop, continue and
song position). Both count bars from tick 0 in one meter.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from antiphon.music.meter import BarLine, Meter, MeterMap
from antiphon.music.time import NS_PER_MINUTE, TICKS_PER_QUARTER

CLOCKS_PER_QUARTER = 24
TICKS_PER_CLOCK = TICKS_PER_QUARTER // CLOCKS_PER_QUARTER
CLOCKS_PER_SONG_POSITION = 6

_CLOCK, _START, _CONTINUE, _STOP, _SONG_POSITION = 0xF8, 0xFA, 0xFB, 0xFC, 0xF2


class Pulse(Protocol):
    """What the rest of a session asks of a pulse."""

    meter: Meter

    @property
    def running(self) -> bool:
        """Whether there is a beat now. The maps below only mean something while there is."""
        ...

    @property
    def bpm(self) -> float:
        """The tempo, quarters a minute."""
        ...

    @property
    def takes(self) -> int:
        """How often the pulse has started or jumped: positions of one take mean nothing in another."""
        ...

    def tick_at(self, at_ns: int) -> int: ...

    def ns_at(self, tick: int) -> int: ...


def bar_at(pulse: Pulse, tick: int) -> BarLine:
    """The bar of `pulse` that holds `tick`; bars before tick 0 (a count-in) have negative numbers."""
    number = tick // pulse.meter.len_ticks
    return BarLine(number, number * pulse.meter.len_ticks, pulse.meter)


def bar(pulse: Pulse, number: int) -> BarLine:
    """Bar `number` of `pulse`."""
    return BarLine(number, number * pulse.meter.len_ticks, pulse.meter)


def meter_map(pulse: Pulse) -> MeterMap:
    """The one meter of `pulse` as a map."""
    return MeterMap((BarLine(0, 0, pulse.meter),))


@dataclass(slots=True)
class InternalPulse:
    """A steady tempo from a first downbeat on: tick 0 is at `origin_ns`, None until someone starts it."""

    bpm: float
    meter: Meter
    origin_ns: int | None = None
    takes: int = 0

    @property
    def running(self) -> bool:
        return self.origin_ns is not None

    def start(self, *, at_ns: int) -> None:
        """Put the downbeat of bar 0 at `at_ns`: a new take."""
        self.origin_ns = at_ns
        self.takes += 1

    def pause(self) -> None:
        """Stop counting, so that the next first note can be a downbeat."""
        self.origin_ns = None

    def resume(self, *, at_ns: int, tick: int) -> None:
        """Go on counting, with `tick` at `at_ns`: the same take, so what was played before still counts."""
        self.origin_ns = at_ns - self._ns_after_origin(tick)

    def tick_at(self, at_ns: int) -> int:
        """The tick that sounds at `at_ns`, rounded down."""
        return int((at_ns - (self.origin_ns or 0)) * self.bpm * TICKS_PER_QUARTER // NS_PER_MINUTE)

    def ns_at(self, tick: int) -> int:
        """When `tick` sounds."""
        return (self.origin_ns or 0) + self._ns_after_origin(tick)

    def _ns_after_origin(self, tick: int) -> int:
        return round(tick * NS_PER_MINUTE / (self.bpm * TICKS_PER_QUARTER))


_LOCK_CLOCKS = 12  # half a quarter: enough to play by, too few to be steady
_LONGEST_WINDOW = 384  # sixteen quarters: brings +-5 ms of jitter down to some 0.3 ms
_RELOCK_NS = 12_000_000  # the mean of the last clocks this far off the line is a new tempo, not jitter
_LOST_NS = 1_000_000_000  # a master at 20 bpm sends a clock each 125 ms
_BPM_HYSTERESIS = 0.02  # the announced tempo holds still while the measured one trembles


@dataclass(slots=True)
class ClockPulse:
    """Follows MIDI clock by fitting a line through the last clocks' arrivals, so that jitter averages out.

    Start (FA) arms tick 0 for the first clock after it; continue (FB) goes on from where it stopped or from the song
    position (F2) last sent; stop (FC) stops. A second without a clock is a stop too.
    """

    meter: Meter
    takes: int = 0
    _armed: bool = False
    _playing: bool = False
    _next_clock: int = 0  # the number of the clock to come, from the start of the song
    _clocks: deque[tuple[int, int]] = field(default_factory=deque)  # (number, at_ns)
    _slope: float = 0.0  # ns a clock
    _anchor: tuple[int, float] = (0, 0.0)  # a point on the line: (clock number, ns)
    _announced_bpm: float = 120.0

    @property
    def running(self) -> bool:
        return self._playing and len(self._clocks) >= _LOCK_CLOCKS

    @property
    def bpm(self) -> float:
        return self._announced_bpm

    def hear(self, data: bytes, *, at_ns: int) -> None:
        """Take one system message; others are passed over."""
        status = data[0] if data else 0
        if status == _CLOCK:
            self._clock(at_ns)
        elif status == _START:
            self._next_clock = 0
            self._arm()
        elif status == _CONTINUE:
            self._arm()
        elif status == _STOP:
            self._playing = self._armed = False
        elif status == _SONG_POSITION and len(data) == 3:
            self._next_clock = (data[1] | data[2] << 7) * CLOCKS_PER_SONG_POSITION
            if self._playing:
                self._arm()

    def lose(self, *, now_ns: int) -> None:
        """Stop if the clock has fallen silent."""
        if self._playing and self._clocks and now_ns - self._clocks[-1][1] > _LOST_NS:
            self._playing = False

    def tick_at(self, at_ns: int) -> int:
        """The tick that sounds at `at_ns` by the line through the last clocks, rounded down."""
        number, ns = self._anchor
        return int((number + (at_ns - ns) / self._slope) * TICKS_PER_CLOCK // 1) if self._slope else 0

    def ns_at(self, tick: int) -> int:
        """When `tick` sounds or will sound, as far as the clocks so far tell."""
        number, ns = self._anchor
        return round(ns + (tick / TICKS_PER_CLOCK - number) * self._slope)

    def _arm(self) -> None:
        self._armed, self._playing = True, False

    def _clock(self, at_ns: int) -> None:
        if self._armed:
            self._armed, self._playing = False, True
            self._clocks.clear()
            self.takes += 1
        if not self._playing:
            return
        self._clocks.append((self._next_clock, at_ns))
        self._next_clock += 1
        if len(self._clocks) > _LONGEST_WINDOW:
            self._clocks.popleft()
        self._fit()
        recent = list(self._clocks)[-_LOCK_CLOCKS:]
        off_ns = sum(ns - self._ns_of(number) for number, ns in recent) / len(recent)
        if abs(off_ns) > _RELOCK_NS:
            self._clocks = deque(recent)
            self._fit()

    def _ns_of(self, number: int) -> float:
        return self._anchor[1] + (number - self._anchor[0]) * self._slope

    def _fit(self) -> None:
        count = len(self._clocks)
        first_number, first_ns = self._clocks[0]
        mean_x = sum(number - first_number for number, _ in self._clocks) / count
        mean_y = sum(ns - first_ns for _, ns in self._clocks) / count
        if count > 1:
            over = sum((n - first_number - mean_x) * (ns - first_ns - mean_y) for n, ns in self._clocks)
            under = sum((n - first_number - mean_x) ** 2 for n, _ in self._clocks)
            self._slope = max(1.0, over / under)
        last_number = self._clocks[-1][0]
        fitted_ns = first_ns + mean_y + (last_number - first_number - mean_x) * self._slope
        self._anchor = (last_number, fitted_ns)
        if self._slope:
            bpm = NS_PER_MINUTE / (self._slope * CLOCKS_PER_QUARTER)
            if abs(bpm - self._announced_bpm) > _BPM_HYSTERESIS * self._announced_bpm or count == _LOCK_CLOCKS:
                self._announced_bpm = bpm
