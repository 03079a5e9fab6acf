"""`antiphon answer` as its user meets it (S2-080, S2-081): one seed one answer, clear words for bad input."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path

import pretty_midi
import pytest

from antiphon.engine.loaded import LoadedModel
from antiphon.music.meter import Meter, MeterMap
from antiphon.music.midi_file import Part, read_piece, write_parts
from antiphon.music.normalise import bars_of
from antiphon.music.note import Note
from antiphon.music.tempo import TempoMap
from antiphon.session.answer import Ask
from antiphon.session.offline import continue_piece
from antiphon.session.voice import Voice
from antiphon.tokens.vocabulary import Vocabulary
from tests.small_model import small_checkpoint, write_small_model

QUARTER = 960


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice(LoadedModel.of(small_checkpoint()), Vocabulary())


def prompt(path: Path, *, meter: str = "4/4", bpm: float = 90.0, bars: int = 4) -> Path:
    bar = Meter.parse(meter).len_ticks
    notes = [
        Note(number * bar + at, 60 + (at // 480 + number) % 12, 470, 70 + number)
        for number in range(bars)
        for at in range(0, bar, 480)
    ]
    # Rings past the end as a human's last note does, and is struck twice at once by two tracks.
    last = Note((bars - 1) * bar, 48, bar + 200, 60)
    write_parts(
        path,
        parts=[Part("right", notes), Part("left", [last, Note(0, 60, 2000, 50)], channel=2)],
        meters=MeterMap.of([(0, Meter.parse(meter))]),
        tempos=TempoMap.of([(0, bpm)]),
        end_tick=bars * bar,
    )
    return path


def antiphon(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "antiphon.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("meter", "bars"), [("4/4", 4), ("3/4", 2), ("6/8", 3), ("2/2", 1), ("7/8", 2)])
def test_the_prompt_is_followed_by_exactly_m_bars_in_its_tempo_and_meter(
    tmp_path: Path, voice: Voice, meter: str, bars: int
) -> None:
    piece = read_piece(prompt(tmp_path / "in.mid", meter=meter))
    answer = continue_piece(piece, voice=voice, ask=Ask(Meter(4, 4), bars, seed=bars), context_bars=8)
    bar = Meter.parse(meter).len_ticks
    assert (answer.line.tick, answer.end_tick) == (4 * bar, (4 + bars) * bar)
    assert answer.line.meter == Meter.parse(meter)
    assert min(note.start_tick for note in answer.notes) == answer.line.tick
    assert max(note.end_tick for note in answer.notes) <= answer.end_tick


def test_200_seeds_give_200_legal_answers(tmp_path: Path, voice: Voice) -> None:
    piece = read_piece(prompt(tmp_path / "in.mid"))
    seen = set()
    for seed in range(200):
        answer = continue_piece(piece, voice=voice, ask=Ask(Meter(4, 4), 2, seed=seed), context_bars=4)
        assert answer.notes[0].start_tick == answer.line.tick
        sounding: dict[int, int] = {}
        for note in sorted(answer.notes):
            assert sounding.get(note.pitch, 0) <= note.start_tick
            assert answer.line.tick <= note.start_tick < note.end_tick <= answer.end_tick
            assert 21 <= note.pitch <= 108
            assert 1 <= note.velocity <= 127
            sounding[note.pitch] = note.end_tick
        seen.add(answer.notes)
    assert len(seen) > 190


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, model: Path) -> None:
    source = prompt(tmp_path / "in.mid")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        done = antiphon("answer", source, "-o", tmp_path / f"{name}.mid", "--model", model, "--seed", str(seed))
        assert done.returncode == 0, done.stderr
    a, b, c = ((tmp_path / f"{name}.mid").read_bytes() for name in "abc")
    assert a == b != c


def test_the_file_opens_elsewhere_with_the_prompt_first_and_the_answer_on_its_bar_line(
    tmp_path: Path, model: Path
) -> None:
    out = tmp_path / "out.mid"
    done = antiphon("answer", prompt(tmp_path / "in.mid"), "-o", out, "--bars", "2", "--model", model, "--json")
    told = json.loads(done.stdout)
    assert (told["bars"], told["first_bar"], told["context_bars"]) == (2, 5, 4)
    assert told["nats_per_note"] > 0
    judge = pretty_midi.PrettyMIDI(str(out))
    before, after = judge.instruments
    line_s = 16 * 60 / 90
    assert max(note.end for note in before.notes) == pytest.approx(line_s, abs=1e-3)
    assert min(note.start for note in after.notes) == pytest.approx(line_s, abs=1e-3)
    assert len(after.notes) == told["notes"]
    assert judge.get_tempo_changes()[1][0] == pytest.approx(90, abs=0.01)
    for track in judge.instruments:
        for pitch in {note.pitch for note in track.notes}:
            same = sorted((n.start, n.end) for n in track.notes if n.pitch == pitch)
            assert all(end <= start + 1e-6 for (_, end), (start, _) in itertools.pairwise(same))


def test_answer_only_begins_at_the_answers_first_bar_line(tmp_path: Path, model: Path) -> None:
    source = prompt(tmp_path / "in.mid", meter="3/4")
    antiphon("answer", source, "-o", tmp_path / "both.mid", "--model", model, "--bars", "2")
    antiphon("answer", source, "-o", tmp_path / "only.mid", "--model", model, "--bars", "2", "--answer-only")
    both, only = read_piece(tmp_path / "both.mid"), read_piece(tmp_path / "only.mid")
    line = 4 * Meter(3, 4).len_ticks
    expected = {(n.start_tick - line, n.pitch, n.len_ticks) for n in both.notes if n.start_tick >= line}
    assert {(n.start_tick, n.pitch, n.len_ticks) for n in only.notes} == expected
    assert len(bars_of(only)) == 2
    assert only.end_tick == 2 * Meter(3, 4).len_ticks


def drums(path: Path) -> None:
    notes = [Note(i * QUARTER, 38, 100, 90) for i in range(8)]
    write_parts(path, parts=[Part("kit", notes, channel=9)], meters=MeterMap(), tempos=TempoMap(), end_tick=8 * QUARTER)


def bad_files(folder: Path) -> dict[str, bytes]:
    good = prompt(folder / "good.mid").read_bytes()
    drums(folder / "kit.mid")
    odd = good.replace(bytes((0xFF, 0x58, 4, 4, 2)), bytes((0xFF, 0x58, 4, 17, 4)))
    return {
        "empty": b"",
        "text": b"this is not music\n" * 50,
        "truncated": good[: len(good) // 2],
        "drums": (folder / "kit.mid").read_bytes(),
        "header only": good[:14],
        "no notes": b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", 4) + b"\0\xff\x2f\0",
        "odd meter": odd,
    }


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "drums", "header only", "no notes", "odd meter"])
def test_a_bad_file_is_one_clear_line_with_its_name_and_writes_nothing(tmp_path: Path, model: Path, kind: str) -> None:
    bad = tmp_path / "bad.mid"
    bad.write_bytes(bad_files(tmp_path)[kind])
    done = antiphon("answer", bad, "-o", tmp_path / "out.mid", "--model", model)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "bad.mid" in done.stderr or kind == "odd meter"
    assert not (tmp_path / "out.mid").exists()


def test_an_answer_may_be_left_to_the_model(tmp_path: Path, model: Path) -> None:
    source = prompt(tmp_path / "in.mid")
    free = ("--likeness", "0", "--open-ending", "--copies")
    told = []
    for name, options in (("near", ()), ("free", free)):
        done = antiphon("answer", source, "-o", tmp_path / name, "--model", model, "--json", *options)
        told.append(json.loads(done.stdout))
    near, left = told
    assert (near["likeness"], near["closes"], near["copies"]) == (1.0, True, False)
    assert (left["likeness"], left["closes"], left["copies"]) == (0.0, False, True)
    assert (tmp_path / "near").read_bytes() != (tmp_path / "free").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("--bars", "0"),
        ("--top-p", "2"),
        ("--temperature", "-1"),
        ("--context-bars", "0"),
        ("--seed", "-1"),
        ("--likeness", "5"),
    ],
)
def test_an_option_out_of_range_is_refused(tmp_path: Path, model: Path, options: tuple[str, str]) -> None:
    source = prompt(tmp_path / "in.mid")
    done = antiphon("answer", source, "-o", tmp_path / "out.mid", "--model", model, *options)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_ten_hours_of_music_are_answered(tmp_path: Path, voice: Voice) -> None:
    long = tmp_path / "long.mid"
    notes = [Note(bar * 4 * QUARTER, 60 + bar % 12, QUARTER, 80) for bar in range(0, 18_000, 4)]
    write_parts(
        long,
        parts=[Part("long", notes)],
        meters=MeterMap.of([(0, Meter(4, 4))]),
        tempos=TempoMap.of([(0, 120.0)]),
        end_tick=18_000 * 4 * QUARTER,
    )
    answer = continue_piece(read_piece(long), voice=voice, ask=Ask(Meter(4, 4), 4), context_bars=64)
    assert (answer.line.number, answer.context_bars) == (18_000, 64)
    assert answer.notes
