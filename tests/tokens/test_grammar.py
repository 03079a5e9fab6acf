"""The grammar of an answer: only legal ids can be sampled, and whatever is sampled is a whole answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.music.normalise import placed
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.tokens.grammar import AnswerGrammar, Bounds, first_illegal
from antiphon.tokens.vocabulary import BAR, EOS, PAD
from tests.music.material import METERS, VOCABULARY

FOUR = Meter(4, 4)
SEEDS = 200


def grammar(bounds: Bounds | None = None, *, meter: Meter = FOUR, bars: int = 2) -> AnswerGrammar:
    return AnswerGrammar(vocabulary=VOCABULARY, meter=meter, bars=bars, bounds=bounds or Bounds())


def written(by: AnswerGrammar, rng: np.random.Generator) -> list[int]:
    """An answer drawn evenly from what `by` allows."""
    ids: list[int] = []
    while not by.done:
        legal = np.flatnonzero(by.mask())
        assert len(legal), f"nothing may follow {[VOCABULARY.name(token) for token in ids[-6:]]}"
        # Among so many positions a bar line would hardly ever be drawn.
        bar_may_end = BAR in legal and rng.random() < 0.05
        ids.append(BAR if bar_may_end else int(rng.choice(legal)))
        by.feed(ids[-1])
    return ids


def drawn(seed: int) -> tuple[Meter, int, Bounds, np.random.Generator]:
    """A meter, a number of bars and tight bounds, from `seed`."""
    rng = np.random.default_rng(seed)
    lowest = int(rng.integers(21, 109))
    highest = min(108, lowest + int(rng.integers(0, 12)))
    bounds = Bounds(lowest=lowest, highest=highest, max_notes_at_once=int(rng.integers(1, 5)))
    return METERS[int(rng.integers(len(METERS)))], int(rng.integers(1, 5)), bounds, rng


def most_at_once(notes: list[BarNote]) -> int:
    return max(sum(n.step <= at.step < n.step + n.len_steps for n in notes) for at in notes)


@pytest.mark.parametrize("block", range(0, SEEDS, 50))
def test_every_seed_gives_a_whole_legal_answer_within_its_bounds(block: int) -> None:
    for seed in range(block, block + 50):
        meter, count, bounds, rng = drawn(seed)
        ids = written(grammar(bounds, meter=meter, bars=count), rng)
        assert first_illegal(ids, grammar=grammar(bounds, meter=meter, bars=count)) is None
        assert ids[-1] == BAR
        music = decode(ids[:-1], VOCABULARY)
        assert [bar.meter for bar in music] == [meter.in_quarters] * count
        assert encode(music, VOCABULARY)[4:] == ids[3:-1], "what was written is what the encoder writes"
        notes = placed(music)
        assert notes[0].step == 0, "the first onset is on the bar line"
        for note in notes:
            assert bounds.lowest <= note.pitch <= bounds.highest
            assert note.step + note.len_steps <= count * meter.len_steps
            later = [n.step for n in notes if n.pitch == note.pitch and n.step > note.step]
            assert all(note.step + note.len_steps <= step for step in later)
        assert most_at_once(notes) <= bounds.max_notes_at_once


@pytest.mark.parametrize("seed", range(30))
def test_an_answer_goes_on_from_what_sounds_already(seed: int) -> None:
    meter, count, bounds, rng = drawn(seed)
    bounds = replace(bounds, max_notes_at_once=2)
    by = grammar(bounds, meter=meter, bars=count)
    until = min(int(rng.integers(1, meter.len_steps + 1)), by.total_steps - 1)
    frozen = BarNote(0, bounds.lowest, int(rng.integers(1, 97)), 80)
    inside = Bar(meter.in_quarters, (replace(frozen, len_steps=min(frozen.len_steps, by.total_steps)),))
    for token in encode([inside], VOCABULARY):
        by.feed(token)
    while by.bar < until // meter.len_steps:
        for token in encode([Bar(meter)], VOCABULARY)[:2]:
            by.feed(token)
    by.hold_back(until_step=until)
    ids = written(by, rng)
    start = encode([inside], VOCABULARY)
    bars_begun = until // meter.len_steps
    music = decode([*start, *encode([Bar(meter)], VOCABULARY)[:2] * bars_begun, *ids[:-1]], VOCABULARY)
    notes = placed(music)
    assert len(music) == count
    assert all(note.step >= until for note in notes[1:])
    assert all(n.step >= frozen.step + inside.notes[0].len_steps for n in notes[1:] if n.pitch == frozen.pitch)
    assert most_at_once(notes) <= 2


def test_a_note_that_sounds_keeps_its_pitch_and_its_place() -> None:
    by = grammar(Bounds(lowest=60, highest=61, max_notes_at_once=2), bars=1)
    by.occupy(BarNote(0, 60, 10, 80))
    by.occupy(BarNote(0, 90, 10, 80))  # beyond the bounds: not the answer's business
    for token in ids_of("Bar_None TimeSig_4/4 Position_0"):
        by.feed(token)
    assert allowed(by) == ["Pitch_61"]
    for token in ids_of("Pitch_61 Velocity_63 Duration_0.4.12"):
        by.feed(token)
    positions = [name for name in allowed(by) if name.startswith("Position")]
    assert positions[0] == "Position_4", "nothing can be struck while both pitches sound"
    assert positions[-1] == "Position_47"


def test_without_the_downbeat_an_answer_may_begin_anywhere_or_never() -> None:
    by = grammar(Bounds(on_downbeat=False), bars=1)
    for token in ids_of("Bar_None TimeSig_4/4"):
        by.feed(token)
    assert allowed(by) == ["Bar_None", *(f"Position_{step}" for step in range(48))]


def test_where_the_bar_line_is_taken_the_answer_is_not_held_up() -> None:
    by = grammar(Bounds(lowest=60, highest=60), bars=1)
    by.occupy(BarNote(0, 60, 5, 80))
    for token in ids_of("Bar_None TimeSig_4/4"):
        by.feed(token)
    assert allowed(by) == ["Bar_None"]


def test_an_answer_that_missed_its_bar_line_may_begin_anywhere_after_it() -> None:
    by = grammar(bars=1)
    for token in ids_of("Bar_None TimeSig_4/4"):
        by.feed(token)
    by.hold_back(until_step=40)
    assert allowed(by) == ["Bar_None", *(f"Position_{step}" for step in range(40, 48))]


def test_nothing_follows_a_whole_answer() -> None:
    by = grammar(bars=1)
    for token in ids_of("Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_63 Duration_1.0.12 Bar_None"):
        by.feed(token)
    assert by.done
    assert not by.mask().any()


@pytest.mark.parametrize("low_high", [(20, 60), (60, 109), (61, 60)])
def test_bounds_outside_the_piano_are_refused(low_high: tuple[int, int]) -> None:
    with pytest.raises(AntiphonError, match="no range"):
        Bounds(lowest=low_high[0], highest=low_high[1])


def test_no_notes_and_no_bars_are_refused() -> None:
    with pytest.raises(AntiphonError, match="one note"):
        Bounds(max_notes_at_once=0)
    with pytest.raises(AntiphonError, match="one bar"):
        grammar(bars=0)


# --- planted errors -----------------------------------------------------------------------------------------

HEAD = "Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_63 Duration_1.0.12"
NOTE = "Pitch_64 Velocity_63 Duration_0.6.12"
BOUNDS = Bounds(lowest=48, highest=72, max_notes_at_once=2)


def ids_of(text: str) -> list[int]:
    return [VOCABULARY.ids[name] for name in text.split()]


def allowed(by: AnswerGrammar) -> list[str]:
    return [VOCABULARY.name(int(token)) for token in np.flatnonzero(by.mask())]


def test_a_legal_answer_has_nothing_illegal() -> None:
    text = f"{HEAD} {NOTE} Position_6 Pitch_65 Velocity_7 Duration_0.1.12 Bar_None TimeSig_4/4 Bar_None"
    assert first_illegal(ids_of(text), grammar=grammar(BOUNDS)) is None


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("begins with Bar", "TimeSig_4/4"),
        ("Bar has a meter", "Bar_None Position_0"),
        ("the meter is the one asked for", "Bar_None TimeSig_3/4"),
        ("the first onset is on the bar line", "Bar_None TimeSig_4/4 Position_1"),
        ("the first bar is not empty", "Bar_None TimeSig_4/4 Bar_None"),
        ("a position has a pitch", "Bar_None TimeSig_4/4 Position_0 Velocity_63"),
        ("a position has a note before the next", f"{HEAD} Position_4 Position_5"),
        ("a position has a note before the bar ends", f"{HEAD} Position_4 Bar_None"),
        ("a pitch has a velocity", f"{HEAD} Pitch_64 Duration_0.6.12"),
        ("a velocity has a duration", f"{HEAD} Pitch_64 Velocity_63 Pitch_65"),
        ("positions rise", f"{HEAD} Position_9 {NOTE} Position_9"),
        ("positions lie within the bar", f"{HEAD} Position_48"),
        ("pitches rise within a chord", f"{HEAD} Pitch_59"),
        ("a chord has no pitch twice", f"{HEAD} Pitch_60"),
        ("no pitch while it sounds", f"{HEAD} Position_11 Pitch_60"),
        ("no pitch below the bounds", "Bar_None TimeSig_4/4 Position_0 Pitch_47"),
        ("no pitch above the bounds", "Bar_None TimeSig_4/4 Position_0 Pitch_73"),
        ("no more notes at once", f"{HEAD} {NOTE} Pitch_67"),
        ("no onset while there is no room", f"{HEAD} {NOTE} Position_5"),
        (
            "notes end within the answer",
            f"{HEAD} Bar_None TimeSig_4/4 Position_47 Pitch_64 Velocity_63 Duration_0.2.12",
        ),
        ("the tempo stays", "Bar_None TimeSig_4/4 Position_0 Tempo_40.0"),
        ("no padding", f"{HEAD} PAD_None"),
        ("no end of the piece", f"{HEAD} EOS_None"),
        ("no beginning", "BOS_None"),
        ("no more bars", f"{HEAD} Bar_None TimeSig_4/4 Bar_None Bar_None"),
    ],
)
def test_a_planted_error_is_found(rule: str, text: str) -> None:
    ids = ids_of(text)
    assert first_illegal(ids, grammar=grammar(BOUNDS)) == len(ids) - 1, rule


def test_ids_outside_the_vocabulary_are_illegal() -> None:
    for token in (-1, VOCABULARY.size, 10**9):
        assert first_illegal([BAR, token], grammar=grammar()) == 1


def test_an_answer_that_stops_early_lacks_its_next_id() -> None:
    assert first_illegal([], grammar=grammar()) == 0
    assert first_illegal(ids_of(HEAD), grammar=grammar()) == 6
    assert first_illegal(ids_of(f"{HEAD} Bar_None"), grammar=grammar(bars=2)) == 7


def test_the_special_ids_are_never_allowed() -> None:
    rng = np.random.default_rng(1)
    by = grammar(bars=3)
    while not by.done:
        mask = by.mask()
        assert not mask[[PAD, EOS, 1]].any()
        by.feed(int(rng.choice(np.flatnonzero(mask))))
