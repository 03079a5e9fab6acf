"""The encoder and the decoder, held against miditok."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.music.normalise import bars_of, notes_of, untangled
from antiphon.music.note import Piece
from antiphon.tokens.decoder import BarDecoder, decode
from antiphon.tokens.encoder import BarEncoder, bar_starts, encode
from antiphon.tokens.remi import encode_with_miditok, miditok_for, miditok_parameters
from antiphon.tokens.vocabulary import BAR, BOS, EOS, PAD, Grid, Vocabulary
from tests.music.material import HALVES, METERS, VOCABULARY, bars, in_bars, pieces

FOUR = Meter(4, 4)


def names(ids: list[int]) -> list[str]:
    return [VOCABULARY.name(token) for token in ids]


def ids_of(text: str) -> list[int]:
    return [VOCABULARY.ids[name] for name in text.split()]


# --- encoding -----------------------------------------------------------------------------------------------


def test_two_bars_as_they_are_written() -> None:
    given_bars = [
        Bar(Meter(6, 8), (BarNote(0, 60, 6, 127), BarNote(0, 64, 12, 63), BarNote(18, 67, 1, 8)), 120.0),
        Bar(Meter(3, 2), (), 40.0),
    ]
    assert names(encode(given_bars, VOCABULARY)) == [
        *("Bar_None", "TimeSig_6/8", "Position_0", "Tempo_122.99"),
        *("Pitch_60", "Velocity_127", "Duration_0.6.12", "Pitch_64", "Velocity_63", "Duration_1.0.12"),
        *("Position_18", "Pitch_67", "Velocity_7", "Duration_0.1.12"),
        *("Bar_None", "TimeSig_6/4", "Position_0", "Tempo_40.0"),
    ]


@settings(max_examples=200)
@given(given_bars=bars())
def test_the_ids_are_miditoks(given_bars: list[Bar]) -> None:
    assert encode(given_bars, VOCABULARY) == encode_with_miditok(given_bars, VOCABULARY)


@pytest.mark.parametrize("meter", METERS, ids=str)
def test_the_ids_are_miditoks_in_every_meter(meter: Meter) -> None:
    rng = random.Random(str(meter))
    notes = untangled(
        BarNote(rng.randrange(3 * meter.len_steps), rng.randint(55, 65), rng.randint(1, 96), rng.randint(1, 127))
        for _ in range(3 * meter.len_steps // 4)
    )
    # The last two bars are empty, one of them with a tempo of its own.
    given_bars = in_bars(notes, [(meter, 100.0), (meter, 100.0), (meter, 200.0), (meter, 200.0), (meter, 50.0)])
    ids = encode(given_bars, VOCABULARY)
    assert ids == encode_with_miditok(given_bars, VOCABULARY)
    assert bar_starts(ids) == [index for index, name in enumerate(names(ids)) if name.startswith("Bar")]
    assert len(bar_starts(ids)) == 5


@given(piece=pieces())
def test_the_ids_of_played_music_are_miditoks(piece: Piece) -> None:
    made = bars_of(piece)
    assert encode(made, VOCABULARY) == encode_with_miditok(made, VOCABULARY)


@given(data=st.data(), given_bars=bars())
def test_a_growing_bar_has_the_ids_of_the_whole_one_up_to_there(data: st.DataObject, given_bars: list[Bar]) -> None:
    encoder = BarEncoder(VOCABULARY)
    ids: list[int] = []
    for bar in given_bars:
        until = data.draw(st.integers(0, len(bar.notes)))
        early = encoder.preview(Bar(bar.meter, bar.notes[:until], bar.bpm))
        assert encoder.preview(bar)[: len(early)] == early
        ids += encoder.bar(bar)
    assert ids == encode(given_bars, VOCABULARY)


def test_a_tempo_is_written_where_it_changes() -> None:
    ids = encode([Bar(FOUR, (), bpm) for bpm in (90.0, 90.5, 60.0, 60.0, 90.0)], VOCABULARY)
    assert [sum(token in VOCABULARY.tempos for token in bar) for bar in split(ids)] == [1, 0, 1, 0, 1]


def split(ids: list[int]) -> list[list[int]]:
    starts = [*bar_starts(ids), len(ids)]
    return [ids[start:end] for start, end in pairwise(starts)]


def test_a_meter_that_the_model_lacks_is_refused_both_ways() -> None:
    with pytest.raises(AntiphonError, match="knows no bars of 200/4"):
        encode([Bar(Meter(200, 4))], VOCABULARY)
    with pytest.raises(AntiphonError, match="knows no bars of 200/4"):
        encode_with_miditok([Bar(Meter(200, 4))], VOCABULARY)


def test_another_grid_has_ids_of_its_own_and_they_are_miditoks_too() -> None:
    vocabulary = Vocabulary(Grid(velocities=32, tempos=16, meters=(Meter(4, 4), Meter(5, 8), Meter(4, 16))))
    notes = [BarNote(step, 60 + step % 5, 1 + step, 5 * step + 1) for step in range(24)]
    given_bars = in_bars(notes, [(Meter(5, 8), 77.0), (Meter(4, 4), 99.0), (Meter(2, 2), 99.0)])
    assert encode(given_bars, vocabulary) == encode_with_miditok(given_bars, vocabulary)


def test_miditok_loads_its_parameters_back(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(miditok_parameters(Grid()))
    assert type(miditok_for(Grid()))(params=str(file)).vocab == VOCABULARY.ids


# --- decoding -----------------------------------------------------------------------------------------------


@given(given_bars=bars(exact=True))
def test_what_is_written_reads_back(given_bars: list[Bar]) -> None:
    assert decode(encode(given_bars, VOCABULARY), VOCABULARY) == given_bars


@given(given_bars=bars(meters=(*HALVES, FOUR)))
def test_reading_and_writing_again_changes_nothing(given_bars: list[Bar]) -> None:
    ids = encode(given_bars, VOCABULARY)
    assert encode(decode(ids, VOCABULARY), VOCABULARY) == ids


@given(given_bars=bars(exact=True))
def test_a_note_is_given_with_its_last_id(given_bars: list[Bar]) -> None:
    decoder = BarDecoder(VOCABULARY)
    found: list[tuple[int, BarNote]] = []
    for token in encode(given_bars, VOCABULARY):
        note = decoder.feed(token)
        assert (note is not None) == (token in VOCABULARY.durations)
        if note is not None:
            found.append((decoder.bar, note))
    assert found == [(number, note) for number, bar in enumerate(given_bars) for note in bar.notes]


def test_padding_and_what_follows_the_end_are_left_out() -> None:
    ids = ids_of("Bar_None TimeSig_4/4 Position_3 Pitch_60 Velocity_63 Duration_0.3.12")
    music = decode(ids, VOCABULARY)
    assert decode([PAD, BOS, *ids, EOS, *ids, 10**9], VOCABULARY) == music
    assert len(music) == 1


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("Position_3 Pitch_60 Velocity_63 Duration_0.3.12 Bar_None TimeSig_4/4", []),  # before the first bar
        ("Bar_None TimeSig_4/4 Velocity_63 Duration_0.3.12", []),
        ("Bar_None TimeSig_4/4 Pitch_60 Duration_0.3.12", []),
        ("Bar_None TimeSig_4/4 Pitch_60 Velocity_63 Pitch_61 Duration_0.3.12", []),
        ("Bar_None TimeSig_3/4 Position_36 Pitch_60 Velocity_63 Duration_0.3.12", []),  # beyond the bar
        ("Bar_None TimeSig_4/4 Pitch_60 Velocity_63 Duration_0.3.12 Duration_0.4.12", [BarNote(0, 60, 3, 63)]),
        (
            "Bar_None TimeSig_4/4 Position_9 Pitch_60 Velocity_63 Duration_0.3.12 Position_3 Pitch_62 Velocity_63 "
            "Duration_0.1.12 Position_9 Pitch_60 Velocity_127 Duration_0.2.12",
            [BarNote(3, 62, 1, 63), BarNote(9, 60, 2, 127)],
        ),
    ],
)
def test_what_makes_no_sense_where_it_stands_is_passed_over(text: str, notes: list[BarNote]) -> None:
    (bar,) = decode(ids_of(text), VOCABULARY)
    assert list(bar.notes) == notes


def test_a_bar_begins_at_its_first_step() -> None:
    note = "Pitch_60 Velocity_63 Duration_0.1.12"
    made = decode(ids_of(f"Bar_None TimeSig_4/4 Position_9 {note} Bar_None TimeSig_4/4 {note}"), VOCABULARY)
    assert [[n.step for n in bar.notes] for bar in made] == [[9], [0]]


@given(ids=st.lists(st.integers(0, VOCABULARY.size - 1), max_size=200))
def test_any_ids_decode_to_normalised_bars(ids: list[int]) -> None:
    made = decode(ids, VOCABULARY)
    heard = ids[: ids.index(EOS)] if EOS in ids else ids
    assert len(made) == heard.count(BAR)
    for bar in made:
        places = [(note.step, note.pitch) for note in bar.notes]
        assert places == sorted(set(places))
        assert all(0 <= step < bar.meter.len_steps for step, _ in places)
    assert len(notes_of(made)) == sum(len(bar.notes) for bar in made)


@pytest.mark.parametrize("token", [-1, VOCABULARY.size])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(AntiphonError, match=f"id {token} at 1"):
        decode([BAR, token], VOCABULARY)
