"""`antiphon tokenize` and `antiphon detokenize`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli.main import main
from antiphon.music.midi_file import read_piece
from antiphon.music.normalise import bars_of
from antiphon.tokens.remi import encode_with_miditok
from tests.music.material import END, VOCABULARY, played, smf, time_signature

TEXT = "Bar_None TimeSig_4/4 Position_0 Tempo_91.51 Pitch_60 Velocity_63 Duration_1.0.12"
IDS = [VOCABULARY.ids[name] for name in TEXT.split()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three good files, two bad ones, and one that is none of ours."""
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/b.mid").write_bytes(smf(b"".join(played(60 + i) for i in range(9)) + END))
    (tmp_path / "in/a.MIDI").write_bytes(smf(time_signature(3, 1) + played(50, len_ticks=2880) + END))
    (tmp_path / "in/deep/c.midi").write_bytes(smf(time_signature(6, 3) + played(50) + END))
    (tmp_path / "in/bad.mid").write_bytes(b"MThd")
    (tmp_path / "in/drums.mid").write_bytes(smf(played(38, channel=9) + END))
    (tmp_path / "in/notes.txt").write_text("not music")
    return tmp_path / "in"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def jsonl(path: Path, *values: object) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


# --- tokenize -----------------------------------------------------------------------------------------------


def test_a_folder_gives_a_sorted_line_for_each_good_file_and_tells_of_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenize", str(folder)]) == 1
    out, told = capsys.readouterr()
    found = lines(out)
    assert [line["file"] for line in found] == [str(folder / name) for name in ("a.MIDI", "b.mid", "deep/c.midi")]
    for line in found:
        assert sorted(line) == ["bar_starts", "file", "ids"]
        assert line["ids"] == encode_with_miditok(bars_of(read_piece(line["file"])), VOCABULARY)
        assert line["bar_starts"] == [index for index, token in enumerate(line["ids"]) if token == 3]
    assert [len(line["bar_starts"]) for line in found] == [1, 3, 1]
    refused = told.splitlines()
    assert len(refused) == 2
    assert refused[0].startswith(f"antiphon: {folder}/bad.mid: it is damaged or cut short")
    assert refused[1].startswith(f"antiphon: {folder}/drums.mid: it has only drums")
    assert all(line.endswith(")") for line in refused), "what to do"


def test_good_files_alone_are_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out.jsonl"
    assert main(["tokenize", str(folder / "b.mid"), str(folder / "deep"), "--json", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    assert [line["file"] for line in lines(out.read_text())] == [str(folder / "b.mid"), str(folder / "deep/c.midi")]


def test_what_is_named_is_read_whatever_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.mid").rename(folder / "music")
    assert main(["tokenize", str(folder / "music"), str(folder / "notes.txt"), str(folder / "none.mid")]) == 1
    out, told = capsys.readouterr()
    assert len(lines(out)) == 1
    assert "notes.txt: it is not a Standard MIDI File" in told
    assert "none.mid: No such file" in told


def test_a_folder_without_music_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    assert main(["tokenize", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"antiphon: {tmp_path}: there is no MIDI file in it (")


def test_music_that_the_model_lacks_words_for_is_told_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.mid").write_bytes(smf(time_signature(200, 2) + played(60) + END))
    assert main(["tokenize", str(folder / "b.mid")]) == 1
    assert f"{folder}/b.mid: the model knows no bars of 200/4" in capsys.readouterr().err


def test_a_name_with_a_line_break_is_told_of_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", str(tmp_path / "a\nb.mid")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lines_that_cannot_be_written_are_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenize", str(folder / "b.mid"), "--json", str(folder / "none/out.jsonl")]) == 2
    assert "none/out.jsonl: No such file" in capsys.readouterr().err


# --- detokenize ---------------------------------------------------------------------------------------------


def test_files_go_there_and_back_through_a_pipe(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("antiphon"))]
    there = subprocess.run([*command, "tokenize", folder, "--json", "-"], capture_output=True, check=False)
    assert there.returncode == 1
    out = folder / "new/out"
    back = subprocess.run([*command, "detokenize", "-", "-o", out], input=there.stdout, capture_output=True, check=True)
    assert (back.stdout, back.stderr) == (b"", b"")
    assert sorted(os.listdir(out)) == ["a.mid", "b.mid", "c.mid"]
    again = subprocess.run([*command, "tokenize", out], capture_output=True, check=True)
    assert [line["ids"] for line in lines(again.stdout.decode())] == [
        line["ids"] for line in lines(there.stdout.decode())
    ]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.mid", "a.mid"),
        ("some/where/a.MIDI", "a.mid"),
        ("../../x", "x.mid"),
        ("/etc/passwd", "passwd.mid"),
        ("..\\..\\x.mid", "x.mid"),
        ("..", "piece.mid"),
        ("a/..", "piece.mid"),
        ("", "piece.mid"),
        (".hidden", "hidden.mid"),
        ("a\0b\n.mid", "a_b_.mid"),
        ("-o.mid", "-o.mid"),
        ("Für Elise (1).mid", "Für Elise (1).mid"),
        ("x" * 500, "x" * 200 + ".mid"),
        ("ü" * 500, "ü" * 100 + ".mid"),
        ("\ud800.mid", "_.mid"),
        (None, "None.mid"),
        (["../x"], "x__.mid"),
    ],
)
def test_names_stay_inside_the_folder(tmp_path: Path, name: object, safe: str) -> None:
    out = tmp_path / "deep/er/out"
    out.mkdir(parents=True)
    assert main(["detokenize", str(jsonl(tmp_path / "in.jsonl", {"file": name, "ids": IDS})), "-o", str(out)]) == 0
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == sorted(["in.jsonl", f"deep/er/out/{safe}"])


def test_a_line_without_a_name_is_a_piece(tmp_path: Path) -> None:
    assert main(["detokenize", str(jsonl(tmp_path / "in.jsonl", {"ids": IDS})), "-o", str(tmp_path / "out")]) == 0
    assert os.listdir(tmp_path / "out") == ["piece.mid"]


def test_equal_names_get_numbers(tmp_path: Path) -> None:
    names = ["a.mid", "b/a.mid", "A.mid", "a-2.mid", "a.mid"]
    source = jsonl(tmp_path / "in.jsonl", *({"file": name, "ids": IDS} for name in names))
    assert main(["detokenize", str(source), "-o", str(tmp_path / "out")]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["A-3.mid", "a-2-2.mid", "a-2.mid", "a-4.mid", "a.mid"]


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "out/a.mid").symlink_to(tmp_path / "victim")
    assert (
        main(["detokenize", str(jsonl(tmp_path / "in.jsonl", {"file": "a", "ids": IDS})), "-o", str(tmp_path / "out")])
        == 1
    )
    assert (tmp_path / "victim").read_text() == "mine"
    assert "it is a link" in capsys.readouterr().err


def test_bad_lines_are_told_of_and_the_others_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [
        b"not JSON",
        b'{"file": "x"}',
        b'{"ids": 3}',
        b'{"ids": [3, "4"]}',
        b'{"ids": [3, true]}',
        b'{"ids": [3, 1.5]}',
        b'{"ids": [3, 100000]}',
        b'{"ids": [3, -1]}',
        b'{"ids": []}',
        b'{"ids": [4, 5]}',
        b"[3]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"ids": [' + b"9" * 5000 + b"]}",
    ]
    good = json.dumps({"file": "good", "ids": IDS}).encode()
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join([*bad, b"", good, b""]))
    assert main(["detokenize", str(source), "-o", str(tmp_path / "out")]) == 1
    assert os.listdir(tmp_path / "out") == ["good.mid"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(bad)
    for number, line in enumerate(told, 1):
        assert line.startswith(f"antiphon: {source}:{number}: ")


def test_one_line_may_go_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mid"
    assert main(["detokenize", str(jsonl(tmp_path / "in.jsonl", {"file": "../x", "ids": IDS})), "-o", str(out)]) == 0
    assert [(n.pitch, n.len_ticks) for n in read_piece(out).notes] == [(60, 960)]
    two = jsonl(tmp_path / "two.jsonl", {"ids": IDS}, {"ids": IDS})
    assert main(["detokenize", str(two), "-o", str(out)]) == 2
    assert "2 lines do not go into one file" in capsys.readouterr().err


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "out.mid").mkdir()
    source = jsonl(tmp_path / "in.jsonl", {"ids": IDS}, {"ids": IDS})
    assert main(["detokenize", str(source), "-o", str(tmp_path / "out.mid")]) == 0
    assert sorted(os.listdir(tmp_path / "out.mid")) == ["piece-2.mid", "piece.mid"]


def test_ids_may_be_given_on_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out.mid"
    assert main(["detokenize", "--ids", ", ".join(map(str, IDS)), "-o", str(out)]) == 0
    piece = read_piece(out)
    assert piece.end_tick == 3840
    assert piece.tempos.bpm_at(0) == pytest.approx(91.51, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-o", "a.mid"], "either a file of lines or --ids"),
        (["in.jsonl", "--ids", "3", "-o", "a.mid"], "either a file of lines or --ids"),
        (["--ids", "3,x", "-o", "a.mid"], "whole numbers"),
        (["--ids", "3,380", "-o", "folder"], "--ids make one file"),
        (["--ids", "1,2", "-o", "a.mid"], "no bar"),
        (["--ids", "3,9999", "-o", "a.mid"], "id 9999 at 1 is outside"),
        (["--ids", "3,-1", "-o", "a.mid"], "id -1 at 1 is outside"),
        (["none.jsonl", "-o", "a.mid"], "none.jsonl: No such file"),
        (["none.jsonl", "-o", "folder"], "none.jsonl: No such file"),
        (["in.jsonl", "-o", "in.jsonl"], "in.jsonl: File exists"),
    ],
)
def test_what_cannot_be_done_is_told_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "in.jsonl", {"ids": IDS})
    assert main(["detokenize", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "a.mid").exists()


def test_standard_input_is_told_of_by_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\nnot JSON\n")))
    assert main(["detokenize", "-", "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("antiphon: line 2: it is not JSON")
