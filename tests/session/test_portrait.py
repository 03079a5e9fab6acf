"""The portrait of a call: its key, its range, how dense and how loud it was."""

from __future__ import annotations

from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.session.portrait import Portrait

FOUR = Meter(4, 4)
C_MAJOR = (60, 62, 64, 65, 67, 69, 71, 72)


def bar(*pitches: int, len_steps: int = 6, velocity: int = 80) -> Bar:
    """The pitches in eighths."""
    return Bar(FOUR, tuple(BarNote(6 * i, pitch, len_steps, velocity) for i, pitch in enumerate(pitches)))


def portrait(*bars: Bar) -> Portrait:
    made = Portrait.of(bars)
    assert made is not None
    return made


def test_silence_has_no_portrait() -> None:
    assert Portrait.of([]) is None
    assert Portrait.of([Bar(FOUR), Bar(FOUR)]) is None


def test_what_was_played_and_what_is_in_its_key_is_at_home() -> None:
    home = portrait(bar(60, 64, 67, 72, 67, 64, 62, 59), bar(60, 64, 67, 72, 67, 65, 62, 60)).at_home
    for pitch_class in (0, 2, 4, 5, 7, 11):
        assert home[pitch_class] == 1, "played"
    assert home[9] > 0.9, "not played, but in the key"
    for pitch_class in (1, 3, 6, 8, 10):
        assert home[pitch_class] < 0.2


def test_a_key_turned_is_a_portrait_turned() -> None:
    here = portrait(bar(*C_MAJOR)).at_home
    up = portrait(bar(*(pitch + 3 for pitch in C_MAJOR))).at_home
    assert all(abs(up[(i + 3) % 12] - here[i]) < 1e-9 for i in range(12))


def test_music_of_all_twelve_is_at_home_everywhere() -> None:
    assert min(portrait(bar(*range(60, 68)), bar(*range(64, 72))).at_home) == 1


def test_a_player_who_modulates_is_followed() -> None:
    c, f_sharp = bar(*C_MAJOR), bar(*(pitch + 6 for pitch in C_MAJOR))
    home = portrait(*[c] * 12, *[f_sharp] * 8).at_home
    just_there = portrait(*[c] * 12).at_home
    assert home[6] == home[8] == home[10] == 1 > just_there[8]
    assert home[9] < 1 == just_there[9], "the old key has lost some of its hold"


def test_only_the_last_sixteen_bars_are_in_it() -> None:
    bars = [bar(21), *[bar(60, 62)] * 16]
    assert portrait(*bars).lowest == 60
    assert portrait(*bars[:-1]).lowest == 21


def test_range_density_and_dynamics_are_those_of_the_call() -> None:
    chord = Bar(FOUR, (BarNote(0, 40, 30, 50), BarNote(0, 60, 12, 90), BarNote(24, 62, 6, 70), BarNote(36, 64, 6, 70)))
    made = portrait(chord, chord)
    assert (made.lowest, made.highest, made.softest, made.loudest) == (40, 64, 50, 90)
    assert made.onsets_per_step == 3 / 48
    assert abs(made.notes_per_onset - 4 / 3) < 1e-9
    assert (made.widest, made.most_at_once) == (2, 2)
    assert made.longest_wait == 24


def test_motifs_are_its_moves_its_places_its_lengths_and_its_rhythm() -> None:
    waltz = Bar(Meter(3, 4), (BarNote(0, 48, 9, 80), BarNote(12, 60, 3, 80), BarNote(12, 64, 3, 80)))
    made = portrait(bar(90), waltz, Bar(Meter(3, 4)))
    assert made.moves == {90: {48}, 48: {60}, 60: {64}}
    assert made.places == {0: {90, 48}, 12: {60, 64}}
    assert made.lengths == {6, 9, 3}
    assert len(made.rhythm) == 36
    assert {step: share for step, share in enumerate(made.rhythm) if share} == {0: 0.5, 12: 0.5}


def test_held_notes_count_as_sounding_together_and_repeated_ones_do_not() -> None:
    assert portrait(bar(60, 62, 64, len_steps=18)).most_at_once == 3
    assert portrait(bar(60, 62, 64, len_steps=6)).most_at_once == 1
