"""Transposition that orphans nothing (S2-090)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.transpose import BeyondRange, transpose_midi_tokens
from tests.music.material import VOCABULARY, bars

ANTIPHON = PianoTokenizer(preset="antiphon")
HEAD = "Bar_None TimeSig_4/4 Position_0 Tempo_40.0"


@pytest.fixture(scope="module")
def pianomuse() -> PianoTokenizer:
    return PianoTokenizer(preset="pianomuse")


def moved(text: str, semitones: int, beyond_range: BeyondRange = "fold", tokenizer: PianoTokenizer = ANTIPHON) -> str:
    ids = [tokenizer.token_to_id(name) for name in text.split()]
    done = transpose_midi_tokens(ids, semitones, tokenizer, beyond_range=beyond_range)
    return " ".join(map(tokenizer.id_to_token, done))


def note(pitch: int, velocity: int = 63, duration: str = "1.0.12") -> str:
    return f"Pitch_{pitch} Velocity_{velocity} Duration_{duration}"


def test_only_pitches_move() -> None:
    text = f"BOS_None {HEAD} {note(60)} {note(64, 127)} Position_6 {note(62)} Bar_None TimeSig_3/4 EOS_None"
    assert moved(text, 2) == text.replace("_64 V", "_66 V").replace("_62 V", "_64 V").replace("_60 V", "_62 V")
    assert moved(text, 0) == text


def test_a_note_beyond_the_range_moves_back_by_octaves() -> None:
    assert moved(f"{HEAD} {note(60)} {note(108)}", 1) == f"{HEAD} {note(61)} {note(97)}"
    assert moved(f"{HEAD} {note(21)} {note(60)}", -1) == f"{HEAD} {note(32)} {note(59)}"
    assert moved(f"{HEAD} {note(60)}", 10**9) == f"{HEAD} {note(97 + (60 + 10**9 - 97) % 12)}"


def test_a_chord_is_sorted_and_without_twins_after_folding() -> None:
    text = f"{HEAD} {note(96, 7, '2.0.12')} {note(100)} {note(108, 127, '0.1.12')}"
    assert moved(text, 12) == f"{HEAD} {note(100)} {note(108, 127, '2.0.12')}", (
        "108 and 120 fall on one, 112 moves below"
    )


def test_a_note_beyond_the_range_goes_with_all_its_ids() -> None:
    assert moved(f"{HEAD} {note(60)} {note(108)}", 1, "drop") == f"{HEAD} {note(61)}"


def test_a_position_without_notes_goes_too() -> None:
    text = f"{HEAD} {note(60)} Position_6 {note(108)} Position_9 {note(61)} Position_12 {note(107)} {note(108)}"
    assert moved(text, 1, "drop") == f"{HEAD} {note(61)} Position_9 {note(62)} Position_12 {note(108)}"


def test_a_tempo_keeps_its_position() -> None:
    assert moved(f"{HEAD} {note(108)} Bar_None TimeSig_4/4", 1, "drop") == f"{HEAD} Bar_None TimeSig_4/4"


def test_drums_stay_as_they_are(pianomuse: PianoTokenizer) -> None:
    drum = "PitchDrum_38 Velocity_63 Duration_1.0.8"
    text = f"Bar_0 TimeSig_4/4 Position_0 {note(109, duration='1.0.8')} {drum}"
    assert moved(text, 1, "fold", pianomuse) == text.replace("109", "98")
    assert moved(text, 1, "drop", pianomuse) == f"Bar_0 TimeSig_4/4 Position_0 {drum}"


def test_a_note_before_a_rest_is_not_dropped(pianomuse: PianoTokenizer) -> None:
    high, low = note(109, duration="1.0.8"), note(60, duration="1.0.8")
    text = f"Bar_0 TimeSig_4/4 Position_0 {high} Rest_1.0.4 Position_16 {low}"
    assert "Pitch_98" in moved(text, 1, "fold", pianomuse)
    with pytest.raises(AntiphonError, match="before a rest"):
        moved(text, 1, "drop", pianomuse)
    assert moved(f"Bar_0 Rest_1.0.4 Position_16 {high}", 1, "drop", pianomuse) == "Bar_0 Rest_1.0.4"


def test_half_a_note_at_the_end_moves_too() -> None:
    assert moved(f"{HEAD} Pitch_60 Velocity_63", 1) == f"{HEAD} Pitch_61 Velocity_63"
    assert moved(f"{HEAD} Pitch_108", 1, "drop") == HEAD


def test_another_treatment_is_refused() -> None:
    with pytest.raises(AntiphonError, match="is no way"):
        moved(HEAD, 1, "wrap")  # type: ignore[arg-type]


@given(given_bars=bars(exact=True), semitones=st.integers(-12, 12))
def test_the_way_back_undoes_it_where_nothing_was_beyond_the_range(given_bars: list[Bar], semitones: int) -> None:
    ids = encode(given_bars, VOCABULARY)
    pitches = [note.pitch + semitones for bar in given_bars for note in bar.notes]
    up = transpose_midi_tokens(ids, semitones, ANTIPHON)
    if all(21 <= pitch <= 108 for pitch in pitches):
        assert transpose_midi_tokens(up, -semitones, ANTIPHON) == ids
        assert transpose_midi_tokens(ids, semitones, ANTIPHON, beyond_range="drop") == up
        assert [note.pitch for bar in decode(up, VOCABULARY) for note in bar.notes] == pitches


@given(given_bars=bars(exact=True), semitones=st.integers(-130, 130), beyond_range=st.sampled_from(["fold", "drop"]))
def test_what_comes_out_is_what_the_encoder_would_write(
    given_bars: list[Bar], semitones: int, beyond_range: BeyondRange
) -> None:
    ids = transpose_midi_tokens(encode(given_bars, VOCABULARY), semitones, ANTIPHON, beyond_range=beyond_range)
    made = decode(ids, VOCABULARY)
    assert encode(made, VOCABULARY) == ids, "nothing is orphaned, chords are sorted and without twins"
    onsets = [
        {(n.step, n.pitch + semitones) for n in bar.notes if beyond_range == "fold" or 21 <= n.pitch + semitones <= 108}
        for bar in given_bars
    ]
    assert [{n.step for n in bar.notes} for bar in made] == [{step for step, _ in bar} for bar in onsets]
    assert [{(n.step, n.pitch % 12) for n in bar.notes} for bar in made] == [
        {(step, pitch % 12) for step, pitch in bar} for bar in onsets
    ]
