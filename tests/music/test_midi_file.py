"""MIDI files: what others made of them, what anyone may send, and how they are written."""

from __future__ import annotations

import os
import stat
import tracemalloc
from pathlib import Path

import mido
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError, FileError
from antiphon.music import midi_file
from antiphon.music.meter import Meter, MeterMap
from antiphon.music.midi_file import MAX_TICKS, Part, read_piece, whole_file, write_parts, write_whole
from antiphon.music.normalise import bars_of, piece_of
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from antiphon.tokens.encoder import encode
from antiphon.tokens.vocabulary import Vocabulary
from tests.music.material import END, METERS, number, played, smf, tempo, time_signature

LONGEST_WAIT = b"\xff\xff\xff\x7f"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("midi") / "a.mid"


def read(path: Path, data: bytes) -> Piece:
    path.write_bytes(data)
    return read_piece(path)


def refusal(path: Path, data: bytes) -> str:
    """What is said of `data`; it names the file."""
    with pytest.raises(FileError) as caught:
        read(path, data)
    assert caught.value.where == str(path)
    assert caught.value.message
    return str(caught.value)


# --- reading ------------------------------------------------------------------------------------------------


def test_tracks_are_merged_and_drums_left_out(path: Path) -> None:
    piece = read(
        path,
        smf(
            tempo(100) + time_signature(3, 2) + END,
            played(60, len_ticks=480) + played(62, len_ticks=240) + END,
            played(48, wait=480, len_ticks=960, channel=1) + END,
            played(36, channel=9) + END,
        ),
    )
    assert piece.notes == (Note(0, 60, 960, 80), Note(960, 48, 1920, 80), Note(960, 62, 480, 80))
    assert piece.meters == MeterMap.of([(0, Meter(3, 4))])
    assert piece.tempos.bpm_at(0) == pytest.approx(100)
    assert piece.end_tick == 2880


def test_running_status_outlives_meta_events(path: Path) -> None:
    track = b"\x00\x90\x3c\x50" + b"\x60\x3c\x00" + b"\x00\xff\x01\x02hi" + b"\x00\x40\x50" + b"\x60\x40\x00" + END
    assert [(n.pitch, n.start_tick, n.len_ticks) for n in read(path, smf(track)).notes] == [
        (60, 0, 192),
        (64, 192, 192),
    ]


def test_notes_that_never_end_end_with_their_track(path: Path) -> None:
    piece = read(path, smf(b"\x00\x90\x3c\x50\x83\x60\xff\x2f\x00", played(70) + END))
    assert [(n.pitch, n.len_ticks) for n in piece.notes] == [(60, 960), (70, 960)]


def test_exclusives_foreign_chunks_and_what_follows_the_last_track_are_passed_over(path: Path) -> None:
    exclusive = b"\x00\xf0\x03\x7e\x09\xf7" + b"\x00\xf7\x02\x01\x02"
    data = smf(exclusive + played(60) + END)
    foreign = b"XFIH\x00\x00\x00\x02ab"
    assert len(read(path, data[:14] + foreign + data[14:] + b"garbage").notes) == 1


def test_what_follows_the_end_of_a_track_is_passed_over(path: Path) -> None:
    assert read(path, smf(played(60) + END + b"\x85\x85\x85")).end_tick == 960


def test_a_longer_header_is_read(path: Path) -> None:
    data = smf(played(60) + END)
    assert read(path, data[:4] + b"\x00\x00\x00\x08" + data[8:14] + b"\x00\x00" + data[14:]).end_tick == 960


def test_odd_key_signatures_and_data_bytes_do_not_matter(path: Path) -> None:
    piece = read(path, smf(b"\x00\xff\x59\x02\x0d\x09" + b"\x00\x90\x3c\xff\x60\x80\x3c\x00" + END))
    assert piece.notes == (Note(0, 60, 192, 127),)


def test_a_tempo_of_no_time_is_passed_over_and_wild_ones_are_bounded(path: Path) -> None:
    none, slow, fast = (b"\x00\xff\x51\x03" + data for data in (b"\x00\x00\x00", b"\xff\xff\xff", b"\x00\x00\x01"))
    assert read(path, smf(none + played(60) + END)).tempos.bpm_at(0) == 120
    assert read(path, smf(slow + played(60) + END)).tempos.bpm_at(0) == 5
    assert read(path, smf(fast + played(60) + END)).tempos.bpm_at(0) == 999


def test_other_resolutions_are_brought_to_ours(path: Path) -> None:
    piece = read(path, smf(played(60, wait=1, len_ticks=1) + END, division=3))
    assert piece.notes == (Note(320, 60, 320, 80),)


def test_ten_hours_are_read_and_encoded(path: Path) -> None:
    bars = 10 * 60 * 120 // 4
    notes = b"".join(played(40 + i % 48, wait=480, len_ticks=1440) for i in range(bars))
    piece = read(path, smf(tempo(120) + notes + END))
    assert piece.tempos.seconds_at(piece.end_tick) == pytest.approx(36_000)
    normal = bars_of(piece)
    assert len(normal) == bars
    assert all(len(bar.notes) == 1 for bar in normal)
    assert encode(normal, Vocabulary()).count(3) == bars


# --- bad input ----------------------------------------------------------------------------------------------


def test_what_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.mid: No such file"):
        read_piece(tmp_path / "none.mid")
    with pytest.raises(FileError, match="directory"):
        read_piece(tmp_path)
    with pytest.raises(FileError):
        read_piece("a\0b.mid")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the file is empty"),
        (b"RIFF\x00\x00\x00\x00RMID", "not a Standard MIDI File"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a Standard MIDI File"),
        (smf(), "no notes"),
        (smf(END), "no notes"),
        (smf(b""), "no notes"),
        (smf(played(36, channel=9) + END), "only drums"),
        (smf(played(60) + END, division=0xE728), "video frames"),
        (smf(played(60) + END, division=0), "no ticks"),
        (smf(played(60) + END, kind=3), "unknown type"),
        (smf(played(60) + END, played(62) + END, kind=2), "separate pieces"),
        (smf(played(60) + END, count=2), "ends where a track should begin"),
        (smf(b"\x00\x3c\x50"), "no status"),
        (smf(b"\x00\xf8" + played(60)), "no file may hold"),
        (smf(b"\x00\xff\x51"), "within an event"),
        (smf(b"\x00\xff\x58\x01\x04" + played(60)), "time signature"),
        (smf(time_signature(0, 2) + played(60)), "0/4 is not a meter"),
        (smf(time_signature(4, 6) + played(60)), "4/64 is not a meter"),
        (smf(time_signature(4, 255) + played(60)), "is not a meter"),
        (smf(b"\x81\x80\x80\x80\x00" + played(60)), "too long"),
        (smf(b"\x00\xf0\x87\xff\xff\x7fabc"), "within an event"),
    ],
)
def test_bad_files_are_refused_with_a_reason(path: Path, data: bytes, told: str) -> None:
    assert told in refusal(path, data)


def test_a_type_2_file_of_one_track_is_read(path: Path) -> None:
    assert len(read(path, smf(played(60) + END, kind=2)).notes) == 1


def small_file() -> bytes:
    conductor = tempo(90) + time_signature(6, 3) + b"\x00\xff\x59\x02\x00\x00" + END
    pedal = b"\x00\xb0\x40\x7f" + played(60) + played(64) + b"\x00\xb0\x40\x00" + b"\x00\xc0\x05" + b"\x00\xe0\x00\x40"
    return smf(conductor, pedal + b"\x00\xf0\x02\x01\xf7" + END)


def test_a_file_cut_short_anywhere_is_refused(path: Path) -> None:
    data = small_file()
    assert len(read(path, data).notes) == 2
    for length in range(len(data)):
        refusal(path, data[:length])


@given(changes=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_files_are_read_or_refused_but_nothing_else(path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(small_file())
    for place, byte in changes:
        data[place % len(data)] = byte
    try:
        piece = read(path, bytes(data))
    except FileError:
        return
    try:
        encode(bars_of(piece), Vocabulary())
    except AntiphonError:
        return


def test_waits_of_months_are_refused_in_little_memory(path: Path) -> None:
    data = smf(played(60) + (LONGEST_WAIT + b"\x90\x3c\x50") * 20_000 + END, division=1)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="last for days"):
            read_piece(path)
        assert tracemalloc.get_traced_memory()[1] < midi_file.MAX_FILE_BYTES + (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_long_silence_that_can_be_is_read_and_told_of_when_it_has_too_many_bars(path: Path) -> None:
    silence = number(MAX_TICKS - 480) + b"\xff\x2f\x00"
    piece = read(path, smf(time_signature(1, 4) + played(60) + silence, division=960))
    assert piece.end_tick == MAX_TICKS
    with pytest.raises(AntiphonError, match="bars are more than"):
        bars_of(piece)


def test_a_number_without_end_is_refused_at_once(path: Path) -> None:
    # Read as one number, these would take an hour.
    assert "too long" in refusal(path, smf(b"\xff" * 5_000_000 + b"\x00"))


def test_a_file_that_is_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = smf(played(60) + END)
    monkeypatch.setattr(midi_file, "MAX_FILE_BYTES", len(data))
    assert len(read(path, data).notes) == 1
    assert "larger than" in refusal(path, data + b"\x00")


# --- writing ------------------------------------------------------------------------------------------------


def test_pretty_midi_reads_what_we_write(path: Path) -> None:
    piece = Piece(
        notes=(Note(0, 60, 960, 80), Note(960, 60, 480, 90), Note(3840, 64, 1440, 100), Note(3840, 67, 5000, 127)),
        meters=MeterMap.of([(0, Meter(4, 4)), (3840, Meter(6, 8))]),
        tempos=TempoMap.of([(0, 120.0), (3840, 150.0)]),
        end_tick=3840 + 2 * 2880,
    )
    part = Part(name="Grün", notes=piece.notes, channel=3, program=5)
    write_parts(
        path, parts=[part], meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick, markers=[(3840, "Go")]
    )

    told = pretty_midi.PrettyMIDI(str(path))
    assert [(s.time, s.numerator, s.denominator) for s in told.time_signature_changes] == [
        (0.0, 4, 4),
        (2.0, 6, 8),
    ]
    times, bpms = told.get_tempo_changes()
    assert list(times) == [0.0, 2.0]
    assert list(bpms) == [120.0, 150.0]
    lines = [piece.tempos.seconds_at(line.tick) for line in piece.meters.bars(until_tick=piece.end_tick)]
    assert list(told.get_downbeats()) == pytest.approx(lines), "bar 1 begins at 0, and every bar where it should"
    (instrument,) = told.instruments
    assert (instrument.program, instrument.name) == (5, "Grün".encode().decode("latin1"))
    found = sorted((n.start, n.pitch, n.end, n.velocity) for n in instrument.notes)
    wanted = [
        (piece.tempos.seconds_at(n.start_tick), n.pitch, piece.tempos.seconds_at(n.end_tick), n.velocity)
        for n in piece.notes
    ]
    assert found == [pytest.approx(note) for note in wanted]
    assert told.resolution == 960
    ends = [sum(message.time for message in track) for track in mido.MidiFile(path).tracks]
    assert ends == [piece.end_tick] * 2, "every track lasts to the last bar line"


@given(
    onsets=st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 127)), min_size=1, max_size=20, unique=True),
    meters=st.lists(st.tuples(st.integers(0, 9000), st.sampled_from(METERS)), max_size=3),
    bpms=st.lists(st.tuples(st.integers(0, 9000), st.floats(5, 999)), max_size=3),
)
def test_what_is_written_reads_back(
    path: Path, onsets: list[tuple[int, int]], meters: list[tuple[int, Meter]], bpms: list[tuple[int, float]]
) -> None:
    # Each note as long as the next of its pitch allows, so that one channel can hold them all.
    notes = tuple(
        Note(tick, pitch, min([700, *(t - tick for t, p in onsets if p == pitch and t > tick)]), 1 + tick % 127)
        for tick, pitch in sorted(onsets)
    )
    piece = Piece(notes, MeterMap.of(meters), TempoMap.of(bpms), 100_000)
    write_parts(path, parts=[Part("a", notes)], meters=piece.meters, tempos=piece.tempos, end_tick=piece.end_tick)
    again = read_piece(path)
    assert (again.notes, again.meters, again.end_tick) == (piece.notes, piece.meters, piece.end_tick)
    assert [tick for tick, _ in again.tempos.changes] == [tick for tick, _ in piece.tempos.changes]
    # A file counts whole microseconds a quarter.
    assert [bpm for _, bpm in again.tempos.changes] == pytest.approx([bpm for _, bpm in piece.tempos.changes], rel=1e-5)


def test_changes_from_the_end_on_are_left_out(path: Path) -> None:
    meters = MeterMap.of([(0, Meter(3, 4)), (2880, Meter(4, 4))])
    tempos = TempoMap.of([(0, 90.0), (3000, 120.0)])
    write_parts(path, parts=[Part("a", [Note(0, 60, 960, 80)])], meters=meters, tempos=tempos, end_tick=2880)
    again = read_piece(path)
    assert (again.end_tick, len(again.meters.changes), len(again.tempos.changes)) == (2880, 1, 1)


def test_the_same_music_gives_the_same_bytes(tmp_path: Path) -> None:
    piece = piece_of(bars_of(Piece((Note(0, 60, 960, 80),))))
    for name in ("a.mid", "b.mid"):
        write_parts(
            tmp_path / name,
            parts=[Part("a", piece.notes)],
            meters=piece.meters,
            tempos=piece.tempos,
            end_tick=piece.end_tick,
        )
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_what_is_too_long_for_a_file_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="too long"):
        write_parts(tmp_path / "a.mid", parts=[], meters=MeterMap(), tempos=TempoMap(), end_tick=MAX_TICKS + 1)
    write_parts(tmp_path / "b.mid", parts=[], meters=MeterMap(), tempos=TempoMap(), end_tick=MAX_TICKS)
    assert number(MAX_TICKS) + b"\xff\x2f\x00" in (tmp_path / "b.mid").read_bytes()
    assert os.listdir(tmp_path) == ["b.mid"]


# --- whole or not at all ------------------------------------------------------------------------------------


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.mid"
    target.write_bytes(b"before")
    with pytest.raises(BufferError), whole_file(target) as file:  # noqa: PT012
        file.write(b"half")
        raise BufferError
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.mid"]


def test_a_write_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / ("long" * 60 + ".mid")
    write_whole(target, b"one")
    write_whole(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.parametrize("name", ["none/a.mid", ".", "file/a.mid"])
def test_a_place_that_cannot_be_written_is_told_of(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError) as caught:
        write_whole(tmp_path / name, b"data")
    assert caught.value.where == str(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        write_whole(pipe, b"data")
        assert os.read(reader, 100) == b"data"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"data"
