"""The rules that every test stands under (conftest.py), each seen to bite in a small run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
NEEDS_JACK = "import pytest\n\n@pytest.mark.jack\ndef test_it():\n    pass\n"
HAS_FIXTURE = "def test_it(jack_server):\n    pass\n"


def run(folder: Path, test: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = jack\n")
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs"]
    inherited = {key: value for key, value in os.environ.items() if key != "CI"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60, env=inherited | env
    )


@pytest.mark.parametrize("test", [NEEDS_JACK, HAS_FIXTURE])
def test_what_needs_jack_is_skipped_and_counted_where_there_is_none(tmp_path: Path, test: str) -> None:
    done = run(tmp_path, test, PATH="/nonexistent")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "tests skipped for want of JACK (jackd; `make setup` installs it): 1" in done.stdout


@pytest.mark.parametrize("test", [NEEDS_JACK, HAS_FIXTURE])
def test_what_needs_jack_fails_in_ci_where_there_is_none(tmp_path: Path, test: str) -> None:
    done = run(tmp_path, test, PATH="/nonexistent", CI="true")
    assert done.returncode == 1, done.stdout
    assert "nothing is skipped where CI=true" in done.stdout


@pytest.mark.jack
def test_a_jack_server_is_there_and_goes_with_the_run(tmp_path: Path) -> None:
    test = (
        "import os, pathlib\n\n"
        "def test_it(jack_server):\n"
        "    assert os.environ['JACK_DEFAULT_SERVER'] == jack_server\n"
        "    pathlib.Path('.name').write_text(jack_server)\n"
    )
    done = run(tmp_path, test)
    assert done.returncode == 0, done.stdout
    name = (tmp_path / ".name").read_text()
    running = subprocess.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"], capture_output=True, check=False).stdout
    assert b"pytest" in running  # this very run
    assert f"jackd\0-n\0{name}".encode() not in running


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ("import threading, time\n\ndef test_it():\n    threading.Thread(target=time.sleep, args=(9,), daemon=True)"
         ".start()\n", "threads left behind"),
        ("import subprocess\n\ndef test_it():\n    subprocess.Popen(['sleep', '61'])\n", "processes left behind"),
        ("import subprocess\n\ndef test_it():\n    subprocess.run(['sh', '-c', 'sleep 61 &'])\n",
         "processes left behind"),
        ("def test_it():\n    open('left', 'w').close()\n", "files left in"),
    ],
    ids=["thread", "child", "orphan", "file"],
)  # fmt: skip
def test_what_is_left_behind_fails_its_test(tmp_path: Path, test: str, complaint: str) -> None:
    done = run(tmp_path, test, ANTIPHON_TEST_GRACE_S="0.3")
    assert done.returncode == 1, done.stdout
    assert complaint in done.stdout
