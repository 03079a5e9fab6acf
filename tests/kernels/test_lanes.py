from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from antiphon_kernels.jit import piece
from antiphon_kernels.lanes import LANES, dot, total


@piece
def _dot(a: Any, b: Any) -> Any:
    return dot(a, b)


@piece
def _total(a: Any) -> Any:
    return total(a)


def in_the_written_order(products: np.ndarray) -> np.float32:
    """The sum by the definition in `lanes.py`, for products that are exact in float32."""
    whole = products.size // LANES * LANES
    lanes = np.zeros(LANES, np.float32)
    for row in products[:whole].reshape(-1, LANES):
        lanes = lanes + row
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    result = lanes[0]
    for product in products[whole:]:
        result = result + product
    return np.float32(result)


@pytest.mark.parametrize("size", [0, 1, 16, 63, 64, 65, 128, 256, 1000])
def test_sums_come_in_the_written_order_to_the_bit(size: int) -> None:
    rng = np.random.default_rng(size)
    a = (rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4, size)).astype(np.float32)
    assert _total(a) == in_the_written_order(a)
    powers = np.float32(2) ** rng.integers(-3, 4, size).astype(np.float32)  # so that the products are exact
    assert _dot(a, powers) == in_the_written_order(a * powers)


def test_another_order_would_be_seen() -> None:
    a = (np.random.default_rng(0).standard_normal(1000) * 1e3).astype(np.float32)
    assert _total(a) != in_the_written_order(np.sort(a))


def test_a_product_and_its_sum_are_rounded_once() -> None:
    tiny = 2.0**-12
    # -1 + (1 + t)^2 = 2t + t^2; rounded in between, t^2 would be lost.
    a, b = np.array([-1.0, 1 + tiny], np.float32), np.array([1.0, 1 + tiny], np.float32)
    assert _dot(a, b) == np.float32(2 * tiny + tiny**2)
