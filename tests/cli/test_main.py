"""The command line as people meet it: real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ANTIPHON = Path(sys.executable).with_name("antiphon")
COMMANDS = ["daemon", "check", "dump", "ports", "demo", "answer", "tokenize", "detokenize", "train"]
COMMANDS += ["evaluate", "bench live", "bench decode"]
COMMANDS += [f"models {action}" for action in ("inspect", "convert", "merge", "verify", "compare", "estimate")]


def antiphon(*args: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ANTIPHON), *map(str, args)], capture_output=True, text=True, timeout=60, check=False, **options
    )  # type: ignore[call-overload, no-any-return]


def test_version_is_the_installed_one() -> None:
    done = antiphon("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"antiphon {version('antiphon')}\n", "")


def test_help_names_every_command() -> None:
    done = antiphon("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if not re.search(rf"\n    {name.split()[0]}\s", done.stdout)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = antiphon(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: antiphon {command}")


def test_no_command_shows_the_help_and_fails() -> None:
    done = antiphon()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: antiphon")


def test_an_unknown_command_fails() -> None:
    done = antiphon("sing")
    assert done.returncode == 2
    assert "'sing'" in done.stderr


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    code = (
        "import sys; from antiphon.cli.main import main, parser; parser(); main(['check', '/dev/null']);"
        "print(sorted({'torch', 'numpy', 'numba', 'rtmidi', 'miditok', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ok\n[]\n"


def test_a_good_configuration_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("clock: {bpm: 90}\n")
    done = antiphon("check", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_three_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("clock: {bpm: fast}\nplayers: [{listen_bars: 0}]\nmodell: {}\n")
    done = antiphon("check", path)
    assert (done.returncode, done.stdout) == (2, "")
    head, *problems = done.stderr.splitlines()
    assert head == "antiphon: 3 problems in the configuration"
    assert [problem.split(": ")[:2] for problem in problems] == [
        [f"  {path}:1", "clock.bpm"],
        [f"  {path}:2", "players[0].listen_bars"],
        [f"  {path}:3", "modell"],
    ]


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    for command in (["check", tmp_path / "none.yaml"], ["dump", "--config", tmp_path / "none.yaml"]):
        done = antiphon(*command)
        assert (done.returncode, done.stdout) == (2, "")
        expected = f"antiphon: {tmp_path}/none.yaml: no such file (name a file that exists)\n"
        assert done.stderr == expected


def test_dump_prints_what_is_in_force(tmp_path: Path) -> None:
    path, again = tmp_path / "a.yaml", tmp_path / "b.yaml"
    path.write_text("clock: {bpm: 90, meter: 6/8}\nplayers: [{name: '010'}]\n")
    done = antiphon("dump", "--config", path)
    assert done.returncode == 0
    again.write_text(done.stdout)
    assert antiphon("dump", "--config", again).stdout == done.stdout
    assert yaml.safe_load(done.stdout)["clock"]["meter"] == "6/8"


def test_dump_changed_prints_only_that(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("clock: {bpm: 90, start: first_note}\n")
    done = antiphon("dump", "--config", path, "--changed")
    assert (done.returncode, done.stdout) == (0, "clock:\n  bpm: 90.0\n")


def test_dump_reference_is_the_file_in_etc() -> None:
    etc = Path(__file__).parents[2] / "etc" / "antiphon.yaml"
    assert antiphon("dump", "--reference").stdout == etc.read_text()


def test_a_reader_that_leaves_is_met_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [ANTIPHON, "dump", "--reference"], stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_one_clear_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [ANTIPHON, "dump", "--reference"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"antiphon: no space left on device\n")


def test_without_a_standard_output_nothing_breaks() -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{ANTIPHON}' dump --reference >&-"], stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    fifo = tmp_path / "never"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [ANTIPHON, "check", fifo],
        stderr=subprocess.PIPE,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a run in the background ignores it
    )
    try:
        with fifo.open("wb"):  # opens once the command waits for the file's content
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
    finally:
        process.kill()
        process.wait()
