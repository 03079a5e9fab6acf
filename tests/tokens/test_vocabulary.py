"""The vocabulary: its ids, its bins, and the grid that it is made from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.music.meter import Meter
from antiphon.tokens.remi import miditok_for
from antiphon.tokens.vocabulary import BAR, BOS, EOS, PAD, Grid, Vocabulary
from tests.music.material import BPMS, VELOCITIES

SMALL = Grid(
    lowest=0,
    highest=127,
    velocities=32,
    longest_quarters=12,
    tempos=16,
    slowest_bpm=30,
    fastest_bpm=300,
    meters=(Meter(3, 4), Meter(4, 4), Meter(6, 8), Meter(4, 16)),
)


@pytest.mark.parametrize("grid", [Grid(), SMALL], ids=["default", "small"])
def test_the_table_is_miditoks_own(grid: Grid) -> None:
    vocabulary = Vocabulary(grid)
    assert miditok_for(grid).vocab == vocabulary.ids
    assert len(vocabulary.ids) == vocabulary.size


def test_every_id_has_a_name_and_back() -> None:
    vocabulary = Vocabulary()
    names = [vocabulary.name(token) for token in range(vocabulary.size)]
    assert names[:4] == ["PAD_None", "BOS_None", "EOS_None", "Bar_None"]
    assert (PAD, BOS, EOS, BAR) == (0, 1, 2, 3)
    assert [vocabulary.ids[name] for name in names] == list(range(vocabulary.size))
    for token in (-1, vocabulary.size):
        with pytest.raises(AntiphonError, match="outside the vocabulary"):
            vocabulary.name(token)


def test_values_go_there_and_back() -> None:
    vocabulary = Vocabulary()
    for pitch in range(21, 109):
        assert vocabulary.pitch_of(vocabulary.pitch_id(pitch)) == pitch
    for len_steps in range(1, vocabulary.longest_steps + 1):
        assert vocabulary.duration_of(vocabulary.duration_id(len_steps)) == len_steps
    for step in range(len(vocabulary.positions)):
        assert vocabulary.position_of(vocabulary.position_id(step)) == step
    for meter in vocabulary.grid.meters:
        assert vocabulary.meter_of(vocabulary.meter_id(meter)) == meter


@pytest.mark.parametrize(
    ("write", "value"),
    [("pitch_id", 20), ("pitch_id", 109), ("duration_id", 0), ("duration_id", 97), ("position_id", -1)],
)
def test_what_lies_outside_is_refused(write: str, value: int) -> None:
    with pytest.raises(IndexError):
        getattr(Vocabulary(), write)(value)


@given(velocity=st.integers(1, 127))
def test_the_nearest_velocity(velocity: int) -> None:
    vocabulary = Vocabulary()
    told = vocabulary.velocity_of(vocabulary.velocity_id(velocity))
    assert abs(told - velocity) == min(abs(each - velocity) for each in VELOCITIES)


@given(bpm=st.floats(1, 1000))
def test_the_nearest_tempo(bpm: float) -> None:
    vocabulary = Vocabulary()
    told = vocabulary.bpm_of(vocabulary.tempo_id(bpm))
    assert abs(told - bpm) == min(abs(each - bpm) for each in BPMS)


@pytest.mark.parametrize(("meter", "same"), [("2/2", "4/4"), ("3/2", "6/4"), ("4/2", "8/4"), ("1/1", "4/4")])
def test_halves_have_the_ids_of_quarters(meter: str, same: str) -> None:
    vocabulary = Vocabulary()
    assert vocabulary.meter_id(Meter.parse(meter)) == vocabulary.meter_id(Meter.parse(same))


@pytest.mark.parametrize("meter", ["3/32", "100/16", "200/4", "100/2"])
def test_an_unknown_meter_is_an_error_and_never_common_time(meter: str) -> None:
    with pytest.raises(AntiphonError, match=f"knows no bars of {meter}"):
        Vocabulary().meter_id(Meter.parse(meter))


@pytest.mark.parametrize("grid", [Grid(), SMALL], ids=["default", "small"])
def test_a_grid_goes_through_json(grid: Grid) -> None:
    assert Grid.from_json(grid.to_json()) == grid


def altered(**changes: object) -> str:
    return json.dumps(json.loads(Grid().to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '"remi-quarter"',
        altered(kind="remi"),
        altered(steps_per_quarter=8),
        altered(more=1),
        altered(meters=4),
        altered(meters=["4/3"]),
        altered(meters=[]),
        altered(meters=["4/4", "4/4"]),
        altered(meters=["3/2"]),
        altered(lowest=22),
        altered(highest=107),
        altered(highest=128),
        altered(velocities=0),
        altered(velocities=16.5),
        altered(velocities="16"),
        altered(tempos=1),
        altered(slowest_bpm=250),
        altered(longest_quarters=7),
        json.dumps({k: v for k, v in json.loads(Grid().to_json()).items() if k != "velocities"}),
    ],
)
def test_what_is_no_grid_is_refused(text: str) -> None:
    with pytest.raises(AntiphonError):
        Grid.from_json(text)
