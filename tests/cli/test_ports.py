"""`antiphon ports` names the ports as patterns are matched against them, and says what to do where there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ports.devices import JackKeyboard

NO_ALSA = pytest.mark.skipif(Path("/dev/snd/seq").exists(), reason="this machine has ALSA")


def run(*arguments: str, server: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JACK_NO_START_SERVER": "1"}
    if server is not None:
        environment["JACK_DEFAULT_SERVER"] = server
    command = [sys.executable, "-m", "antiphon.cli.main", "ports", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.jack
def test_ports_are_listed_by_system_and_side(jack_server: str) -> None:
    keys = JackKeyboard("keys")
    try:
        listed = run()
        told = json.loads(run("--json").stdout)["jack"]
    finally:
        keys.close()
    assert listed.returncode == 0
    assert "JACK" in listed.stdout
    assert "    keys:in\n" in listed.stdout
    [heard] = [port for port in told["inputs"] if port["name"].endswith(":out")]
    assert heard["keyboard"] is True
    assert {"name": "keys:in", "keyboard": True} in told["outputs"]


@NO_ALSA
def test_a_machine_without_midi_is_told_what_to_do() -> None:
    listed = run(server="nobody-started-this")
    assert listed.returncode == 1
    assert listed.stdout == ""
    for clue in ("no ALSA sequencer", "modprobe snd-seq", "jackd", "loopback"):
        assert clue in listed.stderr
    assert listed.stderr.count("\n") == 1


@NO_ALSA
def test_for_programs_a_machine_without_midi_is_an_empty_object() -> None:
    listed = run("--json", server="nobody-started-this")
    assert (listed.returncode, listed.stdout, listed.stderr) == (1, "{}\n", "")
