"""The human-likeness gap, the Fréchet distance and the classifier, on clouds of points whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.evaluation.frechet import frechet, halves_apart
from antiphon.evaluation.gap import MOST, floor_of, gap_beyond, gap_of, plain_gap
from antiphon.evaluation.measures import NAMES
from antiphon.evaluation.statistics import Draws
from antiphon.evaluation.two_sample import area, told_apart

RNG = np.random.default_rng(3)
SONGS = [f"song {i // 3}" for i in range(120)]
DRAWS = Draws(SONGS, resamples=500)
HUMAN = RNG.normal(size=(120, 10)) * np.arange(1, 11) + np.arange(10)


def test_the_gap_is_the_mean_distance_in_human_deviations() -> None:
    shift = np.zeros(10)
    shift[2], shift[7] = 1.0, -0.5
    found = gap_of(HUMAN + shift * HUMAN.std(axis=0), HUMAN, DRAWS)
    assert found.gap.value == pytest.approx(1.5 / 10)
    assert found.distances[NAMES[2]].value == pytest.approx(1.0)
    assert found.distances[NAMES[7]].value == pytest.approx(-0.5)
    assert found.distances[NAMES[0]].value == pytest.approx(0, abs=1e-9)
    assert plain_gap(HUMAN, HUMAN) == 0


def test_bounds_hold_the_gap_and_a_difference_is_paired_by_song() -> None:
    near, far = HUMAN + 0.3 * HUMAN.std(axis=0), HUMAN - 0.6 * HUMAN.std(axis=0)
    found = gap_of(near + RNG.normal(size=HUMAN.shape), HUMAN, DRAWS).gap
    assert found.low < found.value < found.high
    beyond = gap_beyond(near, far, HUMAN, DRAWS)
    assert beyond.value == pytest.approx(-0.3)
    assert beyond.low < -0.25
    assert beyond.high < 0
    # Both were moved alike in every song, so pairing leaves nearly nothing to chance.
    assert beyond.high - beyond.low < 0.2


def test_a_measure_in_which_humans_do_not_differ_counts_for_no_more_than_the_most() -> None:
    flat = HUMAN.copy()
    flat[:, 4] = 1.0
    moved = flat.copy()
    moved[:, 4] = 1.01
    assert gap_of(moved, flat, DRAWS).gap.value == pytest.approx(MOST / 10)
    assert gap_of(flat, flat, DRAWS).gap.value == 0


def test_between_two_halves_of_humans_the_gap_is_that_of_chance() -> None:
    floor = floor_of(HUMAN, DRAWS)
    # |N(0, 2/60 · (1 + …))|: 60 windows a side differ by about 0.18 sd, whose mean absolute value is 0.15.
    assert 0.1 < floor.value < 0.2
    assert floor.low < floor.value < floor.high
    assert np.isnan(floor_of(HUMAN[:3], Draws(["one"] * 3)).value)


def test_the_frechet_distance_of_normal_clouds_is_the_closed_form() -> None:
    a = RNG.normal(size=(4000, 2))
    b = RNG.normal(size=(4000, 2)) * 2 + 3
    assert frechet(a, b) == pytest.approx(2 * 9 + 2 * (2 - 1) ** 2, rel=0.05)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a))
    turned = a @ np.array([[0.6, -0.8], [0.8, 0.6]]) * np.array([1.0, 3.0])
    ca, ct = np.cov(a, rowvar=False), np.cov(turned, rowvar=False)
    crossed = np.sqrt(np.linalg.eigvals(ca @ ct).real).sum()
    apart = a.mean(axis=0) - turned.mean(axis=0)
    assert frechet(a, turned) == pytest.approx(apart @ apart + np.trace(ca) + np.trace(ct) - 2 * crossed)


def test_halves_of_humans_are_nearer_to_each_other_than_to_someone_else() -> None:
    scaled = (HUMAN - HUMAN.mean(axis=0)) / HUMAN.std(axis=0)
    real = halves_apart(scaled, scaled, DRAWS)
    other = halves_apart(scaled * 0.2 + 1, scaled, DRAWS)
    assert 0 < real.low <= real.value <= real.high < other.low
    assert np.isnan(halves_apart(scaled[:3], scaled[:3], Draws(["a", "b", "c"])).value)


def test_the_area_counts_pairs_and_halves_ties() -> None:
    positive, negative = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 2.0, 3.0])
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert area(positive, negative) == pytest.approx(np.mean(pairs))


def test_the_classifier_tells_what_differs_and_nothing_else() -> None:
    same = told_apart(RNG.normal(size=(120, 10)) * np.arange(1, 11) + np.arange(10), HUMAN, DRAWS)
    assert 0.35 < same.value < 0.65
    different = HUMAN.copy()
    different[:, 6] += 2 * HUMAN[:, 6].std()
    found = told_apart(different, HUMAN, DRAWS)
    assert found.value > 0.85
    assert found.low < found.value < found.high


def test_the_classifier_is_judged_on_songs_that_it_has_not_seen() -> None:
    # In each song humans keep to one place and answers to another, both by chance: what was learnt of a song tells its
    # other windows apart, but says nothing about another song.
    by_song, by_window = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        human, answers = (
            np.repeat(rng.normal(size=(6, 10)), 20, axis=0) + rng.normal(size=(120, 10)) * 0.1 for _ in range(2)
        )
        by_song.append(told_apart(answers, human, Draws([n // 20 for n in range(120)], resamples=10)).value)
        by_window.append(told_apart(answers, human, Draws(list(range(120)), resamples=10)).value)
    assert np.mean(by_song) < 0.65
    assert np.mean(by_window) > 0.9
    assert np.isnan(told_apart(human[:2], human[:2], Draws(["one", "one"])).value)
