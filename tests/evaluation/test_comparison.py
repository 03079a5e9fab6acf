"""Columns that speak of the same bars, intervals over songs, and differences with their sign (S2-110)."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.evaluation.comparison import Measured, compare
from antiphon.evaluation.likelihood import Scored
from antiphon.evaluation.windows import Window


def measured(*, context: int, target: int = 40, song: str = "a", notes: int = 10, **nats: float) -> Measured:
    window = Window(file=f"{song}.mid", start_bar=target - context, context_bars=context, bars=4)
    return Measured(
        window=window, song=song, notes=notes, systems={name: Scored(value, 50) for name, value in nats.items()}
    )


def many() -> list[Measured]:
    """Twenty songs with two targets each; the model gains 0.1 nats a note from the longer context."""
    rng = np.random.default_rng(0)
    rows = []
    for song in range(20):
        for target in (40, 60):
            notes, hard = int(rng.integers(5, 40)), rng.normal(3, 0.5)
            for context, gain in ((4, 0.0), (16, 0.1)):
                noise = rng.normal(0, 0.02)
                nats = {"model": notes * (hard - gain + noise), "ngram": notes * (hard + 2)}
                rows.append(measured(context=context, target=target, song=str(song), notes=notes, **nats))
    return rows


def test_a_column_is_all_nats_over_all_notes() -> None:
    rows = many()
    (four, sixteen) = compare(rows).complete
    assert (four.context_bars, four.targets, four.songs) == (4, 40, 20)
    for column, context in ((four, 4), (sixteen, 16)):
        there = [row for row in rows if row.window.context_bars == context]
        assert column.notes == sum(row.notes for row in there)
        for name, found in column.systems.items():
            assert found.value == pytest.approx(sum(row.systems[name].nats for row in there) / column.notes)
            assert found.low < found.value < found.high


def test_differences_are_of_the_model_less_the_other_and_paired() -> None:
    (four, sixteen) = compare(many()).complete
    assert four.longer is None
    assert sixteen.longer is not None
    assert sixteen.longer.difference.value == pytest.approx(-0.1, abs=0.02)
    assert sixteen.longer.difference.high < -0.05
    against = four.against["ngram"]
    assert against.difference.value == pytest.approx(-2, abs=0.02)
    assert against.difference.high - against.difference.low < 0.1  # what is hard for both is not in it
    assert (against.songs_lower, against.songs) == (20, 20)
    assert list(four.against) == ["ngram"]


def test_only_targets_with_every_context_are_in_the_main_table() -> None:
    rows = many()
    short = [measured(context=4, target=4, song=f"short {n}", model=99.0, ngram=99.0) for n in range(5)]
    with_short, without = compare([*rows, *short]), compare(rows)
    assert with_short.complete == without.complete
    assert [column.targets for column in with_short.every] == [45, 40]
    assert with_short.every[0].songs == 25
    assert with_short.every[1].systems == without.complete[1].systems
    assert all(column.longer is None for column in with_short.every)


def test_the_order_of_the_windows_and_repeats_do_not_count() -> None:
    rows = many()
    assert compare([*rows[::-1], rows[3]]) == compare(rows)


def test_windows_without_a_common_target_have_no_main_table() -> None:
    rows = [measured(context=4, target=8, model=30.0), measured(context=8, target=20, model=20.0)]
    found = compare(rows)
    assert found.complete == ()
    assert [column.systems["model"].value for column in found.every] == [3.0, 2.0]


def test_the_p_values_of_a_table_are_adjusted_for_each_other() -> None:
    plain = compare(many()).plain()
    against = [column["against"]["ngram"] for column in plain["complete"]]
    family = [*against, plain["complete"][1]["longer"]]
    assert plain["complete"][0]["longer"] is None
    smallest = min(one["p"] for one in family)
    assert min(one["p_holm"] for one in family) == pytest.approx(3 * smallest)
    assert all(one["p_holm"] >= one["p"] for one in family)


def test_a_window_is_told_as_it_stands_in_a_file_with_its_systems() -> None:
    row = measured(context=4, model=31.5, ngram=70.0)
    assert row.plain() == {
        "file": "a.mid",
        "start_bar": 36,
        "context_bars": 4,
        "bars": 4,
        "systems": {
            "model": {"nats": 31.5, "notes": 10, "tokens": 50},
            "ngram": {"nats": 70.0, "notes": 10, "tokens": 50},
        },
    }
