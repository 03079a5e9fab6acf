"""`antiphon evaluate`: a table for people, a file for programs, one clear line for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model.small_models import random_weights
from training.small_corpus import VOCABULARY, random_bars, random_corpus

from antiphon.cli.main import main
from antiphon.model import checkpoint
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.quantize import quantize_int8
from antiphon.model.spec import ModelSpec
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.tokens.vocabulary import BAR
from antiphon.training.corpus import pack_pieces, write_corpus


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model as float and int8, and two corpora."""
    spec = ModelSpec.of_width(n_layer=1, n_embd=64, vocab_size=VOCABULARY.size)
    plain = Checkpoint(spec=spec, tensors=random_weights(spec), metadata={"tokenizer": VOCABULARY.grid.to_json()})
    checkpoint.write(tmp_path / "float.safetensors", plain)
    checkpoint.write(tmp_path / "int8.safetensors", quantize_int8(plain))
    write_corpus(tmp_path / "valid.npz", random_corpus(pieces=4, seed=1), VOCABULARY)
    write_corpus(tmp_path / "train.npz", random_corpus(pieces=6, seed=2), VOCABULARY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_is_measured_beside_its_floats_and_the_ngrams(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "songs.csv").write_text("group,id\nA,piece 0\nB,piece 1\nA,piece 2\n")
    options = ["--valid", "valid.npz", "--train", "train.npz", "--float", "float.safetensors", "--songs", "songs.csv"]
    assert main(["evaluate", "int8.safetensors", *options, "--orders", "2", "8", "--json", "out.json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads((here / "out.json").read_text())
    assert (told["pieces"], told["songs"]) == (4, 3)
    assert told["sha256"] == checkpoint.sha256(here / "int8.safetensors")
    assert list(told["scores"]) == ["model, int8", "model, float32", "n-gram, order 2", "n-gram, order 8"]
    for name, score in told["scores"].items():
        assert name in out
        assert f"{score['nats_per_note']:.3f}" in out
        assert 0 < score["low"] <= score["nats_per_note"] <= score["high"]
        assert score["nats_per_note"] * told["notes"] == pytest.approx(score["nats_per_token"] * told["tokens"])
    int8, plain = (told["scores"][f"model, {name}"]["nats_per_note"] for name in ("int8", "float32"))
    assert 0 < abs(int8 - plain) < 0.05 * plain


def test_a_folder_of_midi_files_will_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "songs").mkdir()
    piece = piece_of(random_bars(np.random.default_rng(0), bars=8))
    parts = [Part("music", piece.notes, 0)]
    write_parts("songs/a.mid", parts=parts, meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick)
    assert main(["evaluate", "int8.safetensors", "--valid", "songs"]) == 0
    assert "1 pieces, 1 songs" in capsys.readouterr().out
    assert sorted(path.name for path in (here / "songs").iterdir()) == ["a.mid"]


MISTAKES = [
    (["nowhere.safetensors", "--valid", "valid.npz"], "there is no such model file"),
    (["valid.npz", "--valid", "valid.npz"], "a zip that torch.save did not write"),
    (["int8.safetensors", "--valid", "int8.safetensors"], "not a packed corpus"),
    (["int8.safetensors", "--valid", "valid.npz", "--orders", "0"], "--orders 1 or more"),
    (["int8.safetensors", "--valid", "valid.npz", "--songs", "valid.npz"], "columns id and group"),
    (["int8.safetensors", "--valid", "valid.npz", "--songs", "other.csv"], "names none of the pieces"),
    (["int8.safetensors", "--valid", "valid.npz", "--float", "other.safetensors"], "of another model"),
    (["int8.safetensors", "--valid", "silence.npz"], "not one note"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_mistake_is_told_in_one_clear_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    spec = ModelSpec.of_width(n_layer=2, n_embd=64, vocab_size=VOCABULARY.size)
    checkpoint.write(Path("other.safetensors"), Checkpoint(spec=spec, tensors=random_weights(spec)))
    write_corpus(Path("silence.npz"), pack_pieces([[BAR, VOCABULARY.meters.first]], ["rest"]), VOCABULARY)
    Path("other.csv").write_text("id,group\nnobody,1\n")
    assert main(["evaluate", *options, "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert any(word in err for word in words.split("|"))
    assert "Traceback" not in err
