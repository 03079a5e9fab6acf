from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from antiphon_kernels.float64 import exp
from antiphon_kernels.jit import kernel

Doubles = npt.NDArray[np.float64]


@kernel
def _all(x: Doubles, y: Doubles) -> None:
    for i in range(x.size):
        y[i] = exp(x[i])


def exp_of(*numbers: float) -> Doubles:
    x = np.array(numbers)
    y = np.full(x.size, np.nan)
    _all(x, y)
    return y


def test_exp_is_within_two_ulp_of_the_definition() -> None:
    x = np.concatenate([np.linspace(-708, 709, 20_001), np.linspace(-1, 1, 20_001), np.geomspace(1e-300, 1, 1000)])
    expected = np.array([math.exp(one) for one in x])
    off = np.abs(exp_of(*x) - expected) / np.spacing(expected)
    assert off.max() <= 2


def test_exp_at_its_ends() -> None:
    assert exp_of(0.0, -0.0).tolist() == [1.0, 1.0]
    assert exp_of(-708.5, -1e300, -np.inf).tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(exp_of(np.nan)).all()


@pytest.mark.parametrize(
    ("x", "bits"), [(-1.0, 0x3FD78B56362CEF38), (-0.1, 0x3FECF46D99D52B3A), (-37.5, 0x3C8DD5C566301EC8)]
)
def test_exp_has_these_bits_on_every_processor(x: float, bits: int) -> None:
    assert exp_of(x).view(np.int64)[0] == bits
