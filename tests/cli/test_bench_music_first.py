"""`antiphon bench music-first`: three scenes, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antiphon.cli.main import main


def test_three_scenes_are_told_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "told.json"
    few = ["--shape", "1x64x40", "--texts", "2", "--prefill", "70", "--seconds", "0.4", "--json", str(told)]
    code = main(["bench", "music-first", "--bpm", "120", *few])
    assert "NaN" not in told.read_text()  # which is no JSON
    alone, texts, both = json.loads(told.read_text())["scenes"]
    assert code == (1 if both["missed"] else 0)
    assert [scene["scene"] for scene in (alone, texts, both)] == ["music alone", "texts alone", "music and texts"]
    assert alone["late_ms"]["count"] == both["late_ms"]["count"] > 5
    assert alone["answers_late_ms"]["count"] == both["answers_late_ms"]["count"] == 1
    assert texts["late_ms"]["count"] == alone["slices_ms"]["count"] == 0
    assert min(texts["text_tokens_per_s"], both["text_tokens_per_s"]) > 0
    assert both["prefills"] > 0
    assert "music and texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--texts", "0"], "--texts"),
        (["--bpm", "4000"], "--bpm"),
        (["--seconds", "0"], "--seconds"),
        (["--model", "/nonexistent"], "no such model"),
        (["--shape", "x"], "--shape"),
    ],
)
def test_what_cannot_be_played_is_refused(options: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "music-first", *options]) == 2
    assert where in capsys.readouterr().err
