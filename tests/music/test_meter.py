"""Meters, their lengths, and maps of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.music.meter import BarLine, Meter, MeterMap
from tests.music.material import METERS


@pytest.mark.parametrize(
    ("text", "ticks", "steps", "beat"),
    [
        ("4/4", 3840, 48, 960),
        ("3/4", 2880, 36, 960),
        ("6/8", 2880, 36, 1440),
        ("3/8", 1440, 18, 480),
        ("12/8", 5760, 72, 1440),
        ("9/16", 2160, 27, 720),
        ("2/2", 3840, 48, 1920),
        ("3/2", 5760, 72, 1920),
        ("1/1", 3840, 48, 3840),
    ],
)
def test_lengths(text: str, ticks: int, steps: int, beat: int) -> None:
    meter = Meter.parse(text)
    assert (meter.len_ticks, meter.len_steps, meter.beat_ticks) == (ticks, steps, beat)
    assert str(meter) == text


@pytest.mark.parametrize("text", ["", "4", "4/3", "0/4", "4/0", "-4/4", "256/4", "4/64", "4/4/4", "four/4", "4.0/4"])
def test_what_is_no_meter_is_refused(text: str) -> None:
    with pytest.raises(AntiphonError, match="is not a meter"):
        Meter.parse(text)


def test_a_bar_line_off_the_grid_is_refused() -> None:
    assert Meter(8, 32).len_steps == 12
    with pytest.raises(AntiphonError, match="1/32"):
        _ = Meter(1, 32).len_steps


def test_halves_are_counted_in_quarters() -> None:
    assert Meter(3, 2).in_quarters == Meter(6, 4)
    assert Meter(1, 1).in_quarters == Meter(4, 4)
    assert Meter(6, 8).in_quarters == Meter(6, 8)


def test_common_time_until_the_first_meter() -> None:
    meters = MeterMap.of([(7680, Meter(3, 4))])
    assert [(line.tick, str(line.meter)) for line in meters.bars(until_tick=12_000)] == [
        (0, "4/4"),
        (3840, "4/4"),
        (7680, "3/4"),
        (10_560, "3/4"),
    ]


def test_a_change_within_a_bar_waits_for_the_next_bar_line() -> None:
    meters = MeterMap.of([(0, Meter(4, 4)), (100, Meter(3, 4))])
    assert meters.changes == (BarLine(0, 0, Meter(4, 4)), BarLine(1, 3840, Meter(3, 4)))


def test_of_changes_within_one_bar_the_last_one_counts() -> None:
    meters = MeterMap.of([(0, Meter(4, 4)), (100, Meter(3, 4)), (200, Meter(5, 4))])
    assert meters.changes == (BarLine(0, 0, Meter(4, 4)), BarLine(1, 3840, Meter(5, 4)))


@given(
    changes=st.lists(st.tuples(st.integers(0, 60_000), st.sampled_from(METERS)), max_size=6),
    tick=st.integers(0, 100_000),
)
def test_bars_lie_side_by_side_and_are_found_by_tick_and_by_number(changes: list[tuple[int, Meter]], tick: int) -> None:
    meters = MeterMap.of(changes)
    lines = list(meters.bars(until_tick=tick + 1))
    assert [line.number for line in lines] == list(range(len(lines)))
    assert lines[0].tick == 0
    assert all(line.end_tick == after.tick for line, after in pairwise(lines))
    assert lines[-1].tick <= tick < lines[-1].end_tick
    assert meters.bar_at(tick) == lines[-1]
    assert all(meters.bar(line.number) == line and meters.bar_at(line.tick) == line for line in lines)
    assert list(meters.bars(first=len(lines) - 1, until_tick=tick + 1)) == lines[-1:]


@given(changes=st.lists(st.tuples(st.integers(0, 60_000), st.sampled_from(METERS)), max_size=6))
def test_no_change_comes_early_or_later_than_the_next_bar_line(changes: list[tuple[int, Meter]]) -> None:
    meters = MeterMap.of(changes)
    by_tick = {0: Meter(4, 4)} | dict(sorted(changes, key=lambda change: change[0]))
    for line in meters.bars(until_tick=61_000):
        assert line.meter == by_tick[max(tick for tick in by_tick if tick <= line.tick)]
