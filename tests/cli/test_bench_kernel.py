"""`antiphon bench kernel` (S3-050): lists what there is, times one, and tells how right it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from antiphon.cli.main import main

FEW = ["--shape", "1x64x40", "--rounds", "1", "--repeats", "2"]


def test_the_list_names_every_kernel_and_what_it_is_called_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernel", "--list"]) == 0
    shown = capsys.readouterr().out
    for name in ("linear-int8", "wkv7-step", "wkv7_infer_forward", "sample", "rapid_sample_forward"):
        assert name in shown


def test_a_kernel_is_timed_beside_its_definition_the_memory_and_a_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told.json"
    peer = ["--peer", f"{sys.executable} -c \"print('2.0 calls')\"", "--peer-pattern", "([0-9.]+) calls"]
    assert main(["bench", "kernel", "rapid_sample_forward", *FEW, "--rows", "3", *peer, "--json", str(told)]) == 0
    figures = json.loads(told.read_text())
    assert figures["kernel"] == "sample"
    assert figures["off_by"] == 0
    assert figures["us"]["median"] >= figures["us"]["best"] > 0
    assert figures["share_of_memory"] == pytest.approx(figures["gb_per_s"] / figures["memory_gb_per_s"]["best"])
    assert figures["definition_us"] > 0
    (rival,) = figures["peers"]
    assert rival["us"] == 500_000
    assert rival["ours_is"] == pytest.approx(500_000 / figures["us"]["median"])
    shown = capsys.readouterr().out
    assert "sample" in shown
    assert "its definition" in shown


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ([], "linear-int8"),
        (["no-such"], "no-such"),
        (["sample", "--rows", "0"], "--rows"),
        (["sample", "--shape", "1"], "--shape"),
    ],
)
def test_what_cannot_be_timed_is_refused(command: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernel", *command]) == 2
    assert where in capsys.readouterr().err
