"""How an answer leans to its call: which logits are lowered, where, and by strengths that can be turned off."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.session.leaning import Leaning, Likeness
from antiphon.session.portrait import Portrait
from antiphon.tokens.grammar import AnswerGrammar, Bounds
from antiphon.tokens.vocabulary import BAR, Vocabulary

VOCABULARY = Vocabulary()
FOUR = Meter(4, 4)
NONE = Likeness.of(0)
# A scale of C major in eighths, one note at a time.
CALL = [Bar(FOUR, tuple(BarNote(6 * i, p, 6, 80) for i, p in enumerate((60, 62, 64, 65, 67, 69, 71, 72))))] * 4
HEAD = "Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_79 Duration_0.6.12"


def after(text: str, likeness: Likeness, *, bars: int = 4, closes: bool = False) -> NDArray[np.float32]:
    """The offsets after the tokens of `text`."""
    portrait = Portrait.of(CALL)
    assert portrait is not None
    leaning = Leaning(vocabulary=VOCABULARY, portrait=portrait, likeness=likeness)
    grammar = AnswerGrammar(vocabulary=VOCABULARY, meter=FOUR, bars=bars, bounds=Bounds(), closes=closes)
    for name in text.split():
        grammar.feed(VOCABULARY.ids[name])
    return leaning.offsets(grammar).copy()


def of(name: str) -> int:
    return VOCABULARY.ids[name]


@pytest.mark.parametrize(
    "text", ["", "Bar_None", "Bar_None TimeSig_4/4", "Bar_None TimeSig_4/4 Position_0", HEAD, f"{HEAD} Pitch_64"]
)
def test_without_strength_nothing_is_lowered(text: str) -> None:
    assert not after(text, NONE).any()


def test_pitches_foreign_to_the_key_are_lowered_and_no_others() -> None:
    offsets = after("Bar_None TimeSig_4/4 Position_0", Likeness(key=1, register=0, density=0, dynamics=0, motifs=0))
    for pitch in range(21, 109):
        offset = offsets[VOCABULARY.pitch_id(pitch)]
        assert offset < -0.15 if pitch % 12 in (1, 3, 6, 8, 10) else offset > -0.05


def test_a_strength_twice_as_high_takes_off_twice_as_much() -> None:
    once = after("Bar_None TimeSig_4/4 Position_0", Likeness())
    twice = after("Bar_None TimeSig_4/4 Position_0", Likeness.of(2))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_the_farther_beyond_the_register_the_lower_down_to_a_floor() -> None:
    offsets = after("Bar_None TimeSig_4/4 Position_0", Likeness(key=0, register=1, density=0, dynamics=0, motifs=0))
    by_pitch = [float(offsets[VOCABULARY.pitch_id(pitch)]) for pitch in range(21, 109)]
    assert all(offset == 0 for offset in by_pitch[58 - 21 : 75 - 21])
    assert by_pitch[57 - 21] < 0 > by_pitch[75 - 21]
    assert by_pitch[: 58 - 21] == sorted(by_pitch[: 58 - 21])
    assert by_pitch[75 - 21 :] == sorted(by_pitch[75 - 21 :], reverse=True)
    assert min(by_pitch) >= -8


def test_velocities_beyond_the_calls_are_lowered() -> None:
    offsets = after(f"{HEAD} Pitch_64", Likeness(key=0, register=0, density=0, dynamics=1, motifs=0))
    by_velocity = {velocity: float(offsets[VOCABULARY.velocity_id(velocity)]) for velocity in (7, 39, 79, 119)}
    assert by_velocity[79] == 0 > by_velocity[119]
    assert 0 > by_velocity[39] > by_velocity[7]


DENSITY = Likeness(key=0, register=0, density=1, dynamics=0, motifs=0)


def test_a_bar_too_full_is_sooner_over_and_one_too_empty_goes_on() -> None:
    note = "Pitch_60 Velocity_79 Duration_0.1.12"
    full = "Bar_None TimeSig_4/4 " + " ".join(f"Position_{step} {note}" for step in range(24))
    crowded = after(full, DENSITY)
    assert crowded[BAR] > crowded[of("Position_24")], "four times as many onsets as the call: wait"
    empty = after(f"Bar_None TimeSig_4/4 Position_0 {note} Bar_None TimeSig_4/4 Position_40 {note}", DENSITY)
    assert empty[of("Position_41")] > empty[BAR], "a bar and a half with two onsets: go on"


def test_no_silence_is_welcome_that_is_longer_than_those_of_the_call() -> None:
    offsets = after(HEAD, DENSITY)
    later = [float(offsets[VOCABULARY.position_id(step)]) for step in range(6, 48)]
    assert later == sorted(later, reverse=True)
    assert later[-1] < later[0] - 1
    assert offsets[BAR] < later[-1]


def test_a_player_of_single_notes_is_not_answered_in_chords() -> None:
    assert after(HEAD, DENSITY)[of("Pitch_64")] <= -1
    assert after("Bar_None TimeSig_4/4 Position_0", DENSITY)[of("Pitch_64")] == 0


MOTIFS = Likeness(key=0, register=0, density=0, dynamics=0, motifs=1)


def test_moves_places_and_steps_of_the_call_are_favoured() -> None:
    offsets = after(f"{HEAD} Position_6", MOTIFS)
    d_after_c, e, g_sharp = (float(offsets[of(name)]) for name in ("Pitch_62", "Pitch_64", "Pitch_68"))
    assert d_after_c > e == g_sharp == 0, "the call went from C to D, and had its D on this eighth"
    between = after(HEAD, MOTIFS)
    assert between[of("Position_6")] > 0 > between[of("Position_7")]


def test_lengths_of_the_call_are_favoured() -> None:
    offsets = after(f"{HEAD} Pitch_64 Velocity_79", MOTIFS)
    assert [name for name, token in VOCABULARY.ids.items() if offsets[token] > 0 and "Duration" in name] == [
        "Duration_0.6.12"
    ]


def test_a_note_on_the_closing_beat_is_given_time_to_ring() -> None:
    third = "Bar_None TimeSig_4/4 Bar_None TimeSig_4/4 Position_24 Pitch_60 Velocity_79"
    offsets = after(third, NONE, bars=2, closes=True)
    lengths = offsets[VOCABULARY.durations.first : VOCABULARY.durations.end]
    assert lengths[0] < lengths[5] < 0
    assert not lengths[11:].any()
    assert not after(third.replace("24", "12"), NONE, bars=2, closes=True).any()


def test_a_foreign_pitch_weighs_more_on_the_closing_beat() -> None:
    key = Likeness(key=1, register=0, density=0, dynamics=0, motifs=0)
    head = "Bar_None TimeSig_4/4 Bar_None TimeSig_4/4 Position_"
    before, last = (after(f"{head}{step}", key, bars=2, closes=True) for step in (12, 24))
    assert last[of("Pitch_61")] < 2 * before[of("Pitch_61")] < 0
    assert last[of("Pitch_60")] == before[of("Pitch_60")] == 0


def test_the_last_bar_thins_out() -> None:
    head = "Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_79 Duration_0.6.12"
    before = after(head, DENSITY, bars=2, closes=True)
    last = after(head.replace("Bar_None", "Bar_None Bar_None"), DENSITY, bars=2, closes=True)
    assert last[BAR] - last[of("Position_6")] > before[BAR] - before[of("Position_6")]
