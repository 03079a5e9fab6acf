"""Races: everyone runs in every round, and what is told is what was measured (S3-050)."""

from __future__ import annotations

import pytest

from antiphon.engine.bench import Contender, race


def counting(name: str, said: list[str], figures: list[float]) -> Contender:
    def run() -> list[float]:
        said.append(name)
        return [figures.pop(0), figures.pop(0)]

    return Contender(name=name, threads=1, run=run)


def test_contenders_take_turns_and_keep_all_their_figures() -> None:
    said: list[str] = []
    heard: list[int] = []
    contenders = [counting("a", said, [1.0, 9.0, 2.0, 4.0]), counting("b", said, [5.0, 6.0, 7.0, 8.0])]
    a, b = race(contenders, rounds=2, progress=heard.append)
    assert said == ["a", "b", "a", "b"]
    assert heard == [1, 2, 3, 4]
    assert (a.figures, a.median, a.best) == ((1.0, 9.0, 2.0, 4.0), 3.0, 9.0)
    assert (b.name, b.figures) == ("b", (5.0, 6.0, 7.0, 8.0))


def test_a_contender_that_fails_ends_the_race() -> None:
    def run() -> list[float]:
        raise OSError("no such peer")

    with pytest.raises(OSError, match="no such peer"):
        race([Contender(name="x", threads=1, run=run)], rounds=1)
