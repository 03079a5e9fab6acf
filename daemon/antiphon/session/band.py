"""The band: every player's co-pilot, the pulse they share, and the metronome. What is heard is handed out here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from antiphon.music.events import Heard
from antiphon.session.copilot import NEVER_NS, Copilot, Phase
from antiphon.session.metronome import Metronome
from antiphon.session.pulse import ClockPulse, InternalPulse, bar_at

log = logging.getLogger(__name__)

_SYSTEM = 0xF0
_CONTROL, _NOTE_ON = 0xB0, 0x90
_SUSTAIN, _ALL_NOTES_OFF = 64, 123
_ALL_SOUND_OFF = 120  # what a panic button sends; CC123 some keyboards send whenever the last key goes up


@dataclass(slots=True)
class Channel:
    """The MIDI channel of a player: a fixed one (0..15), or with `fixed` None whichever was heard last."""

    fixed: int | None = None
    last: int = 0

    def hears(self, status: int) -> bool:
        """Whether a message with this status byte is the player's; remembers the channel of a note."""
        channel = status & 0x0F
        if self.fixed is not None and channel != self.fixed:
            return False
        if status & 0xF0 == _NOTE_ON:
            self.last = channel
        return True

    def __call__(self) -> int:
        return self.last if self.fixed is None else self.fixed


@dataclass(frozen=True, slots=True)
class Seat:
    """A co-pilot, the input port it listens to, its channel, and how late its device stamps (ns).

    panic: silences the port that the player is answered on.
    """

    copilot: Copilot
    port: int
    channel: Channel
    panic: Callable[[], None]
    input_latency_ns: int = 0


@dataclass(slots=True)
class Band:
    """Hands out what is heard and asks everyone what is due.

    start_on_note: an internal pulse starts with the first note, and pauses after `rest_bars` silent bars, so that a
    player who stops and begins again gives the downbeat anew. Not while a click or clock is out: then the grid holds.
    clock_port: the port whose MIDI clock a `ClockPulse` follows.
    """

    pulse: InternalPulse | ClockPulse
    seats: Sequence[Seat]
    metronome: Metronome
    start_on_note: bool = True
    rest_bars: int = 2
    clock_port: int | None = None
    _active_tick: int = field(default=0, init=False)
    _lacks_clock: bool = field(default=False, init=False)  # a note came without a beat, and that was said

    def hear(self, heard: Heard, *, now_ns: int) -> None:
        """Take one message, stamped on arrival."""
        if not heard.data:
            return
        status = heard.data[0]
        if status >= _SYSTEM:
            if isinstance(self.pulse, ClockPulse) and heard.port == self.clock_port:
                self.pulse.hear(heard.data, at_ns=heard.at_ns)
            return
        for seat in self.seats:
            if seat.port == heard.port and seat.channel.hears(status):
                placed = Heard(heard.at_ns - seat.input_latency_ns, heard.port, heard.data)
                self._start(placed)
                self._miss_the_clock()
                seat.copilot.hear(placed, now_ns=now_ns)
                if status & 0xF0 == _CONTROL and heard.data[1:2] == bytes((_ALL_SOUND_OFF,)):
                    self._panic(seat, now_ns=now_ns)

    def advance(self, *, now_ns: int) -> int:
        """Do what is due; gives when to call again, `NEVER_NS` if only a message can wake anyone."""
        if isinstance(self.pulse, ClockPulse):
            self.pulse.lose(now_ns=now_ns)
        wake_ns = min((seat.copilot.advance(now_ns=now_ns) for seat in self.seats), default=NEVER_NS)
        wake_ns = min(wake_ns, self._rest(now_ns=now_ns))
        click_ns = self.metronome.advance(now_ns=now_ns)
        return wake_ns if click_ns is None else min(wake_ns, click_ns)

    def unplug(self, port: int, *, now_ns: int) -> None:
        """The input `port` has gone: nobody holds its keys and its pedal any more."""
        for channel in range(16):
            for control, value in ((_SUSTAIN, 0), (_ALL_NOTES_OFF, 0)):
                lifted = Heard(now_ns, port, bytes((_CONTROL | channel, control, value)))
                for seat in self.seats:
                    if seat.port == port:
                        seat.copilot.hear(lifted, now_ns=now_ns)

    def stop(self, *, now_ns: int) -> None:
        """End every answer."""
        for seat in self.seats:
            seat.copilot.stop(now_ns=now_ns)

    def panic(self, *, now_ns: int) -> None:
        """Silence everything, whatever it was."""
        for seat in self.seats:
            self._panic(seat, now_ns=now_ns)

    def _panic(self, seat: Seat, *, now_ns: int) -> None:
        log.warning("%s: panic", seat.copilot.name)
        seat.copilot.stop(now_ns=now_ns)
        seat.panic()

    @property
    def answering(self) -> bool:
        return any(seat.copilot.phase is Phase.ANSWERING for seat in self.seats)

    def _start(self, heard: Heard) -> None:
        pulse = self.pulse
        if not isinstance(pulse, InternalPulse) or not self.start_on_note or pulse.running:
            return
        if heard.data[0] & 0xF0 != 0x90 or len(heard.data) < 3 or heard.data[2] == 0:
            return
        if pulse.takes == 0:
            pulse.start(at_ns=heard.at_ns)
        else:
            pulse.resume(at_ns=heard.at_ns, tick=bar_at(pulse, self._active_tick).end_tick)

    def _miss_the_clock(self) -> None:
        """Say once that notes come and no MIDI clock does: to the player it looks as if nothing worked."""
        lacks = isinstance(self.pulse, ClockPulse) and not self.pulse.running
        if lacks and not self._lacks_clock:
            log.warning("notes are heard, but the MIDI clock does not run: start it, or set clock.source to internal")
        self._lacks_clock = lacks

    def _rest(self, *, now_ns: int) -> int:
        """Pause a pulse that a first note started once nobody has played for `rest_bars` bars."""
        pulse = self.pulse
        if not isinstance(pulse, InternalPulse) or not pulse.running or not self.start_on_note or self.metronome.needed:
            return NEVER_NS
        now_tick = pulse.tick_at(now_ns)
        if any(seat.copilot.phase is not Phase.WAITING for seat in self.seats):
            self._active_tick = now_tick
            return NEVER_NS
        until_tick = self._active_tick + self.rest_bars * pulse.meter.len_ticks
        if now_tick < until_tick:
            return pulse.ns_at(until_tick + 1)
        pulse.pause()
        return NEVER_NS
