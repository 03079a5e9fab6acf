"""The release core on a clock turned by hand: what goes out, when, and that every note that begins also ends."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antiphon.music.events import Due
from antiphon.ports.messages import APPEND, Dropped, End, Panic, Plan
from antiphon.ports.midi import is_note_off, is_note_on
from antiphon.ports.scheduler import Scheduler, Write

LATE_NS = 20
KEYS = "keys:midi"
PADS = "pads:midi"


def on(at_ns: int, pitch: int, note: int, *, channel: int = 0) -> Due:
    return Due(at_ns=at_ns, data=bytes((0x90 | channel, pitch, 100)), note=note)


def off(at_ns: int, pitch: int, note: int, *, channel: int = 0) -> Due:
    return Due(at_ns=at_ns, data=bytes((0x80 | channel, pitch, 0)), note=note)


def note(at_ns: int, end_ns: int, pitch: int, note: int) -> tuple[Due, Due]:
    return on(at_ns, pitch, note), off(end_ns, pitch, note)


def a_plan(*dues: Due, lane: int = 0, port: int = 0, plan: int = 1, replaces_from_ns: int = APPEND) -> Plan:
    return Plan(port=port, lane=lane, plan=plan, replaces_from_ns=replaces_from_ns, dues=dues)


def a_scheduler() -> Scheduler:
    scheduler = Scheduler(late_ns=LATE_NS)
    scheduler.route(0, KEYS, now_ns=0)
    return scheduler


def played(actions: list[Write | Dropped]) -> list[str]:
    """What was written, in few words: `+60` for an on, `-60` for an off, hex for the rest, `late` for a drop."""
    return [_word(action) for action in actions]


def _word(action: Write | Dropped) -> str:
    if isinstance(action, Dropped):
        return "late"
    if is_note_on(action.data):
        return f"+{action.data[1]}"
    if is_note_off(action.data):
        return f"-{action.data[1]}"
    return action.data.hex()


def released(scheduler: Scheduler, now_ns: int) -> list[str]:
    return played(scheduler.release(now_ns)[0])


# --- on time ------------------------------------------------------------------------------------------------


def test_messages_leave_when_they_are_due_and_not_before() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1), *note(150, 300, 64, 2)))
    assert scheduler.release(99) == ([], 100)
    assert released(scheduler, 100) == ["+60"]
    assert released(scheduler, 160) == ["+64"]
    assert released(scheduler, 299) == ["-60"]
    assert scheduler.next_due_ns == 300
    assert released(scheduler, 300) == ["-64"]
    assert scheduler.next_due_ns is None


def test_at_one_moment_the_clock_goes_first_then_offs_then_the_rest_as_given() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(50, 100, 60, 1)))
    scheduler.plan(
        a_plan(Due(100, b"\xc0\x05"), on(100, 62, 2), Due(100, b"\xb0\x07\x40"), on(100, 60, 3), Due(100, b"\xf8"))
    )
    assert released(scheduler, 50) == ["+60"]
    assert released(scheduler, 100) == ["f8", "-60", "c005", "+62", "b00740", "+60"]


def test_a_note_without_length_ends_after_it_began() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(off(100, 60, 1), on(100, 60, 1), off(90, 62, 2), on(100, 62, 2)))
    assert Counter(released(scheduler, 100)) == Counter(["+60", "-60", "+62", "-62"])
    assert len(scheduler.sounding) == 0


# --- too late -----------------------------------------------------------------------------------------------


def test_a_note_on_later_than_allowed_is_dropped_with_its_off_and_told() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 7), plan=3))
    actions, next_ns = scheduler.release(100 + LATE_NS + 1)
    assert actions == [Dropped(port=0, lane=0, plan=3, note=7, due_ns=100, at_ns=121)]
    assert next_ns is None


def test_a_note_on_just_in_time_is_played_with_its_off() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 110, 60, 1)))
    assert released(scheduler, 100 + LATE_NS) == ["+60", "-60"]


def test_an_off_is_written_however_late() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1)))
    assert released(scheduler, 100) == ["+60"]
    assert released(scheduler, 10**12) == ["-60"]


def test_clock_and_controls_are_written_however_late() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(Due(100, b"\xf8"), Due(100, b"\xb0\x40\x00")))
    assert released(scheduler, 10**9) == ["f8", "b04000"]


# --- identity -----------------------------------------------------------------------------------------------


def test_an_old_off_does_not_cut_a_new_note_of_the_same_pitch() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 300, 60, 1), *note(200, 400, 60, 2)))
    assert released(scheduler, 100) == ["+60"]
    assert released(scheduler, 200) == ["-60", "+60"]
    assert released(scheduler, 399) == []
    assert released(scheduler, 400) == ["-60"]


def test_two_lanes_on_one_device_end_each_others_unisons_only_by_striking_anew() -> None:
    scheduler = a_scheduler()
    scheduler.route(1, KEYS, now_ns=0)
    scheduler.plan(a_plan(*note(100, 300, 60, 1), port=0))
    scheduler.plan(a_plan(*note(200, 400, 60, 1), port=1))
    assert released(scheduler, 100) == ["+60"]
    assert released(scheduler, 200) == ["-60", "+60"]
    assert released(scheduler, 300) == []
    assert released(scheduler, 400) == ["-60"]


def test_the_same_pitch_on_another_channel_or_output_is_another_note() -> None:
    scheduler = a_scheduler()
    scheduler.route(1, PADS, now_ns=0)
    scheduler.plan(a_plan(on(1, 60, 1), on(1, 60, 2, channel=5)))
    scheduler.plan(a_plan(on(1, 60, 1), port=1))
    assert released(scheduler, 1) == ["+60", "+60", "+60"]
    assert len(scheduler.sounding) == 3


def test_an_off_without_a_note_is_nothing() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(off(100, 60, 1)))
    assert scheduler.release(200) == ([], None)


# --- superseding --------------------------------------------------------------------------------------------


def test_a_plan_takes_the_place_of_what_is_unreleased_from_its_moment_on() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1), *note(150, 250, 64, 2), *note(300, 400, 67, 3)))
    scheduler.plan(a_plan(*note(300, 350, 72, 4), plan=2, replaces_from_ns=150))
    assert released(scheduler, 100) == ["+60"]
    assert released(scheduler, 299) == ["-60"]
    assert released(scheduler, 310) == ["+72"]
    assert released(scheduler, 1000) == ["-72"]


def test_the_off_of_a_sounding_note_survives_every_plan() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1)))
    assert released(scheduler, 100) == ["+60"]
    scheduler.plan(a_plan(plan=2, replaces_from_ns=0))
    assert released(scheduler, 200) == ["-60"]


def test_a_newer_off_for_a_sounding_note_takes_the_place_of_the_old_one() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1)))
    assert released(scheduler, 100) == ["+60"]
    scheduler.plan(a_plan(off(300, 60, 1), plan=2, replaces_from_ns=150))
    assert released(scheduler, 200) == []
    assert released(scheduler, 300) == ["-60"]


def test_a_plan_leaves_other_lanes_and_ports_alone() -> None:
    scheduler = a_scheduler()
    scheduler.route(1, PADS, now_ns=0)
    scheduler.plan(a_plan(*note(100, 200, 60, 1), lane=1))
    scheduler.plan(a_plan(*note(100, 200, 62, 1), port=1))
    scheduler.plan(a_plan(replaces_from_ns=0))
    assert released(scheduler, 100) == ["+60", "+62"]


def test_a_plan_that_comes_late_does_not_strike_a_note_twice() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1)))
    assert released(scheduler, 105) == ["+60"]
    scheduler.plan(a_plan(*note(100, 250, 60, 1), plan=2, replaces_from_ns=100))
    assert released(scheduler, 110) == []
    assert released(scheduler, 250) == ["-60"]


def test_a_plan_takes_unreleased_controls_and_clock_with_it() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(Due(100, b"\xf8"), Due(200, b"\xf8")))
    scheduler.plan(a_plan(Due(250, b"\xf8"), plan=2, replaces_from_ns=150))
    assert released(scheduler, 100) == ["f8"]
    assert released(scheduler, 240) == []
    assert released(scheduler, 250) == ["f8"]


# --- the end ------------------------------------------------------------------------------------------------


def test_end_drops_what_is_to_come_and_ends_what_sounds_at_its_moment_or_earlier() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 500, 60, 1), *note(100, 180, 64, 2), *note(300, 400, 67, 3), Due(150, b"\xf8")))
    assert released(scheduler, 100) == ["+60", "+64"]
    scheduler.end(End(port=0, lane=0, at_ns=200))
    assert released(scheduler, 180) == ["-64"]
    assert released(scheduler, 10**9) == ["-60"]


def test_end_lifts_the_pedal_of_its_lane() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(Due(100, b"\xb3\x40\x7f"), Due(300, b"\xb3\x40\x00")))
    assert released(scheduler, 100) == ["b3407f"]
    scheduler.end(End(port=0, lane=0, at_ns=200))
    assert released(scheduler, 400) == ["b34000"]


def test_panic_ends_what_sounds_and_silences_the_channels_used() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 500, 60, 1), on(100, 40, 2, channel=9), on(900, 41, 3, channel=3)))
    released(scheduler, 100)
    words = played(list(scheduler.panic(Panic(), now_ns=150)))
    assert Counter(words[:2]) == Counter(["-60", "-40"])
    assert words[2:] == ["b04000", "b07b00", "b07800", "b94000", "b97b00", "b97800"]
    assert scheduler.release(10**9) == ([], None)
    assert len(scheduler.sounding) == 0


def test_panic_on_one_port_leaves_the_others_playing() -> None:
    scheduler = a_scheduler()
    scheduler.route(1, PADS, now_ns=0)
    scheduler.plan(a_plan(*note(100, 500, 60, 1)))
    scheduler.plan(a_plan(*note(100, 500, 62, 1), port=1))
    released(scheduler, 100)
    assert "-62" not in played(list(scheduler.panic(Panic(port=0), now_ns=150)))
    assert released(scheduler, 500) == ["-62"]


# --- ports that come and go ---------------------------------------------------------------------------------


def test_a_note_for_a_port_that_is_not_there_is_dropped_and_told() -> None:
    scheduler = Scheduler(late_ns=LATE_NS)
    scheduler.plan(a_plan(*note(100, 200, 60, 1), Due(100, b"\xf8")))
    assert released(scheduler, 100) == ["late"]
    assert scheduler.next_due_ns is None


def test_the_notes_of_a_vanished_output_are_ended_when_it_returns() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 200, 60, 1)))
    released(scheduler, 100)
    scheduler.lost(KEYS)
    assert released(scheduler, 300) == []
    writes = scheduler.opened(KEYS, now_ns=400)
    assert [(write.output, _word(write), write.note) for write in writes] == [(KEYS, "-60", 1)]
    assert scheduler.opened(KEYS, now_ns=500) == []


def test_another_route_ends_the_notes_on_the_old_output_there() -> None:
    scheduler = a_scheduler()
    scheduler.plan(a_plan(*note(100, 300, 60, 1), *note(200, 300, 64, 2)))
    released(scheduler, 100)
    writes = scheduler.route(0, PADS, now_ns=150)
    assert [(write.output, _word(write)) for write in writes] == [(KEYS, "-60")]
    actions, _ = scheduler.release(200)
    assert [(write.output, _word(write)) for write in actions if isinstance(write, Write)] == [(PADS, "+64")]


# --- whatever happens ---------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("plan"),
            st.integers(0, 1),
            st.integers(-30, 60),
            st.lists(st.tuples(st.integers(-40, 60), st.integers(0, 40), st.integers(60, 63)), max_size=4),
        ),
        st.tuples(st.just("end"), st.integers(0, 1), st.integers(-10, 40)),
        st.tuples(st.just("panic"), st.integers(-1, 1)),
        st.tuples(st.just("route"), st.integers(0, 1), st.sampled_from((KEYS, PADS, None))),
        st.tuples(st.just("lost"), st.sampled_from((KEYS, PADS))),
        st.tuples(st.just("turn"), st.integers(0, 60)),
    ),
    max_size=30,
)


@given(steps)
def test_every_note_that_begins_ends_exactly_once(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    scheduler = a_scheduler()
    now_ns, identity = 1000, 0
    wire: list[Write | Dropped] = []
    for step in steps:
        match step:
            case ("plan", lane, replaces, notes):
                dues: list[Due] = []
                for start, length, pitch in notes:
                    identity += 1
                    dues += note(now_ns + start, now_ns + start + length, pitch, identity)
                scheduler.plan(a_plan(*dues, lane=lane, replaces_from_ns=now_ns + replaces))
            case ("end", lane, at):
                scheduler.end(End(port=0, lane=lane, at_ns=now_ns + at))
            case ("panic", port):
                wire += scheduler.panic(Panic(port=port), now_ns=now_ns)
            case ("route", port, output):
                wire += scheduler.route(port, output, now_ns=now_ns)
            case ("lost", output):
                scheduler.lost(output)
            case ("turn", by):
                now_ns += by
                wire += scheduler.release(now_ns)[0]
    wire += scheduler.release(10**9)[0]
    for output in (KEYS, PADS):
        wire += scheduler.opened(output, now_ns=10**9)
    assert_balanced(wire)
    assert len(scheduler.sounding) == 0
    assert scheduler.next_due_ns is None


def assert_balanced(wire: list[Write | Dropped]) -> None:
    """On each output, channel and pitch: on and off by turns, beginning with an on, ending with an off."""
    sounding: dict[tuple[str, int, int], int] = {}
    for write in wire:
        if isinstance(write, Dropped) or not (is_note_on(write.data) or is_note_off(write.data)):
            continue
        key = write.output, write.data[0] & 15, write.data[1]
        if is_note_on(write.data):
            assert key not in sounding
            sounding[key] = write.note
        else:
            assert sounding.pop(key) == write.note
    assert not sounding
