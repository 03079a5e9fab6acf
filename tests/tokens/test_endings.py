"""How an answer ends and what it leaves alone: the last onset on a strong beat, and no bar that was heard again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.tokens.copies import tree_of
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.tokens.grammar import AnswerGrammar, Bounds, first_illegal, strong_steps
from antiphon.tokens.vocabulary import BAR
from tests.music.material import VOCABULARY
from tests.tokens.test_grammar import drawn, ids_of, written

FOUR = Meter(4, 4)


def closing(
    meter: Meter = FOUR, *, bars: int = 2, bounds: Bounds | None = None, heard: Sequence[Bar] = ()
) -> AnswerGrammar:
    return AnswerGrammar(
        vocabulary=VOCABULARY,
        meter=meter,
        bars=bars,
        bounds=bounds or Bounds(),
        closes=True,
        copies=tree_of(heard),
    )


def onsets(bar: Bar) -> tuple[tuple[int, int], ...]:
    return tuple((note.step, note.pitch) for note in bar.notes)


@pytest.mark.parametrize(
    ("meter", "steps"),
    [
        ("4/4", (0, 24)),
        ("2/2", (0, 24)),
        ("2/4", (0,)),
        ("2/8", (0,)),
        ("3/4", (0,)),
        ("3/8", (0,)),
        ("3/2", (0,)),
        ("6/8", (0, 18)),
        ("9/8", (0,)),
        ("12/8", (0, 36)),
        ("5/4", (0, 36)),
        ("7/8", (0, 24)),
        ("1/4", (0,)),
    ],
)
def test_strong_are_the_downbeat_and_the_bars_second_strong_beat(meter: str, steps: tuple[int, ...]) -> None:
    assert strong_steps(Meter.parse(meter), bars=4) == steps


def test_a_single_bar_may_end_on_any_beat() -> None:
    assert strong_steps(FOUR, bars=1) == (0, 12, 24, 36)
    assert strong_steps(Meter(6, 8), bars=1) == (0, 18)


@pytest.mark.parametrize("block", range(0, 200, 50))
def test_every_seed_ends_on_a_strong_beat_of_its_last_bar_whatever_the_bounds(block: int) -> None:
    for seed in range(block, block + 50):
        meter, count, bounds, rng = drawn(seed)
        ids = written(closing(meter, bars=count, bounds=bounds), rng)
        plain = AnswerGrammar(vocabulary=VOCABULARY, meter=meter, bars=count, bounds=bounds)
        assert first_illegal(ids, grammar=plain) is None
        last_bar = decode(ids[:-1], VOCABULARY)[count - 1]
        assert last_bar.notes[-1].step in strong_steps(meter, bars=count)


def test_a_note_leaves_the_last_onset_its_place() -> None:
    by = closing(bounds=Bounds(lowest=60, highest=60), bars=1)
    for token in ids_of("Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_63"):
        by.feed(token)
    lengths = [VOCABULARY.duration_of(int(token)) for token in np.flatnonzero(by.mask())]
    assert lengths == list(range(1, 37)), "the only pitch is wanted again on the last beat"


def test_a_last_note_may_ring_to_the_end() -> None:
    by = closing(bars=1)
    for token in ids_of("Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_63 Duration_1.0.12 Position_36 Pitch_60"):
        by.feed(token)
    by.feed(VOCABULARY.velocity_id(80))
    assert max(VOCABULARY.duration_of(int(token)) for token in np.flatnonzero(by.mask())) == 12


def test_an_answer_that_is_too_late_to_close_ends_where_it_can() -> None:
    by = closing(bars=1)
    for token in ids_of("Bar_None TimeSig_4/4"):
        by.feed(token)
    by.hold_back(until_step=40)
    assert by.closing_step is None
    assert by.mask()[BAR]


def imitated(by: AnswerGrammar, heard: Sequence[Bar], rng: np.random.Generator) -> list[Bar]:
    """An answer by someone who wants to copy: takes a bar of `heard` as long as it may, and then gets away anyhow."""
    ids: list[int] = []
    wanted: list[int] = []
    while not by.done:
        legal = np.flatnonzero(by.mask())
        assert len(legal)
        if not wanted and (not ids or ids[-1] == BAR or by.bar < 0):
            model = heard[int(rng.integers(len(heard)))]
            wanted = [*[t for t in encode([model], VOCABULARY) if t not in VOCABULARY.tempos], BAR]
            wanted = wanted[1:] if ids else wanted
        token = wanted.pop(0) if wanted else -1
        if token not in legal:
            wanted = []
            token = BAR if BAR in legal else int(rng.choice(legal))
        ids.append(token)
        by.feed(token)
    return decode(ids[:-1], VOCABULARY)


def phrase(rng: np.random.Generator, *, bars: int, most: int) -> list[Bar]:
    """A few bars of up to `most` notes, of so few pitches and places that bars come again by chance."""
    made: list[Bar] = []
    for _ in range(bars):
        places = {(0, 60), *((int(rng.integers(3)) * 12, 60 + int(rng.integers(3))) for _ in range(int(most)))}
        made.append(Bar(FOUR, tuple(BarNote(step, pitch, 6, 80) for step, pitch in sorted(places)), 120.0))
    return made


@pytest.mark.parametrize("most", [0, 1, 3, 6])
def test_who_wants_to_copy_the_call_does_not_get_to(most: int) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        heard = phrase(rng, bars=4, most=most)
        answer = imitated(closing(bars=4, heard=heard), heard, rng)
        taken = {onsets(bar) for bar in heard}
        assert not any(onsets(bar) in taken for bar in answer)
        assert any(set(onsets(bar)) & {at for bar in heard for at in onsets(bar)} for bar in answer)


def test_a_bar_of_ones_own_comes_at_most_twice_in_a_row() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        own = phrase(rng, bars=1, most=4)
        answer = imitated(closing(bars=6), own, rng)
        for first, second, third in zip(answer, answer[1:], answer[2:], strict=False):
            assert not (onsets(first) == onsets(second) == onsets(third) != ())
        assert onsets(answer[0]) == onsets(answer[1]) == onsets(own[0])


def test_where_nothing_but_the_copy_is_left_it_is_taken() -> None:
    only = Bounds(lowest=60, highest=60, max_notes_at_once=1)
    heard = [Bar(FOUR, (BarNote(0, 60, 48, 80),))]
    by = closing(bars=2, bounds=only, heard=heard)
    for token in ids_of("Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_63 Duration_4.0.12"):
        by.feed(token)
    assert np.flatnonzero(by.mask()).tolist() == [BAR]


def test_a_rest_may_be_answered_by_a_rest() -> None:
    by = closing(bars=3, heard=[Bar(FOUR)])
    head = "Bar_None TimeSig_4/4 Position_0 Pitch_60 Velocity_63 Duration_1.0.12 Bar_None TimeSig_4/4"
    for token in ids_of(head):
        by.feed(token)
    assert by.mask()[BAR]


def test_what_a_clone_tries_the_grammar_never_hears_of() -> None:
    heard = phrase(np.random.default_rng(3), bars=4, most=4)
    by = closing(bars=3, heard=heard)
    rng = np.random.default_rng(5)
    while not by.done:
        before = by.mask().copy()
        written(by.clone(), rng)
        np.testing.assert_array_equal(by.mask(), before)
        twin = by.clone()
        token = int(rng.choice(np.flatnonzero(before)))
        by.feed(token)
        twin.feed(token)
        np.testing.assert_array_equal(by.mask(), twin.mask())
