"""`antiphon pairs` as its user meets it (S2-012): a folder of MIDI files becomes lines of context and completion."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from training.small_corpus import random_bars

from antiphon.cli.main import main
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.windows import create_context_completion_pairs
from antiphon.training.copilot import CopilotDataset, read_pairs


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three songs, one of them too short for a window, in folders."""
    for seed, bars in enumerate((12, 9, 4)):
        piece = piece_of(random_bars(np.random.default_rng(seed), bars=bars))
        path = tmp_path / "songs" / f"{seed}" / "song.mid"
        path.parent.mkdir(parents=True)
        write_parts(
            path, parts=[Part("music", piece.notes, 0)], meters=piece.meters, tempos=piece.tempos,
            end_tick=piece.end_tick,
        )  # fmt: skip
    return tmp_path / "songs"


def test_every_window_of_every_file_is_written(songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "here"
    assert main(["pairs", "--midi-dir", str(songs), "--output-dir", str(out)]) == 0
    tokenizer = PianoTokenizer(preset="antiphon")
    expected = [
        pair
        for path in sorted(songs.rglob("*.mid"))
        for pair in create_context_completion_pairs(tokenizer.tokenize_midi(path), tokenizer, 4, 2)
    ]
    assert read_pairs(out / "pairs.jsonl") == expected
    assert len(expected) > 8
    assert len(CopilotDataset(expected)) == len(expected)
    assert [path.name for path in out.iterdir()] == ["pairs.jsonl"]
    assert capsys.readouterr() == (f"{out / 'pairs.jsonl'}: {len(expected)} pairs from 3 of 3 files\n", "")


def test_the_window_and_the_vocabulary_are_chosen_in_either_spelling(songs: Path, tmp_path: Path) -> None:
    knobs = ["--n_context_bars", "2", "--n_completion_bars", "1", "--step", "3", "--preset", "pianomuse"]
    assert main(["pairs", "--midi_dir", str(songs), "--output_dir", str(tmp_path), *knobs]) == 0
    tokenizer = PianoTokenizer(preset="pianomuse")
    expected = [
        pair
        for path in sorted(songs.rglob("*.mid"))
        for pair in create_context_completion_pairs(tokenizer.tokenize_midi(path), tokenizer, 2, 1, 3)
    ]
    assert read_pairs(tmp_path / "pairs.jsonl") == expected
    assert expected


def test_a_file_that_cannot_be_used_is_told_of_and_the_others_are_written(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (songs / "broken.mid").write_bytes(b"MThd")
    assert main(["pairs", "--midi-dir", str(songs), "--output-dir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "from 3 of 4 files" in out
    assert err.count("\n") == 1
    assert "broken.mid" in err
    assert len(read_pairs(tmp_path / "pairs.jsonl")) > 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--midi-dir", "nowhere", "--output-dir", "out"], "no MIDI file there"),
        (["--midi-dir", "songs", "--output-dir", "out", "--step", "0"], "at least one"),
        (["--midi-dir", "songs", "--output-dir", "file"], "file: File exists"),
    ],
)
def test_a_mistake_is_told_in_one_clear_line(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["pairs", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_dataset_for_hugging_face_is_written_or_its_want_is_told(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = main(["pairs", "--midi-dir", str(songs), "--output-dir", str(tmp_path), "--use-hf-dataset"])
    if importlib.util.find_spec("datasets") is None:
        assert asked == 2
        assert "needs the package datasets" in capsys.readouterr().err
        assert not (tmp_path / "pairs.jsonl").exists()
        return
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    dataset = importlib.import_module("datasets").load_from_disk(str(tmp_path / "dataset"))
    assert asked == 0
    assert list(dataset) == lines
