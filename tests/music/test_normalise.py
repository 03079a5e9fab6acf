"""The normaliser: played notes to bars on the grid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter, MeterMap
from antiphon.music.normalise import (
    HIGHEST,
    LOWEST,
    MAX_BARS,
    MAX_LEN_STEPS,
    bars_of,
    cut,
    fold,
    notes_of,
    piece_of,
    placed,
    snapped,
    untangled,
    whole_bars,
)
from antiphon.music.note import Note, Piece
from antiphon.music.tempo import TempoMap
from tests.music.material import bars, in_bars, pieces

FOUR = Meter(4, 4)


def steps_of(*notes: Note, end_tick: int = 0) -> list[list[tuple[int, int, int]]]:
    """By bar: (step, pitch, length) of each note."""
    made = bars_of(Piece(notes, end_tick=end_tick))
    return [[(n.step, n.pitch, n.len_steps) for n in bar.notes] for bar in made]


# --- each rule ----------------------------------------------------------------------------------------------


def test_onsets_and_ends_snap_to_the_nearest_step() -> None:
    assert steps_of(Note(39, 60, 960 - 39 - 41, 80)) == [[(0, 60, 11)]]
    assert steps_of(Note(40, 60, 960 - 40 - 40, 80)) == [[(1, 60, 11)]]


def test_a_note_is_at_least_a_step_and_at_most_two_bars_long() -> None:
    assert steps_of(Note(0, 60, 1, 80)) == [[(0, 60, 1)]]
    assert steps_of(Note(0, 60, 100_000, 80))[0] == [(0, 60, MAX_LEN_STEPS)]


def test_an_onset_in_the_last_half_step_belongs_to_the_next_bar() -> None:
    assert steps_of(Note(3799, 60, 30, 80)) == [[(47, 60, 1)]]
    assert steps_of(Note(3800, 60, 30, 80)) == [[], [(0, 60, 1)]]


def test_the_last_half_step_before_a_change_of_meter_belongs_to_the_new_bar() -> None:
    piece = Piece((Note(2880 - 40, 60, 10, 80),), MeterMap.of([(0, Meter(6, 8)), (2880, Meter(9, 16))]))
    assert [(str(bar.meter), len(bar.notes)) for bar in bars_of(piece)] == [("6/8", 0), ("9/16", 1)]


def test_a_chord_is_sorted_by_pitch() -> None:
    assert steps_of(Note(0, 67, 80, 80), Note(5, 60, 80, 80), Note(10, 64, 80, 80)) == [
        [(0, 60, 1), (0, 64, 1), (0, 67, 1)]
    ]


def test_one_pitch_twice_at_one_step_is_one_note_the_longer_and_louder() -> None:
    assert untangled([BarNote(0, 60, 4, 90), BarNote(0, 60, 8, 30)]) == [BarNote(0, 60, 8, 90)]


def test_a_pitch_struck_again_ends_where_it_is_struck() -> None:
    assert untangled([BarNote(0, 60, 24, 90), BarNote(12, 60, 3, 80), BarNote(13, 61, 3, 80)]) == [
        BarNote(0, 60, 12, 90),
        BarNote(12, 60, 3, 80),
        BarNote(13, 61, 3, 80),
    ]


@pytest.mark.parametrize(
    ("pitch", "folded"), [(0, 24), (20, 32), (21, 21), (60, 60), (108, 108), (109, 97), (127, 103)]
)
def test_pitches_off_the_piano_move_in_by_octaves(pitch: int, folded: int) -> None:
    assert fold(pitch) == folded


def test_empty_bars_are_bars() -> None:
    assert steps_of(Note(3 * 3840, 60, 960, 80), end_tick=5 * 3840) == [[], [], [], [(0, 60, 12)], []]


@pytest.mark.parametrize(
    ("notes", "end_tick", "count"),
    [
        ((), 0, 0),
        ((), 3840, 1),
        ((), 3841, 1),
        ((Note(0, 60, 10, 80),), 0, 1),
        ((Note(0, 60, 10, 80),), 2000, 1),  # an end within a bar adds nothing
        ((Note(0, 60, 3840, 80),), 0, 1),
        ((Note(0, 60, 3840 + 480, 80),), 0, 1),  # the last note may ring on for half a beat
        ((Note(0, 60, 3840 + 481 + 40, 80),), 0, 2),
        ((Note(0, 60, 3840, 80),), 3840 * 3, 3),
        ((Note(0, 60, 3840, 80),), 3840 * 3 + 39, 3),
        ((Note(3800, 60, 10, 80),), 0, 2),
    ],
)
def test_how_many_bars_a_piece_fills(notes: tuple[Note, ...], end_tick: int, count: int) -> None:
    piece = Piece(notes, end_tick=end_tick)
    assert whole_bars(piece) == count
    assert len(bars_of(piece)) == count


def test_a_bar_has_the_tempo_of_its_bar_line() -> None:
    piece = Piece((Note(0, 60, 960, 80),), tempos=TempoMap.of([(0, 90.0), (100, 70.0)]), end_tick=2 * 3840)
    assert [bar.bpm for bar in bars_of(piece)] == [90.0, 70.0]


def test_too_many_bars_and_bars_off_the_grid_are_refused() -> None:
    with pytest.raises(AntiphonError, match="cut the piece"):
        bars_of(Piece((), end_tick=(MAX_BARS + 1) * 3840))
    with pytest.raises(AntiphonError, match="1/32"):
        bars_of(Piece((Note(0, 60, 10, 80),), MeterMap.of([(0, Meter(1, 32))])))


def test_a_context_is_cut_at_its_last_bar_line() -> None:
    given_bars = in_bars([BarNote(0, 60, 96, 80), BarNote(40, 62, 8, 80), BarNote(50, 64, 90, 80)], [(FOUR, 120.0)] * 2)
    assert [[n.len_steps for n in bar.notes] for bar in cut(given_bars)] == [[96, 8], [46]]
    assert [[n.len_steps for n in bar.notes] for bar in cut(given_bars[:1])] == [[48, 8]]


def test_bars_go_back_to_ticks() -> None:
    given_bars = [Bar(Meter(3, 4), (BarNote(3, 60, 6, 80),)), Bar(FOUR, (BarNote(0, 61, 1, 90),))]
    assert notes_of(given_bars, start_tick=100) == (Note(340, 60, 480, 80), Note(2980, 61, 80, 90))


# --- what always holds --------------------------------------------------------------------------------------


@given(piece=pieces())
def test_normalising_again_changes_nothing(piece: Piece) -> None:
    once = bars_of(piece)
    assert bars_of(piece_of(once)) == once


@given(piece=pieces())
def test_bars_keep_every_rule(piece: Piece) -> None:
    made = bars_of(piece)
    lines = piece.meters.bars(until_tick=piece.meters.bar(len(made)).tick)
    for bar, line in zip(made, lines, strict=True):
        assert (bar.meter, bar.bpm) == (line.meter, piece.tempos.bpm_at(line.tick))
        places = [(note.step, note.pitch) for note in bar.notes]
        assert places == sorted(set(places))
        for note in bar.notes:
            assert 0 <= note.step < bar.meter.len_steps
            assert LOWEST <= note.pitch <= HIGHEST
            assert 1 <= note.len_steps <= MAX_LEN_STEPS
            assert 1 <= note.velocity <= 127


@given(piece=pieces())
def test_no_note_is_lost_but_twins(piece: Piece) -> None:
    made = placed(bars_of(piece))
    assert {(n.step, n.pitch) for n in made} == {(n.step, n.pitch) for n in map(snapped, piece.notes)}


@given(notes=st.lists(st.builds(BarNote, st.integers(0, 60), st.integers(60, 63), st.integers(1, 96), st.just(80))))
def test_untangled_notes_have_no_twins_and_no_overlaps(notes: list[BarNote]) -> None:
    made = untangled(notes)
    assert made == sorted(made)
    for note in made:
        later = [n.step for n in made if n.pitch == note.pitch and n.step > note.step]
        assert [n for n in made if (n.step, n.pitch) == (note.step, note.pitch)] == [note]
        assert all(note.step + note.len_steps <= step for step in later)
    assert untangled(made) == made


@given(given_bars=bars())
def test_a_cut_context_rings_over_no_end(given_bars: list[Bar]) -> None:
    end = sum(bar.meter.len_steps for bar in given_bars)
    made = placed(cut(given_bars))
    assert [(n.step, n.pitch, n.velocity) for n in made] == [(n.step, n.pitch, n.velocity) for n in placed(given_bars)]
    assert all(
        n.len_steps == min(whole.len_steps, end - n.step) for n, whole in zip(made, placed(given_bars), strict=True)
    )
