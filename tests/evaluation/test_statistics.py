"""Intervals that are neither too wide nor too narrow, and tests that know what they may call different (S2-110)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from antiphon.evaluation import statistics
from antiphon.evaluation.statistics import (
    Draws,
    bounds,
    equivalence,
    holm,
    mean,
    paired_mean,
    paired_ratio,
    ratio_of_sums,
    wilcoxon,
)

SONGS = [f"song {row // 4}" for row in range(160)]


def test_a_ratio_of_sums_is_over_all_rows_and_its_bounds_hold_it() -> None:
    rng = np.random.default_rng(1)
    notes = rng.integers(5, 60, 160)
    nats = notes * rng.normal(3, 0.4, 160)
    found = ratio_of_sums(nats, notes, Draws(SONGS))
    assert found.value == pytest.approx(nats.sum() / notes.sum())
    assert found.low < found.value < found.high
    # The spread of a ratio of sums over songs: their own deviations from it (Cochran 1977, section 6.3).
    of_song = (nats - found.value * notes).reshape(40, 4).sum(axis=1)
    error = math.sqrt((of_song**2).sum()) / notes.sum()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        songs = np.repeat(rng.normal(3.0, 0.5, 40), 4)
        found = mean(songs + rng.normal(0, 0.2, 160), Draws(SONGS, resamples=500, seed=trial))
        covered += found.low < 3.0 < found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_windows_of_one_song_count_as_one_song() -> None:
    of_song = np.repeat(np.random.default_rng(3).normal(0, 1, 40), 4)
    clustered, apart = mean(of_song, Draws(SONGS)), mean(of_song, Draws(range(160)))
    assert clustered.value == apart.value
    assert clustered.high - clustered.low == pytest.approx(2 * (apart.high - apart.low), rel=0.1)


def test_the_same_draws_are_drawn_every_time_and_the_seed_counts() -> None:
    values = np.random.default_rng(4).normal(0, 1, 160)
    assert mean(values, Draws(SONGS)) == mean(values, Draws(SONGS))
    assert mean(values, Draws(SONGS)) != mean(values, Draws(SONGS, seed=1))


def test_many_columns_are_drawn_together() -> None:
    values = np.random.default_rng(5).normal(0, 1, (160, 3))
    draws = Draws(SONGS, resamples=50)
    together = draws.means(values)
    assert together.shape == (50, 3)
    for column in range(3):
        np.testing.assert_allclose(together[:, column], draws.means(values[:, column]))
    found = statistics.statistic(values, lambda means: np.abs(means).mean(axis=1), draws)
    assert found.value == pytest.approx(np.abs(values.mean(axis=0)).mean())
    assert (found.low, found.high) == bounds(np.abs(together).mean(axis=1))


def test_a_paired_difference_does_not_see_what_both_share() -> None:
    rng = np.random.default_rng(6)
    notes = rng.integers(5, 60, 160)
    hard = np.repeat(rng.normal(3, 1.0, 40), 4)
    a = notes * (hard - 0.1 + rng.normal(0, 0.05, 160))
    b = notes * hard
    draws = Draws(SONGS)
    found = paired_ratio(a, b, notes, draws)
    assert found.difference.value == pytest.approx(-0.1, abs=0.02)
    assert found.difference.high < -0.08
    alone = ratio_of_sums(a, notes, draws)
    assert found.difference.high - found.difference.low < 0.1 * (alone.high - alone.low)
    assert found.p < 1e-6
    assert found.songs == 40
    assert found.songs_lower >= 38
    other_way = paired_ratio(b, a, notes, draws)
    assert other_way.difference.value == -found.difference.value
    assert other_way.p == pytest.approx(found.p)


def test_songs_without_a_note_are_no_song_of_a_paired_difference() -> None:
    notes = np.array([0, 0, 10, 10])
    found = paired_ratio([0.0, 0.0, 5.0, 5.0], [0.0, 0.0, 6.0, 6.0], notes, Draws(["a", "a", "b", "c"]))
    assert found.songs == found.songs_lower == 2
    assert found.difference.value == pytest.approx(-0.1)


def test_equals_are_equivalent_and_others_not() -> None:
    rng = np.random.default_rng(7)
    human = rng.normal(0, 1, 160)
    draws = Draws(SONGS)
    near = equivalence(human + rng.normal(0, 0.1, 160), human, draws, sd=1.0)
    assert near.holds
    assert near.p < 0.05
    assert near.margin == pytest.approx(0.3)
    far = equivalence(human + 0.5, human, draws, sd=1.0)
    assert not far.holds
    assert far.p > 0.9
    # What cannot be told is not called equal: few songs, much noise.
    unsure = equivalence(rng.normal(0, 3, 8), rng.normal(0, 3, 8), Draws(range(8)), sd=1.0)
    assert not unsure.holds
    assert unsure.p > 0.05


def test_the_interval_of_an_equivalence_is_that_of_the_paired_mean() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, 160), rng.normal(0, 1, 160)
    draws = Draws(SONGS)
    found = equivalence(a, b, draws, sd=1.0).difference
    wider = paired_mean(a, b, draws).difference
    assert found.value == pytest.approx(wider.value)
    assert wider.low < found.low < found.high < wider.high


@pytest.mark.parametrize("n", [1, 4, 9])
def test_few_signed_ranks_are_counted_out(n: int) -> None:
    values = np.random.default_rng(n).permutation(np.arange(1, n + 1)) * np.where(np.arange(n) % 3 == 0, -1, 1)
    below = min(values[values > 0].sum(), -values[values < 0].sum())
    sums = [sum(ranks) for k in range(n + 1) for ranks in itertools.combinations(range(1, n + 1), k)]
    expected = min(1.0, 2 * sum(one <= below for one in sums) / 2**n)
    assert wilcoxon(values) == pytest.approx(expected)


def test_many_signed_ranks_agree_with_the_exact_count() -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(0.4, 1, 25)
    exact = wilcoxon(values)
    # A 26th difference next to nothing takes the test to the normal approximation and moves every rank by one.
    assert wilcoxon([*values, 1e-9]) == pytest.approx(exact, rel=0.15)
    assert wilcoxon(-values) == pytest.approx(exact)


def test_ties_and_zeros_are_borne() -> None:
    assert wilcoxon([0.0, 0.0]) == 1.0
    assert wilcoxon([1.0, -1.0, 1.0, -1.0]) == 1.0
    assert wilcoxon([2.0] * 30) < 1e-6
    assert wilcoxon([0.0, *[2.0] * 30]) == wilcoxon([2.0] * 30)


def test_holm_is_stricter_the_more_is_tested() -> None:
    assert holm([0.01]) == [0.01]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Draws([])
    with pytest.raises(ValueError, match="below the line"):
        ratio_of_sums([1.0], [0.0], Draws(["a"]))
    with pytest.raises(ValueError, match="2 values for 1 rows"):
        Draws(["a"]).means([1.0, 2.0])


def test_a_resample_without_anything_below_the_line_is_left_out() -> None:
    found = ratio_of_sums([3.0, 0.0], [1.0, 0.0], Draws(["a", "b"], resamples=200))
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)
