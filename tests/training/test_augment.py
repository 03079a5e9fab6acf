"""The same music told differently: what changes, and that nothing else does. Seen through the decoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.small_corpus import RANGES, VOCABULARY, random_bars

from antiphon.music.bar import Bar, BarNote
from antiphon.music.normalise import placed
from antiphon.tokens.decoder import decode
from antiphon.tokens.encoder import encode
from antiphon.training.augment import Augmentation, bar_lines, cut_at, transposed, velocity_shifted
from antiphon.training.ids import Ids

SEEDS = st.integers(0, 2**32 - 1)


def music(seed: int, *, low: int = 40, high: int = 80, begin: bool = True) -> Ids:
    """The ids of ten random bars, with BOS before and EOS behind."""
    bars = random_bars(np.random.default_rng(seed), bars=10, low=low, high=high)
    ids = encode(bars, VOCABULARY)
    return np.array([RANGES.bos, *ids, RANGES.eos] if begin else ids, np.int32)


def bars_in(ids: Ids) -> list[Bar]:
    return decode(ids.tolist(), VOCABULARY)


def notes_in(ids: Ids) -> list[BarNote]:
    """The notes, their steps counted from the first bar line."""
    return placed(bars_in(ids))


def lines_in(ids: Ids) -> npt.NDArray[np.int64]:
    """Where the bars begin, in steps from the first."""
    return np.cumsum([0, *(bar.meter.len_steps for bar in bars_in(ids))])[:-1]


def frame(ids: Ids) -> list[int]:
    """All but pitches, velocities and durations: bars, meters, tempos, positions, BOS and EOS."""
    kinds = (VOCABULARY.pitches, VOCABULARY.velocities, VOCABULARY.durations)
    return [token if not any(token in kind for kind in kinds) else -1 for token in ids.tolist()]


@given(seed=SEEDS, semitones=st.integers(-19, 28))
def test_a_transposition_moves_every_pitch_alike_and_nothing_else(seed: int, semitones: int) -> None:
    ids = music(seed)
    before = ids.copy()
    moved = transposed(ids, RANGES, semitones)
    assert frame(moved) == frame(ids)
    assert [(n.step, n.pitch, n.len_steps, n.velocity) for n in notes_in(moved)] == [
        (n.step, n.pitch + semitones, n.len_steps, n.velocity) for n in notes_in(ids)
    ]
    np.testing.assert_array_equal(ids, before)


def test_a_transposition_out_of_the_range_is_refused() -> None:
    ids = music(3, low=40, high=80)
    lowest = min(note.pitch for note in notes_in(ids))
    assert min(note.pitch for note in notes_in(transposed(ids, RANGES, 21 - lowest))) == 21
    with pytest.raises(ValueError, match="leaves the pitch range"):
        transposed(ids, RANGES, 20 - lowest)
    with pytest.raises(ValueError, match="leaves the pitch range"):
        transposed(ids, RANGES, 69)


@given(seed=SEEDS, bins=st.integers(-20, 20))
def test_a_velocity_shift_stays_in_the_bins_and_changes_nothing_else(seed: int, bins: int) -> None:
    ids = music(seed)
    shifted = velocity_shifted(ids, RANGES, bins)
    span = VOCABULARY.velocities
    for before, after in zip(ids.tolist(), shifted.tolist(), strict=True):
        if before in span:
            assert after == min(max(before + bins, span.first), span.end - 1)
        else:
            assert after == before


@given(seed=SEEDS, share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_notes_that_would_sound_over_a_cut_line_end_on_it_and_nothing_else_changes(seed: int, share: float) -> None:
    ids = music(seed)
    lines = lines_in(ids)
    np.testing.assert_array_equal(bar_lines(ids, RANGES), lines)
    cut = lines[1:][np.random.default_rng(seed).random(len(lines) - 1) < share]
    after = cut_at(ids, RANGES, cut)
    assert frame(after) == frame(ids)
    expected = []
    for note in notes_in(ids):
        crossed = [line for line in cut if note.step < line < note.step + note.len_steps]
        expected.append((note.step, note.pitch, crossed[0] - note.step if crossed else note.len_steps, note.velocity))
    assert [(n.step, n.pitch, n.len_steps, n.velocity) for n in notes_in(after)] == expected


def test_the_cuts_are_not_idle() -> None:
    ids = music(1)
    cut = cut_at(ids, RANGES, bar_lines(ids, RANGES)[1:])
    shortened = sum(a.len_steps < b.len_steps for a, b in zip(notes_in(cut), notes_in(ids), strict=True))
    assert shortened > 5


@given(seed=SEEDS, end=st.integers(2, 80))
def test_a_sample_that_breaks_off_anywhere_is_cut_as_its_whole_notes_are(seed: int, end: int) -> None:
    whole = music(seed, begin=False)
    ids = whole[:end]
    # Every step is a line here, so that whatever can be cut is cut.
    lines = np.arange(1, 2000)
    np.testing.assert_array_equal(cut_at(ids, RANGES, lines), cut_at(whole, RANGES, lines)[:end])


@given(seed=SEEDS)
def test_a_variation_is_drawn_from_the_generator_alone_and_spells_the_same_bars(seed: int) -> None:
    augmentation = Augmentation(cut_samples=1.0, cut_bars=0.5)
    ids = music(seed)
    one, same, other = (augmentation.apply(ids, RANGES, np.random.default_rng(s)) for s in (seed, seed, seed + 1))
    np.testing.assert_array_equal(one, same)
    for varied in (one, other):
        assert frame(varied) == frame(ids)
        assert [(bar.meter, bar.bpm) for bar in bars_in(varied)] == [(bar.meter, bar.bpm) for bar in bars_in(ids)]
        assert {a.pitch - b.pitch for a, b in zip(notes_in(varied), notes_in(ids), strict=True)} <= set(range(-5, 7))


def test_every_shift_within_reach_is_drawn_and_none_beyond() -> None:
    # The highest note is two semitones below the end of the range, so two of the six upward shifts are left.
    augmentation = Augmentation(velocity_bins=0, cut_samples=0.0)
    ids = transposed(music(5, low=60, high=80), RANGES, 0)
    highest = max(note.pitch for note in notes_in(ids))
    ids = transposed(ids, RANGES, 106 - highest)
    rng = np.random.default_rng(0)
    shifts = {notes_in(augmentation.apply(ids, RANGES, rng))[0].pitch - notes_in(ids)[0].pitch for _ in range(200)}
    assert shifts == set(range(-5, 3))


def test_music_over_the_whole_range_stays_in_its_key() -> None:
    ids = music(7, low=21, high=108)
    pitches = [note.pitch for note in notes_in(ids)]
    ids = np.concatenate([ids[:-1], [RANGES.position_first + 1], *(
        [RANGES.pitch_first + pitch - 21, RANGES.velocity_first, RANGES.duration_first] for pitch in (21, 108)
    )]).astype(np.int32)  # fmt: skip
    varied = Augmentation(cut_samples=0.0).apply(ids, RANGES, np.random.default_rng(0))
    assert [note.pitch for note in notes_in(varied)][: len(pitches)] == [n.pitch for n in notes_in(ids)][: len(pitches)]


def test_music_without_notes_is_left_alone() -> None:
    ids = np.array([RANGES.bos, RANGES.bar, RANGES.meter_first, RANGES.eos], np.int32)
    np.testing.assert_array_equal(Augmentation().apply(ids, RANGES, np.random.default_rng(0)), ids)
