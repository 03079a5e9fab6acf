"""Windows are the same whenever they are chosen, and a file of them can name nothing but bars of pieces (S2-110)."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from antiphon.errors import FileError
from antiphon.evaluation import windows
from antiphon.evaluation.songs import read_songs, song_of
from antiphon.evaluation.windows import Window, choose_windows, load, read_windows, write_windows
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.music.midi_file import Part, write_parts
from antiphon.music.normalise import piece_of
from antiphon.training.prepare import midi_files

FOUR, THREE = Meter(4, 4), Meter(3, 4)


def write_piece(path: Path, bars: list[Bar]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    piece = piece_of(bars)
    parts = [Part("music", piece.notes, 0)]
    write_parts(path, parts=parts, meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick)
    return path


def numbered(count: int, meter: Meter = FOUR) -> list[Bar]:
    """Bars that tell their number by their pitch."""
    return [Bar(meter, (BarNote(0, 30 + number % 60, 12, 64),)) for number in range(count)]


def chosen(root: Path, songs: dict[str, str] | None = None) -> list[Window]:
    return choose_windows(midi_files(root), root, songs or {})


def test_a_window_is_the_bars_that_it_names(tmp_path: Path) -> None:
    write_piece(tmp_path / "a" / "b.mid", numbered(20))
    loaded = load(Window(file="a/b.mid", start_bar=3, context_bars=8, bars=4), tmp_path)
    assert [bar.notes[0].pitch for bar in loaded.context] == list(range(33, 41))
    assert [bar.notes[0].pitch for bar in loaded.target] == list(range(41, 45))
    assert loaded.notes == 4


def test_a_file_of_windows_is_read_as_it_was_written(tmp_path: Path) -> None:
    some = [Window(file="ä/b.mid", start_bar=bar, context_bars=4, bars=2) for bar in range(3)]
    write_windows(tmp_path / "w.jsonl", some)
    assert read_windows(tmp_path / "w.jsonl") == some
    lines = (tmp_path / "w.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"file": "ä/b.mid", "start_bar": 1, "context_bars": 4, "bars": 2}
    (tmp_path / "w.jsonl").write_text("\n\n".join(lines).replace("}", ', "song": "x"}'))
    assert read_windows(tmp_path / "w.jsonl") == some


GOOD = '{"file": "a.mid", "start_bar": 0, "context_bars": 4, "bars": 4}'


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1, 2]",
        "7",
        "{}",
        "[" * 4000,
        "\udcff",
        GOOD.replace('"a.mid"', "7"),
        GOOD.replace('"a.mid"', '""'),
        GOOD.replace(": 0", ": -1"),
        GOOD.replace(": 0", ": 0.0"),
        GOOD.replace(": 0", ": true"),
        GOOD.replace(": 0", ": 1e999"),
        GOOD.replace(": 0", ": " + "9" * 4000),
        GOOD.replace(": 0", ": NaN"),
        GOOD.replace('"bars": 4', '"bars": 0'),
        GOOD.replace('"context_bars": 4', '"context_bars": 0'),
        GOOD.replace('"bars": 4', '"bars": 100001'),
        GOOD.replace("a.mid", "a" * 5000),
    ],
)
def test_a_line_that_is_no_window_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "w.jsonl").write_bytes(f"{GOOD}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(FileError, match=r"w\.jsonl, line 2"):
        read_windows(tmp_path / "w.jsonl")


def test_a_file_of_windows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS", 3)
    (tmp_path / "w.jsonl").write_text(4 * f"{GOOD}\n")
    with pytest.raises(FileError, match="line 4: there are more than 3 windows"):
        read_windows(tmp_path / "w.jsonl")
    monkeypatch.setattr(windows, "MAX_BARS_IN_ALL", 20)
    (tmp_path / "w.jsonl").write_text(3 * f"{GOOD}\n")
    with pytest.raises(FileError, match=r"line 3: .* more than 20 bars"):
        read_windows(tmp_path / "w.jsonl")
    (tmp_path / "w.jsonl").write_text("\n\n")
    with pytest.raises(FileError, match="no window"):
        read_windows(tmp_path / "w.jsonl")
    with pytest.raises(FileError, match=r"nowhere\.jsonl"):
        read_windows(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("../out.mid", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ("link.mid", "outside the folder"),
        ("loop.mid", "loop.mid"),
        ("nul\0.mid", "no name of a file"),
        ("nowhere.mid", "No such file"),
        ("text.mid", "not a Standard MIDI File"),
        (".", "Is a directory"),
        ("short.mid", "ends with bar 7, but the piece has 7"),
    ],
)
def test_a_window_that_cannot_be_read_says_which_and_why(tmp_path: Path, file: str, words: str) -> None:
    root = tmp_path / "root"
    write_piece(tmp_path / "out.mid", numbered(20))
    write_piece(root / "short.mid", numbered(7))
    (root / "text.mid").write_text("once upon a time")
    (root / "link.mid").symlink_to(tmp_path / "out.mid")
    (root / "loop.mid").symlink_to("loop.mid")
    where = "w.jsonl, line 9"
    with pytest.raises(FileError, match=words) as caught:
        load(Window(file=file, start_bar=0, context_bars=4, bars=4, where=where), root)
    assert caught.value.where == f"{where}: {file}"


def test_a_target_is_judged_after_every_length_of_context(tmp_path: Path) -> None:
    write_piece(tmp_path / "long.mid", numbered(100))
    found = chosen(tmp_path)
    targets = {window.target_bar for window in found}
    assert len(targets) == 4
    assert len(found) == 16
    for target in targets:
        assert {w.context_bars for w in found if w.target_bar == target} == {4, 8, 16, 32}
    assert all(window.start_bar >= 0 and window.end_bar <= 100 for window in found)
    # Spread over what a target may be: bars 32 to 96.
    assert min(targets) < 45
    assert max(targets) > 84
    for window in found:
        load(window, tmp_path)


def test_targets_do_not_overlap_and_short_pieces_have_short_contexts(tmp_path: Path) -> None:
    write_piece(tmp_path / "just.mid", numbered(36))
    write_piece(tmp_path / "short.mid", numbered(20))
    write_piece(tmp_path / "tiny.mid", numbered(7))
    found = chosen(tmp_path)
    assert {w.file for w in found} == {"just.mid", "short.mid"}
    assert sorted(w.context_bars for w in found if w.file == "just.mid") == [4, 8, 16, 32]
    short = [w for w in found if w.file == "short.mid"]
    assert {w.context_bars for w in short} == {4}
    starts = sorted(w.target_bar for w in short)
    assert all(later - earlier >= 4 for earlier, later in pairwise(starts))
    assert len(starts) >= 3


def test_the_recordings_of_one_song_share_its_targets(tmp_path: Path) -> None:
    for number in range(7):
        write_piece(tmp_path / f"take {number}.mid", numbered(60 if number != 3 else 20))
    write_piece(tmp_path / "other.mid", numbered(60))
    songs = {f"take {number}": "one" for number in range(7)}
    found = chosen(tmp_path, songs)
    takes = [w for w in found if w.file != "other.mid"]
    assert len(takes) == 16
    assert len({w.file for w in takes}) == 4
    assert "take 3.mid" not in {w.file for w in takes}  # too short, where others are not
    assert len([w for w in found if w.file == "other.mid"]) == 16


def test_context_and_target_sound_and_are_of_one_meter(tmp_path: Path) -> None:
    silent = [Bar(FOUR)] * 30
    bars = [*numbered(40), *silent, *numbered(12), *numbered(40, THREE)]
    write_piece(tmp_path / "a.mid", bars)
    found = chosen(tmp_path)
    for window in found:
        loaded = load(window, tmp_path)
        assert loaded.notes
        assert any(bar.notes for bar in loaded.context[-4:])
        assert len({bar.meter for bar in (*loaded.context[-4:], *loaded.target)}) == 1
    assert {load(window, tmp_path).target[0].meter for window in found} == {FOUR, THREE}


def test_the_same_windows_are_chosen_every_time_and_bad_files_are_left_out(tmp_path: Path) -> None:
    for number in range(3):
        write_piece(tmp_path / f"{number}.mid", numbered(50 + number))
    before = chosen(tmp_path)
    (tmp_path / "broken.mid").write_bytes(b"MThd nonsense")
    write_piece(tmp_path / "odd.mid", numbered(50, Meter(23, 8)))
    assert chosen(tmp_path) == before
    assert choose_windows(midi_files(tmp_path)[::-1], tmp_path, {}) == before
    assert len(before) == 48


def test_a_table_tells_the_songs(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("id,group\na,one\nb,one\n")
    songs = read_songs(tmp_path / "songs.csv", ["a", "c"])
    assert song_of("x/a.mid", songs) == song_of("y/b.mid", songs) == "one"
    assert song_of("x/c.mid", songs) != song_of("y/c.mid", songs)
    with pytest.raises(FileError, match="names none"):
        read_songs(tmp_path / "songs.csv", ["c"])
    (tmp_path / "songs.csv").write_text("name,group\na,one\n")
    with pytest.raises(FileError, match="columns id and group"):
        read_songs(tmp_path / "songs.csv", ["a"])
