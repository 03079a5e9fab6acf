"""The real ports process over a real socket: what goes in and out, and that no note is ever left sounding."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports.conftest import Rig
from ports.devices import CLEANING, receive_until

from antiphon.errors import PortError
from antiphon.music.events import Due, Heard
from antiphon.ports.line import Line
from antiphon.ports.messages import (
    APPEND,
    Down,
    Dropped,
    End,
    Fault,
    Panic,
    Plan,
    Ready,
    Released,
    Up,
    Waiting,
    Want,
)

ON = bytes((0x90, 60, 100))
OFF = bytes((0x80, 60, 0))
ENDED = bytes((0x80, 60, 64))  # what the ports process itself sends
SAFETY_S = 1.0
SOON_NS = 50_000_000
FAR_NS = 600_000_000_000


def a_note(at_ns: int, *, len_ns: int = FAR_NS, pitch: int = 60, note: int = 1) -> tuple[Due, Due]:
    return (
        Due(at_ns=at_ns, data=bytes((0x90, pitch, 100)), note=note),
        Due(at_ns=at_ns + len_ns, data=bytes((0x80, pitch, 0)), note=note),
    )


def a_plan(*dues: Due, port: int = 1, lane: int = 0, plan: int = 1, replaces_from_ns: int = APPEND) -> Plan:
    return Plan(port=port, lane=lane, plan=plan, replaces_from_ns=replaces_from_ns, dues=dues)


async def receive(device: object, *wanted: bytes, timeout_s: float = 5.0) -> list[bytes]:
    return await asyncio.to_thread(receive_until, device, *wanted, timeout_s=timeout_s)  # type: ignore[arg-type]


async def connected(rig: Rig, *, times: int = 1) -> None:
    await rig.until(Up, lambda up: up.direction == "in", times=times)
    await rig.until(Up, lambda up: up.direction == "out", times=times)


async def hold_a_note(rig: Rig, line: Line, *, port: int = 1, note: int = 1) -> None:
    """Have a note sound that would go on for ten minutes."""
    line.send(a_plan(*a_note(time.monotonic_ns() + SOON_NS, note=note), port=port))
    await rig.until(Released, lambda released: released.note == note)


# --- in and out ---------------------------------------------------------------------------------------------


def test_the_first_word_is_which_system_it_is(rig: Rig) -> None:
    async def story(line: Line) -> None:
        ready = rig.came[0]
        assert isinstance(ready, Ready)
        assert (ready.api, line.api) == (rig.api, rig.api)

    rig.run(story)


def test_what_is_played_is_heard_whole_in_order_and_stamped(rig: Rig) -> None:
    played = [
        ON,
        b"\xf8",
        bytes((0xB0, 64, 127)),
        b"\xfa",
        bytes((0xE0, 1, 64)),
        bytes((0xC0, 5)),
        b"\xf2\x01\x02",
        OFF,
    ]

    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        before_ns = time.monotonic_ns()
        for data in played:
            keys.send(data)
        await rig.until(Heard, times=len(played))
        heard = [message for message in rig.came if isinstance(message, Heard)]
        assert [message.data for message in heard] == played
        assert {message.port for message in heard} == {0}
        stamps = [message.at_ns for message in heard]
        assert stamps == sorted(stamps)
        assert before_ns <= stamps[0]
        assert stamps[-1] <= time.monotonic_ns()

    rig.run(story)


def test_a_plan_is_played_in_order_and_acknowledged(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        start_ns = time.monotonic_ns() + SOON_NS
        dues = [
            due
            for i in range(40)
            for due in a_note(start_ns + i * 5_000_000, len_ns=4_000_000, pitch=40 + i, note=i + 1)
        ]
        line.send(a_plan(*dues, plan=9))
        got = await receive(keys, dues[-1].data)
        assert got == [due.data for due in dues]
        released = [message for message in rig.came if isinstance(message, Released)]
        assert [(r.data, r.due_ns, r.note, r.plan, r.lane) for r in released] == [
            (due.data, due.at_ns, due.note, 9, 0) for due in dues
        ]
        assert all(r.at_ns >= r.due_ns for r in released)
        assert len(line.sounding) == 0

    rig.run(story)


def test_a_newer_plan_supersedes_an_older_one_on_the_wire(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        start_ns = time.monotonic_ns() + 300_000_000
        line.send(a_plan(*a_note(start_ns, pitch=60, note=1)))
        line.send(a_plan(*a_note(start_ns, pitch=72, len_ns=1, note=2), plan=2, replaces_from_ns=start_ns))
        assert await receive(keys, bytes((0x80, 72, 0))) == [bytes((0x90, 72, 100)), bytes((0x80, 72, 0))]

    rig.run(story)


def test_a_note_that_comes_too_late_is_dropped_and_told(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        line.send(a_plan(*a_note(time.monotonic_ns() - 1_000_000_000, note=5)))
        dropped = await rig.until(Dropped)
        assert dropped.note == 5
        assert await receive(keys, ON, timeout_s=0.1) == []

    rig.run(story)


def test_end_and_panic_silence_what_sounds(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        await hold_a_note(rig, line, note=1)
        line.send(End(port=1, lane=0, at_ns=time.monotonic_ns()))
        assert await receive(keys, ENDED) == [ON, ENDED]
        await hold_a_note(rig, line, note=2)
        line.send(Panic())
        all_sound_off = bytes((0xB0, 120, 0))
        got = await receive(keys, all_sound_off)
        assert got[:2] == [ON, ENDED]
        assert len(line.sounding) == 0

    rig.run(story)


def test_every_output_is_cleaned_when_it_is_opened(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        got = await receive(keys, *CLEANING)
        assert set(got) == CLEANING
        assert len(got) == len(CLEANING)

    rig.run(story)


def test_a_broken_packet_is_reported_and_survived(rig: Rig) -> None:
    async def story(line: Line) -> None:
        line._socket.send(b"\x02nonsense")
        line._socket.send(b"\x45" + bytes(43))
        fault = await rig.until(Fault, lambda fault: "packet" in fault.text)
        assert "broken packet of kind 2" in fault.text
        rig.plug()
        await connected(rig)

    rig.run(story)


# --- ports that come and go ---------------------------------------------------------------------------------


def test_a_want_that_nothing_matches_waits_and_says_so_once(rig: Rig) -> None:
    async def story(line: Line) -> None:
        rig.plug()
        waiting = await rig.until(Waiting)
        assert waiting == Waiting(port=4, direction="in", pattern="organ*")
        await asyncio.sleep(1.0)
        assert rig.came.count(waiting) == 1
        rig.plug("organ")
        await rig.until(Up, lambda up: up.name.startswith("organ"))

    rig.run(story, wants=[Want(port=4, direction="in", pattern="organ*")])


def test_a_note_that_sounds_when_its_port_vanishes_is_ended_on_its_return(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        await hold_a_note(rig, line)
        keys.close()
        rig.devices.remove(keys)
        await rig.until(Down, lambda down: down.direction == "out")
        assert len(line.sounding) == 1
        again = rig.plug()
        assert ENDED in await receive(again, ENDED)
        await rig.until(Released, lambda released: released.data == ENDED)
        assert len(line.sounding) == 0
        again.send(ON)
        await rig.until(Heard)

    rig.run(story)


def test_a_port_that_is_back_before_anybody_looked_is_connected_anew(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        await hold_a_note(rig, line)
        keys.close()
        rig.devices.remove(keys)
        again = rig.plug()
        assert ENDED in await receive(again, ENDED)
        await connected(rig, times=2)
        again.send(ON)
        await rig.until(Heard)

    rig.run(story)


def test_with_two_keyboards_the_one_that_was_played_is_answered(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys, pads = rig.plug("keys"), rig.plug("pads")
        await rig.until(Up, lambda up: up.direction == "in", times=2)
        keys.send(ON)
        await rig.until(Heard)
        await hold_a_note(rig, line, note=1)
        assert await receive(keys, ON) == [ON]
        pads.send(ON)
        assert await receive(keys, ENDED) == [ENDED]
        await rig.until(Up, lambda up: up.direction == "out" and up.name.startswith("pads"))
        await hold_a_note(rig, line, note=2)
        assert await receive(pads, ON) == [ON]
        assert await receive(keys, ON, timeout_s=0.1) == []

    rig.run(story)


def test_several_wants_share_one_port_and_each_hears_it(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await rig.until(Up, lambda up: up.direction == "in", times=2)
        keys.send(ON)
        await rig.until(Heard, times=2)
        assert {message.port for message in rig.came if isinstance(message, Heard)} == {0, 2}

    rig.run(story, wants=[Want(port=0, direction="in"), Want(port=2, direction="in", pattern="KEYS*")])


# --- no stuck notes -----------------------------------------------------------------------------------------


def test_stopping_the_line_ends_every_note(rig: Rig) -> None:
    async def story(line: Line) -> None:
        rig.plug()
        await connected(rig)
        await hold_a_note(rig, line)

    rig.run(story)
    assert ENDED in receive_until(rig.devices[0], ENDED, timeout_s=SAFETY_S)
    assert rig.deaths == []


def test_a_ports_process_asked_to_end_ends_its_notes_first(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        await hold_a_note(rig, line)
        os.kill(line.pid, signal.SIGTERM)
        assert ENDED in await receive(keys, ENDED, timeout_s=SAFETY_S)
        await death(rig)
        assert "exit code 0" in str(rig.deaths[0])
        assert len(line.sounding) == 0

    rig.run(story)


def test_when_the_ports_process_is_killed_its_notes_end_within_a_second(rig: Rig) -> None:
    async def story(line: Line) -> None:
        keys = rig.plug()
        await connected(rig)
        await hold_a_note(rig, line)
        os.kill(line.pid, signal.SIGKILL)
        assert ENDED in await receive(keys, ENDED, timeout_s=SAFETY_S)
        await death(rig)
        assert "killed by signal 9); its notes were ended" in str(rig.deaths[0])
        line.send(Panic())  # a dead line takes what is said to it in silence

    rig.run(story)
    assert len(rig.deaths) == 1


@pytest.mark.jack
def test_when_the_keeper_is_killed_a_panic_process_ends_its_notes(jack_rig: Rig) -> None:
    """JACK needs 5 s to bury a killed client when it runs synchronously, and nothing sounds meanwhile."""

    async def story(line: Line) -> None:
        keys = jack_rig.plug()
        await jack_rig.until(Up)
        await hold_a_note(jack_rig, line)
        keeper = int(Path(f"/proc/{line.pid}/task/{line.pid}/children").read_text().split()[0])
        os.kill(keeper, signal.SIGKILL)
        assert ENDED in await receive(keys, ENDED, timeout_s=20.0)
        await death(jack_rig)
        assert "its notes were ended" in str(jack_rig.deaths[0])

    jack_rig.run(story, wants=[Want(port=1, direction="out", pattern="keys*")])


DAEMON = """
import asyncio, sys, time
from antiphon.music.events import Due
from antiphon.ports.line import Line
from antiphon.ports.messages import APPEND, Plan, Released, Up, Want

async def main():
    def came(message):
        if isinstance(message, Up) and message.direction == "out":
            now = time.monotonic_ns()
            on, off = Due(now, bytes((0x90, 60, 100)), 1), Due(now + 10**12, bytes((0x80, 60, 0)), 1)
            line.send(Plan(port=1, lane=0, plan=1, replaces_from_ns=APPEND, dues=(on, off)))
        if isinstance(message, Released):
            print(line.pid, flush=True)
    wants = (Want(port=0, direction="in"), Want(port=1, direction="out", same_as=0))
    line = await Line.start(
        api=sys.argv[1], wants=wants, loopback_path=sys.argv[2], on_message=came, on_death=print)
    line.open()
    print("open", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_when_the_daemon_is_killed_its_notes_end_within_a_second(rig: Rig) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, rig.api, str(rig.path)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    with daemon.stdout:
        assert daemon.stdout.readline() == "open\n"
        keys = rig.plug()
        pid = int(daemon.stdout.readline())
        assert ON in receive_until(keys, ON)
        daemon.kill()
        assert ENDED in receive_until(keys, ENDED, timeout_s=SAFETY_S)
        daemon.wait()
    until = time.monotonic() + 5.0
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


async def death(rig: Rig) -> None:
    until = time.monotonic() + 30.0
    while not rig.deaths and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert rig.deaths, "on_death was not called"


# --- a MIDI system that is not there ------------------------------------------------------------------------


@contextlib.contextmanager
def a_jackd(name: str) -> Iterator[None]:
    command = ["jackd", "-n", name, "-r", "-S", "--no-mlock", "-d", "dummy", "-r", "48000", "-p", "64"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.terminate()


@contextlib.contextmanager
def a_player() -> Iterator[None]:
    """A keyboard in a process of its own, for a JACK client is of no use to anybody once its server ended."""
    command = [sys.executable, "-c", PLAYER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as player:
        try:
            yield
        finally:
            assert player.stdin is not None
            player.stdin.close()


PLAYER = """
import rtmidi, sys
keys = rtmidi.MidiIn(rtmidi.API_UNIX_JACK, name="keys"), rtmidi.MidiOut(rtmidi.API_UNIX_JACK, name="keys")
keys[0].open_virtual_port("in")
keys[1].open_virtual_port("out")
sys.stdin.read()
for client in keys:
    client.delete()
"""


@pytest.mark.jack
def test_a_jack_server_may_come_late_and_go_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"antiphon-late-{os.getpid()}"
    monkeypatch.setenv("JACK_DEFAULT_SERVER", name)
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    rig = Rig("jack", tmp_path / "loopback.sock")

    async def story(line: Line) -> None:
        await rig.until(Fault, lambda fault: "does not answer" in fault.text)
        await rig.until(Waiting, times=2)
        with a_jackd(name):
            await rig.until(Fault, lambda fault: fault.text.endswith("answers"))
            with a_player():
                await connected(rig)
                await hold_a_note(rig, line)
        await rig.until(Down, times=2)
        await rig.until(Fault, lambda fault: "does not answer" in fault.text, times=2)
        with a_jackd(name):
            await rig.until(Fault, lambda fault: fault.text.endswith("answers"), times=2)
            with a_player():
                await connected(rig, times=2)
                await rig.until(Released, lambda released: released.data == ENDED)
            await rig.until(Down, times=4)
            await line.stop()

    rig.run(story)
    assert capfd.readouterr().err == ""


def test_a_system_that_does_not_exist_is_a_clear_error(rig: Rig) -> None:
    if Path("/dev/snd/seq").exists():
        pytest.skip("this machine has ALSA")
    rig.api = "alsa"

    async def story(line: Line) -> None:
        raise AssertionError("the line opened")

    with pytest.raises(PortError, match="modprobe snd-seq"):
        rig.run(story)
