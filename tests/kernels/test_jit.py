"""Compiled kernels are found again by later processes, wherever there is a folder to keep them in."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import antiphon_kernels
from antiphon_kernels import jit

SOURCE = Path(antiphon_kernels.__file__).parent

RUN = """
import sys
from antiphon_kernels import jit, trial
assert trial.twice(21.0) == 42.0
stats = trial.twice.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), jit.cache_folder())
"""

TRIAL = """
from antiphon_kernels.jit import kernel

@kernel
def twice(x):
    return x * 2
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with a kernel that compiles in no time."""
    copy = tmp_path / "source" / "antiphon_kernels"
    copy.mkdir(parents=True)
    for name in ("__init__.py", "jit.py"):
        shutil.copy(SOURCE / name, copy / name)
    (copy / "trial.py").write_text(TRIAL)
    return copy


def run(package: Path, **environment: str) -> tuple[int, int, Path]:
    """(cache hits, cache misses, cache folder) of one process that calls the kernel."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    kept |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run([sys.executable, "-c", RUN], env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hits, misses, folder = done.stdout.split(maxsplit=2)
    return int(hits), int(misses), Path(folder.strip())


def test_a_later_process_finds_what_an_earlier_one_compiled(package: Path) -> None:
    assert run(package)[:2] == (0, 1)
    assert run(package) == (1, 0, package / "__pycache__")


def test_any_changed_source_file_makes_the_cache_stale(package: Path) -> None:
    run(package)
    (package / "other.py").write_text("X = 1\n")
    assert run(package)[:2] == (0, 1)


def test_where_the_package_cannot_be_written_the_users_cache_serves(package: Path, tmp_path: Path) -> None:
    # A file in the folder's place keeps even root from writing there.
    (package / "__pycache__").write_text("")
    home = tmp_path / "home"
    folder = home / ".cache" / "antiphon" / "kernels"
    assert run(package, HOME=str(home)) == (0, 1, folder)
    assert run(package, HOME=str(home)) == (1, 0, folder)
    given = {"HOME": str(home), "CACHE_DIRECTORY": str(tmp_path / "systemd")}
    assert run(package, **given)[2] == tmp_path / "systemd" / "kernels"


def test_where_nothing_can_be_written_a_kernel_runs_all_the_same(package: Path, tmp_path: Path) -> None:
    (package / "__pycache__").write_text("")
    (tmp_path / "nowhere").write_text("")
    hits, misses, folder = run(package, HOME=str(tmp_path / "nowhere"), TMPDIR=str(tmp_path))
    assert (hits, misses) == (0, 1)
    assert folder.parent == tmp_path


def test_a_damaged_entry_is_compiled_again(package: Path) -> None:
    folder = run(package)[2]
    entries = [entry for entry in folder.iterdir() if entry.suffix in (".nbi", ".nbc")]
    assert entries
    for damage in (b"", b"\x80\x04nonsense"):
        for entry in entries:
            entry.write_bytes(damage)
        assert run(package)[:2] == (0, 1)
        assert run(package)[:2] == (1, 0)


def test_a_function_whose_name_another_may_have_is_refused_until_it_has_its_own() -> None:
    """Code from the disk knows functions by name: the float16 products once ran those of bfloat16."""

    def times(x: float) -> float:
        return 2 * x

    for compile_ in (jit.piece, jit.kernel):
        with pytest.raises(ValueError, match="name of its own"):
            compile_(times)
    assert jit.piece(jit.named(times, "_times_two"))(4.0) == 8.0


def test_no_two_pieces_of_the_package_have_one_name() -> None:
    seen: dict[str, object] = {}
    for module in pkgutil.walk_packages(antiphon_kernels.__path__, "antiphon_kernels."):
        if "triton" in module.name:
            continue
        for value in vars(importlib.import_module(module.name)).values():
            function = getattr(value, "py_func", None)
            if function is not None and function.__module__.startswith("antiphon_kernels"):
                name = f"{function.__module__}.{function.__qualname__}"
                assert seen.setdefault(name, value) is value, name
    assert len(seen) > 50
