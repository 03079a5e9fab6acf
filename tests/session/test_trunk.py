"""The trunk against an offline encoding: whatever is played, settled ids and the rest are those of the same music."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.music.keyboard import Keyboard
from antiphon.music.meter import BarLine, Meter, MeterMap
from antiphon.music.normalise import bars_of, cut
from antiphon.music.note import Piece
from antiphon.music.tempo import TempoMap
from antiphon.session.trunk import Trunk
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import BOS, Vocabulary

VOCABULARY = Vocabulary()
BARS = 4

Event = tuple[int, bytes]


@st.composite
def performances(draw: st.DrawFn) -> tuple[Meter, list[Event]]:
    """Keys and pedal, at any ticks of four bars: chords, repeats, notes held over bar lines, notes never released."""
    meter = Meter.parse(draw(st.sampled_from(["4/4", "3/4", "6/8", "2/2", "5/8"])))
    end = BARS * meter.len_ticks - 1
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 25))):
        start = draw(st.integers(0, end))
        length = draw(st.one_of(st.integers(1, 300), st.integers(300, 12_000)))
        pitch = draw(st.integers(10, 118) if draw(st.booleans()) else st.sampled_from([60, 62]))
        events.append((start, bytes((0x90, pitch, draw(st.integers(1, 127))))))
        events.append((start + length, bytes((0x80, pitch, 0))))
    if draw(st.booleans()):
        down = draw(st.integers(0, end))
        events.append((down, bytes((0xB0, 64, 127))))
        events.append((down + draw(st.integers(1, 9000)), bytes((0xB0, 64, 0))))
    return meter, sorted(events, key=lambda event: event[0])


@settings(max_examples=150)
@given(performances(), st.integers(20, 900))
def test_settled_and_rest_are_the_ids_of_the_same_music_cut_at_the_bar_line(
    performance: tuple[Meter, list[Event]], stride: int
) -> None:
    meter, events = performance
    end_tick = BARS * meter.len_ticks
    trunk, live, ids = Trunk(VOCABULARY), Keyboard(), list[int]()
    offline, notes = Keyboard(), []
    for number in range(BARS):
        trunk.open_bar(BarLine(number, number * meter.len_ticks, meter), bpm=120.0)
    queue = [event for event in events if event[0] < end_tick]
    for now in range(0, end_tick + stride, stride):
        now = min(now, end_tick)
        while queue and queue[0][0] <= now:
            tick, data = queue.pop(0)
            trunk.add(live.hear(data, at_tick=tick))
            notes += offline.hear(data, at_tick=tick)
        trunk.settle(now_tick=now, sounding=live.sounding)
        ids += trunk.take()
    rest = trunk.rest(at_tick=end_tick, sounding=live.sounding)
    heard = trunk.heard(at_tick=end_tick, sounding=live.sounding)
    notes += offline.end_all(at_tick=end_tick)
    piece = Piece(tuple(sorted(notes)), MeterMap((BarLine(0, 0, meter),)), TempoMap(((0, 120.0),)), end_tick)
    bars = cut(bars_of(piece)[:BARS])
    assert ids + rest == [BOS, *encode(bars, VOCABULARY)]
    assert list(heard) == bars
    assert trunk.count == len(ids)


def test_a_note_that_still_sounds_keeps_the_trunk_waiting_and_no_longer_than_a_note_can_be() -> None:
    meter = Meter(4, 4)
    trunk, keyboard = Trunk(VOCABULARY), Keyboard()
    for number in range(6):
        trunk.open_bar(BarLine(number, number * meter.len_ticks, meter), bpm=120.0)
    trunk.add(keyboard.hear(bytes((0x90, 60, 80)), at_tick=960))
    trunk.settle(now_tick=2 * 3840, sounding=keyboard.sounding)
    waiting = trunk.count
    trunk.settle(now_tick=960 + 8 * 960 + 80, sounding=keyboard.sounding)
    assert trunk.count > waiting
    settled = trunk.count
    assert VOCABULARY.pitch_id(60) in trunk.take()
    trunk.add(keyboard.hear(bytes((0x80, 60, 0)), at_tick=5 * 3840))
    trunk.settle(now_tick=6 * 3840, sounding=keyboard.sounding)
    assert trunk.count > settled
    assert VOCABULARY.pitch_id(60) not in trunk.take()
