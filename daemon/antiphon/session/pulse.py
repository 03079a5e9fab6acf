"""The pulse: where the beat is. It maps nanoseconds of the monotonic clock to ticks of musical time and back.

`InternalPulse` keeps a configured tempo. `ClockPulse` follows MIDI clock (24 a quarter; start, stop, continue and
song position). Both count bars from tick 0 in one meter.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable
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
_OFF_NS = 4_000_000  # the mean of twelve clocks this far off the line is another tempo: 5 sd of +-5 ms of jitter
_LOST_NS = 1_000_000_000  # a master at 20 bpm sends a clock each 125 ms
_BPM_HYSTERESIS = 0.02  # the announced tempo holds still while the measured one trembles


@dataclass(slots=True)
class _Line:
    """The least-squares line through a window of (clock number, ns), kept up in whole numbers as points come and go."""

    points: deque[tuple[int, int]] = field(default_factory=deque)
    origin: tuple[int, int] = (0, 0)  # keeps the sums small
    x: int = 0
    y: int = 0
    xx: int = 0
    xy: int = 0

    def add(self, number: int, at_ns: int) -> None:
        if not self.points:
            self.origin = (number, at_ns)
        self.points.append((number, at_ns))
        self._count(number, at_ns, 1)

    def drop(self, count: int) -> None:
        """Forget the oldest `count` points."""
        for _ in range(count):
            self._count(*self.points.popleft(), -1)

    def clear(self) -> None:
        self.points.clear()
        self.x = self.y = self.xx = self.xy = 0

    @property
    def slope(self) -> float:
        """Nanoseconds a clock; 0 for fewer than two points."""
        count = len(self.points)
        if count < 2:
            return 0.0
        return max(1.0, (count * self.xy - self.x * self.y) / (count * self.xx - self.x * self.x))

    def ns_at(self, number: float) -> float:
        """The line at a clock number, which may be a fraction."""
        count, (first, first_ns) = len(self.points), self.origin
        return first_ns + self.y / count + (number - first - self.x / count) * self.slope

    def number_at(self, at_ns: int) -> float:
        """The clock number at a moment."""
        count, (first, first_ns) = len(self.points), self.origin
        return first + self.x / count + (at_ns - first_ns - self.y / count) / self.slope

    def off_ns(self, points: Iterable[tuple[int, int]]) -> float:
        """How far `points` lie from the line, in the mean."""
        errors = [at_ns - self.ns_at(number) for number, at_ns in points]
        return abs(sum(errors) / len(errors))

    def _count(self, number: int, at_ns: int, sign: int) -> None:
        x, y = number - self.origin[0], at_ns - self.origin[1]
        self.x += sign * x
        self.y += sign * y
        self.xx += sign * x * x
        self.xy += sign * x * y


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
    _line: _Line = field(default_factory=_Line)
    _announced_bpm: float = 120.0

    @property
    def running(self) -> bool:
        return self._playing and len(self._line.points) >= _LOCK_CLOCKS

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
        if self._playing and self._line.points and now_ns - self._line.points[-1][1] > _LOST_NS:
            self._playing = False

    def tick_at(self, at_ns: int) -> int:
        """The tick that sounds at `at_ns` by the line through the last clocks, rounded down."""
        return math.floor(self._line.number_at(at_ns) * TICKS_PER_CLOCK)

    def ns_at(self, tick: int) -> int:
        """When `tick` sounds or will sound, as far as the clocks so far tell."""
        return round(self._line.ns_at(tick / TICKS_PER_CLOCK))

    def _arm(self) -> None:
        self._armed, self._playing = True, False

    def _clock(self, at_ns: int) -> None:
        line = self._line
        if self._armed:
            self._armed, self._playing = False, True
            line.clear()
            self.takes += 1
        if not self._playing:
            return
        line.add(self._next_clock, at_ns)
        self._next_clock += 1
        if len(line.points) > _LONGEST_WINDOW:
            line.drop(1)
        self._forget_another_tempo()
        if line.slope:
            bpm = NS_PER_MINUTE / (line.slope * CLOCKS_PER_QUARTER)
            settled = len(line.points) == _LOCK_CLOCKS
            if settled or abs(bpm - self._announced_bpm) > _BPM_HYSTERESIS * self._announced_bpm:
                self._announced_bpm = bpm

    def _forget_another_tempo(self) -> None:
        """Drop the clocks of a tempo that is over: all but the newest if those are off, else the oldest if they are."""
        line = self._line
        count = len(line.points)
        if count <= 2 * _LOCK_CLOCKS:
            return
        newest = itertools.islice(reversed(line.points), _LOCK_CLOCKS)
        if line.off_ns(newest) > _OFF_NS:
            line.drop(count - _LOCK_CLOCKS)
        elif line.off_ns(itertools.islice(line.points, _LOCK_CLOCKS)) > _OFF_NS:
            line.drop(_LOCK_CLOCKS)
