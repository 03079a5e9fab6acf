"""The compiled step is compared with its definition before it is used, and switched off where it differs (S0-086)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from model.any_version import SPECS, random_weights

from antiphon.engine.cpu_proof import Logits, play, proven_interleave
from antiphon.engine.cpu_runner import CpuRunner
from antiphon.errors import AntiphonError
from antiphon.model.precision import Precision
from antiphon.model.source import Source, open_source
from antiphon_kernels.linear.processor import vnni_bits


@pytest.fixture(params=["4", "5.0", "5.2", "6", "7"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    torch.save(random_weights(SPECS[request.param]), tmp_path / "model.pth")
    return open_source(tmp_path / "model.pth")


def wrong_bytes(runner: CpuRunner) -> Logits:
    """What a processor might give whose byte products are wrong: all of it a twentieth too large."""
    return [row * 1.05 for row in play(runner)] if runner.program.weights.dtype == np.uint8 else play(runner)


def test_the_step_of_every_version_and_precision_is_proven_here(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    for precision in Precision:
        assert proven_interleave(source, precision) == (vnni_bits() > 0)
    assert not caplog.records


@pytest.mark.skipif(not vnni_bits(), reason="this processor has no byte products that could be wrong")
def test_byte_products_that_are_wrong_are_switched_off_loudly(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert not proven_interleave(source, Precision.INT8, played=wrong_bytes)
    assert "byte products differs from its definition" in caplog.text


@pytest.mark.parametrize("wrong", [np.nan, 0.0])
def test_a_step_that_differs_either_way_is_refused(
    source: Source, wrong: float, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(runner: CpuRunner) -> Logits:
        return [row * np.float32(wrong) for row in play(runner)]

    with pytest.raises(AntiphonError, match="not give its own numbers"):
        proven_interleave(source, Precision.INT8, played=broken)
    assert "in plain instructions differs" in caplog.text
