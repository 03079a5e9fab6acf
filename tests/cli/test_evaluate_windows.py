"""`antiphon evaluate --windows`: the same bars for every system, a file for programs, tables for people (S2-110)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_model import small_checkpoint, write_small_model
from training.small_corpus import VOCABULARY, random_bars, random_corpus

from antiphon.cli.main import main
from antiphon.library.bundled import FIRST
from antiphon.model import checkpoint
from antiphon.model.checkpoint import Checkpoint
from antiphon.model.spec import ModelSpec
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.training.corpus import write_corpus

FOUR = Meter(4, 4)
WINDOW: dict[str, object] = {"file": "0.mid", "start_bar": 1, "context_bars": 4, "bars": 2}


def write_piece(path: Path, bars: list[Bar]) -> None:
    path.parent.mkdir(exist_ok=True)
    piece = piece_of(bars)
    parts = [Part("music", piece.notes, 0)]
    write_parts(path, parts=parts, meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as float and int8, three pieces, a training corpus, and what mistakes are made with."""
    folder = tmp_path_factory.mktemp("made")
    plain = small_checkpoint()
    checkpoint.write(folder / "float.safetensors", plain)
    write_small_model(folder / "int8.safetensors")
    layer = {name: tensor for name, tensor in plain.tensors.items() if not name.startswith("blocks.1.")}
    spec = ModelSpec.of_width(n_layer=1, n_embd=64, vocab_size=plain.spec.vocab_size)
    checkpoint.write(folder / "other.safetensors", Checkpoint(spec=spec, tensors=layer))
    rng = np.random.default_rng(0)
    for number in range(3):
        write_piece(folder / "pieces" / f"{number}.mid", random_bars(rng, bars=14))
    struck, rest = Bar(FOUR, (BarNote(0, 60, 12, 64),)), Bar(FOUR)
    write_piece(folder / "rests" / "rest.mid", [struck, *[rest] * 8, struck])
    write_piece(folder / "short" / "a.mid", [struck] * 7)
    write_corpus(folder / "train.npz", random_corpus(pieces=6, seed=2), VOCABULARY)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of what was made."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, windows: list[dict[str, object]]) -> str:
    Path(path).write_text("".join(json.dumps(window) + "\n" for window in windows))
    return path


def test_every_system_is_measured_on_the_same_bars(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    windows: list[dict[str, object]] = [
        {"file": f"{piece}.mid", "start_bar": target - context, "context_bars": context, "bars": 2}
        for piece in range(3)
        for target in (9, 12)
        for context in (4, 8)
    ]
    windows.append(dict(WINDOW))
    (here / "songs.csv").write_text("id,group\n0,A\n1,B\n2,A\n")
    options = ["--windows", write("w.jsonl", windows), "--root", "pieces", "--songs", "songs.csv", "--train-dir"]
    options += ["train.npz", "--float", "float.safetensors", "--json", "out.json", "--quiet"]
    assert main(["evaluate", "int8.safetensors", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    told = json.loads((here / "out.json").read_text())
    assert set(told) == {"windows", "summary"}
    names = ["model", "first", "float", "ngram", "ngram_cache"]
    for asked, found in zip(windows, told["windows"], strict=True):
        systems = found.pop("systems")
        assert found == asked
        assert list(systems) == names
        assert len({(one["notes"], one["tokens"]) for one in systems.values()}) == 1
        assert all(set(one) == {"nats", "notes", "tokens"} for one in systems.values())
        assert 0 < abs(systems["model"]["nats"] - systems["float"]["nats"]) < 0.05 * systems["float"]["nats"]
        assert systems["first"]["nats"] != systems["model"]["nats"]
    summary = told["summary"]
    assert summary["sha256"] == checkpoint.sha256(here / "int8.safetensors")
    assert [(c["context_bars"], c["targets"], c["songs"]) for c in summary["complete"]] == [(4, 6, 2), (8, 6, 2)]
    assert [c["targets"] for c in summary["every"]] == [7, 6]
    for column in summary["complete"]:
        for name in names:
            value = column["systems"][name]["value"]
            assert f"{value:.3f}" in out
            assert column["systems"][name]["low"] <= value <= column["systems"][name]["high"]
    assert all(f"model − {name}" in out for name in names[1:])


def test_the_first_model_beside_itself_differs_by_nothing_and_ngrams_are_counted_when_asked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = write("pieces/w.jsonl", [dict(WINDOW)])  # files are looked for beside the windows
    assert main(["evaluate", str(FIRST), "--windows", windows, "--json", "out.json", "--quiet"]) == 0
    systems = json.loads((here / "out.json").read_text())["windows"][0]["systems"]
    assert list(systems) == ["model", "first"]
    assert systems["model"] == systems["first"]
    assert "model − ngram" not in capsys.readouterr().out


def test_windows_are_chosen_and_can_be_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = ["evaluate", "--make-windows", "w.jsonl", "--valid", "pieces", "--quiet"]
    assert main(make) == 0
    assert "after  4 bars:" in capsys.readouterr().out
    first = (here / "w.jsonl").read_bytes()
    assert main(make) == 0
    assert (here / "w.jsonl").read_bytes() == first
    capsys.readouterr()
    assert main(["evaluate", "int8.safetensors", "--windows", "w.jsonl", "--root", "pieces", "--quiet"]) == 0
    assert f"{len(first.splitlines())} targets, " in capsys.readouterr().out


MISTAKES = [
    ([], "say what to measure it on"),
    (["--windows", "w.jsonl", "--valid", "pieces"], "say what to measure it on"),
    (["--windows", "w.jsonl"], "w.jsonl, line 1: 0.mid: No such file"),
    (["--windows", "out.jsonl", "--root", "pieces"], "out.jsonl, line 1: ../float.safetensors: the file lies outside"),
    (["--windows", "long.jsonl", "--root", "pieces"], "long.jsonl, line 1: 0.mid: the window ends with bar 102"),
    (["--windows", "rest.jsonl", "--root", "rests"], "not one note"),
    (["--windows", "train.npz", "--root", "pieces"], "train.npz, line 1: it is"),
    (["--windows", "w.jsonl", "--root", "pieces", "--songs", "other.csv"], "names none of the pieces"),
    (["--windows", "w.jsonl", "--root", "pieces", "--float", "other.safetensors"], "of another model"),
    (["--make-windows", "new.jsonl"], "name it with --valid"),
    (["--make-windows", "new.jsonl", "--valid", "train.npz"], "chosen of a folder"),
    (["--make-windows", "new.jsonl", "--valid", "short"], "no piece there is long enough"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_mistake_is_told_in_one_clear_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write("w.jsonl", [dict(WINDOW)])
    write("out.jsonl", [dict(WINDOW, file="../float.safetensors")])
    write("long.jsonl", [dict(WINDOW, bars=98)])
    write("rest.jsonl", [dict(WINDOW, file="rest.mid")])
    Path("other.csv").write_text("id,group\nnobody,1\n")
    before = sorted(here.rglob("*"))
    assert main(["evaluate", "int8.safetensors", *options, "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert sorted(here.rglob("*")) == before
