"""Sliding windows: N bars of context, M bars that complete it (S2-010, S2-011)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.music.bar import Bar, BarNote
from antiphon.music.meter import Meter
from antiphon.tokens.encoder import bar_starts, encode
from antiphon.tokens.piano import PianoTokenizer
from antiphon.tokens.windows import create_context_completion_pairs, sliding_window
from tests.music.material import VOCABULARY, bars

ANTIPHON = PianoTokenizer(preset="antiphon")
FOUR = Meter(4, 4)


def test_ten_bars_give_five_pairs_of_four_and_two() -> None:
    ids = list(range(33))  # a beginning, ten bars of three ids, and an end that belongs to the last bar
    lines = list(range(1, 31, 3))
    pairs = sliding_window(ids, lines, 4, 2, 1)
    assert pairs == sliding_window(ids, lines)
    assert len(pairs) == 5
    for number, (context, completion) in enumerate(pairs[:-1]):
        assert context == ids[lines[number] : lines[number + 4]]
        assert completion == ids[lines[number + 4] : lines[number + 6]]
    assert pairs[-1] == (ids[13:25], ids[25:33]), "the last completion runs to the end"


@pytest.mark.parametrize(("count", "pairs"), [(0, 0), (1, 0), (5, 0), (6, 1), (7, 2)])
def test_fewer_than_n_plus_m_bars_give_none(count: int, pairs: int) -> None:
    assert len(sliding_window(list(range(2 * count)), list(range(0, 2 * count, 2)))) == pairs


@given(
    count=st.integers(0, 30), context_bars=st.integers(1, 8), completion_bars=st.integers(1, 8), step=st.integers(1, 5)
)
def test_windows_step_over_the_bars(count: int, context_bars: int, completion_bars: int, step: int) -> None:
    ids = [number for bar in range(count) for number in (bar, bar)]
    pairs = sliding_window(
        ids, range(0, 2 * count, 2), context_bars=context_bars, completion_bars=completion_bars, step=step
    )
    expected = range(0, count - context_bars - completion_bars + 1, step)
    assert [context[0] for context, _ in pairs] == list(expected)
    for context, completion in pairs:
        first = context[0]
        assert sorted(set(context)) == list(range(first, first + context_bars))
        assert sorted(set(completion)) == list(range(first + context_bars, first + context_bars + completion_bars))


@pytest.mark.parametrize("numbers", [(0, 2, 1), (4, 0, 1), (4, 2, 0), (-1, 2, 1)])
def test_windows_without_bars_or_without_movement_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(AntiphonError, match="at least one"):
        sliding_window([3] * 10, list(range(10)), *numbers)


@pytest.mark.parametrize("lines", [[0, 0, 1], [2, 1], [-1, 2], [0, 11]])
def test_bar_indices_that_do_not_rise_within_the_ids_are_refused(lines: list[int]) -> None:
    with pytest.raises(AntiphonError, match="rise"):
        sliding_window([3] * 10, lines, 1, 1)


@given(given_bars=bars(), context_bars=st.integers(1, 3), completion_bars=st.integers(1, 2))
def test_our_contexts_are_what_a_piece_would_be_that_begins_there(
    given_bars: list[Bar], context_bars: int, completion_bars: int
) -> None:
    ids = encode(given_bars, VOCABULARY)
    pairs = create_context_completion_pairs(ids, ANTIPHON, context_bars, completion_bars)
    lines = [*bar_starts(ids), len(ids)]
    assert len(pairs) == max(0, len(given_bars) - context_bars - completion_bars + 1)
    for first, (context, completion) in enumerate(pairs):
        middle = first + context_bars
        assert context == encode(given_bars[first:middle], VOCABULARY)
        assert completion == ids[lines[middle] : lines[middle + completion_bars]]


@pytest.mark.parametrize(
    ("onset", "wanted"),
    [
        (0, "Bar_None TimeSig_4/4 Position_0 Tempo_90.35 Pitch_60 Velocity_63 Duration_1.0.12"),
        (6, "Bar_None TimeSig_4/4 Position_0 Tempo_90.35 Position_6 Pitch_60 Velocity_63 Duration_1.0.12"),
    ],
)
def test_the_tempo_stands_where_our_grammar_wants_it(onset: int, wanted: str) -> None:
    bar = Bar(FOUR, (BarNote(onset, 60, 12, 63),), 90.0)
    ids = encode([bar] * 3, VOCABULARY)
    pairs = create_context_completion_pairs(ids, ANTIPHON, 1, 1)
    told = [" ".join(map(VOCABULARY.name, context)) for context, _ in pairs]
    assert told[0] == told[1]
    assert told[1].replace(told[1].split()[3], "Tempo_90.35") == wanted


def test_a_context_with_a_tempo_of_its_own_keeps_it() -> None:
    ids = encode([Bar(FOUR, (), bpm) for bpm in (90.0, 120.0, 60.0)], VOCABULARY)
    pairs = create_context_completion_pairs(ids, ANTIPHON, 1, 1)
    assert pairs[1][0] == encode([Bar(FOUR, (), 120.0)], VOCABULARY)


def test_a_context_that_begins_the_piece_is_left_as_it_is() -> None:
    ids = [1, *encode([Bar(FOUR)] * 3, VOCABULARY)]
    assert create_context_completion_pairs(ids, ANTIPHON, 1, 1)[0][0] == ids[1:5]


def test_what_does_not_begin_with_a_bar_is_refused() -> None:
    with pytest.raises(AntiphonError, match="begins with Bar"):
        ANTIPHON.with_metadata([3], {"tempo": VOCABULARY.tempos.first, "time_signature": None})


def test_pianomuse_contexts_begin_with_the_last_tempo_and_time_signature() -> None:
    tokenizer = PianoTokenizer(preset="pianomuse")
    note = ["Pitch_60", "Velocity_63", "Duration_1.0.8"]
    text = [
        *("Bar_0", "TimeSig_3/4", "Position_0", "Tempo_40.0", *note),
        *("Bar_1", "TimeSig_4/4", "Position_0", "Tempo_60.32", *note),
        *("Bar_2", "TimeSig_4/4", "Position_0", *note),
        *("Bar_3", "TimeSig_4/4", "Position_0", *note),
    ]
    ids = [tokenizer.token_to_id(name) for name in text]
    before = [tokenizer.token_to_id("Tempo_250.0")]
    assert create_context_completion_pairs([*before, *ids], tokenizer, 1, 1)[0] == (ids[:7], ids[7:14])
    pairs = create_context_completion_pairs(ids, tokenizer, 1, 1)
    told = [[tokenizer.id_to_token(token) for token in context] for context, _ in pairs]
    assert told[0] == text[:7]
    assert told[1] == ["Tempo_40.0", "TimeSig_3/4", *text[7:14]]
    assert told[2] == ["Tempo_60.32", "TimeSig_4/4", *text[14:20]]
    assert [completion for _, completion in pairs] == [ids[7:14], ids[14:20], ids[20:]]
