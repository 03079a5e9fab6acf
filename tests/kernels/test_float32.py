from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from antiphon_kernels import float32
from antiphon_kernels.jit import piece


@piece
def _exp_all(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = float32.exp(x[i])


@piece
def _sigmoid_all(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = float32.sigmoid(x[i])


@piece
def _tanh_all(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = float32.tanh(x[i])


def test_exp_is_within_two_units_in_the_last_place() -> None:
    x = np.concatenate([np.linspace(-87, 88, 200_001), np.linspace(-1, 1, 100_001)]).astype(np.float32)
    out = np.full_like(x, np.nan)
    _exp_all(x, out)
    expected = np.exp(x.astype(np.float64))
    assert (np.abs(out - expected) / np.spacing(expected.astype(np.float32))).max() <= 2


def test_far_arguments_are_clamped_and_a_nan_stays_one() -> None:
    x = np.array([-1e30, -np.inf, 1e30, np.inf, np.nan], np.float32)
    out = np.zeros_like(x)
    _exp_all(x, out)
    assert (out[:2] < 2e-38).all()
    assert (out[:2] > 0).all()
    assert (out[2:4] > 1e38).all()
    assert np.isfinite(out[2:4]).all()
    assert np.isnan(out[4])


@pytest.mark.parametrize(
    ("fast", "true"), [(_sigmoid_all, lambda x: 1 / (1 + np.exp(-x))), (_tanh_all, np.tanh)], ids=["sigmoid", "tanh"]
)
def test_sigmoid_and_tanh_are_within_3e_7(fast: Any, true: Any) -> None:
    x = np.linspace(-80, 80, 200_001).astype(np.float32)
    out = np.full_like(x, np.nan)
    fast(x, out)
    assert np.abs(out - true(x.astype(np.float64))).max() < 3e-7
