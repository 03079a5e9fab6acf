"""Where the beat is: a tempo from a first downbeat, and MIDI clock with jitter, jumps, stops and silence."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.music.meter import Meter
from antiphon.session.pulse import TICKS_PER_CLOCK, ClockPulse, InternalPulse, bar_at

S = 1_000_000_000
COMMON = Meter(4, 4)


def clocks(count: int, *, bpm: float, start_ns: int, jitter_ns: int = 0, seed: int = 0) -> list[int]:
    period_ns = 60e9 / bpm / 24
    jitter = np.random.default_rng(seed).uniform(-jitter_ns, jitter_ns, count)
    return [round(start_ns + i * period_ns + jitter[i]) for i in range(count)]


def follow(pulse: ClockPulse, at: list[int]) -> None:
    for at_ns in at:
        pulse.hear(b"\xf8", at_ns=at_ns)


@pytest.mark.parametrize("bpm", [20.0, 61.7, 120.0, 240.0, 400.0])
def test_an_internal_pulse_does_not_drift(bpm: float) -> None:
    pulse = InternalPulse(bpm, COMMON)
    pulse.start(at_ns=5 * S)
    for bar in (0, 1, 999, 100_000):
        at_ns = pulse.ns_at(bar * COMMON.len_ticks)
        assert abs(at_ns - (5 * S + bar * 4 * 60e9 / bpm)) <= 1
        assert pulse.tick_at(at_ns + 1) == bar * COMMON.len_ticks


def test_a_pulse_that_resumes_keeps_counting_from_the_tick_it_is_given() -> None:
    pulse = InternalPulse(120.0, COMMON)
    pulse.start(at_ns=S)
    pulse.pause()
    assert not pulse.running
    pulse.resume(at_ns=77 * S, tick=8 * 3840)
    assert (pulse.ns_at(8 * 3840), pulse.takes) == (77 * S, 1)


def test_bars_before_the_first_downbeat_are_negative() -> None:
    pulse = InternalPulse(120.0, COMMON)
    pulse.start(at_ns=10 * S)
    assert bar_at(pulse, pulse.tick_at(9 * S)).number == -1


def test_beat_0_is_the_first_clock_after_start() -> None:
    pulse = ClockPulse(COMMON)
    follow(pulse, clocks(30, bpm=120, start_ns=0))
    assert not pulse.running
    pulse.hear(b"\xfa", at_ns=3 * S)
    follow(pulse, clocks(24, bpm=120, start_ns=4 * S))
    assert pulse.running
    assert abs(pulse.ns_at(0) - 4 * S) < 1000


@pytest.mark.parametrize("bpm", [40.0, 120.0, 240.0])
def test_jitter_of_5_ms_leaves_a_bar_line_within_1_ms(bpm: float) -> None:
    pulse = ClockPulse(COMMON)
    pulse.hear(b"\xfa", at_ns=0)
    errors = []
    period_ns = 60e9 / bpm / 24
    for number, at_ns in enumerate(clocks(24 * 64, bpm=bpm, start_ns=S, jitter_ns=5_000_000, seed=3)):
        pulse.hear(b"\xf8", at_ns=at_ns)
        if number > 24 * 16:
            ahead = number + 24  # a beat ahead, where answers are planned
            errors.append(abs(pulse.ns_at(ahead * TICKS_PER_CLOCK) - (S + ahead * period_ns)))
    assert np.percentile(errors, 99) < 1_000_000


def test_a_new_tempo_is_followed_within_two_beats() -> None:
    pulse = ClockPulse(COMMON)
    pulse.hear(b"\xfa", at_ns=0)
    first = clocks(24 * 16, bpm=100, start_ns=S)
    follow(pulse, first)
    second = clocks(24 * 4, bpm=140, start_ns=first[-1] + round(60e9 / 100 / 24))
    follow(pulse, second[:48])
    beat = (24 * 16 + 60) * TICKS_PER_CLOCK
    assert abs(pulse.ns_at(beat) - second[60]) < 3_000_000
    assert abs(pulse.bpm - 140) < 5


def test_song_position_and_continue_land_in_the_right_bar() -> None:
    pulse = ClockPulse(COMMON)
    position = 16 * 7 + 8  # sixteenths: bar 8, beat 3
    pulse.hear(bytes((0xF2, position & 0x7F, position >> 7)), at_ns=0)
    pulse.hear(b"\xfb", at_ns=1)
    at = clocks(24, bpm=120, start_ns=S)
    follow(pulse, at)
    line = bar_at(pulse, pulse.tick_at(S + 1000))
    assert line.number == 7
    assert pulse.tick_at(S + 1000) - line.tick == 2 * 960


def test_stop_and_a_second_without_clocks_stop_the_pulse() -> None:
    pulse = ClockPulse(COMMON)
    pulse.hear(b"\xfa", at_ns=0)
    at = clocks(48, bpm=120, start_ns=S)
    follow(pulse, at)
    pulse.lose(now_ns=at[-1] + S // 2)
    assert pulse.running
    pulse.lose(now_ns=at[-1] + 2 * S)
    assert not pulse.running
    pulse.hear(b"\xfb", at_ns=at[-1] + 3 * S)
    follow(pulse, clocks(24, bpm=120, start_ns=at[-1] + 3 * S))
    assert pulse.running
    pulse.hear(b"\xfc", at_ns=at[-1] + 4 * S)
    assert not pulse.running


def test_a_start_in_the_middle_is_a_new_take() -> None:
    pulse = ClockPulse(COMMON)
    pulse.hear(b"\xfa", at_ns=0)
    follow(pulse, clocks(24, bpm=120, start_ns=S))
    takes = pulse.takes
    pulse.hear(b"\xfa", at_ns=2 * S)
    follow(pulse, clocks(24, bpm=120, start_ns=3 * S))
    assert pulse.takes == takes + 1
    assert abs(pulse.ns_at(0) - 3 * S) < 1000


@pytest.mark.parametrize("data", [b"", b"\xf2", b"\xf2\x00", b"\xfe", b"\x90\x40\x40"])
def test_other_messages_are_passed_over(data: bytes) -> None:
    pulse = ClockPulse(COMMON)
    pulse.hear(data, at_ns=0)
    assert not pulse.running
