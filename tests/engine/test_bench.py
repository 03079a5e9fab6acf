from __future__ import annotations

from pathlib import Path

from antiphon.engine import bench
from antiphon.engine.loaded import LoadedModel


def test_every_contender_is_measured_in_every_round(model_file: Path) -> None:
    heard: list[int] = []
    report = bench.measure(model_file, rounds=2, progress=heard.append)
    assert heard == [1, 2]
    kinds = [(speed.name, speed.threads, speed.timelines) for speed in report.speeds]
    assert kinds == [("fast step", 1, 1), ("fast step", 2, 2), ("PyTorch step", 1, 1), ("PyTorch step", 2, 1)]
    for speed in report.speeds:
        assert len(speed.rounds) == 2
        assert 0 < min(speed.rounds) <= speed.median <= speed.best
    assert report.open_s > 0
    assert report.fork_us > 0
    assert report.sample_us > 0
    assert report.packed_bytes > report.state_bytes > 0


def test_the_ids_to_decode_are_the_models_own_and_the_same_every_time(model: LoadedModel) -> None:
    ids = bench.drawn_ids(model, 40)
    assert len(ids) == 40
    assert ids == bench.drawn_ids(model, 40)
    assert len(set(ids)) > 5
