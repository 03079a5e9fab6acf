"""The ports process stays light, and the loopback needs no MIDI library at all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "miditok", "symusic", "grpc", "fastapi", "numba", "scipy", "rtmidi"}

LOOPBACK = """
from pathlib import Path
from antiphon.ports.opening import open_backend
backend = open_backend("loopback", loopback_path=Path(sys.argv[1]))
backend.scan()
backend.close()
"""


@pytest.mark.parametrize(
    "code",
    [
        "import antiphon.ports.process",
        "import antiphon.ports.keeper",
        "import antiphon.ports.panic",
        "import antiphon.ports.line",
        LOOPBACK,
    ],
)
def test_nothing_heavy_is_imported(code: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("loopback") / "socket"
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in json.loads(answer.stdout)}
