"""`antiphon evaluate --windows … --answers N`: tables and files, and clear words for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation.small_calls import VOCABULARY, small_corpus, tune

from antiphon.cli.main import main
from antiphon.evaluation.windows import Window, write_windows
from antiphon.music.bar import Bar
from antiphon.music.meter import Meter
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.training.corpus import write_corpus
from tests.small_model import write_small_model

WINDOWS = ["--windows", "windows.jsonl", "--quiet"]


def write_piece(path: Path, bars: tuple[Bar, ...]) -> None:
    piece = piece_of(bars)
    part = Part("music", piece.notes, 0)
    write_parts(path, parts=[part], meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: three pieces and windows of them, a small model, and training music without waltzes."""
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        write_piece(tmp_path / f"{name}.mid", tune(rng, bars=20))
    write_piece(tmp_path / "waltz.mid", tune(rng, bars=20, meter=Meter(3, 4)))
    chosen = [
        Window(file=f"{name}.mid", start_bar=start, context_bars=context, bars=4)
        for name in ("a", "b", "waltz")
        for start, context in ((0, 4), (0, 8), (8, 4))
    ]
    write_windows(tmp_path / "windows.jsonl", chosen)
    write_small_model(tmp_path / "small.safetensors")
    write_corpus(tmp_path / "train.npz", small_corpus(), VOCABULARY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_answers_beside_the_baselines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "songs.csv").write_text("id,group\na,A\nb,B\n")
    files = ["--json", "out.json", "--markdown", "out.md", "--plots", "plots", "--songs", "songs.csv"]
    options = ["--answers", "0", "--seeds", "1", "--train-dir", "train.npz", *files]
    assert main(["evaluate", "small.safetensors", *WINDOWS, *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads((here / "out.json").read_text())
    answers = told["answers"]
    # Windows with 8 bars of context make no calls, and no training music can answer a waltz.
    assert (answers["calls"], answers["songs"], answers["left_out"]) == (4, 2, 2)
    assert told["sampling"] == {"temperature": 1.0, "top_p": 0.98, "top_k": 0, "min_p": 0.0}
    names = [verdict["name"] for verdict in answers["verdicts"]]
    assert names[0] == "human"
    assert {"retrieval", "n-gram, order 8, cache", "first model", "model"} <= set(names)
    assert "answers to 4 calls of 2 songs" in out
    assert "every answer within the rules" in out
    page = (here / "out.md").read_text()
    assert all(f"| {name} |" in page for name in names)
    assert (here / "plots" / "gap.png").is_file()


def test_a_sweep_tries_settings_of_the_model_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--answers", "2", "--seeds", "1", "--sweep", "--json", "out.json"]
    assert main(["evaluate", "small.safetensors", *WINDOWS, *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "sampling: 2 calls of 2 songs" in out
    told = json.loads((here / "out.json").read_text())
    assert "sampling" not in told
    names = [verdict["name"] for verdict in told["answers"]["verdicts"]]
    assert len(names) == len(set(names)) == 16
    assert "temperature 0.95, top-p 0.95" in names


MISTAKES = [
    (["--answers", "-1"], "--answers must be 0 or more"),
    (["--answers", "1", "--seeds", "0"], "--seeds 1 or more"),
    (["--answers", "1", "--temperature", "-1"], "temperature is -1.0"),
    (["--sweep"], "--answers N and --windows FILE.jsonl go together"),
    (["--answers", "1", "--songs", "train.npz"], "columns id and group"),
    (["--answers", "1", "--train-dir", "windows.jsonl"], "not a packed corpus"),
    (["--answers", "1", "--windows", "long.jsonl"], "no window has 4 bars of context"),
    (["--answers", "0", "--windows", "waltz.jsonl", "--train-dir", "train.npz"], "no passage in the meter of any"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_mistake_is_told_in_one_clear_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write_windows(Path("long.jsonl"), [Window(file="a.mid", start_bar=0, context_bars=8, bars=4)])
    write_windows(Path("waltz.jsonl"), [Window(file="waltz.mid", start_bar=0, context_bars=4, bars=4)])
    assert main(["evaluate", "small.safetensors", *WINDOWS, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_answers_need_windows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "small.safetensors", "--answers", "3", "--valid", "train.npz"]) == 2
    assert "go together" in capsys.readouterr().err
