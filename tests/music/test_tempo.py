"""Ticks, steps and tempos."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.music.tempo import TempoMap
from antiphon.music.time import TICKS_PER_STEP, rescale, snap_to_step


@given(tick=st.integers(0, 10**7))
def test_the_nearest_step(tick: int) -> None:
    step = snap_to_step(tick)
    assert -TICKS_PER_STEP // 2 <= tick - step * TICKS_PER_STEP < TICKS_PER_STEP // 2


def test_the_last_half_step_belongs_to_the_next() -> None:
    assert snap_to_step(3839 - 40) == 47
    assert snap_to_step(3840 - 40) == 48


@given(ticks=st.integers(0, 10**9), division=st.integers(1, 32_767))
def test_rescaling_rounds_to_the_nearest(ticks: int, division: int) -> None:
    assert abs(rescale(ticks, from_per_quarter=division) * division - ticks * 960) * 2 <= division
    assert rescale(ticks, from_per_quarter=960) == ticks


def test_120_until_the_first_tempo() -> None:
    tempos = TempoMap.of([(960, 60.0)])
    assert [tempos.bpm_at(tick) for tick in (0, 959, 960, 10**9)] == [120.0, 120.0, 60.0, 60.0]
    assert TempoMap().bpm_at(5) == 120.0


def test_at_one_tick_the_last_tempo_counts() -> None:
    assert TempoMap.of([(0, 90.0), (480, 70.0), (0, 100.0)]).changes == ((0, 100.0), (480, 70.0))


@pytest.mark.parametrize(("tick", "seconds"), [(0, 0.0), (480, 0.25), (960, 0.5), (1920, 1.5), (2880, 1.75)])
def test_seconds(tick: int, seconds: float) -> None:
    assert TempoMap.of([(960, 60.0), (1920, 240.0)]).seconds_at(tick) == pytest.approx(seconds)
