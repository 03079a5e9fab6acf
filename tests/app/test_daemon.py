"""The daemon as its player meets it: a process with real ports, played to, listened to, killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.cli.rehearsal import Message, Record, Rehearsal
from antiphon.music.keyboard import Keyboard

ONE_BAR = """
clock: {bpm: 240, meter: 4/4}
players: [{name: anna, input: 'keys*', output: 'keys*', listen_bars: 1, answer_bars: 1}]
"""
LONG_ANSWER = """
clock: {bpm: 120, meter: 4/4}
players: [{name: anna, input: 'keys*', output: 'keys*', listen_bars: 1, answer_bars: 16}]
"""
MS = 1_000_000
S = 1000 * MS


def bar(start_ns: int, *, beat_ns: int, beats: int = 4, pitch: int = 60, channel: int = 0) -> list[Message]:
    notes = []
    for beat in range(beats):
        on_ns = start_ns + beat * beat_ns
        notes.append(Message(on_ns, bytes((0x90 | channel, pitch + beat, 80))))
        notes.append(Message(on_ns + beat_ns * 3 // 4, bytes((0x80 | channel, pitch + beat, 0))))
    return notes


def soon() -> int:
    return time.monotonic_ns() + 100 * MS


def of_kind(on: Rehearsal, kind: str) -> list[Record]:
    return [record for record in on.records() if record["kind"] == kind]


def eventually(met: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if met():
            return True
        time.sleep(0.02)
    return met()


def still_sounding(messages: list[Message]) -> list[int]:
    keyboard = Keyboard()
    for message in messages:
        keyboard.hear(message.data, at_tick=message.at_ns)
    return [held.pitch for held in keyboard.sounding]


def test_each_bar_is_answered_from_the_next_bar_line_on(start: Callable[..., Rehearsal]) -> None:
    on = start(ONE_BAR)
    begin = soon()
    for exchange in range(3):
        on.play(bar(begin + 2 * exchange * S, beat_ns=S // 4))
    on.wait_until(begin + 6 * S + S // 2)
    answers = of_kind(on, "answer")
    heard = of_kind(on, "heard")
    lines = [answer["line_ns"] for answer in answers]
    assert lines == [heard[0]["at_ns"] + (2 * exchange + 1) * S for exchange in range(3)]
    released = {record["due_ns"] for record in of_kind(on, "released") if record["data"].startswith("9")}
    assert set(lines) <= released
    for answer in answers:
        committed = [at_ns for at_ns in answer["onsets_ns"] if at_ns <= answer["line_ns"] - 60 * MS]
        assert answer["used"] >= len(committed) == 4
    assert any(message.data[0] == 0x90 for message in on.received)
    assert not still_sounding(on.received)


def test_sigterm_in_the_middle_of_an_answer_leaves_silence_and_exit_code_0(start: Callable[..., Rehearsal]) -> None:
    on = start(LONG_ANSWER)
    on.play(bar(soon(), beat_ns=S // 2))
    assert eventually(lambda: bool(still_sounding(on.received)))
    on.process.send_signal(signal.SIGTERM)
    assert on.process.wait(timeout=10) == 0
    assert eventually(lambda: not still_sounding(on.received), within_s=1.0)


def test_the_panic_signal_silences_the_box_and_it_goes_on(start: Callable[..., Rehearsal]) -> None:
    on = start(LONG_ANSWER)
    on.play(bar(soon(), beat_ns=S // 2))
    assert eventually(lambda: bool(still_sounding(on.received)))
    on.process.send_signal(signal.SIGUSR1)
    assert eventually(lambda: bytes((0xB0, 123, 0)) in [m.data for m in on.received])
    assert eventually(lambda: not still_sounding(on.received), within_s=1.0)
    answered = len(on.received)
    on.play(bar(soon(), beat_ns=S // 2))
    assert eventually(lambda: bool(still_sounding(on.received[answered:])))


def test_after_kill_9_of_the_daemon_every_note_ends_within_a_second(start: Callable[..., Rehearsal]) -> None:
    on = start(LONG_ANSWER)
    on.play(bar(soon(), beat_ns=S // 2))
    assert eventually(lambda: bool(still_sounding(on.received)))
    on.process.kill()
    killed_ns = time.monotonic_ns()
    on.process.wait()
    assert eventually(lambda: not still_sounding(on.received), within_s=3.0)
    ended_ns = max(message.at_ns for message in on.received)
    assert ended_ns - killed_ns < S


def test_after_kill_9_of_the_ports_process_notes_end_and_the_daemon_stops(start: Callable[..., Rehearsal]) -> None:
    on = start(LONG_ANSWER)
    on.play(bar(soon(), beat_ns=S // 2))
    assert eventually(lambda: bool(still_sounding(on.received)))
    os.kill(ports_process(on.process.pid), signal.SIGKILL)
    killed_ns = time.monotonic_ns()
    assert on.process.wait(timeout=15) != 0
    assert not still_sounding(on.received)
    offs = [m.at_ns for m in on.received if m.at_ns > killed_ns]
    assert offs
    assert min(offs) - killed_ns < S
    assert "ports process" in on.log()


def ports_process(pid: int) -> int:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"antiphon.ports.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("the daemon has no ports process")


def test_a_pattern_that_matches_nothing_is_said_and_waited_for(start: Callable[..., Rehearsal]) -> None:
    on = start(
        "players: [{name: anna, input: 'keys*', output: 'keys*'}, {name: bert, input: 'organ*', output: 'choir*'}]"
    )
    assert eventually(lambda: "waiting for a port like 'organ*'" in on.log())
    assert "waiting for a port like 'choir*'" in on.log()
    assert on.process.poll() is None


def test_two_players_on_two_channels_are_answered_each_on_their_own(start: Callable[..., Rehearsal]) -> None:
    on = start(
        "clock: {bpm: 240}\n"
        "players:\n"
        "- {name: anna, input: 'keys*', output: 'keys*', channel: 1, listen_bars: 1, answer_bars: 1}\n"
        "- {name: bert, input: 'keys*', output: 'keys*', channel: 3, listen_bars: 1, answer_bars: 2}\n"
    )
    begin = soon()
    both = [*bar(begin, beat_ns=S // 4), *bar(begin, beat_ns=S // 4, pitch=72, channel=2)]
    on.play(sorted(both, key=lambda message: message.at_ns))
    on.wait_until(begin + 4 * S)
    answers = {answer["player"]: answer for answer in of_kind(on, "answer")}
    assert set(answers) == {"anna", "bert"}
    assert answers["anna"]["line_ns"] == answers["bert"]["line_ns"]
    assert {message.data[0] & 0x0F for message in on.received if message.data[0] & 0xF0 == 0x90} == {0, 2}


def test_midi_clock_gives_the_bar_lines(start: Callable[..., Rehearsal]) -> None:
    on = start(
        "clock: {source: midi, meter: 4/4, input: 'keys*'}\n"
        "players: [{name: anna, input: 'keys*', output: 'keys*', listen_bars: 1, answer_bars: 1}]\n"
    )
    begin = soon()
    clock_ns = S // 2 // 24  # 120 quarters a minute
    clocks = [Message(begin + 2 * S + i * clock_ns, b"\xf8") for i in range(24 * 20)]
    stopped = Message(begin + 2 * S - 5 * MS, b"\xfa")
    on.play(bar(begin, beat_ns=S // 4, beats=1))
    assert eventually(lambda: "MIDI clock does not run" in on.log())
    played = bar(begin + 2 * S + 2 * S, beat_ns=S // 2)  # in bar 2 of the host's song
    on.play(sorted([stopped, *clocks, *played], key=lambda message: message.at_ns))
    (answer, *_) = of_kind(on, "answer")
    assert answer["bar"] == 2
    assert abs(answer["line_ns"] - (begin + 2 * S + 4 * S)) < 20 * MS


def test_a_count_in_clicks_before_bar_1(start: Callable[..., Rehearsal]) -> None:
    on = start(
        "clock: {bpm: 240, start: immediately, count_in_bars: 5}\n"
        "click: {output: 'keys*', during: count_in}\n"
        "players: [{name: anna, input: 'keys*', output: 'keys*'}]\n"
    )
    assert eventually(lambda: sum(m.data[0] == 0x99 for m in on.received) >= 5)
    on.wait_until(time.monotonic_ns() + 5 * S)
    clicks = [m for m in on.received if m.data[0] == 0x99]
    assert [m.data[1] for m in clicks[:5]].count(76) in (1, 2)
    assert {m.data[1] for m in clicks} == {76, 77}
    assert len(clicks) <= 20
    assert time.monotonic_ns() - clicks[-1].at_ns > S // 2
    assert not still_sounding(on.received)


@pytest.mark.parametrize("api", ["loopback"], indirect=True)
def test_a_broken_model_is_refused_with_its_name(start: Callable[..., Rehearsal], tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not a model")
    with pytest.raises(Exception, match=r"broken\.safetensors"):
        start("log: {level: info}", model=tmp_path / "broken.safetensors")
