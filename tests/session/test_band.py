"""The metronome's clicks and clock, and who hears what."""

from __future__ import annotations

import itertools

import pytest

from antiphon.music.events import Due
from antiphon.music.meter import Meter
from antiphon.session.band import Channel
from antiphon.session.metronome import Click, Metronome
from antiphon.session.pulse import ClockPulse, InternalPulse

S = 1_000_000_000


def run(metronome: Metronome, *, from_ns: int, until_ns: int) -> None:
    now_ns = from_ns
    while now_ns < until_ns:
        now_ns = metronome.advance(now_ns=now_ns) or until_ns


def clicking(*, meter: str = "3/4", during: str = "always", answering: bool = False) -> tuple[InternalPulse, list[Due]]:
    pulse = InternalPulse(120.0, Meter.parse(meter))
    pulse.start(at_ns=10 * S)
    dues: list[Due] = []
    metronome = Metronome(pulse, Click(during=during), dues.extend, None, lambda: answering)
    run(metronome, from_ns=8 * S, until_ns=13 * S)
    return pulse, [due for due in dues if due.data[0] & 0xF0 == 0x90 and due.at_ns < 13 * S]


def test_every_beat_clicks_and_the_first_of_a_bar_is_accented() -> None:
    _, clicks = clicking()
    assert [due.at_ns for due in clicks] == [8 * S + i * S // 2 for i in range(10)]
    # Two seconds of count-in are a bar and a third: it comes in on beat 3 of the bar before the last.
    assert [due.data[1] for due in clicks] == [77, 76, 77, 77, 76, 77, 77, 76, 77, 77]


def test_a_count_in_falls_silent_at_bar_1() -> None:
    _, clicks = clicking(during="count_in")
    assert [due.at_ns for due in clicks] == [8 * S + i * S // 2 for i in range(4)]


@pytest.mark.parametrize(("answering", "count"), [(True, 4), (False, 10)])
def test_while_listening_means_not_while_answering(answering: bool, count: int) -> None:
    _, clicks = clicking(during="listening", answering=answering)
    assert len(clicks) == count


def test_midi_clock_begins_with_a_start_and_ends_with_a_stop() -> None:
    pulse = InternalPulse(120.0, Meter(4, 4))
    dues: list[Due] = []
    metronome = Metronome(pulse, Click(), None, dues.extend, lambda: False)
    metronome.advance(now_ns=S)
    assert not dues
    pulse.start(at_ns=2 * S)
    run(metronome, from_ns=2 * S - S // 10, until_ns=4 * S)
    assert dues[0].data == b"\xfa"
    ticks = [due.at_ns for due in dues if due.data == b"\xf8"]
    assert ticks[0] == 2 * S > dues[0].at_ns
    gaps = {later - sooner for sooner, later in itertools.pairwise(ticks)}
    assert max(gaps) - min(gaps) <= 1
    assert len([t for t in ticks if t < 4 * S]) == 96
    pulse.pause()
    metronome.advance(now_ns=4 * S)
    assert dues[-1].data == b"\xfc"


def test_midi_clock_of_a_song_joined_in_its_middle_continues_there() -> None:
    pulse = ClockPulse(Meter(4, 4))
    dues: list[Due] = []
    metronome = Metronome(pulse, Click(), None, dues.extend, lambda: False)
    pulse.hear(bytes((0xF2, 16 * 100 & 0x7F, 16 * 100 >> 7)), at_ns=0)
    pulse.hear(b"\xfb", at_ns=1)
    for clock in range(12):
        pulse.hear(b"\xf8", at_ns=S + clock * S // 48)
    now_ns = S + 11 * S // 48 + 1
    metronome.advance(now_ns=now_ns)
    assert [due.data for due in dues[:2]] == [bytes((0xF2, 1602 & 0x7F, 1602 >> 7)), b"\xfb"]
    assert all(due.data == b"\xf8" and due.at_ns > now_ns for due in dues[2:])
    assert len(dues) < 30


def test_a_player_without_a_channel_is_answered_on_the_one_last_heard() -> None:
    channel = Channel()
    assert channel.hears(0x95)
    assert channel() == 5
    assert channel.hears(0xBF)  # a fader on another channel does not move the answer there
    assert channel() == 5
    fixed = Channel(2)
    assert not fixed.hears(0x95)
    assert fixed.hears(0x92)
    assert fixed() == 2
