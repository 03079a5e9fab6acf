"""The metronome: clicks and MIDI clock, dated ahead, so that a player hears where the bar line is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from antiphon.music.events import Due
from antiphon.session.pulse import CLOCKS_PER_SONG_POSITION, TICKS_PER_CLOCK, Pulse, bar_at

_AHEAD_NS = 400_000_000
_CLICK_NS = 40_000_000
_CLOCK, _START, _CONTINUE, _STOP = b"\xf8", b"\xfa", b"\xfb", b"\xfc"
_SONG_POSITION = 0xF2
_TICKS_PER_POSITION = CLOCKS_PER_SONG_POSITION * TICKS_PER_CLOCK


@dataclass(frozen=True, slots=True)
class Click:
    """How a click sounds: MIDI channel (0..15), pitches of a bar's first beat and of the others, velocity.

    during: "always", "listening" (not while the box answers) or "count_in" (before bar 0 alone).
    """

    channel: int = 9
    accent: int = 76
    beat: int = 77
    velocity: int = 100
    during: str = "always"


@dataclass(slots=True)
class Metronome:
    """Sends clicks to one port and MIDI clock to another, either of which may be absent.

    answering: whether the box is answering now. send_click, send_clock: take dues in order of time.
    """

    pulse: Pulse
    click: Click
    send_click: Callable[[tuple[Due, ...]], None] | None
    send_clock: Callable[[tuple[Due, ...]], None] | None
    answering: Callable[[], bool]
    _take: int = -1
    _beat_tick: int = 0  # the next beat to click
    _clock_tick: int = 0  # the next clock to send
    _ticking: bool = False  # a start was sent and no stop since
    _identity: int = 0

    @property
    def needed(self) -> bool:
        """Whether anybody listens to it."""
        return self.send_click is not None or self.send_clock is not None

    def advance(self, *, now_ns: int) -> int | None:
        """Send what falls due soon; gives when to call again, None while there is no beat."""
        if not self.needed:
            return None
        if not self.pulse.running:
            self._stop_clock(now_ns)
            return None
        if self.pulse.takes != self._take:
            self._begin(now_ns)
        until_tick = self.pulse.tick_at(now_ns + _AHEAD_NS)
        if self.send_click is not None:
            self.send_click(tuple(self._clicks(until_tick)))
        if self.send_clock is not None:
            self.send_clock(tuple(self._clocks(until_tick)))
        return now_ns + _AHEAD_NS // 2

    def _begin(self, now_ns: int) -> None:
        self._stop_clock(now_ns)
        self._take = self.pulse.takes
        now_tick = self.pulse.tick_at(now_ns)
        beat = self.pulse.meter.beat_ticks
        # A take that begins with its first note has its first beat a moment ago; the click comes in on the next.
        self._beat_tick = -(-now_tick // beat) * beat
        # One that begins in the middle is joined at its next song position; its first beat is still caught up with.
        self._clock_tick = -(-now_tick // _TICKS_PER_POSITION) * _TICKS_PER_POSITION if now_tick >= beat else 0

    def _clicks(self, until_tick: int) -> list[Due]:
        dues: list[Due] = []
        while self._beat_tick < until_tick:
            if self._clicks_at(self._beat_tick):
                at_ns = self.pulse.ns_at(self._beat_tick)
                is_downbeat = bar_at(self.pulse, self._beat_tick).tick == self._beat_tick
                pitch = self.click.accent if is_downbeat else self.click.beat
                self._identity += 1
                on = bytes((0x90 | self.click.channel, pitch, self.click.velocity))
                off = bytes((0x80 | self.click.channel, pitch, 0))
                dues += [Due(at_ns, on, self._identity), Due(at_ns + _CLICK_NS, off, self._identity)]
            self._beat_tick += self.pulse.meter.beat_ticks
        return dues

    def _clicks_at(self, tick: int) -> bool:
        if tick < 0 or self.click.during == "always":
            return True
        return self.click.during == "listening" and not self.answering()

    def _clocks(self, until_tick: int) -> list[Due]:
        dues: list[Due] = []
        if not self._ticking:
            self._ticking = True
            start_ns = self.pulse.ns_at(self._clock_tick) - 1_000_000
            if self._clock_tick:
                position = self._clock_tick // _TICKS_PER_POSITION
                dues.append(Due(start_ns, bytes((_SONG_POSITION, position & 0x7F, position >> 7 & 0x7F))))
            dues.append(Due(start_ns, _CONTINUE if self._clock_tick else _START))
        while self._clock_tick < until_tick:
            dues.append(Due(self.pulse.ns_at(self._clock_tick), _CLOCK))
            self._clock_tick += TICKS_PER_CLOCK
        return dues

    def _stop_clock(self, now_ns: int) -> None:
        if self._ticking and self.send_clock is not None:
            self._ticking = False
            self._take = -1
            self.send_clock((Due(now_ns, _STOP),))
