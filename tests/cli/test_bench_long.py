"""`antiphon bench long`: stretch after stretch of one session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiphon.cli.main import main
from tests.small_model import write_small_model


def test_every_stretch_is_told_with_what_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, told = write_small_model(tmp_path / "small.safetensors"), tmp_path / "told.json"
    assert main(["bench", "long", "--model", str(model), "--tokens", "2000", "--json", str(told)]) == 0
    figures = json.loads(told.read_text())
    assert [stretch["tokens"] for stretch in figures["stretches"]] == list(range(200, 2001, 200))
    assert all(stretch["us_per_token"] > 0 for stretch in figures["stretches"])
    first, last = (figures["stretches"][at]["resident_bytes"] for at in (0, -1))
    assert figures["grown_bytes"] == last - first
    assert "µs/token" in capsys.readouterr().out


def test_no_tokens_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "long", "--tokens", "0"]) == 2
    assert "--tokens" in capsys.readouterr().err
