"""The ten measures, each on music short enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation.small_calls import calls, passage

from antiphon.errors import AntiphonError
from antiphon.evaluation import measures
from antiphon.evaluation.measures import NAMES, relation, scale_of
from antiphon.evaluation.passage import Passage
from antiphon.music.meter import Meter

C_MAJOR = [(12 * i, 60 + s) for i, s in enumerate((0, 2, 4, 5, 7, 9, 11, 12, 7, 4, 0, 7, 0, 4, 7, 0))]
PROMPT = passage([(0, 60), (12, 64), (24, 67), (36, 60), (48, 62), (96, 62), (144, 60, 48)])


def test_there_are_ten_and_an_answer_equal_to_the_prompt_has_the_ends_of_their_ranges() -> None:
    assert len(NAMES) == len(set(NAMES)) == 10
    found = dict(zip(NAMES, relation(PROMPT, PROMPT), strict=True))
    for name in ("pitch_class_overlap", "bar_jaccard", "bigram_reuse", "duration_overlap"):
        assert found[name] == pytest.approx(1)
    for name in ("density_ratio", "register_shift", "velocity_distance", "polyphony_ratio"):
        assert found[name] == pytest.approx(0)


def test_transposing_prompt_and_answer_together_changes_no_measure() -> None:
    for call in calls():
        prompt, answer = call.heard, Passage.of(call.target)
        up = [replace(each, pitch=each.pitch + 5) for each in (prompt, answer)]
        assert relation(*up) == pytest.approx(relation(prompt, answer))


@pytest.mark.parametrize("up", [0, 1, 7, 11])
def test_the_scale_is_that_of_the_key(up: int) -> None:
    major = passage([(step, pitch + up) for step, pitch in C_MAJOR])
    assert scale_of(major) == {(pitch + up) % 12 for pitch in (0, 2, 4, 5, 7, 9, 11)}
    minor = passage([(i * 12, 57 + up + s) for i, s in enumerate((0, 3, 7, 0, 8, 7, 5, 3, 2, 0, 11, 0, 12, 7, 3, 0))])
    assert scale_of(minor) == {(9 + up + s) % 12 for s in (0, 2, 3, 5, 7, 8, 10, 11)}


def test_pitch_classes_overlap_by_their_smaller_shares() -> None:
    answer = passage([(0, 72), (12, 61), (24, 61), (36, 61)])  # C, three C sharps; the prompt has C 3/7
    assert measures.pitch_class_overlap(PROMPT, answer) == pytest.approx(1 / 4)


def test_notes_outside_the_prompts_key_are_counted() -> None:
    answer = passage([(0, 61), (12, 60), (24, 62), (36, 66)])
    assert measures.in_prompt_key(passage(C_MAJOR), answer) == pytest.approx(2 / 4)


def test_groove_compares_the_onsets_of_all_pairs_of_bars_in_sixteenths() -> None:
    one_beat = passage([(48 * bar, 60) for bar in range(4)])
    two_beats = passage([(48 * bar + beat, 60) for bar in range(4) for beat in (0, 24)])
    assert measures.groove_similarity(one_beat, two_beats) == pytest.approx(15 / 16)
    half = passage([(0, 60), (48, 60), (96 + 24, 60), (144 + 24, 60)])  # two bars alike, two with two differences
    assert measures.groove_similarity(one_beat, half) == pytest.approx((1 + 14 / 16) / 2)
    within_a_sixteenth = passage([(48 * bar + 2, 60) for bar in range(4)])
    assert measures.groove_similarity(one_beat, within_a_sixteenth) == 1


def test_density_is_compared_by_the_bar_and_in_both_directions() -> None:
    once, twice = passage([(0, 60)], bars=1), passage([(0, 60), (12, 60), (48, 60), (60, 60)], bars=2)
    assert measures.density_ratio(once, twice) == measures.density_ratio(twice, once) == pytest.approx(np.log(2))


def test_a_bar_comes_back_as_far_as_its_likest_prompt_bar_has_it() -> None:
    prompt = passage([(0, 60), (12, 62), (48, 70)], bars=4)
    answer = passage([(48, 60), (60, 62), (72, 64), (144, 71)], bars=4)  # two of three; then a bar like none
    assert measures.bar_jaccard(prompt, answer) == pytest.approx((2 / 3 + 0) / 2)


def test_bigrams_are_of_neighbouring_pitches_with_their_direction() -> None:
    answer = passage([(0, 60), (6, 64), (12, 60), (18, 64)])  # up is in the prompt twice of three, down is not
    assert measures.bigram_reuse(PROMPT, answer) == pytest.approx(2 / 3)
    assert measures.bigram_reuse(PROMPT, passage([(0, 60)])) == 0


def test_register_velocity_duration_and_polyphony() -> None:
    low = passage([(0, 60, 12, 40), (12, 62, 12, 60)])
    high = passage([(0, 70, 24, 60), (0, 75, 24, 80)])
    assert measures.register_shift(low, high) == pytest.approx(72.5 - 61)
    assert measures.velocity_distance(low, high) == pytest.approx(20)
    assert measures.duration_overlap(low, high) == 0
    assert measures.duration_overlap(low, passage([(0, 60, 12), (12, 60, 48)])) == pytest.approx(0.5)
    assert measures.polyphony_ratio(low, high) == pytest.approx(np.log(2))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="without notes"):
        relation(PROMPT, passage([]))
    with pytest.raises(ValueError, match="different meters"):
        relation(PROMPT, passage([(0, 60)], meter=Meter(3, 4)))
    four, three = PROMPT, passage([(0, 60)], meter=Meter(3, 4))
    assert four.bar_steps != three.bar_steps
    with pytest.raises(AntiphonError, match="one meter"):
        Passage.of([])
